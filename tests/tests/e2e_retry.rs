//! A statement that loses is run again by the server, where its client has been told nothing yet.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::thread;

use gcs::playground::NodeNumber;
use postgres::Client;
use postgres::error::SqlState;
use postgres_r_tests::harness::{self, Group, node};

const ROUNDS: i64 = 150;

/// One session on each node counts the same row up; gives the number of losses that clients saw, and checks the sum.
fn count_on_all_nodes(
    group: &Group,
    table: &str,
    settings: &str,
    once: impl Fn(&mut Client, &str) -> Result<(), postgres::Error> + Sync,
) -> i64 {
    group.execute(
        node(1),
        &format!("CREATE TABLE {table} (id int PRIMARY KEY, n bigint); INSERT INTO {table} VALUES (1, 0)"),
    );
    group.settle();
    let count_here = |number: NodeNumber| {
        let mut client = group.connect(number);
        client.batch_execute(settings).unwrap();
        let mut losses = 0;
        for _ in 0..ROUNDS {
            while let Err(error) = once(&mut client, table) {
                assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE), "{error:?}");
                losses += 1;
            }
        }
        losses
    };
    let losses = thread::scope(|scope| {
        let counters: Vec<_> = group.numbers().into_iter().map(|number| scope.spawn(move || count_here(number))).collect();
        counters.into_iter().map(|counter| counter.join().unwrap()).sum()
    });
    group.settle();
    let total = (ROUNDS * group.numbers().len() as i64).to_string();
    assert_eq!(group.values(&format!("SELECT n FROM {table}")), vec![total; group.numbers().len()]);
    losses
}

fn retries(group: &Group) -> i64 {
    group.values("SELECT retries FROM postgres_r.pg_stat_postgres_r").iter().map(|value| value.parse::<i64>().unwrap()).sum()
}

const PATIENT: &str = "SET postgres_r.retry_autocommit = 1000";

fn simple(client: &mut Client, table: &str) -> Result<(), postgres::Error> {
    client.batch_execute(&format!("UPDATE {table} SET n = n + 1 WHERE id = 1"))
}

fn prepared(client: &mut Client, table: &str) -> Result<(), postgres::Error> {
    let rows = client.query(&format!("UPDATE {table} SET n = n + $1 WHERE id = 1 RETURNING n"), &[&1i64])?;
    assert_eq!(rows.len(), 1, "rows of a try that was undone");
    Ok(())
}

#[test]
fn clients_of_single_statements_hardly_ever_see_a_loss() {
    let group = harness::shared();
    for (table, once) in [("counted_simply", simple as fn(&mut Client, &str) -> _), ("counted_prepared", prepared)] {
        let before = retries(&group);
        let losses = count_on_all_nodes(&group, table, PATIENT, once);
        let made = retries(&group) - before;
        println!("{table}: {made} retries, {losses} losses that clients saw");
        // One that loses while its plan is being made, or whose Sync comes late, cannot be run again.
        assert!(made > 0 && losses * 20 <= made, "{table}: {losses} losses that clients saw, {made} retries");
    }
    harness::assert_equal(&group);
}

fn upsert(client: &mut Client, table: &str) -> Result<(), postgres::Error> {
    client.batch_execute(&format!("INSERT INTO {table} VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET n = {table}.n + 1"))
}

fn with_a_part(client: &mut Client, table: &str) -> Result<(), postgres::Error> {
    client.batch_execute(&format!("WITH w AS (UPDATE {table} SET n = n + 1 WHERE id = 1 RETURNING n) SELECT n FROM w"))
}

fn merge(client: &mut Client, table: &str) -> Result<(), postgres::Error> {
    client.batch_execute(&format!(
        "MERGE INTO {table} t USING (VALUES (1)) v (id) ON t.id = v.id WHEN MATCHED THEN UPDATE SET n = t.n + 1"
    ))
}

/// With every setting as it is, whichever way the row is changed: all three nodes change it all the time, so that two of three tries lose.
#[test]
fn single_statements_on_one_row_come_through_on_all_nodes_as_settings_are() {
    let group = harness::shared();
    let before = retries(&group);
    let (mut losses, mut statements) = (0, 0);
    for (table, once) in [
        ("hot_updated", simple as fn(&mut Client, &str) -> _),
        ("hot_prepared", prepared),
        ("hot_upserted", upsert),
        ("hot_with", with_a_part),
        ("hot_merged", merge),
    ] {
        let lost = count_on_all_nodes(&group, table, "", once);
        println!("{table}: {lost} losses that clients saw");
        losses += lost;
        statements += ROUNDS * 3;
    }
    println!("{losses} of {statements} lost; {} retries", retries(&group) - before);
    // One that loses while its plan is being made, or whose Sync comes late, cannot be run again.
    assert!(losses * 200 <= statements, "{losses} of {statements} statements were lost");
    harness::assert_equal(&group);
}

/// The bound in time: a statement that keeps losing is not run again for ever, and not as often as the setting would allow.
#[test]
fn a_statement_that_always_loses_is_given_up_when_its_time_is_over() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE slow (id int PRIMARY KEY, n bigint); INSERT INTO slow VALUES (1, 0)");
    group.settle();
    let over = std::sync::atomic::AtomicBool::new(false);
    let tries = thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = group.connect(node(1));
            while !over.load(std::sync::atomic::Ordering::SeqCst) {
                client.batch_execute("UPDATE slow SET n = n + 1").unwrap();
            }
        });
        let mut client = group.connect(node(2));
        // Else the row would be hot, and waited for.
        client.batch_execute("SET postgres_r.commit_timeout = '200ms'; SET postgres_r.row_locks = 'local'").unwrap();
        let before: i64 = group.value(node(2), "SELECT retries FROM postgres_r.pg_stat_postgres_r").parse().unwrap();
        // It always loses: while it sleeps, the row is changed elsewhere.
        let done = client.batch_execute("UPDATE slow SET n = n - 1 WHERE id = 1 RETURNING pg_sleep(0.3)");
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        let lost = done.unwrap_err();
        assert_eq!(lost.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE), "{lost:?}");
        group.value(node(2), "SELECT retries FROM postgres_r.pg_stat_postgres_r").parse::<i64>().unwrap() - before
    });
    println!("given up after {tries} tries");
    assert!((5..100).contains(&tries), "{tries} tries");
    harness::assert_equal(&group);
}

#[test]
fn what_must_not_be_run_again_tells_its_client_of_the_loss() {
    let group = harness::shared();
    let in_block = |client: &mut Client, table: &str| {
        let done = client.batch_execute(&format!("BEGIN; UPDATE {table} SET n = n + 1 WHERE id = 1; COMMIT"));
        if done.is_err() {
            client.batch_execute("ROLLBACK").unwrap();
        }
        done
    };
    let with_another = |client: &mut Client, table: &str| {
        client.batch_execute(&format!("SELECT 1; UPDATE {table} SET n = n + 1 WHERE id = 1"))
    };
    let before = retries(&group);
    assert!(count_on_all_nodes(&group, "not_in_a_block", PATIENT, in_block) > 0);
    assert!(count_on_all_nodes(&group, "not_with_another", PATIENT, with_another) > 0);
    assert!(count_on_all_nodes(&group, "not_when_switched_off", "SET postgres_r.retry_autocommit = 0", simple) > 0);
    let above = "SET default_transaction_isolation = 'repeatable read'";
    assert!(count_on_all_nodes(&group, "not_above_read_committed", &format!("{above}; {PATIENT}"), simple) > 0);
    assert_eq!(retries(&group), before);
    harness::assert_equal(&group);
}

#[test]
fn an_error_of_the_statement_itself_comes_through_whole() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE parents (id int PRIMARY KEY);
         CREATE TABLE own_errors (id int PRIMARY KEY, parent int, part int CHECK (part > 0),
             CONSTRAINT late FOREIGN KEY (parent) REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
         INSERT INTO own_errors VALUES (1, NULL, 1)",
    );
    group.settle();
    let mut client = group.connect(node(2));
    for (statement, code, constraint) in [
        ("INSERT INTO own_errors VALUES (1, NULL, 1)", SqlState::UNIQUE_VIOLATION, "own_errors_pkey"),
        ("INSERT INTO own_errors VALUES (2, NULL, 0)", SqlState::CHECK_VIOLATION, "own_errors_part_check"),
        // Found at the end of the transaction, which the group must not have committed by then.
        ("INSERT INTO own_errors VALUES (3, 7, 1)", SqlState::FOREIGN_KEY_VIOLATION, "late"),
    ] {
        for extended in [false, true] {
            let done = if extended { client.execute(statement, &[]).map(drop) } else { client.batch_execute(statement) };
            let error = done.unwrap_err();
            let error = error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error}"));
            assert_eq!((error.code(), error.constraint(), error.table()), (&code, Some(constraint), Some("own_errors")));
        }
    }
    client.batch_execute("INSERT INTO own_errors VALUES (4, NULL, 1)").unwrap();
    assert_eq!(client.execute("UPDATE own_errors SET part = part + 1", &[]).unwrap(), 2);
    harness::assert_equal(&group);
}

#[test]
fn a_statement_with_modifying_parts_does_them_once() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE parts (id serial PRIMARY KEY, what text);
         CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN INSERT INTO parts (what) VALUES ('after ' || new.what); RETURN NULL; END$$;
         CREATE TRIGGER follow AFTER INSERT ON parts FOR EACH ROW WHEN (new.what IN ('a', 'b', 'c')) EXECUTE FUNCTION follow()",
    );
    group.settle();
    let mut client = group.connect(node(3));
    client
        .batch_execute(
            "WITH x AS (INSERT INTO parts (what) VALUES ('a') RETURNING id) INSERT INTO parts (what) VALUES ('b')",
        )
        .unwrap();
    let selected = client.query("WITH x AS (INSERT INTO parts (what) VALUES ('c') RETURNING what) SELECT what FROM x", &[]);
    assert_eq!(selected.unwrap().len(), 1);
    group.settle();
    let all = "SELECT string_agg(what, ' ' ORDER BY what) FROM parts";
    assert_eq!(group.values(all), ["a after a after b after c b c"; 3]);
    harness::assert_equal(&group);
}

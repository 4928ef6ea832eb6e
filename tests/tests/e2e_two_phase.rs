//! PREPARE TRANSACTION, COMMIT PREPARED and ROLLBACK PREPARED in the group (ADR 61): prepared on one node, decided on any, whatever becomes of the first.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use gcs::playground::group::describe;
use gcs::playground::{NodeNumber, Part};
use postgres::Client;
use postgres_r_tests::harness::database::Database;
use postgres_r_tests::harness::{self, Group, Shared, node};

const WITHIN: Duration = Duration::from_secs(30);

/// A group whose servers allow prepared transactions.
fn group() -> Shared {
    let group = harness::shared();
    for number in group.numbers() {
        if group.value(number, "current_setting('max_prepared_transactions')") == "0" {
            group.execute(number, "ALTER SYSTEM SET max_prepared_transactions = 20");
            restart(&group, number);
        }
    }
    group.settle();
    group
}

fn restart(group: &Group, number: NodeNumber) {
    group.kill(number, Part::Postgres);
    group.start_node(number);
}

fn run(client: &mut Client, statements: &[&str]) {
    for statement in statements {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {}", describe(&error)));
    }
}

/// The SQLSTATE and all that the error says.
fn failure(client: &mut Client, statement: &str) -> (String, String) {
    let error = client.batch_execute(statement).expect_err(statement);
    (error.code().map(|code| code.code().to_owned()).unwrap_or_default(), describe(&error))
}

fn code(client: &mut Client, statement: &str) -> String {
    failure(client, statement).0
}

fn is_empty_everywhere(group: &Group) {
    group.settle();
    let counts = group.values("SELECT count(*) FROM postgres_r.prepared");
    assert!(counts.iter().all(|count| count == "0"), "{counts:?}");
}

const TABLE: &str = "DROP TABLE IF EXISTS account; CREATE TABLE account (id int PRIMARY KEY, amount int NOT NULL);
    INSERT INTO account SELECT n, 100 FROM generate_series(1, 10) n";

fn with_accounts(group: &Group) {
    group.execute(node(1), TABLE);
    group.settle();
}

#[test]
fn what_one_node_prepares_another_commits_or_rolls_back() {
    let group = group();
    with_accounts(&group);
    let mut first = group.connect(node(1));
    run(
        &mut first,
        &[
            "BEGIN; UPDATE account SET amount = amount - 10 WHERE id = 1; INSERT INTO account VALUES (11, 7)",
            "SAVEPOINT s; DELETE FROM account WHERE id = 2; ROLLBACK TO s; DELETE FROM account WHERE id = 3",
            "PREPARE TRANSACTION 'it''s one'",
        ],
    );
    // The session is in no transaction, and sees what it has prepared; nobody sees what that has changed.
    let row = first.query_one("SELECT gid, owner, bytes > 0 FROM postgres_r.prepared_transactions", &[]).unwrap();
    assert_eq!(
        (row.get::<_, String>(0), row.get::<_, String>(1), row.get::<_, bool>(2)),
        ("it's one".into(), "postgres".into(), true)
    );
    group.settle();
    let sums =
        group.values("SELECT string_agg(id || ':' || amount, ' ' ORDER BY id) FROM account WHERE id IN (1, 2, 3, 11)");
    assert!(sums.iter().all(|sum| sum == "1:100 2:100 3:100"), "{sums:?}");
    run(&mut group.connect(node(2)), &["COMMIT PREPARED 'it''s one'"]);
    assert_eq!(group.value(node(2), "SELECT amount FROM account WHERE id = 1"), "90", "visible where it was decided");
    is_empty_everywhere(&group);
    let sums =
        group.values("SELECT string_agg(id || ':' || amount, ' ' ORDER BY id) FROM account WHERE id IN (1, 2, 3, 11)");
    assert!(sums.iter().all(|sum| sum == "1:90 2:100 11:7"), "{sums:?}");

    run(&mut first, &["BEGIN; DELETE FROM account; PREPARE TRANSACTION 'two'"]);
    run(&mut group.connect(node(3)), &["ROLLBACK PREPARED 'two'"]);
    is_empty_everywhere(&group);
    let counts = group.values("SELECT count(*) FROM account");
    assert!(counts.iter().all(|count| count == "10"), "{counts:?}");
    // The rows are free again.
    run(&mut group.connect(node(2)), &["UPDATE account SET amount = 0"]);
    harness::assert_equal(&group);
}

#[test]
fn what_is_prepared_keeps_everybody_off_its_rows_until_it_is_decided_on() {
    let group = group();
    with_accounts(&group);
    let mut first = group.connect(node(1));
    run(
        &mut first,
        &[
            "BEGIN; UPDATE account SET amount = 1 WHERE id = 1; SELECT FROM account WHERE id = 5 FOR UPDATE; INSERT INTO account VALUES (20, 1)",
            "PREPARE TRANSACTION 'keeps'",
        ],
    );
    group.settle();
    for number in group.numbers() {
        let mut client = group.connect(number);
        for statement in [
            "UPDATE account SET amount = 2 WHERE id = 1",
            "DELETE FROM account WHERE id = 5",
            "INSERT INTO account VALUES (20, 3)",
            "TRUNCATE account",
            "ALTER TABLE account ADD COLUMN more int",
            "BEGIN; SELECT FROM account WHERE id = 1 FOR UPDATE; INSERT INTO account VALUES (30, 1); COMMIT",
        ] {
            let (code, text) = failure(&mut client, statement);
            assert_eq!(code, "40001", "{statement}: {text}");
            let _ = client.batch_execute("ROLLBACK");
        }
        let (_, text) = failure(&mut client, "UPDATE account SET amount = 2 WHERE id = 1");
        assert!(text.contains("\"keeps\"") && text.contains("(id)=(1)"), "{text}");
        // What does not meet it goes on.
        run(
            &mut client,
            &[
                "UPDATE account SET amount = amount + 1 WHERE id = 2",
                &format!("INSERT INTO account VALUES ({}, 0)", 100 + number.0),
            ],
        );
    }
    run(&mut group.connect(node(2)), &["COMMIT PREPARED 'keeps'"]);
    run(&mut group.connect(node(2)), &["UPDATE account SET amount = amount + 1 WHERE id = 1", "TRUNCATE account"]);
    is_empty_everywhere(&group);
    harness::assert_equal(&group);
}

#[test]
fn whoever_has_seen_less_than_was_prepared_loses_against_it() {
    let group = group();
    with_accounts(&group);
    let (mut first, mut second) = (group.connect(node(1)), group.connect(node(2)));
    run(&mut second, &["BEGIN; UPDATE account SET amount = 5 WHERE id = 4"]);
    run(&mut first, &["BEGIN; UPDATE account SET amount = 6 WHERE id = 4; PREPARE TRANSACTION 'earlier'"]);
    assert_eq!(code(&mut second, "COMMIT"), "40001");
    run(&mut first, &["ROLLBACK PREPARED 'earlier'"]);
    // And the other way round: it is certified when it is prepared. Whenever the session hears of it, afterwards it is in no transaction, as on one server.
    for round in 0..20 {
        group.settle();
        run(&mut second, &["BEGIN; UPDATE account SET amount = 5 WHERE id = 6"]);
        run(&mut first, &["BEGIN; UPDATE account SET amount = 6 WHERE id = 6"]);
        run(&mut second, &["COMMIT"]);
        thread::sleep(Duration::from_micros(500 * round));
        let (sqlstate, text) = failure(&mut first, "PREPARE TRANSACTION 'later'");
        assert_eq!(sqlstate, "40001", "{text}");
        run(&mut first, &["SELECT 1"]);
    }
    is_empty_everywhere(&group);
    harness::assert_equal(&group);
}

#[test]
fn it_outlives_its_node_and_every_server() {
    let group = group();
    with_accounts(&group);
    run(
        &mut group.connect(node(1)),
        &["BEGIN; UPDATE account SET amount = 77 WHERE id = 7; PREPARE TRANSACTION 'survivor'"],
    );
    group.kill(node(1), Part::Both);
    let mut second = group.connect(node(2));
    assert_eq!(code(&mut second, "UPDATE account SET amount = 2 WHERE id = 7"), "40001");
    for number in [node(2), node(3)] {
        restart(&group, number);
    }
    group.becomes(node(3), "SELECT count(*) FROM postgres_r.prepared_transactions", "1", WITHIN);
    let mut third = group.connect(node(3));
    assert_eq!(code(&mut third, "UPDATE account SET amount = 3 WHERE id = 7"), "40001");
    run(&mut third, &["COMMIT PREPARED 'survivor'"]);
    assert_eq!(group.value(node(3), "SELECT amount FROM account WHERE id = 7"), "77");
    group.start_node(node(1));
    is_empty_everywhere(&group);
    harness::assert_equal(&group);
}

#[test]
fn a_node_that_joins_knows_what_is_prepared() {
    let mut group = Group::start();
    for number in group.numbers() {
        group.execute(number, "ALTER SYSTEM SET max_prepared_transactions = 20");
        restart(&group, number);
    }
    group.settle();
    with_accounts(&group);
    run(&mut group.connect(node(1)), &["BEGIN; UPDATE account SET amount = 77 WHERE id = 7; PREPARE TRANSACTION 'older'"]);
    // Whatever was ordered before is gone from memory, and the checkpoint is what the new daemon begins with.
    group.add_node().unwrap();
    group.reload();
    group.settle();
    let mut fourth = group.connect(node(4));
    assert_eq!(code(&mut fourth, "UPDATE account SET amount = 3 WHERE id = 7"), "40001");
    run(&mut fourth, &["COMMIT PREPARED 'older'"]);
    is_empty_everywhere(&group);
    let amounts = group.values("SELECT amount FROM account WHERE id = 7");
    assert!(amounts.iter().all(|amount| amount == "77"), "{amounts:?}");
    harness::assert_equal(&group);
}

#[test]
fn of_all_who_decide_at_once_one_does() {
    let group = group();
    with_accounts(&group);
    for round in 0..10 {
        run(
            &mut group.connect(node(1)),
            &[&format!("BEGIN; UPDATE account SET amount = {round} WHERE id = 8; PREPARE TRANSACTION 'race'")],
        );
        let barrier = Arc::new(Barrier::new(4));
        let statements =
            ["COMMIT PREPARED 'race'", "ROLLBACK PREPARED 'race'", "COMMIT PREPARED 'race'", "ROLLBACK PREPARED 'race'"];
        let deciders: Vec<_> = statements
            .into_iter()
            .enumerate()
            .map(|(which, statement)| {
                let (mut client, barrier) = (group.connect(node(which % 3 + 1)), Arc::clone(&barrier));
                thread::spawn(move || {
                    barrier.wait();
                    match client.batch_execute(statement) {
                        Ok(()) => "done".to_owned(),
                        Err(error) => error.code().map(|code| code.code().to_owned()).unwrap_or_default(),
                    }
                })
            })
            .collect();
        let mut outcomes: Vec<String> = deciders.into_iter().map(|decider| decider.join().unwrap()).collect();
        outcomes.sort();
        assert_eq!(outcomes, ["42704", "42704", "42704", "done"]);
    }
    is_empty_everywhere(&group);
    harness::assert_equal(&group);
}

#[test]
fn a_transaction_that_changed_nothing_can_be_prepared_too() {
    let group = group();
    with_accounts(&group);
    let mut first = group.connect(node(1));
    run(&mut first, &["BEGIN; SELECT count(*) FROM account; PREPARE TRANSACTION 'reader'"]);
    run(
        &mut first,
        &["BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM account; PREPARE TRANSACTION 'serializable reader'"],
    );
    run(
        &mut group.connect(node(2)),
        &["UPDATE account SET amount = 1", "COMMIT PREPARED 'reader'", "ROLLBACK PREPARED 'serializable reader'"],
    );
    is_empty_everywhere(&group);
}

#[test]
fn what_a_serializable_transaction_has_read_stands_until_it_is_decided_on() {
    let group = group();
    with_accounts(&group);
    let mut first = group.connect(node(1));
    run(
        &mut first,
        &[
            "CREATE TABLE IF NOT EXISTS seen (total bigint)",
            "BEGIN ISOLATION LEVEL SERIALIZABLE",
            "INSERT INTO seen SELECT sum(amount) FROM account",
            "PREPARE TRANSACTION 'total'",
        ],
    );
    assert_eq!(code(&mut group.connect(node(2)), "UPDATE account SET amount = 1 WHERE id = 1"), "40001");
    run(&mut group.connect(node(3)), &["COMMIT PREPARED 'total'", "UPDATE account SET amount = 1 WHERE id = 1"]);
    is_empty_everywhere(&group);
    harness::assert_equal(&group);
}

/// Of two that are prepared, the first must be free to commit whatever becomes of the second.
#[test]
fn what_has_read_what_a_prepared_transaction_changes_is_not_prepared_itself() {
    let group = group();
    with_accounts(&group);
    let (mut reader, mut writer) = (group.connect(node(2)), group.connect(node(1)));
    run(
        &mut reader,
        &[
            "BEGIN ISOLATION LEVEL SERIALIZABLE",
            "SELECT * FROM account WHERE id = 1; UPDATE account SET amount = 0 WHERE id = 2",
        ],
    );
    run(&mut writer, &["BEGIN; UPDATE account SET amount = 1 WHERE id = 1; PREPARE TRANSACTION 'writes'"]);
    let (code, text) = failure(&mut reader, "PREPARE TRANSACTION 'reads'");
    assert_eq!(code, "40001", "{text}");
    run(&mut reader, &["COMMIT PREPARED 'writes'"]);
    is_empty_everywhere(&group);
    let amounts = group.value(node(3), "(SELECT string_agg(amount::text, ' ' ORDER BY id) FROM account WHERE id < 3)");
    assert_eq!(amounts, "1 100");
    harness::assert_equal(&group);
}

#[test]
fn deferred_constraints_are_checked_before_it_is_prepared() {
    let group = group();
    group.execute(
        node(1),
        "DROP TABLE IF EXISTS child, parent; CREATE TABLE parent (id int PRIMARY KEY);
         CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
         CREATE OR REPLACE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO parent VALUES (NEW.id + 1000); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER late AFTER INSERT ON child DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION noted()",
    );
    group.settle();
    let mut first = group.connect(node(1));
    assert_eq!(code(&mut first, "BEGIN; INSERT INTO child VALUES (1, 1); PREPARE TRANSACTION 'orphan'"), "23503");
    run(
        &mut first,
        &[
            "SELECT 1",
            "BEGIN; SAVEPOINT s; INSERT INTO child VALUES (1, 1); SAVEPOINT t; INSERT INTO parent VALUES (1); PREPARE TRANSACTION 'family'",
        ],
    );
    assert_eq!(code(&mut group.connect(node(2)), "INSERT INTO parent VALUES (1001)"), "40001");
    run(&mut group.connect(node(2)), &["COMMIT PREPARED 'family'"]);
    assert_eq!(group.value(node(2), "SELECT string_agg(id::text, ' ' ORDER BY id) FROM parent"), "1 1001");
    is_empty_everywhere(&group);
    harness::assert_equal(&group);
}

#[test]
fn whoever_recovers_finds_it_in_pg_prepared_xacts() {
    let group = group();
    with_accounts(&group);
    group.execute(node(1), "DROP ROLE IF EXISTS teller; CREATE ROLE teller LOGIN; GRANT ALL ON account TO teller");
    group.settle();
    let mut first = group.connect(node(1));
    run(
        &mut first,
        &["SET ROLE teller", "BEGIN; UPDATE account SET amount = 1 WHERE id = 1; PREPARE TRANSACTION 'found'", "RESET ROLE"],
    );
    group.settle();
    for number in group.numbers() {
        let found = "SELECT string_agg(concat_ws(' ', gid, owner, database, prepared BETWEEN now() - interval '1 minute' AND now()), ',') FROM pg_prepared_xacts";
        assert_eq!(group.value(number, found), "found teller shop t");
        assert_eq!(
            group.value(
                number,
                "SELECT count(*) FROM postgres_r.prepared_transactions WHERE gid = 'found' AND owner = 'teller'"
            ),
            "1"
        );
    }
    let mut second = group.connect(node(2));
    run(&mut second, &["SET ROLE teller"]);
    assert_eq!(code(&mut second, "SELECT * FROM postgres_r.prepared"), "42501");
    run(&mut second, &["SELECT * FROM postgres_r.prepared_transactions"]);
    group.execute(node(1), "DROP ROLE IF EXISTS other; CREATE ROLE other LOGIN");
    group.settle();
    run(&mut second, &["RESET ROLE; SET ROLE other"]);
    let (sqlstate, text) = failure(&mut second, "COMMIT PREPARED 'found'");
    assert_eq!(sqlstate, "42501", "{text}");
    run(&mut second, &["RESET ROLE; SET ROLE teller", "COMMIT PREPARED 'found'", "RESET ROLE"]);
    is_empty_everywhere(&group);
    group.execute(node(1), "DROP OWNED BY teller; DROP ROLE teller, other");
}

#[test]
fn what_postgresql_refuses_is_refused_and_what_a_node_keeps_for_itself() {
    let group = group();
    with_accounts(&group);
    group.execute(node(1), "CREATE UNLOGGED TABLE IF NOT EXISTS own (id int)");
    group.settle();
    let mut first = group.connect(node(1));
    for (before, wanted) in [
        ("CREATE TEMP TABLE IF NOT EXISTS t1 (id int)", "0A000"),
        ("LISTEN here", "0A000"),
        ("NOTIFY here", "0A000"),
        ("SELECT pg_export_snapshot()", "0A000"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "0A000"),
        ("CREATE TABLE made (id int)", "0A000"),
        ("TRUNCATE account", "0A000"),
        ("INSERT INTO own VALUES (1)", "0A000"),
        ("SELECT pg_advisory_xact_lock(1)", "0A000"),
        ("INSERT INTO account VALUES (1, 1)", "23505"),
    ] {
        let statement = format!("BEGIN; UPDATE account SET amount = 2 WHERE id = 2; {before}");
        let failed = first.batch_execute(&statement);
        let result = failed.and_then(|()| first.batch_execute("PREPARE TRANSACTION 'no'"));
        let found = result.expect_err(before).code().map(|code| code.code().to_owned());
        assert_eq!(found.as_deref(), Some(wanted), "{before}");
        let _ = first.batch_execute("ROLLBACK");
    }
    let long = "x".repeat(200);
    assert_eq!(code(&mut first, &format!("BEGIN; PREPARE TRANSACTION '{long}'")), "22023");
    run(
        &mut first,
        &[&format!("BEGIN; PREPARE TRANSACTION '{}'", &long[1..]), &format!("ROLLBACK PREPARED '{}'", &long[1..])],
    );
    assert_eq!(code(&mut first, "COMMIT PREPARED 'nothing'"), "42704");
    run(&mut first, &["BEGIN; UPDATE account SET amount = 3 WHERE id = 3; PREPARE TRANSACTION 'twice'"]);
    for number in group.numbers() {
        assert_eq!(code(&mut group.connect(number), "BEGIN; PREPARE TRANSACTION 'twice'"), "42710");
    }
    assert_eq!(code(&mut first, "BEGIN; COMMIT PREPARED 'twice'"), "25001");
    run(&mut first, &["ROLLBACK"]);
    // A block that has failed is rolled back, and nothing is prepared outside of one.
    let _ = first.batch_execute("BEGIN; SELECT 1 / 0");
    run(&mut first, &["PREPARE TRANSACTION 'failed'", "PREPARE TRANSACTION 'none'", "SELECT 1", "COMMIT PREPARED 'twice'"]);
    is_empty_everywhere(&group);
    harness::assert_equal(&group);
}

#[test]
fn a_large_one_is_kept_and_committed_and_a_larger_one_refused() {
    let group = group();
    group.execute(node(1), "DROP TABLE IF EXISTS large; CREATE TABLE large (id int PRIMARY KEY, t text)");
    group.settle();
    let mut first = group.connect(node(1));
    run(
        &mut first,
        &[
            "BEGIN; INSERT INTO large SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 10000) n; PREPARE TRANSACTION 'large'",
            "COMMIT PREPARED 'large'",
        ],
    );
    assert_eq!(group.value(node(1), "SELECT count(*) FROM large"), "10000");
    run(&mut first, &["BEGIN; INSERT INTO large SELECT n, repeat(md5(n::text), 3000) FROM generate_series(20001, 20500) n"]);
    assert_eq!(code(&mut first, "PREPARE TRANSACTION 'larger'"), "54000");
    is_empty_everywhere(&group);
    harness::assert_equal(&group);
}

#[test]
fn the_list_is_written_by_nobody_else_and_a_database_does_not_leave_with_it() {
    let group = group();
    let database = Database::replicated(&group, "two_phases");
    database.execute(node(1), "CREATE TABLE t (id int PRIMARY KEY)");
    database.stop(node(2)).unwrap();
    database.stop(node(3)).unwrap();
    let mut client = database.connect(node(1));
    run(&mut client, &["BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'last'"]);
    let row = client.query_one("SELECT gid FROM postgres_r.prepared_transactions", &[]).unwrap();
    assert_eq!(row.get::<_, String>(0), "last");
    for statement in
        ["DELETE FROM postgres_r.prepared", "UPDATE postgres_r.prepared SET owner = ''", "TRUNCATE postgres_r.prepared"]
    {
        assert_ne!(code(&mut client, statement), "", "{statement}");
    }
    let refused = database.stop(node(1)).expect_err("the last node leaves with a prepared transaction");
    assert_eq!(refused.code().map(|code| code.code()), Some("55006"), "{}", describe(&refused));
    run(&mut client, &["COMMIT PREPARED 'last'"]);
    assert_eq!(database.value(node(1), "SELECT count(*) FROM t"), "1");
    drop(client);
    database.stop(node(1)).unwrap();
    database.end();
}

/// What a client has heard of its prepared transactions, by number.
#[derive(Default)]
struct Heard {
    committed: Vec<i64>,
    rolled_back: Vec<i64>,
    /// Prepared, and not decided on.
    left: Vec<i64>,
}

/// Moves amounts in two phases until it is told to end. A decision that is not heard of is as good as none.
fn transfers(group: &Group, who: usize, is_over: &AtomicBool) -> Heard {
    let mut heard = Heard::default();
    let mut number = who as i64 * 1_000_000;
    while !is_over.load(Ordering::SeqCst) {
        number += 1;
        let (home, decider) = (node(who % 3 + 1), node((number as usize + who) % 3 + 1));
        let Ok(mut client) = group.try_connect(home) else {
            thread::yield_now();
            continue;
        };
        let (from, to) = (number % 10 + 1, (number / 3 + 5) % 10 + 1);
        let statement = format!(
            "BEGIN; UPDATE account SET amount = amount - 1 WHERE id = {from}; UPDATE account SET amount = amount + 1 WHERE id = {to};
             INSERT INTO moved VALUES ({number}); PREPARE TRANSACTION '{number}'"
        );
        if client.batch_execute(&statement).is_err() {
            continue;
        }
        let phase = if number % 3 == 0 { "ROLLBACK" } else { "COMMIT" };
        let decided =
            group.try_connect(decider).and_then(|mut client| client.batch_execute(&format!("{phase} PREPARED '{number}'")));
        match (decided, phase) {
            (Ok(()), "COMMIT") => heard.committed.push(number),
            (Ok(()), _) => heard.rolled_back.push(number),
            // These say that nothing was decided; anything else, that perhaps it was after all.
            (Err(error), _) => {
                let definite = ["25006", "57P03", "53000"];
                if error.code().is_some_and(|code| definite.contains(&code.code())) {
                    heard.left.push(number);
                }
            }
        }
    }
    heard
}

#[test]
fn what_was_heard_of_prepared_transactions_holds_whatever_is_killed() {
    let group = group();
    with_accounts(&group);
    group.execute(node(1), "DROP TABLE IF EXISTS moved; CREATE TABLE moved (number bigint PRIMARY KEY)");
    group.settle();
    let is_over = AtomicBool::new(false);
    let heard: Vec<Heard> = thread::scope(|scope| {
        let (group, is_over) = (&*group, &is_over);
        let clients: Vec<_> = (0..4).map(|who| scope.spawn(move || transfers(group, who, is_over))).collect();
        let plain = scope.spawn(move || {
            while !is_over.load(Ordering::SeqCst) {
                let Ok(mut client) = group.try_connect(node(2)) else { continue };
                let _ = client.batch_execute("BEGIN; UPDATE account SET amount = amount - 1 WHERE id = 3; UPDATE account SET amount = amount + 1 WHERE id = 4; COMMIT");
            }
        });
        thread::sleep(harness::workload_seconds() / 3);
        group.kill_each_in_turn(|| {
            group.settle();
        });
        thread::sleep(harness::workload_seconds() / 3);
        is_over.store(true, Ordering::SeqCst);
        plain.join().unwrap();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    group.settle();
    let numbers = |of: fn(&Heard) -> &Vec<i64>| heard.iter().flat_map(of).copied().collect::<Vec<_>>();
    let (committed, rolled_back, left) = (numbers(|h| &h.committed), numbers(|h| &h.rolled_back), numbers(|h| &h.left));
    println!("{} committed, {} rolled back, {} left", committed.len(), rolled_back.len(), left.len());
    assert!(committed.len() > 10 && rolled_back.len() > 5);
    for number in group.numbers() {
        let mut client = group.connect(number);
        let count = |client: &mut Client, table: &str, column: &str, of: &[i64]| {
            let rows = client
                .query_one(&format!("SELECT count(*) FROM {table} WHERE {column}::bigint = ANY ($1)"), &[&of])
                .unwrap();
            rows.get::<_, i64>(0) as usize
        };
        assert_eq!(count(&mut client, "moved", "number", &committed), committed.len(), "node {}", number.0);
        assert_eq!(count(&mut client, "moved", "number", &rolled_back), 0, "node {}", number.0);
        assert_eq!(count(&mut client, "moved", "number", &left), 0, "node {}", number.0);
        assert_eq!(count(&mut client, "postgres_r.prepared", "gid", &left), left.len(), "node {}", number.0);
        assert_eq!(group.value(number, "SELECT sum(amount) FROM account"), "1000");
    }
    let mut client = group.connect(node(3));
    for row in client.query("SELECT gid FROM pg_prepared_xacts", &[]).unwrap() {
        run(&mut client, &[&format!("COMMIT PREPARED '{}'", row.get::<_, String>(0))]);
    }
    is_empty_everywhere(&group);
    assert_eq!(group.value(node(1), "SELECT sum(amount) FROM account"), "1000");
    harness::assert_equal(&group);
}

#[test]
fn where_it_is_disabled_postgresql_says_so() {
    let group = Group::start_nodes(1);
    let mut client = group.connect(node(1));
    assert_eq!(
        code(&mut client, "CREATE TABLE t (id int); BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'off'"),
        "55000"
    );
}

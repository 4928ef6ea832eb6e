//! Large transactions, and long statements, are applied on the other nodes before they are ordered (ADR 50): nobody there waits for them, and whatever goes wrong on the
//! way, they arrive as if nobody had tried.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::thread;
use std::time::Duration;

use gcs::playground::{NodeNumber, Part};
use postgres::{Client, Error};
use postgres_r_tests::harness::{self, Group, node, race, wait};

/// Far above what it takes: what does not come within it does not come.
const WITHIN: Duration = Duration::from_secs(60);

const ROWS: u32 = 20_000;

fn code(error: &Error) -> String {
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
}

/// The group, with a table made anew. Every transaction of a session that says so is applied ahead.
fn group() -> harness::Shared {
    let group = harness::shared();
    group.execute(node(1), "DROP TABLE IF EXISTS many, few");
    group.execute(node(1), "CREATE TABLE many (id int PRIMARY KEY, n int DEFAULT 0, note text)");
    group.execute(node(1), "CREATE TABLE few (id int PRIMARY KEY, n int DEFAULT 0)");
    group.execute(node(1), "INSERT INTO few SELECT generate_series(1, 10)");
    group.settle();
    group
}

/// A session whose transactions are applied ahead, however small.
fn eager(group: &Group, number: NodeNumber) -> Client {
    let mut client = group.connect(number);
    client.batch_execute("SET postgres_r.apply_ahead_size = 0").unwrap();
    client
}

fn fill() -> String {
    format!("INSERT INTO many SELECT i, i, md5(i::text) FROM generate_series(1, {ROWS}) i")
}

/// What forerunners have committed on a node, and what they did in vain.
fn ahead(group: &Group, number: NodeNumber) -> (i64, i64) {
    let mut client = group.connect(number);
    let row =
        client.query_one("SELECT applied_ahead::int8, ahead_lost::int8 FROM postgres_r.pg_stat_postgres_r", &[]).unwrap();
    (row.get(0), row.get(1))
}

fn forerunners_in_transactions(client: &mut Client) -> i64 {
    let query = "SELECT count(*) FROM pg_stat_activity a JOIN pg_locks l USING (pid)
                 WHERE backend_type = 'postgres_r forerunner' AND locktype = 'transactionid'";
    client.query_one(query, &[]).unwrap().get(0)
}

fn wait_for_forerunner(client: &mut Client, there: bool) {
    wait::until("a forerunner with a transaction, or none", WITHIN, || {
        let found = forerunners_in_transactions(client);
        if (found > 0) == there { Ok(()) } else { Err(format!("{found}")) }
    });
}

fn assert_rows(group: &Group, rows: u32) {
    group.settle();
    harness::assert_equal(group);
    assert_eq!(group.values("SELECT count(*) FROM many"), vec![rows.to_string(); 3]);
}

/// A session on node 3 that keeps whatever is applied there from going on, so that the asker has to wait.
fn holding_up(group: &Group) -> Client {
    let mut client = group.connect(node(3));
    client.batch_execute("SET postgres_r.table_locks = 'local'; BEGIN; LOCK TABLE many IN SHARE MODE").unwrap();
    client
}

#[test]
fn a_large_transaction_is_committed_by_those_who_had_applied_it() {
    let group = group();
    let before = [2, 3].map(|number| ahead(&group, node(number)));
    let mut client = eager(&group, node(1));
    client.batch_execute(&fill()).unwrap();
    client
        .batch_execute(
            "BEGIN; UPDATE many SET n = n + 1 WHERE id % 2 = 0; SAVEPOINT a; DELETE FROM many; ROLLBACK TO a; COMMIT",
        )
        .unwrap();
    client.batch_execute("UPDATE many SET id = -id WHERE id % 3 = 0").unwrap();
    assert_rows(&group, ROWS);
    for (number, (applied, lost)) in [2, 3].into_iter().zip(before) {
        assert_eq!(ahead(&group, node(number)), (applied + 3, lost), "node {number}");
    }
}

#[test]
fn small_ones_are_not_and_nothing_is_where_it_is_turned_off() {
    let group = group();
    let before = ahead(&group, node(2));
    group.execute(node(1), "UPDATE few SET n = n + 1");
    let mut client = group.connect(node(1));
    client.batch_execute("SET postgres_r.apply_ahead_size = -1").unwrap();
    client.batch_execute(&fill()).unwrap();
    assert_rows(&group, ROWS);
    assert_eq!(ahead(&group, node(2)), before);
}

#[test]
fn statements_are_applied_ahead_and_a_long_one_by_itself() {
    let group = group();
    group.execute(node(1), &fill());
    group.settle();
    let (before, _) = ahead(&group, node(2));
    let mut client = eager(&group, node(1));
    client.batch_execute("CREATE INDEX many_note ON many (note)").unwrap();
    client.batch_execute("BEGIN; ALTER TABLE many ADD extra int DEFAULT 7; UPDATE many SET extra = id; COMMIT").unwrap();
    // It takes longer than it is tried for.
    client.batch_execute("RESET postgres_r.apply_ahead_size; SET postgres_r.rehearsal_timeout = 1").unwrap();
    client
        .batch_execute("CREATE INDEX many_both ON many (md5(note || id)); CREATE TABLE IF NOT EXISTS few (id int)")
        .unwrap();
    assert_rows(&group, ROWS);
    assert_eq!(group.values("SELECT count(*) FROM pg_indexes WHERE tablename = 'many'"), vec!["3"; 3]);
    assert_eq!(group.values("SELECT count(*) FROM many WHERE extra = id"), vec![ROWS.to_string(); 3]);
    assert_eq!(ahead(&group, node(2)).0, before + 3);
}

#[test]
fn what_cannot_run_there_is_an_error_of_the_client() {
    let group = group();
    // In a database that is not replicated.
    let mut server = group.playground.connect(node(1), "postgres").unwrap();
    server.batch_execute("CREATE ROLE only_here").unwrap();
    let mut client = eager(&group, node(1));
    client.batch_execute("SET postgres_r.rehearsal_timeout = 0").unwrap();
    let error = client.batch_execute("GRANT SELECT ON many TO only_here").unwrap_err();
    let db_error = error.as_db_error().unwrap();
    assert!(code(&error) == "42704" && db_error.detail().unwrap().contains("only_here"), "{error:?}");
    server.batch_execute("DROP ROLE only_here").unwrap();
    client.batch_execute(&fill()).unwrap();
    assert_rows(&group, ROWS);
}

#[test]
fn a_session_in_the_way_keeps_it_from_being_applied_ahead_and_not_from_being_committed() {
    let group = group();
    let (before, _) = ahead(&group, node(3));
    let mut idle = holding_up(&group);
    let mut client = eager(&group, node(1));
    client.batch_execute(&fill()).unwrap();
    assert_rows(&group, ROWS);
    let error = idle.batch_execute("SELECT 1").unwrap_err();
    assert!(code(&error) == "40001" || idle.is_closed(), "{error:?}");
    assert_eq!(ahead(&group, node(3)).0, before);
}

#[test]
fn a_transaction_that_is_canceled_meanwhile_leaves_nothing_behind() {
    let group = group();
    let idle = holding_up(&group);
    let mut there = group.connect(node(2));
    let mut client = eager(&group, node(1));
    let cancel = client.cancel_token();
    let failed = thread::scope(|scope| {
        let running = scope.spawn(|| client.batch_execute(&fill()));
        wait_for_forerunner(&mut there, true);
        cancel.cancel_query(postgres::NoTls).unwrap();
        running.join().unwrap()
    });
    assert_eq!(code(&failed.unwrap_err()), "57014");
    wait_for_forerunner(&mut there, false);
    drop(idle);
    assert_rows(&group, 0);
    client.batch_execute(&fill()).unwrap();
    assert_rows(&group, ROWS);
}

/// In the middle of a statement a forerunner reads nothing of what gcs sends.
#[test]
fn a_forerunner_that_is_busy_with_a_statement_hears_that_it_is_over() {
    let group = group();
    let port = group.value(node(1), "SELECT current_setting('port')");
    // Whoever builds the index on another node would be at it for a day.
    let slow = format!(
        "CREATE OR REPLACE FUNCTION slow(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
         $$ BEGIN IF current_setting('port') <> '{port}' THEN PERFORM pg_sleep(10000); END IF; RETURN n; END $$"
    );
    group.execute(node(1), &slow);
    group.settle();
    let mut there = group.connect(node(2));
    let mut client = eager(&group, node(1));
    client.batch_execute("SET postgres_r.rehearsal_timeout = 1").unwrap();
    let cancel = client.cancel_token();
    let failed = thread::scope(|scope| {
        let running = scope.spawn(|| client.batch_execute("CREATE INDEX slowly ON few (slow(id))"));
        wait_for_forerunner(&mut there, true);
        cancel.cancel_query(postgres::NoTls).unwrap();
        running.join().unwrap()
    });
    assert_eq!(code(&failed.unwrap_err()), "57014");
    wait_for_forerunner(&mut there, false);
    assert_rows(&group, 0);
}

/// Ends the origin in some way while others have applied what it is about to submit.
fn survives(end: impl Fn(&Group, i32)) {
    let group = group();
    let idle = holding_up(&group);
    let mut there = group.connect(node(2));
    let mut client = eager(&group, node(1));
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    thread::scope(|scope| {
        let running = scope.spawn(|| client.batch_execute(&fill()));
        wait_for_forerunner(&mut there, true);
        end(&group, pid);
        assert!(running.join().unwrap().is_err());
    });
    wait_for_forerunner(&mut there, false);
    drop(idle);
    group.start_node(node(1));
    assert_rows(&group, 0);
    eager(&group, node(1)).batch_execute(&fill()).unwrap();
    assert_rows(&group, ROWS);
}

#[test]
fn nothing_is_left_of_one_whose_session_is_ended() {
    survives(|group, pid| group.execute(node(1), &format!("SELECT pg_terminate_backend({pid})")));
}

#[test]
fn nothing_is_left_of_one_whose_server_is_killed() {
    survives(|group, _| group.kill(node(1), Part::Postgres));
}

#[test]
fn nothing_is_left_of_one_whose_node_is_killed() {
    survives(|group, _| {
        group.kill(node(1), Part::Gcs);
        group.kill(node(1), Part::Postgres);
    });
}

/// Does something to node 2 when its forerunner has applied what node 1 is about to submit, which is kept waiting by node 3.
fn arrives_though(happens: impl Fn(&Group)) {
    let group = group();
    let idle = holding_up(&group);
    let mut there = group.connect(node(2));
    let mut client = eager(&group, node(1));
    thread::scope(|scope| {
        let running = scope.spawn(|| client.batch_execute(&fill()));
        wait_for_forerunner(&mut there, true);
        happens(&group);
        running.join().unwrap().unwrap();
    });
    drop(idle);
    group.start_node(node(2));
    assert_rows(&group, ROWS);
}

#[test]
fn the_position_is_applied_though_the_forerunner_is_ended() {
    arrives_though(|group| {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'postgres_r forerunner'";
        group.execute(node(2), end);
    });
}

#[test]
fn the_position_is_applied_though_the_daemon_is_killed() {
    arrives_though(|group| group.kill(node(2), Part::Gcs));
}

#[test]
fn the_position_is_applied_though_the_server_is_killed() {
    arrives_though(|group| group.kill(node(2), Part::Postgres));
}

#[test]
fn the_position_is_applied_though_the_manager_is_ended() {
    arrives_though(|group| {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'postgres_r manager'";
        group.execute(node(2), end);
    });
}

#[test]
fn an_earlier_position_goes_first_and_who_was_applied_ahead_loses() {
    let group = group();
    let idle = holding_up(&group);
    let mut there = group.connect(node(2));
    let mut client = eager(&group, node(1));
    let failed = thread::scope(|scope| {
        let sql = format!("BEGIN; {}; UPDATE few SET n = -1; COMMIT", fill());
        let running = scope.spawn(move || client.batch_execute(&sql));
        wait_for_forerunner(&mut there, true);
        // A row that node 2's forerunner has changed, too, and node 3's has not come to: ordered first.
        group.execute(node(3), "UPDATE few SET n = 5 WHERE id = 1");
        running.join().unwrap()
    });
    assert_eq!(code(&failed.unwrap_err()), "40001");
    drop(idle);
    assert_rows(&group, 0);
    assert_eq!(group.values("SELECT n FROM few WHERE id = 1"), vec!["5"; 3]);
    wait_for_forerunner(&mut there, false);
}

#[test]
fn who_wants_a_row_that_is_applied_ahead_waits_for_it_as_on_one_server() {
    let group = group();
    let idle = holding_up(&group);
    let mut there = group.connect(node(2));
    let mut waiter = group.connect(node(2));
    let mut client = eager(&group, node(1));
    thread::scope(|scope| {
        let sql = format!("BEGIN; UPDATE few SET n = 100 WHERE id = 1; {}; COMMIT", fill());
        let running = scope.spawn(move || client.batch_execute(&sql));
        wait_for_forerunner(&mut there, true);
        let changed = race::while_blocked(&group, (node(2), &mut waiter), "UPDATE few SET n = n + 1 WHERE id = 1", || {
            running.join().unwrap().unwrap();
        });
        assert!(changed.is_ok(), "{changed:?}");
    });
    drop(idle);
    assert_rows(&group, ROWS);
    assert_eq!(group.values("SELECT n FROM few WHERE id = 1"), vec!["101"; 3]);
}

#[test]
fn several_at_a_time_arrive_whether_there_is_a_forerunner_for_each_or_not() {
    let group = group();
    for number in 1..=6 {
        group.execute(
            node(1),
            &format!("DROP TABLE IF EXISTS many_{number}; CREATE TABLE many_{number} (id int PRIMARY KEY, note text)"),
        );
    }
    group.settle();
    thread::scope(|scope| {
        for number in 1..=6usize {
            let mut client = eager(&group, node(number % 3 + 1));
            scope.spawn(move || {
                let insert = format!("INSERT INTO many_{number} SELECT i, md5(i::text) FROM generate_series(1, {ROWS}) i");
                client.batch_execute(&insert).unwrap();
            });
        }
    });
    group.settle();
    harness::assert_equal(&group);
    for number in 1..=6 {
        assert_eq!(group.values(&format!("SELECT count(*) FROM many_{number}")), vec![ROWS.to_string(); 3]);
        group.execute(node(1), &format!("DROP TABLE many_{number}"));
    }
}

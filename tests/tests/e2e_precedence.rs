//! Nobody makes an earlier position wait: who gives way, what it is told, and that its session lives where it can.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gcs::playground::NodeNumber;
use postgres::{Client, Error};
use postgres_r_tests::harness::stopped::Stopped;
use postgres_r_tests::harness::{self, Group, node, wait};

/// Design: a deadlock between the gate and a lock is resolved within this.
const RESOLVED_WITHIN: Duration = Duration::from_secs(1);

/// postgres_r.reader_grace, and some for a slow machine.
const READER_GRACE: Duration = Duration::from_secs(5);

/// A table with ten rows, the same everywhere.
fn make_table(group: &Group, name: &str) {
    let rows = format!(
        "CREATE TABLE {name} (id int PRIMARY KEY, x int); INSERT INTO {name} SELECT n, 0 FROM generate_series(1, 10) n"
    );
    group.execute(node(1), &rows);
    group.settle();
}

/// How long until the query gives `wanted` there.
fn visible(group: &Group, number: NodeNumber, query: &str, wanted: &str) -> Duration {
    group.becomes(number, query, wanted, Duration::from_secs(20))
}

fn assert_lost(error: &Error, parts: &[&str]) {
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
    println!("{} {} / {:?}", error.code().code(), error.message(), error.detail());
    assert_eq!(error.code().code(), "40001", "{}", error.message());
    for part in parts {
        assert!(error.detail().unwrap_or_default().contains(part), "{part} is missing in: {:?}", error.detail());
    }
}

fn holder(group: &Group, statements: &str) -> Client {
    let mut client = group.connect(node(2));
    client.batch_execute(statements).unwrap();
    client
}

#[test]
fn a_running_statement_of_a_transaction_that_holds_the_row_fails_at_once() {
    let group = harness::shared_without_table_locks();
    make_table(&group, "running");
    let mut client = holder(&group, "BEGIN; UPDATE running SET x = 1 WHERE id = 3");
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| client.batch_execute("SELECT pg_sleep(30)").unwrap_err());
        wait::until("the statement runs", Duration::from_secs(5), || {
            let count = group.value(
                node(2),
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)' AND state = 'active'",
            );
            if count == "1" { Ok(()) } else { Err(count) }
        });
        group.execute(node(1), "UPDATE running SET x = 2 WHERE id = 3");
        assert!(visible(&group, node(2), "SELECT x FROM running WHERE id = 3", "2") < RESOLVED_WITHIN);
        assert_lost(&sleeper.join().unwrap(), &["public.running", "(id)=(3)", "node1", "position"]);
    });
    client.batch_execute("ROLLBACK; SELECT 1").unwrap();
    harness::assert_equal(&group);
}

#[test]
fn an_idle_session_learns_at_its_next_statement_and_lives_on() {
    let group = harness::shared_without_table_locks();
    make_table(&group, "next_statement");
    let mut client = holder(&group, "BEGIN; UPDATE next_statement SET x = 1 WHERE id = 3");
    group.execute(node(1), "UPDATE next_statement SET x = 2 WHERE id = 3");
    let error = client.batch_execute("SELECT 1").err();
    // The remote backend may not have come yet; then the commit finds out.
    let error = error.unwrap_or_else(|| client.batch_execute("COMMIT").unwrap_err());
    assert_lost(&error, &["next_statement", "node1", "position"]);
    client.batch_execute("ROLLBACK; SELECT 1").unwrap();
    harness::assert_equal(&group);
}

#[test]
fn a_session_that_stays_idle_in_a_transaction_is_ended_within_a_second() {
    let group = harness::shared_without_table_locks();
    make_table(&group, "idle");
    let mut client = holder(&group, "BEGIN; LOCK TABLE idle IN ACCESS EXCLUSIVE MODE");
    group.execute(node(1), "UPDATE idle SET x = 2 WHERE id = 3");
    let start = Instant::now();
    wait::until("applied on node 2", Duration::from_secs(20), || {
        let lag = group.value(node(2), "SELECT lag FROM postgres_r.members WHERE is_self");
        if lag == "0" { Ok(()) } else { Err(lag) }
    });
    assert!(start.elapsed() < RESOLVED_WITHIN, "{:?}", start.elapsed());
    assert!(client.batch_execute("SELECT 1").is_err());
    harness::assert_equal(&group);
}

#[test]
fn a_transaction_that_swallows_the_error_cannot_commit() {
    let group = harness::shared_without_table_locks();
    make_table(&group, "swallowed");
    let mut client = group.connect(node(2));
    thread::scope(|scope| {
        let swallower = scope.spawn(|| {
            client
                .batch_execute(
                    "DO $$ BEGIN UPDATE swallowed SET x = 1 WHERE id = 4;
                     BEGIN PERFORM pg_sleep(30); EXCEPTION WHEN query_canceled THEN NULL; END; END $$",
                )
                .unwrap_err()
        });
        wait::until("the row is held", Duration::from_secs(5), || {
            let count = group.value(node(2), "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
            if count == "1" { Ok(()) } else { Err(count) }
        });
        group.execute(node(1), "UPDATE swallowed SET x = 2 WHERE id = 4");
        assert!(visible(&group, node(2), "SELECT x FROM swallowed WHERE id = 4", "2") < RESOLVED_WITHIN);
        assert_lost(&swallower.join().unwrap(), &["node1", "position"]);
    });
    harness::assert_equal(&group);
}

/// An error after this leaves the transaction, and so its locks, as they were before the savepoint.
const SAVEPOINT: &str = "SAVEPOINT s; SELECT 1";
/// An error after this gives up the transaction's locks: the session stands in nobody's way, and lives on.
const NOTHING: &str = "SELECT 1";

/// A message that takes PostgreSQL a while to read.
fn slow_to_read(text: &str) -> String {
    format!("{}{text}", " ".repeat(300 << 20))
}

/// A session of node 2 has changed row 3 and sends `message`. While PostgreSQL reads it, node 1 changes the row, and the session is
/// told to give way: the message is there and its command has yet to run. `opened` is what the session does before it sends the message. Gives
/// the session's pid, and what `send` gave.
fn lose_while_it_is_read<R: Send>(
    group: &Group,
    (table, opened): (&str, &str),
    client: &mut Client,
    send: impl FnOnce(&mut Client) -> R + Send,
) -> (i32, R) {
    make_table(group, table);
    // The log need not have what follows.
    client.batch_execute("SET log_min_error_statement = panic").unwrap();
    client.batch_execute(&format!("BEGIN; UPDATE {table} SET x = 1 WHERE id = 3; {opened}")).unwrap();
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let stopped = Stopped::remote_backends(group, node(2));
    group.execute(node(1), &format!("UPDATE {table} SET x = 2 WHERE id = 3"));
    let sent = thread::scope(|scope| {
        let sending = scope.spawn(|| send(client));
        wait::until("the message was read", Duration::from_secs(20), || {
            let state = state_of(group, pid);
            if state == "active" { Ok(()) } else { Err(state) }
        });
        drop(stopped);
        sending.join().unwrap()
    });
    (pid, sent)
}

fn state_of(group: &Group, pid: i32) -> String {
    group.value(node(2), &format!("SELECT state FROM pg_stat_activity WHERE pid = {pid}"))
}

/// The error comes a moment before the session is through with it.
fn assert_becomes(group: &Group, pid: i32, wanted: &str) {
    wait::until(wanted, Duration::from_secs(5), || {
        let state = state_of(group, pid);
        if state == wanted { Ok(()) } else { Err(state) }
    });
}

/// Clients take a failed COMMIT for the end of the transaction, and send BEGIN.
fn assert_ends_its_block(table: &str, commit: &str) {
    let group = harness::shared_without_table_locks();
    let mut client = group.connect(node(2));
    let message = slow_to_read(commit);
    let (pid, sent) =
        lose_while_it_is_read(&group, (table, SAVEPOINT), &mut client, |client| client.batch_execute(&message));
    assert_lost(&sent.unwrap_err(), &["node1", "position"]);
    assert_becomes(&group, pid, "idle");
    client.batch_execute(&format!("BEGIN; UPDATE {table} SET x = x + 1 WHERE id = 3; COMMIT")).unwrap();
    group.settle();
    assert_eq!(group.values(&format!("SELECT x FROM {table} WHERE id = 3")), ["3", "3", "3"]);
}

#[test]
fn a_commit_that_loses_before_it_runs_ends_its_block() {
    assert_ends_its_block("committing", "COMMIT");
}

/// As on one server, where the transaction of a COMMIT AND CHAIN that fails has no successor.
#[test]
fn a_commit_and_chain_that_loses_before_it_runs_starts_no_other_transaction() {
    assert_ends_its_block("chaining", "COMMIT AND CHAIN");
}

#[test]
fn a_commit_is_known_whatever_stands_around_it() {
    assert_ends_its_block("commented", "/* the end; */ -- of it\n; END WORK; -- ROLLBACK TO s");
}

#[test]
fn a_commit_in_front_of_other_statements_ends_its_block() {
    assert_ends_its_block("in_front", "COMMIT; SELECT 1");
}

#[test]
fn a_rollback_is_not_told_that_its_transaction_lost() {
    let group = harness::shared_without_table_locks();
    let mut client = group.connect(node(2));
    let message = slow_to_read("ROLLBACK");
    let (pid, sent) =
        lose_while_it_is_read(&group, ("rolling_back", SAVEPOINT), &mut client, |client| client.batch_execute(&message));
    sent.unwrap();
    assert_becomes(&group, pid, "idle");
    harness::assert_equal(&group);
}

#[test]
fn any_other_statement_that_loses_while_it_is_read_fails_before_it_runs() {
    let group = harness::shared_without_table_locks();
    let mut client = group.connect(node(2));
    let message = slow_to_read("SELECT pg_sleep(30)");
    let start = Instant::now();
    let (pid, sent) =
        lose_while_it_is_read(&group, ("read_slowly", NOTHING), &mut client, |client| client.batch_execute(&message));
    assert_lost(&sent.unwrap_err(), &["node1", "position"]);
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert_becomes(&group, pid, "idle in transaction (aborted)");
    client.batch_execute("ROLLBACK").unwrap();
    harness::assert_equal(&group);
}

/// Its client cannot know which of them failed: the transaction is left as on one server.
#[test]
fn a_message_that_ends_in_commit_and_loses_before_leaves_a_failed_transaction() {
    let group = harness::shared_without_table_locks();
    let mut client = group.connect(node(2));
    let message = slow_to_read("SELECT 1; COMMIT");
    let (pid, sent) =
        lose_while_it_is_read(&group, ("together", NOTHING), &mut client, |client| client.batch_execute(&message));
    assert_lost(&sent.unwrap_err(), &["node1", "position"]);
    assert_becomes(&group, pid, "idle in transaction (aborted)");
    client.batch_execute("ROLLBACK").unwrap();
    harness::assert_equal(&group);
}

#[test]
fn a_reader_in_the_way_of_truncate_gets_its_grace_and_no_more() {
    let group = harness::shared_without_table_locks();
    make_table(&group, "read");
    let mut reader = holder(&group, "BEGIN; SELECT * FROM read");
    group.execute(node(1), "TRUNCATE read");
    let start = Instant::now();
    visible(&group, node(3), "SELECT count(*) FROM read", "0");
    let error = reader.batch_execute("SELECT pg_sleep(30)").unwrap_err();
    let took = start.elapsed();
    assert!(took >= READER_GRACE - Duration::from_secs(1) && took < READER_GRACE * 2, "{took:?}");
    assert_lost(&error, &["node1", "position"]);
    harness::assert_equal(&group);
}

/// Transactions of node 2 hold a share of a lock that TRUNCATEs of node 1 need exclusively, but have no key in common with
/// them: some are certified behind a TRUNCATE that waits for their lock.
#[test]
fn a_certified_transaction_behind_a_position_that_needs_its_lock_lets_it_through() {
    let group = harness::shared_without_table_locks();
    make_table(&group, "gate_read");
    group.execute(node(1), "CREATE TABLE gate_written (n serial PRIMARY KEY, who int)");
    group.settle();
    let stop = AtomicBool::new(false);
    let committed = thread::scope(|scope| {
        // Also when a TRUNCATE fails.
        let stop_at_the_end = Stop(&stop);
        let writers: Vec<_> = (0..4)
            .map(|who| {
                let (group, stop) = (&group, &stop);
                scope.spawn(move || write_beside_reading(group, who, stop))
            })
            .collect();
        let mut first = group.connect(node(1));
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            let start = Instant::now();
            first.batch_execute("TRUNCATE gate_read").unwrap();
            assert!(start.elapsed() < Duration::from_secs(5), "a TRUNCATE took {:?}", start.elapsed());
        }
        drop(stop_at_the_end);
        writers.into_iter().map(|writer| writer.join().unwrap()).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    harness::assert_equal(&group);
    let rows: i64 = group.value(node(3), "SELECT count(*) FROM gate_written").parse().unwrap();
    let yielded = group.value(node(2), "SELECT yielded FROM postgres_r.pg_stat_postgres_r");
    println!("{committed:?} committed and told so late, {rows} rows, {yielded} yielded");
    assert_eq!(rows, committed.0 + committed.1, "what was said to be committed is there, and nothing else");
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How many commits were acknowledged, and how many were answered "committed, but not finished here".
fn write_beside_reading(group: &Group, who: i32, stop: &AtomicBool) -> (i64, i64) {
    let mut client = group.connect(node(2));
    let (mut acknowledged, mut late) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let sql = format!("BEGIN; SELECT count(*) FROM gate_read; INSERT INTO gate_written (who) VALUES ({who}); COMMIT");
        match client.batch_execute(&sql) {
            Ok(()) => acknowledged += 1,
            Err(error) => {
                match error.as_db_error().map(|error| (error.code().code(), error.message())) {
                    Some(("40001" | "40P01", _)) => {}
                    Some(("08007", message)) if message.contains("is committed") => late += 1,
                    _ => panic!("{error}"),
                }
                if client.is_closed() || client.batch_execute("ROLLBACK").is_err() {
                    client = group.connect(node(2));
                }
            }
        }
    }
    (acknowledged, late)
}

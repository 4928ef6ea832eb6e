//! Locks of a node's sessions against writesets of other nodes: for each kind of holder, who gives way, and that the position is
//! applied. (`e2e_precedence` has running statements, idle sessions, savepoints and readers in the way of TRUNCATE.)
//!
//! "Applied" is bounded by [`RESOLVED_MAX`], far above what it takes, so that a slow machine fails nothing: what these tests
//! catch is a deadlock that lives for ever, and a holder that pays although it is in nobody's way.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::thread;
use std::time::Duration;

use gcs::playground::NodeNumber;
use postgres::{Client, Error};
use postgres_r_tests::harness::{self, Group, node, wait};

const RESOLVED_MAX: Duration = Duration::from_secs(20);

/// Sessions that only read have it before they give way; short, since some of these tests wait for it.
const READER_GRACE: &str = "300ms";

/// A table with ten rows, the same everywhere, and a table to write elsewhere.
fn make_table(group: &Group, name: &str) {
    for number in group.numbers() {
        group.execute(number, &format!("ALTER SYSTEM SET postgres_r.reader_grace = '{READER_GRACE}'"));
        group.execute(number, "SELECT pg_reload_conf()");
    }
    let rows = format!(
        "CREATE TABLE {name} (id int PRIMARY KEY, x int); INSERT INTO {name} SELECT n, 0 FROM generate_series(1, 10) n;
         CREATE TABLE {name}_done (who text PRIMARY KEY)"
    );
    group.execute(node(1), &rows);
    group.settle();
}

/// Waits until the query gives `wanted` there.
fn visible(group: &Group, number: NodeNumber, query: &str, wanted: &str) {
    group.becomes(number, query, wanted, RESOLVED_MAX);
}

fn code(error: &Error) -> String {
    error.as_db_error().unwrap_or_else(|| panic!("{error}")).code().code().to_owned()
}

/// A transaction of node 2 that has done that.
fn open(group: &Group, statements: &str) -> Client {
    let mut client = group.connect(node(2));
    client.batch_execute(&format!("BEGIN; {statements}")).unwrap();
    client
}

fn assert_lives(client: &mut Client) {
    client.batch_execute("SELECT 1; COMMIT").unwrap();
}

/// Its session was ended for a transaction of the group, or its next statement tells it so.
fn assert_gave_way(client: &mut Client) {
    let error = client.batch_execute("SELECT 1").and_then(|()| client.batch_execute("COMMIT")).unwrap_err();
    assert_eq!(code(&error), "40001", "{error}");
}

fn counter(group: &Group, number: NodeNumber, name: &str) -> i64 {
    group.value(number, &format!("SELECT {name} FROM postgres_r.pg_stat_postgres_r")).parse().unwrap()
}

/// Whether a statement with that text runs on node 2.
fn wait_until_runs(group: &Group, text: &str) {
    let query = format!(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE '%{text}%' AND state = 'active' AND pid <> pg_backend_pid()"
    );
    visible(group, node(2), &query, "true");
}

#[test]
fn a_certified_transaction_at_the_gate_lets_an_earlier_position_have_its_lock_and_is_committed_all_the_same() {
    let group = harness::shared_without_table_locks();
    make_table(&group, "gate");
    // A reader has its grace; what it writes within it has no key in common with the TRUNCATE that waits for it.
    group.execute(node(2), "ALTER SYSTEM SET postgres_r.reader_grace = '30s'");
    group.execute(node(2), "SELECT pg_reload_conf()");
    let before = counter(&group, node(2), "yielded");
    let mut acknowledged = 0;
    wait::until("a certified transaction that yields", RESOLVED_MAX, || {
        let mut client = open(&group, "SELECT count(*) FROM gate");
        group.execute(node(1), "TRUNCATE gate");
        let waits = "SELECT count(*) FROM pg_locks WHERE relation = 'gate'::regclass AND NOT granted";
        visible(&group, node(2), waits, "1");
        match client.batch_execute("INSERT INTO gate_done VALUES (gen_random_uuid()); COMMIT") {
            // It was found between its first change and its submission.
            Err(error) if code(&error) == "40001" => return Err("it was no more than open".to_owned()),
            Err(error) => {
                assert_eq!(code(&error), "08007", "{error}");
                assert!(error.as_db_error().unwrap().message().contains("is committed"), "{error}");
                acknowledged += 1;
            }
            Ok(()) => panic!("it committed before the TRUNCATE that waits for its lock"),
        }
        Ok(())
    });
    visible(&group, node(2), "SELECT count(*) FROM gate_done", &acknowledged.to_string());
    assert_eq!(counter(&group, node(2), "yielded") - before, acknowledged);
    harness::assert_equal(&group);
}

#[test]
fn a_local_transaction_that_waits_for_a_remote_one_that_waits_for_it_gives_way() {
    let group = harness::shared_without_table_locks();
    make_table(&group, "deadlock");
    group.execute(node(2), "ALTER SYSTEM SET postgres_r.reader_grace = '30s'");
    group.execute(node(2), "SELECT pg_reload_conf()");
    let mut client = open(&group, "UPDATE deadlock SET x = 1 WHERE id = 1");
    // Holds the remote backend up between the two rows.
    let mut reader = open(&group, "SELECT count(*) FROM deadlock_done");
    group.execute(
        node(1),
        "BEGIN; UPDATE deadlock SET x = 2 WHERE id = 2; TRUNCATE deadlock_done; UPDATE deadlock SET x = 2 WHERE id = 1; COMMIT",
    );
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    visible(&group, node(2), waiting, "1");
    thread::scope(|scope| {
        let update = scope.spawn(|| client.batch_execute("UPDATE deadlock SET x = 1 WHERE id = 2; COMMIT").unwrap_err());
        visible(&group, node(2), waiting, "2");
        reader.batch_execute("COMMIT").unwrap();
        let error = update.join().unwrap();
        assert_eq!(code(&error), "40001", "{error}");
    });
    visible(&group, node(2), "SELECT string_agg(x::text, ',') FROM deadlock WHERE id <= 2", "2,2");
    harness::assert_equal(&group);
}

#[test]
fn sessions_that_take_the_row_again_and_again_do_not_keep_the_applier_out() {
    let group = harness::shared_without_table_locks();
    make_table(&group, "stubborn");
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = group.connect(node(2));
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let taken = client.batch_execute("BEGIN; SELECT x FROM stubborn WHERE id = 1 FOR UPDATE; ROLLBACK");
                    if taken.is_err() && (client.is_closed() || client.batch_execute("ROLLBACK").is_err()) {
                        client = group.connect(node(2));
                    }
                }
            });
        }
        for x in 1..=20 {
            group.execute(node(1), &format!("UPDATE stubborn SET x = {x} WHERE id = 1"));
        }
        visible(&group, node(2), "SELECT x FROM stubborn WHERE id = 1", "20");
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    harness::assert_equal(&group);
}

#[test]
fn an_idle_transaction_that_only_read_is_in_the_way_of_ddl_but_not_of_rows() {
    let group = harness::shared_without_table_locks();
    make_table(&group, "idle_reader");
    let mut reader = open(&group, "SELECT count(*) FROM idle_reader");
    group.execute(node(1), "UPDATE idle_reader SET x = 1");
    visible(&group, node(2), "SELECT sum(x) FROM idle_reader", "10");
    reader.batch_execute("SELECT 1").unwrap();
    group.execute(node(1), "ALTER TABLE idle_reader ADD COLUMN y int");
    visible(&group, node(2), "SELECT count(y) FROM idle_reader", "0");
    assert_gave_way(&mut reader);
    harness::assert_equal(&group);
}

#[test]
fn an_open_cursor_holds_its_table_and_one_with_hold_after_its_commit_does_not() {
    let group = harness::shared_without_table_locks();
    make_table(&group, "cursor");
    let mut held = group.connect(node(2));
    held.batch_execute(
        "BEGIN; DECLARE kept CURSOR WITH HOLD FOR SELECT id FROM cursor ORDER BY id; FETCH 1 FROM kept; COMMIT",
    )
    .unwrap();
    let mut fetching = open(&group, "DECLARE c CURSOR FOR SELECT id FROM cursor; FETCH 1 FROM c");
    group.execute(node(1), "TRUNCATE cursor");
    visible(&group, node(2), "SELECT count(*) FROM cursor", "0");
    let error = fetching.batch_execute("FETCH 1 FROM c").unwrap_err();
    assert_eq!(code(&error), "40001", "{error}");
    // What it showed at its commit, whatever has become of the table.
    let rows = held.query("FETCH ALL FROM kept", &[]).unwrap();
    assert_eq!(rows.len(), 9);
    harness::assert_equal(&group);
}

#[test]
fn an_advisory_lock_is_in_nobodys_way_and_who_waits_for_it_gives_way() {
    let group = harness::shared_without_table_locks();
    make_table(&group, "advisory");
    let lock = "SELECT pg_advisory_lock(7)";
    let mut holder = group.connect(node(2));
    holder.batch_execute(lock).unwrap();
    // Another node knows of it.
    let taken = group.value(node(1), "SELECT pg_try_advisory_lock(7)");
    assert_eq!(taken, "false");
    let mut waiter = open(&group, "UPDATE advisory SET x = 1 WHERE id = 1");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| waiter.batch_execute(lock).unwrap_err());
        wait_until_runs(&group, "pg_advisory_lock(7)");
        group.execute(node(1), "UPDATE advisory SET x = 2 WHERE id = 1");
        // It gives way for its row, not for what it waits for.
        assert_eq!(code(&waiting.join().unwrap()), "40001");
    });
    visible(&group, node(2), "SELECT x FROM advisory WHERE id = 1", "2");
    assert!(holder.query_one("SELECT pg_advisory_unlock(7)", &[]).unwrap().get::<_, bool>(0));
    harness::assert_equal(&group);
}

#[test]
fn create_index_under_way_gives_way_to_rows() {
    let group = harness::shared_without_table_locks();
    make_table(&group, "indexed");
    group.execute(
        node(1),
        "CREATE FUNCTION slowly(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM pg_sleep(60); RETURN $1; END'",
    );
    group.settle();
    let mut client = group.connect(node(2));
    thread::scope(|scope| {
        let building = scope.spawn(|| client.batch_execute("CREATE INDEX ON indexed (slowly(x))").unwrap_err());
        visible(&group, node(2), "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'", "1");
        group.execute(node(1), "UPDATE indexed SET x = 2");
        assert_eq!(code(&building.join().unwrap()), "40001");
    });
    visible(&group, node(2), "SELECT sum(x) FROM indexed", "20");
    harness::assert_equal(&group);
}

#[test]
fn vacuum_and_analyze_are_in_the_way_of_ddl_but_not_of_rows() {
    let group = harness::shared_without_table_locks();
    make_table(&group, "vacuumed");
    // Some pages, each of which costs a nap.
    group.execute(
        node(1),
        "INSERT INTO vacuumed SELECT n, 0 FROM generate_series(11, 20000) n; DELETE FROM vacuumed WHERE id % 2 = 0",
    );
    group.settle();
    for (verb, x) in [("VACUUM", 1), ("ANALYZE", 2)] {
        let mut client = group.connect(node(2));
        client.batch_execute("SET vacuum_cost_delay = 100; SET vacuum_cost_limit = 1").unwrap();
        thread::scope(|scope| {
            let statement = format!("{verb} vacuumed");
            let running = scope.spawn(move || client.batch_execute(&statement).unwrap_err());
            wait_until_runs(&group, &format!("{verb} vacuumed"));
            let update = format!("UPDATE vacuumed SET x = {x} WHERE id = 1");
            group.execute(node(1), &update);
            visible(&group, node(2), "SELECT x FROM vacuumed WHERE id = 1", &x.to_string());
            assert!(!running.is_finished());
            group.execute(node(1), &format!("ALTER TABLE vacuumed ADD COLUMN y{x} int"));
            visible(&group, node(2), &format!("SELECT count(y{x}) FROM vacuumed"), "0");
            assert_eq!(code(&running.join().unwrap()), "40001");
        });
    }
    harness::assert_equal(&group);
}

#[test]
fn autovacuum_gives_way_to_ddl() {
    let group = harness::shared_without_table_locks();
    make_table(&group, "auto");
    group.execute(
        node(1),
        "ALTER TABLE auto SET (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,
            autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
         INSERT INTO auto SELECT n, 0 FROM generate_series(11, 20000) n; DELETE FROM auto WHERE id % 2 = 0",
    );
    group.execute(node(2), "ALTER SYSTEM SET autovacuum_naptime = '1s'");
    group.execute(node(2), "SELECT pg_reload_conf()");
    let runs = "SELECT count(*) FROM pg_stat_progress_vacuum WHERE relid = 'auto'::regclass";
    visible(&group, node(2), runs, "1");
    group.execute(node(1), "UPDATE auto SET x = 1 WHERE id = 1");
    visible(&group, node(2), "SELECT x FROM auto WHERE id = 1", "1");
    assert_eq!(group.value(node(2), runs), "1", "rows are nothing to it");
    group.execute(node(1), "ALTER TABLE auto ADD COLUMN y int, SET (autovacuum_enabled = false)");
    visible(&group, node(2), "SELECT count(y) FROM auto", "0");
    visible(&group, node(2), runs, "0");
    group.execute(node(2), "ALTER SYSTEM RESET autovacuum_naptime");
    group.execute(node(2), "SELECT pg_reload_conf()");
    harness::assert_equal(&group);
}

#[test]
fn a_table_that_is_being_rebuilt_on_one_node_is_given_up_for_rows() {
    let group = harness::shared_without_table_locks();
    make_table(&group, "rebuilt");
    let mut client = open(&group, "REINDEX TABLE rebuilt");
    group.execute(node(1), "UPDATE rebuilt SET x = 1");
    visible(&group, node(2), "SELECT sum(x) FROM rebuilt", "10");
    assert_gave_way(&mut client);
    harness::assert_equal(&group);
}

#[test]
fn lock_table_of_a_transaction_that_writes_turns_writers_of_other_nodes_away_and_leaves_readers() {
    let group = harness::shared_without_table_locks();
    make_table(&group, "locked");
    let mut writer = open(&group, "UPDATE locked SET x = 1 WHERE id = 1");
    let mut reader = open(&group, "SELECT count(*) FROM locked");
    group.execute(node(1), "BEGIN; LOCK TABLE locked; INSERT INTO locked_done VALUES ('n1'); COMMIT");
    visible(&group, node(2), "SELECT count(*) FROM locked_done", "1");
    assert_gave_way(&mut writer);
    assert_lives(&mut reader);
    harness::assert_equal(&group);
}

#[test]
fn lock_table_of_a_transaction_that_writes_nothing_is_of_its_node() {
    let group = harness::shared_without_table_locks();
    make_table(&group, "locked_here");
    let mut writer = open(&group, "UPDATE locked_here SET x = 1 WHERE id = 1");
    group.execute(node(1), "BEGIN; LOCK TABLE locked_here; COMMIT");
    // Rolled back with its savepoint, it is not held when the transaction commits.
    group.execute(
        node(1),
        "BEGIN; SAVEPOINT a; LOCK TABLE locked_here; ROLLBACK TO a; INSERT INTO locked_here_done VALUES ('n1'); COMMIT",
    );
    visible(&group, node(2), "SELECT count(*) FROM locked_here_done", "1");
    assert_lives(&mut writer);
    visible(&group, node(3), "SELECT x FROM locked_here WHERE id = 1", "1");
    harness::assert_equal(&group);
}

//! Runs: what waits on a node is applied together, and position by position where anything comes in between.
//!
//! Remote backends are stopped while another node writes, so that what is in a run does not depend on who is faster.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::thread;
use std::time::Duration;

use gcs::playground::Part;
use postgres_r_tests::harness::stopped::Stopped;
use postgres_r_tests::harness::{self, Group, node, wait};

/// More than one run takes.
const WRITES: u32 = 40;

fn make_table(group: &Group, name: &str) {
    group.execute(
        node(1),
        &format!(
            "CREATE TABLE {name} (id int PRIMARY KEY, x int); INSERT INTO {name} SELECT n, 0 FROM generate_series(1, 10) n"
        ),
    );
    group.settle();
}

/// Each a transaction of its own, so that the same row is changed by several positions of a run.
fn write(group: &Group, table: &str, numbers: std::ops::Range<u32>) {
    let mut client = group.connect(node(1));
    for n in numbers {
        let id = n % 10 + 1;
        client.batch_execute(&format!("UPDATE {table} SET x = {n} WHERE id = {id}")).unwrap();
    }
}

/// Of node 2: writesets applied, runs, runs that came to nothing.
fn counters(group: &Group) -> [i64; 3] {
    let query = "SELECT applied, apply_runs, apply_runs_broken FROM postgres_r.pg_stat_postgres_r";
    let row = group.connect(node(2)).query_one(query, &[]).unwrap();
    [0, 1, 2].map(|at| row.get(at))
}

fn assert_there(group: &Group, table: &str, last: u32) {
    group.settle();
    let newest = group.value(node(2), &format!("SELECT max(x) FROM {table}"));
    assert_eq!(newest, last.to_string());
    harness::assert_equal(group);
}

#[test]
fn what_waits_is_applied_in_runs() {
    let group = harness::shared();
    make_table(&group, "together");
    let before = counters(&group);
    let stopped = Stopped::remote_backends(&group, node(2));
    write(&group, "together", 0..WRITES);
    drop(stopped);
    assert_there(&group, "together", WRITES - 1);
    let after = counters(&group);
    assert!(after[0] - before[0] >= i64::from(WRITES), "{before:?}, {after:?}");
    assert!(after[1] - before[1] >= 2, "{before:?}, {after:?}");
    assert_eq!(after[2], before[2], "nothing came in between");
}

#[test]
fn a_run_that_meets_a_lock_is_applied_position_by_position_and_waits_for_nobody() {
    let group = harness::shared();
    make_table(&group, "held");
    let before = counters(&group);
    let mut holder = group.connect(node(2));
    holder.batch_execute("BEGIN; UPDATE held SET x = -1 WHERE id = 8").unwrap();
    let stopped = Stopped::remote_backends(&group, node(2));
    write(&group, "held", 0..WRITES);
    drop(stopped);
    assert_there(&group, "held", WRITES - 1);
    let lost = holder.batch_execute("COMMIT").unwrap_err();
    let lost = lost.as_db_error().unwrap_or_else(|| panic!("{lost}"));
    assert_eq!(lost.code().code(), "40001", "{}", lost.message());
    assert!(lost.detail().unwrap_or_default().contains("(id)=(8)"), "{:?}", lost.detail());
    let after = counters(&group);
    assert!(after[2] > before[2], "{before:?}, {after:?}");
}

#[test]
fn a_statement_among_rows_is_applied_by_itself() {
    let group = harness::shared();
    make_table(&group, "defined");
    let stopped = Stopped::remote_backends(&group, node(2));
    write(&group, "defined", 0..12);
    group.execute(node(1), "ALTER TABLE defined ADD y int DEFAULT 7");
    write(&group, "defined", 12..WRITES);
    drop(stopped);
    assert_there(&group, "defined", WRITES - 1);
    assert_eq!(group.value(node(2), "SELECT sum(y) FROM defined"), "70");
}

#[test]
fn a_run_is_there_as_a_whole_or_not_at_all_after_a_crash() {
    let group = harness::shared();
    make_table(&group, "crashed");
    for round in 1..=4u32 {
        let stopped = Stopped::remote_backends(&group, node(2));
        let (first, last) = (round * 100, round * 100 + WRITES);
        write(&group, "crashed", first..last);
        thread::scope(|scope| {
            let kills = scope.spawn(|| group.kill(node(2), Part::Postgres));
            drop(stopped);
            kills.join().unwrap();
        });
        group.start_node(node(2));
        wait::until("the node takes clients", Duration::from_secs(60), || {
            group.try_connect(node(2)).map(drop).map_err(|error| error.to_string())
        });
        assert_there(&group, "crashed", last - 1);
    }
}

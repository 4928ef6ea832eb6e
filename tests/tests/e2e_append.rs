//! List-append on three nodes by sessions that change nodes, judged by `postgres_r_tests::append`.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::time::Instant;

use postgres::IsolationLevel;
use postgres_r_tests::append::history::Outcome;
use postgres_r_tests::append::{self, Isolation};
use postgres_r_tests::harness::{self, node, workload_seconds};
use postgres_r_tests::workload::lists::{self, Level, Shape};

#[test]
fn three_nodes_at_repeatable_read_show_no_anomaly() {
    let shape = Shape { isolation: IsolationLevel::RepeatableRead, tables: 8, level: Level::Eventual, ahead: 0 };
    judge(shape, Isolation::Snapshot);
}

#[test]
fn three_nodes_at_serializable_show_no_anomaly_and_no_write_skew() {
    let shape = Shape { isolation: IsolationLevel::Serializable, tables: 8, level: Level::Eventual, ahead: 0 };
    judge(shape, Isolation::Serializable);
}

/// Forerunners hold rows that others want, give way to them, and commit what was ordered while they waited.
#[test]
fn with_transactions_that_are_applied_ahead_there_is_no_anomaly_either() {
    let shape = Shape { isolation: IsolationLevel::RepeatableRead, tables: 8, level: Level::Eventual, ahead: 8 };
    judge(shape, Isolation::Snapshot);
}

/// With real time between clients: whatever one was told, another that begins later sees, on any node.
#[test]
fn three_nodes_at_strong_show_no_anomaly_and_no_stale_read() {
    let shape = Shape { isolation: IsolationLevel::RepeatableRead, tables: 8, level: Level::Strong, ahead: 0 };
    judge(shape, Isolation::Snapshot);
}

#[test]
fn three_nodes_at_strong_and_serializable_are_strictly_serializable() {
    let shape = Shape { isolation: IsolationLevel::Serializable, tables: 8, level: Level::Strong, ahead: 0 };
    judge(shape, Isolation::Serializable);
}

#[test]
fn sessions_that_take_their_token_along_show_no_anomaly() {
    let shape = Shape { isolation: IsolationLevel::RepeatableRead, tables: 8, level: Level::Session, ahead: 0 };
    judge(shape, Isolation::Snapshot);
}

fn judge(shape: Shape, promised: Isolation) {
    let group = harness::shared();
    lists::prepare(&group, shape);

    let start = Instant::now();
    let mut history = lists::run(&group, shape, 4, workload_seconds());
    let seconds = start.elapsed().as_secs_f64();

    harness::assert_equal(&group);
    let last = lists::read_all(&mut group.connect(node(1)), shape);
    let count = |outcome| history.txns.iter().filter(|txn| txn.outcome == outcome).count();
    let (committed, aborted, unknown) = (count(Outcome::Committed), count(Outcome::Aborted), count(Outcome::Unknown));
    println!(
        "{:?}, {:?}: {committed} committed ({:.0} a second), {aborted} aborted ({:.0} %), {unknown} unknown",
        shape.isolation,
        shape.level,
        committed as f64 / seconds,
        100.0 * aborted as f64 / (committed + aborted) as f64
    );
    assert!(committed > 100, "too little happened to show anything");
    assert_eq!(unknown, 0, "a healthy group knows the outcome of every commit");
    lists::add_final_read(&mut history, &last);
    let found = append::check(&history, promised, Some(&last));
    let texts: Vec<String> = found.iter().take(5).map(|anomaly| anomaly.explain(&history)).collect();
    assert!(found.is_empty(), "{} anomalies, the first:\n{}", found.len(), texts.join("\n"));
}

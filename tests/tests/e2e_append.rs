//! List-append on three nodes at REPEATABLE READ, judged by `postgres_r_tests::append`.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use postgres_r_tests::append;
use postgres_r_tests::append::history::Outcome;
use postgres_r_tests::harness::{self, node, workload_seconds};
use postgres_r_tests::workload::lists;

#[test]
fn three_nodes_at_repeatable_read_show_no_anomaly() {
    let group = harness::shared();
    lists::prepare(&group);

    let mut history = lists::run(&group, 4, workload_seconds());

    harness::assert_equal(&group);
    let last = lists::read_all(&mut group.connect(node(1)));
    lists::add_final_read(&mut history, &last);
    let count = |outcome| history.txns.iter().filter(|txn| txn.outcome == outcome).count();
    println!(
        "{} committed, {} aborted, {} unknown",
        count(Outcome::Committed),
        count(Outcome::Aborted),
        count(Outcome::Unknown)
    );
    assert!(count(Outcome::Committed) > 100, "too little happened to show anything");
    assert_eq!(count(Outcome::Unknown), 0, "a healthy group knows the outcome of every commit");
    let found = append::check(&history, append::Isolation::Snapshot, Some(&last));
    let texts: Vec<String> = found.iter().take(5).map(|anomaly| anomaly.explain(&history)).collect();
    assert!(found.is_empty(), "{} anomalies, the first:\n{}", found.len(), texts.join("\n"));
}

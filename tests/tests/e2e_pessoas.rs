//! The workload of the 2008 study of Postgres-R.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::collections::BTreeSet;

use postgres_r_tests::harness::{self, node, workload_seconds};
use postgres_r_tests::workload::pessoas;

#[test]
fn twenty_clients_on_each_node_lose_no_insert_and_leave_the_nodes_equal() {
    let group = harness::shared();
    group.execute(node(1), pessoas::TABLE);
    group.settle();

    let summary = pessoas::run(&group, 20, workload_seconds());

    println!("{} transactions, {} retries, {} inserts", summary.transactions, summary.retries, summary.inserted.len());
    assert_eq!(summary.errors, Vec::<String>::new());
    harness::assert_equal(&group);
    let rows = group.connect(node(2)).query("SELECT codigo FROM pessoas", &[]).unwrap();
    let there: BTreeSet<i32> = rows.iter().map(|row| row.get(0)).collect();
    let expected: BTreeSet<i32> = summary.inserted.difference(&summary.deleted).copied().collect();
    let lost: Vec<_> = expected.difference(&there).collect();
    let risen: Vec<_> = there.difference(&expected).collect();
    assert!(lost.is_empty() && risen.is_empty(), "lost {lost:?}, back from the dead {risen:?}");
}

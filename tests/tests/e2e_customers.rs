//! Foreign keys and a unique column under writers on all nodes.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use postgres_r_tests::harness::{self, node, workload_seconds};
use postgres_r_tests::workload::customers;

#[test]
fn writers_on_all_nodes_leave_no_orphan_and_no_duplicate() {
    let group = harness::shared();
    group.execute(node(1), customers::TABLES);
    group.settle();

    let summary = customers::run(&group, 6, workload_seconds());

    let customers::Summary { transactions, forbidden, retries, late, .. } = &summary;
    println!(
        "{transactions} transactions ({late} of them told late), {forbidden} forbidden by a constraint, {retries} lost and tried again"
    );
    assert_eq!(summary.errors, Vec::<String>::new());
    assert!(*transactions > 0 && *forbidden > 0, "the workload shows nothing");
    // A child behind an update of its parent's e-mail must lose, not be certified with a lock that the update needs.
    assert!(late * 1000 <= *transactions, "{late} of {transactions} were certified in the way of an earlier position");
    harness::assert_equal(&group);
    // Written so that the indexes which would have let them in are of no use.
    assert_eq!(group.values("SELECT count(*) - count(DISTINCT email || '') FROM customer"), ["0"; 3], "duplicates");
    for child in ["invoice", "reminder"] {
        let orphans = format!(
            "SELECT count(*) FROM {child} WHERE customer IS NOT NULL AND customer + 0 NOT IN (SELECT id + 0 FROM customer)"
        );
        assert_eq!(group.values(&orphans), ["0"; 3], "orphans in {child}");
    }
    assert_eq!(group.value(node(3), "SELECT count(*) FROM customer"), summary.customers.to_string());
    assert_eq!(group.value(node(3), "SELECT count(*) FROM invoice"), summary.invoices.to_string());
}

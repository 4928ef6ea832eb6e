//! TPC-B on three nodes at once: pgbench as it comes, and its own invariants.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::time::Duration;

use postgres_r_tests::harness::{self, Group, node, workload_seconds};
use postgres_r_tests::pgbench::{self, Pgbench, Report};

fn pgbench_of(group: &Group, number: usize) -> Pgbench {
    let cluster = group.playground.cluster(node(number));
    Pgbench { bin: cluster.bin, port: cluster.port, database: group.database().to_owned() }
}

/// The full length has scale 10; a short run makes do with less data, not with less contention.
fn scale() -> u32 {
    if workload_seconds() >= Duration::from_secs(30) { 10 } else { 3 }
}

fn run_on_all(group: &Group, arguments: &[&str]) -> Vec<Report> {
    let start = |number: usize| pgbench_of(group, number).spawn(8, workload_seconds(), arguments).unwrap();
    let children: Vec<_> = (1..=group.numbers().len()).map(start).collect();
    let finish = |(index, child)| pgbench::finish(child).unwrap_or_else(|error| panic!("node {}: {error}", index + 1));
    children.into_iter().enumerate().map(finish).collect()
}

/// pgbench's own invariants, and equal nodes, after `transactions`.
fn check_sums(group: &Group, transactions: u64) {
    group.settle();
    for count in group.values("SELECT count(*) FROM pgbench_history") {
        assert_eq!(count, transactions.to_string(), "history rows and reported transactions");
    }
    let sums = "SELECT array_agg(DISTINCT s) FROM (SELECT sum(abalance) FROM pgbench_accounts UNION ALL
        SELECT sum(tbalance) FROM pgbench_tellers UNION ALL SELECT sum(bbalance) FROM pgbench_branches UNION ALL
        SELECT sum(delta) FROM pgbench_history) x(s)";
    for sum in group.values(sums) {
        assert!(!sum.contains(','), "the four sums differ: {sum}");
    }
    let prints = harness::assert_equal(group);
    assert_eq!(prints.keys().filter(|table| table.contains("pgbench_")).count(), 4);
}

/// No client saw anything but losses that it tried again; prints what each did.
fn check_clients(reports: &[Report]) -> u64 {
    for (index, report) in reports.iter().enumerate() {
        let Report { transactions, retries, latency_ms, .. } = report;
        println!("node {}: {transactions} transactions, {retries} retries, {latency_ms:.1} ms", index + 1);
        assert_eq!(report.failed, 0, "node {}", index + 1);
        assert_eq!(report.complaints, Vec::<String>::new(), "node {}", index + 1);
    }
    reports.iter().map(|report| report.transactions).sum()
}

#[test]
fn pgbench_tpcb_on_three_nodes_keeps_its_sums_and_the_nodes_equal() {
    let group = harness::shared();
    pgbench_of(&group, 1).initialize(scale()).unwrap();
    group.settle();

    let reports = run_on_all(&group, &[]);

    let total = check_clients(&reports);
    assert!(reports.iter().all(|report| report.transactions > 0), "a node did nothing: {reports:?}");
    let done = |report: &Report| report.transactions;
    let (least, most) = (reports.iter().map(done).min().unwrap(), reports.iter().map(done).max().unwrap());
    assert!(least * 20 > most, "a node starves: {least} transactions against {most}");
    check_sums(&group, total);
}

/// On a row that everybody writes, a node whose transactions begin later than they are beaten can go without for many seconds. How often a run is
/// begun anew until each node has had its turn.
const HOT_RUNS_MAX: usize = 3;

/// Every transaction updates the one branch: the worst that TPC-B can ask for.
#[test]
fn ten_hot_rows_written_from_all_nodes_give_no_client_an_error() {
    let group = harness::shared();
    pgbench_of(&group, 1).initialize(1).unwrap();
    group.settle();

    let clients = 8 * group.numbers().len() as u32;
    let alone = pgbench::finish(pgbench_of(&group, 1).spawn(clients, workload_seconds(), &[]).unwrap()).unwrap();
    group.settle();
    let (mut total, mut waiting) = (0, (1..=group.numbers().len()).collect::<Vec<_>>());
    let mut runs = 0;
    while !waiting.is_empty() && runs < HOT_RUNS_MAX {
        let reports = run_on_all(&group, &[]);
        total += check_clients(&reports);
        waiting.retain(|number| reports[number - 1].transactions == 0);
        runs += 1;
    }
    assert!(waiting.is_empty(), "nodes {waiting:?} did nothing in {runs} runs");
    check_sums(&group, total + alone.transactions);
    let total = total / runs as u64;
    let ratio = total as f64 / alone.transactions as f64;
    println!(
        "{clients} clients on one node: {} transactions, spread over all: {total}, ratio {ratio:.2}",
        alone.transactions
    );
}

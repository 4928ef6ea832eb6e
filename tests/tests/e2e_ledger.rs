//! Acknowledged is acknowledged: a ledger on three nodes while every process is killed with kill -9, one by one and all at
//! once.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::time::{Duration, Instant};

use gcs::playground::{NodeNumber, Part};
use postgres_r_tests::harness::{self, Group, node, wait};
use postgres_r_tests::workload::ledger::{self, Ledger};

const WRITES_AGAIN_AFTER_ONE: Duration = Duration::from_secs(10);
const WRITES_AGAIN_AFTER_ALL: Duration = Duration::from_secs(30);

/// How long after `since` the group took a write; `except` is the node that is down.
fn writes_again(ledger: &Ledger, since: Instant, except: Option<NodeNumber>, at_most: Duration) -> Duration {
    let what = "an insert that was asked for after the fault";
    let (took, _) = wait::until(what, at_most, || ledger.first_acknowledged(since, except).ok_or("none yet".to_owned()));
    took
}

fn lose_and_regain(group: &Group, ledger: &Ledger, number: NodeNumber, part: Part) {
    let since = Instant::now();
    group.kill(number, part);
    let took = writes_again(ledger, since, Some(number), WRITES_AGAIN_AFTER_ONE);
    println!("{part:?} of node {} killed: writes again after {took:?}", number.0);
    assert!(took <= WRITES_AGAIN_AFTER_ONE);
    group.start_node(number);
    // It takes part again before the next one goes.
    group.settle();
}

#[test]
fn every_acknowledged_row_survives_the_loss_of_every_process() {
    let group = harness::shared();
    group.execute(node(1), ledger::TABLE);
    group.settle();
    let file = tempfile::NamedTempFile::new().unwrap();
    let running = Ledger::start(&group, 4, file.path());
    writes_again(&running, Instant::now(), None, WRITES_AGAIN_AFTER_ONE);

    for part in [Part::Postgres, Part::Gcs] {
        for number in group.numbers() {
            lose_and_regain(&group, &running, number, part);
        }
    }
    for number in group.numbers() {
        group.kill(number, Part::Both);
    }
    for number in group.numbers() {
        group.start_node(number);
    }
    let restarted = Instant::now();
    let took = writes_again(&running, restarted, None, WRITES_AGAIN_AFTER_ALL);
    println!("everything killed: writes again {took:?} after the restart");

    let book = running.finish();
    group.settle();
    println!("{} acknowledged, {} refused, {} unknown", book.acknowledged.len(), book.failed.len(), book.unknown.len());
    println!("refused because: {:#?}", book.reasons);
    let written = std::fs::read_to_string(file.path()).unwrap();
    assert_eq!(written.lines().count(), book.acknowledged.len(), "the file of acknowledged rows");
    for number in group.numbers() {
        let wrong = ledger::audit(&book, &mut group.connect(number));
        assert!(
            wrong.is_empty(),
            "node {}: {} wrong, the first: {:?}",
            number.0,
            wrong.len(),
            &wrong[..wrong.len().min(10)]
        );
    }
    harness::assert_equal(&group);
}

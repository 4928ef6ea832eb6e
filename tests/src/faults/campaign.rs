//! Many rounds of each fault, with a ledger for each.

use std::collections::BTreeSet;
use std::io::Write;

use super::fault::Fault;
use super::round::{self, Times};
use super::testbed::{Kind, Testbed};
use crate::harness::{assert_equal, node};
use crate::workload::ledger::{self, Ledger};

/// Clients of the ledger on each node.
const CLIENTS: usize = 2;
/// Wrong rows that are shown.
const SHOWN: usize = 10;

/// What came of one fault.
#[derive(Debug)]
pub struct Result {
    pub fault: Fault,
    pub times: Vec<Times>,
    pub acknowledged: usize,
    pub refused: usize,
    pub unknown: usize,
    pub reasons: BTreeSet<String>,
}

/// Runs these faults, each so many times. A ledger that does not agree with the nodes is a panic.
pub fn run(faults: &[Fault], rounds: usize) -> Vec<Result> {
    let mut results = Vec::new();
    for kind in [Kind::Direct, Kind::Relayed] {
        let of_kind: Vec<Fault> = faults.iter().copied().filter(|fault| fault.testbed() == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        let testbed = Testbed::start(kind);
        testbed.group.execute(node(1), ledger::TABLE);
        results.extend(of_kind.into_iter().map(|fault| run_one(&testbed, fault, rounds)));
    }
    results
}

fn run_one(testbed: &Testbed, fault: Fault, rounds: usize) -> Result {
    let group = &testbed.group;
    group.execute(node(1), "TRUNCATE ledger");
    group.settle();
    let file = group.dir().join(format!("acknowledged.{}", fault.name()));
    let ledger = Ledger::start(group, CLIENTS, &file);
    let mut times = Vec::with_capacity(rounds);
    for round in 0..rounds {
        times.push(round::run(testbed, &ledger, fault, round));
        tell(fault, round, &times[round]);
    }
    let book = ledger.finish();
    group.settle();
    let written = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert_eq!(written.lines().count(), book.acknowledged.len(), "the file of acknowledged rows");
    for number in group.numbers() {
        let wrong = ledger::audit(&book, &mut group.connect(number));
        let shown = &wrong[..wrong.len().min(SHOWN)];
        assert!(wrong.is_empty(), "{}: node {}: {} wrong: {shown:?}", fault.name(), number.0, wrong.len());
    }
    assert_equal(group);
    let (acknowledged, refused, unknown) = (book.acknowledged.len(), book.failed.len(), book.unknown.len());
    Result { fault, times, acknowledged, refused, unknown, reasons: book.reasons }
}

/// A line a round, for whoever waits or reads afterwards what happened before a failure.
fn tell(fault: Fault, round: usize, times: &Times) {
    println!("{} {}: {times:?}", fault.name(), round + 1);
    // Nobody may be listening.
    let _ = std::io::stdout().flush();
}

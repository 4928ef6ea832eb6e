//! How many instructions a client's backend and another node's remote backend spend on a row, against committed figures.
//!
//! One server of two runs under callgrind. Its own clients change rows first, then those of the other node, so both sides are counted
//! on it. What is counted of a whole process is everything, PostgreSQL's own work and the extension's; of functions of the extension, what it does
//! to capture, to submit and to apply, so that a change there does not drown in the rest. See `postgres_r_tests::instructions`.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use postgres_r_tests::harness::{Group, node};
use postgres_r_tests::instructions::callgrind;
use postgres_r_tests::instructions::figures::{self, Count, Counted};
use postgres_r_tests::instructions::server::{self, FEW, MANY, Pair};

/// Runs differ by less than 1 %, also on a busy machine.
const TOLERANCE: u64 = 5;
/// With a wait in it, whose length shows in it: 3 %.
const WAITING_TOLERANCE: u64 = 10;

const TABLE: &str =
    "CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL DEFAULT 0, owner text NOT NULL DEFAULT 'nobody yet')";
const INSERT: &str = "INSERT INTO account VALUES ($1)";
const UPDATE: &str = "UPDATE account SET balance = balance + 1 WHERE id = $1";

const CAPTURE: &str = "postgres_r::backend::capture::trigger::on_row";
const SUBMIT: &str = "postgres_r::backend::commit::decide";
const APPLY: &str = "postgres_r::apply::rows::apply";

fn of_function(pair: &Pair, function: &str, tolerance: u64) -> Count {
    Count { instructions: pair.of(function).unwrap_or_else(|why| panic!("{why}")), tolerance }
}

fn of_all(pair: &Pair) -> Count {
    Count { instructions: pair.of_all(), tolerance: TOLERANCE }
}

fn output(bin: &Path, program: &str, argument: &str) -> String {
    let output = Command::new(bin.join(program)).arg(argument).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_row_costs_no_more_than_before() {
    callgrind::check().unwrap_or_else(|why| panic!("{why}"));
    let group = Group::start_nodes(2);
    group.execute(node(1), TABLE);
    group.settle();
    let bin = group.playground.cluster(node(1)).bin;
    let counts = count(&group);
    let library = PathBuf::from(output(&bin, "pg_config", "--pkglibdir")).join("postgres_r.so");
    let compiler = figures::compiler_of(&library).unwrap_or_else(|why| panic!("{why}"));
    let counted = Counted { section: "server", compiler, with: output(&bin, "postgres", "--version"), counts };
    figures::check(&counted).unwrap_or_else(|why| panic!("{why}"));
}

fn count(group: &Group) -> BTreeMap<&'static str, Count> {
    let server = server::Counted::start(group, node(1));
    // Rows of node 1's clients first, those of node 2's behind them.
    let client = |statement| server.pair(|numbers| server.client(statement, numbers), 0);
    let applied = |statement| server.pair(|numbers| server.applied(node(2), statement, numbers), FEW + MANY);
    let (insert, update) = (client(INSERT), client(UPDATE));
    let (applied_insert, applied_update) = (applied(INSERT), applied(UPDATE));
    BTreeMap::from([
        ("a client's INSERT of a row, all of its backend", of_all(&insert)),
        ("a client's INSERT of a row, capture", of_function(&insert, CAPTURE, TOLERANCE)),
        ("a client's INSERT of a row, submission", of_function(&insert, SUBMIT, WAITING_TOLERANCE)),
        ("a client's UPDATE of a row, all of its backend", of_all(&update)),
        ("a client's UPDATE of a row, capture", of_function(&update, CAPTURE, TOLERANCE)),
        ("a client's UPDATE of a row, submission", of_function(&update, SUBMIT, WAITING_TOLERANCE)),
        ("another node's INSERT of a row, all of the remote backend", of_all(&applied_insert)),
        ("another node's INSERT of a row, applied", of_function(&applied_insert, APPLY, TOLERANCE)),
        ("another node's UPDATE of a row, all of the remote backend", of_all(&applied_update)),
        ("another node's UPDATE of a row, applied", of_function(&applied_update, APPLY, TOLERANCE)),
    ])
}

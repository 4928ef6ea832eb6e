//! One seed: sessions on all nodes at once, in rounds, compared after each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gcs::playground::NodeNumber;
use gcs::playground::group::describe;
use postgres::Client;

use super::outcome::Outcome;
use super::plan::{self, Plan};
use super::session;
use crate::harness::{Group, catalog, early, fingerprint, node, wait};

/// Statements of each session between two comparisons.
const ROUND: usize = 50;

/// Nothing here takes that long unless something hangs.
const STATEMENT_MAX: &str = "SET statement_timeout = '90s'";
const SETTLE_MAX: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);

/// Statements of each session that a find shows.
const SHOWN: usize = 25;

/// How many statements ended how.
#[derive(Debug, Default)]
pub struct Report {
    pub done: usize,
    /// By SQLSTATE.
    pub errors: BTreeMap<String, usize>,
}

/// What a run found, ready to print: seed, round, what differs or failed, and the last statements of each session.
pub type Find = String;

struct Ran {
    ingredient: &'static str,
    statement: String,
    outcome: Outcome,
}

/// Runs `statements` a session from the seed, on a group of three.
///
/// # Errors
/// What was found.
pub fn run(group: &Group, seed: u64, statements: usize) -> Result<Report, Find> {
    prepare(group);
    let mut plans: Vec<Plan> = (0..plan::SESSIONS.len()).map(|session| Plan::new(seed, session)).collect();
    let mut report = Report::default();
    let mut ran: Vec<Vec<Ran>> = plans.iter().map(|_| Vec::new()).collect();
    for round in 0..statements.div_ceil(ROUND) {
        let of_round = (statements - round * ROUND).min(ROUND);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for (session, (plan, ran)) in plans.iter_mut().zip(&mut ran).enumerate() {
                let (number, stop) = (node(plan::SESSIONS[session]), &stop);
                scope.spawn(move || run_round(group, number, plan, of_round, stop, ran));
            }
        });
        let fault = ran.iter().flatten().find_map(|ran| match &ran.outcome {
            Outcome::Fault(text) => Some(format!("{}: {text}", ran.statement)),
            _ => None,
        });
        let found = settle(group).and_then(|()| compare(group)).err().or_else(|| early::found(group).into_iter().next());
        // The reason of a node that left is worth more than what its clients were told afterwards.
        if let Some(why) = found.or(fault) {
            return Err(tell(seed, round, &format!("{why}\n{}", reasons(group)), &ran));
        }
        for ran in ran.iter_mut().flat_map(std::mem::take) {
            match ran.outcome {
                Outcome::Ordinary(code, _) => *report.errors.entry(code).or_default() += 1,
                _ => report.done += 1,
            }
        }
    }
    Ok(report)
}

/// The statements of each session, by which a find can be cut down: what one session runs does not depend on the others.
pub fn print(seed: u64, statements: usize) {
    for session in 0..plan::SESSIONS.len() {
        let mut plan = Plan::new(seed, session);
        println!("-- session {session} on node {}", plan::SESSIONS[session]);
        (0..statements).for_each(|_| println!("{};", plan.next_statement().1));
    }
}

fn prepare(group: &Group) {
    for number in group.numbers() {
        let mut client = group.playground.connect(number, "postgres").unwrap_or_else(|error| panic!("{error}"));
        client.batch_execute(plan::ROLES).unwrap_or_else(|error| panic!("{}", describe(&error)));
        if number == node(1) {
            client.batch_execute(plan::LOCAL_ROLE).unwrap_or_else(|error| panic!("{}", describe(&error)));
        }
    }
    group.execute(node(1), plan::EMPTY);
    // What is made from here on has another OID on each node.
    group
        .numbers()
        .into_iter()
        .for_each(|number| (0..number.0).for_each(|_| group.execute(number, "CREATE TEMP TABLE shift ()")));
    plan::SETUP.iter().for_each(|statement| group.execute(node(1), statement));
    group.settle();
}

fn run_round(group: &Group, number: NodeNumber, plan: &mut Plan, statements: usize, stop: &AtomicBool, ran: &mut Vec<Ran>) {
    let mut client = match group.try_connect(number) {
        Ok(client) => client,
        Err(error) => {
            let outcome = Outcome::Fault(error.to_string());
            return ran.push(Ran { ingredient: "", statement: "connecting".to_owned(), outcome });
        }
    };
    let mut run = |ingredient, statement: String| {
        let outcome = Outcome::of(&client.batch_execute(&statement));
        let is_fault = matches!(outcome, Outcome::Fault(_));
        ran.push(Ran { ingredient, statement, outcome });
        !is_fault
    };
    run("", STATEMENT_MAX.to_owned());
    let mut left = statements;
    while (left > 0 || !plan.is_between()) && !stop.load(Ordering::Relaxed) {
        left = left.saturating_sub(1);
        let (ingredient, statement) = plan.next_statement();
        if !run(ingredient, statement) {
            stop.store(true, Ordering::Relaxed);
        }
    }
    session::CLEAN.iter().for_each(|statement| {
        run("", (*statement).to_owned());
    });
}

/// Waits until all that was acknowledged is on all nodes, and all can write.
fn settle(group: &Group) -> Result<(), String> {
    let deadline = Instant::now() + SETTLE_MAX;
    let insert = "INSERT INTO harness.marker SELECT coalesce(max(mark), 0) + 1 FROM harness.marker RETURNING mark";
    let (mark, _) = wait::until("a marker, or the reason why there is none", SETTLE_MAX, || {
        let mut client = match group.try_connect(node(1)) {
            Ok(client) => client,
            // A node that is out of service may take no sessions at all.
            Err(error) if error.as_db_error().is_some() => return Ok(Err(format!("node 1: {}", describe(&error)))),
            Err(error) => return Err(error.to_string()),
        };
        match client.query_one(insert, &[]) {
            Ok(row) => Ok(Ok(row.get::<_, i64>(0))),
            Err(error) if error.code().is_some_and(|code| code.code() == "40001") => Err(describe(&error)),
            Err(error) => Ok(Err(format!("node 1: {}", describe(&error)))),
        }
    });
    let mark = mark?;
    for number in group.numbers() {
        loop {
            let mut client =
                group.try_connect(number).map_err(|error| format!("node {}: {}", number.0, describe(&error)))?;
            let there = client.query_opt("SELECT 1 FROM harness.marker WHERE mark = $1", &[&mark]);
            if there.map_err(|error| format!("node {}: {}", number.0, describe(&error)))?.is_some() {
                break;
            }
            can_write(&mut client).map_err(|error| format!("node {}: {error}", number.0))?;
            if Instant::now() > deadline {
                return Err(format!("node {}: the marker is not there after {SETTLE_MAX:?}", number.0));
            }
            thread::sleep(POLL);
        }
    }
    Ok(())
}

/// A node that has left service says why to whoever writes.
fn can_write(client: &mut Client) -> Result<(), String> {
    match client.batch_execute("BEGIN; INSERT INTO harness.marker VALUES (-1); ROLLBACK") {
        Err(error) if error.code().is_none_or(|code| !code.code().starts_with("40")) => Err(describe(&error)),
        _ => Ok(()),
    }
}

fn compare(group: &Group) -> Result<(), String> {
    let mut text = catalog::difference(group)?;
    let tables: Vec<&str> = plan::REFERENCES.iter().map(|(table, _)| *table).collect();
    text.push_str(&fingerprint::difference(group, &tables)?);
    for (table, query) in plan::REFERENCES {
        let is_there = format!("to_regclass('{table}') IS NOT NULL");
        if group.value(node(1), &is_there) == "true" {
            let values = group.values(query);
            if values.iter().any(|value| *value != values[0]) {
                let _ = writeln!(text, "{table}: {values:#?}");
            }
        }
    }
    if text.is_empty() { Ok(()) } else { Err(text) }
}

/// Why nodes left service, by their own logs.
fn reasons(group: &Group) -> String {
    let mut reasons = BTreeSet::new();
    for number in group.numbers() {
        let log = std::fs::read(group.playground.cluster(number).log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let telling =
            |line: &&str| ["could not be applied", "PANIC:", "terminated by signal"].iter().any(|word| line.contains(word));
        let reason = |line: &str| line.split_once("DETAIL:").map_or(line, |(_, reason)| reason).trim().to_owned();
        reasons.extend(text.lines().filter(telling).map(|line| format!("node {}: {}", number.0, reason(line))));
    }
    reasons.into_iter().collect::<Vec<_>>().join("\n")
}

fn tell(seed: u64, round: usize, why: &str, ran: &[Vec<Ran>]) -> Find {
    let mut text = format!("seed {seed}, round {round}: {why}\n");
    for (session, ran) in ran.iter().enumerate() {
        let _ = writeln!(text, "session {session} on node {}, at its end:", plan::SESSIONS[session]);
        for Ran { ingredient, statement, outcome } in &ran[ran.len().saturating_sub(SHOWN)..] {
            let _ = writeln!(text, "  [{ingredient}] {statement}\n      {outcome}");
        }
    }
    let _ = writeln!(text, "replay: SEED={seed} cargo test ... --test e2e_generator; print: GENERATOR_PRINT=1 SEED={seed}");
    text
}

//! `make test-faults`: every fault FAULTS_ROUNDS times (20), with the ledger running; one table. FAULTS=name,name picks some.
//!
//! Ends with status 0 only if the ledger agrees with every node after every fault and no bound was missed. A ledger that does not is a panic,
//! which leaves the group's files.

use std::process::ExitCode;

use postgres_r_tests::faults::fault::ALL;
use postgres_r_tests::faults::{Fault, campaign, report};

const ROUNDS: usize = 20;

fn main() -> ExitCode {
    match asked_for() {
        Ok((faults, rounds)) => run(&faults, rounds),
        Err(what) => {
            eprintln!("faults: error: {what}");
            ExitCode::from(2)
        }
    }
}

fn asked_for() -> Result<(Vec<Fault>, usize), String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let rounds = match variable("FAULTS_ROUNDS").map(|text| text.parse()) {
        None => ROUNDS,
        Some(Ok(rounds)) if rounds > 0 => rounds,
        Some(_) => return Err("FAULTS_ROUNDS must be a number above 0".to_owned()),
    };
    let Some(names) = variable("FAULTS") else { return Ok((ALL.to_vec(), rounds)) };
    let named = |name: &str| {
        let known = || ALL.map(Fault::name).join(", ");
        ALL.into_iter()
            .find(|fault| fault.name() == name)
            .ok_or_else(|| format!("no fault \"{name}\"; there are {}", known()))
    };
    let faults: Result<Vec<Fault>, String> = names.split(',').map(named).collect();
    Ok((faults?, rounds))
}

fn run(faults: &[Fault], rounds: usize) -> ExitCode {
    let results = campaign::run(faults, rounds);
    println!("\n{}", report::table(&results));
    for result in &results {
        result.reasons.iter().for_each(|reason| println!("{}: refused: {reason}", result.fault.name()));
    }
    let missed = report::missed(&results);
    missed.iter().for_each(|line| eprintln!("faults: missed: {line}"));
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

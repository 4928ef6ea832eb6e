//! Runs the simulator: `SEEDS=n` seeds from `FIRST_SEED` (1), or one `SEED=s` with its whole trace.

use std::process::ExitCode;

use postgres_r_tests::sim::plan::Plan;
use postgres_r_tests::sim::{report, run_seeds, run_traced};

fn main() -> ExitCode {
    match (number("SEED"), number("SEEDS"), number("FIRST_SEED")) {
        (Err(what), _, _) | (_, Err(what), _) | (_, _, Err(what)) => {
            eprintln!("sim: {what}");
            ExitCode::from(2)
        }
        (Ok(Some(seed)), _, _) => replay(seed),
        (Ok(None), Ok(seeds), Ok(first)) => many(first.unwrap_or(1), seeds.unwrap_or(200)),
    }
}

fn number(name: &str) -> Result<Option<u64>, String> {
    match std::env::var(name) {
        Err(_) => Ok(None),
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => value.parse().map(Some).map_err(|_| format!("{name} must be a number, not \"{value}\"")),
    }
}

fn replay(seed: u64) -> ExitCode {
    let plan = Plan::of_seed(seed);
    println!("{plan:?}");
    let (result, lines) = run_traced(&plan);
    lines.iter().for_each(|line| println!("{line}"));
    match result {
        Ok(tally) => {
            println!("{tally:?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{}", report(seed, &failure));
            ExitCode::FAILURE
        }
    }
}

fn many(first: u64, seeds: u64) -> ExitCode {
    let (mut failures, mut acknowledged) = (0, 0);
    for (seed, result) in run_seeds(first, seeds) {
        match result {
            Ok(tally) => acknowledged += tally.acknowledged,
            Err(failure) => {
                failures += 1;
                println!("{}", report(seed, &failure));
            }
        }
    }
    println!("{seeds} seeds from {first}: {failures} failed, {acknowledged} commits acknowledged");
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

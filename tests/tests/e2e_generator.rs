//! Random definitions and rows from three nodes at once: no node leaves service, and all are equal after each round
//! (`postgres_r_tests::generator`).
//!
//! `GENERATOR_SEEDS` and `GENERATOR_STATEMENTS` say how much; `SEED=n` replays one; `GENERATOR_PRINT=1` prints its statements.

use postgres_r_tests::generator::run;
use postgres_r_tests::harness;

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn whatever_is_drawn_means_the_same_on_every_node() {
    let statements = number("GENERATOR_STATEMENTS").unwrap_or(200);
    let seeds = match number("SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("GENERATOR_SEEDS").unwrap_or(2),
    };
    for seed in seeds {
        if number("GENERATOR_PRINT").is_some() {
            run::print(seed as u64, statements);
            continue;
        }
        let group = harness::shared();
        let started = std::time::Instant::now();
        match run::run(&group, seed as u64, statements) {
            Ok(report) => println!("seed {seed}: {} done, {:?}, {:?}", report.done, report.errors, started.elapsed()),
            Err(find) => panic!("{find}"),
        }
    }
}

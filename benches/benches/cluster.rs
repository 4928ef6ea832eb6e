//! `make bench`: the same loads against one plain PostgreSQL, against one with two physical standbys, and against a group of three, its clients on one
//! node or spread over all.
//!
//! Printed as tables, written to target/bench/cluster.json and cluster.md.
//!
//! `BENCH_SECONDS` (a run), `BENCH_ROUNDS`, `BENCH_SCALE`, `BENCH_CLIENTS` (a list) and `BENCH_LOADS` (a list of simple-update, tpcb-like, insert-only,
//! select-only, 90-10) say how much.

use std::error::Error;
use std::time::Duration;

use postgres_r_benches::load::Load;
use postgres_r_benches::measure::{Measured, measure};
use postgres_r_benches::systems::Systems;
use postgres_r_benches::{report, write_json, write_text};
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Results {
    processors: usize,
    seconds: u64,
    rounds: u64,
    scale: u32,
    measured: Vec<Measured>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let (seconds, rounds) = (setting("BENCH_SECONDS", 15)?, setting("BENCH_ROUNDS", 3)?);
    let scale = u32::try_from(setting("BENCH_SCALE", 10)?)?;
    let clients = std::env::var("BENCH_CLIENTS").unwrap_or_else(|_| "1 8 32".to_owned());
    let clients: Vec<u32> = clients.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let loads = Load::pick(std::env::var("BENCH_LOADS").ok().as_deref())?;
    let processors = std::thread::available_parallelism()?.get();

    let systems = Systems::start(scale)?;
    let all = systems.all();
    let mut measured = Vec::new();
    for load in &loads {
        for &clients in &clients {
            let mut of_systems: Vec<Measured> =
                all.iter().map(|system| Measured::new(system.name, load.name, clients)).collect();
            for round in 1..=rounds {
                eprintln!("{}, {clients} clients, round {round} of {rounds}", load.name);
                for (system, measured) in all.iter().zip(&mut of_systems) {
                    measured.add(measure(system, load, clients, Duration::from_secs(seconds), systems.directory())?);
                }
            }
            measured.extend(of_systems);
        }
    }
    let what = format!("{processors} processors, scale {scale}, medians of {rounds} rounds of {seconds} s");
    let text = format!("{what}\n\n{}", report::tables(&measured));
    println!("{text}");
    let results = Results { processors, seconds, rounds, scale, measured };
    println!("written to {} and {}", write_json("cluster", &results)?.display(), write_text("cluster.md", &text)?.display());
    Ok(())
}

fn setting(name: &str, default: u64) -> Result<u64, Box<dyn Error>> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|error| format!("{name}: {error}").into()),
        Err(_) => Ok(default),
    }
}

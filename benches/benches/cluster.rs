//! `make bench`: the same loads against one plain PostgreSQL, one with two physical standbys, a group of three, one MariaDB and a Galera cluster of three; then
//! what happens to a group and to a plain server when something large, or something bad, happens.
//!
//! Printed as tables, written to target/bench: cluster.json, cluster.md and plots. The environment says how much (`settings`).

use std::error::Error;
use std::fmt::Write;
use std::time::Instant;

use postgres_r_benches::events::{self, Figure};
use postgres_r_benches::goals::{self, Run};
use postgres_r_benches::measure::Measured;
use postgres_r_benches::settings::Settings;
use postgres_r_benches::systems::Systems;
use postgres_r_benches::{charts, report, throughput, write_json, write_text};
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Results<'a> {
    processors: usize,
    seconds: u64,
    rounds: u64,
    scale: u32,
    event_size: f64,
    left_out: &'a [String],
    measured: &'a [Measured],
    figures: &'a [Figure],
}

fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::read()?;
    let mut left_out = settings.left_out.clone();
    for left_out in &left_out {
        eprintln!("left out: {left_out}");
    }
    let start = Instant::now();
    let measured = {
        let systems = Systems::start(&settings.systems, &settings.loads, settings.scale)?;
        throughput::run(&systems, &settings, |measured| write(&settings, &[], measured, &[]).map(drop))?
    };
    let figures = events::run(&settings.events, settings.extent, &mut left_out, |figures| {
        write(&settings, &[], &measured, figures).map(drop)
    })?;
    println!("{}", write(&settings, &left_out, &measured, &figures)?);
    eprintln!("{:.0} minutes", start.elapsed().as_secs_f64() / 60.0);
    Ok(())
}

/// Writes what there is, and returns the tables.
fn write(
    settings: &Settings,
    left_out: &[String],
    measured: &[Measured],
    figures: &[Figure],
) -> Result<String, Box<dyn Error>> {
    let processors = std::thread::available_parallelism()?.get();
    let Settings { seconds, rounds, scale, .. } = *settings;
    let event_size = settings.extent.size;
    let mut text = format!("{processors} processors, scale {scale}, medians of {rounds} rounds of {seconds} s\n\n");
    for what in left_out {
        writeln!(text, "Left out: {what}.\n")?;
    }
    let run = Run { measured, figures };
    writeln!(text, "## Goals\n\n{}", goals::table(run))?;
    text.push_str(&report::tables(measured));
    text.push_str(&events::tables::tables(figures));
    let results = Results { processors, seconds, rounds, scale, event_size, left_out, measured, figures };
    let (json, table) = (write_json("cluster", &results)?, write_text("cluster.md", &text)?);
    for (name, svg) in charts::all(run)? {
        write_text(&name, &svg)?;
    }
    eprintln!("written to {}, {} and plots beside them", json.display(), table.display());
    Ok(text)
}

//! One large job on one node while a bystander on each node commits a row at a time: 3 million rows in one transaction, a COPY of 2 GB, an index whose build takes a minute.

use std::io::Write;
use std::time::{Duration, Instant};

use postgres_r_tests::harness::wait;
use postgres_r_tests::pgbench::Pgbench;

use super::bed::{Bed, connect, execute};
use super::bystanders;
use super::figure::{Extent, Figure, Result};

const ROWS: u64 = 3_000_000;
/// Of 1,000 bytes each.
const LINES: u64 = 2_000_000;
const INDEX_SECONDS: u64 = 60;
/// Nobody waits for longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// Rows that say how long the index expression takes, with about as many repeats as it will have.
const SAMPLE: u64 = 5_000;
const SAMPLE_REPEATS: u64 = 1_000;

pub fn run(bed: &mut Bed, extent: Extent) -> Result<Vec<Figure>> {
    let nodes: Vec<Pgbench> = (1..=3).map(|number| bed.node(number)).collect();
    let plain = [bed.plain()];
    let tables = "DROP TABLE IF EXISTS many, wide; CREATE TABLE many (id int PRIMARY KEY, n int NOT NULL);
                  CREATE TABLE wide (id int PRIMARY KEY, filler text NOT NULL)";
    let mut figures = Vec::new();
    for (system, servers) in [("plain", &plain[..]), ("group", &nodes[..])] {
        execute(&servers[0], tables)?;
        bystanders::prepare(servers)?;
        let insert = format!("INSERT INTO many SELECT i, i FROM generate_series(1, {}) i", extent.of(ROWS));
        figures.extend(watched(system, "3 million rows", servers, || execute(&servers[0], &insert))?);
        figures.extend(watched(system, "COPY of 2 GB", servers, || copy(&servers[0], extent.of(LINES)))?);
        let index = index(&servers[0], extent)?;
        figures.extend(watched(system, "index build", servers, || execute(&servers[0], &index))?);
        execute(&servers[0], "DROP TABLE many, wide")?;
    }
    Ok(figures)
}

fn watched(system: &str, job: &str, servers: &[Pgbench], run: impl FnOnce() -> Result<()>) -> Result<[Figure; 2]> {
    let numbers: Vec<usize> = (0..servers.len()).collect();
    bystanders::during(servers, |watch| {
        let start = Instant::now();
        run()?;
        let end = Instant::now();
        // What comes behind it may still wait for it.
        wait::until("another write of each bystander", PATIENCE, || {
            let is_behind = numbers.iter().any(|&number| watch.first_after(number, end).is_none());
            if is_behind { Err("none yet".to_owned()) } else { Ok(()) }
        });
        let pause = watch.longest_pause(&numbers, start, Instant::now());
        eprintln!(
            "{system}, {job}: {:.1} s, longest pause {pause:?}, {} errors",
            (end - start).as_secs_f64(),
            watch.errors()
        );
        Ok([
            Figure::one(format!("{system}: {job}"), "s", (end - start).as_secs_f64()),
            Figure::one(format!("{system}: longest pause of a bystander, {job}"), "s", pause.as_secs_f64()),
        ])
    })
}

fn copy(server: &Pgbench, lines: u64) -> Result<()> {
    let mut client = connect(server)?;
    let mut writer = client.copy_in("COPY wide FROM STDIN")?;
    let filler = "x".repeat(1_000);
    for line in 1..=lines {
        writeln!(writer, "{line}\t{filler}")?;
    }
    writer.finish()?;
    Ok(())
}

/// An expression that costs so much for each row that the build takes as long as is wanted, by one process.
fn index(server: &Pgbench, extent: Extent) -> Result<String> {
    let mut client = connect(server)?;
    // Numbers of as many digits as most.
    let numbers = format!("generate_series(1000000, 1000000 + {SAMPLE} - 1)");
    let sample = format!("SELECT count(md5(repeat(id::text, {SAMPLE_REPEATS}))) FROM {numbers} id");
    let start = Instant::now();
    client.batch_execute(&sample)?;
    let a_repeat = start.elapsed().as_secs_f64() / (SAMPLE * SAMPLE_REPEATS) as f64;
    let repeats = (extent.of(INDEX_SECONDS) as f64 / extent.of(ROWS) as f64 / a_repeat).ceil();
    Ok(format!(
        "SET max_parallel_maintenance_workers = 0; CREATE INDEX many_costly ON many (md5(repeat(id::text, {repeats})))"
    ))
}

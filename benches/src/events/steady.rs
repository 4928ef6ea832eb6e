//! Nothing periodic: ten minutes at 70 % of what a system can do, during which logs are cut, checkpoints written and snapshots made. What is looked for are transactions that take
//! long. The plain server goes through the same, since the machine has pauses of its own.

use std::fs;
use std::time::Duration;

use postgres_r_tests::pgbench::{self, Pgbench};

use super::bed::Bed;
use super::figure::{Extent, Figure, Result};
use crate::latency;

const GROUP_SECONDS: u64 = 600;
/// The machine's own pauses show in less time.
const PLAIN_SECONDS: u64 = 240;
const PROBE: Duration = Duration::from_secs(10);
const SHARE: f64 = 0.7;
const CLIENTS: u32 = 8;
/// Above this a transaction was held up.
const LONG_MS: f64 = 50.0;
const LOGS: &str = "steady";

pub fn run(bed: &mut Bed, extent: Extent) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let systems = [("group", bed.node(1), GROUP_SECONDS), ("plain", bed.plain(), PLAIN_SECONDS)];
    for (system, server, seconds) in systems {
        let capacity = pgbench::finish(server.spawn(CLIENTS, PROBE, &["-N"])?)?.tps;
        figures.extend(of(bed, system, &server, capacity * SHARE, extent.seconds(seconds))?);
    }
    Ok(figures)
}

fn of(bed: &Bed, system: &str, server: &Pgbench, rate: f64, time: Duration) -> Result<Vec<Figure>> {
    let prefix = bed.directory().join(LOGS).display().to_string();
    let (rate, log) = (format!("{rate:.0}"), format!("--log-prefix={prefix}"));
    let report = pgbench::finish(server.spawn(CLIENTS, time, &["-N", "-R", &rate, "--log", &log])?)?;
    let mut stalls = Vec::new();
    for entry in fs::read_dir(bed.directory())? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(LOGS) {
            stalls.extend(long_ones(&fs::read_to_string(entry.path())?));
        }
    }
    let latencies = latency::take(bed.directory(), LOGS)?;
    let moments = stalls_of(stalls);
    for (at, longest, count) in &moments {
        eprintln!("{system}: at {at:.1} s {count} transactions took longer than {LONG_MS} ms, the longest {longest:.0} ms");
    }
    Ok(vec![
        Figure::one(format!("{system}: rate"), "tps", report.tps),
        Figure::one(format!("{system}: p50"), "ms", latencies.p50),
        Figure::one(format!("{system}: p99"), "ms", latencies.p99),
        Figure::one(format!("{system}: p99.9"), "ms", latencies.p999),
        Figure::one(format!("{system}: longest"), "ms", latencies.longest),
        Figure::one(format!("{system}: stalls of more than 50 ms"), "", moments.len() as f64),
    ])
}

/// When each of those ended, in seconds, and how many milliseconds it took.
fn long_ones(log: &str) -> Vec<(f64, f64)> {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let us: f64 = fields.get(2)?.parse().ok()?;
        let ended = fields.get(4)?.parse::<f64>().ok()? + fields.get(5)?.parse::<f64>().ok()? / 1e6;
        (us / 1000.0 > LONG_MS).then_some((ended, us / 1000.0))
    };
    log.lines().filter_map(parse).collect()
}

/// Those that end within a second of each other are one stall: when it ended after the first, the longest of it, and how many.
fn stalls_of(mut long: Vec<(f64, f64)>) -> Vec<(f64, f64, usize)> {
    long.sort_by(|a, b| a.0.total_cmp(&b.0));
    let first = long.first().map_or(0.0, |(at, _)| *at);
    let mut stalls: Vec<(f64, f64, usize)> = Vec::new();
    for (at, ms) in long {
        match stalls.last_mut() {
            Some((last, longest, count)) if at - first - *last < 1.0 => {
                (*last, *longest, *count) = (at - first, longest.max(ms), *count + 1);
            }
            _ => stalls.push((at - first, ms, 1)),
        }
    }
    stalls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_transactions_close_to_each_other_are_one_stall() {
        let log = "0 1 60000 0 100 500000 0\n1 1 70000 0 100 900000 0\n2 1 1000 0 101 0 0\n0 2 51000 0 200 0 0\n0 3 failed 0 201 0\n";
        let long = long_ones(log);
        assert_eq!(long.len(), 3);
        let stalls = stalls_of(long).into_iter().map(|(at, ms, n)| ((at * 10.0).round(), ms, n));
        assert_eq!(stalls.collect::<Vec<_>>(), [(4.0, 70.0, 2), (995.0, 51.0, 1)]);
    }
}

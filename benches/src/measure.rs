//! One load on one system, round after round.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use postgres_r_tests::pgbench;
use serde::Serialize;

use crate::latency::{self, Latencies};
use crate::load::Load;
use crate::median;
use crate::meter::Meter;
use crate::systems::System;

/// Of a log's name; several systems write to one directory, but not at once.
const LOGS: &str = "latencies";

/// What one round gave; or the medians of several.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    pub tps: f64,
    pub latency_ms: Latencies,
    /// Times that a transaction lost and was run again, for each that was committed.
    pub retries: f64,
    /// For each transaction, everything on the machine.
    pub processor_us: f64,
    pub processor_us_by_kind: std::collections::BTreeMap<String, f64>,
    pub context_switches: f64,
    pub written_bytes: f64,
    /// Over the loopback interface: between clients and server, and among servers.
    pub loopback_bytes: f64,
}

/// One load on one system.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    pub system: &'static str,
    pub load: &'static str,
    pub clients: u32,
    pub medians: Figures,
    pub rounds: Vec<Figures>,
}

impl Measured {
    pub fn new(system: &'static str, load: &'static str, clients: u32) -> Measured {
        Measured { system, load, clients, medians: Figures::default(), rounds: Vec::new() }
    }

    pub fn add(&mut self, figures: Figures) {
        self.rounds.push(figures);
        self.medians = Figures::medians(&self.rounds);
    }
}

/// One round.
pub fn measure(
    system: &System,
    load: &Load,
    clients: u32,
    time: Duration,
    directory: &Path,
) -> Result<Figures, Box<dyn Error>> {
    let servers = system.servers.len() as u32;
    let mut arguments = load.arguments(directory)?;
    let prefix = directory.join(LOGS).display().to_string();
    arguments.extend(["--log".to_owned(), format!("--log-prefix={prefix}")]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let meter = Meter::start(system.directories.clone())?;
    let start = |(nth, server): (u32, &pgbench::Pgbench)| {
        // As even as it goes.
        let share = clients / servers + u32::from(nth < clients % servers);
        (share > 0).then(|| server.spawn(share, time, &arguments))
    };
    let running: Vec<_> = (0..).zip(&system.servers).filter_map(start).collect::<Result<_, _>>()?;
    let reports: Vec<pgbench::Report> = running.into_iter().map(pgbench::finish).collect::<Result<_, _>>()?;
    let spent = meter.spent()?;
    let transactions: u64 = reports.iter().map(|report| report.transactions).sum();
    let each = |amount: u64| amount as f64 / transactions.max(1) as f64;
    Ok(Figures {
        tps: reports.iter().map(|report| report.tps).sum(),
        latency_ms: latency::take(directory, LOGS)?,
        retries: each(reports.iter().map(|report| report.retries).sum()),
        processor_us: each(spent.busy_us),
        processor_us_by_kind: spent.by_kind.iter().map(|(kind, &us)| (kind.clone(), each(us))).collect(),
        context_switches: each(spent.switches),
        written_bytes: each(spent.written_bytes),
        loopback_bytes: each(spent.loopback_bytes),
    })
}

impl Figures {
    fn medians(rounds: &[Figures]) -> Figures {
        let of = |figure: &dyn Fn(&Figures) -> f64| median(&rounds.iter().map(figure).collect::<Vec<_>>());
        let kinds = rounds.iter().flat_map(|round| round.processor_us_by_kind.keys().cloned());
        let by_kind = kinds.map(|kind| {
            let us = of(&|round| round.processor_us_by_kind.get(&kind).copied().unwrap_or(0.0));
            (kind, us)
        });
        Figures {
            tps: of(&|round| round.tps),
            latency_ms: Latencies {
                p50: of(&|round| round.latency_ms.p50),
                p99: of(&|round| round.latency_ms.p99),
                p999: of(&|round| round.latency_ms.p999),
                longest: of(&|round| round.latency_ms.longest),
            },
            retries: of(&|round| round.retries),
            processor_us: of(&|round| round.processor_us),
            processor_us_by_kind: by_kind.collect(),
            context_switches: of(&|round| round.context_switches),
            written_bytes: of(&|round| round.written_bytes),
            loopback_bytes: of(&|round| round.loopback_bytes),
        }
    }
}

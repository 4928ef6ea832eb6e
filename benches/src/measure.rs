//! One load on one system, round after round.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::latency::{Latencies, Samples};
use crate::load::Load;
use crate::median;
use crate::meter::Meter;
use crate::server::{Outcome, Running, Server};
use crate::systems::System;
use crate::systems::kind::Kind;

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
    /// The system that its ratio is to.
    pub reference: &'static str,
    pub load: &'static str,
    pub clients: u32,
    pub medians: Figures,
    pub rounds: Vec<Figures>,
}

impl Measured {
    pub fn new(kind: Kind, load: &'static str, clients: u32) -> Measured {
        let (system, reference) = (kind.name(), kind.reference().name());
        Measured { system, reference, load, clients, medians: Figures::default(), rounds: Vec::new() }
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
    system.prepare()?;
    let servers = system.servers.len() as u32;
    let meter = Meter::start(system.directories.clone())?;
    let start = |(nth, server): (u32, &Server)| {
        // As even as it goes.
        let share = clients / servers + u32::from(nth < clients % servers);
        (share > 0).then(|| server.spawn(load, share, time, directory, nth))
    };
    let running: Vec<_> = (0..).zip(&system.servers).filter_map(start).collect::<Result<_, _>>()?;
    let outcomes: Vec<Outcome> = running.into_iter().map(Running::finish).collect::<Result<_, _>>()?;
    let spent = meter.spent()?;
    let transactions: u64 = outcomes.iter().map(|outcome| outcome.transactions).sum();
    let mut samples = Samples::default();
    outcomes.iter().for_each(|outcome| samples.add(outcome.samples.clone()));
    let each = |amount: u64| amount as f64 / transactions.max(1) as f64;
    Ok(Figures {
        tps: outcomes.iter().map(|outcome| outcome.tps).sum(),
        latency_ms: samples.latencies(),
        retries: each(outcomes.iter().map(|outcome| outcome.retries).sum()),
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

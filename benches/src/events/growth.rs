//! How costs grow with nodes: a group of 1, 3, 5 and 7 nodes under the same load on one of them; and the memory of a node that does nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gcs::playground::process::Process;
use postgres_r_tests::harness::{Group, node};
use postgres_r_tests::pgbench;

use super::bed::{Bed, directories, execute, of_node};
use super::figure::{Extent, Figure, Result};
use crate::meter::Meter;

const NODES: [usize; 4] = [1, 3, 5, 7];
const SCALE: u32 = 10;
const CLIENTS: u32 = 8;
const SECONDS: u64 = 8;
const WARM_UP: Duration = Duration::from_secs(2);

pub fn run(_bed: &mut Bed, extent: Extent) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for nodes in NODES {
        let group = Group::try_start(nodes)?;
        if nodes == 3 {
            let held = memory_mb(&group);
            figures.push(Figure::one("memory of an idle node, its server and its daemon", "MB", held));
        }
        let server = of_node(&group, node(1));
        server.initialize(SCALE)?;
        group.settle();
        // What filling it left behind is done, and its processes have gone, before anything is measured.
        execute(&server, "VACUUM ANALYZE")?;
        pgbench::finish(server.spawn(CLIENTS, WARM_UP, &["-N"])?)?;
        let (mut tps, mut processor, mut by_kind) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..extent.rounds {
            let meter = Meter::start(directories(&group))?;
            let report = pgbench::finish(server.spawn(CLIENTS, extent.seconds(SECONDS), &["-N"])?)?;
            let spent = meter.spent()?;
            let each = |us: u64| us as f64 / report.transactions.max(1) as f64;
            tps.push(report.tps);
            processor.push(each(spent.busy_us));
            by_kind.push(spent.by_kind.iter().map(|(kind, &us)| (kind.clone(), each(us))).collect::<Vec<_>>());
        }
        figures.push(Figure::new(format!("simple-update, {CLIENTS} clients, {nodes} nodes"), "tps", tps));
        figures.push(Figure::new(format!("processor time of a transaction, {nodes} nodes"), "µs", processor));
        for kind in ["client backends", "remote backends", "gcs"] {
            let us = |round: &Vec<(String, f64)>| round.iter().find(|(of, _)| of == kind).map_or(0.0, |(_, us)| *us);
            let values = by_kind.iter().map(us).collect();
            figures.push(Figure::new(format!("of that {kind}, {nodes} nodes"), "µs", values));
        }
        if nodes == 3 {
            let held = memory_mb(&group);
            figures.push(Figure::one("the same after a load of simple-update", "MB", held));
        }
    }
    Ok(figures)
}

/// What all processes of the second node hold together, shared pages once.
fn memory_mb(group: &Group) -> f64 {
    let cluster = group.playground.cluster(node(2));
    let of = |directory: PathBuf| -> u64 { Process::all_in(&directory).iter().filter_map(proportional_kb).sum() };
    (of(cluster.data()) + of(cluster.home)) as f64 / 1024.0
}

fn proportional_kb(process: &Process) -> Option<u64> {
    let text = fs::read_to_string(Path::new("/proc").join(process.pid.to_string()).join("smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

//! A node that lost its power misses writesets, and catches up: from the log, since nobody has forgotten them.

use std::process::Child;
use std::time::Instant;

use postgres_r_tests::harness::node;
use postgres_r_tests::pgbench;

use super::bed::Bed;
use super::figure::{Extent, Figure, Result};

const WRITESETS: u64 = 65_000;
const CLIENTS: u64 = 8;

pub fn run(bed: &mut Bed, extent: Extent) -> Result<Vec<Figure>> {
    let away = node(3);
    bed.power_off(away);
    let each = extent.of(WRITESETS).div_ceil(CLIENTS);
    let report = pgbench::finish(simple_updates(bed, each)?)?;
    let start = Instant::now();
    bed.power_on(away)?;
    let online = start.elapsed().as_secs_f64();
    bed.group.settle();
    let took = start.elapsed().as_secs_f64();
    Ok(vec![
        Figure::one("writesets that a node missed", "", report.transactions as f64),
        Figure::one("from its start until it takes clients", "s", online),
        Figure::one("from its start until it has everything", "s", took),
        Figure::one("writesets a second", "1/s", report.transactions as f64 / took),
    ])
}

fn simple_updates(bed: &Bed, each: u64) -> Result<Child> {
    let (clients, each) = (CLIENTS.to_string(), each.to_string());
    Ok(bed.node(1).command(&["-n", "-N", "-c", &clients, "-j", "2", "-t", &each, "--max-tries=1000"]).spawn()?)
}

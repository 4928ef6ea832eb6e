//! The node that leads loses its power, and comes back: how long the others wait each time.

use std::thread;
use std::time::{Duration, Instant};

use postgres_r_tests::harness::wait;
use postgres_r_tests::pgbench::Pgbench;

use super::bed::Bed;
use super::bystanders;
use super::figure::{Extent, Figure, Result};

const ROUNDS: u64 = 20;
/// What is looked at before and after each change.
const CALM: Duration = Duration::from_secs(1);
/// Nobody waits for longer.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(bed: &mut Bed, extent: Extent) -> Result<Vec<Figure>> {
    let numbers = bed.group.numbers();
    let nodes: Vec<Pgbench> = numbers.iter().map(|&number| bed.of(number)).collect();
    bystanders::prepare(&nodes)?;
    let (mut killed, mut rejoined, mut online) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..extent.of(ROUNDS) {
        let round = bystanders::during(&nodes, |watch| {
            let leader = bed.leader();
            let others: Vec<usize> = (0..numbers.len()).filter(|&at| numbers[at] != leader).collect();
            thread::sleep(CALM);
            let start = Instant::now();
            bed.power_off(leader);
            wait::until("a write on each of the others", PATIENCE, || {
                let wrote = |&at: &usize| watch.first_after(at, start + CALM).is_some();
                if others.iter().all(wrote) { Ok(()) } else { Err("none yet".to_owned()) }
            });
            let pause = watch.longest_pause(&others, start, Instant::now());
            let start = Instant::now();
            bed.power_on(leader)?;
            let took = start.elapsed();
            thread::sleep(CALM);
            Ok((pause, watch.longest_pause(&others, start, Instant::now()), took))
        })?;
        killed.push(milliseconds(round.0));
        rejoined.push(milliseconds(round.1));
        online.push(round.2.as_secs_f64());
    }
    Ok(vec![
        Figure::new("longest pause on the others after the leader's node lost its power", "ms", killed),
        Figure::new("the same while that node comes back", "ms", rejoined),
        Figure::new("from its start until it takes clients again", "s", online),
    ])
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

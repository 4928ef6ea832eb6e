//! The simulator: whole groups in one thread, with everything that can go wrong drawn from a seed.
//!
//! A run is N cores (the daemon's own, [`gcs_core::Core`]) over a [`net`] that delays, reorders, duplicates, drops and
//! partitions, on [`disk`]s that lose what was not flushed, each under a model of a [`postgres`] server with snapshots, row
//! locks, remote backends and the gate, with clients. Daemons and servers crash, separately and together, and come back.
//! What happens becomes [`fact`]s, and every invariant of the design is a [`check`] over them. Then trouble ends, and the group
//! must become live and equal.
//!
//! One seed is one run: the same seed gives the same trace, byte for byte. So a failure is found once and replayed at will:
//!
//! ```text
//! make sim SEEDS=10000               # seeds 1 to 10000
//! make sim SEED=4711                 # one seed, with its trace
//! ```
//!
//! Left out on purpose: PostgreSQL itself. Whether the extension does what the model does is for the end-to-end tests to show.

pub mod check;
pub mod daemon;
pub mod disk;
pub mod fact;
pub mod faults;
pub mod net;
pub mod plan;
pub mod platform;
pub mod postgres;
pub mod process;
pub mod server;
pub mod spool;
pub mod time;
pub mod trace;
pub mod wire;
pub mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use plan::Plan;
use time::Time;
use trace::Trace;
use world::{Failure, Tally, World};

/// Runs one plan. A panic in the core is a failure like others.
pub fn run(plan: &Plan) -> Result<Tally, Failure> {
    run_into(plan, Trace::default())
}

/// Runs one plan and keeps its trace.
pub fn run_traced(plan: &Plan) -> (Result<Tally, Failure>, Vec<String>) {
    let trace = Trace::kept();
    (run_into(plan, trace.clone()), trace.into_lines())
}

fn run_into(plan: &Plan, trace: Trace) -> Result<Tally, Failure> {
    let run = AssertUnwindSafe(|| World::new(plan.clone(), trace).run());
    catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let what = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default();
        Err(Failure { at: Time(0), invariant: "no panic", what })
    })
}

/// Runs seeds on all processors; results come in the order of the seeds.
pub fn run_seeds(first: u64, count: u64) -> Vec<(u64, Result<Tally, Failure>)> {
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let share =
        |worker| (first + worker..first + count).step_by(workers as usize).map(|seed| (seed, run(&Plan::of_seed(seed))));
    let mut results: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..workers).map(|worker| scope.spawn(move || share(worker).collect::<Vec<_>>())).collect();
        running
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    results.sort_by_key(|(seed, _)| *seed);
    results
}

/// Says how to see a failure again.
pub fn report(seed: u64, failure: &Failure) -> String {
    format!(
        "seed {seed} breaks \"{}\" at {} s: {}\nreplay it with: make sim SEED={seed}",
        failure.invariant, failure.at, failure.what
    )
}

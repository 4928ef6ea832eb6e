//! The simulator: whole groups in one thread, with everything that can go wrong drawn from a seed.
//!
//! # What is driven, and what is a model
//!
//! Two pieces of the real thing run here, both pure: the daemon's core ([`gcs_core::Core`]), and the extension's protocol
//! ([`postgres_r_protocol`]): gate, slots, submissions, turns, apply queue, remote backends, precedence, the manager's dispatch, fetches and
//! reports. There is no second implementation of either.
//!
//! | file | what it is | code under test that it runs |
//! |---|---|---|
//! | [`daemon`], [`disk`], [`net`] | the shell of gcs: messages that are delayed, reordered, lost; disks that lose what was not flushed | `gcs_core` |
//! | [`ahead`], [`world`]`/ahead` | questions of one node to others, to apply a transaction ahead; a model of `gcs/src/forerunners` | |
//! | [`wire`], [`world`]`/link` | the local socket of gcs: connections, the stream, fetches, answers; a model of `gcs/src/local` | the frames of `gcs_writeset::link` |
//! | [`platform`], [`spool`] | shared memory, locks and latches of one server, in one thread | `postgres_r_protocol::platform` |
//! | [`process`] | client backends, remote backends, forerunners and the manager, each asleep on its latch until it is woken or its time is over | all of `postgres_r_protocol` but `ask`, `capture`, `items`, `statement` |
//! | [`postgres`] | PostgreSQL itself: row versions, snapshots, row locks, commit records that become visible and then durable | none: a model |
//! | [`server`] | one server out of these, its lives and deaths | |
//! | [`check`] | the invariants of the design, over [`fact`]s | |
//!
//! Daemons and servers crash, separately and together, and come back; networks split; processes die by themselves, are stopped for seconds as by
//! SIGSTOP, are cancelled and terminated at any moment, also between the verdict and the commit. All bounds are small: windows of 8 to
//! 256 positions, apply queues of a few hundred bytes, chunks of a few bytes. Then trouble ends, and the group must become live
//! and equal.
//!
//! One seed is one run: the same seed gives the same trace, byte for byte. So a failure is found once and replayed at will:
//!
//! ```text
//! make sim SEEDS=10000               # seeds 1 to 10000
//! make sim SEED=4711                 # one seed, with its trace
//! ```
//!
//! # What is left out
//!
//! - PostgreSQL itself, and the code of the extension that calls it: for the end-to-end tests.
//! - Interleavings within a step. A step of a process is one event here; tests/loom.rs of the protocol takes steps apart. So a manager dies
//!   between two frames, never in the middle of a verdict.
//! - That the daemon has its core follow what is applied ahead: it looks in the ordered state by itself ([`world`]`/ahead`).
//! - Plain readers in the way of DDL, and so `postgres_r.reader_grace`; START and STOP REPLICATION; databases out of
//!   service; a second database.

pub mod ahead;
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

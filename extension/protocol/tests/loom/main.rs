//! Every interleaving of what processes do to one another in shared memory: slot, gate, apply queue, wake-ups, a manager's death.
//!
//! Each test is a *model*: two or three processes (threads of loom), each with a few steps of the real code, on a server of its own
//! ([`room::Room`]). Loom runs the model again and again, until every order of the steps has been tried that can make a difference. A
//! model fails by an assertion, or because everybody sleeps and nobody is left to wake them ("deadlock"): that is how a lost wake-up
//! looks. So sleeps have no time limit here, though most of the real ones have: what is found would be a delay there.
//!
//! What one step is: one operation on an atomic of shared memory, or one critical section of the gate. A process can end between any two of
//! them ([`room::dies_after`]), but not inside of a critical section: PostgreSQL holds interrupts back there, and a server of which a process
//! was killed starts again with new shared memory.
//!
//! How orderings are checked: see `postgres_r_protocol::sync::tried`.
//!
//! Run by `make loom`. Each model prints how many interleavings it took. A model that is not searched in full says so with `at_most`.

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod forerunner;
mod gate;
mod manager;
mod room;
mod slot;
mod turn;
mod victim;
mod watch;
mod worker;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Thread switches and choices in one interleaving.
const BRANCHES_MAX: usize = 20_000;

/// Tries all interleavings.
fn explore(name: &str, model: impl Fn() + Send + Sync + 'static) {
    report(name, None, |_| try_all(None, model));
}

/// Tries all interleavings in which a process is interrupted in mid-course at most so many times altogether. A process that sleeps or
/// ends is not interrupted.
fn explore_at_most(interruptions: usize, name: &str, model: impl Fn() + Send + Sync + 'static) {
    report(name, Some(interruptions), |bound| try_all(bound, model));
}

/// Says how many interleavings it took.
fn report(name: &str, bound: Option<usize>, search: impl FnOnce(Option<usize>) -> usize) {
    let begin = Instant::now();
    let tried = search(bound);
    let bound = bound.map_or(String::new(), |bound| format!(", at most {bound} interruptions"));
    // Past the test harness, which keeps back what a passing test prints.
    let _ = writeln!(io::stderr(), "{name}: {tried} interleavings{bound}, {:.1} s", begin.elapsed().as_secs_f32());
}

fn try_all(bound: Option<usize>, model: impl Fn() + Send + Sync + 'static) -> usize {
    let tried = Arc::new(AtomicUsize::new(0));
    let counter = tried.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = bound.or(builder.preemption_bound);
    builder.max_branches = BRANCHES_MAX;
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model();
    });
    tried.load(Ordering::Relaxed)
}

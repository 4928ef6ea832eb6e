//! How many remote backends are awake.
//!
//! Waking a process costs as much as applying a small writeset, so one that is awake takes position after position by
//! itself, and another is called only when it can help: the awake ones all wait, or the queue grows all the same.

use std::sync::atomic::Ordering;

use gcs_writeset::Position;

use crate::guc;
use crate::shmem::{DatabaseArea, Doing, Worker};

/// Queued writesets for each awake remote backend, above which one more is called.
const BACKLOG: u32 = 8;

fn workers(area: &DatabaseArea) -> &'static [Worker] {
    &area.workers[..guc::apply_workers().min(area.workers.len())]
}

/// Something was queued.
pub fn queued(area: &DatabaseArea) {
    let active = workers(area).iter().filter(|w| matches!(w.doing(), Doing::Called | Doing::Applying)).count() as u32;
    if active == 0 || area.gate.queued() > active * BACKLOG {
        call_one(area);
    }
}

/// A lower position than others was queued: if all are waiting behind it, one of them has to let go.
pub fn queued_below(area: &DatabaseArea, position: Position) {
    if call_one(area) {
        return;
    }
    let highest = workers(area)
        .iter()
        .filter(|worker| worker.doing() == Doing::Waiting && worker.position.load(Ordering::SeqCst) > position.0)
        .max_by_key(|worker| worker.position.load(Ordering::SeqCst));
    if let Some(worker) = highest {
        worker.let_go.store(true, Ordering::SeqCst);
        worker.place.wake();
    }
}

fn call_one(area: &DatabaseArea) -> bool {
    workers(area).iter().any(Worker::call)
}

/// This remote backend is about to sleep: somebody else may do what is left.
pub fn before_waiting(area: &DatabaseArea) {
    if let Some(me) = super::worker::me() {
        me.set_doing(Doing::Waiting);
    }
    if area.gate.queued() > 0 {
        call_one(area);
    }
}

pub fn after_waiting(_area: &DatabaseArea) {
    if let Some(me) = super::worker::me() {
        me.set_doing(Doing::Applying);
    }
}

/// Everything up to `committed` is there: whoever waited for it may start. Raises nothing.
pub fn wake_dependents(area: &DatabaseArea, committed: Position) {
    for worker in area.workers {
        let awaits = worker.awaits.load(Ordering::SeqCst);
        if awaits != 0 && awaits <= committed.0 {
            worker.place.wake();
        }
    }
}

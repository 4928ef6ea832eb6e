//! The builder: builds one index on this node that a session of another node makes CONCURRENTLY, beside everything else
//! (docs/adr/0058-concurrently.md). Started by the rehearser, and gone when the index is built.
//!
//! Its transactions are of this node alone: what it leaves is an index that is ready, complete, and not valid. The order makes it valid, on all
//! nodes at one position. Whatever ends it before leaves an index that is not valid, and is built when that position comes.
//!
//! ```text
//! waits for those who write without knowing the index; says up to where they may have committed     stage Known
//! hears up to where such writers of all nodes have committed; waits until that is committed here
//! builds; waits for those who write without entering rows; enters the rows that came meanwhile
//! waits for snapshots in which the index would be wrong                                             stage Done
//! ```
//!
//! An index that is to be dropped it takes out of use: waits for those who may use it for queries, has no rows entered, waits for those who may
//! still enter some.

use std::time::Duration;

use pgrx::PgSqlErrorCode;

use super::worker::configure;
use crate::error::Error;
use crate::node::building::{Build, Stage};
use crate::node::{self, DatabaseArea, wake};
use crate::pg::relation::Oid;
use crate::pg::{clock, concurrent, interrupt, latch, process, worker, xact};
use crate::{session, summons};

/// Should nobody wake it.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// Who has not asked for so long is gone.
const ASKED_WITHIN_MS: u64 = 20_000;

pub fn main(number: u64) {
    let Some(node) = node::get() else { return };
    let (database, place) = worker::remote_of_number(number);
    let Some(area) = node.databases.get(database) else { return };
    let (Some(build), Some(me)) = (area.builds.get(place), process::me()) else { return };
    if !area.is_in_use() || !build.enter(me) {
        return;
    }
    process::on_exit(|| {
        build.leave();
        wake(&area.replica.rehearser);
    });
    session::become_remote_backend();
    worker::connect(area.oid());
    configure();
    worker::set_setting("log_lock_waits", "off");
    // What it reports as done must survive a crash.
    worker::set_setting("synchronous_commit", "on");
    summons::listen();
    worker::report_activity(Some("building an index for another node"));
    match run(area, build) {
        Ok(()) => build.stage.store(Stage::Done),
        Err(failed) => build.fail(failed.code, &failed.message, &failed.detail.unwrap_or_default()),
    }
    worker::report_statistics(true);
}

fn run(area: &'static DatabaseArea, build: &Build) -> Result<(), xact::Failed> {
    let index = build.index();
    if build.is_to_go() {
        return take_out_of_use(index);
    }
    step(index, concurrent::wait_for_writers)?;
    // Whoever has ended may have left a position that is not committed yet.
    build.set_known(area.gate.known());
    wake(&area.replica.rehearser);
    wait_for_others(area, build);
    step(index, |_| concurrent::build(index))?;
    step(index, concurrent::wait_for_writers)?;
    let horizon = step(index, |_| concurrent::validate(index).unwrap_or_else(|| gone()))?;
    step(index, |_| concurrent::wait_for_older_snapshots(horizon))
}

/// The index is not valid any more: no query is planned with it.
fn take_out_of_use(index: Oid) -> Result<(), xact::Failed> {
    step(index, concurrent::wait_for_users)?;
    step(index, |table| concurrent::make_dead(index, table))?;
    step(index, concurrent::wait_for_users)
}

fn gone() -> ! {
    Error::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, "the index was dropped while it was built").raise()
}

/// In a transaction of its own, while the index is there. Gives way like any open transaction.
fn step<R>(index: Oid, work: impl FnOnce(Oid) -> R) -> Result<R, xact::Failed> {
    let done = xact::transaction(|| {
        let Some(state) = concurrent::state(index) else { gone() };
        concurrent::forget_catalog_snapshot();
        work(state.table)
    });
    if let Some(slot) = node::my_slot() {
        slot.victim.clear();
    }
    process::forget_summons();
    interrupt::forget_cancel();
    interrupt::check();
    done
}

/// Until the asker has heard from all nodes, and this one has committed what they had. Ends this process if nobody asks any more.
fn wait_for_others(area: &DatabaseArea, build: &Build) {
    loop {
        let is_there = build.seen().is_some_and(|seen| area.gate.committed() >= seen);
        if is_there {
            return;
        }
        let is_forgotten = clock::millis().saturating_sub(build.asked_at()) > ASKED_WITHIN_MS;
        if is_forgotten || !area.is_in_use() {
            worker::exit();
        }
        match build.seen() {
            Some(seen) => {
                area.conditions.wait_for_lag(LOOK_AROUND, || area.gate.committed() >= seen);
            }
            None => latch::wait(Some(LOOK_AROUND)),
        }
        interrupt::forget_cancel();
        interrupt::check();
    }
}

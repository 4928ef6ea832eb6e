//! Nobody makes an earlier position wait.
//!
//! A remote backend that has to wait for a lock finds out who holds it and deals with each by what it is doing
//! (docs/architecture.md, "Who gives way"). There are two occasions: [`give_way`], called before it sleeps on a row, and
//! PostgreSQL's own report of a long lock wait, which [`on_report`] sees in place of the log. A timer repeats the second
//! as long as the wait lasts, so every look-up finds what changed since the last one and goes one step further.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use gcs_writeset::{NodeId, Position};
use pgrx::pg_sys;

use crate::capture::KeyDescription;
use crate::gate::Job;
use crate::guc;
use crate::pg::log::{Level, Report};
use crate::pg::process::{self, Holder};
use crate::pg::{blockers, latch, timer};
use crate::session;
use crate::shmem::{self, DatabaseArea};
use crate::submit::slot::{Slot, State};

/// deadlock_timeout of remote backends: how long a wait lasts before the first look-up.
pub const LOOK_UP_AFTER: &str = "10ms";

/// Between look-ups.
const LOOK_UP_EVERY: Duration = Duration::from_millis(20);

/// What a summoned transaction whose session is idle has, to come with its next statement, before the session is ended.
const IDLE_GRACE: Duration = Duration::from_millis(300);

/// What this remote backend works on.
#[derive(Clone, Copy)]
struct Application {
    position: Position,
    node: NodeId,
}

/// A transaction that stands in the way, and since when.
struct Standing {
    holder: Holder,
    since: Instant,
}

thread_local! {
    static APPLICATION: Cell<Option<Application>> = const { Cell::new(None) };
    /// What the holder is being dealt with for.
    static WHAT: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
    static STANDING: RefCell<Vec<Standing>> = const { RefCell::new(Vec::new()) };
}

pub fn begin(job: &Job) {
    APPLICATION.set(Some(Application { position: job.position, node: job.node }));
}

pub fn end() {
    APPLICATION.set(None);
    STANDING.with_borrow_mut(Vec::clear);
    timer::stop();
}

/// Makes the holders that must give way to this remote backend do so, before it waits for transaction `xid`. `what` is the
/// table and the key (if known) that they hold, for their error. Returns at once; the caller then waits as usual.
pub fn give_way(xid: pg_sys::TransactionId, what: &KeyDescription) {
    if let (Some(area), Some(holder)) = (session::database(), process::holder_of(xid)) {
        // Read here, since whoever reports an error can't read catalogs.
        let role = shmem::get().and_then(|shared| shared.slot_of(holder.process)).and_then(Slot::role);
        WHAT.set(Some((what.table.clone(), what.key_for(role))));
        deal_with(area, &holder);
        WHAT.set(None);
    }
}

/// In a remote backend, reports of lock waits are occasions, not news.
pub fn on_report(report: &mut Report) {
    if report.level() != Level::Log || APPLICATION.get().is_none() {
        return;
    }
    if report.has_format(c"process %d still waiting for") {
        report.hold_back();
        look_up();
    } else if report.has_format(c"process %d acquired") || report.has_format(c"process %d avoided deadlock") {
        report.hold_back();
    }
}

fn look_up() {
    let Some(area) = session::database() else { return };
    for holder in blockers::mine() {
        deal_with(area, &holder);
    }
    // The wait loop goes round whenever our latch is set, and reports again each time.
    timer::start(LOOK_UP_EVERY);
}

fn deal_with(area: &DatabaseArea, holder: &Holder) {
    let Some(application) = APPLICATION.get() else { return };
    let Some(slot) = shmem::get().and_then(|shared| shared.slot_of(holder.process)) else { return };
    if let Some(theirs) = slot.remote() {
        if theirs > application.position {
            summon(slot, holder, application);
        }
        return;
    }
    match slot.state() {
        State::Certified => {
            let yields = WHAT.with_borrow(|what| slot.yield_to(application.position, application.node, what.as_ref()));
            if yields {
                latch::wake(holder.process);
            }
        }
        // Its verdict comes, an abort if keys conflict; or it is on its way out.
        State::Sent | State::Deciding | State::Aborted | State::Refused | State::Yielded | State::GivenUp => {}
        State::Idle | State::Open => press(area, slot, holder, application),
    }
}

/// An open transaction: told at once if it writes, after a grace if it reads; its session is ended when telling was not enough.
fn press(area: &DatabaseArea, slot: &Slot, holder: &Holder, application: Application) {
    STANDING.with_borrow_mut(|standing| {
        let known = |s: &Standing| s.holder.process == holder.process && s.holder.transaction == holder.transaction;
        let index = standing.iter().position(known).unwrap_or_else(|| {
            standing.push(Standing { holder: *holder, since: Instant::now() });
            standing.len() - 1
        });
        let grace = if holder.writes { Duration::ZERO } else { guc::reader_grace() };
        let waited = standing[index].since.elapsed();
        if waited < grace {
            return;
        }
        // Every time again: it may have caught the error and gone on.
        if waited >= grace + IDLE_GRACE {
            slot.press(holder.transaction);
            if !slot.hears() && process::still_in(holder) {
                area.state.counters.sessions_ended.one();
                process::dislodge(holder);
            }
        }
        summon(slot, holder, application);
    });
}

/// Flag first, so that whatever the transaction does next it sees it; then the signal, for what it is doing now.
fn summon(slot: &Slot, holder: &Holder, application: Application) {
    WHAT.with_borrow(|what| slot.mark_victim(holder.transaction, application.position, application.node, what.as_ref()));
    if process::still_in(holder) {
        process::summon(holder);
    }
}

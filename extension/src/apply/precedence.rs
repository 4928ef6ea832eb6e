//! Nobody makes an earlier position wait.
//!
//! A remote backend that has to wait for a lock finds out who holds it, and has `postgres_r_protocol::precedence` decide about each holder
//! (docs/architecture.md, "Who gives way"). There are two occasions: [`give_way`], called before it sleeps on a row, and
//! PostgreSQL's own report of a long lock wait, which [`on_report`] sees in place of the log. A timer repeats the second
//! as long as the wait lasts, so every look-up finds what changed since the last one and goes one step further.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use gcs_writeset::{NodeId, Position};
use pgrx::pg_sys;
use pgrx::prelude::*;
use postgres_r_protocol::gate::Job;
use postgres_r_protocol::pool;
use postgres_r_protocol::precedence::{Pressing, Pressure};
use postgres_r_protocol::victim::Winner;
use postgres_r_protocol::worker::Worker;

use crate::guc;
use crate::node::{self, DatabaseArea};
use crate::pg::log::{Level, Report};
use crate::pg::process::{self, Holder};
use crate::pg::{blockers, clock, interrupt, latch, timer};
use crate::relations::KeyDescription;
use crate::{session, turn};

/// deadlock_timeout of remote backends: how long a wait lasts before the first look-up.
pub const LOOK_UP_AFTER: &str = "10ms";

/// Between look-ups.
const LOOK_UP_EVERY: Duration = Duration::from_millis(20);

/// What this remote backend works on.
#[derive(Clone, Copy)]
struct Application {
    position: Position,
    /// The node that the position is of.
    node: NodeId,
    worker: &'static Worker,
    /// Whether it is one of a run, which waits for nobody.
    is_in_run: bool,
}

thread_local! {
    static APPLICATION: Cell<Option<Application>> = const { Cell::new(None) };
    static PRESSING: RefCell<Pressing> = RefCell::default();
}

pub fn begin(job: &Job, worker: &'static Worker) {
    APPLICATION.set(Some(Application { position: job.position, node: job.node, worker, is_in_run: false }));
}

/// The same of one that is applied with others in one transaction.
pub fn begin_in_run(job: &Job, worker: &'static Worker) {
    APPLICATION.set(Some(Application { position: job.position, node: job.node, worker, is_in_run: true }));
}

/// The position that is being applied.
pub fn position() -> Option<Position> {
    APPLICATION.get().map(|application| application.position)
}

/// Whether the writeset at hand is one of a run.
pub fn is_in_run() -> bool {
    APPLICATION.get().is_some_and(|application| application.is_in_run)
}

/// Raises if the writeset at hand is one of a run: it is applied again by itself.
pub fn be_alone() {
    if is_in_run() {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            "remote backend applies a run's positions one by one"
        );
    }
}

pub fn end() {
    APPLICATION.set(None);
    PRESSING.with_borrow_mut(Pressing::begin);
    timer::stop();
}

/// Makes the holders that must give way to this remote backend do so, before it waits for transaction `xid`. `what` is the
/// table and the key (if known) that they hold, for their error. Returns at once; the caller then waits as usual.
pub fn give_way(xid: pg_sys::TransactionId, what: &KeyDescription) {
    be_alone();
    let (Some(area), Some(holder)) = (session::database(), process::holder_of(xid)) else { return };
    let slot = node::get().and_then(|node| node.slot_of(holder.transaction.process));
    // Read here, since whoever reports an error can't read catalogs.
    let role = slot.and_then(|slot| slot.victim.role()).map(|role| pg_sys::Oid::from(role.0));
    deal_with(area, &holder, what.table.clone(), what.key_for(role));
}

/// In a remote backend, reports of lock waits are occasions, not news.
pub fn on_report(report: &mut Report) {
    if report.level() != Level::Log || APPLICATION.get().is_none() {
        return;
    }
    if report.has_format(c"process %d still waiting for") {
        report.hold_back();
        // With the turn in hand a remote backend waits for one thing only: that who has notified before it, and is committed, is through.
        if !turn::is_in_hand() {
            look_up();
        }
    } else if report.has_format(c"process %d acquired") || report.has_format(c"process %d avoided deadlock") {
        report.hold_back();
    }
}

fn look_up() {
    let (Some(area), Some(application)) = (session::database(), APPLICATION.get()) else { return };
    if application.is_in_run {
        interrupt::cancel_wait();
        return;
    }
    for holder in blockers::mine() {
        deal_with(area, &holder, String::new(), String::new());
    }
    if pool::must_leave_lock(area.at(), application.worker) {
        interrupt::cancel_wait();
    }
    // The wait loop goes round whenever our latch is set, and reports again each time.
    timer::start(LOOK_UP_EVERY);
}

fn deal_with(area: &DatabaseArea, holder: &Holder, table: String, key: String) {
    let Some(Application { position, node, .. }) = APPLICATION.get() else { return };
    let Some(slot) = node::get().and_then(|node| node.slot_of(holder.transaction.process)) else { return };
    let winner = Winner { position, node, table, key };
    let (grace, now) = (guc::reader_grace(), clock::moment());
    let pressure =
        PRESSING.with_borrow_mut(|pressing| pressing.deal_with(area.at(), slot, &holder.transaction, &winner, grace, now));
    match pressure {
        Pressure::Wait => {}
        Pressure::Wake => latch::wake(holder.transaction.process),
        // The mark stands, so that whatever the transaction does next it sees it; the signal is for what it is doing now.
        Pressure::Summon if process::still_in(holder) => process::summon(holder),
        Pressure::Dislodge if process::still_in(holder) => {
            area.replica.counters.sessions_ended.one();
            process::dislodge(holder);
            process::summon(holder);
        }
        Pressure::End if process::still_in(holder) => {
            area.replica.counters.sessions_ended.one();
            process::terminate(holder.transaction.process);
        }
        Pressure::Summon | Pressure::Dislodge | Pressure::End => {}
    }
}

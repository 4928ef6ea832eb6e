//! The end of a transaction, local and remote alike: submit, pass the gate, commit at the position, move the gate.
//!
//! ```text
//! PRE_COMMIT  local: submit and wait for the verdict   remote: nothing to ask, it is certified
//!             wait for the turn; arm the origin; hold interrupts
//!             (PostgreSQL writes the commit record and leaves the process array)
//! COMMIT      let go of the origin, move the gate. Nothing here can raise.
//! ABORT       let go of the origin; a certified local position goes to the remote backends
//! ```
//!
//! Between the verdict and the commit record an ERROR is still possible (ON COMMIT actions, NOTIFY). The transaction is
//! committed all the same, by invariant 6; its client is told so in place of that error.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use gcs_writeset::Position;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::conflicts::{Conflict, Kind};
use crate::error::{self, Error};
use crate::pg::log::{Level, Report};
use crate::pg::process::{self, Summons};
use crate::pg::xact::{Event, SynchronousCommit};
use crate::pg::{interrupt, latch, origin, role, xact};
use crate::shmem::{self, DatabaseArea, Phase, Shared};
use crate::submit::slot::{Slot, State, Winner};
use crate::submit::{self, Failure};
use crate::{apply, capture, gate, guc, progress, retry, session, token};

/// A position this process is about to commit at.
#[derive(Clone, Copy)]
pub struct Turn {
    pub database: &'static DatabaseArea,
    pub position: Position,
    pub committed_at: i64,
    /// Certified for this backend's own transaction, not applied from the log.
    pub local: bool,
}

/// What must be undone or done when the transaction ends.
#[derive(Clone, Copy)]
struct Ending {
    turn: Turn,
    /// The turn has come: the origin is armed.
    armed: Option<SynchronousCommit>,
}

thread_local! {
    /// Set by a remote backend before it commits.
    static REMOTE_TURN: Cell<Option<Turn>> = const { Cell::new(None) };
    static ENDING: RefCell<Option<Ending>> = const { RefCell::new(None) };
}

/// Called while libraries are preloaded.
pub fn install() {
    xact::on_end(|event| match event {
        Event::PreCommit => pre_commit(),
        Event::Commit => committed(),
        Event::Abort => aborted(),
        Event::PrePrepare => pre_prepare(),
    });
}

/// The transaction that this remote backend is in will commit at that turn.
pub fn commit_at(turn: Turn) {
    REMOTE_TURN.set(Some(turn));
}

fn pre_commit() {
    let Some(shared) = shmem::get() else { return };
    if let Some(turn) = REMOTE_TURN.take() {
        wait_for_turn_remote(turn);
        arm(turn);
        return;
    }
    if session::is_remote_backend() || !xact::has_id() && !capture::has_writes() {
        return;
    }
    if ending().is_none() {
        decide(shared);
    }
    if let (Some(ending), Some((slot, _))) = (ending(), shared.my_slot()) {
        commit_local(ending.turn, slot);
    }
}

/// Submits the transaction before its COMMIT, which must follow at once: see [`crate::retry`]. Raises as COMMIT would.
pub fn decide_early() {
    if let Some(shared) = shmem::get() {
        decide(shared);
    }
}

fn ending() -> Option<Ending> {
    ENDING.with_borrow(|ending| *ending)
}

/// A transaction that was told to give way while its session was idle learns it at its next statement. One that writes lets
/// what is already ordered go first.
pub fn before_statement(writes: bool) {
    if let (Some(database), Some((slot, _))) = (session::database(), shmem::get().and_then(|shared| shared.my_slot()))
        && !session::is_remote_backend()
    {
        slot.set_role(role::outer());
        raise_if_victim(database, slot);
    }
    if writes {
        session::let_ordered_go_first();
    }
}

fn raise_if_victim(database: &DatabaseArea, slot: &Slot) {
    if let Some(winner) = process::my_transaction().and_then(|transaction| slot.victim_of(transaction)) {
        lost_to(database, winner).raise();
    }
}

/// The error of a transaction that stood in the way.
fn lost_to(database: &DatabaseArea, winner: Winner) -> Error {
    database.state.counters.aborts_victim.one();
    error::victim(&Conflict::of_winner(database, Kind::Victim, winner).noted(database))
}

/// Asks the group, if there is anything to ask. Returns with a turn that the transaction must commit at, or none; raises
/// if the transaction cannot commit.
fn decide(shared: &'static Shared) {
    let Some(database) = session::database() else { return };
    let Some((slot, place)) = shared.my_slot() else { return };
    raise_if_victim(database, slot);
    if !capture::has_writes() {
        return;
    }
    session::ensure_writable();
    // Later, when the group has certified the transaction, it could no longer fail.
    xact::check_serializable();
    let mut captured = capture::take();
    // Decided early, it may yet be rolled back with a subtransaction, of which capture need not hear.
    capture::reset();
    // Without an id there would be no commit record to carry the position.
    xact::ensure_id();
    let (position, committed_at) = match submit::submit(shared, database, slot, place, &mut captured) {
        Ok(certified) => certified,
        Err(Failure::Definite(error)) | Err(Failure::Unknown(error)) => error.raise(),
        Err(Failure::Terminated(error)) => error.raise_fatal(),
    };
    drop(captured);
    slot.progress.position(position);
    slot.progress.phase(progress::Phase::Waiting);
    let turn = Turn { database, position, committed_at, local: true };
    ENDING.set(Some(Ending { turn, armed: None }));
}

/// The group has committed the transaction; what is left is to do so here, in its turn.
fn commit_local(turn: Turn, slot: &'static Slot) {
    slot.arrive_at_gate();
    if let Err(failure) = wait_for_turn_local(turn, slot) {
        match failure {
            Failure::Terminated(error) => error.raise_fatal(),
            Failure::Definite(error) | Failure::Unknown(error) => error.raise(),
        }
    }
    arm(turn);
    if process::was_summoned() {
        // It was for this transaction, and came too late. Any other cancel is for what comes after the commit, and waits for that.
        interrupt::forget_cancel();
    }
}

/// Waits until everything before the position is committed. The transaction *is* committed in the group, whatever
/// happens here; an error says so and leaves the position to the remote backends.
fn wait_for_turn_local(turn: Turn, slot: &Slot) -> Result<(), Failure> {
    let gate = &turn.database.gate;
    if gate.is_turn(turn.position) {
        return Ok(());
    }
    let counters = &turn.database.state.counters;
    let started = Instant::now();
    counters.gate_waits.one();
    let timeout = guc::commit_timeout();
    // While something is being done about what goes first, the wait for it counts from then.
    let mut progress = (started, turn.database.progress());
    while !gate.is_turn(turn.position) {
        if slot.state() == State::Yielded {
            counters.yielded.one();
            Conflict::of_winner(turn.database, Kind::Yielded, slot.winner()).noted(turn.database);
            let why = "It held a lock that an earlier transaction of the group needs.";
            return Err(Failure::Unknown(error::committed_elsewhere(turn.position, why)));
        }
        if interrupt::die_pending() {
            let why = "The session was ended.";
            return Err(Failure::Terminated(error::committed_elsewhere(turn.position, why)));
        }
        let made = turn.database.progress();
        if made != progress.1 {
            progress = (Instant::now(), made);
        }
        let left = timeout.saturating_sub(progress.0.elapsed());
        if left.is_zero() {
            let why = "Earlier transactions of the group take too long to apply here.";
            return Err(Failure::Unknown(error::committed_elsewhere(turn.position, why)));
        }
        interrupt::serve_barrier();
        latch::wait(Some(left));
    }
    counters.gate_wait_us.time(started.elapsed());
    Ok(())
}

/// A remote backend may be interrupted here: its position stays in the queue.
fn wait_for_turn_remote(turn: Turn) {
    let gate = &turn.database.gate;
    if gate.is_turn(turn.position) {
        return;
    }
    let counters = &turn.database.state.counters;
    let started = Instant::now();
    counters.gate_waits.one();
    apply::pool::before_waiting(turn.database);
    while !gate.is_turn(turn.position) {
        apply::worker::check_let_go();
        interrupt::check();
        latch::wait(None);
    }
    apply::pool::after_waiting(turn.database);
    counters.gate_wait_us.time(started.elapsed());
}

/// The turn has come: from here to the commit record nothing waits.
fn arm(turn: Turn) {
    origin::arm(turn.database.state.origin(), turn.position, turn.committed_at);
    let setting = xact::commit_asynchronously();
    ENDING.set(Some(Ending { turn, armed: Some(setting) }));
    interrupt::hold();
}

/// Past the commit record: only atomics, a lock and latches.
fn committed() {
    if let Some(ending) = ENDING.take() {
        if let Some(setting) = ending.armed {
            interrupt::resume();
            origin::disarm();
            xact::restore(setting);
        }
        let area = ending.turn.database;
        // Whoever waits for this position may go by the catalogs as it left them.
        xact::send_invalidations();
        advance(area, ending.turn.position, xact::last_commit_lsn());
        let counters = &area.state.counters;
        if ending.turn.local {
            counters.commits.one()
        } else {
            counters.applied.one()
        }
        finish_slot();
    }
    clean_up();
}

/// Moves the gate past `position` and wakes whom that concerns.
pub fn advance(area: &DatabaseArea, position: Position, lsn: xact::Lsn) {
    if let Some(moved) = area.gate.advance(position, lsn) {
        announce(area, moved);
    }
}

/// Wakes the next owner, remote backends whose dependency is there, and the manager if it waits for this.
pub fn announce(area: &DatabaseArea, moved: gate::Moved) {
    if let Some(owner) = moved.next_owner {
        latch::wake(owner);
    }
    apply::pool::wake_dependents(area, moved.committed);
    if area.gate.ahead() <= guc::apply_lag_target() {
        area.state.lag_fell.broadcast();
    }
    let catching_up = !area.state.serving.load(std::sync::atomic::Ordering::Relaxed);
    if moved.room_wanted || (catching_up && area.caught_up()) {
        area.state.manager.wake();
    }
}

fn aborted() {
    REMOTE_TURN.set(None);
    if let Some(ending) = ENDING.take() {
        if let Some(setting) = ending.armed {
            // The ERROR has already set the count of held interrupts back.
            origin::disarm();
            xact::restore(setting);
        }
        if ending.turn.local {
            let area = ending.turn.database;
            area.state.counters.handed_over.one();
            area.gate.hand_over(ending.turn.position);
            area.state.manager.wake();
        }
    }
    finish_slot();
    clean_up();
}

/// A submission without a verdict stays what it is for the manager: given up.
fn finish_slot() {
    let Some((slot, _)) = shmem::get().and_then(|shared| shared.my_slot()) else { return };
    match slot.state() {
        State::Idle => {}
        State::Sent | State::Deciding => give_up(slot),
        _ => slot.finish(),
    }
}

/// An ERROR came between submission and verdict. A verdict that wins the race is handed over like any other.
fn give_up(slot: &Slot) {
    while !slot.give_up(slot.sequence()) {
        match slot.state() {
            // The manager is between two stores.
            State::Deciding => std::hint::spin_loop(),
            State::Certified => {
                if let Some(area) = session::database() {
                    area.gate.hand_over(slot.position());
                    area.state.manager.wake();
                }
                break;
            }
            _ => break,
        }
    }
    slot.finish();
}

fn clean_up() {
    capture::reset();
    retry::reset();
    token::forget();
    process::forget_summons();
    if let Some((slot, _)) = shmem::get().and_then(|shared| shared.my_slot()) {
        slot.clear_victim();
        slot.clear_base();
        slot.progress.clear();
    }
}

fn pre_prepare() {
    if session::replicated() && !session::is_remote_backend() && (capture::has_writes() || xact::has_id()) {
        error::prepared().raise();
    }
}

/// Errors that must be told otherwise than PostgreSQL would: what a victim sees, and what would call a committed transaction
/// failed.
pub fn on_report(report: &mut Report) {
    if !matches!(report.level(), Level::Error | Level::Fatal) {
        return;
    }
    if let Some(error) = truth_about(report) {
        report.rewrite(error.code, &error.message, error.detail.as_deref(), error.hint.as_deref());
    }
}

fn truth_about(report: &Report) -> Option<Error> {
    let certified = ENDING.with(|ending| {
        let ending = ending.try_borrow().ok()?;
        ending.as_ref().filter(|ending| ending.turn.local).map(|ending| ending.turn.position)
    });
    if let Some(position) = certified {
        let ours = report.is(PgSqlErrorCode::ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN);
        return (!ours).then(|| error::committed_elsewhere(position, "Finishing it here failed."));
    }
    let database = session::database()?;
    let (slot, _) = shmem::get()?.my_slot()?;
    if matches!(slot.state(), State::Sent | State::Deciding | State::Certified) {
        database.state.counters.outcomes_unknown.one();
        return Some(error::outcome_unknown(
            "An error came up while the transaction was being committed.",
            token::current(),
        ));
    }
    // A summons that was heard was meant, though a late mark for an earlier transaction may have replaced the one it was for.
    let summoned = process::was_summoned();
    let winner = slot.victim_of(process::my_transaction()?).or_else(|| summoned.then(|| slot.winner()))?;
    let by_summons = report.is(PgSqlErrorCode::ERRCODE_QUERY_CANCELED);
    let by_end = report.is(PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN) && process::was_ended();
    let by_conflict = report.is(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE) && !report.says(error::LOST);
    (by_summons || by_end || by_conflict).then(|| {
        if by_end {
            database.state.counters.sessions_ended.one();
        }
        lost_to(database, winner)
    })
}

/// From here on this process can be told to give way.
pub fn hear_summons() {
    process::install_summons(hear);
    if let Some((slot, _)) = shmem::get().and_then(|shared| shared.my_slot()) {
        slot.set_role(pg_sys::InvalidOid);
    }
    set_hears(true);
    process::on_exit(|| set_hears(false));
}

fn set_hears(hears: bool) {
    if let Some((slot, _)) = shmem::get().and_then(|shared| shared.my_slot()) {
        slot.set_hears(hears);
    }
}

/// What a summons means for this process's transaction, asked by the signal handler: atomics only.
fn hear() -> Summons {
    let Some((slot, _)) = shmem::get().and_then(|shared| shared.my_slot()) else { return Summons::Nothing };
    // Once submitted, the log decides.
    if !matches!(slot.state(), State::Idle | State::Open) {
        return Summons::Nothing;
    }
    match process::my_transaction() {
        Some(transaction) if slot.is_victim(transaction) && slot.is_pressed(transaction) => Summons::End,
        Some(transaction) if slot.is_victim(transaction) => Summons::Cancel,
        _ => Summons::Nothing,
    }
}

/// Whether the database's phase lets a transaction be submitted.
pub fn phase_error(area: &DatabaseArea) -> Option<Error> {
    match area.state.phase() {
        Phase::Active | Phase::Off => None,
        Phase::Starting => Some(error::catching_up()),
        Phase::Stopping => Some(error::stopping()),
        Phase::Failed => Some(error::out_of_service(&area.state.reason.get())),
    }
}

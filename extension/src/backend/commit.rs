//! The end of a client's transaction: submit, wait for the turn, commit at the position, move the gate.
//!
//! ```text
//! PRE_COMMIT  submit and wait for the verdict; wait for the turn, and take it (crate::turn)
//!             (PostgreSQL writes the commit record and leaves the process array)
//! COMMIT      pass the turn on. Nothing here can raise.
//! ABORT       a certified position goes to the remote backends
//! ```
//!
//! Between the verdict and the commit record an ERROR is still possible (ON COMMIT actions, NOTIFY). The transaction is
//! committed all the same, by invariant 6; its client is told so in place of that error ([`super::lost`]). Whatever the slot holds when the
//! transaction ends, `postgres_r_protocol::ending` sees to it.

use std::cell::Cell;
use std::time::Instant;

use gcs_writeset::Position;
use postgres_r_protocol::conflicts::Kind;
use postgres_r_protocol::ending;
use postgres_r_protocol::id::RoleId;
use postgres_r_protocol::progress::Stage;
use postgres_r_protocol::slot::{Slot, State};
use postgres_r_protocol::turn::{LocalTurn, Unfinished, Wait};

use super::failure::Failure;
use super::submit;
use super::{capture, held, lost, read_only, rehearsal, shown, subscriber, token, writable};
use crate::error;
use crate::guc;
use crate::node::{self, DatabaseArea};
use crate::pg::xact::Event;
use crate::pg::{bearing, clock, interrupt, latch, process, role, xact};
use crate::sequences;
use crate::session;
use crate::turn::{self, Turn};

thread_local! {
    /// The database that the current transaction was submitted in.
    static SUBMITTED: Cell<Option<&'static DatabaseArea>> = const { Cell::new(None) };
}

/// Told of every transaction's end, in every process.
pub fn on_end(event: Event) {
    if session::is_remote_backend() {
        return;
    }
    match event {
        Event::PreCommit => pre_commit(),
        Event::Commit => {
            if let Some(turn) = turn::passed() {
                turn.area.replica.counters.commits.one();
                shown::committed(turn.area, turn.position());
            }
            clean_up();
        }
        Event::Abort => {
            turn::dropped();
            capture::concurrently::aborted();
            clean_up();
        }
        Event::PrePrepare => pre_prepare(),
    }
}

fn pre_commit() {
    let Some(slot) = node::my_slot() else { return };
    capture::concurrently::before_commit();
    subscriber::before_commit();
    if !xact::has_id() && !capture::has_writes() {
        return;
    }
    capture::catalogs::refuse_commit();
    if turn::expected().is_none()
        && let Err(failure) = decide()
    {
        failure.raise();
    }
    if let Some(turn) = turn::expected() {
        take_turn(turn, slot);
    }
}

/// A transaction that was told to give way while its session was idle learns it at its next statement. One that writes lets
/// what is already ordered go first.
pub fn before_statement(writes: bool) {
    read_only::note();
    if let (Some(area), Some(slot)) = (session::database(), node::my_slot())
        && !session::is_remote_backend()
    {
        slot.victim.set_role(RoleId(role::outer().to_u32()));
        lost::raise_if_victim(area, slot);
        held::check();
    }
    if writes {
        writable::let_ordered_go_first();
    }
}

/// Asks the group, if there is anything to ask: at PRE_COMMIT, or before the transaction's COMMIT, which must follow at once (see
/// [`super::retry`]). Afterwards the transaction must commit at the position that it was given, if any.
pub fn decide() -> Result<(), Failure> {
    let (Some(area), Some(node)) = (session::database(), node::get()) else { return Ok(()) };
    let Some((slot, process)) = node.my_slot() else { return Ok(()) };
    lost::raise_if_victim(area, slot);
    capture::catalogs::refuse_commit();
    if !capture::has_writes() {
        return Ok(());
    }
    writable::ensure();
    held::check();
    sequences::flush();
    capture::notify::ensure_room();
    // Later, when the group has certified the transaction, it could no longer fail.
    xact::check_serializable();
    let excludes_ddl = capture::excludes_ddl();
    let mut captured = capture::take();
    // Decided early, it may yet be rolled back with a subtransaction, of which capture need not hear.
    capture::reset();
    let is_tried = rehearsal::rehearse(area, &mut captured)?;
    if excludes_ddl {
        bearing::take_turns();
    }
    // Without an id there would be no commit record to carry the position.
    xact::ensure_id();
    submits(area);
    let (position, committed_at) = submit::submit(area, slot, process, &mut captured, !is_tried)?;
    turn::expect(Turn::of(area, position, committed_at));
    if captured.has_statements {
        area.replica.note_statement(position);
    }
    drop(captured);
    slot.progress.position(position);
    slot.progress.stage(Stage::Waiting);
    Ok(())
}

/// What the current transaction submits is submitted in this database: whatever becomes of it is seen to when the transaction ends.
pub fn submits(area: &'static DatabaseArea) {
    SUBMITTED.set(Some(area));
}

/// The group has committed the transaction; what is left is to do so here, in its turn.
fn take_turn(turn: Turn, slot: &Slot) {
    if let Err(failure) = wait_for_turn(turn, slot) {
        failure.raise();
    }
    turn::arm(turn);
    if process::was_summoned() {
        // It was for this transaction, and came too late. Any other cancel is for what comes after the commit, and waits for that.
        interrupt::forget_cancel();
    }
}

/// An error leaves the position to the remote backends, and says that the transaction is committed.
fn wait_for_turn(turn: Turn, slot: &Slot) -> Result<(), Failure> {
    let (area, position) = (turn.area, turn.position());
    let mut waiting = LocalTurn::new(area.at(), slot, position, guc::commit_timeout(), clock::moment());
    let mut started = None;
    let unfinished = loop {
        interrupt::serve_barrier();
        match waiting.step(area.at(), slot, interrupt::die_pending(), clock::moment()) {
            Wait::Turn => break None,
            Wait::Unfinished(why) => break Some(why),
            Wait::Sleep(span) => {
                started.get_or_insert_with(|| {
                    area.replica.counters.gate_waits.one();
                    Instant::now()
                });
                latch::wait(Some(span));
            }
        }
    };
    if let Some(started) = started {
        area.replica.counters.gate_wait_us.time(started.elapsed());
    }
    match unfinished {
        None => Ok(()),
        Some(Unfinished::Yielded) => {
            lost::noted(area, area.conflict(Kind::Yielded, slot.victim.winner()));
            let why = "It held a lock that an earlier transaction of the group needs.";
            Err(Failure::Unknown(error::committed_elsewhere(position, why)))
        }
        Some(Unfinished::Ending) => Err(Failure::Terminated(error::committed_elsewhere(position, "The session was ended."))),
        Some(Unfinished::TooLate) => {
            let why = "Earlier transactions of the group take too long to apply here.";
            Err(Failure::Unknown(error::committed_elsewhere(position, why)))
        }
    }
}

/// The transaction is over, whichever way. Raises nothing.
fn clean_up() {
    turn::forget();
    let submitted = SUBMITTED.take();
    token::forget();
    process::forget_summons();
    let Some(slot) = node::my_slot() else { return };
    match submitted {
        Some(area) => {
            if matches!(slot.state(), State::Sent | State::Deciding) {
                held::in_doubt();
            }
            ending::release(area.at(), slot);
        }
        // At most a question about a token.
        None => {
            slot.finish();
        }
    }
    slot.victim.clear();
    slot.clear_base();
    slot.await_position(Position::ZERO);
    slot.progress.clear();
}

fn pre_prepare() {
    if session::replicated() && held::are_of_transaction() {
        error::prepared_locks().raise();
    }
    if session::replicated() && (capture::has_writes() || xact::has_id()) {
        error::prepared().raise();
    }
}

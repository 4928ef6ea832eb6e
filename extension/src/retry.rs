//! Statements that lose and are run again, inside the server.
//!
//! A client that sends one statement by itself has nothing to add to a 40001 but to send the statement again; and it was told
//! nothing yet. So we do it: [`crate::pg::rerun`] runs the statement in a subtransaction, at its end the transaction is submitted, and if it
//! lost, what it did is undone and the statement runs again with a new snapshot, once its winner is visible here.
//!
//! Only READ COMMITTED: above it the snapshot belongs to the transaction. Only losses to the group: every other error is the
//! statement's own.

use std::cell::Cell;
use std::time::Duration;

use gcs_writeset::Position;
use gcs_writeset::key::mix;
use pgrx::PgSqlErrorCode;

use crate::pg::rerun::{self, Caught, Policy};
use crate::pg::{clock, interrupt, latch, process, snapshot, xact};
use crate::{capture, commit, error, guc, session, shmem};

/// How long the next try waits for its winner to be applied here. It may be tried at any time, so this only saves work.
const WINNER_WAIT_MAX: Duration = Duration::from_secs(1);

/// The pause before the second try is below this; it doubles with each.
const JITTER: Duration = Duration::from_micros(500);

thread_local! {
    /// The position that the current transaction lost to, if certification said so.
    static LOST_TO: Cell<Option<Position>> = const { Cell::new(None) };
}

/// Called while libraries are preloaded.
pub fn install() {
    rerun::install(Policy { wanted, decide, again });
}

/// Certification said that the transaction loses to this position.
pub fn lost_to(winner: Position) {
    LOST_TO.set(Some(winner));
}

/// At the end of every transaction.
pub fn reset() {
    LOST_TO.set(None);
    rerun::reset();
}

fn wanted() -> bool {
    capture::is_wanted()
        && guc::retry_autocommit() > 0
        && !snapshot::is_kept_for_transaction()
        && !xact::has_id()
        && !capture::has_writes()
}

fn decide() {
    commit::decide_early();
}

fn again(tries: u32, caught: Caught<'_>) -> bool {
    let Some(winner) = winner(caught).filter(|_| tries <= guc::retry_autocommit()) else { return false };
    let (Some(area), Some((slot, _))) = (session::database(), shmem::get().and_then(|shared| shared.my_slot())) else {
        return false;
    };
    area.state.counters.retries.one();
    // From here on a mark or a summons means that we stand in the way still, by what the transaction itself holds.
    LOST_TO.set(None);
    slot.clear_victim();
    process::forget_summons();
    capture::reset();
    area.state.lag_fell.wait_until(WINNER_WAIT_MAX, || area.gate.committed() >= winner);
    pause(tries);
    capture::base::before_snapshot();
    true
}

/// Whom the transaction lost to; none if that is not what ended it.
fn winner(caught: Caught<'_>) -> Option<Position> {
    let told = caught.is(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE) && caught.message == error::LOST.as_bytes();
    if let Some(winner) = LOST_TO.get().filter(|_| told) {
        return Some(winner);
    }
    let summoned = caught.is(PgSqlErrorCode::ERRCODE_QUERY_CANCELED) && process::was_summoned();
    let (slot, _) = shmem::get()?.my_slot()?;
    (told || summoned).then(|| slot.victim_of(process::my_transaction()?).map(|winner| winner.position)).flatten()
}

/// Losers that go on at the same moment meet again.
fn pause(tries: u32) {
    let most = JITTER.as_micros() as u64 * (1 << tries.min(8));
    let seed = u64::from(process::my_pid() as u32) << 32 ^ clock::now() as u64;
    let deadline = clock::now() + (mix(seed) % most) as i64;
    while clock::now() < deadline {
        interrupt::check();
        latch::wait(Some(Duration::from_micros((deadline - clock::now()).max(0) as u64)));
    }
}

//! Statements that lose and are run again, inside the server.
//!
//! A client that sends one statement by itself has nothing to add to a 40001 but to send the statement again; and it was told
//! nothing yet. So the server does it: [`crate::pg::rerun`] runs the statement in a subtransaction, at its end the transaction is submitted, and
//! if it lost, what it did is undone and the statement runs again with a new snapshot, once its winner is visible here.
//!
//! Only READ COMMITTED: above it the snapshot belongs to the transaction. Only losses to the group: every other error is the
//! statement's own.

use std::time::Duration;

use gcs_writeset::Position;
use gcs_writeset::key::mix;
use pgrx::PgSqlErrorCode;

use super::submit::Failure;
use super::{capture, commit};
use crate::guc;
use crate::node;
use crate::pg::rerun::{self, Caught, Failed, Loss, Policy};
use crate::pg::{clock, interrupt, latch, process, snapshot, xact};
use crate::session;

/// How long the next try waits for its winner to be applied here. It may be tried at any time, so this only saves work.
const WINNER_WAIT_MAX: Duration = Duration::from_secs(1);

/// The pause before the second try is below this; it doubles with each.
const JITTER: Duration = Duration::from_micros(500);

/// Called while libraries are preloaded.
pub fn install() {
    rerun::install(Policy { wanted, decide, again });
}

/// At the end of every transaction.
pub fn reset() {
    rerun::reset();
}

fn wanted() -> bool {
    capture::is_wanted()
        && guc::retry_autocommit() > 0
        && !snapshot::is_kept_for_transaction()
        && !xact::has_id()
        && !capture::has_writes()
}

fn decide() -> Result<(), Loss> {
    match commit::decide() {
        Ok(()) => Ok(()),
        Err(Failure::Lost { winner, error }) => Err(Loss { winner, raise: Box::new(move || error.raise()) }),
        Err(failure) => failure.raise(),
    }
}

fn again(tries: u32, failed: Failed) -> bool {
    let winner = match failed {
        Failed::Lost(winner) => Some(winner),
        Failed::Raised(caught) => winner_of(caught),
    };
    let Some(winner) = winner.filter(|_| tries <= guc::retry_autocommit()) else { return false };
    let (Some(area), Some(slot)) = (session::database(), node::my_slot()) else { return false };
    area.replica.counters.retries.one();
    // From here on a mark or a summons means that the transaction stands in the way still, by what it holds itself.
    slot.victim.clear();
    process::forget_summons();
    capture::reset();
    area.conditions.wait_for_lag(WINNER_WAIT_MAX, || area.gate.committed() >= winner);
    pause(tries);
    capture::base::before_snapshot();
    true
}

/// Whom the transaction had to give way to; none if that is not what ended it.
fn winner_of(caught: Caught) -> Option<Position> {
    let told = caught.is(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE);
    let summoned = caught.is(PgSqlErrorCode::ERRCODE_QUERY_CANCELED) && process::was_summoned();
    let transaction = process::my_transaction().filter(|_| told || summoned)?;
    node::my_slot()?.victim.winner_of(transaction).map(|winner| winner.position)
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

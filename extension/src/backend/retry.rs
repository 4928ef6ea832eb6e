//! Statements that lose and are run again, inside the server.
//!
//! A client that sends one statement by itself has nothing to add to a 40001 but to send the statement again; and it was told
//! nothing yet. So the server does it: [`crate::pg::rerun`] runs the statement in a subtransaction, at its end the transaction is submitted, and
//! if it lost, what it did is undone and the statement runs again with a new snapshot, once its winner is visible here.
//!
//! A statement that has come to a foreign table is decided at COMMIT, behind its wrapper's own, as every other transaction is. Were it decided
//! before, what the wrapper cannot commit any more would be committed here. And where the wrapper's server is this very node, that one's position
//! would come after the statement's, which would wait for it.
//!
//! Only READ COMMITTED: above it the snapshot belongs to the transaction. Only losses to the group: every other error is the
//! statement's own.

use std::cell::Cell;
use std::time::Duration;

use gcs_writeset::Position;
use gcs_writeset::key::mix;
use pgrx::PgSqlErrorCode;
use postgres_r_protocol::id::Moment;

use super::failure::Failure;
use super::{capture, commit};
use crate::guc;
use crate::node;
use crate::pg::rerun::{self, Caught, Failed, Loss, Policy};
use crate::pg::{clock, foreign, interrupt, latch, process, snapshot, xact};
use crate::session;

/// How long the next try waits for its winner to be applied here. It may be tried at any time, so this only saves work.
const WINNER_WAIT_MAX: Duration = Duration::from_secs(1);

/// Tries that are made however long they take. Beyond them a statement is only tried again within `postgres_r.commit_timeout` of its first loss,
/// so that one that runs for long does not run for ever.
const TRIES_ANYHOW: u32 = 5;

/// The pause before the second try is below this; it doubles with each, up to the fifth. Were it to grow on, whoever has lost often would come
/// ever later, and lose to those who come at once.
const JITTER: Duration = Duration::from_micros(500);
const JITTER_DOUBLES: u32 = 5;

thread_local! {
    /// When the statement that is being tried lost first.
    static FIRST_LOSS: Cell<Option<Moment>> = const { Cell::new(None) };
    /// What the next try waits for: this position, and a pause after so many tries.
    static AWAITED: Cell<Option<(Position, u32)>> = const { Cell::new(None) };
    /// The last try was ended while it waited.
    static WAITED_IN_VAIN: Cell<bool> = const { Cell::new(false) };
}

/// Called while libraries are preloaded.
pub fn install() {
    rerun::install(Policy { wanted, before, decide, again });
}

/// At the end of every transaction.
pub fn reset() {
    FIRST_LOSS.set(None);
    AWAITED.set(None);
    WAITED_IN_VAIN.set(false);
    foreign::reset();
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
    if foreign::is_used() {
        return Ok(());
    }
    match commit::decide() {
        Ok(()) => Ok(()),
        Err(Failure::Lost { winner, error }) => Err(Loss { winner, raise: Box::new(move || error.raise()) }),
        Err(failure) => failure.raise(),
    }
}

/// The next try begins when its winner is applied here, and not at the same moment as others. A summons that comes meanwhile may be a late one,
/// sent while the try before still held what the winner needs; so it ends this try, and not the transaction. If it comes again, the transaction
/// stands in the way by what it holds itself, a lock on a whole table, and has to end ([`again`]).
fn before() {
    let Some((winner, tries)) = AWAITED.get() else { return };
    if let Some(area) = session::database() {
        area.conditions.wait_for_lag(WINNER_WAIT_MAX, || area.gate.committed() >= winner);
        pause(tries);
    }
    AWAITED.set(None);
    WAITED_IN_VAIN.set(false);
    capture::base::before_snapshot();
}

fn again(tries: u32, failed: Failed) -> bool {
    let winner = match failed {
        Failed::Lost(winner) => Some(winner),
        Failed::Raised(caught) => winner_of(caught),
    };
    let Some(winner) = winner.filter(|_| is_worth_a_try(tries)) else { return false };
    if AWAITED.take().is_some() && WAITED_IN_VAIN.replace(true) {
        return false;
    }
    let (Some(area), Some(slot)) = (session::database(), node::my_slot()) else { return false };
    area.replica.counters.retries.one();
    slot.victim.clear();
    process::forget_summons();
    capture::reset();
    AWAITED.set(Some((winner, tries)));
    true
}

fn is_worth_a_try(tries: u32) -> bool {
    let now = clock::moment();
    let first = FIRST_LOSS.get().unwrap_or(now);
    FIRST_LOSS.set(Some(first));
    tries <= guc::retry_autocommit() && (tries <= TRIES_ANYHOW || now.since(first) < guc::commit_timeout())
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
    let most = JITTER.as_micros() as u64 * (1 << tries.min(JITTER_DOUBLES));
    let seed = u64::from(process::my_pid() as u32) << 32 ^ clock::now() as u64;
    let deadline = clock::now() + (mix(seed) % most) as i64;
    while clock::now() < deadline {
        interrupt::check();
        latch::wait(Some(Duration::from_micros((deadline - clock::now()).max(0) as u64)));
    }
}

//! Advisory locks of the group: `pg_advisory_lock` and its kin hold on all nodes, with `postgres_r.advisory_locks = group`.
//!
//! What a session holds on its server, by PostgreSQL's own lock manager, it holds in the group too, and there once however often it has taken it:
//!
//! ```text
//! lock      taken in the group first: wait there; wait until this node shows what was ordered before the grant; then PostgreSQL's own lock
//! try       PostgreSQL's own lock first, then the group's; if that is not to be had, PostgreSQL's is let go again
//! unlock    PostgreSQL's first; with the last one of the session the group's, and wait until that is ordered
//! end       of a transaction, of a subtransaction that is rolled back: what it alone held is given back without a wait
//! ```
//!
//! So `pg_locks` shows them as ever, on the node of their holder, a lock that another session of the same server holds is refused without a question, and
//! whoever has heard that a lock was given back can take it, on any node. Whoever gets a lock sees whatever was committed under it.
//!
//! What is held, and what becomes of it, [`super::held`] keeps.

use std::cell::RefCell;

use gcs_writeset::{Lock, LockKey, LockMode};

use super::held::{self, Answer, Failure};
use crate::error;
use crate::guc::{self, LockScope};
use crate::pg::advisory::{self, Subject, Wanted};
use crate::session;

/// A lock that is being tried for.
#[derive(Default)]
struct Trying {
    /// This session's on its server, and asked of the group: to be let go should an error come up.
    wanted: Option<Wanted>,
    failure: Option<Failure>,
}

thread_local! {
    static TRYING: RefCell<Trying> = RefCell::default();
}

/// Called while libraries are preloaded. A server that can't be made to ask must not start: two nodes would give the same lock.
pub fn install() {
    let listener = advisory::Listener { concerns, before, taken, tried, raise: raise_failure, given, all_given };
    if !advisory::on_advisory(listener) {
        error::unknown_server().raise();
    }
}

fn concerns() -> bool {
    session::is_captured() && (guc::advisory_locks() == LockScope::Group || held::holds_any())
}

/// Whether a lock is to be the group's: those that are stay so when the setting changes.
fn is_groups(lock: &Lock) -> bool {
    guc::advisory_locks() == LockScope::Group || held::holds(lock)
}

fn lock_of(wanted: Wanted) -> Lock {
    let key = match wanted.subject {
        Subject::One(value) => LockKey { space: LockKey::ADVISORY, value },
        Subject::Pair(class, object) => {
            LockKey { space: LockKey::ADVISORY_PAIR, value: u64::from(class) << 32 | u64::from(object) }
        }
    };
    Lock { key, mode: if wanted.is_shared { LockMode::Shared } else { LockMode::Exclusive } }
}

fn before(wanted: Wanted) {
    let lock = lock_of(wanted);
    held::check();
    if !is_groups(&lock) || held::holds(&lock) {
        return;
    }
    match ask(lock, true) {
        Ok(true) => {}
        Ok(false) => error::lock_not_available().raise(),
        Err(failure) => failure.raise(),
    }
}

fn taken(wanted: Wanted) {
    let lock = lock_of(wanted);
    if held::is_unsettled(&lock) || held::holds(&lock) {
        held::count(lock, wanted.scope);
    }
}

fn tried(wanted: Wanted) -> bool {
    let lock = lock_of(wanted);
    if let Some(error) = held::lost() {
        return fail(Failure::Error(error));
    }
    TRYING.with_borrow_mut(|trying| trying.wanted = Some(wanted));
    let granted = if is_groups(&lock) && !held::holds(&lock) { ask(lock, false) } else { Ok(true) };
    if TRYING.with_borrow_mut(|trying| trying.wanted.take()).is_none() {
        return false;
    }
    match granted {
        Ok(true) => {
            taken(wanted);
            true
        }
        Ok(false) => false,
        Err(failure) => fail(failure),
    }
}

fn fail(failure: Failure) -> bool {
    TRYING.with_borrow_mut(|trying| trying.failure = Some(failure));
    false
}

fn raise_failure() {
    if let Some(failure) = TRYING.with_borrow_mut(|trying| trying.failure.take()) {
        failure.raise();
    }
}

fn given(wanted: Wanted) {
    let lock = lock_of(wanted);
    if held::uncount(lock) {
        held::give(&[lock]);
    }
}

/// Also by DISCARD ALL.
pub fn all_given() {
    held::give(&held::uncount_all());
}

/// Asks the group, and waits until this node shows what was done under the lock before.
fn ask(lock: Lock, waits: bool) -> Result<bool, Failure> {
    let answer = held::ask(lock, waits)?;
    held::see_granted(lock, &answer)?;
    match answer {
        Answer::Granted(_) => Ok(true),
        Answer::Found(_) | Answer::NotAvailable => Ok(false),
        Answer::Full => Err(Failure::Error(error::too_many_locks())),
        Answer::NotKnown => Err(Failure::Error(error::locks_not_known())),
    }
}

/// An error has come up while a lock was tried for. Raises nothing.
pub fn let_go() {
    let wanted = TRYING.with(|trying| trying.try_borrow_mut().ok().and_then(|mut trying| trying.wanted.take()));
    if let Some(wanted) = wanted {
        advisory::let_go(wanted);
    }
}

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
//! **Locks that are lost.** Without its daemon, or when that has lost the group for so long that others may be given its locks, a session can't know what it
//! holds. One that holds locks of its own is ended at its next statement, as it would be if the server had been restarted: to its client that
//! is the same, a connection that is gone and a lock with it. A transaction with locks only of its own fails with 40001. Whatever they commit in the moments
//! in which they do not know it yet is refused by the order (`gcs_core::locks`): the writeset says which session holds locks ([`holder`]).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

use gcs_writeset::bounds::LOCKS_AT_ONCE_MAX;
use gcs_writeset::link::RefusalReason;
use gcs_writeset::{Lock, LockKey, LockMode, LockSession, Position};

use postgres_r_protocol::id::ProcNo;

use super::levels::{self, NotVisible};
use super::locker::{Ended, Locker};
use super::writable;
use crate::error::{self, Error};
use crate::guc::{self, AdvisoryLocks};
use crate::node::{self, DatabaseArea};
use crate::pg::advisory::{self, Scope, Subject, Wanted};
use crate::pg::{interrupt, process, subtransaction};
use crate::session;

/// How often a lock is held: by the session, and by subtransactions, each by its level.
#[derive(Default)]
struct Count {
    session: u32,
    levels: Vec<i32>,
}

impl Count {
    fn is_none(&self) -> bool {
        self.session == 0 && self.levels.is_empty()
    }
}

/// Why a lock that was tried for was neither granted nor refused.
enum Failure {
    Interrupted,
    Error(Error),
}

#[derive(Default)]
struct Held {
    locker: Locker,
    locks: BTreeMap<Lock, Count>,
    /// Granted by the group, and not yet this session's by its server.
    unsettled: Option<Lock>,
    failure: Option<Failure>,
    /// This session's on its server, and asked of the group: to be let go should an error come up.
    trying: Option<Wanted>,
    /// The transaction's locks were lost: whatever it catches, it cannot commit.
    is_doomed: Option<LockSession>,
}

thread_local! {
    static HELD: RefCell<Held> = RefCell::default();
}

/// Called while libraries are preloaded. A server that can't be made to ask must not start: two nodes would give the same lock.
pub fn install() {
    let listener = advisory::Listener { concerns, before, taken, tried, raise: raise_failure, given, all_given };
    if !advisory::on_advisory(listener) {
        error::unknown_server().raise();
    }
}

fn concerns() -> bool {
    session::is_captured() && (guc::advisory_locks() == AdvisoryLocks::Group || holds_any())
}

fn holds_any() -> bool {
    HELD.with_borrow(|held| !held.locks.is_empty())
}

/// Whether a lock is to be the group's: those that are stay so when the setting changes.
fn is_groups(held: &Held, lock: &Lock) -> bool {
    guc::advisory_locks() == AdvisoryLocks::Group || held.locks.contains_key(lock)
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
    check();
    let is_asked = HELD.with_borrow(|held| is_groups(held, &lock) && !held.locks.contains_key(&lock));
    if !is_asked {
        return;
    }
    match ask(lock, true) {
        Ok(true) => {}
        Ok(false) => error::lock_not_available().raise(),
        Err(failure) => raise(failure),
    }
}

fn taken(wanted: Wanted) {
    let lock = lock_of(wanted);
    HELD.with_borrow_mut(|held| {
        if held.unsettled.take_if(|unsettled| *unsettled == lock).is_some() || held.locks.contains_key(&lock) {
            held.count(lock, wanted.scope);
        }
    });
}

fn tried(wanted: Wanted) -> bool {
    let lock = lock_of(wanted);
    if let Some(error) = lost() {
        return HELD.with_borrow_mut(|held| held.fail(Failure::Error(error)));
    }
    let is_asked = HELD.with_borrow_mut(|held| {
        held.trying = Some(wanted);
        is_groups(held, &lock) && !held.locks.contains_key(&lock)
    });
    let granted = if is_asked { ask(lock, false) } else { Ok(true) };
    HELD.with_borrow_mut(|held| match granted {
        _ if held.trying.take().is_none() => false,
        Ok(true) => {
            if held.unsettled.take().is_some() || held.locks.contains_key(&lock) {
                held.count(lock, wanted.scope);
            }
            true
        }
        Ok(false) => false,
        Err(failure) => held.fail(failure),
    })
}

fn raise_failure() {
    if let Some(failure) = HELD.with_borrow_mut(|held| held.failure.take()) {
        raise(failure);
    }
}

fn raise(failure: Failure) -> ! {
    match failure {
        Failure::Interrupted => {
            interrupt::check();
            error::canceled().raise()
        }
        Failure::Error(error) => error.raise(),
    }
}

fn given(wanted: Wanted) {
    let lock = lock_of(wanted);
    let is_last = HELD.with_borrow_mut(|held| {
        let count = held.locks.get_mut(&lock)?;
        count.session = count.session.saturating_sub(1);
        let is_last = count.is_none().then(|| held.locks.remove(&lock));
        held.show();
        is_last
    });
    if is_last.is_some() {
        give(vec![lock]);
    }
}

/// Also by DISCARD ALL.
pub fn all_given() {
    let free = HELD.with_borrow_mut(|held| held.release(|count| count.session = 0));
    if !free.is_empty() {
        give(free);
    }
}

impl Held {
    fn count(&mut self, lock: Lock, scope: Scope) {
        let count = self.locks.entry(lock).or_default();
        match scope {
            Scope::Session => count.session += 1,
            Scope::Transaction => count.levels.push(subtransaction::level()),
        }
        self.show();
    }

    /// Other sessions of this server see whether this one has locks of its own.
    fn show(&self) {
        let has_own = self.locks.values().any(|count| count.session > 0);
        if let (Some(slot), Some(session)) = (node::my_slot(), self.locker.session()) {
            slot.set_lock_life(has_own.then_some(session.life));
        }
    }

    fn fail(&mut self, failure: Failure) -> bool {
        self.failure = Some(failure);
        false
    }

    /// Those that are held no more.
    fn release(&mut self, change: impl Fn(&mut Count)) -> Vec<Lock> {
        self.locks.values_mut().for_each(change);
        let free = self.locks.extract_if(.., |_, count| count.is_none()).map(|(lock, _)| lock).collect();
        self.show();
        free
    }

    /// What is held no more is given back without a wait. Raises nothing.
    fn give_later(&mut self, mut free: Vec<Lock>) {
        free.extend(self.unsettled.take());
        if let Some(wanted) = self.trying.take() {
            advisory::let_go(wanted);
        }
        while !free.is_empty() {
            let rest = free.split_off(free.len().min(LOCKS_AT_ONCE_MAX));
            self.locker.give_later(std::mem::replace(&mut free, rest));
        }
    }
}

/// Asks the group. Once granted the lock is unsettled: whatever error comes up before it is this session's on its server too gives it back.
fn ask(lock: Lock, waits: bool) -> Result<bool, Failure> {
    let Some(area) = session::database() else { return Err(Failure::Error(error::not_attached())) };
    if let Some(error) = session::phase_error(area).or_else(|| writable::group_error(area)) {
        return Err(Failure::Error(error::cannot_lock(error)));
    }
    let started = Instant::now();
    let ended = HELD.with_borrow_mut(|held| {
        // A session that holds nothing is as good as a new one, and one whose daemon is gone is over.
        if held.locks.is_empty() && held.locker.is_lost() {
            held.locker.forget();
        }
        let ended = held.locker.take(area, lock, waits);
        if let Ended::Granted(_) = ended {
            held.unsettled = Some(lock);
        }
        ended
    });
    let counters = &area.replica.counters;
    counters.lock_requests.one();
    counters.lock_wait_us.time(started.elapsed());
    let error = match ended {
        Ended::Granted(position) => {
            end_those_who_lost(area);
            return see(area, position).map(|()| true).map_err(Failure::Error);
        }
        Ended::NotAvailable => return Ok(false),
        Ended::Interrupted => return Err(Failure::Interrupted),
        Ended::Deadlock => error::lock_deadlock(),
        Ended::LockTimeout => error::lock_timeout(),
        Ended::Full => error::too_many_locks(),
        Ended::Refused(RefusalReason::NoQuorum) => error::cannot_lock(session::no_quorum(area)),
        Ended::Refused(RefusalReason::Overloaded) => error::cannot_lock(error::overloaded()),
        Ended::Refused(RefusalReason::Format) => error::locks_not_known(),
        Ended::Refused(RefusalReason::NotAttached | RefusalReason::HasContents) => error::cannot_lock(error::not_attached()),
        Ended::NoAnswer => error::cannot_lock(error::no_answer(guc::commit_timeout())),
        Ended::Given | Ended::Broken(_) => match lost() {
            Some(error) => error,
            None => {
                HELD.with_borrow_mut(|held| held.locker.forget());
                error::cannot_lock(session::no_link(area))
            }
        },
    };
    Err(Failure::Error(error))
}

/// Sessions of this server that held locks in an earlier life of this node's have lost them. One that is idle would not hear of it before its next statement, and
/// keep the server's lock from whoever has the group's until then: it is ended.
fn end_those_who_lost(area: &DatabaseArea) {
    let life = HELD.with_borrow_mut(|held| held.locker.take_is_new().then(|| held.locker.session()).flatten());
    let Some(LockSession { life, .. }) = life else { return };
    let slots = area.at().server.slots.iter().enumerate();
    for (place, _) in slots.filter(|(_, slot)| slot.lock_life().is_some_and(|of| of < life)) {
        process::terminate(ProcNo(place as u32));
    }
}

/// Whether this session is ended because it has lost its locks.
pub fn are_lost() -> bool {
    HELD.with(|held| held.try_borrow_mut().is_ok_and(|mut held| !held.locks.is_empty() && held.locker.is_lost()))
}

/// Waits until this node shows what was done under the lock before.
fn see(area: &'static DatabaseArea, position: Position) -> Result<(), Error> {
    let limit = guc::commit_timeout();
    levels::until_visible(area, position, Instant::now() + limit).map_err(|why| match why {
        NotVisible::CannotCome(error) => error::cannot_lock(error),
        NotVisible::TooLate => error::lock_not_seen(position, area.gate.committed(), limit),
    })
}

fn give(locks: Vec<Lock>) {
    let Some(area) = session::database() else { return };
    for some in locks.chunks(LOCKS_AT_ONCE_MAX) {
        let ended = HELD.with_borrow_mut(|held| held.locker.give(area, some.to_vec()));
        match ended {
            // It has been said, and will be done.
            Ended::Interrupted => interrupt::check(),
            Ended::Broken(_) => check(),
            _ => {}
        }
    }
}

/// The end of the transaction. Raises nothing.
pub fn transaction_ended() {
    // A process that ends in the middle of a wait comes by here too; its connection ends with it.
    HELD.with(|held| {
        let Ok(mut held) = held.try_borrow_mut() else { return };
        held.is_doomed = None;
        if held.locks.is_empty() && held.unsettled.is_none() && held.trying.is_none() {
            return;
        }
        let free = held.release(|count| count.levels.clear());
        held.give_later(free);
    });
}

pub fn subtransaction_aborted(level: i32) {
    HELD.with_borrow_mut(|held| {
        let free = held.release(|count| count.levels.retain(|of| *of < level));
        held.give_later(free);
    });
}

pub fn subtransaction_released(level: i32) {
    HELD.with_borrow_mut(|held| {
        let levels = held.locks.values_mut().flat_map(|count| &mut count.levels);
        levels.for_each(|of| *of = (*of).min(level - 1));
    });
}

/// Whether the transaction holds locks that end with it.
pub fn are_of_transaction() -> bool {
    HELD.with_borrow(|held| held.locks.values().any(|count| !count.levels.is_empty()))
}

/// The session by which the group knows what is held here, if anything is.
pub fn holder() -> Option<LockSession> {
    HELD.with_borrow(|held| held.is_doomed.or_else(|| held.locker.session().filter(|_| !held.locks.is_empty())))
}

/// Raises what there is to be raised if what this session holds may be held by others: at each statement, and before a commit.
pub fn check() {
    if let Some(error) = lost() {
        error.raise();
    }
}

/// The error of a transaction whose locks others may hold; a session that held some of its own ends. None if all is well.
fn lost() -> Option<Error> {
    let is_of_session = HELD.with_borrow_mut(|held| {
        let is_lost = !held.locks.is_empty() && held.locker.is_lost();
        if is_lost { Some(held.forget()) } else { held.is_doomed.map(|_| false) }
    })?;
    Some(end(is_of_session))
}

/// The order has refused what this session would commit.
pub fn refused() -> Error {
    let is_of_session = HELD.with_borrow_mut(Held::forget);
    end(is_of_session)
}

fn end(is_of_session: bool) -> Error {
    if is_of_session {
        error::session_locks_lost().raise_fatal();
    }
    error::transaction_locks_lost()
}

impl Held {
    /// Whether any was the session's own.
    fn forget(&mut self) -> bool {
        let is_of_session = self.locks.values().any(|count| count.session > 0);
        self.is_doomed = self.locker.session();
        self.locks.clear();
        self.unsettled = None;
        self.locker.forget();
        is_of_session
    }
}

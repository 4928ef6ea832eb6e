//! Which locks of the group this session holds, and what ends them: how [`super::advisory`] and [`super::row_locks`] keep count.
//!
//! In the group a session holds a lock once, however often it has taken it; here is counted how often, and by what: by the session, or by a subtransaction, whose
//! end is the lock's. What a transaction alone held is given back when it ends, without a wait. Locks of rows are always a transaction's; the order itself gives them
//! back where it decides on the writeset ([`decided`]), so that who waits for one need not wait for this node to commit.
//!
//! **Locks that are lost.** Without its daemon, or when that has lost the group for so long that others may be given its locks, a session can't know what it
//! holds. One that holds locks of its own is ended at its next statement, as it would be if the server had been restarted: to its client that
//! is the same, a connection that is gone and a lock with it. A transaction with locks only of its own fails with 40001. Whatever they commit in the moments
//! in which they do not know it yet is refused by the order (`gcs_core::locks`): the writeset says which session holds locks ([`holder`]).
//!
//! A lock that nobody relies on ([`count_advice`]) is lost without a word.
//!
//! **A transaction whose outcome is not known** may be decided when this session has long taken other locks of rows, for the next one, and the order would take
//! those for its. So the session ends with it, as the group sees it; where it has locks of its own to keep, it takes none of rows any more ([`in_doubt`]).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gcs_writeset::bounds::LOCKS_AT_ONCE_MAX;
use gcs_writeset::link::RefusalReason;
use gcs_writeset::{Lock, LockMode, LockSession, Position};

use pgrx::PgSqlErrorCode;
use postgres_r_protocol::id::ProcNo;

use super::levels::{self, NotVisible};
use super::locker::{self, Ended, Locker};
use super::writable;
use crate::error::{self, Error};
use crate::guc;
use crate::node::{self, DatabaseArea};
use crate::pg::advisory::Scope;
use crate::pg::latch::GroupLock;
use crate::pg::{interrupt, process, subtransaction};
use crate::session;

/// How often a lock is held: by the session, and by subtransactions, each by its level.
#[derive(Default)]
struct Count {
    session: u32,
    levels: Vec<i32>,
    /// Nobody relies on it: what is done under it is as right without it.
    is_advice: bool,
}

impl Count {
    fn is_none(&self) -> bool {
        self.session == 0 && self.levels.is_empty()
    }
}

/// Why a lock was neither granted nor refused.
pub enum Failure {
    Interrupted,
    Error(Error),
}

impl Failure {
    /// Whether it is what a wait for a lock can come to on one server. Anything else (no link to gcs, say) is no reason not to go on without a lock that nobody relies on: the
    /// transaction may be over it when it commits, or will hear of it then.
    pub fn is_of_wait(&self) -> bool {
        match self {
            Failure::Interrupted => true,
            Failure::Error(error) => matches!(
                error.code,
                PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED | PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
            ),
        }
    }

    pub fn raise(self) -> ! {
        match self {
            Failure::Interrupted => {
                interrupt::check();
                error::canceled().raise()
            }
            Failure::Error(error) => error.raise(),
        }
    }
}

/// What became of a request for a lock.
pub enum Answer {
    /// And is unsettled until it is counted: whatever error comes up before gives it back. What was done under it lies at or below.
    Granted(Position),
    /// The lock at this place of those that were asked for. As `Granted`, and nothing was done under it that this node has not committed.
    Found(usize),
    NotAvailable,
    /// The group has no room for it.
    Full,
    /// Not all members know of such locks.
    NotKnown,
}

#[derive(Default)]
struct Held {
    locker: Locker,
    locks: BTreeMap<Lock, Count>,
    /// Locks of rows and tables among them, which are a transaction's.
    certified: usize,
    /// Granted by the group, and not yet counted.
    unsettled: Option<Lock>,
    /// The transaction's locks were lost: whatever it catches, it cannot commit.
    is_doomed: Option<LockSession>,
    /// The session has locks of its own, and the outcome of one of its transactions was not known.
    takes_no_rows: bool,
}

thread_local! {
    static HELD: RefCell<Held> = RefCell::default();
}

pub fn holds_any() -> bool {
    HELD.with_borrow(|held| !held.locks.is_empty())
}

/// Whether a lock need not be asked for.
pub fn holds(lock: &Lock) -> bool {
    HELD.with_borrow(|held| held.locks.contains_key(lock))
}

pub fn is_unsettled(lock: &Lock) -> bool {
    HELD.with_borrow(|held| held.unsettled == Some(*lock))
}

/// Whether the session may take another lock of a row or a table, of `most`.
pub fn takes_rows(most: usize) -> bool {
    HELD.with_borrow(|held| held.certified < most && (!held.takes_no_rows || held.locks.is_empty()))
}

/// What was granted is the session's, or the current subtransaction's.
pub fn count(lock: Lock, scope: Scope) {
    HELD.with_borrow_mut(|held| {
        held.unsettled.take_if(|unsettled| *unsettled == lock);
        held.count(lock, scope);
    });
}

/// As [`count`], of the current subtransaction; but a transaction that loses it goes on.
pub fn count_advice(lock: Lock) {
    count(lock, Scope::Transaction);
    HELD.with_borrow_mut(|held| {
        if let Some(count) = held.locks.get_mut(&lock) {
            count.is_advice = true;
        }
    });
}

/// What is held of this lock's key is relied upon from now on.
pub fn rely_on(lock: &Lock) {
    HELD.with_borrow_mut(|held| {
        let of_key = held.locks.iter_mut().filter(|(other, _)| other.key == lock.key);
        of_key.for_each(|(_, count)| count.is_advice = false);
    });
}

/// A lock that the session holds of its own is so once less; true with the last.
pub fn uncount(lock: Lock) -> bool {
    let is_last = HELD.with_borrow_mut(|held| {
        let count = held.locks.get_mut(&lock)?;
        count.session = count.session.saturating_sub(1);
        let is_last = count.is_none().then(|| held.locks.remove(&lock));
        held.show();
        is_last
    });
    is_last.is_some()
}

/// What was counted for the current subtransaction, and was of no use, is given back.
pub fn take_back(lock: Lock) {
    HELD.with_borrow_mut(|held| {
        let Some(count) = held.locks.get_mut(&lock) else { return };
        count.levels.pop();
        let free = held.release(|_| {});
        held.give_later(free);
    });
}

/// The session gives up all that it holds of its own.
pub fn uncount_all() -> Vec<Lock> {
    HELD.with_borrow_mut(|held| held.release(|count| count.session = 0))
}

impl Held {
    fn count(&mut self, lock: Lock, scope: Scope) {
        let is_certified = lock.key.certified().is_some();
        self.certified += usize::from(is_certified && !self.locks.contains_key(&lock));
        let count = self.locks.entry(lock).or_default();
        match scope {
            Scope::Session => count.session += 1,
            Scope::Transaction => count.levels.push(subtransaction::level()),
        }
        // What other sessions of this server see of it has nothing to do with rows and tables.
        if !is_certified {
            self.show();
        }
    }

    /// Other sessions of this server see whether this one has locks of its own.
    fn show(&self) {
        let has_own = self.locks.values().any(|count| count.session > 0);
        if let (Some(slot), Some(session)) = (node::my_slot(), self.locker.session()) {
            slot.set_lock_life(has_own.then_some(session.life));
        }
    }

    /// Those that are held no more.
    fn release(&mut self, change: impl Fn(&mut Count)) -> Vec<Lock> {
        self.locks.values_mut().for_each(change);
        let free: Vec<Lock> = self.locks.extract_if(.., |_, count| count.is_none()).map(|(lock, _)| lock).collect();
        self.certified -= free.iter().filter(|lock| lock.key.certified().is_some()).count();
        self.show();
        free
    }

    /// What is held no more is given back without a wait. Raises nothing.
    fn give_later(&mut self, mut free: Vec<Lock>) {
        free.extend(self.unsettled.take());
        while !free.is_empty() {
            let rest = free.split_off(free.len().min(LOCKS_AT_ONCE_MAX));
            self.locker.give_later(std::mem::replace(&mut free, rest));
        }
    }

    fn is_advice(&self) -> bool {
        self.is_doomed.is_none() && self.locks.values().all(|count| count.is_advice)
    }

    /// What nobody relied on is lost without a word.
    fn forget_advice(&mut self) {
        self.forget();
        self.is_doomed = None;
    }

    /// Whether any was the session's own.
    fn forget(&mut self) -> bool {
        let is_of_session = self.locks.values().any(|count| count.session > 0);
        self.is_doomed = self.locker.session();
        self.locks.clear();
        self.certified = 0;
        self.unsettled = None;
        self.locker.forget();
        is_of_session
    }
}

/// Asks the group for a lock, and waits for it if that is wanted.
pub fn ask(lock: Lock, waits: bool) -> Result<Answer, Failure> {
    asked(locker::of(lock), |locker, area| locker.take(area, lock, waits), |_| Some(lock))
}

/// Asks for the first of these that is free, and under which nothing was done behind a position that this node has committed.
pub fn ask_first(locks: &[Lock], seen: Position) -> Result<Answer, Failure> {
    let Some(first) = locks.first() else { return Ok(Answer::NotAvailable) };
    let take = |locker: &mut Locker, area: &DatabaseArea| locker.take_first(area, locks.to_vec(), seen);
    asked(locker::of(*first), take, |at| locks.get(at).copied())
}

fn asked(
    of: GroupLock,
    take: impl FnOnce(&mut Locker, &DatabaseArea) -> Ended,
    which: impl Fn(usize) -> Option<Lock>,
) -> Result<Answer, Failure> {
    let Some(area) = session::database() else { return Err(Failure::Error(error::not_attached())) };
    if let Some(error) = session::phase_error(area).or_else(|| writable::group_error(area)) {
        return Err(Failure::Error(error::cannot_lock(of, error)));
    }
    let started = Instant::now();
    let ended = HELD.with_borrow_mut(|held| {
        // A session that holds nothing is as good as a new one, and one whose daemon is gone is over.
        if held.locks.is_empty() {
            if held.takes_no_rows || held.locker.is_lost() {
                held.locker.forget();
                held.takes_no_rows = false;
            }
        } else if held.is_advice() && held.locker.is_lost() {
            held.forget_advice();
        }
        let ended = take(&mut held.locker, area);
        match ended {
            Ended::Granted(_) => held.unsettled = which(0),
            Ended::Found(at) => held.unsettled = which(at),
            _ => {}
        }
        ended
    });
    let counters = &area.replica.counters;
    counters.lock_requests.one();
    counters.lock_wait_us.time(started.elapsed());
    let error = match ended {
        Ended::Granted(position) => {
            end_those_who_lost(area);
            return Ok(Answer::Granted(position));
        }
        Ended::Found(at) => {
            end_those_who_lost(area);
            return Ok(Answer::Found(at));
        }
        Ended::NotAvailable => return Ok(Answer::NotAvailable),
        Ended::Full => return Ok(Answer::Full),
        Ended::Refused(RefusalReason::Format) => return Ok(Answer::NotKnown),
        Ended::Interrupted => return Err(Failure::Interrupted),
        Ended::Deadlock => error::lock_deadlock(of),
        Ended::LockTimeout => error::lock_timeout(),
        Ended::Refused(RefusalReason::NoQuorum) => error::cannot_lock(of, session::no_quorum(area)),
        Ended::Refused(RefusalReason::Overloaded) => error::cannot_lock(of, error::overloaded()),
        Ended::Refused(RefusalReason::NotAttached | RefusalReason::HasContents) => {
            error::cannot_lock(of, error::not_attached())
        }
        Ended::NoGroup => error::cannot_lock(of, writable::group_error(area).unwrap_or_else(|| session::no_link(area))),
        Ended::NoAnswer => error::cannot_lock(of, error::no_answer(guc::commit_timeout())),
        Ended::Given | Ended::Broken(_) => match lost() {
            Some(error) => error,
            None => {
                HELD.with_borrow_mut(|held| held.locker.forget());
                error::cannot_lock(of, session::no_link(area))
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

/// Waits until this node shows what was done under a lock before; false if that takes longer than this, or cannot come.
pub fn sees_within(position: Position, limit: Duration) -> bool {
    session::database().is_some_and(|area| levels::until_visible(area, position, Instant::now() + limit).is_ok())
}

/// Waits until this node shows what was done under a lock before.
pub fn see(lock: Lock, position: Position) -> Result<(), Failure> {
    let of = locker::of(lock);
    let Some(area) = session::database() else { return Err(Failure::Error(error::not_attached())) };
    let limit = guc::commit_timeout();
    levels::until_visible(area, position, Instant::now() + limit).map_err(|why| {
        Failure::Error(match why {
            NotVisible::CannotCome(error) => error::cannot_lock(of, error),
            NotVisible::TooLate => error::lock_not_seen(of, position, area.gate.committed(), limit),
        })
    })
}

/// As [`see`], if it is granted.
pub fn see_granted(lock: Lock, answer: &Answer) -> Result<(), Failure> {
    if let Answer::Granted(position) = answer { see(lock, *position) } else { Ok(()) }
}

/// Gives locks back, and waits until nobody can find them held.
pub fn give(locks: &[Lock]) {
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

/// The order has decided on what the session submitted, whichever way: it has given back the locks of rows and tables.
pub fn decided() {
    HELD.with_borrow_mut(|held| {
        if held.certified > 0 {
            held.locks.retain(|lock, _| lock.key.certified().is_none());
            held.certified = 0;
        }
    });
}

/// The transaction that the session submitted may be decided at any later time.
pub fn in_doubt() {
    HELD.with_borrow_mut(|held| {
        if held.locks.values().any(|count| count.session > 0) {
            held.takes_no_rows = true;
        } else if held.locker.session().is_some() {
            held.forget();
        }
    });
}

/// The end of the transaction. Raises nothing.
pub fn transaction_ended() {
    // A process that ends in the middle of a wait comes by here too; its connection ends with it.
    HELD.with(|held| {
        let Ok(mut held) = held.try_borrow_mut() else { return };
        held.is_doomed = None;
        if held.locks.is_empty() && held.unsettled.is_none() {
            return;
        }
        let free = held.release(|count| count.levels.clear());
        held.give_later(free);
    });
}

pub fn subtransaction_aborted(level: i32) {
    // As at the end of the transaction.
    HELD.with(|held| {
        let Ok(mut held) = held.try_borrow_mut() else { return };
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

/// Whether the transaction holds locks that end with it, but for those of rows and tables, which certification stands in for.
pub fn are_of_transaction() -> bool {
    let ends = |(lock, count): (&Lock, &Count)| !count.levels.is_empty() && lock.key.certified().is_none();
    HELD.with_borrow(|held| held.locks.iter().any(ends))
}

/// The session by which the group knows what is held here, if anything is.
pub fn holder() -> Option<LockSession> {
    HELD.with_borrow(|held| held.is_doomed.or_else(|| held.locker.session().filter(|_| !held.locks.is_empty())))
}

/// Whether nobody relies on anything that is held here.
pub fn are_advice() -> bool {
    HELD.with_borrow(|held| held.is_advice())
}

/// Whether this session is ended because it has lost its locks.
pub fn are_lost() -> bool {
    HELD.with(|held| {
        held.try_borrow_mut()
            .is_ok_and(|mut held| held.locks.values().any(|count| count.session > 0) && held.locker.is_lost())
    })
}

/// Raises what there is to be raised if what this session holds may be held by others: at each statement, and before a commit.
pub fn check() {
    if let Some(error) = lost() {
        error.raise();
    }
}

/// The error of a transaction whose locks others may hold; a session that held some of its own ends. None if all is well.
pub fn lost() -> Option<Error> {
    let is_of_session = HELD.with_borrow_mut(|held| {
        let is_lost = !held.locks.is_empty() && held.locker.is_lost();
        if is_lost && held.is_advice() {
            held.forget_advice();
            return None;
        }
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

/// Whether what is held of a key serves whoever wants it in this mode.
pub fn serves(lock: &Lock) -> bool {
    holds(lock) || (lock.mode == LockMode::Shared && holds(&Lock { mode: LockMode::Exclusive, ..*lock }))
}

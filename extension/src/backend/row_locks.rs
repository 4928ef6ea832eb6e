//! Row locks of the group: SELECT ... FOR UPDATE SKIP LOCKED and NOWAIT see the rows that are locked on other nodes, with `postgres_r.row_locks = group`.
//!
//! Workers on three nodes that take jobs from one table would all take the same, by the same query: a row lock is its server's, and who is too late learns it
//! when it commits, after the work. So before a row is locked that would not be waited for, its lock in the group is taken, by its certification key:
//!
//! ```text
//! locked on this server       PostgreSQL skips it, or refuses; the group is not asked
//! held by another session     skipped or refused, as if it were locked here. Mostly the daemon knows it, and nothing is ordered
//! changed by what this node   skipped: its row is on its way out, or about to be another. With NOWAIT that is waited for instead
//!   has not committed yet
//! else                        granted: PostgreSQL locks it. If PostgreSQL does not (somebody was faster, it does not fit any more), it is given back
//! ```
//!
//! The lock is the transaction's, and ends where the order decides on the transaction, or with the subtransaction that took it ([`super::held`]). Nothing that the
//! database keeps consistent depends on it: whoever changes the row without asking (an UPDATE, a plain SELECT FOR UPDATE) is met at certification, as ever. So where
//! the group has no room for more, or does not know such locks yet, rows are locked on this server alone; and so are those behind the first [`ROWS_MAX`] of a
//! transaction, since each costs a round of the order.
//!
//! FOR KEY SHARE is left to the server: it goes together with what most transactions do to a row.

use gcs_writeset::{Lock, LockKey, LockMode};

use super::capture::locks;
use super::held::{self, Answer};
use crate::error;
use crate::guc::{self, LockScope};
use crate::pg::advisory::Scope;
use crate::pg::candidates;
use crate::pg::rowlock::Locked;
use crate::session;

/// Rows that one transaction locks in the group.
pub(super) const ROWS_MAX: usize = 1_000;

/// Called while libraries are preloaded.
pub fn install() {
    candidates::on_candidates(candidates::Listener { wanted, wish, first, granted, refuse, unused });
}

fn wanted() -> bool {
    guc::row_locks() == LockScope::Group && session::is_captured() && held::takes_rows(ROWS_MAX)
}

/// The lock of the group that a row must have first.
fn wish(row: &Locked<'_>) -> Option<Lock> {
    if !wanted() {
        return None;
    }
    let (key, is_exclusive) = locks::row_key(row)?;
    let mode = if is_exclusive { LockMode::Exclusive } else { LockMode::Shared };
    let lock = Lock { key: LockKey::of_row(key), mode };
    if held::serves(&lock) {
        held::rely_on(&lock);
        return None;
    }
    Some(lock)
}

/// Which of these is granted. Where the group can't grant any for want of room, the first is as good as granted.
fn first(locks: &[Lock]) -> Option<usize> {
    match held::ask_first(locks, session::committed()) {
        Ok(Answer::Found(at)) => {
            held::count(locks[at], Scope::Transaction);
            Some(at)
        }
        Ok(Answer::Full | Answer::NotKnown) => Some(0),
        Ok(Answer::Granted(_) | Answer::NotAvailable) => None,
        Err(failure) => failure.raise(),
    }
}

/// With NOWAIT. What was done under the lock is waited for: nobody holds it any more.
fn granted(lock: Lock) -> bool {
    match held::ask(lock, false).and_then(|answer| Ok((held::see_granted(lock, &answer)?, answer))) {
        Ok((_, Answer::Granted(_))) => {
            held::count(lock, Scope::Transaction);
            true
        }
        Ok((_, Answer::Full | Answer::NotKnown)) => true,
        Ok((_, Answer::Found(_) | Answer::NotAvailable)) => false,
        Err(failure) => failure.raise(),
    }
}

fn refuse(table: &str) -> ! {
    error::row_not_available(table).raise()
}

/// PostgreSQL has not locked the row: somebody was faster, or it does not fit any more.
fn unused(lock: Lock) {
    held::take_back(lock);
}

//! Hot rows: a row that is lost often is locked in the group before it is locked here, with `postgres_r.row_locks = group`.
//!
//! Transactions of several nodes that change one row at the same time are decided at certification: one commits, the others have worked in vain. Where that happens now
//! and then it costs less than a lock would. A row for which it happens all the time (`postgres_r_protocol::heat`) is waited for instead, as on one server: whoever is about to
//! change it, or to lock it, takes its lock in the group first, by its certification key, and goes on when this node shows what was done under it before.
//!
//! ```text
//! n1: UPDATE branches ... 7    takes the lock of row 7, changes it, ... COMMIT, ordered at 100: the lock is free from there
//! n2: UPDATE branches ... 7    waits for the lock; granted at 100, waits until 100 is committed here; changes the row as it is then
//! ```
//!
//! The lock is the transaction's, counted and ended like those of rows that are skipped ([`super::held`]). A row that its own transaction has changed or locked already needs none.
//! Deadlocks are found by the order, and are 40P01 as on one server. Above READ COMMITTED nothing is waited for: the snapshot is there already, and a row that was changed since
//! would be an error after the wait as well.
//!
//! Nothing that the database keeps consistent depends on it, nor anything that is done under it: a transaction that loses it goes on, and its writeset says that nobody relies on
//! it. Where the group has no room for more locks, or a transaction has very many, certification decides, as ever.

use std::cell::Cell;
use std::time::Duration;

use gcs_writeset::{Key, Lock, LockKey, Position};

use super::capture::locks;
use super::held::{self, Answer};
use super::row_locks::ROWS_MAX;
use crate::guc::{self, LockScope};
use crate::pg::before_change::{self, Listener};
use crate::pg::rowlock::Locked;
use crate::pg::{advisory, clock, snapshot};
use crate::session;

/// With a shorter lock_timeout rows are not waited for in the group.
const LOCK_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// How long a node that has the lock of a row may take to show what was done under it before.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

thread_local! {
    /// A row of this transaction was not to be seen in time: the next would not be either.
    static IS_BEHIND: Cell<bool> = const { Cell::new(false) };
}

/// The end of the transaction.
pub fn reset() {
    IS_BEHIND.set(false);
}

/// Called while libraries are preloaded.
pub fn install() {
    before_change::on_change(Listener { wanted, row });
}

/// A transaction of this process has lost the row with this key to that position.
pub fn lost(key: Key, winner: Position) {
    if let Some(area) = session::database() {
        area.heat.lost(key, winner, clock::millis());
    }
}

fn wanted() -> bool {
    session::database().is_some_and(|area| area.heat.is_warm(clock::millis))
        && guc::row_locks() == LockScope::Group
        && session::is_captured()
        && held::takes_rows(ROWS_MAX)
        && !IS_BEHIND.get()
        && can_wait()
        && !snapshot::is_kept_for_transaction()
}

/// A limit of less than what a round of the order may take would end waits for what nobody has.
pub fn can_wait() -> bool {
    let (limit, _) = advisory::timeouts();
    limit == 0 || Duration::from_millis(limit) >= LOCK_TIMEOUT_MIN
}

/// Waits for the row's lock in the group, if it is hot.
fn row(row: &Locked<'_>) {
    let Some(area) = session::database() else { return };
    let Some((key, mode)) = locks::hot_key(row, |key| area.heat.is_hot(key, clock::millis())) else { return };
    let lock = Lock { key: LockKey::of_row(key), mode };
    if held::serves(&lock) {
        return;
    }
    let seen = session::committed();
    let position = match held::ask(lock, true) {
        Ok(Answer::Granted(position)) => position,
        Ok(Answer::Full | Answer::NotKnown | Answer::NotAvailable | Answer::Found(_)) => return,
        Err(failure) if failure.is_of_wait() => failure.raise(),
        Err(_) => return,
    };
    held::count_advice(lock);
    // Meanwhile nobody else has it. A node that is far behind goes on without.
    if !held::sees_within(position, SEEN_WITHIN) {
        held::take_back(lock);
        IS_BEHIND.set(true);
    }
    // It would have lost. Of this node's own transactions one waits for the other anyway.
    if position > seen && area.recent.node(position).is_some_and(|node| node != area.replica.node()) {
        area.heat.contended(key, clock::millis());
    }
}

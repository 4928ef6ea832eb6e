//! The base of unguarded keys: a committed position read before the statement that captures them took its snapshot.
//!
//! PostgreSQL offers no hook right before it takes a statement's snapshot, so we read at points that surely come earlier: when
//! a top-level statement is analysed, when a utility statement starts, and when the transaction before this one ended. A
//! plan from the cache may be run without the first two, so at its start we read as well, and then compare the snapshot that
//! it uses with a new one: if they are equal, nothing became visible since, and what was read is what it sees. Else the
//! last value that is surely old enough stays. An older base only costs needless aborts.
//!
//! While an execution is open (also a cursor's) the base stays as it was. Under REPEATABLE READ the snapshot is the
//! transaction's first, so is the base.

use std::cell::Cell;

use gcs_writeset::Position;

use crate::pg::snapshot;
use crate::session;

thread_local! {
    static BASE: Cell<Option<Position>> = const { Cell::new(None) };
    /// As of the end of the transaction before.
    static BEFORE: Cell<Position> = const { Cell::new(Position::ZERO) };
    /// Top-level executions that are open.
    static OPEN: Cell<u32> = const { Cell::new(0) };
}

fn is_fixed() -> bool {
    BASE.get().is_some() && (OPEN.get() > 0 || snapshot::is_kept_for_transaction())
}

/// A statement is about to start; if it is a top-level one, its snapshot is not yet taken.
pub fn before_snapshot() {
    if !is_fixed() {
        BASE.set(Some(session::committed()));
    }
}

/// An execution starts; its snapshot is taken and active.
pub fn execution_starts() {
    if !is_fixed() {
        let committed = session::committed();
        let known = BASE.get().unwrap_or(BEFORE.get());
        BASE.set(Some(if known < committed && snapshot::active_is_current() { committed } else { known }));
    }
    OPEN.set(OPEN.get() + 1);
}

pub fn execution_ends() {
    OPEN.set(OPEN.get().saturating_sub(1));
}

pub fn current() -> Position {
    BASE.get().unwrap_or(BEFORE.get())
}

/// The transaction is over.
pub fn reset() {
    BASE.set(None);
    OPEN.set(0);
    BEFORE.set(session::committed());
}

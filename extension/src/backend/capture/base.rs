//! The base of unguarded keys: a committed position read before the statement that captures them took its snapshot.
//!
//! PostgreSQL offers no hook right before it takes a statement's snapshot, so we read at points that surely come earlier: when
//! a top-level statement is analysed, when a utility statement starts, and when the transaction before this one ended. A
//! plan from the cache may be run without the first two, so at its start we read as well, and then compare the snapshot that
//! it uses with a new one: if they are equal, nothing became visible since, and what was read is what it sees. Else the
//! last value that is surely old enough stays. An older base only costs needless aborts.
//!
//! Guarded keys have a later one: the committed position read when all rows of their command were locked. Capture triggers fire when
//! a command is done, so the first of them reads it for all.
//!
//! While an execution is open (also a cursor's) the base stays as it was. Under REPEATABLE READ and above there is one snapshot
//! for the transaction, and so one base, fixed as soon as that snapshot is known to be there. It may be there when we are first
//! asked: PostgreSQL takes it before it analyses the first statement. Then what was read is taken only if a new snapshot would
//! be the same. (A snapshot imported from another transaction may be older than anything read here. That matters to SERIALIZABLE
//! alone, where it is refused.)

use std::cell::Cell;

use gcs_writeset::Position;

use crate::pg::snapshot;
use crate::{node, session};

thread_local! {
    static BASE: Cell<Option<Position>> = const { Cell::new(None) };
    /// As of the end of the transaction before.
    static BEFORE: Cell<Position> = const { Cell::new(Position::ZERO) };
    /// The base is that of the transaction's one snapshot.
    static IS_KEPT: Cell<bool> = const { Cell::new(false) };
    /// Of guarded keys: the command whose rows are being captured, and the committed position when the first was.
    static HELD: Cell<Option<(u32, Position)>> = const { Cell::new(None) };
    /// Top-level executions that are open.
    static OPEN: Cell<u32> = const { Cell::new(0) };
}

fn is_fixed() -> bool {
    BASE.get().is_some() && (OPEN.get() > 0 || IS_KEPT.get())
}

/// A statement is about to start; if it is a top-level one, its snapshot is not yet taken, unless it is the transaction's.
pub fn before_snapshot() {
    if is_fixed() {
        return;
    }
    if snapshot::is_kept_for_transaction() && snapshot::is_taken() {
        keep(snapshot::of_transaction_is_current);
    } else {
        BASE.set(Some(session::committed()));
    }
}

/// An execution starts; its snapshot is taken and active.
pub fn execution_starts() {
    if !is_fixed() {
        if snapshot::is_kept_for_transaction() {
            keep(snapshot::of_transaction_is_current);
        } else {
            raise(snapshot::active_is_current);
        }
    }
    OPEN.set(OPEN.get() + 1);
}

/// The transaction's snapshot is there.
fn keep(is_current: fn() -> bool) {
    raise(is_current);
    IS_KEPT.set(true);
}

/// Moves the base up to what is committed if the snapshot surely shows it.
fn raise(is_current: fn() -> bool) {
    let committed = session::committed();
    let known = current();
    BASE.set(Some(if known < committed && is_current() { committed } else { known }));
}

pub fn execution_ends() {
    OPEN.set(OPEN.get().saturating_sub(1));
}

/// The base of keys guarded by the locks of a command that is done.
pub fn held(command: u32) -> Position {
    match HELD.get() {
        Some((known, position)) if known == command => position,
        _ => {
            let position = session::committed();
            HELD.set(Some((command, position)));
            position
        }
    }
}

pub fn current() -> Position {
    BASE.get().unwrap_or(BEFORE.get())
}

/// Keeps the horizon from passing the base of what the transaction has read or changed.
pub fn announce() {
    if let (Some(area), Some(slot)) = (session::database(), node::my_slot()) {
        slot.announce_base(area.index, current());
    }
}

/// The transaction is over.
pub fn reset() {
    BASE.set(None);
    IS_KEPT.set(false);
    HELD.set(None);
    OPEN.set(0);
    BEFORE.set(session::committed());
}

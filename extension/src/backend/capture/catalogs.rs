//! Rows of system catalogs that a superuser changes directly, past the statements made for that: they may be looked at, and not committed.
//!
//! What such a change means nobody can tell, so it cannot travel, and must not stay on one node. It is refused at COMMIT, and not where it is made: who
//! tries something out and rolls it back may do so.

use std::cell::RefCell;

use crate::error::Error;
use crate::pg::subtransaction;

thread_local! {
    /// Catalogs that the current transaction has changed, each with the level of its subtransaction.
    static CHANGED: RefCell<Vec<(i32, String)>> = const { RefCell::new(Vec::new()) };
}

pub fn note(catalog: &str) {
    let level = subtransaction::level();
    CHANGED.with_borrow_mut(|changed| {
        if !changed.iter().any(|(of, name)| *of <= level && name == catalog) {
            changed.push((level, catalog.to_owned()));
        }
    });
}

pub fn subtransaction_released(level: i32) {
    CHANGED.with_borrow_mut(|changed| changed.iter_mut().filter(|(of, _)| *of >= level).for_each(|(of, _)| *of = level - 1));
}

pub fn subtransaction_aborted(level: i32) {
    CHANGED.with_borrow_mut(|changed| changed.retain(|(of, _)| *of < level));
}

/// The end of every transaction.
pub fn reset() {
    CHANGED.take();
}

/// Raises an error if the transaction has changed one. To be called when it is about to commit.
pub fn refuse_commit() {
    let Some((_, catalog)) = CHANGED.with_borrow(|changed| changed.first().cloned()) else { return };
    let message = format!("changing rows of system relation \"{catalog}\" is not supported in a replicated database");
    Error::new(pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message).hint("Use the statements made for it.").raise()
}

//! `postgres_r.commit_level = after`: COMMIT returns when the other nodes that can be reached show the transaction too.
//!
//! The transaction is committed, visible here and holds no lock any more; only its client has not heard of it. So nothing that comes up here is an
//! error: a node that does not show it within `postgres_r.after_timeout` is named by a WARNING, as PostgreSQL's own wait for a synchronous standby
//! says that it was canceled. Nodes that cannot be reached are not waited for: `postgres_r.members` has them.

use std::cell::Cell;
use std::time::Instant;

use gcs_writeset::Position;

use super::reader;
use crate::error;
use crate::guc::{self, CommitLevel};
use crate::node::DatabaseArea;
use crate::pg::interrupt;

thread_local! {
    /// What this process has committed, and its client has yet to hear of.
    static COMMITTED: Cell<Option<(&'static DatabaseArea, Position)>> = const { Cell::new(None) };
}

/// The current transaction is committed at this position. Raises nothing.
pub fn committed(area: &'static DatabaseArea, position: Position) {
    COMMITTED.set(Some((area, position)));
}

/// It holds nothing any more. Interrupts are held off, and nothing may be raised but warnings.
pub fn on_committed() {
    let Some((area, position)) = COMMITTED.take() else { return };
    if guc::commit_level() != CommitLevel::After || area.replica.is_alone() {
        return;
    }
    let (began, timeout) = (Instant::now(), guc::after_timeout());
    let result = reader::who_does_not_show(area, position, began + timeout);
    let counters = &area.replica.counters;
    counters.after_waits.one();
    counters.after_wait_us.time(began.elapsed());
    match result {
        Ok(missing) if missing.is_empty() => return,
        Ok(missing) => error::not_shown(position, &missing, interrupt::pending(), timeout).remark(),
        Err(trouble) => error::not_asked_who_shows(position, &trouble.to_string()).remark(),
    }
    counters.after_missed.one();
    // It was for the wait, and what it would cancel is done.
    interrupt::forget_cancel();
}

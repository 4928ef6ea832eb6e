//! Whether whatever this session would write now would be refused, for clients that ask before they try ([`crate::pg::read_only`]).
//!
//! The answer is that of [`super::writable`], which raises the errors, but it never waits: a moment without the group, which a write would wait
//! for, does not count.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::Duration;

use postgres_r_protocol::replica::Phase;

use crate::node::DatabaseArea;
use crate::pg::{clock, read_only};
use crate::session;

/// How long a node may be without its group before its first write waits no more.
pub const WRITABLE_GRACE: Duration = Duration::from_millis(1500);

thread_local! {
    /// What the client was last told, as far as this module knows.
    static TOLD: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Called while libraries are preloaded.
pub fn install() {
    read_only::install(is_read_only);
}

fn is_read_only() -> bool {
    if !session::is_captured() {
        return false;
    }
    let Some(area) = session::database() else { return false };
    area.phase() != Phase::Active
        || area.replica.is_query_only()
        || !session::is_open_to_writers(area)
        || is_without_group(area)
}

/// Whether the node has been without its group for longer than a change of leaders takes. Only looks.
pub fn is_without_group(area: &DatabaseArea) -> bool {
    let since = area.replica.unwritable_since.load(Ordering::SeqCst);
    !area.replica.is_writable() && clock::since(since) >= WRITABLE_GRACE
}

/// At the beginning of a statement, and when a write is refused: the client hears of a change when the statement ends.
pub fn note() {
    if !session::is_captured() {
        return;
    }
    let now = is_read_only();
    if TOLD.get() != Some(now) && read_only::report() {
        TOLD.set(Some(now));
    }
}

//! What CREATE and DROP DATABASE have the other nodes try before the group hears of them (docs/adr/0068-databases.md). Where the statement is
//! applied it has been decided, and nothing is asked.

use pgrx::prelude::*;

use crate::backend::capture::making;
use crate::session;

/// Raises an error if the node that tries this could not make the database.
#[pg_extern(volatile, parallel_unsafe)]
fn check_new_database(name: &str, definition: &str) {
    if session::is_rehearser() {
        making::may_be_made(name, definition);
    }
}

/// Raises an error if the node that tries this is not to drop the database.
#[pg_extern(volatile, parallel_unsafe)]
fn check_dropped_database(name: &str, force: bool) {
    if session::is_rehearser() {
        making::may_be_dropped(name, force);
    }
}

//! The mark of a database that is to be overwritten (`postgres_r.overwriting`): START REPLICATION ... WITH (OVERWRITE) has been carried out, and the
//! copy of the group's contents, which is to take the place of this database, is not there yet.
//!
//! Such a database has come to no position of the group, as an empty one has: only the mark tells that what it holds must neither be shown as
//! the group's, nor get the group's positions applied to it, nor be dropped when the copy is there. So the mark becomes durable in the
//! transaction that makes the replication origin, and a manager that starts behind position 0 looks for it before it does anything else.
//!
//! It is never taken from a database whose place was taken: there it says what became of it.

use crate::pg::query;

/// Inside a transaction.
pub fn set(group: &str) {
    clear();
    query::first_row(&format!("INSERT INTO postgres_r.overwriting (group_name) VALUES ({})", query::literal(group)));
}

/// Whatever an earlier START has left. Inside a transaction.
pub fn clear() {
    query::first_row("DELETE FROM postgres_r.overwriting");
}

/// Inside a transaction.
pub fn is_set() -> bool {
    query::text("SELECT 'set' FROM postgres_r.overwriting LIMIT 1").is_some()
}

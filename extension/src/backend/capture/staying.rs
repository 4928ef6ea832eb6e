//! Tables whose rows stay where they are written, although all nodes have the table: unlogged ones.
//!
//! An unlogged table is empty after a crash, so nobody can rely on its rows: caches, work in progress. Its definition is DDL like any other.
//! Its rows are of one node, and say so when the table is made. They must not refer to rows of others: where those are applied no
//! foreign key is looked at, so that a row would lose its parent without a word.

use super::touched::Touched;
use crate::error::Error;
use crate::pg::relation::{self, Persistence};
use crate::pg::{about_tables, log};

/// Raises an error if rows of this node alone would refer to replicated ones.
pub fn refuse_crossing(touched: &Touched) {
    for (table, entry, _) in touched.unlogged() {
        let mut parents = about_tables::parents(table).into_iter().filter_map(relation::entry);
        if parents.any(|parent| parent.persistence != Persistence::Unlogged) {
            let message =
                format!("a foreign key of unlogged table \"{}\" is not supported in a replicated database", entry.name);
            Error::new(pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
                .detail("Rows of the table are of one node; what is changed on others would not be checked against them.")
                .hint("Create the table without UNLOGGED, or without the foreign key.")
                .raise();
        }
    }
}

pub fn warn(touched: &Touched) {
    for (_, entry, _) in touched.unlogged().filter(|&(.., is_new)| is_new) {
        let message = format!("rows of unlogged table \"{}\" stay on the node where they are written", entry.name);
        log::warn(
            message,
            None,
            Some("All nodes have the table. Create it without UNLOGGED if they are to have its rows.".to_owned()),
        );
    }
}

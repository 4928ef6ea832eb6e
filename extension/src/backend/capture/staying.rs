//! What stays on its node, although all nodes have the definition: rows of unlogged tables and of those that were excluded on purpose
//! (`postgres_r.exclude`), values of unlogged sequences, and the tablespace in which a table is.
//!
//! An unlogged table is empty after a crash, so nobody can rely on its rows: caches, work in progress. Its definition is DDL like any other.
//! Its rows are of one node, and say so when the table is made. They must not refer to rows of others: where those are applied no
//! foreign key is looked at, so that a row would lose its parent without a word.

use std::cell::Cell;

use super::touched::Touched;
use crate::error::Error;
use crate::guc;
use crate::pg::relation::{self, Entry, Oid, Persistence, RelationKind};
use crate::pg::utility::Utility;
use crate::pg::{about_tables, access, foreign, log, privilege, trigger};

/// Raises an error if rows of this node alone and replicated ones would depend on each other: by a foreign key, or as parts of one table.
pub fn refuse_crossing(touched: &Touched) {
    let is_new = trigger::marks_among(touched.altered_in(access::TRIGGERS));
    for (table, entry, _) in touched.staying() {
        let mut parents = about_tables::parents(table).into_iter().filter_map(relation::entry);
        if parents.any(|parent| !parent.persistence.is_of_node()) {
            crossing(
                &entry,
                "a foreign key of",
                "Rows of the table are of one node; what is changed on others would not be checked against them.",
            )
            .raise();
        }
        if entry.persistence == Persistence::Excluded {
            refuse_marked(table, &entry, is_new);
        }
    }
    for table in touched.tables() {
        let parents = about_tables::parents(table).into_iter().filter_map(relation::entry);
        let mut excluded = parents.filter(|parent| parent.persistence == Persistence::Excluded);
        if let Some(parent) = excluded.next() {
            crossing(
                &parent,
                "a foreign key of a replicated table to",
                "Rows that are written here may have no parent on other nodes.",
            )
            .raise();
        }
    }
}

/// What marks it is a trigger, which others than the owner may make.
fn refuse_marked(table: Oid, entry: &Entry, is_new: bool) {
    if is_new && !privilege::is_owner(table) {
        let message = format!("must be owner of table {}", entry.name);
        Error::new(pgrx::PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message).raise();
    }
    if relation::with_parents(table).len() > 1 || relation::with_children(table).len() > 1 {
        crossing(entry, "inheritance and partitioning of", "Rows of its parents and children are replicated.").raise();
    }
    let mut children = about_tables::children(&[table]).into_iter().filter_map(relation::entry);
    if children.any(|child| !child.persistence.is_of_node()) {
        crossing(
            entry,
            "a foreign key of a replicated table to",
            "Rows that are written here may have no parent on other nodes.",
        )
        .raise();
    }
}

fn crossing(entry: &Entry, what: &str, why: &str) -> Error {
    let (kind, hint) = match entry.persistence {
        Persistence::Unlogged => ("unlogged", "Create the table without UNLOGGED, or without the foreign key."),
        _ => ("excluded", "Take the one or the other away first; postgres_r.include() lets the table be replicated again."),
    };
    let message = format!("{what} {kind} table \"{}\" is not supported in a replicated database", entry.name);
    Error::new(pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message).detail(why).hint(hint)
}

/// `keeps`: the statement has left everybody's rows to each node.
pub fn warn(touched: &Touched, keeps: bool) {
    let unlogged = touched.staying().filter(|(_, entry, _)| entry.persistence == Persistence::Unlogged);
    for (_, entry, _) in unlogged.filter(|&(.., is_new)| is_new || keeps) {
        let message = format!("rows of unlogged table \"{}\" stay on the node where they are written", entry.name);
        let hint = "All nodes have the table. Make it LOGGED if they are to have its rows.";
        log::warn(message, None, Some(hint.to_owned()));
    }
    for (_, entry) in touched.unlogged_sequences() {
        let message = format!("each node gives values of unlogged sequence \"{}\" by itself", entry.name);
        log::warn(message, None, Some("Make it LOGGED if no two nodes are to give the same.".to_owned()));
    }
}

/// A statement that is of this node alone, because tablespaces and databases are.
pub fn say_of_server(utility: &Utility) {
    if guc::warns_of_local_data() && utility.is_of_server() {
        let hint = "Run it on every node where it is to be so.";
        notice(format!("{} is of this server alone", utility.tag())).hint(hint).remark();
    }
}

/// A statement that names a tablespace.
pub fn say_where(utility: &Utility) {
    if let Some(tablespace) = utility.tablespace() {
        let message = format!("tablespace \"{tablespace}\" is of this server");
        let detail = "Other nodes use the one that postgres_r.tablespaces names for it there, or that has the same name, else their default.";
        notice(message).detail(detail).remark();
    }
}

fn notice(message: String) -> Error {
    Error::new(pgrx::PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message)
}

thread_local! {
    /// The current transaction changes rows of a table that is this node's alone, or another server's.
    static NOTED: Cell<bool> = const { Cell::new(false) };
}

/// Rows change that no other node hears of: with a transaction that is prepared they would be lost.
pub fn note() {
    NOTED.set(true);
}

pub fn is_noted() -> bool {
    NOTED.get() || foreign::rows_stay()
}

/// COPY puts rows into partitions without a plan that would tell which.
pub fn copied_to(table: Oid) {
    let routes = |entry: &Entry| matches!(entry.kind, RelationKind::PartitionedTable | RelationKind::ForeignTable);
    if !relation::entry(table).as_ref().is_some_and(routes) {
        return;
    }
    for (part, entry) in relation::with_children(table).into_iter().filter_map(|part| Some((part, relation::entry(part)?))) {
        let is_foreign = entry.kind == RelationKind::ForeignTable;
        if is_foreign {
            foreign::note(part);
        }
        if is_foreign || entry.persistence.is_of_node() {
            note();
        }
    }
}

/// At the end of every transaction.
pub fn reset() {
    NOTED.set(false);
}

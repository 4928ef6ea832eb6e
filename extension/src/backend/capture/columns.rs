//! Columns of numbers (`pg::columns`) that a statement makes: its user is told of those that mean something on one node only, and what the
//! others name is noted where the statement has written rows.

use crate::error::Error;
use crate::pg::columns::{self, Column, Meaning};
use crate::pg::log;
use crate::pg::relation::{self, Lock, Oid, Open, Persistence, RelationKind};

#[derive(Default)]
pub struct Columns {
    /// By table, as first seen.
    before: Vec<(Oid, Vec<Column>)>,
}

impl Columns {
    /// A relation that the statement is about to change; one that it makes does not show yet.
    pub fn see(&mut self, oid: Oid) {
        self.before.push((oid, of(oid)));
    }

    /// The columns of this table that are new.
    fn new_in(&self, oid: Oid) -> Vec<Column> {
        let mut columns = of(oid);
        let before = self.before.iter().filter(|(table, _)| *table == oid).flat_map(|(_, columns)| columns);
        before.for_each(|known| columns.retain(|column| column != known));
        columns
    }

    /// The statement has ended, on whichever node.
    pub fn note_objects(&self) {
        for &(oid, _) in &self.before {
            if self.new_in(oid).iter().any(|column| column.meaning == Meaning::Objects)
                && let Some(table) = Open::by_oid(oid, Lock::AccessShare)
                && relation::entry(oid).is_some_and(|entry| entry.kind == RelationKind::Table)
                && !table.is_empty()
            {
                columns::note_objects(&table);
            }
        }
    }

    /// The statement has ended where it comes from: refuses a table of which the nodes would look for rows in different partitions.
    pub fn refuse_unroutable(&self) {
        for &(oid, _) in &self.before {
            let table = table(oid)
                .filter(|_| relation::entry(oid).is_some_and(|entry| entry.kind == RelationKind::PartitionedTable));
            if let Some(typename) = table.and_then(|table| columns::unroutable_type(&table)) {
                let message =
                    format!("partitioning by a column of type {typename} is not supported in a replicated database");
                Error::new(pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
                    .hint("Its values hash or sort differently on every node. Partition by list, or by the name as text.")
                    .raise();
            }
        }
    }

    /// The same: tells the user what is new.
    pub fn warn(&self) {
        for &(oid, _) in &self.before {
            let new = self.new_in(oid);
            // Those of a partition are its parent's.
            let names = new.iter().filter(|column| column.meaning == Meaning::OfThisNode && !relation::is_partition(oid));
            let names: Vec<String> = names.map(|column| format!("\"{}\"", column.name)).collect();
            let (Some(entry), false) = (relation::entry(oid), names.is_empty()) else { continue };
            let (s, verb) = if names.len() == 1 { ("", "means") } else { ("s", "mean") };
            let message = format!(
                "values in column{s} {} of table \"{}\" {verb} something on one node only",
                names.join(", "),
                entry.name
            );
            let hint = "They travel as numbers. Those of large objects are the same everywhere; else use regclass and its kin for objects, a sequence or a UUID for rows.";
            log::warn(message, None, Some(hint.to_owned()));
        }
    }
}

fn of(oid: Oid) -> Vec<Column> {
    table(oid).map_or_else(Vec::new, |table| columns::of_numbers(&table))
}

fn table(oid: Oid) -> Option<Open> {
    let is_table = |entry: relation::Entry| {
        matches!(entry.kind, RelationKind::Table | RelationKind::PartitionedTable | RelationKind::MaterializedView)
            && entry.persistence == Persistence::Permanent
            && !entry.is_internal
    };
    relation::entry(oid).is_some_and(is_table).then(|| Open::by_oid(oid, Lock::AccessShare)).flatten()
}

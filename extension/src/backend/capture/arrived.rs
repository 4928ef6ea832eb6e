//! TRUNCATE that arrives by a subscription. The server's apply worker empties tables below every hook that tells of statements; what can be seen is that the relation
//! cache hears of the table, and that the table has a new file.
//!
//! Each word to the relation cache is noted with its command id while a worker's transaction is open. A row of the table that is captured while the table has no new file
//! shows that what was heard before was something else. What is left at the end is where the table was emptied: nobody else can have anything to say of a table
//! that this transaction has emptied, for it holds ACCESS EXCLUSIVE.
//!
//! Tables that were emptied without a row in between were emptied by one statement, as far as foreign keys are concerned.

use std::cell::RefCell;
use std::collections::BTreeMap;

use gcs_writeset::key::name_hash;
use postgres_r_protocol::capture::buffer::Guard;
use postgres_r_protocol::capture::order::Command;

use super::item::item_of;
use super::transaction;
use crate::pg::names::quoted;
use crate::pg::relation::{self, Oid, Persistence, RelationKind};
use crate::{relations, session};

/// What the relation cache has heard of a table.
#[derive(Clone, Copy)]
struct Heard {
    table: Oid,
    command: Command,
    /// Goes up with each row that is captured.
    stretch: u32,
}

#[derive(Default)]
struct Noted {
    heard: Vec<Heard>,
    stretch: u32,
}

thread_local! {
    static NOTED: RefCell<Noted> = RefCell::default();
}

/// From now on this process, a worker of a subscription, hears what the relation cache hears.
pub fn listen() {
    relations::record_changes();
}

/// A row of this table is captured.
pub fn row(table: Oid) {
    let is_any = relations::has_recorded() || NOTED.with_borrow(|noted| !noted.heard.is_empty());
    if !is_any {
        return;
    }
    NOTED.with_borrow_mut(|noted| {
        noted.take_in();
        if !relation::has_new_file(table) {
            noted.heard.retain(|heard| heard.table != table);
        }
        noted.stretch += 1;
    });
}

impl Noted {
    fn take_in(&mut self) {
        let stretch = self.stretch;
        let recorded = relations::take_recorded().into_iter();
        self.heard.extend(recorded.map(|(table, command)| Heard { table, command: Command(command), stretch }));
    }
}

/// At the end of a transaction, before it is submitted: what was emptied travels as statements, in its place among the rows.
pub fn finish() {
    let mut noted = NOTED.take();
    noted.take_in();
    let mut statements: BTreeMap<u32, (Command, Vec<Oid>)> = BTreeMap::new();
    for Heard { table, command, stretch } in noted.heard {
        if !is_emptied(table) {
            continue;
        }
        let (_, tables) = statements.entry(stretch).or_insert_with(|| (command, Vec::new()));
        if !tables.contains(&table) {
            tables.push(table);
        }
    }
    let held = Guard::Held(session::committed());
    for (command, tables) in statements.into_values() {
        let entries: Vec<_> = tables.into_iter().filter_map(relation::entry).collect();
        for entry in &entries {
            transaction::add_whole(name_hash(&[&entry.schema, &entry.name]), held);
        }
        let names: Vec<_> =
            entries.iter().map(|entry| format!("ONLY {}.{}", quoted(&entry.schema), quoted(&entry.name))).collect();
        transaction::append_statement(command, &item_of(&format!("TRUNCATE {}", names.join(", "))));
    }
}

fn is_emptied(table: Oid) -> bool {
    let is_replicated = relation::entry(table).is_some_and(|entry| {
        entry.kind == RelationKind::Table && entry.persistence == Persistence::Permanent && !entry.is_internal
    });
    is_replicated && relation::has_new_file(table)
}

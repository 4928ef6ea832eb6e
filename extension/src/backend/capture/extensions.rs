//! CREATE EXTENSION and ALTER EXTENSION ... UPDATE travel as what they came to: each extension that was made or updated, with its version and its
//! schema; and the rows of all tables that their scripts have made or changed.
//!
//! A script is a file of the server where it runs, and may do anything: insert rows with random(), fill a table from a query. Elsewhere the
//! script of the same version runs as well, for all the objects that it makes. Then those tables are emptied, and the rows of the origin come.
//! A node that does not have that version finds out when the transaction is tried there, before it is ordered, and the client is told (ADR 31).
//!
//! Event triggers fire for the statement as a whole, not for statements of its script: what they did in between could not be told from
//! what the script does. Temporary objects of a script are its own business.

use gcs_writeset::body::{PutItem, Remade};
use pgrx::pg_sys;

use super::running::Origin;
use super::touched::Touched;
use super::{transaction, trigger};
use crate::pg::relation::{self, Lock, Oid, Open};
use crate::pg::{extension, heap, role};
use crate::relations;

/// Appends the statements, in the order in which the extensions were made: what is required comes before what requires it.
pub fn append(origin: &Origin, touched: &Touched, item_of: impl Fn(&str) -> Vec<u8>) {
    let catalog = pg_sys::ExtensionRelationId;
    let schemas: Vec<Oid> = origin.noted.created_in(pg_sys::NamespaceRelationId).collect();
    let made: Vec<Oid> = origin.noted.created_in(catalog).collect();
    let mut texts: Vec<String> = made.iter().filter_map(|&oid| extension::create(oid, &schemas)).collect();
    let updated = touched.altered_in(catalog).filter(|oid| !made.contains(oid));
    texts.extend(updated.filter_map(extension::update));
    let Some(last) = texts.pop() else { return };
    for text in &texts {
        transaction::append_statement(origin.place(), &item_of(text));
    }
    let tables = touched.made_or_filled();
    let mut item = Vec::new();
    if !tables.is_empty() {
        let entries: Vec<_> = tables.iter().filter_map(|&table| relation::entry(table)).collect();
        let remade =
            entries.iter().map(|entry| Remade { schema: &entry.schema, name: &entry.name, anew: false, afterwards: true });
        let remade: Vec<_> = remade.collect();
        item.put_decided(&remade, &[], None);
    }
    item.extend(item_of(&last));
    transaction::append_statement(origin.place(), &item);
    let command = crate::pg::trigger::current_command();
    for table in tables.into_iter().filter_map(|table| Open::by_oid(table, Lock::AccessShare)) {
        // What indexes enter is computed once more here, as PostgreSQL has computed it.
        let _owner = role::Acting::restricted(relations::known_open(&table).table.owner);
        heap::for_each_new_row(&table, |row| trigger::on_remade_row(&table, command, row));
    }
}

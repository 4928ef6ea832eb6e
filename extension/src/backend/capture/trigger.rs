//! What a capture trigger does with a row: image and keys into the transaction's buffer.
//!
//! Everything that may call a type's or an index's own functions (and so run user code, which may change rows and come here
//! again) happens on scratch space first; the buffer is only touched afterwards, in one go.

use std::cell::RefCell;
use std::rc::Rc;

use gcs_writeset::Position;
use gcs_writeset::body::PutItem;
use postgres_r_protocol::capture::order::Command;

use super::keys::{self, Change, Images, RowKey};
use super::{base, transaction};
use crate::pg::datum::TransmissionModes;
use crate::pg::relation::Open;
use crate::pg::row::Row;
use crate::pg::trigger::RowEvent;
use crate::relations::{self, Known};

/// Scratch space kept for the next row.
const KEPT_BYTES_MAX: usize = 64 << 10;

#[derive(Default)]
struct Scratch {
    item: Vec<u8>,
    keys: Vec<RowKey>,
}

thread_local! {
    static SCRATCH: RefCell<Option<Scratch>> = const { RefCell::new(None) };
}

/// A row was inserted, updated or deleted.
pub fn on_row(event: &RowEvent<'_>) {
    let known = relations::known(event.table(), || event.describe());
    on_change(&known, event.command, event.old, event.new);
}

/// A row is there without a trigger having seen it come.
pub fn on_new_row(table: &Open, command: u32, row: Row<'_>) {
    on_change(&relations::known_open(table), command, None, Some(row));
}

/// A row is there as a statement has made it out of another. Nobody else's row can have to do with it: the statement's key of the whole
/// table says so, and what the row refers to was looked at by the statement.
pub fn on_remade_row(table: &Open, command: u32, row: Row<'_>) {
    let known = relations::known_open(table);
    let mut item = Vec::new();
    item.put_insert(transaction::define(&known));
    let modes = known.table.depends_on_settings.then(TransmissionModes::enter);
    known.table.put_row(row, None, |_| true, &mut item);
    drop(modes);
    transaction::append(&known, Command(command), &item, &[]);
}

fn on_change(known: &Rc<Known>, command: u32, old: Option<Row<'_>>, new: Option<Row<'_>>) {
    let mut scratch = SCRATCH.take().unwrap_or_default();
    scratch.item.clear();
    scratch.keys.clear();

    let definition = transaction::define(known);
    let held = base::held(command);
    let modes = known.table.depends_on_settings.then(TransmissionModes::enter);
    match (old, new) {
        (None, Some(new)) => insert(known, definition, held, new, &mut scratch),
        (Some(old), Some(new)) => update(known, definition, held, old, new, &mut scratch),
        (Some(old), None) => delete(known, definition, held, old, &mut scratch),
        (None, None) => {}
    }
    drop(modes);
    transaction::append(known, Command(command), &scratch.item, &scratch.keys);

    if scratch.item.capacity() <= KEPT_BYTES_MAX {
        SCRATCH.set(Some(scratch));
    }
}

fn insert(known: &Known, definition: u32, held: Position, new: Row<'_>, scratch: &mut Scratch) {
    scratch.item.put_insert(definition);
    let start = scratch.item.len();
    known.table.put_row(new, None, |_| true, &mut scratch.item);
    let images = Images { new: &scratch.item[start..], ..Images::default() };
    keys::of_change(known, Change::Insert { new }, images, base::current, held, &mut scratch.keys);
}

fn update(known: &Known, definition: u32, held: Position, old: Row<'_>, new: Row<'_>, scratch: &mut Scratch) {
    scratch.item.put_update(definition);
    let identity = put_identity(known, old, scratch);
    let start = scratch.item.len();
    known.table.put_row(new, Some(old), |column| known.identity.has_column(column), &mut scratch.item);
    let images = Images { old: &scratch.item[identity], new: &scratch.item[start..] };
    keys::of_change(known, Change::Update { old, new }, images, base::current, held, &mut scratch.keys);
}

fn delete(known: &Known, definition: u32, held: Position, old: Row<'_>, scratch: &mut Scratch) {
    scratch.item.put_delete(definition);
    let identity = put_identity(known, old, scratch);
    let images = Images { old: &scratch.item[identity], ..Images::default() };
    keys::of_change(known, Change::Delete { old }, images, base::current, held, &mut scratch.keys);
}

fn put_identity(known: &Known, old: Row<'_>, scratch: &mut Scratch) -> std::ops::Range<usize> {
    let start = scratch.item.len();
    known.table.put_identity(old, |column| known.identity.has_column(column), &mut scratch.item);
    start..scratch.item.len()
}

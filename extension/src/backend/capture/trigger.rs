//! What a capture trigger does with a row: image and keys into the transaction's buffer.
//!
//! Everything that may call a type's or an index's own functions (and so run user code, which may change rows and come here
//! again) happens on scratch space first; the buffer is only touched afterwards, in one go.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use gcs_writeset::Position;
use gcs_writeset::body::PutItem;
use gcs_writeset::key::name_hash;
use postgres_r_protocol::capture::buffer::{Guard, Strength};
use postgres_r_protocol::capture::order::Command;

use super::keys::{self, Change, Images, RowKey};
use super::{arrived, base, transaction};
use crate::pg::datum::TransmissionModes;
use crate::pg::naming::{self, Needs};
use crate::pg::relation::Open;
use crate::pg::row::Row;
use crate::pg::table::Values;
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
    let changes = relations::changes();
    let mut known = relations::known(event.table(), || event.describe());
    // The first row of a transaction waits for whoever changes types; only then is it sure what they are.
    transaction::ensure_writable();
    if relations::changes() != changes {
        known = relations::known(event.table(), || event.describe());
    }
    arrived::row(event.table());
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
    let definition = transaction::define(&known);
    // Before names are read.
    let held = base::held(command);
    let mut item = Vec::new();
    let Places { needs, .. } = images(&known, definition, command, (None, Some(row)), &mut item);
    transaction::append(&known, Command(command), &item, &[]);
    need(&needs, held);
}

fn on_change(known: &Rc<Known>, command: u32, old: Option<Row<'_>>, new: Option<Row<'_>>) {
    let mut scratch = SCRATCH.take().unwrap_or_default();
    scratch.item.clear();
    scratch.keys.clear();

    let definition = transaction::define(known);
    let held = base::held(command);
    let images = images(known, definition, command, (old, new), &mut scratch.item);
    let change = match (old, new) {
        (None, Some(new)) => Some(Change::Insert { new }),
        (Some(old), Some(new)) => Some(Change::Update { old, new }),
        (Some(old), None) => Some(Change::Delete { old }),
        (None, None) => None,
    };
    if let Some(change) = change {
        let Places { old, new, computed, .. } = &images;
        let (old, new) = (&scratch.item[old.clone()], &scratch.item[new.clone()]);
        let images = Images { old, new, computed: computed.as_ref() };
        keys::of_change(known, change, images, base::current, held, &mut scratch.keys);
    }
    transaction::append(known, Command(command), &scratch.item, &scratch.keys);
    need(&images.needs, held);

    if scratch.item.capacity() <= KEPT_BYTES_MAX {
        SCRATCH.set(Some(scratch));
    }
}

/// Where the images of a change stand in its item, and what their values depend on.
struct Places {
    old: Range<usize>,
    new: Range<usize>,
    computed: Option<Values>,
    needs: Needs,
}

/// Puts the images of a change into the item. What indexes enter for the new row is computed first, under the session's own settings.
fn images(
    known: &Known,
    definition: u32,
    command: u32,
    (old, new): (Option<Row<'_>>, Option<Row<'_>>),
    item: &mut Vec<u8>,
) -> Places {
    let computed = new.and_then(|new| known.table.compute(new));
    let modes = known.table.depends_on_settings.then(TransmissionModes::enter);
    if known.table.names_objects {
        naming::capture(command);
    }
    match (old, new) {
        (None, _) => item.put_insert(definition),
        (Some(_), Some(_)) => item.put_update(definition),
        (Some(_), None) => item.put_delete(definition),
    }
    let mut places = Places { old: 0..0, new: 0..0, computed, needs: Needs::default() };
    let is_identity = |column| known.identity.has_column(column);
    if let Some(old) = old {
        let start = item.len();
        known.table.put_identity(old, is_identity, item);
        places.old = start..item.len();
        known.table.put_no_values(item);
    }
    if let Some(new) = new {
        let start = item.len();
        known.table.put_row(new, old, is_identity, item);
        places.new = start..item.len();
        places.computed.iter().for_each(|values| known.table.put_values(values, item));
    }
    if known.table.names_objects {
        places.needs = naming::captured();
    }
    drop(modes);
    places
}

/// What a row's values name must still be what they name when the row is applied, and must be applied before it. The names were read after
/// `held`.
fn need(needs: &Needs, held: Position) {
    for &object in &needs.objects {
        transaction::add_key(relations::object_key(object), Strength::Shared, Guard::Held(held));
    }
    for (schema, name) in &needs.row_types {
        let key = relations::relation_key(name_hash(&[schema, name]));
        transaction::add_key(key, Strength::Shared, Guard::Locked);
    }
}

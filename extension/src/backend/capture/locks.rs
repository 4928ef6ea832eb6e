//! Rows that SELECT FOR UPDATE, NO KEY UPDATE, SHARE and KEY SHARE locked, as certification keys: in a transaction that also
//! writes, such a lock holds in the whole group.
//!
//! The lock itself is of this node only. What it would have kept another node's transaction from doing has a key in common with
//! it, so whichever is ordered later loses. A transaction that only locks is not submitted: it holds its locks for as long as it
//! lasts, and whoever needs them has it give way.
//!
//! Locks that foreign key triggers take are left out; the foreign key's own keys say the same.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use gcs_writeset::{Key, LockMode};
use postgres_r_protocol::capture::buffer::Strength;

use super::keys::{self, RowKey};
use super::transaction;
use crate::pg::datum::TransmissionModes;
use crate::pg::index::Index;
use crate::pg::memory::Context;
use crate::pg::names::Oid;
use crate::pg::relation::{self, Entry, Lock, Open, Persistence, RelationKind};
use crate::pg::rowlock::{self, Locked};
use crate::pg::trigger;
use crate::relations::{self, Identity, Known};
use crate::session;

/// A table and its number in the transaction; none if its rows need no keys.
type Found = Option<(Rc<Known>, u32)>;

#[derive(Default)]
struct Tables {
    /// As of this count of `relations::changes`.
    as_of: u64,
    by_oid: HashMap<u32, Found>,
}

thread_local! {
    static TABLES: RefCell<Tables> = RefCell::default();
    /// For what hashing a value leaves behind.
    static SCRATCH: RefCell<Option<Context>> = const { RefCell::new(None) };
}

/// A row was locked.
pub fn on_lock(locked: &Locked<'_>) {
    let Some((known, source)) = known(locked) else { return };
    transaction::append_lock(&known, source, &keys_of(locked, &known));
}

/// The key of a row itself, and whether whoever locks it so shuts everybody out; none if there is none, or it may be locked by others all the same.
pub fn row_key(locked: &Locked<'_>) -> Option<(Key, bool)> {
    let (known, _) = known(locked)?;
    // All rows would be one, of which one transaction could lock one.
    if let Identity::Index { index, .. } = &known.identity
        && known.table.indexes.get(*index).is_none_or(Index::is_coarse)
    {
        return None;
    }
    let keys = keys_of(locked, &known);
    let found = keys.iter().find(|key| key.part == keys::ROW)?;
    Some((found.key, found.strength == Strength::Exclusive))
}

/// The key of a row and the mode in which it is locked, if it is one of these, and a row of a user's table.
pub fn hot_key(locked: &Locked<'_>, is_hot: impl Fn(Key) -> bool) -> Option<(Key, LockMode)> {
    let mode = match locked.strength {
        rowlock::Strength::KeyShare => return None,
        rowlock::Strength::Share => LockMode::Shared,
        rowlock::Strength::NoKeyUpdate | rowlock::Strength::Update => LockMode::Exclusive,
    };
    let (known, _) = known(locked)?;
    // This extension's own statements wait for each other in their own ways.
    if known.table.schema == "postgres_r" {
        return None;
    }
    let key = SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut scratch) => {
            let scratch = scratch.get_or_insert_with(|| Context::lasting(c"postgres_r hot rows"));
            scratch.reset();
            scratch.with(|| known.row_key(locked.row))
        }
        // A type's own function changes rows.
        Err(_) => known.row_key(locked.row),
    });
    key.filter(|key| is_hot(*key)).map(|key| (key, mode))
}

fn keys_of(locked: &Locked<'_>, known: &Known) -> Vec<RowKey> {
    let mut image = Vec::new();
    if known.identity == Identity::WholeRow {
        let modes = known.table.depends_on_settings.then(TransmissionModes::enter);
        known.table.put_identity(locked.row, |_| true, &mut image);
        drop(modes);
    }
    let mut keys: Vec<RowKey> = Vec::new();
    keys::of_lock(known, locked.row, locked.strength, &image, session::committed(), &mut keys);
    keys
}

fn known(locked: &Locked<'_>) -> Found {
    let table = locked.table();
    let found = TABLES.with_borrow_mut(|tables| {
        if tables.as_of != relations::changes() {
            *tables = Tables { as_of: relations::changes(), ..Tables::default() };
        }
        tables.by_oid.get(&table.to_u32()).cloned()
    });
    if let Some(known) = found {
        return known;
    }
    let has_keys = relation::entry(table).is_some_and(|entry| {
        entry.kind == RelationKind::Table
            && entry.persistence == Persistence::Permanent
            && (!entry.is_internal || is_captured_all_the_same(table, &entry))
    });
    let known = has_keys.then(|| {
        let known = relations::known(table, || locked.describe());
        let source = transaction::source(&known);
        (known, source)
    });
    TABLES.with_borrow_mut(|tables| tables.by_oid.insert(table.to_u32(), known.clone()));
    known
}

/// Some tables of this extension are replicated like any others.
fn is_captured_all_the_same(table: Oid, entry: &Entry) -> bool {
    entry.schema == "postgres_r" && Open::by_oid(table, Lock::AccessShare).is_some_and(|table| trigger::is_in_force(&table))
}

/// The end of every transaction.
pub fn reset() {
    TABLES.with_borrow_mut(|tables| tables.by_oid.clear());
}

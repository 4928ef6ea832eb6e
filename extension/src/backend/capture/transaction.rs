//! The current transaction's buffer, and what its numbers mean.
//!
//! What a transaction changes spills to one of PostgreSQL's temporary files; how much that may be is
//! `postgres_r.max_writeset_size`, looked at with each row, so that nobody waits an hour to be told at COMMIT.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use gcs_writeset::Key;
use gcs_writeset::body::Index;
use gcs_writeset::bounds::KEYS_MAX;
use postgres_r_protocol::capture::buffer::{self, Buffer, Guard, Source, Strength, TooManyKeys};
use postgres_r_protocol::capture::order::Command;
use postgres_r_protocol::capture::spill::Disk;
use postgres_r_protocol::progress::{Stage, Whose};

use super::keys::{self, Part, RowKey};
use super::notify;
use crate::backend::writable;
use crate::error;
use crate::pg::table::Computed;
use crate::pg::tempfile::TempFile;
use crate::pg::{clock, process, relation, subtransaction};
use crate::relations::{self, InTransaction, Known};
use crate::{guc, node, session};

/// Keys of single rows that one table may add to a transaction; then one key stands for all of the table. All keys travel with
/// the writeset itself and are certified in one go, while everybody else waits: so few that this takes a fraction of a second.
const ROW_KEYS_MAX: u32 = 1 << 18;

/// Keys of a transaction from which on one key stands for all rows of each table it changes further.
const ALL_ROW_KEYS_MAX: usize = 1 << 19;

pub type Taken = buffer::Taken<TempFile>;

impl Disk for TempFile {
    fn create() -> TempFile {
        TempFile::create()
    }
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        TempFile::write(self, offset, bytes);
    }
    fn read(&self, offset: u64, bytes: &mut [u8]) {
        TempFile::read(self, offset, bytes);
    }
    fn truncate(&mut self, length: u64) {
        TempFile::truncate(self, length);
    }
}

/// The place of a key that no item brought; there is nothing there.
const NO_ITEM: u64 = u64::MAX;

#[derive(Default)]
struct Capturing {
    buffer: Buffer<TempFile>,
    /// By source: the first number of each table's parts, ascending, and the table.
    sources: Vec<(u32, Rc<Known>)>,
    source_count: u32,
    /// Keys by source table, for `ROW_KEYS_MAX`; parallel to `sources`.
    key_counts: Vec<u32>,
}

thread_local! {
    static STATE: RefCell<Capturing> = RefCell::default();
    /// Changes whenever numbers given to tables become void.
    static EPOCH: Cell<u64> = const { Cell::new(1) };
    static MAY_WRITE: Cell<bool> = const { Cell::new(false) };
}

/// The number by which items of the current transaction name this table.
pub fn define(known: &Rc<Known>) -> u32 {
    ensure_writable();
    let epoch = EPOCH.get();
    let numbers = known.in_transaction.get();
    if numbers.epoch == epoch {
        return numbers.definition;
    }
    STATE.with_borrow_mut(|state| {
        state.buffer.enter(subtransaction::level());
        let table = &known.table;
        let indexes: Vec<Index<'_>> = table.computed.iter().map(Computed::as_wire).collect();
        let definition = state.buffer.define(&table.schema, &table.name, table.columns.len() as u32, &indexes).0;
        let source = state.source_of(known);
        known.in_transaction.set(InTransaction { epoch, definition, source });
        definition
    })
}

/// Adds one change of a row and its keys.
pub fn append(known: &Rc<Known>, command: Command, item: &[u8], row_keys: &[RowKey]) {
    // Functions called in between may have rolled back a savepoint, but then this row's statement is gone too.
    let numbers = known.in_transaction.get();
    let result = STATE.with_borrow_mut(|state| {
        state.check_size(item.len());
        state.buffer.enter(subtransaction::level());
        let at = state.buffer.item_bytes();
        state.add_keys(known, numbers.source, row_keys, at)?;
        state.append(command, item);
        Ok(())
    });
    check(result);
}

/// Adds keys of a row that was locked and not changed. `source` is what `source` gave for the table.
pub fn append_lock(known: &Known, source: u32, row_keys: &[RowKey]) {
    let result = STATE.with_borrow_mut(|state| {
        state.buffer.enter(subtransaction::level());
        state.add_keys(known, source, row_keys, NO_ITEM)
    });
    check(result);
}

/// The number by which keys name a table to which nothing was done yet. It holds until the end of the transaction.
pub fn source(known: &Rc<Known>) -> u32 {
    STATE.with_borrow_mut(|state| state.source_of(known))
}

/// Adds one ordered statement; its keys come by `add_key`.
pub fn append_statement(command: Command, item: &[u8]) {
    STATE.with_borrow_mut(|state| {
        state.check_size(item.len());
        state.buffer.enter(subtransaction::level());
        state.buffer.append_statement(command, item);
    });
}

/// Adds one change of a large object; its keys come by `add_key`.
pub fn append_large_object(command: Command, item: &[u8]) {
    STATE.with_borrow_mut(|state| {
        state.check_size(item.len());
        state.buffer.enter(subtransaction::level());
        state.append(command, item);
    });
}

/// Shows that so much of the transaction is on disk.
fn captured(bytes: u64, rows: u64) {
    let (Some(area), Some(slot)) = (session::database(), node::my_slot()) else { return };
    if slot.progress.is_idle() {
        let (pid, node, started_at) = (process::my_pid(), area.replica.node(), clock::now());
        let whose = Whose { pid, database: area.index, node, started_at };
        slot.progress.start(whose, gcs_writeset::Position::ZERO, Stage::Capturing);
    }
    slot.progress.done(bytes);
    slot.progress.rows(rows);
}

/// Asks, at a transaction's first write, whether the node may write.
pub fn ensure_writable() {
    if !MAY_WRITE.get() {
        writable::ensure();
        if session::depends_on_types() {
            relation::announce_writes();
            add_key(relations::types_key(), Strength::Shared, Guard::Locked);
        }
        MAY_WRITE.set(true);
    }
}

/// Adds a key that belongs to no row.
pub fn add_key(key: Key, strength: Strength, guard: Guard) {
    let result = STATE.with_borrow_mut(|state| {
        state.buffer.enter(subtransaction::level());
        let at = state.buffer.item_bytes();
        state.buffer.add_key(key, strength, guard, Source(u32::MAX), at)
    });
    check(result);
}

/// Adds the keys of the whole relation with this name, whose locks are held. They meet whoever changes it or its rows, and those who
/// have only locked some since `held`. Later rows need no keys of their own.
pub fn add_whole(name: u64, held: Guard) {
    add_key(relations::relation_key(name), Strength::Exclusive, Guard::Locked);
    add_key(relations::table_lock_key(name), Strength::Checked, held);
}

/// Adds the key of the relation with this name as those have it who change its rows: nothing is done that they could be in the way of.
pub fn add_definition(name: u64, held: Guard) {
    add_key(relations::relation_key(name), Strength::Shared, held);
}

/// Whether other DDL of this node must be committed before this transaction is submitted, or wait for it.
pub fn excludes_ddl() -> bool {
    STATE.with_borrow(|state| state.buffer.holds_exclusive(relations::ddl_key()))
}

pub fn has_writes() -> bool {
    STATE.with_borrow(|state| state.buffer.item_bytes() > 0) || notify::is_any()
}

/// Everything captured, and the tables by source for messages.
pub fn take() -> (Taken, Sources) {
    let notifications = notify::take();
    STATE.with_borrow_mut(|state| {
        for item in notifications {
            state.check_size(item.len());
            state.buffer.append_last(&item);
        }
        let sources = Sources(std::mem::take(&mut state.sources));
        (state.buffer.take(), sources)
    })
}

/// A body of items that nobody captured.
pub fn of_items<'a>(items: impl IntoIterator<Item = &'a [u8]>) -> Taken {
    let mut buffer = Buffer::<TempFile>::default();
    items.into_iter().for_each(|item| buffer.append_last(item));
    buffer.take()
}

pub fn reset() {
    MAY_WRITE.set(false);
    let sources = STATE.with_borrow_mut(|state| {
        if state.buffer.is_empty() && state.sources.is_empty() && state.source_count == 0 {
            return Vec::new();
        }
        EPOCH.set(EPOCH.get() + 1);
        state.buffer.clear();
        state.key_counts.clear();
        state.source_count = 0;
        std::mem::take(&mut state.sources)
    });
    drop(sources);
}

pub fn subtransaction_released(level: i32) {
    STATE.with_borrow_mut(|state| state.buffer.release(level));
}

pub fn subtransaction_aborted(level: i32) {
    // What the first write did may be undone with it.
    MAY_WRITE.set(false);
    STATE.with_borrow_mut(|state| {
        let before = state.buffer.definitions();
        state.buffer.abort(level);
        if state.buffer.definitions() != before {
            EPOCH.set(EPOCH.get() + 1);
        }
    });
}

impl Capturing {
    /// Raises before anything is noted.
    fn check_size(&self, more: usize) {
        let (bytes, limit) = (self.buffer.item_bytes() + more as u64, guc::max_writeset_bytes());
        if bytes > limit {
            error::too_large(bytes, limit).raise();
        }
    }

    fn append(&mut self, command: Command, item: &[u8]) {
        let on_disk = self.buffer.bytes_on_disk();
        self.buffer.append(command, item);
        if self.buffer.bytes_on_disk() != on_disk {
            captured(self.buffer.item_bytes(), self.buffer.rows());
        }
    }

    fn source_of(&mut self, known: &Rc<Known>) -> u32 {
        let source = self.source_count;
        self.sources.push((source, Rc::clone(known)));
        self.key_counts.push(0);
        self.source_count += Part::count(known);
        source
    }

    fn add_keys(&mut self, known: &Known, source: u32, row_keys: &[RowKey], at: u64) -> Result<(), TooManyKeys> {
        let slot = self.sources.partition_point(|&(first, _)| first <= source) - 1;
        let has_whole = self.buffer.holds_exclusive(known.relation_key);
        for row_key in row_keys {
            // One key for all of the table says what keys of its rows would; what it refers to, and what no lock of ours guards, it
            // does not say.
            let is_of_row = row_key.part != keys::RELATION && !row_key.part.is_foreign(known);
            if is_of_row && !matches!(row_key.guard, Guard::Since(_)) {
                if has_whole {
                    continue;
                }
                if self.key_counts[slot] >= ROW_KEYS_MAX || self.buffer.key_count() >= ALL_ROW_KEYS_MAX {
                    let whole = Source(source + keys::RELATION.0);
                    // As of now, as the rows' own would be: it must meet those who only lock rows.
                    let held = Guard::Held(session::committed());
                    self.buffer.add_key(known.relation_key, Strength::Exclusive, held, whole, at)?;
                    self.buffer.add_key(known.relation_key, Strength::Exclusive, Guard::Locked, whole, at)?;
                    continue;
                }
            }
            self.key_counts[slot] += u32::from(is_of_row);
            self.buffer.add_key(row_key.key, row_key.strength, row_key.guard, Source(source + row_key.part.0), at)?;
        }
        Ok(())
    }
}

/// Tables by the sources of keys.
#[derive(Default)]
pub struct Sources(Vec<(u32, Rc<Known>)>);

impl Sources {
    pub fn find(&self, source: Source) -> Option<(&Known, Part)> {
        if source.0 == u32::MAX {
            return None;
        }
        let at = self.0.partition_point(|&(first, _)| first <= source.0).checked_sub(1)?;
        let (first, known) = &self.0[at];
        Some((known, Part(source.0 - first)))
    }
}

fn check(result: Result<(), TooManyKeys>) {
    if result.is_err() {
        error::too_many_keys(KEYS_MAX).raise();
    }
}

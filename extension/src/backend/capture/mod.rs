//! What the current transaction changes, as a writeset: row images and ordered statements, with certification keys.
//!
//! Rows come from triggers on every table ([`trigger`]), statements from the utility hook ([`statement`]); both go into one
//! buffer (`postgres_r_protocol::capture`). So do changes of large objects ([`large_object`]). What listeners are told goes behind them ([`notify`]). At PRE_COMMIT the commit path takes it all. What capture keeps true:
//!
//! - every change of a permanent table of a replicated database is in the writeset, or the statement was refused;
//! - nothing of a rolled-back subtransaction is;
//! - items stand in the order in which the transaction made them (docs/adr/0005);
//! - what could conflict with another node's transaction has a key (docs/certification.md).
//!
//! It leaves out on purpose: temporary tables, catalogs, and whatever a remote backend writes.

pub mod arrived;
pub mod base;
pub mod catalogs;
mod columns;
pub mod concurrently;
mod decided;
mod detached;
mod extensions;
mod global;
mod item;
pub mod keys;
mod large_object;
pub mod locks;
pub mod making;
pub mod notify;
mod overlap;
pub mod reads;
mod renamed;
mod running;
mod sql;
pub mod statement;
mod staying;
mod subscriptions;
pub mod touched;
pub mod transaction;
pub mod trigger;

use std::cell::Cell;
use std::collections::HashSet;

use gcs_writeset::body::{Item, Items};
use gcs_writeset::{Key, KeyGroup, TwoPhase};
use postgres_r_protocol::capture::body::Body;
use postgres_r_protocol::capture::buffer::Entry;

use crate::backend::{advisory, held, table_locks};
use crate::error::LARGE_OBJECT;
use crate::pg::execution::{self, Execution};
use crate::pg::tempfile::TempFile;
use crate::pg::{self, extension, lock_rows, lookup, naming, subtransaction};
use crate::relations::{self, Identity, KeyDescription};
use crate::session;
use transaction::Sources;

/// An item that is longer is not read for the sake of a message.
const SHOWN_ITEM_BYTES_MAX: usize = 64 << 10;

/// A transaction's writeset, but for what only the commit path knows.
pub struct Captured {
    pub has_statements: bool,
    /// Guarded keys: their base is the committed position at submit.
    pub exclusive: Vec<Key>,
    pub shared: Vec<Key>,
    /// Keys with bases of their own.
    pub unguarded: Vec<KeyGroup>,
    /// Items in the order of execution.
    pub body: Body<TempFile>,
    pub rows: u64,
    /// What the writeset does to a prepared transaction, if it is about one.
    pub two_phase: Option<TwoPhase>,
    /// The items that brought the keys, where others travel.
    described: Option<Body<TempFile>>,
    origins: Vec<Entry>,
    sources: Sources,
    /// The relations of the last unguarded groups' keys, if the transaction is SERIALIZABLE.
    read: Vec<String>,
    large_objects: HashSet<u32>,
}

thread_local! {
    /// The query that a foreign key's trigger runs now, of its own accord: what it reads and locks, keys of the foreign key say. What
    /// it sets off is a user's again. One that failed stays here to the end of the transaction; then too much counts as a user's.
    static FOREIGN_KEY_QUERY: Cell<Option<Execution>> = const { Cell::new(None) };
}

/// Registers every hook of capture; from `_PG_init`.
pub fn init() {
    relations::init();
    subtransaction::on_end(|level, end| match end {
        subtransaction::End::Released => {
            transaction::subtransaction_released(level);
            notify::subtransaction_released(level);
            catalogs::subtransaction_released(level);
            held::subtransaction_released(level);
            reads::subtransaction_released(level);
        }
        subtransaction::End::Aborted => {
            transaction::subtransaction_aborted(level);
            notify::subtransaction_aborted(level);
            catalogs::subtransaction_aborted(level);
            advisory::let_go();
            held::subtransaction_aborted(level);
            table_locks::reset();
            reads::subtransaction_aborted(level);
            running::subtransaction_aborted(level);
            naming::reset();
        }
    });
    execution::on_execution(execution::Listener {
        analysed: || {
            if is_wanted() {
                base::before_snapshot();
            }
        },
        starts: |plan| {
            if is_wanted() {
                running::look();
                base::execution_starts();
                plan.written().into_iter().for_each(statement::require_capture);
                if plan.is_in_foreign_key_trigger() && FOREIGN_KEY_QUERY.get().is_none() {
                    FOREIGN_KEY_QUERY.set(Some(plan.execution()));
                } else {
                    reads::on_start(plan);
                }
            } else if session::is_captured() {
                plan.written().into_iter().for_each(statement::require_capture);
            }
        },
        started: |plan| {
            if is_wanted() && FOREIGN_KEY_QUERY.get() != Some(plan.execution()) {
                reads::on_started(plan);
                plan.watch_row_locks();
                plan.watch_changes();
            }
        },
        ending: reads::on_ending,
        ends: |execution| {
            if is_wanted() {
                running::look();
                base::execution_ends();
                if FOREIGN_KEY_QUERY.get() == Some(execution) {
                    FOREIGN_KEY_QUERY.set(None);
                }
            }
        },
    });
    pg::trigger::on_row(pg::trigger::Listener { is_wanted, row: trigger::on_row });
    lock_rows::on_lock(locks::on_lock);
    lookup::on_lookup(reads::on_lookup);
    statement::init();
    notify::install();
    large_object::install();
}

/// Whether this process's changes are to be captured. Tables that a script of an extension changes travel as a whole.
pub fn is_wanted() -> bool {
    session::is_captured() && !extension::script_runs()
}

/// Whether the current transaction carries anything.
pub fn has_writes() -> bool {
    transaction::has_writes()
}

/// Whether the current transaction may only be submitted when no other one of this node that says so is on its way.
pub fn excludes_ddl() -> bool {
    transaction::excludes_ddl()
}

/// Hands over the writeset; the buffer is empty afterwards. To be called when nothing more will be captured: at PRE_COMMIT, after
/// deferred triggers.
pub fn take() -> Captured {
    let (mut taken, sources) = transaction::take();
    let (of_reads, read) = reads::take();
    taken.unguarded.extend(of_reads);
    Captured {
        has_statements: taken.has_statements,
        exclusive: taken.exclusive,
        shared: taken.shared,
        unguarded: taken.unguarded,
        body: taken.body,
        rows: taken.rows,
        two_phase: None,
        described: None,
        origins: taken.origins,
        sources,
        read,
        large_objects: large_object::take(),
    }
}

/// Whether the current transaction has changed rows that no other node hears of.
pub fn stays_here() -> bool {
    staying::is_noted()
}

/// Forgets everything; at the end of every transaction.
pub fn reset() {
    staying::reset();
    transaction::reset();
    notify::reset();
    catalogs::reset();
    large_object::reset();
    statement::reset();
    reads::reset();
    locks::reset();
    naming::reset();
    FOREIGN_KEY_QUERY.set(None);
    if session::replicated() {
        base::reset();
    }
}

impl Captured {
    /// One that brings nothing but these items.
    pub fn of_items<'a>(items: impl IntoIterator<Item = &'a [u8]>) -> Captured {
        let taken = transaction::of_items(items);
        Captured {
            has_statements: false,
            exclusive: Vec::new(),
            shared: Vec::new(),
            unguarded: Vec::new(),
            body: taken.body,
            rows: 0,
            two_phase: None,
            described: None,
            origins: Vec::new(),
            sources: Sources::default(),
            read: Vec::new(),
            large_objects: HashSet::new(),
        }
    }

    /// These items travel in the place of those that were captured; the keys stay.
    pub fn carry(&mut self, items: Captured) {
        self.described = Some(std::mem::replace(&mut self.body, items.body));
        self.rows = 0;
    }

    /// The key at this index, if it is that of a row.
    pub fn row_key(&self, key_index: u32) -> Option<Key> {
        let origin = self.origins.get(key_index as usize)?;
        let (_, part) = self.sources.find(origin.source)?;
        (part == keys::ROW).then_some(origin.key)
    }

    /// What the key at this index stands for; indexes count through the guarded group, then the unguarded ones. Needs a
    /// transaction in which catalogs can be read.
    pub fn describe(&self, key_index: u32) -> Option<KeyDescription> {
        if let Some(index) = (key_index as usize).checked_sub(self.origins.len()) {
            return self.read.get(index).map(|table| KeyDescription { table: table.clone(), ..KeyDescription::default() });
        }
        let origin = self.origins.get(key_index as usize)?;
        let Some((known, part)) = self.sources.find(origin.source) else { return self.describe_large_object(origin.key) };
        let table = format!("{}.{}", known.table.schema, known.table.name);
        let (attributes, index_name) = match part.constraint() {
            Some(at) => match known.table.indexes.get(at) {
                Some(index) => (index.attributes.clone(), index.name.clone()),
                None => {
                    let foreign = known.table.foreign_keys.get(at - known.table.indexes.len())?;
                    (Some(foreign.attributes.clone()), String::new())
                }
            },
            None if part == keys::ROW => match &known.identity {
                Identity::Index { index, .. } => (known.table.indexes.get(*index)?.attributes.clone(), String::new()),
                Identity::WholeRow => {
                    (Some(known.table.columns.iter().map(|column| column.attribute).collect()), String::new())
                }
            },
            None => {
                let relation = known.table.oid;
                return Some(KeyDescription { table, key: String::new(), relation, attributes: Vec::new() });
            }
        };
        let attributes = attributes.unwrap_or_default();
        let values = (!attributes.is_empty()).then(|| self.key_text(origin, &known.table, &attributes)).flatten();
        Some(KeyDescription { table, key: values.unwrap_or(index_name), relation: known.table.oid, attributes })
    }

    fn describe_large_object(&self, key: Key) -> Option<KeyDescription> {
        let number = self.large_objects.iter().find(|&&number| relations::large_object_key(number) == key)?;
        Some(KeyDescription { table: format!("{LARGE_OBJECT}{number}"), ..KeyDescription::default() })
    }

    /// `(a, b)=(1, 2)` from the row image that brought the key.
    fn key_text(&self, origin: &Entry, table: &crate::pg::table::Table, attributes: &[usize]) -> Option<String> {
        let body = self.described.as_ref().unwrap_or(&self.body);
        let mut items = Items::new(body.definitions());
        while items.next().is_some() {}
        let item = body.item(origin.item, SHOWN_ITEM_BYTES_MAX);
        let image = match items.resume_at(&item).next()?.ok()? {
            Item::Insert { new, .. } => new,
            Item::Update { identity, .. } | Item::Delete { identity, .. } => identity,
            Item::Relation { .. }
            | Item::Statement { .. }
            | Item::Decided(_)
            | Item::Verifier(_)
            | Item::Indexed(_)
            | Item::Repair(_)
            | Item::Repaired
            | Item::Fill { .. }
            | Item::LargeObject(_)
            | Item::Notify { .. }
            | Item::Prepared(_)
            | Item::Finished { .. } => return None,
        };
        let datums: Vec<_> = image.datums().collect();
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for &attribute in attributes {
            let position = table.columns.iter().position(|column| column.attribute == attribute)?;
            let column = &table.columns[position];
            names.push(column.name.as_str());
            values.push(column.codec.text(*datums.get(position)?)?);
        }
        Some(format!("({})=({})", names.join(", "), values.join(", ")))
    }
}

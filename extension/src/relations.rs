//! Tables as capture and apply both see them: described once, kept until the relation cache says that something changed.
//!
//! Both sides derive a row's identity by the same rule from the same catalogs: the primary key; else the first unique index
//! by name that is valid, immediate, plain and on NOT NULL columns only; else the whole row.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use gcs_writeset::key::name_hash;
use gcs_writeset::{Key, Namespace};

use crate::pg::index::{Index, IndexKey};
use crate::pg::relation::{Lock, Oid, Open};
use crate::pg::row::Row;
use crate::pg::table::Table;
use crate::pg::{invalidation, privilege, trigger};

/// Tables described at a time; at the bound all are forgotten and described again when needed.
const TABLES_MAX: usize = 4096;

/// Tables in schema postgres_r that are like users' own: empty when replication starts, captured from then on, and part of a copy.
pub const OWN_TABLES: [&str; 10] = [
    "databases",
    "prepared",
    "sequences",
    "subscriptions",
    "subscription_positions",
    "subscription_tables",
    "verification_marks",
    "verification_scope",
    "verification_answers",
    "verification_results",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Position in `Table::indexes`, and for each live column whether it is part.
    Index {
        index: usize,
        columns: Vec<bool>,
    },
    WholeRow,
}

impl Identity {
    pub fn has_column(&self, column: usize) -> bool {
        match self {
            Identity::Index { columns, .. } => columns[column],
            Identity::WholeRow => true,
        }
    }

    fn of(table: &Table) -> Identity {
        let usable = |index: &&Index| {
            index.is_valid
                && index.is_immediate
                && !index.is_exclusion
                && index.attributes.as_ref().is_some_and(|attributes| {
                    attributes.iter().all(|a| table.columns.iter().any(|c| c.attribute == *a && c.not_null))
                })
        };
        let primary = table.indexes.iter().filter(usable).find(|index| index.is_primary);
        let Some(index) = primary.or_else(|| table.indexes.iter().find(usable)) else {
            return Identity::WholeRow;
        };
        let attributes = index.attributes.as_deref().unwrap_or_default();
        let columns = table.columns.iter().map(|column| attributes.contains(&column.attribute)).collect();
        let index = table.indexes.iter().position(|other| other.oid == index.oid).unwrap_or_default();
        Identity::Index { index, columns }
    }
}

/// Every writeset holds this shared; statements that change how types read hold it exclusively.
pub fn types_key() -> Key {
    Key::new(Namespace::Schema, 0, 0)
}

/// Every DDL statement holds this exclusively.
pub fn ddl_key() -> Key {
    Key::new(Namespace::Schema, 1, 0)
}

/// Exclusive for DDL that makes, renames or drops the object with this identity (its hash), shared for whoever writes a value that names it.
pub fn object_key(identity: u64) -> Key {
    Key::new(Namespace::Schema, 10, identity)
}

/// Exclusive for whoever makes, writes to, truncates or drops the large object with this number, shared for whoever needs it to be there.
pub fn large_object_key(number: u32) -> Key {
    Key::new(Namespace::Schema, 11, u64::from(number))
}

/// Held shared by whoever makes a large object, and exclusively by statements about whatever a role owns.
pub fn owned_large_objects_key() -> Key {
    Key::new(Namespace::Schema, 12, 0)
}

/// Held shared by the DDL of every node but the one at this place in the group, which checks it.
pub fn ddl_elsewhere_key(ordinal: u16) -> Key {
    Key::new(Namespace::Schema, 2, u64::from(ordinal))
}

/// Held shared by DDL of which no list of names tells what other DDL it can change.
pub fn ddl_at_large_key() -> Key {
    Key::new(Namespace::Schema, 3, 0)
}

/// Held shared by DDL that changes what functions do.
pub fn functions_key() -> Key {
    Key::new(Namespace::Schema, 4, 0)
}

/// Held shared by DDL that made, renamed or dropped something of a name with a word, by the word's place.
pub fn changed_word_key(place: u64) -> Key {
    Key::new(Namespace::Schema, 5, place)
}

/// Held shared by DDL that changes what privileges new objects get.
pub fn default_privileges_key() -> Key {
    Key::new(Namespace::Schema, 7, 0)
}

/// Held shared by DDL that granted something on an object of a name with this word.
pub fn granted_word_key(word: u64) -> Key {
    Key::new(Namespace::Schema, 8, word)
}

/// The same, for what it revoked.
pub fn revoked_word_key(word: u64) -> Key {
    Key::new(Namespace::Schema, 9, word)
}

/// Held shared by DDL that mentions this word, and does not lock what it mentions.
pub fn mentioned_word_key(word: u64) -> Key {
    Key::new(Namespace::Schema, 6, word)
}

/// Exclusive for DDL and TRUNCATE, shared for whoever changes or locks rows: their locks meet on every node.
pub fn relation_key(name: u64) -> Key {
    Key::new(Namespace::Relation, name, 0)
}

/// LOCK TABLE in SHARE UPDATE EXCLUSIVE mode excludes itself.
pub fn weak_table_lock_key(name: u64) -> Key {
    Key::new(Namespace::Relation, name, 1)
}

/// Exclusive for LOCK TABLE that keeps writers out, shared for writers: what it locks on its node is met nowhere else.
pub fn table_lock_key(name: u64) -> Key {
    Key::new(Namespace::Relation, name, 2)
}

pub struct Known {
    pub table: Table,
    pub identity: Identity,
    /// Hash of schema and name.
    pub name: u64,
    pub relation_key: Key,
    pub lock_key: Key,
    /// What the current transaction calls it; belongs to capture.
    pub in_transaction: Cell<InTransaction>,
}

impl Known {
    /// The certification key of the row whose identity has this hash.
    pub fn key_of_row(&self, value: u64) -> Key {
        Key::new(Namespace::Row, self.name, value)
    }

    /// The certification key of a row, by its identity; none where rows are told apart by all of their columns, or not at all.
    pub fn row_key(&self, row: Row<'_>) -> Option<Key> {
        let Identity::Index { index, .. } = &self.identity else { return None };
        let index = self.table.indexes.get(*index).filter(|index| !index.is_coarse())?;
        match index.key(row) {
            IndexKey::Hash(hash) => Some(self.key_of_row(hash)),
            IndexKey::None => None,
        }
    }
}

/// Numbers given to a table by a transaction's buffer, valid in that epoch of the buffer only.
#[derive(Clone, Copy, Debug, Default)]
pub struct InTransaction {
    pub epoch: u64,
    pub definition: u32,
    pub source: u32,
}

thread_local! {
    static TABLES: RefCell<HashMap<u32, Rc<Known>>> = RefCell::new(HashMap::new());
    /// Counts invalidations, so that a description that one overtook is not kept.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
    static FORGET_ALL: Cell<bool> = const { Cell::new(false) };
    /// In the processes that asked for it.
    static RECORDED: RefCell<Option<Vec<(Oid, u32)>>> = const { RefCell::new(None) };
}

pub fn init() {
    invalidation::on_relation_change(|relation| {
        forget(relation);
        record(relation);
    });
}

/// From now on this process keeps which relations changed, until [`take_recorded`].
pub fn record_changes() {
    RECORDED.with_borrow_mut(|recorded| {
        recorded.get_or_insert_default();
    });
}

fn record(relation: Option<Oid>) {
    let Some(relation) = relation else { return };
    RECORDED.with(|recorded| {
        if let Ok(mut recorded) = recorded.try_borrow_mut()
            && let Some(recorded) = &mut *recorded
        {
            // What changed it has used the command id before.
            recorded.push((relation, trigger::current_command().saturating_sub(1)));
        }
    });
}

/// Relations that changed since the last call, each with the id of the command that changed it, where this transaction has.
pub fn take_recorded() -> Vec<(Oid, u32)> {
    RECORDED.with_borrow_mut(|recorded| recorded.as_mut().map(std::mem::take)).unwrap_or_default()
}

/// Whether there is anything to take.
pub fn has_recorded() -> bool {
    RECORDED.with_borrow(|recorded| recorded.as_ref().is_some_and(|recorded| !recorded.is_empty()))
}

/// The table `relation` is open on.
pub fn known(oid: Oid, describe: impl FnOnce() -> Table) -> Rc<Known> {
    if FORGET_ALL.take() {
        let all = TABLES.take();
        drop(all);
    }
    let found = TABLES.with_borrow(|tables| tables.get(&oid.to_u32()).cloned());
    if let Some(known) = found {
        return known;
    }
    let before = CHANGES.get();
    let table = describe();
    let identity = Identity::of(&table);
    let name = name_hash(&[&table.schema, &table.name]);
    let (relation_key, lock_key) = (relation_key(name), table_lock_key(name));
    let known = Rc::new(Known { table, identity, name, relation_key, lock_key, in_transaction: Cell::default() });
    if CHANGES.get() == before {
        let full = TABLES.with_borrow(|tables| tables.len() >= TABLES_MAX);
        let forgotten = if full { TABLES.take() } else { HashMap::new() };
        TABLES.with_borrow_mut(|tables| tables.insert(oid.to_u32(), Rc::clone(&known)));
        drop(forgotten);
    }
    known
}

/// Counts changes of relations, so that others can tell whether what they remember still holds.
pub fn changes() -> u64 {
    CHANGES.get()
}

pub fn known_open(relation: &Open) -> Rc<Known> {
    known(relation.oid(), || Table::describe(relation))
}

/// Whether rows of the table are told apart by its primary key, whatever other indexes it has.
pub fn has_primary_key(table: Oid) -> bool {
    let indexes = |table: &Known| table.table.indexes.iter().any(|index| index.is_primary && index.is_valid);
    Open::by_oid(table, Lock::AccessShare).is_some_and(|table| indexes(&known_open(&table)))
}

/// The relation cache's word that `oid` changed, or everything if none.
fn forget(oid: Option<Oid>) {
    CHANGES.set(CHANGES.get().wrapping_add(1));
    let Some(oid) = oid else {
        FORGET_ALL.set(true);
        return;
    };
    TABLES.with(|tables| match tables.try_borrow_mut() {
        Ok(mut tables) => {
            tables.retain(|&table, known| table != oid.to_u32() && !known.table.depends_on.contains(&oid));
        }
        Err(_) => FORGET_ALL.set(true),
    });
}

/// A key in the words of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyDescription {
    /// `public.t`
    pub table: String,
    /// `(id)=(7)`; the index's name where the values are not at hand; empty for a whole table.
    pub key: String,
    /// Of which table and columns (indexes among all attributes) those are, for [`KeyDescription::key_for`].
    pub relation: Oid,
    pub attributes: Vec<usize>,
}

impl KeyDescription {
    /// The key as a role may see it: without values that PostgreSQL would not show it either.
    pub fn key_for(&self, role: Option<Oid>) -> String {
        let Some((columns, _)) = self.key.split_once(")=(") else { return self.key.clone() };
        if role.is_some_and(|role| privilege::sees(role, self.relation, &self.attributes)) {
            self.key.clone()
        } else {
            format!("{columns})")
        }
    }
}

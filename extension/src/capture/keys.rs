//! The certification keys of a changed row (docs/certification.md has the table and the arguments).

use gcs_writeset::key::bytes_hash;
use gcs_writeset::{Key, Namespace, Position};

use super::buffer::{Guard, Strength};
use crate::pg::index::{Coarse, ForeignKey, Index, IndexKey};
use crate::pg::relation::Row;
use crate::relations::{Identity, Known};

/// Which key of a table this is, for messages: `RELATION`, `ROW`, else `FIRST_INDEX` + its position in `Table::indexes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part(pub u32);

pub const RELATION: Part = Part(0);
pub const ROW: Part = Part(1);
const FIRST_INDEX: u32 = 2;

impl Part {
    pub fn of_index(index: usize) -> Part {
        Part(FIRST_INDEX + index as u32)
    }

    pub fn index(self) -> Option<usize> {
        self.0.checked_sub(FIRST_INDEX).map(|index| index as usize)
    }

    /// How many parts a table has.
    pub fn count(known: &Known) -> u32 {
        FIRST_INDEX + known.table.indexes.len() as u32
    }
}

#[derive(Clone, Copy, Debug)]
pub struct RowKey {
    pub key: Key,
    pub strength: Strength,
    pub guard: Guard,
    pub part: Part,
}

/// What happened to a row.
#[derive(Clone, Copy)]
pub enum Change<'a> {
    Insert { new: Row<'a> },
    Update { old: Row<'a>, new: Row<'a> },
    Delete { old: Row<'a> },
}

/// Appends the keys of one change. `identity` is the old row's identity image, `base` gives the base of unguarded keys.
pub fn of_change(known: &Known, change: Change<'_>, identity: &[u8], base: impl Fn() -> Position, keys: &mut Vec<RowKey>) {
    let mut keys = Keys { known, base: &base, keys };
    keys.push(known.relation_key, Strength::Shared, Guard::Locked, RELATION);
    match change {
        Change::Insert { new } => keys.insert(new),
        Change::Update { old, new } => keys.update(old, new, identity),
        Change::Delete { old } => keys.delete(old, identity),
    }
}

struct Keys<'a> {
    known: &'a Known,
    base: &'a dyn Fn() -> Position,
    keys: &'a mut Vec<RowKey>,
}

impl Keys<'_> {
    fn push(&mut self, key: Key, strength: Strength, guard: Guard, part: Part) {
        self.keys.push(RowKey { key, strength, guard, part });
    }

    fn insert(&mut self, new: Row<'_>) {
        for (at, index) in self.known.table.indexes.iter().enumerate() {
            self.gain(at, index, index.key(new));
        }
        for foreign in &self.known.table.foreign_keys {
            self.refer(foreign, new);
        }
    }

    fn update(&mut self, old: Row<'_>, new: Row<'_>, identity: &[u8]) {
        self.row(old, identity);
        for (at, index) in self.known.table.indexes.iter().enumerate() {
            if index.is_unchanged(old, new) {
                continue;
            }
            let (before, after) = (index.key(old), index.key(new));
            if before != after || index.is_coarse() {
                self.lose(at, index, before);
                self.gain(at, index, after);
            }
        }
        for foreign in &self.known.table.foreign_keys {
            if !foreign.is_unchanged(old, new) {
                self.refer(foreign, new);
            }
        }
    }

    fn delete(&mut self, old: Row<'_>, identity: &[u8]) {
        self.row(old, identity);
        for (at, index) in self.known.table.indexes.iter().enumerate() {
            if !index.is_exclusion {
                self.lose(at, index, index.key(old));
            }
        }
    }

    fn row(&mut self, old: Row<'_>, identity: &[u8]) {
        let value = match &self.known.identity {
            Identity::Index { index, .. } => match self.known.table.indexes[*index].key(old) {
                IndexKey::Hash(hash) => hash,
                IndexKey::None => 0,
            },
            Identity::WholeRow => bytes_hash(identity),
        };
        self.push(Key::new(Namespace::Row, self.known.name, value), Strength::Exclusive, Guard::Locked, ROW);
    }

    /// A value enters an index. The entry, while in progress, blocks others, unless it is checked only at the end.
    fn gain(&mut self, at: usize, index: &Index, key: IndexKey) {
        let guard = if index.is_immediate { Guard::Locked } else { Guard::Since((self.base)()) };
        self.unique(at, index, key, guard);
    }

    /// A value leaves an index. Where foreign keys point, nothing keeps a remote backend from inserting a child meanwhile.
    fn lose(&mut self, at: usize, index: &Index, key: IndexKey) {
        let is_guarded = index.is_immediate && !self.known.table.is_referenced;
        let guard = if is_guarded { Guard::Locked } else { Guard::Since((self.base)()) };
        self.unique(at, index, key, guard);
    }

    fn unique(&mut self, at: usize, index: &Index, key: IndexKey, guard: Guard) {
        if let IndexKey::Hash(hash) = key {
            let namespace = if index.is_exclusion { Namespace::Exclusion } else { Namespace::Unique };
            self.push(Key::new(namespace, index.key_name, hash), Strength::Exclusive, guard, Part::of_index(at));
        }
    }

    /// A child needs its parent to stay. Our key-share lock on the parent guards that.
    fn refer(&mut self, foreign: &ForeignKey, new: Row<'_>) {
        let parent = Key::new(Namespace::Relation, foreign.parent_name, 0);
        match foreign.key(new) {
            Ok(IndexKey::None) => {}
            Ok(IndexKey::Hash(hash)) => {
                self.push(parent, Strength::Shared, Guard::Locked, RELATION);
                self.push(Key::new(Namespace::Unique, foreign.key_name, hash), Strength::Shared, Guard::Locked, ROW);
            }
            Err(Coarse) => self.push(parent, Strength::Exclusive, Guard::Locked, RELATION),
        }
    }
}

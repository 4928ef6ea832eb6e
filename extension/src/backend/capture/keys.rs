//! The certification keys of a changed row (docs/certification.md has the table and the arguments).

use gcs_writeset::key::bytes_hash;
use gcs_writeset::{Key, Namespace, Position};
use postgres_r_protocol::capture::buffer::{Guard, Strength};

use crate::pg::foreign_key::{Coarse, ForeignKey};
use crate::pg::index::{Index, IndexKey};
use crate::pg::row::Row;
use crate::pg::rowlock;
use crate::pg::table::Values;
use crate::relations::{self, Identity, Known};

/// Which key of a table this is, for messages: `RELATION`, `ROW`, then one for each of `Table::indexes` and one for each of
/// `Table::foreign_keys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part(pub u32);

pub const RELATION: Part = Part(0);
pub const ROW: Part = Part(1);
const FIRST_INDEX: u32 = 2;

impl Part {
    pub fn of_index(index: usize) -> Part {
        Part(FIRST_INDEX + index as u32)
    }

    fn of_foreign_key(known: &Known, foreign_key: usize) -> Part {
        Part(FIRST_INDEX + (known.table.indexes.len() + foreign_key) as u32)
    }

    /// The position in `Table::indexes`, followed by `Table::foreign_keys`.
    pub fn constraint(self) -> Option<usize> {
        self.0.checked_sub(FIRST_INDEX).map(|index| index as usize)
    }

    pub fn is_foreign(self, known: &Known) -> bool {
        self.constraint().is_some_and(|at| at >= known.table.indexes.len())
    }

    /// How many parts a table has.
    pub fn count(known: &Known) -> u32 {
        FIRST_INDEX + (known.table.indexes.len() + known.table.foreign_keys.len()) as u32
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

/// The images of a change, for rows that only their whole image identifies, and what indexes gave for the new row.
#[derive(Clone, Copy, Default)]
pub struct Images<'a> {
    pub old: &'a [u8],
    pub new: &'a [u8],
    pub computed: Option<&'a Values>,
}

/// Appends the keys of one change, whose locks were held at `held`. `base` gives the base of unguarded keys.
pub fn of_change(
    known: &Known,
    change: Change<'_>,
    images: Images<'_>,
    base: impl Fn() -> Position,
    held: Position,
    keys: &mut Vec<RowKey>,
) {
    let mut keys = Keys { known, base: &base, held: Guard::Held(held), is_lock: false, keys };
    keys.relation();
    match change {
        Change::Insert { new } => keys.insert(new, images),
        Change::Update { old, new } => keys.update(old, new, images),
        Change::Delete { old } => keys.delete(old, images.old),
    }
}

/// Appends the keys of a row that SELECT FOR UPDATE or its kin locked, as of `held`: those that stand in the way of what the lock keeps
/// others from doing to the row.
pub fn of_lock(
    known: &Known,
    row: Row<'_>,
    strength: rowlock::Strength,
    image: &[u8],
    held: Position,
    keys: &mut Vec<RowKey>,
) {
    // Children come in elsewhere without a lock on the row, but we had seen those before ours.
    let mut keys = Keys { known, base: &|| held, held: Guard::Held(held), is_lock: true, keys };
    keys.relation();
    keys.lock(row, strength, image);
}

struct Keys<'a> {
    known: &'a Known,
    base: &'a dyn Fn() -> Position,
    /// Of keys that a row lock or a table lock of ours guards, and that those who only lock have, too.
    held: Guard,
    /// The row stays as it is.
    is_lock: bool,
    keys: &'a mut Vec<RowKey>,
}

impl Keys<'_> {
    fn push(&mut self, key: Key, strength: Strength, guard: Guard, part: Part) {
        self.keys.push(RowKey { key, strength, guard, part });
    }

    fn relation(&mut self) {
        self.push(self.known.relation_key, Strength::Shared, Guard::Locked, RELATION);
        self.push(self.known.lock_key, Strength::Shared, self.held, RELATION);
    }

    fn insert(&mut self, new: Row<'_>, images: Images<'_>) {
        for (at, index) in self.known.table.indexes.iter().enumerate() {
            let key = index.key_of_new(new, images.computed);
            self.gain(at, index, key);
            if self.is_identity(at) {
                self.row(key, Strength::Shared);
            }
        }
        self.whole_row(images.new, Strength::Shared);
        for (at, foreign) in self.known.table.foreign_keys.iter().enumerate() {
            self.refer(at, foreign, new);
        }
    }

    fn update(&mut self, old: Row<'_>, new: Row<'_>, images: Images<'_>) {
        for (at, index) in self.known.table.indexes.iter().enumerate() {
            let is_identity = self.is_identity(at);
            if index.is_unchanged(old, new) {
                if is_identity {
                    self.row(index.key(old), Strength::Exclusive);
                }
                continue;
            }
            let (before, after) = (index.key(old), index.key_of_new(new, images.computed));
            if is_identity {
                self.row(before, Strength::Exclusive);
                self.row(after, Strength::Shared);
            }
            if before != after || index.is_coarse() {
                self.lose(at, index, before);
                self.gain(at, index, after);
            }
        }
        self.shut_out_children(old, new);
        self.whole_row(images.old, Strength::Exclusive);
        self.whole_row(images.new, Strength::Shared);
        for (at, foreign) in self.known.table.foreign_keys.iter().enumerate() {
            if !foreign.is_unchanged(old, new) {
                self.refer(at, foreign, new);
            }
        }
    }

    fn delete(&mut self, old: Row<'_>, image: &[u8]) {
        for (at, index) in self.known.table.indexes.iter().enumerate() {
            let key = index.key(old);
            if self.is_identity(at) {
                self.row(key, Strength::Exclusive);
            }
            if index.is_exclusion {
                // What the row kept out may come in, but must be applied after us.
                if let IndexKey::Hash(hash) = key {
                    let key = Key::new(Namespace::Exclusion, index.key_name, hash);
                    self.push(key, Strength::Shared, Guard::Locked, Part::of_index(at));
                }
            } else {
                self.lose(at, index, key);
            }
        }
        self.whole_row(image, Strength::Exclusive);
    }

    /// Others may still refer to a row that is locked FOR NO KEY UPDATE or FOR SHARE; one that is locked FOR KEY SHARE may be changed, but
    /// for its keys.
    fn lock(&mut self, row: Row<'_>, lock: rowlock::Strength, image: &[u8]) {
        let known = self.known;
        let excludes = matches!(lock, rowlock::Strength::Update | rowlock::Strength::NoKeyUpdate);
        let strength = if excludes { Strength::Exclusive } else { Strength::Shared };
        let is_about_keys = matches!(lock, rowlock::Strength::Update | rowlock::Strength::KeyShare);
        let has_key = matches!(known.identity, Identity::Index { .. });
        let is_about_row = lock != rowlock::Strength::KeyShare || !has_key;
        for (at, index) in known.table.indexes.iter().enumerate() {
            let is_identity = self.is_identity(at);
            let may_be_referred_to =
                is_about_keys && index.is_immediate && !index.is_exclusion && index.attributes.is_some();
            if !is_identity && !may_be_referred_to {
                continue;
            }
            let key = index.key(row);
            if is_identity && is_about_row {
                self.row(key, strength);
            }
            match key {
                IndexKey::Hash(_) if may_be_referred_to && excludes => self.lose(at, index, key),
                IndexKey::Hash(hash) if may_be_referred_to => {
                    let key = Key::new(Namespace::Unique, index.key_name, hash);
                    self.push(key, Strength::Shared, self.held, Part::of_index(at));
                }
                _ => {}
            }
        }
        self.whole_row(image, strength);
    }

    fn is_identity(&self, at: usize) -> bool {
        matches!(&self.known.identity, Identity::Index { index, .. } if *index == at)
    }

    /// Exclusive for the row that goes, shared for the one that comes: nobody can have seen that one yet, but whoever changes it
    /// next must be applied after us.
    fn row(&mut self, key: IndexKey, strength: Strength) {
        let value = match key {
            IndexKey::Hash(hash) => hash,
            IndexKey::None => 0,
        };
        // A new row nobody else can have locked.
        let guard = if strength == Strength::Exclusive || self.is_lock { self.held } else { Guard::Locked };
        self.push(self.known.key_of_row(value), strength, guard, ROW);
    }

    fn whole_row(&mut self, image: &[u8], strength: Strength) {
        if self.known.identity == Identity::WholeRow {
            self.row(IndexKey::Hash(bytes_hash(image)), strength);
        }
    }

    /// A value enters an index. The entry, while in progress, blocks others, unless it is checked only at the end. Of an index that is not valid there
    /// may be no entry yet, and nothing that is applied waits for one (docs/adr/0058-concurrently.md).
    fn gain(&mut self, at: usize, index: &Index, key: IndexKey) {
        let guard = if index.is_immediate && index.is_valid { Guard::Locked } else { Guard::Since((self.base)()) };
        self.unique(at, index, key, guard);
    }

    /// A value leaves an index. Where foreign keys point, nothing keeps a remote backend from inserting a child meanwhile; a
    /// child whose key can't be told says so by the key of our whole table.
    fn lose(&mut self, at: usize, index: &Index, key: IndexKey) {
        let is_guarded = index.is_immediate && index.is_valid && !index.is_referenced;
        let guard = if is_guarded { self.held } else { Guard::Since((self.base)()) };
        if index.is_referenced {
            self.push(self.known.relation_key, Strength::Shared, guard, RELATION);
        }
        self.unique(at, index, key, guard);
    }

    /// PostgreSQL locks a row against its children's key share while any value changes that foreign keys might point to, and not only
    /// those that do. Without a key for that, a child that is certified behind such an update would hold the lock that it needs.
    fn shut_out_children(&mut self, old: Row<'_>, new: Row<'_>) {
        let indexes = &self.known.table.indexes;
        if indexes.iter().any(|index| index.may_be_referenced() && !index.is_unchanged(old, new)) {
            for (at, index) in indexes.iter().enumerate().filter(|(_, index)| index.is_referenced) {
                if index.is_unchanged(old, new) {
                    self.unique(at, index, index.key(old), self.held);
                }
            }
        }
    }

    fn unique(&mut self, at: usize, index: &Index, key: IndexKey, guard: Guard) {
        if let IndexKey::Hash(hash) = key {
            let namespace = if index.is_exclusion { Namespace::Exclusion } else { Namespace::Unique };
            self.push(Key::new(namespace, index.key_name, hash), Strength::Exclusive, guard, Part::of_index(at));
        }
    }

    /// A child needs its parent to stay. Our key-share lock on the parent guards that.
    fn refer(&mut self, at: usize, foreign: &ForeignKey, new: Row<'_>) {
        let part = Part::of_foreign_key(self.known, at);
        let parent = relations::relation_key(foreign.parent_name);
        match foreign.key(new) {
            Ok(IndexKey::None) => {}
            Ok(IndexKey::Hash(hash)) => {
                self.push(parent, Strength::Shared, Guard::Locked, RELATION);
                self.push(relations::table_lock_key(foreign.parent_name), Strength::Shared, self.held, RELATION);
                self.push(Key::new(Namespace::Unique, foreign.key_name, hash), Strength::Shared, self.held, part);
            }
            Err(Coarse) => self.push(parent, Strength::Exclusive, Guard::Locked, RELATION),
        }
    }
}

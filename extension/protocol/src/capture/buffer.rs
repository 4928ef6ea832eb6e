//! What the current transaction has captured so far.
//!
//! Items are appended as they reach us, to a spill file of which the end is in memory; keys to a vector beside it. Three things
//! make it more than that:
//!
//! - **Order.** AFTER triggers of an outer statement fire after the statements nested in it, so items can arrive out of the
//!   order in which they were made. Each carries the command id that made it; [`super::order`] sorts runs of them when the
//!   body is read (docs/adr/0005).
//! - **Savepoints.** Each subtransaction that captured something has a mark; its abort truncates everything to that.
//! - **Bounds.** Memory holds [`MEMORY_BYTES`] of items, whatever a transaction changes. How much it may change is the caller's
//!   to say; the number of keys is bounded here.
//!
//! Nothing here knows PostgreSQL, and nothing allocates per row once the vectors have grown.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use gcs_writeset::body::{Index, PutItem};
use gcs_writeset::bounds::KEYS_MAX;
use gcs_writeset::{Key, KeyGroup, Position};

use super::body::Body;
pub use super::order::Command;
use super::order::Runs;
use super::spill::{Disk, Spill};

/// Items of a transaction that are kept in memory. More than that goes to disk.
const MEMORY_BYTES: usize = 4 << 20;

/// As much of the list of runs.
const RUN_BYTES: usize = 1 << 20;

/// Distinct bases of unguarded keys in one transaction; later ones share the last, which is older and so safe.
const BASES_MAX: usize = 1024;

/// Capacity kept from one transaction to the next.
const KEPT_BYTES_MAX: usize = 1 << 20;
const KEPT_KEYS_MAX: usize = 1 << 14;

/// What keeps others off a key until we commit (docs/certification.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// A lock of PostgreSQL that this transaction holds.
    Locked,
    /// The same, against all but those who only lock: what they do elsewhere takes no lock here. They may have committed after this
    /// position, at which we had ours.
    Held(Position),
    /// Nothing; whatever was ordered after `base` may conflict.
    Since(Position),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strength {
    Exclusive,
    Shared,
    /// Meets whoever holds the key, and is not held. Only with a base: nothing keeps others off what is only looked at.
    Checked,
}

/// Says of which relation and index a key is, for messages. Indexes `Buffer::sources`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(pub u32);

/// A relation as items refer to it. Indexes the definitions at the front of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition(pub u32);

/// There are more keys than a writeset may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyKeys;

/// A key, and where it came from.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub key: Key,
    /// Where the item that brought the key starts, among items as they arrived.
    pub item: u64,
    pub source: Source,
    class: u16,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    level: i32,
    items: u64,
    runs: u64,
    definitions: u32,
    definition_bytes: usize,
    entries: usize,
    rows: u64,
    statements: u64,
}

/// Keys are hashes already.
#[derive(Default)]
struct Through(u64);

impl Hasher for Through {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

const LOCKED_EXCLUSIVE: u16 = 0;
const LOCKED_SHARED: u16 = 1;
const FIRST_UNGUARDED: u16 = 2;
/// Classes of one base, in the order of a group's keys.
const STRENGTHS: u16 = 3;

pub struct Buffer<D> {
    items: Spill<D>,
    runs: Runs<D>,
    definitions: u32,
    definition_bytes: Vec<u8>,
    entries: Vec<Entry>,
    known: HashSet<u64, BuildHasherDefault<Through>>,
    bases: Vec<Position>,
    marks: Vec<Mark>,
    rows: u64,
    statements: u64,
}

/// A transaction's keys and items, ready for the envelope.
pub struct Taken<D> {
    pub has_statements: bool,
    pub exclusive: Vec<Key>,
    pub shared: Vec<Key>,
    pub unguarded: Vec<KeyGroup>,
    pub body: Body<D>,
    /// In index order: where each key came from.
    pub origins: Vec<Entry>,
    pub rows: u64,
}

impl<D: Disk> Default for Buffer<D> {
    fn default() -> Buffer<D> {
        Buffer::with_memory(MEMORY_BYTES, RUN_BYTES)
    }
}

impl<D: Disk> Buffer<D> {
    pub fn with_memory(item_bytes: usize, run_bytes: usize) -> Buffer<D> {
        Buffer {
            items: Spill::new(item_bytes),
            runs: Runs::new(run_bytes),
            definitions: 0,
            definition_bytes: Vec::new(),
            entries: Vec::new(),
            known: HashSet::default(),
            bases: Vec::new(),
            marks: Vec::new(),
            rows: 0,
            statements: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.entries.is_empty()
    }

    /// Bytes of items so far; also where the next one starts.
    pub fn item_bytes(&self) -> u64 {
        self.items.len()
    }

    pub fn bytes_on_disk(&self) -> u64 {
        self.items.on_disk()
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub fn key_count(&self) -> usize {
        self.entries.len()
    }

    /// Forgets everything, keeping a little capacity for the next transaction.
    pub fn clear(&mut self) {
        self.items.clear(KEPT_BYTES_MAX);
        self.runs.clear(KEPT_BYTES_MAX);
        self.definitions = 0;
        self.definition_bytes.clear();
        if self.entries.capacity() > KEPT_KEYS_MAX {
            self.entries = Vec::new();
        }
        self.entries.clear();
        if self.known.capacity() > KEPT_KEYS_MAX {
            self.known = HashSet::default();
        }
        self.known.clear();
        self.bases.clear();
        self.marks.clear();
        self.rows = 0;
        self.statements = 0;
    }

    /// To be called before anything is captured at subtransaction nesting `level` (1 is the transaction itself).
    pub fn enter(&mut self, level: i32) {
        if level > 1 && self.marks.last().is_none_or(|mark| mark.level < level) {
            self.marks.push(Mark {
                level,
                items: self.items.len(),
                runs: self.runs.count(),
                definitions: self.definitions,
                definition_bytes: self.definition_bytes.len(),
                entries: self.entries.len(),
                rows: self.rows,
                statements: self.statements,
            });
        }
    }

    /// The subtransaction at `level` was released: what it captured is its parent's.
    pub fn release(&mut self, level: i32) {
        if let Some(last) = self.marks.last_mut()
            && last.level >= level
        {
            let parent = level - 1;
            last.level = parent;
            let below = self.marks.len().checked_sub(2).map_or(1, |i| self.marks[i].level);
            if below >= parent {
                self.marks.pop();
            }
        }
    }

    /// The subtransaction at `level` was rolled back: what it captured never was.
    pub fn abort(&mut self, level: i32) {
        while let Some(mark) = self.marks.last().copied() {
            if mark.level < level {
                break;
            }
            self.marks.pop();
            self.items.truncate(mark.items);
            self.runs.truncate(mark.runs);
            self.definitions = mark.definitions;
            self.definition_bytes.truncate(mark.definition_bytes);
            self.rows = mark.rows;
            self.statements = mark.statements;
            for entry in self.entries.drain(mark.entries..) {
                self.known.remove(&fingerprint(entry.key, entry.class));
            }
        }
    }

    /// A relation whose images hold so many columns, and what is to be entered into these indexes.
    pub fn define(&mut self, schema: &str, name: &str, columns: u32, indexes: &[Index<'_>]) -> Definition {
        self.definition_bytes.put_relation_with(schema, name, columns, indexes);
        self.definitions += 1;
        Definition(self.definitions - 1)
    }

    /// Definitions at or above this were undone.
    pub fn definitions(&self) -> u32 {
        self.definitions
    }

    /// Appends one changed row; keys added just before belong to it.
    pub fn append(&mut self, command: Command, item: &[u8]) {
        self.put(command, item);
        self.rows += 1;
    }

    pub fn append_statement(&mut self, command: Command, item: &[u8]) {
        self.put(command, item);
        self.statements += 1;
    }

    /// Appends what is neither a row nor a statement, behind all that is there: when nothing more is captured.
    pub fn append_last(&mut self, item: &[u8]) {
        self.put(Command(u32::MAX), item);
    }

    fn put(&mut self, command: Command, item: &[u8]) {
        self.runs.note(command, self.items.len());
        self.items.append(item);
    }

    /// Adds a key of the item that starts at `item`, unless it is there.
    pub fn add_key(
        &mut self,
        key: Key,
        strength: Strength,
        guard: Guard,
        source: Source,
        item: u64,
    ) -> Result<(), TooManyKeys> {
        let class = self.class(strength, guard);
        if self.known.insert(fingerprint(key, class)) {
            if self.entries.len() >= KEYS_MAX {
                return Err(TooManyKeys);
            }
            self.entries.push(Entry { key, item, source, class });
        }
        Ok(())
    }

    /// Whether this key is there, exclusive and guarded.
    pub fn holds_exclusive(&self, key: Key) -> bool {
        self.known.contains(&fingerprint(key, LOCKED_EXCLUSIVE))
    }

    fn class(&mut self, strength: Strength, guard: Guard) -> u16 {
        let (Guard::Since(base) | Guard::Held(base)) = guard else {
            debug_assert!(strength != Strength::Checked, "a key that is checked has a base");
            return if strength == Strength::Exclusive { LOCKED_EXCLUSIVE } else { LOCKED_SHARED };
        };
        let index = match self.bases.iter().rposition(|&known| known == base) {
            Some(index) => index,
            None if self.bases.len() < BASES_MAX => {
                self.bases.push(base);
                self.bases.len() - 1
            }
            // Bases only grow, so the last known one is older than this.
            None => BASES_MAX - 1,
        };
        FIRST_UNGUARDED + STRENGTHS * index as u16 + strength as u16
    }

    /// Hands over what was captured and leaves the buffer empty.
    pub fn take(&mut self) -> Taken<D> {
        let known = std::mem::take(&mut self.known);
        let mut entries = std::mem::take(&mut self.entries);
        // Exclusive says all that shared says.
        entries.retain(|entry| entry.class != LOCKED_SHARED || !known.contains(&fingerprint(entry.key, LOCKED_EXCLUSIVE)));
        drop(known);
        // By class, and within it as they came: items only grow, and one item's keys are few.
        entries.sort_unstable_by_key(|entry| (entry.class, entry.item, entry.source.0, entry.key.0));
        let mut taken = Taken {
            has_statements: self.statements > 0,
            exclusive: Vec::new(),
            shared: Vec::new(),
            unguarded: self.bases.iter().map(|&base| KeyGroup { base, ..KeyGroup::default() }).collect(),
            body: Body::new(std::mem::take(&mut self.definition_bytes), self.items.take(), &self.runs),
            origins: Vec::new(),
            rows: self.rows,
        };
        for entries in entries.chunk_by(|a, b| a.class == b.class) {
            let keys = entries.iter().map(|entry| entry.key).collect();
            match entries[0].class {
                LOCKED_EXCLUSIVE => taken.exclusive = keys,
                LOCKED_SHARED => taken.shared = keys,
                class => {
                    let group = &mut taken.unguarded[((class - FIRST_UNGUARDED) / STRENGTHS) as usize];
                    *match (class - FIRST_UNGUARDED) % STRENGTHS {
                        0 => &mut group.exclusive,
                        1 => &mut group.shared,
                        _ => &mut group.checked,
                    } = keys;
                }
            }
        }
        taken.origins = entries;
        self.clear();
        taken
    }
}

fn fingerprint(key: Key, class: u16) -> u64 {
    key.0 ^ u64::from(class).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::super::spill::tests::Memory;
    use super::*;
    use gcs_writeset::Namespace;

    /// Nearly everything is on disk, so that every test meets it.
    fn small() -> Buffer<Memory> {
        Buffer::with_memory(2, 30)
    }

    fn items(taken: &mut Taken<Memory>) -> Vec<u8> {
        let mut out = Vec::new();
        // In pieces that fit nothing.
        while (out.len() as u64) < taken.body.length() {
            taken.body.read(&mut out, 3);
        }
        out.split_off(taken.body.definitions().len())
    }

    fn key(n: u64) -> Key {
        Key::new(Namespace::Row, n, n)
    }

    fn exclusive(buffer: &mut Buffer<Memory>, n: u64) {
        let item = buffer.item_bytes();
        buffer.add_key(key(n), Strength::Exclusive, Guard::Locked, Source(n as u32), item).unwrap();
    }

    #[test]
    fn items_that_arrive_in_order_stay_as_they_are() {
        let mut buffer = small();
        buffer.append(Command(1), b"a");
        buffer.append(Command(1), b"b");
        buffer.append(Command(2), b"c");
        assert_eq!(items(&mut buffer.take()), b"abc");
        assert!(buffer.is_empty());
    }

    #[test]
    fn items_of_nested_statements_go_behind_the_outer_one() {
        let mut buffer = small();
        for (command, item) in [(1, b"a"), (2, b"n"), (1, b"b"), (2, b"m"), (3, b"z")] {
            exclusive(&mut buffer, u64::from(item[0]));
            buffer.append(Command(command), item);
        }
        let mut taken = buffer.take();
        assert_eq!(items(&mut taken), b"abnmz");
        for origin in &taken.origins {
            assert_eq!(u32::from(taken.body.item(origin.item, 1)[0]), origin.source.0);
        }
    }

    #[test]
    fn what_is_appended_last_stands_behind_rows_of_any_command() {
        let mut buffer = small();
        for (command, item) in [(1, b"a"), (7, b"n"), (1, b"b")] {
            buffer.append(Command(command), item);
        }
        buffer.append_last(b"y");
        buffer.append_last(b"z");
        let mut taken = buffer.take();
        assert_eq!(items(&mut taken), b"abnyz");
        assert_eq!((taken.rows, taken.has_statements), (3, false));
    }

    #[test]
    fn a_rolled_back_savepoint_leaves_nothing_behind() {
        let mut buffer = small();
        exclusive(&mut buffer, 1);
        buffer.append(Command(1), b"a");
        buffer.enter(2);
        buffer.define("public", "t", 1, &[]);
        exclusive(&mut buffer, 2);
        buffer.append(Command(2), b"b");
        buffer.enter(3);
        exclusive(&mut buffer, 3);
        buffer.append(Command(3), b"c");
        buffer.release(3);
        buffer.abort(2);
        assert_eq!(buffer.definitions(), 0);
        exclusive(&mut buffer, 2);
        buffer.append(Command(4), b"d");
        let mut taken = buffer.take();
        assert_eq!(items(&mut taken), b"ad");
        assert_eq!(taken.rows, 2);
        assert_eq!(taken.exclusive, [key(1), key(2)]);
    }

    #[test]
    fn a_released_savepoint_is_undone_with_its_parent_and_only_with_it() {
        let mut buffer = small();
        buffer.enter(2);
        buffer.append(Command(1), b"a");
        buffer.release(2);
        buffer.enter(2);
        buffer.append(Command(2), b"b");
        buffer.abort(2);
        assert_eq!(items(&mut buffer.take()), b"a");

        buffer.enter(3);
        buffer.append(Command(1), b"a");
        buffer.release(3);
        buffer.abort(2);
        assert!(items(&mut buffer.take()).is_empty());
    }

    #[test]
    fn a_key_counts_once_and_exclusive_covers_shared() {
        let mut buffer = small();
        for _ in 0..2 {
            buffer.add_key(key(1), Strength::Shared, Guard::Locked, Source(0), 0).unwrap();
            buffer.add_key(key(2), Strength::Shared, Guard::Locked, Source(0), 0).unwrap();
            buffer.add_key(key(1), Strength::Exclusive, Guard::Locked, Source(0), 0).unwrap();
            buffer.add_key(key(3), Strength::Exclusive, Guard::Since(Position(7)), Source(9), 0).unwrap();
            buffer.add_key(key(4), Strength::Checked, Guard::Since(Position(7)), Source(8), 0).unwrap();
        }
        let taken = buffer.take();
        assert_eq!(taken.exclusive, [key(1)]);
        assert_eq!(taken.shared, [key(2)]);
        let group = KeyGroup { base: Position(7), exclusive: vec![key(3)], checked: vec![key(4)], ..KeyGroup::default() };
        assert_eq!(taken.unguarded, [group]);
        assert_eq!(taken.origins.iter().map(|origin| origin.source.0).collect::<Vec<_>>(), [0, 0, 9, 8]);
    }
}

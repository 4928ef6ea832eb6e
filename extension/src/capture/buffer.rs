//! What the current transaction has captured so far.
//!
//! Items are appended as they reach us, to one byte vector; keys to one vector beside it. Three things make it more than that:
//!
//! - **Order.** AFTER triggers of an outer statement fire after the statements nested in it, so items can arrive out of the
//!   order in which they were made. Each carries the command id that made it; runs of equal ids are remembered, and only
//!   if an id ever went down are the runs sorted by it when the body is taken (docs/adr/0005).
//! - **Savepoints.** Each subtransaction that captured something has a mark; its abort truncates everything to that.
//! - **Bounds.** The body and the number of keys are bounded; beyond either the transaction fails with 54000. A relation with
//!   very many keys gets one key for the whole relation instead.
//!
//! Nothing here knows PostgreSQL, and nothing allocates per row once the vectors have grown.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use gcs_writeset::body::PutItem;
use gcs_writeset::bounds::KEYS_MAX;
use gcs_writeset::{Key, KeyGroup, Position};

/// Bytes of items one transaction may capture.
pub const BODY_BYTES_MAX: usize = 1 << 30;

/// Distinct bases of unguarded keys in one transaction; later ones share the last, which is older and so safe.
const BASES_MAX: usize = 1024;

/// Capacity kept from one transaction to the next.
const KEPT_BYTES_MAX: usize = 1 << 20;
const KEPT_KEYS_MAX: usize = 1 << 14;

/// A command id: statements of one transaction count up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Command(pub u32);

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
}

/// Says of which relation and index a key is, for messages. Indexes `Buffer::sources`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(pub u32);

/// A relation as items refer to it. Indexes the definitions at the front of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition(pub u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Body,
    Keys,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    start: usize,
    command: Command,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Key,
    class: u16,
    source: Source,
    /// Where the item that brought the key starts.
    item: u32,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    level: i32,
    body: usize,
    runs: usize,
    definitions: usize,
    definition_bytes: usize,
    entries: usize,
    statements: usize,
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

#[derive(Default)]
pub struct Buffer {
    body: Vec<u8>,
    runs: Vec<Run>,
    disorder: bool,
    definitions: u32,
    definition_bytes: Vec<u8>,
    entries: Vec<Entry>,
    known: HashSet<u64, BuildHasherDefault<Through>>,
    bases: Vec<Position>,
    marks: Vec<Mark>,
    statements: usize,
}

/// A transaction's keys and items, ready for the envelope.
#[derive(Debug, Default)]
pub struct Taken {
    pub has_statements: bool,
    pub exclusive: Vec<Key>,
    pub shared: Vec<Key>,
    pub unguarded: Vec<KeyGroup>,
    pub body: Vec<u8>,
    /// In index order: where each key came from.
    pub origins: Vec<Origin>,
    /// The items as they arrived; `Origin::item` points into it.
    pub definitions: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub source: Source,
    /// Offset of the item in `Taken::body`.
    pub item: usize,
}

impl Buffer {
    pub fn is_empty(&self) -> bool {
        self.body.is_empty() && self.entries.is_empty()
    }

    pub fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// Forgets everything, keeping a little capacity for the next transaction.
    pub fn clear(&mut self) {
        let body = std::mem::take(&mut self.body);
        let entries = std::mem::take(&mut self.entries);
        let known = std::mem::take(&mut self.known);
        *self = Buffer {
            body: if body.capacity() <= KEPT_BYTES_MAX { body } else { Vec::new() },
            entries: if entries.capacity() <= KEPT_KEYS_MAX { entries } else { Vec::new() },
            known: if known.capacity() <= KEPT_KEYS_MAX { known } else { HashSet::default() },
            runs: std::mem::take(&mut self.runs),
            marks: std::mem::take(&mut self.marks),
            definition_bytes: std::mem::take(&mut self.definition_bytes),
            ..Buffer::default()
        };
        self.body.clear();
        self.entries.clear();
        self.known.clear();
        self.runs.clear();
        self.marks.clear();
        self.definition_bytes.clear();
    }

    /// To be called before anything is captured at subtransaction nesting `level` (1 is the transaction itself).
    pub fn enter(&mut self, level: i32) {
        if level > 1 && self.marks.last().is_none_or(|mark| mark.level < level) {
            self.marks.push(Mark {
                level,
                body: self.body.len(),
                runs: self.runs.len(),
                definitions: self.definitions as usize,
                definition_bytes: self.definition_bytes.len(),
                entries: self.entries.len(),
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
            self.body.truncate(mark.body);
            self.runs.truncate(mark.runs);
            self.definitions = mark.definitions as u32;
            self.definition_bytes.truncate(mark.definition_bytes);
            self.statements = mark.statements;
            for entry in self.entries.drain(mark.entries..) {
                self.known.remove(&fingerprint(entry.key, entry.class));
            }
        }
    }

    pub fn define(&mut self, schema: &str, name: &str, columns: u32) -> Definition {
        self.definition_bytes.put_relation(schema, name, columns);
        self.definitions += 1;
        Definition(self.definitions - 1)
    }

    /// Definitions at or above this were undone.
    pub fn definitions(&self) -> u32 {
        self.definitions
    }

    /// Appends one item; keys that follow belong to it.
    pub fn append(&mut self, command: Command, item: &[u8]) -> Result<(), Full> {
        if self.body.len() + item.len() > BODY_BYTES_MAX {
            return Err(Full::Body);
        }
        match self.runs.last() {
            Some(run) if run.command == command => {}
            last => {
                self.disorder |= last.is_some_and(|run| command < run.command);
                self.runs.push(Run { start: self.body.len(), command });
            }
        }
        self.body.extend_from_slice(item);
        Ok(())
    }

    pub fn append_statement(&mut self, command: Command, item: &[u8]) -> Result<(), Full> {
        self.append(command, item)?;
        self.statements += 1;
        Ok(())
    }

    /// Adds a key of the item that starts at `item`, unless it is there.
    pub fn add_key(&mut self, key: Key, strength: Strength, guard: Guard, source: Source, item: usize) -> Result<(), Full> {
        let class = self.class(strength, guard);
        if self.known.insert(fingerprint(key, class)) {
            if self.entries.len() >= KEYS_MAX {
                return Err(Full::Keys);
            }
            self.entries.push(Entry { key, class, source, item: item as u32 });
        }
        Ok(())
    }

    /// Whether this key is there, exclusive and guarded.
    pub fn holds_exclusive(&self, key: Key) -> bool {
        self.known.contains(&fingerprint(key, LOCKED_EXCLUSIVE))
    }

    fn class(&mut self, strength: Strength, guard: Guard) -> u16 {
        let (Guard::Since(base) | Guard::Held(base)) = guard else {
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
        FIRST_UNGUARDED + 2 * index as u16 + u16::from(strength == Strength::Shared)
    }

    /// Hands over what was captured, in the order of execution, and leaves the buffer empty.
    pub fn take(&mut self) -> Taken {
        let places = self.sort();
        let mut taken = Taken { has_statements: self.statements > 0, ..Taken::default() };
        taken.unguarded = self.bases.iter().map(|&base| KeyGroup { base, ..KeyGroup::default() }).collect();
        let exclusive: HashSet<u64, BuildHasherDefault<Through>> =
            self.entries.iter().filter(|e| e.class == LOCKED_EXCLUSIVE).map(|e| e.key.0).collect();
        let classes = FIRST_UNGUARDED as usize + 2 * self.bases.len();
        let mut by_class: Vec<Vec<Entry>> = vec![Vec::new(); classes];
        for entry in self.entries.drain(..) {
            // Exclusive says all that shared says.
            if entry.class == LOCKED_SHARED && exclusive.contains(&entry.key.0) {
                continue;
            }
            by_class[entry.class as usize].push(entry);
        }
        for (class, entries) in by_class.into_iter().enumerate() {
            taken.origins.extend(
                entries
                    .iter()
                    .map(|e| Origin { source: e.source, item: places.place(e.item as usize, self.definition_bytes.len()) }),
            );
            let keys = entries.iter().map(|e| e.key).collect();
            match class as u16 {
                LOCKED_EXCLUSIVE => taken.exclusive = keys,
                LOCKED_SHARED => taken.shared = keys,
                class => {
                    let group = &mut taken.unguarded[((class - FIRST_UNGUARDED) / 2) as usize];
                    *(if class.is_multiple_of(2) { &mut group.exclusive } else { &mut group.shared }) = keys;
                }
            }
        }
        taken.definitions = self.definition_bytes.clone();
        taken.body = Vec::with_capacity(self.definition_bytes.len() + self.body.len());
        taken.body.extend_from_slice(&self.definition_bytes);
        if self.disorder {
            for piece in &places.pieces {
                taken.body.extend_from_slice(&self.body[piece.from..piece.from + piece.len]);
            }
        } else {
            taken.body.extend_from_slice(&self.body);
        }
        self.clear();
        taken
    }

    /// The runs in the order of their commands; runs of one command stay as they came.
    fn sort(&self) -> Places {
        if !self.disorder {
            return Places::default();
        }
        let ends = self.runs.iter().skip(1).map(|run| run.start).chain([self.body.len()]);
        let mut runs: Vec<(Command, Piece)> = self
            .runs
            .iter()
            .zip(ends)
            .map(|(run, end)| (run.command, Piece { from: run.start, len: end - run.start, to: 0 }))
            .collect();
        runs.sort_by_key(|&(command, piece)| (command, piece.from));
        let mut to = 0;
        let mut pieces: Vec<Piece> = runs.into_iter().map(|(_, piece)| piece).collect();
        for piece in &mut pieces {
            piece.to = to;
            to += piece.len;
        }
        let mut by_origin = pieces.clone();
        by_origin.sort_by_key(|piece| piece.from);
        Places { pieces, by_origin }
    }
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    from: usize,
    len: usize,
    to: usize,
}

#[derive(Default)]
struct Places {
    pieces: Vec<Piece>,
    by_origin: Vec<Piece>,
}

impl Places {
    /// Where the item that arrived at `offset` stands in a body that starts with `before` bytes of definitions.
    fn place(&self, offset: usize, before: usize) -> usize {
        let at = self.by_origin.partition_point(|piece| piece.from <= offset);
        match at.checked_sub(1).map(|i| self.by_origin[i]) {
            Some(piece) => before + piece.to + (offset - piece.from),
            None => before + offset,
        }
    }
}

fn fingerprint(key: Key, class: u16) -> u64 {
    key.0 ^ u64::from(class).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gcs_writeset::Namespace;

    fn key(n: u64) -> Key {
        Key::new(Namespace::Row, n, n)
    }

    fn exclusive(buffer: &mut Buffer, n: u64) {
        let item = buffer.body_bytes();
        buffer.add_key(key(n), Strength::Exclusive, Guard::Locked, Source(n as u32), item).unwrap();
    }

    #[test]
    fn items_that_arrive_in_order_stay_as_they_are() {
        let mut buffer = Buffer::default();
        buffer.append(Command(1), b"a").unwrap();
        buffer.append(Command(1), b"b").unwrap();
        buffer.append(Command(2), b"c").unwrap();
        assert_eq!(buffer.take().body, b"abc");
        assert!(buffer.is_empty());
    }

    #[test]
    fn items_of_nested_statements_go_behind_the_outer_one() {
        let mut buffer = Buffer::default();
        for (command, item) in [(1, b"a"), (2, b"n"), (1, b"b"), (2, b"m"), (3, b"z")] {
            exclusive(&mut buffer, u64::from(item[0]));
            buffer.append(Command(command), item).unwrap();
        }
        let taken = buffer.take();
        assert_eq!(taken.body, b"abnmz");
        for origin in &taken.origins {
            assert_eq!(u32::from(taken.body[origin.item]), origin.source.0);
        }
    }

    #[test]
    fn a_rolled_back_savepoint_leaves_nothing_behind() {
        let mut buffer = Buffer::default();
        exclusive(&mut buffer, 1);
        buffer.append(Command(1), b"a").unwrap();
        buffer.enter(2);
        buffer.define("public", "t", 1);
        exclusive(&mut buffer, 2);
        buffer.append(Command(2), b"b").unwrap();
        buffer.enter(3);
        exclusive(&mut buffer, 3);
        buffer.append(Command(3), b"c").unwrap();
        buffer.release(3);
        buffer.abort(2);
        assert_eq!(buffer.definitions(), 0);
        exclusive(&mut buffer, 2);
        buffer.append(Command(4), b"d").unwrap();
        let taken = buffer.take();
        assert_eq!(taken.body, b"ad");
        assert_eq!(taken.exclusive, [key(1), key(2)]);
    }

    #[test]
    fn a_released_savepoint_is_undone_with_its_parent_and_only_with_it() {
        let mut buffer = Buffer::default();
        buffer.enter(2);
        buffer.append(Command(1), b"a").unwrap();
        buffer.release(2);
        buffer.enter(2);
        buffer.append(Command(2), b"b").unwrap();
        buffer.abort(2);
        assert_eq!(buffer.take().body, b"a");

        buffer.enter(3);
        buffer.append(Command(1), b"a").unwrap();
        buffer.release(3);
        buffer.abort(2);
        assert!(buffer.take().body.is_empty());
    }

    #[test]
    fn a_key_counts_once_and_exclusive_covers_shared() {
        let mut buffer = Buffer::default();
        for _ in 0..2 {
            buffer.add_key(key(1), Strength::Shared, Guard::Locked, Source(0), 0).unwrap();
            buffer.add_key(key(2), Strength::Shared, Guard::Locked, Source(0), 0).unwrap();
            buffer.add_key(key(1), Strength::Exclusive, Guard::Locked, Source(0), 0).unwrap();
            buffer.add_key(key(3), Strength::Exclusive, Guard::Since(Position(7)), Source(9), 0).unwrap();
        }
        let taken = buffer.take();
        assert_eq!(taken.exclusive, [key(1)]);
        assert_eq!(taken.shared, [key(2)]);
        assert_eq!(taken.unguarded, [KeyGroup { base: Position(7), exclusive: vec![key(3)], ..KeyGroup::default() }]);
        assert_eq!(taken.origins.last().unwrap().source, Source(9));
    }
}

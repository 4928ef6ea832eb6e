//! Rows, what transactions do to them, and the keys that stand for it.
//!
//! A row is a list of the transactions that appended to it, so that a lost update leaves a hole. Rows from [`CHILDREN`] on
//! refer to a parent among the others, as a foreign key would. Rows from [`THINGS`] on are no rows: they stand for what a transaction locks
//! and has no key for, such as a page of an index, so that two writesets can meet in locks and not in keys.

use std::collections::BTreeMap;
use std::rc::Rc;

use gcs_writeset::wire::{Put, Reader, WireError};
use gcs_writeset::{Key, Namespace, Position};

/// A client's transaction, ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TxnId(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row(pub u32);

/// `None`: there is no such row.
pub type Value = Option<Rc<Vec<TxnId>>>;

/// Children of parent `p` have numbers from `(p + 1) * CHILDREN`.
const CHILDREN: u32 = 100_000;

const THINGS: u32 = 50_000;

impl Row {
    pub fn child(self, txn: TxnId) -> Row {
        Row((self.0 + 1) * CHILDREN + (txn.0 as u32 % CHILDREN))
    }

    /// One of a few things without a key.
    pub fn thing(number: u32) -> Row {
        Row(THINGS + number)
    }

    pub fn parent(self) -> Option<Row> {
        (self.0 / CHILDREN).checked_sub(1).map(Row)
    }

    pub fn key(self) -> Key {
        Key::new(Namespace::Row, 1, u64::from(self.0))
    }

    /// Stands for all rows that refer to this one, as a key of a relation does for its rows.
    pub fn children_key(self) -> Key {
        Key::new(Namespace::Relation, 1, u64::from(self.0))
    }

    pub fn unique_key(self) -> Key {
        Key::new(Namespace::Unique, 1, u64::from(self.0))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Insert,
    Append,
    Delete,
}

/// A new version of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub row: Row,
    pub kind: ChangeKind,
    /// The version that it replaces.
    pub seen: Position,
    pub value: Value,
}

impl Change {
    /// How many more children it gives this parent.
    fn more_children(&self, parent: Row) -> isize {
        match self.kind {
            ChangeKind::Insert if self.row.parent() == Some(parent) => 1,
            ChangeKind::Delete if self.row.parent() == Some(parent) => -1,
            _ => 0,
        }
    }
}

/// What a transaction did, as others apply it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    pub txn: TxnId,
    pub changes: Vec<Change>,
    /// Reads that must still hold where the transaction is ordered, and the versions they saw.
    pub reads: Vec<(Row, Position)>,
    /// The same for how many rows refer to a parent.
    pub counts: Vec<(Row, usize)>,
    /// What is locked without a key.
    pub things: Vec<Row>,
    /// Parents to all of whose children it does something, by a statement that others run, too, and how many children that found.
    pub sweeps: Vec<(Row, usize)>,
}

impl Body {
    /// A parent whose children a statement, run again, would not find as it did first: in this table, after what these did in the same transaction.
    pub fn misfit(&self, table: &Table, before: &[Body]) -> Option<Row> {
        let is_another = |(parent, found): &&(Row, usize)| {
            let are = table.children(*parent, Position(u64::MAX)).len() as isize;
            let more: isize = before.iter().flat_map(|body| &body.changes).map(|change| change.more_children(*parent)).sum();
            are + more != *found as isize
        };
        self.sweeps.iter().find(is_another).map(|(parent, _)| *parent)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u64(self.txn.0);
        out.put_varint(self.changes.len() as u64);
        for change in &self.changes {
            out.put_u32(change.row.0);
            out.put_u8(change.kind as u8);
            out.put_u64(change.seen.0);
            out.put_varint(change.value.as_ref().map_or(0, |value| value.len() as u64 + 1));
            for txn in change.value.iter().flat_map(|value| value.iter()) {
                out.put_u64(txn.0);
            }
        }
        out.put_varint(self.reads.len() as u64);
        for (row, seen) in &self.reads {
            out.put_u32(row.0);
            out.put_u64(seen.0);
        }
        out.put_varint(self.counts.len() as u64);
        for (row, seen) in &self.counts {
            out.put_u32(row.0);
            out.put_varint(*seen as u64);
        }
        out.put_varint(self.things.len() as u64);
        self.things.iter().for_each(|thing| out.put_u32(thing.0));
        // Few have any.
        for (parent, found) in &self.sweeps {
            out.put_u32(parent.0);
            out.put_varint(*found as u64);
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Body, WireError> {
        let mut reader = Reader::new(bytes);
        let txn = TxnId(reader.u64()?);
        let mut changes = Vec::new();
        for _ in 0..reader.varint()? {
            let row = Row(reader.u32()?);
            let kind = match reader.u8()? {
                0 => ChangeKind::Insert,
                1 => ChangeKind::Append,
                _ => ChangeKind::Delete,
            };
            let seen = Position(reader.u64()?);
            let length = reader.varint()?;
            let txns: Result<Vec<TxnId>, WireError> = (1..length).map(|_| Ok(TxnId(reader.u64()?))).collect();
            let value = if length == 0 { None } else { Some(Rc::new(txns?)) };
            changes.push(Change { row, kind, seen, value });
        }
        let mut reads = Vec::new();
        for _ in 0..reader.varint()? {
            reads.push((Row(reader.u32()?), Position(reader.u64()?)));
        }
        let mut counts = Vec::new();
        for _ in 0..reader.varint()? {
            counts.push((Row(reader.u32()?), reader.varint()? as usize));
        }
        let mut things = Vec::new();
        for _ in 0..reader.varint()? {
            things.push(Row(reader.u32()?));
        }
        let mut sweeps = Vec::new();
        while !reader.is_empty() {
            sweeps.push((Row(reader.u32()?), reader.varint()? as usize));
        }
        reader.finish("body of a simulated writeset")?;
        Ok(Body { txn, changes, reads, counts, things, sweeps })
    }
}

#[derive(Clone, Debug)]
struct Version {
    position: Position,
    value: Value,
}

/// All versions of all rows.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: BTreeMap<Row, Vec<Version>>,
}

impl Table {
    /// Every other row exists from the beginning, empty.
    pub fn new(rows: u32) -> Table {
        let empty = Version { position: Position::ZERO, value: Some(Rc::new(Vec::new())) };
        let exists = (0..rows).step_by(2).map(|row| (Row(row), vec![empty.clone()]));
        Table { rows: exists.collect() }
    }

    /// The newest version that a snapshot sees.
    pub fn read(&self, row: Row, snapshot: Position) -> (Position, Value) {
        let versions = self.rows.get(&row).map_or(&[][..], Vec::as_slice);
        let seen = versions.iter().rev().find(|version| version.position <= snapshot);
        seen.map_or((Position::ZERO, None), |version| (version.position, version.value.clone()))
    }

    /// As of the last commit record, whether snapshots see it or not.
    pub fn latest(&self, row: Row) -> (Position, Value) {
        self.read(row, Position(u64::MAX))
    }

    pub fn children(&self, parent: Row, snapshot: Position) -> Vec<Row> {
        if parent.parent().is_some() {
            return Vec::new();
        }
        let range = Row((parent.0 + 1) * CHILDREN)..Row((parent.0 + 2) * CHILDREN);
        let rows = self.rows.range(range).map(|(row, _)| *row);
        rows.filter(|row| self.read(*row, snapshot).1.is_some()).collect()
    }

    pub fn write(&mut self, position: Position, changes: &[Change]) {
        for change in changes {
            let versions = self.rows.entry(change.row).or_default();
            versions.push(Version { position, value: change.value.clone() });
        }
    }

    /// A crash lost what was written after this position.
    pub fn lose_after(&mut self, position: Position) {
        for versions in self.rows.values_mut() {
            versions.retain(|version| version.position <= position);
        }
    }

    pub fn snapshot(&self, at: Position) -> Vec<(Row, Value)> {
        let rows = self.rows.keys().map(|row| (*row, self.read(*row, at).1));
        rows.filter(|(_, value)| value.is_some()).collect()
    }
}

//! A client's transaction: what it has read and changed so far, and the writeset that comes of it.

use std::collections::{BTreeMap, VecDeque};

use gcs_writeset::{KeyGroup, Position};

use crate::rng::Rng;
use crate::sim::postgres::{Body, Change, ChangeKind, Mistake, Row, TxnId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    ReadCommitted,
    RepeatableRead,
    /// What it reads must still hold where it is ordered.
    Serializable,
}

#[derive(Clone, Copy, Debug)]
pub enum Op {
    Read(Row),
    /// Reads how many rows refer to this one.
    Count(Row),
    Append(Row),
    Insert(Row),
    Delete(Row),
    /// Inserts a row that refers to this one.
    Refer(Row),
    /// Deletes the rows that refer to this one.
    Unrefer(Row),
    /// Locks what has no key.
    Touch(Row),
    /// Does something to all rows that refer to this one, by a statement that others are to run, too.
    Sweep(Row),
}

impl Op {
    pub fn random(rng: &mut Rng, rows: u32, things: u32, isolation: Isolation) -> Op {
        let row = Row(rng.below(u64::from(rows)) as u32);
        if things > 0 && rng.permille(150) {
            return Op::Touch(Row::thing(rng.below(u64::from(things)) as u32));
        }
        let reads = if isolation == Isolation::Serializable { 45 } else { 0 };
        match rng.below(100 + reads) {
            0..54 => Op::Append(row),
            54..66 => Op::Insert(row),
            66..80 => Op::Delete(row),
            80..91 => Op::Refer(row),
            91..100 => Op::Unrefer(row),
            100..125 => Op::Read(row),
            _ => Op::Count(row),
        }
    }

    /// What makes transactions meet that are applied ahead: a statement that others run, too, and something that many lock.
    pub fn more(rng: &mut Rng, rows: u32, things: u32) -> impl Iterator<Item = Op> {
        let sweep = rng.permille(150).then(|| Op::Sweep(Row(rng.below(u64::from(rows)) as u32)));
        let touch = (things > 0 && rng.permille(500)).then(|| Op::Touch(Row::thing(0)));
        sweep.into_iter().chain(touch)
    }

    pub fn writes(self) -> bool {
        !matches!(self, Op::Read(_) | Op::Count(_))
    }
}

#[derive(Debug)]
pub struct Txn {
    pub id: TxnId,
    pub isolation: Isolation,
    pub snapshot: Position,
    /// The committed position before the transaction's snapshot was taken.
    pub oldest_base: Position,
    pub ops: VecDeque<Op>,
    pub changes: BTreeMap<Row, Change>,
    /// What a SERIALIZABLE transaction read: the versions of rows, and how many rows referred to a parent.
    pub reads: BTreeMap<Row, Position>,
    pub counts: BTreeMap<Row, usize>,
    /// Parents of rows inserted.
    pub referred: Vec<Row>,
    /// Rows deleted, and the committed position before the statement that deleted them.
    pub deleted: Vec<(Row, Position)>,
    /// What it locked without a key.
    pub things: Vec<Row>,
    /// Parents to whose children it did something, how many these were, and the committed position before that.
    pub sweeps: Vec<(Row, usize, Position)>,
    /// It has asked the group.
    pub is_sent: bool,
}

impl Txn {
    pub fn new(id: TxnId, isolation: Isolation, snapshot: Position, committed: Position, ops: VecDeque<Op>) -> Txn {
        Txn {
            id,
            isolation,
            snapshot,
            oldest_base: committed,
            ops,
            changes: BTreeMap::new(),
            reads: BTreeMap::new(),
            counts: BTreeMap::new(),
            referred: Vec::new(),
            deleted: Vec::new(),
            things: Vec::new(),
            sweeps: Vec::new(),
            is_sent: false,
        }
    }

    pub fn changes(&self) -> Vec<Change> {
        self.changes.values().cloned().collect()
    }

    pub fn body(&self) -> Body {
        let reads = self.reads.iter().map(|(row, seen)| (*row, *seen)).collect();
        let counts = self.counts.iter().map(|(row, seen)| (*row, *seen)).collect();
        let sweeps = self.sweeps.iter().map(|(parent, found, _)| (*parent, *found)).collect();
        Body { txn: self.id, changes: self.changes(), reads, counts, things: self.things.clone(), sweeps }
    }

    /// Keys by their bases: guarded ones go with the committed position at submit.
    pub fn groups(&self, base: Position, mistake: Option<Mistake>) -> Vec<KeyGroup> {
        let mut guarded = KeyGroup { base, ..KeyGroup::default() };
        for change in self.changes.values() {
            guarded.shared.extend(change.row.parent().map(Row::children_key));
            match change.kind {
                ChangeKind::Append | ChangeKind::Delete => guarded.exclusive.push(change.row.key()),
                // The row's own key, too: whoever changes the row next has to wait for it, and has no other key in common.
                ChangeKind::Insert => {
                    guarded.exclusive.push(change.row.unique_key());
                    guarded.shared.push(change.row.key());
                }
            }
        }
        guarded.shared.extend(self.referred.iter().map(|parent| parent.unique_key()));
        let mut groups = vec![guarded];
        for (row, base) in &self.deleted {
            groups.push(KeyGroup { base: *base, exclusive: vec![row.unique_key()], ..KeyGroup::default() });
        }
        for (parent, _, base) in &self.sweeps {
            groups.push(KeyGroup { base: *base, exclusive: vec![parent.children_key()], ..KeyGroup::default() });
        }
        let rows = self.reads.keys().flat_map(|row| [row.key(), row.unique_key()]);
        let checked = rows.chain(self.counts.keys().map(|row| row.children_key())).collect();
        match mistake {
            None => groups.push(KeyGroup { base: self.oldest_base, checked, ..KeyGroup::default() }),
            Some(Mistake::ReadBaseAtSubmit) => groups.push(KeyGroup { base, checked, ..KeyGroup::default() }),
            Some(Mistake::ReadsNotChecked) => {}
        }
        groups
    }
}

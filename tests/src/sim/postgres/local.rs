//! Clients and their transactions, from BEGIN to the answer to COMMIT.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use gcs_core::Local;
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{KeyGroup, Position, Sequence, SlotId, Tag};

use super::locks::{LockMode, Owner};
use super::model::{Body, Change, ChangeKind, Row, TxnId};
use super::{Ctx, Known, Mistake, Payload, PgEvent, Postgres};
use crate::sim::fact::Fact;
use crate::sim::time::{Span, ms, us};

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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Isolation {
    ReadCommitted,
    RepeatableRead,
    /// What it reads must still hold where it is ordered.
    Serializable,
}

#[derive(Debug)]
pub enum Stage {
    Open,
    /// Waits for a row lock; who began to wait first gets it first.
    Waiting {
        turn: u64,
        row: Row,
        mode: LockMode,
    },
    /// Its chunks are being ordered.
    Sending {
        unordered: Vec<u32>,
    },
    Sent,
    Certified(Position),
}

#[derive(Debug)]
pub struct Txn {
    pub id: TxnId,
    pub sequence: Sequence,
    isolation: Isolation,
    snapshot: Position,
    /// The committed position before the transaction's snapshot was taken.
    pub oldest_base: Position,
    ops: VecDeque<Op>,
    pub stage: Stage,
    changes: BTreeMap<Row, Change>,
    /// What a SERIALIZABLE transaction read: the versions of rows, and how many rows referred to a parent.
    reads: BTreeMap<Row, Position>,
    counts: BTreeMap<Row, usize>,
    /// Parents of rows inserted.
    referred: Vec<Row>,
    /// Rows deleted, and the committed position before the statement that deleted them.
    deleted: Vec<(Row, Position)>,
    pub body: Rc<Body>,
    payload: Payload,
    /// Whether it may have been sent by an earlier life of the daemon.
    resubmitted: bool,
}

/// How a client's statement went.
enum Step {
    Done,
    Wait(Row, LockMode),
    Fail(&'static str),
}

impl Postgres {
    /// A client's next move: begin, a statement, or commit.
    pub(super) fn client(&mut self, ctx: &mut Ctx<'_>, slot: SlotId) {
        if !self.txns.contains_key(&slot) {
            return self.begin(ctx, slot);
        }
        let Some(txn) = self.txns.get_mut(&slot).filter(|txn| matches!(txn.stage, Stage::Open)) else { return };
        match txn.ops.front().copied() {
            Some(op) => self.statement(ctx, slot, op),
            None => self.commit(ctx, slot),
        }
    }

    fn begin(&mut self, ctx: &mut Ctx<'_>, slot: SlotId) {
        if !self.serving || self.quiet {
            return self.later(ctx, ms(50), slot);
        }
        if !self.quorum || !self.attached {
            ctx.fact(Fact::RefusedWrite { node: self.n });
            return self.within(ctx, ms(50), ms(200), slot);
        }
        *ctx.txns += 1;
        let sequence = self.sequences.entry(slot).or_default();
        sequence.0 += 1;
        let isolation = match ctx.rng.below(100) {
            0..35 => Isolation::Serializable,
            35..60 => Isolation::RepeatableRead,
            _ => Isolation::ReadCommitted,
        };
        let ops = (0..ctx.rng.between(1, 4)).map(|_| random_op(ctx, self.rows, isolation)).collect();
        let id = TxnId(*ctx.txns);
        let txn = Txn {
            id,
            sequence: *sequence,
            isolation,
            snapshot: self.visible,
            oldest_base: self.committed,
            ops,
            stage: Stage::Open,
            changes: BTreeMap::new(),
            reads: BTreeMap::new(),
            counts: BTreeMap::new(),
            referred: Vec::new(),
            deleted: Vec::new(),
            body: Rc::new(Body { txn: id, changes: Vec::new(), reads: Vec::new(), counts: Vec::new() }),
            payload: Payload::default(),
            resubmitted: false,
        };
        self.txns.insert(slot, txn);
        self.within(ctx, us(100), us(3_000), slot);
    }

    fn statement(&mut self, ctx: &mut Ctx<'_>, slot: SlotId, op: Op) {
        let step = match op {
            Op::Read(row) => self.read(slot, row),
            Op::Count(row) => self.count(slot, row),
            Op::Append(row) => self.change(slot, row, ChangeKind::Append),
            Op::Insert(row) => self.change(slot, row, ChangeKind::Insert),
            Op::Delete(row) => self.change(slot, row, ChangeKind::Delete),
            Op::Refer(row) => self.refer(slot, row),
            Op::Unrefer(row) => self.unrefer(slot, row),
        };
        let Some(txn) = self.txns.get_mut(&slot) else { return };
        match step {
            Step::Done => {
                txn.ops.pop_front();
                self.within(ctx, us(100), us(4_000), slot);
            }
            Step::Wait(row, mode) => {
                self.waits += 1;
                txn.stage = Stage::Waiting { turn: self.waits, row, mode };
                let sequence = txn.sequence;
                ctx.later(ms(300), PgEvent::LockTimeout(slot, sequence));
            }
            Step::Fail(why) => self.fail(ctx, slot, why),
        }
    }

    fn read(&mut self, slot: SlotId, row: Row) -> Step {
        if let Some(txn) = self.serializable(slot) {
            let snapshot = txn.snapshot;
            let (seen, _) = self.table.read(row, snapshot);
            self.serializable(slot).map(|txn| *txn.reads.entry(row).or_insert(seen));
        }
        Step::Done
    }

    fn count(&mut self, slot: SlotId, parent: Row) -> Step {
        if let Some(txn) = self.serializable(slot) {
            let snapshot = txn.snapshot;
            let seen = self.table.children(parent, snapshot).len();
            self.serializable(slot).map(|txn| *txn.counts.entry(parent).or_insert(seen));
        }
        Step::Done
    }

    fn serializable(&mut self, slot: SlotId) -> Option<&mut Txn> {
        self.txns.get_mut(&slot).filter(|txn| txn.isolation == Isolation::Serializable)
    }

    fn change(&mut self, slot: SlotId, row: Row, kind: ChangeKind) -> Step {
        let me = Owner::Local(slot);
        let mode = LockMode::of(kind);
        if !self.locks.blockers(row, mode, me).is_empty() {
            return Step::Wait(row, mode);
        }
        let Some(txn) = self.txns.get_mut(&slot) else { return Step::Done };
        if txn.changes.contains_key(&row) || txn.referred.contains(&row) {
            return Step::Done;
        }
        self.locks.take(row, mode, me);
        let (seen, old) = self.table.latest(row);
        if txn.isolation != Isolation::ReadCommitted && seen > txn.snapshot {
            return Step::Fail("could not serialize access due to concurrent update");
        }
        let value = match (kind, old) {
            (ChangeKind::Insert, None) => Some(Rc::new(vec![txn.id])),
            (ChangeKind::Insert, Some(_)) => return Step::Fail("duplicate key"),
            (_, None) => return Step::Done,
            (ChangeKind::Append, Some(old)) => {
                let mut list = old.as_ref().clone();
                list.push(txn.id);
                Some(Rc::new(list))
            }
            (ChangeKind::Delete, Some(_)) => {
                // Read before the check for children takes its snapshot: remote backends insert children without a lock
                // on their parent.
                let base = self.committed;
                if !self.table.children(row, self.visible).is_empty() {
                    return Step::Fail("still referenced");
                }
                txn.deleted.push((row, base));
                None
            }
        };
        txn.changes.insert(row, Change { row, kind, seen, value });
        Step::Done
    }

    fn refer(&mut self, slot: SlotId, parent: Row) -> Step {
        let me = Owner::Local(slot);
        if !self.locks.blockers(parent, LockMode::KeyShare, me).is_empty() {
            return Step::Wait(parent, LockMode::KeyShare);
        }
        let Some(txn) = self.txns.get_mut(&slot) else { return Step::Done };
        if txn.changes.contains_key(&parent) || txn.referred.contains(&parent) {
            return Step::Done;
        }
        self.locks.take(parent, LockMode::KeyShare, me);
        if self.table.latest(parent).1.is_none() {
            return Step::Fail("no such parent");
        }
        let row = parent.child(txn.id);
        self.locks.take(row, LockMode::Update, me);
        txn.referred.push(parent);
        let value = Some(Rc::new(vec![txn.id]));
        txn.changes.insert(row, Change { row, kind: ChangeKind::Insert, seen: Position::ZERO, value });
        Step::Done
    }

    fn unrefer(&mut self, slot: SlotId, parent: Row) -> Step {
        let Some(snapshot) = self.txns.get(&slot).map(|txn| txn.snapshot) else { return Step::Done };
        for child in self.table.children(parent, snapshot).into_iter().take(5) {
            match self.change(slot, child, ChangeKind::Delete) {
                Step::Done => {}
                other => return other,
            }
        }
        Step::Done
    }

    /// COMMIT: encode, submit, wait for the word of the manager.
    fn commit(&mut self, ctx: &mut Ctx<'_>, slot: SlotId) {
        let (base, oldest_base, mistake) = (self.committed, self.oldest_base(), self.mistake);
        let Some(txn) = self.txns.get_mut(&slot) else { return };
        if txn.changes.is_empty() {
            return self.end(ctx, slot);
        }
        if !self.attached || !self.quorum {
            return self.fail(ctx, slot, "no quorum");
        }
        let reads = txn.reads.iter().map(|(row, seen)| (*row, *seen)).collect();
        let counts = txn.counts.iter().map(|(row, seen)| (*row, *seen)).collect();
        let body = Body { txn: txn.id, changes: txn.changes.values().cloned().collect(), reads, counts };
        txn.payload = encode(ctx, &body, &groups(txn, base, mistake), oldest_base);
        txn.body = Rc::new(body);
        let unordered: Vec<u32> = (0..txn.payload.chunks.len() as u32).collect();
        txn.stage = if unordered.is_empty() { Stage::Sent } else { Stage::Sending { unordered } };
        let sequence = txn.sequence;
        ctx.later(ms(10_000), PgEvent::CommitTimeout(slot, sequence));
        self.send(ctx, slot);
    }

    /// Sends what is not yet ordered of a submission, for the first time or again.
    pub(super) fn send(&mut self, ctx: &mut Ctx<'_>, slot: SlotId) {
        let Some(tag) = self.tag(slot) else { return };
        let n = self.n;
        let Some(txn) = self.txns.get(&slot) else { return };
        if let Stage::Sending { unordered } = &txn.stage {
            for &index in unordered {
                let bytes = txn.payload.chunks[index as usize].clone();
                ctx.up(Local::Chunk { tag, index, bytes });
            }
        }
        if let Stage::Sent = txn.stage {
            let txn_id = txn.id;
            ctx.fact(if txn.resubmitted {
                Fact::SentAgain { node: n, txn: txn_id }
            } else {
                Fact::Submitted { node: n, txn: txn_id, tag }
            });
            ctx.up(Local::Submit { tag, writeset: txn.payload.writeset.clone() });
        }
    }

    /// All waiting submissions go again, to a daemon that may know nothing of them.
    pub(super) fn send_all_again(&mut self, ctx: &mut Ctx<'_>) {
        for slot in self.slots() {
            if let Some(txn) = self.txns.get_mut(&slot)
                && matches!(txn.stage, Stage::Sent | Stage::Sending { .. })
            {
                txn.resubmitted |= matches!(txn.stage, Stage::Sent);
                self.send(ctx, slot);
            }
        }
    }

    pub(super) fn resubmit(&mut self, ctx: &mut Ctx<'_>, slot: SlotId, sequence: Sequence) {
        let waits = self.txns.get(&slot).is_some_and(|txn| txn.sequence == sequence && matches!(txn.stage, Stage::Sent));
        if waits && self.attached {
            self.send(ctx, slot);
        }
    }

    pub(super) fn chunk_ordered(&mut self, ctx: &mut Ctx<'_>, tag: Tag, index: u32) {
        let Some(txn) = self.txns.get_mut(&tag.slot).filter(|txn| txn.sequence == tag.sequence) else { return };
        let Stage::Sending { unordered } = &mut txn.stage else { return };
        unordered.retain(|&waiting| waiting != index);
        if unordered.is_empty() {
            txn.stage = Stage::Sent;
            self.send(ctx, tag.slot);
        }
    }

    pub(super) fn refused(&mut self, ctx: &mut Ctx<'_>, tag: Tag) {
        let Some(txn) = self.txns.get(&tag.slot).filter(|txn| txn.sequence == tag.sequence) else { return };
        match txn.stage {
            // Another life of the daemon may have sent it: only the order knows.
            Stage::Sent if txn.resubmitted => {
                ctx.within(ms(100), ms(600), PgEvent::Resubmit(tag.slot, tag.sequence));
            }
            Stage::Sent | Stage::Sending { .. } => self.fail(ctx, tag.slot, "refused"),
            _ => {}
        }
    }

    pub(super) fn lock_timeout(&mut self, ctx: &mut Ctx<'_>, slot: SlotId, sequence: Sequence) {
        let txn = self.txns.get(&slot).filter(|txn| txn.sequence == sequence);
        if txn.is_some_and(|txn| matches!(txn.stage, Stage::Waiting { .. })) {
            self.fail(ctx, slot, "deadlock detected");
        }
    }

    /// Gives up waiting; the slot goes on to its next transaction, and the order decides about this one.
    pub(super) fn commit_timeout(&mut self, ctx: &mut Ctx<'_>, slot: SlotId, sequence: Sequence) {
        let Some(txn) = self.txns.get(&slot).filter(|txn| txn.sequence == sequence) else { return };
        match txn.stage {
            Stage::Sending { .. } => {
                if let Some(tag) = self.tag(slot) {
                    ctx.up(Local::Abandon { tag });
                }
                self.fail(ctx, slot, "chunks took too long");
            }
            Stage::Sent => self.unknown(ctx, slot),
            _ => {}
        }
    }

    /// Gives waiting transactions their locks, first come first served.
    pub(super) fn grant_some(&mut self, ctx: &mut Ctx<'_>) -> bool {
        let mut waiting: Vec<(u64, SlotId, Row, LockMode)> = Vec::new();
        for (slot, txn) in &self.txns {
            if let Stage::Waiting { turn, row, mode } = txn.stage {
                waiting.push((turn, *slot, row, mode));
            }
        }
        waiting.sort_unstable();
        let free = |postgres: &Postgres, slot, row, mode| {
            postgres.locks.blockers(row, mode, Owner::Local(slot)).is_empty() && !postgres.remote_wants(row, mode)
        };
        let Some((_, slot, _, _)) = waiting.into_iter().find(|(_, slot, row, mode)| free(self, *slot, *row, *mode)) else {
            return false;
        };
        if let Some(txn) = self.txns.get_mut(&slot) {
            txn.stage = Stage::Open;
        }
        self.client(ctx, slot);
        true
    }

    /// A definite error: the transaction rolls back.
    pub(super) fn fail(&mut self, ctx: &mut Ctx<'_>, slot: SlotId, why: &'static str) {
        if let Some(txn) = self.txns.get(&slot) {
            ctx.fact(Fact::Failed { node: self.n, txn: txn.id, why });
        }
        self.end(ctx, slot);
    }

    pub(super) fn unknown(&mut self, ctx: &mut Ctx<'_>, slot: SlotId) {
        if let Some(txn) = self.txns.get(&slot) {
            ctx.fact(Fact::Unknown { node: self.n, txn: txn.id });
        }
        self.end(ctx, slot);
    }

    /// The transaction is over: locks go, and its client thinks about the next.
    pub(super) fn end(&mut self, ctx: &mut Ctx<'_>, slot: SlotId) {
        self.txns.remove(&slot);
        self.locks.release(Owner::Local(slot));
        self.within(ctx, us(500), us(30_000), slot);
    }

    /// An earlier position needs what this backend holds, but it is certified for a later one: it ends, and its writeset is
    /// applied from the log.
    pub(super) fn give_way(&mut self, ctx: &mut Ctx<'_>, slot: SlotId, position: Position) {
        ctx.fact(Fact::GaveWay { node: self.n, position });
        self.unknown(ctx, slot);
        if let Some(body) = self.bodies.get(&position).cloned() {
            self.ring.insert(position, Known::Remote(super::Remote::queued(position.previous(), body)));
        }
    }

    /// The client's next move; one that was planned before is off.
    pub(super) fn later(&mut self, ctx: &mut Ctx<'_>, span: Span, slot: SlotId) {
        let turn = self.turns.entry(slot).or_default();
        *turn += 1;
        let turn = *turn;
        ctx.later(span, PgEvent::Client(slot, turn));
    }

    /// The same, some time from `soonest` to `latest`.
    pub(super) fn within(&mut self, ctx: &mut Ctx<'_>, soonest: Span, latest: Span, slot: SlotId) {
        let span = Span(ctx.rng.between(soonest.0, latest.0));
        self.later(ctx, span, slot);
    }

    pub(super) fn tag(&self, slot: SlotId) -> Option<Tag> {
        let sequence = self.txns.get(&slot)?.sequence;
        Some(Tag { database: self.database?, node: self.node, incarnation: self.incarnation, slot, sequence })
    }
}

fn random_op(ctx: &mut Ctx<'_>, rows: u32, isolation: Isolation) -> Op {
    let row = Row(ctx.rng.below(u64::from(rows)) as u32);
    let reads = if isolation == Isolation::Serializable { 45 } else { 0 };
    match ctx.rng.below(100 + reads) {
        0..54 => Op::Append(row),
        54..66 => Op::Insert(row),
        66..80 => Op::Delete(row),
        80..91 => Op::Refer(row),
        91..100 => Op::Unrefer(row),
        100..125 => Op::Read(row),
        _ => Op::Count(row),
    }
}

/// Keys by their bases: guarded ones go with the committed position at submit.
fn groups(txn: &Txn, base: Position, mistake: Option<Mistake>) -> Vec<KeyGroup> {
    let mut guarded = KeyGroup { base, ..KeyGroup::default() };
    for change in txn.changes.values() {
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
    guarded.shared.extend(txn.referred.iter().map(|parent| parent.unique_key()));
    let mut groups = vec![guarded];
    for (row, base) in &txn.deleted {
        groups.push(KeyGroup { base: *base, exclusive: vec![row.unique_key()], ..KeyGroup::default() });
    }
    let rows = txn.reads.keys().flat_map(|row| [row.key(), row.unique_key()]);
    let checked = rows.chain(txn.counts.keys().map(|row| row.children_key())).collect();
    match mistake {
        None => groups.push(KeyGroup { base: txn.oldest_base, checked, ..KeyGroup::default() }),
        Some(Mistake::ReadBaseAtSubmit) => groups.push(KeyGroup { base, checked, ..KeyGroup::default() }),
        Some(Mistake::ReadsNotChecked) => {}
    }
    groups
}

/// Now and then the front of a body travels in chunks.
fn encode(ctx: &mut Ctx<'_>, body: &Body, groups: &[KeyGroup], oldest_base: Position) -> Payload {
    let mut rest = Bytes::from(body.encode());
    let mut chunks = Vec::new();
    if ctx.rng.permille(80) {
        for _ in 0..ctx.rng.between(1, 3) {
            let at = rest.len().min(ctx.rng.between(1, 12) as usize);
            chunks.push(rest.split_to(at));
        }
    }
    let envelope = Envelope { chunks: chunks.len() as u32, oldest_base, groups: groups.to_vec(), ..Envelope::default() };
    Payload { chunks, writeset: Bytes::from(envelope.encode(&rest)) }
}

//! Delivery: one database's ordered commands become positions, verdicts, and what members hear of them.
//!
//! Positions are dense: every submission that counts gets the next one, whatever its verdict. A submission counts once: by its
//! tag, a later copy is dropped, and so is every command of a life of PostgreSQL that is not the current one. Since an attach
//! is ordered too, everybody agrees on which life that is at each point of the log.
//!
//! A writeset whose commit token was used before never gets as far as certification ([`crate::tokens`]).
//!
//! Chunks are only collected as references into the log; a writeset must name how many it has, and all must be there.

use std::collections::BTreeMap;

use bytes::Bytes;
use gcs_writeset::link::{AbortCause, Verdict};
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{
    CommitToken, Incarnation, Key, Lock, LockMode, LockOp, LockSession, NodeId, Position, Sequence, SlotId, Tag, Token,
    TokenOutcome,
};

use crate::api::{LogIndex, LogRef, PositionOutcome};
use crate::bounds::{CHUNKS_MAX, SLOTS_MAX};
use crate::certify::{Certifier, Rules, WindowBounds};
use crate::command::{Generation, Report};
use crate::format::Format;
use crate::locks::{Lives, Locks, Told, Who};
use crate::member::Attachments;
use crate::membership::Member;
use crate::retention::Retention;
use crate::tokens::Tokens;

/// The position of what a database brought when its replication was started.
pub const FOUNDATION: Position = Position(1);

/// What the group knows of one backend's place on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// The last submission that was ordered or abandoned.
    pub last: Sequence,
    /// Chunks of the submission after it.
    pub collecting: Option<Collecting>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collecting {
    pub sequence: Sequence,
    pub chunks: BTreeMap<u32, LogRef>,
}

/// The ordered state of one database.
#[derive(Debug)]
pub struct Database {
    pub name: String,
    pub head: Position,
    pub attachments: Attachments,
    pub slots: BTreeMap<(NodeId, SlotId), Slot>,
    pub certifier: Certifier,
    pub retention: Retention,
    pub tokens: Tokens,
    pub locks: Locks,
}

/// What became of a submission, and of those who waited for locks that its session held.
#[derive(Debug)]
pub struct Decided {
    pub outcome: PositionOutcome,
    pub told: Vec<Told>,
}

impl Database {
    pub fn new(name: String, bounds: WindowBounds) -> Database {
        Database {
            name,
            head: Position::ZERO,
            attachments: Attachments::default(),
            slots: BTreeMap::new(),
            certifier: Certifier::new(bounds),
            retention: Retention::default(),
            tokens: Tokens::default(),
            locks: Locks::default(),
        }
    }

    /// `None` if the attach does not count; else where clients may begin to be served.
    ///
    /// Contents that are there before anything is ordered are a position of their own, which no entry holds: whoever has not got it finds
    /// that the log does not reach back far enough, as behind any other position that is no longer there, and has it copied.
    pub fn attach(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        generation: Generation,
        founds: bool,
    ) -> Option<Position> {
        if founds && self.head == Position::ZERO {
            self.head = FOUNDATION;
        }
        let new_life = self.attachments.attach(node, incarnation, generation, self.head)?;
        if new_life {
            self.forget_slots(node);
        }
        self.raise_horizon();
        Some(self.head)
    }

    /// Nobody else has attached, and nothing was ordered: a START that was broken off may be made again.
    pub fn may_be_founded_by(&self, node: NodeId) -> bool {
        self.head <= FOUNDATION && self.attachments.by_node.keys().all(|&other| other == node)
    }

    pub fn detach(&mut self, node: NodeId, generation: Generation) -> bool {
        let detached = self.attachments.detach(node, generation);
        if detached {
            self.forget_slots(node);
            self.raise_horizon();
        }
        detached
    }

    /// The node is no member any more.
    pub fn forget(&mut self, node: NodeId, members: &[Member]) {
        if self.attachments.forget(node) {
            self.forget_slots(node);
            self.raise_horizon();
        }
        if let Some(flushed) = self.attachments.flushed_by_all(members) {
            self.retention.flushed(flushed);
        }
    }

    /// Orders a submission and certifies it by these rules; `None` if it does not count. Whichever way it is decided, its transaction is over for the locks
    /// of rows that its session holds: who waits for one goes on from here, and not from when the session's node has committed.
    ///
    /// A member that does not read the group's `format` finds a writeset of two phases malformed, so everybody does.
    pub fn submit(
        &mut self,
        rules: impl Rules,
        (lives, format): (&Lives, Format),
        tag: Tag,
        writeset: &Bytes,
        at: LogRef,
    ) -> Option<Decided> {
        let chunks = self.finish(tag)?;
        let position = self.head.next();
        let decoded = Envelope::decode(writeset);
        let (verdict, chunks): (_, Vec<LogRef>) = match &decoded {
            Ok((envelope, _))
                if is_complete(&chunks, envelope.chunks)
                    && (envelope.two_phase.is_none() || format >= Format::TWO_PHASE) =>
            {
                let verdict = self.judge(rules, lives, position, tag.node, envelope);
                self.attachments.report_oldest_base(tag.node, envelope.oldest_base, self.head);
                (verdict, chunks.into_values().collect())
            }
            _ => (Verdict::Aborted(AbortCause::Malformed), Vec::new()),
        };
        self.head = position;
        self.raise_horizon();
        self.tokens.forget(position);
        if let Some(first) = chunks.iter().map(|chunk| chunk.index).min() {
            self.retention.chunked(position, first);
        }
        let holder = decoded.ok().and_then(|(envelope, _)| envelope.holder);
        let told = holder
            .filter(|holder| lives.counts(tag.node, holder.life, holder.number))
            .map(|holder| self.locks.transaction_decided(Who { node: tag.node, session: holder.number }));
        let outcome = PositionOutcome { database: tag.database, position, ordinal: at.ordinal, verdict, chunks };
        let told = told.unwrap_or_default();
        Some(Decided { outcome, told })
    }

    /// One request of a session about locks.
    pub fn lock(&mut self, rules: impl Rules, who: Who, number: u64, op: &LockOp) -> Vec<Told> {
        let (certifier, head) = (&self.certifier, self.head);
        let seen = if let LockOp::First { seen, .. } = op { *seen } else { head };
        self.locks.request(rules, who, (number, op), |lock| last_under(certifier, head, lock) <= seen)
    }

    /// The row whose lock is asked for, if other nodes' sessions want it at the same time: one holds it, or has changed the row behind the position that the asker's node has
    /// committed, and the asker would have lost against that.
    pub fn contended(&self, who: Who, number: u64, op: &LockOp) -> Option<Key> {
        let LockOp::Take { lock, waits: true, seen } = op else { return None };
        let key = lock.key.row().filter(|_| self.locks.is_new(who, number))?;
        let is_behind = || {
            let last = self.certifier.last_change(key, lock.mode == LockMode::Exclusive);
            last.is_some_and(|(last, node)| last > *seen && node != who.node)
        };
        (self.locks.is_held_elsewhere(who, *lock) || is_behind()).then_some(key)
    }

    /// Up to where whoever gets the lock now has to see: of a row, what was the last to change it or to lock it, as far as anybody may still need to know; of anything
    /// else, all that was ordered.
    pub fn last_under(&self, lock: Lock) -> Position {
        last_under(&self.certifier, self.head, &lock)
    }

    fn judge(&mut self, rules: impl Rules, lives: &Lives, position: Position, node: NodeId, envelope: &Envelope) -> Verdict {
        let relied_on = envelope.holder.filter(|_| !envelope.locks_are_advice);
        if relied_on.is_some_and(|holder| rules.lost_sessions_are_fenced() && !self.is_holder(lives, node, holder)) {
            return Verdict::Aborted(AbortCause::LocksLost);
        }
        if let Some(cause) = envelope.token.and_then(|token| self.tokens.refuse(token)) {
            return Verdict::Aborted(cause);
        }
        let verdict = self.certifier.certify_by(rules, position, node, envelope);
        if let Some(CommitToken { token, .. }) = envelope.token {
            self.tokens.decided(token, position, matches!(verdict, Verdict::Certified { .. }));
        }
        verdict
    }

    fn is_holder(&self, lives: &Lives, node: NodeId, session: LockSession) -> bool {
        lives.counts(node, session.life, session.number) && self.locks.holds(Who { node, session: session.number })
    }

    /// What a commit token has come to; nothing if the question is of another life.
    pub fn ask(&mut self, tag: Tag, token: Token, fence_after: Option<Position>) -> Option<TokenOutcome> {
        self.counts(tag).then(|| self.tokens.ask(token, fence_after, self.head))
    }

    /// Keeps a chunk. Copies of it, and chunks of submissions that are over, change nothing.
    pub fn chunk(&mut self, tag: Tag, index: u32, at: LogRef) {
        if !self.counts(tag) || index >= CHUNKS_MAX {
            return;
        }
        let slot = self.slots.entry((tag.node, tag.slot)).or_default();
        if tag.sequence <= slot.last {
            return;
        }
        let fresh = || Collecting { sequence: tag.sequence, chunks: BTreeMap::new() };
        let collecting = slot.collecting.get_or_insert_with(fresh);
        if collecting.sequence < tag.sequence {
            *collecting = fresh();
        }
        if collecting.sequence == tag.sequence {
            collecting.chunks.entry(index).or_insert(at);
        }
    }

    pub fn abandon(&mut self, tag: Tag) {
        let _ = self.finish(tag);
    }

    pub fn progress(&mut self, node: NodeId, incarnation: Incarnation, report: Report) {
        if self.attachments.incarnation(node) == Some(incarnation) {
            self.attachments.report(node, report, self.head);
            self.raise_horizon();
        }
    }

    /// Whether commands under this tag may change anything: its life of PostgreSQL is the current one.
    pub fn counts(&self, tag: Tag) -> bool {
        tag.slot.0 < SLOTS_MAX && self.attachments.incarnation(tag.node) == Some(tag.incarnation)
    }

    /// Whether the submission of this tag was ordered or abandoned, or has been overtaken by a later one of its slot.
    pub fn is_over(&self, tag: Tag) -> bool {
        self.slots.get(&(tag.node, tag.slot)).is_some_and(|slot| tag.sequence <= slot.last)
    }

    pub fn has_chunk(&self, tag: Tag, index: u32) -> bool {
        let slot = self.slots.get(&(tag.node, tag.slot));
        let collecting = slot.and_then(|slot| slot.collecting.as_ref());
        collecting.is_some_and(|c| c.sequence == tag.sequence && c.chunks.contains_key(&index))
    }

    /// Whether nothing more is to be expected of the submission of this tag: it does not count, is over, or a later one of its slot has begun to send chunks.
    pub fn is_past(&self, tag: Tag) -> bool {
        let slot = self.slots.get(&(tag.node, tag.slot));
        let collecting = slot.and_then(|slot| slot.collecting.as_ref());
        !self.counts(tag) || self.is_over(tag) || collecting.is_some_and(|later| later.sequence > tag.sequence)
    }

    /// Where the first so many chunks of this tag stand, in their order, if all of them are there.
    pub fn chunks_of(&self, tag: Tag, count: u32) -> Option<impl Iterator<Item = LogRef>> {
        let collecting = self.slots.get(&(tag.node, tag.slot))?.collecting.as_ref()?;
        let has_all =
            collecting.chunks.len() >= count as usize && collecting.chunks.range(..count).count() == count as usize;
        (collecting.sequence == tag.sequence && has_all).then(|| collecting.chunks.range(..count).map(|(_, at)| *at))
    }

    /// An entry has been applied that ordered positions here, the last with this verdict.
    pub fn entry_applied(&mut self, index: LogIndex, last: Verdict) {
        if let Verdict::Certified { .. } = last {
            self.retention.certified(index, self.head);
        }
    }

    /// The last entry that this database does not need any more; `None` if it needs none at all.
    pub fn releasable(&self, flushed: Option<Position>) -> Option<LogIndex> {
        let by_positions = self.retention.releasable(flushed?);
        let collecting = self.slots.values().filter_map(|slot| slot.collecting.as_ref());
        let first_chunk = collecting.flat_map(|c| c.chunks.values()).map(|at| at.index.0).min();
        Some(first_chunk.map_or(by_positions, |first| by_positions.min(LogIndex(first.saturating_sub(1)))))
    }

    /// Ends the submission: its chunks, if it counts and this is its first end.
    fn finish(&mut self, tag: Tag) -> Option<BTreeMap<u32, LogRef>> {
        if !self.counts(tag) {
            return None;
        }
        let slot = self.slots.entry((tag.node, tag.slot)).or_default();
        if tag.sequence <= slot.last {
            return None;
        }
        slot.last = tag.sequence;
        match slot.collecting.take_if(|collecting| collecting.sequence <= tag.sequence) {
            Some(collecting) if collecting.sequence == tag.sequence => Some(collecting.chunks),
            _ => Some(BTreeMap::new()),
        }
    }

    fn forget_slots(&mut self, node: NodeId) {
        self.slots.retain(|(of, _), _| *of != node);
    }

    fn raise_horizon(&mut self) {
        self.certifier.raise_horizon(self.attachments.oldest_base(self.head));
    }
}

fn last_under(certifier: &Certifier, head: Position, lock: &Lock) -> Position {
    match lock.key.row() {
        Some(key) => certifier.last_against(key, lock.mode == LockMode::Exclusive),
        None => head,
    }
}

fn is_complete(chunks: &BTreeMap<u32, LogRef>, expected: u32) -> bool {
    chunks.len() == expected as usize && chunks.last_key_value().is_none_or(|(&last, _)| last + 1 == expected)
}

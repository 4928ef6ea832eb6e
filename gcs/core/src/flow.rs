//! Flow: this node's own commands, from its PostgreSQL until they are seen in the order.
//!
//! A proposal can vanish without notice: with a leader, with a message, with a dropped append. So a command stays here until it
//! comes back ordered, and is sent again, under the same tag, whenever the leader changes, its connection is a new one, or too much time has
//! passed; the ordered state drops copies. What is here is bounded in number and bytes; at the bound the next is refused.
//!
//! **What may be said about a command** depends on whether it ever left this place. Never sent: it can be refused, and nothing
//! of it will ever happen. Sent, even once: only the order knows, and it stays pending however long there is no quorum.
//!
//! A writeset leaves after all of its chunks were ordered, since copies may overtake each other on the way.
//!
//! **Nobody waits for somebody else's large transaction.** Chunks leave behind everything else, and only so many of them in one
//! step: whatever comes meanwhile is ordered with the next step, behind one step's chunks and not behind all that wait.

mod lockers;
mod locks;

use std::collections::{BTreeMap, BTreeSet};

use gcs_writeset::link::RefusalReason;
use gcs_writeset::{DatabaseId, Incarnation, LockAnswer, LockOp, LockSession, NodeId, Position, Sequence, SlotId, Tag};

use crate::api::{Local, LocalReply, Tick};
use crate::bounds::*;
use crate::command::{Command, Encoded, Report};
use crate::state::{Event, State};
use lockers::Lockers;

/// Counts commands as they come in; they leave in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What a pending command is, so that the same one is not kept twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Attach(String),
    Detach(DatabaseId),
    Piece(DatabaseId, SlotId, Sequence, Piece),
    /// By the session's number in the present life.
    Lock(u64),
    Life,
}

/// In this order: a writeset after its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Piece {
    Chunk(u32),
    Abandon,
    Writeset,
    Question,
}

#[derive(Debug)]
enum Body {
    /// Encoded when sent, for the generation it then follows.
    Attach {
        incarnation: Incarnation,
        founds: bool,
    },
    Detach,
    Tagged {
        tag: Tag,
        encoded: Encoded,
    },
    Lock {
        database: DatabaseId,
        /// The request's number.
        request: u64,
        op: LockOp,
    },
    /// Encoded when sent, for the life that it then ends.
    Life,
}

#[derive(Debug)]
struct Pending {
    subject: Subject,
    body: Body,
    sent: Option<Tick>,
    bytes: usize,
}

impl Pending {
    /// Whether it can be refused as long as it was never sent. What gives locks back has to be ordered some day.
    fn is_refusable(&self) -> bool {
        !matches!(self.body, Body::Life) && !matches!(&self.body, Body::Lock { op, .. } if !op.is_for_lock())
    }

    fn is_chunk(&self) -> bool {
        matches!(self.subject, Subject::Piece(_, _, _, Piece::Chunk(_)))
    }
}

#[derive(Debug)]
struct Progress {
    latest: Report,
    sent: Option<Tick>,
}

#[derive(Debug)]
pub struct Flow {
    me: NodeId,
    quorum: bool,
    next: u64,
    bytes: usize,
    pending: BTreeMap<Ticket, Pending>,
    by_subject: BTreeMap<Subject, Ticket>,
    /// Those to be sent to the present leader; may hold tickets that are no longer pending.
    unsent: BTreeSet<Ticket>,
    /// The chunks among them.
    unsent_chunks: BTreeSet<Ticket>,
    /// Bytes of chunks that may still leave in this step.
    chunk_bytes: usize,
    progress: BTreeMap<DatabaseId, Progress>,
    /// The leader, and its term, that everything was last sent to.
    sent_to: Option<(NodeId, u64)>,
    lockers: Lockers,
}

impl Flow {
    /// `process` is another number in every life of this daemon.
    pub fn new(me: NodeId, process: u64) -> Flow {
        Flow {
            me,
            quorum: false,
            next: 0,
            bytes: 0,
            pending: BTreeMap::new(),
            by_subject: BTreeMap::new(),
            unsent: BTreeSet::new(),
            unsent_chunks: BTreeSet::new(),
            chunk_bytes: CHUNK_BYTES_PER_STEP_MAX,
            progress: BTreeMap::new(),
            sent_to: None,
            lockers: Lockers { process: process.max(1), ..Lockers::default() },
        }
    }

    /// Commands that are not ordered yet, and their bytes.
    pub fn waiting(&self) -> (usize, usize) {
        (self.pending.len(), self.bytes)
    }

    /// Takes a command from PostgreSQL, or answers at once.
    pub fn local(&mut self, local: Local, state: &State, replies: &mut Vec<LocalReply>) {
        match local {
            Local::Attach { database, incarnation, founds } => self.attach(database, incarnation, founds, replies),
            Local::Detach { database } => self.detach(database, state, replies),
            Local::Submit { tag, writeset } => {
                if self.may_enter(tag, Piece::Writeset, writeset.len(), state, replies) {
                    let encoded = Command::Submit { tag, writeset }.encode();
                    self.enter_tagged(tag, Piece::Writeset, encoded);
                }
            }
            Local::Chunk { tag, index, bytes } => {
                if state
                    .database(tag.database)
                    .is_some_and(|db| db.counts(tag) && (db.is_over(tag) || db.has_chunk(tag, index)))
                {
                    replies.push(LocalReply::ChunkOrdered { tag, index });
                } else if self.may_enter(tag, Piece::Chunk(index), bytes.len(), state, replies) {
                    let encoded = Command::Chunk { tag, index, bytes }.encode();
                    self.enter_tagged(tag, Piece::Chunk(index), encoded);
                }
            }
            Local::Abandon { tag } => {
                // Not worth an answer: what is not dropped now is when the slot's next submission is ordered.
                if self.may_enter(tag, Piece::Abandon, 0, state, &mut Vec::new()) {
                    self.enter_tagged(tag, Piece::Abandon, Command::Abandon { tag }.encode());
                }
            }
            Local::AskToken { tag, token, fence_after } => {
                if self.may_enter(tag, Piece::Question, 0, state, replies) {
                    self.enter_tagged(tag, Piece::Question, Command::Ask { tag, token, fence_after }.encode());
                }
            }
            Local::Lock { connection, database, number, op } => match self.lock_in_vain(connection, &op, state) {
                Some(session) => {
                    replies.push(LocalReply::Lock { connection, number, session, answer: LockAnswer::NotAvailable });
                }
                None => self.lock((connection, database), (number, op), state, replies),
            },
            // Not commands: they are the core's.
            Local::Wish { .. } | Local::Consider { .. } | Local::Follow { .. } | Local::Unfollow { .. } => {}
            Local::Progress { database, committed, flushed, oldest_base, out_of_service } => {
                let latest = Report { committed, flushed, oldest_base, out_of_service };
                self.progress.entry(database).or_insert(Progress { latest, sent: None }).latest = latest;
            }
        }
    }

    /// With quorum lost, refuses what was never sent, and from then on everything new.
    pub fn set_quorum(&mut self, quorum: bool, state: &State, replies: &mut Vec<LocalReply>) {
        self.quorum = quorum;
        if quorum {
            return;
        }
        let refused: Vec<Ticket> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.is_refusable())
            .filter(|(_, pending)| pending.sent.is_none() || matches!(pending.body, Body::Attach { .. } | Body::Detach))
            .map(|(ticket, _)| *ticket)
            .collect();
        self.refuse_waiting(replies);
        for ticket in refused {
            if let Some(pending) = self.remove(ticket) {
                replies.extend(self.refusal(&pending, RefusalReason::NoQuorum, state));
                if let Subject::Lock(session) = pending.subject {
                    self.lock_request_done(session, false);
                }
            }
        }
    }

    /// A step begins under this leader. Another one, or the same one again, may never have seen what was sent: everything goes
    /// again.
    pub fn set_leader(&mut self, leader: Option<(NodeId, u64)>) {
        self.chunk_bytes = CHUNK_BYTES_PER_STEP_MAX;
        if leader.is_some() && leader != self.sent_to {
            self.sent_to = leader;
            self.enlist_all();
        }
    }

    /// A member is connected anew. If that is the leader, what went on the connection before may be lost: everything goes again.
    pub fn connected(&mut self, node: NodeId) {
        if self.sent_to.is_some_and(|(leader, _)| leader == node) {
            self.enlist_all();
        }
    }

    fn enlist_all(&mut self) {
        let all: Vec<Ticket> = self.pending.keys().copied().collect();
        all.into_iter().for_each(|ticket| self.enlist(ticket));
    }

    /// Time passed: what was forwarded long ago and never ordered goes again. (What this node proposed as the leader is in its
    /// log, and needs no second copy there.)
    pub fn tick(&mut self, now: Tick) {
        let overdue = |pending: &Pending| pending.sent.is_some_and(|sent| now.0.saturating_sub(sent.0) >= RESEND_TICKS);
        if self.sent_to.is_some_and(|(leader, _)| leader != self.me) && self.pending.values().any(overdue) {
            let late = self.pending.iter().filter(|(_, p)| p.sent.is_none() || overdue(p));
            let late: Vec<Ticket> = late.map(|(ticket, _)| *ticket).collect();
            late.into_iter().for_each(|ticket| self.enlist(ticket));
        }
    }

    /// The next command to be sent. It counts as sent with [`Flow::sent`].
    pub fn next(&mut self, state: &State) -> Option<(Ticket, Encoded)> {
        while let Some(ticket) = self.unsent.pop_first() {
            if let Some(pending) = self.pending.get(&ticket).filter(|pending| !self.must_wait(pending)) {
                return Some((ticket, self.encode(pending, state)));
            }
        }
        while self.chunk_bytes > 0
            && let Some(ticket) = self.unsent_chunks.pop_first()
        {
            if let Some(pending) = self.pending.get(&ticket) {
                self.chunk_bytes = self.chunk_bytes.saturating_sub(pending.bytes);
                return Some((ticket, self.encode(pending, state)));
            }
        }
        None
    }

    fn enlist(&mut self, ticket: Ticket) {
        let is_chunk = self.pending.get(&ticket).is_some_and(Pending::is_chunk);
        (if is_chunk { &mut self.unsent_chunks } else { &mut self.unsent }).insert(ticket);
    }

    pub fn sent(&mut self, ticket: Ticket, now: Tick) {
        if let Some(pending) = self.pending.get_mut(&ticket) {
            if let Body::Life = pending.body {
                self.lockers.asked_at.get_or_insert(now);
            }
            pending.sent = Some(now);
        }
    }

    /// It could not be sent after all.
    pub fn put_back(&mut self, ticket: Ticket) {
        self.enlist(ticket);
    }

    /// Reports that are due: what PostgreSQL last said, if the group does not know it yet. A lost one is made up for by the
    /// next.
    pub fn reports(&mut self, now: Tick, state: &State) -> Vec<Encoded> {
        let mut due = Vec::new();
        for (&id, progress) in &mut self.progress {
            let Some(attachment) = state.database(id).and_then(|db| db.attachments.by_node.get(&self.me)) else { continue };
            let Some(incarnation) = attachment.incarnation else { continue };
            let rested = progress.sent.is_none_or(|sent| now.0.saturating_sub(sent.0) >= PROGRESS_TICKS);
            if rested && is_news(progress.latest, attachment.report) {
                progress.sent = Some(now);
                let report = progress.latest;
                due.push(Command::Progress { node: self.me, incarnation, database: id, report }.encode());
            }
        }
        due
    }

    /// Something was ordered: if it is what somebody here waits for, says so.
    pub fn ordered(&mut self, event: &Event, replies: &mut Vec<LocalReply>) {
        match event {
            Event::Ordered(ordered) => self.done(ordered.tag, Piece::Writeset),
            Event::Dropped { tag } => self.done(*tag, Piece::Writeset),
            Event::Abandoned { tag } => self.done(*tag, Piece::Abandon),
            Event::Token { tag, outcome } if tag.node == self.me => {
                let asked = self.remove_subject(&subject(*tag, Piece::Question));
                replies.extend(asked.map(|_| LocalReply::Token { tag: *tag, outcome: *outcome }));
            }
            Event::Chunk { tag, index } => self.chunk_done(*tag, *index, replies),
            Event::Attached { node, database, name, incarnation, serve_from } if *node == self.me => {
                self.attached(*database, name, *incarnation, *serve_from, replies);
            }
            Event::AttachStale { node, name } if *node == self.me => self.again(Subject::Attach(name.clone())),
            Event::DetachStale { node, database } if *node == self.me => self.again(Subject::Detach(*database)),
            Event::AttachImpossible { node, name, incarnation, reason } if *node == self.me => {
                let waiting = self.remove_subject(&Subject::Attach(name.clone()));
                let (database, incarnation, reason) = (name.clone(), *incarnation, *reason);
                replies.extend(waiting.map(|_| LocalReply::AttachRefused { database, incarnation, reason }));
            }
            Event::Detached { node, database } if *node == self.me => {
                self.forget_database(*database, None);
                self.locks_detached(*database, replies);
                if self.remove_subject(&Subject::Detach(*database)).is_some() {
                    replies.push(LocalReply::Detached { database: *database });
                }
            }
            Event::Life { node, life, by } if *node == self.me => self.life_began(*life, *by, replies),
            Event::LifeStale { node } if *node == self.me => self.again(Subject::Life),
            Event::LockOrdered { node, session, number } if *node == self.me => self.lock_ordered(*session, *number),
            Event::Contended { node, database, key } if *node != self.me => self.contended(*database, *key, replies),
            Event::Lock { node, session, number, answer } if *node == self.me => {
                replies.extend(self.lock_answered(*session, *number, *answer));
            }
            _ => {}
        }
    }

    /// The state was replaced by a later one: what was ordered in between will not be seen ordered.
    pub fn skipped_to(&mut self, state: &State, replies: &mut Vec<LocalReply>) {
        self.end_life(replies);
        let over = |pending: &Pending| match &pending.body {
            Body::Tagged { tag, .. } => {
                state.database(tag.database).is_none_or(|database| !database.counts(*tag) || database.is_over(*tag))
            }
            _ => false,
        };
        let done: Vec<Ticket> =
            self.pending.iter().filter(|(_, pending)| over(pending)).map(|(ticket, _)| *ticket).collect();
        for ticket in done {
            self.remove(ticket);
        }
    }

    fn attach(&mut self, database: String, incarnation: Incarnation, founds: bool, replies: &mut Vec<LocalReply>) {
        self.remove_subject(&Subject::Attach(database.clone()));
        match self.door() {
            Some(reason) => replies.push(LocalReply::AttachRefused { database, incarnation, reason }),
            None => self.enter(Subject::Attach(database), Body::Attach { incarnation, founds }, 0),
        }
    }

    fn detach(&mut self, database: DatabaseId, state: &State, replies: &mut Vec<LocalReply>) {
        self.remove_subject(&Subject::Detach(database));
        // The last to detach ends the database's life; asked again, it is detached all the same.
        let Some(known) = state.database(database) else {
            replies.push(LocalReply::Detached { database });
            return;
        };
        let Some(incarnation) = known.attachments.incarnation(self.me) else {
            replies.push(LocalReply::Detached { database });
            return;
        };
        match self.door() {
            Some(reason) => {
                replies.push(LocalReply::AttachRefused { database: known.name.clone(), incarnation, reason });
            }
            None => {
                // They hear of it before others are given what they hold.
                self.locks_detached(database, replies);
                self.enter(Subject::Detach(database), Body::Detach, 0);
            }
        }
    }

    /// Why nothing may enter now.
    fn door(&self) -> Option<RefusalReason> {
        if !self.quorum {
            Some(RefusalReason::NoQuorum)
        } else if self.pending.len() >= PENDING_COUNT_MAX || self.bytes >= PENDING_BYTES_MAX {
            Some(RefusalReason::Overloaded)
        } else {
            None
        }
    }

    /// Whether a piece of a submission is to be kept. Copies of what is pending or over are not, and need no answer.
    fn may_enter(&self, tag: Tag, piece: Piece, bytes: usize, state: &State, replies: &mut Vec<LocalReply>) -> bool {
        let database = state.database(tag.database).filter(|db| tag.node == self.me && db.counts(tag));
        let refusal = match database {
            None => Some(RefusalReason::NotAttached),
            Some(database) if database.is_over(tag) => return false,
            Some(_) if self.by_subject.contains_key(&subject(tag, piece)) => return false,
            Some(_) if bytes > COMMAND_BYTES_MAX - 256 => Some(RefusalReason::Overloaded),
            Some(_) => self.door(),
        };
        if let Some(reason) = refusal {
            replies.push(LocalReply::Refused { tag, reason });
        }
        refusal.is_none()
    }

    fn enter_tagged(&mut self, tag: Tag, piece: Piece, encoded: Encoded) {
        let bytes = encoded.length();
        self.enter(subject(tag, piece), Body::Tagged { tag, encoded }, bytes);
    }

    fn enter(&mut self, subject: Subject, body: Body, bytes: usize) {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.bytes += bytes;
        self.by_subject.insert(subject.clone(), ticket);
        self.pending.insert(ticket, Pending { subject, body, sent: None, bytes });
        self.enlist(ticket);
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Pending> {
        let pending = self.pending.remove(&ticket)?;
        self.by_subject.remove(&pending.subject);
        self.bytes -= pending.bytes;
        Some(pending)
    }

    fn remove_subject(&mut self, subject: &Subject) -> Option<Pending> {
        let ticket = *self.by_subject.get(subject)?;
        self.remove(ticket)
    }

    fn done(&mut self, tag: Tag, piece: Piece) {
        if tag.node == self.me {
            self.remove_subject(&subject(tag, piece));
        }
    }

    fn chunk_done(&mut self, tag: Tag, index: u32, replies: &mut Vec<LocalReply>) {
        if tag.node != self.me || self.remove_subject(&subject(tag, Piece::Chunk(index))).is_none() {
            return;
        }
        replies.push(LocalReply::ChunkOrdered { tag, index });
        // Its writeset may have been waiting for it.
        if let Some(&ticket) = self.by_subject.get(&subject(tag, Piece::Writeset))
            && self.pending.get(&ticket).is_some_and(|pending| pending.sent.is_none())
        {
            self.unsent.insert(ticket);
        }
    }

    fn attached(
        &mut self,
        database: DatabaseId,
        name: &str,
        incarnation: Incarnation,
        serve_from: Position,
        replies: &mut Vec<LocalReply>,
    ) {
        self.forget_database(database, Some(incarnation));
        let subject = Subject::Attach(name.to_owned());
        let Some(&ticket) = self.by_subject.get(&subject) else { return };
        match self.pending.get(&ticket).map(|pending| &pending.body) {
            Some(Body::Attach { incarnation: waiting, .. }) if *waiting == incarnation => {
                self.remove(ticket);
                let name = name.to_owned();
                replies.push(LocalReply::Attached { database, name, incarnation, serve_from });
            }
            _ => self.again(subject),
        }
    }

    /// Drops what can no longer be ordered: everything of another life of PostgreSQL than `alive`.
    fn forget_database(&mut self, database: DatabaseId, alive: Option<Incarnation>) {
        let dead = |pending: &Pending| match &pending.body {
            Body::Tagged { tag, .. } => tag.database == database && Some(tag.incarnation) != alive,
            _ => false,
        };
        let dropped: Vec<Ticket> = self.pending.iter().filter(|(_, p)| dead(p)).map(|(ticket, _)| *ticket).collect();
        for ticket in dropped {
            self.remove(ticket);
        }
        if alive.is_none() {
            self.progress.remove(&database);
        }
    }

    fn again(&mut self, subject: Subject) {
        if let Some(&ticket) = self.by_subject.get(&subject) {
            self.unsent.insert(ticket);
        }
    }

    /// A writeset waits for its chunks.
    fn must_wait(&self, pending: &Pending) -> bool {
        let Subject::Piece(database, slot, sequence, Piece::Writeset) = pending.subject else { return false };
        let first = Subject::Piece(database, slot, sequence, Piece::Chunk(0));
        let last = Subject::Piece(database, slot, sequence, Piece::Chunk(u32::MAX));
        self.by_subject.range(first..=last).next().is_some()
    }

    fn encode(&self, pending: &Pending, state: &State) -> Encoded {
        match (&pending.body, &pending.subject) {
            (Body::Tagged { encoded, .. }, _) => encoded.clone(),
            (&Body::Attach { incarnation, founds }, Subject::Attach(name)) => {
                let known = state.database_named(name);
                let generation = known.map_or_else(Default::default, |(_, db)| db.attachments.generation(self.me));
                let (node, database) = (self.me, name.clone());
                Command::Attach { node, incarnation, generation, database, founds }.encode()
            }
            (_, Subject::Detach(database)) => {
                let known = state.database(*database);
                let generation = known.map_or_else(Default::default, |db| db.attachments.generation(self.me));
                Command::Detach { node: self.me, generation, database: *database }.encode()
            }
            (Body::Lock { database, request, op }, Subject::Lock(number)) => {
                let session = LockSession { life: self.lockers.life.unwrap_or_default(), number: *number };
                let (node, database, number, op) = (self.me, *database, *request, op.clone());
                Command::Lock { node, session, database, number, op }.encode()
            }
            (Body::Life, _) => {
                Command::Life { node: self.me, life: state.lives.of(self.me), by: self.lockers.process }.encode()
            }
            (Body::Attach { .. } | Body::Detach | Body::Lock { .. }, _) => Encoded::default(),
        }
    }

    fn refusal(&self, pending: &Pending, reason: RefusalReason, state: &State) -> Option<LocalReply> {
        match (&pending.body, &pending.subject) {
            (Body::Tagged { .. }, Subject::Piece(_, _, _, Piece::Abandon)) => None,
            (Body::Tagged { tag, .. }, _) => Some(LocalReply::Refused { tag: *tag, reason }),
            (Body::Lock { request, .. }, Subject::Lock(number)) => self.lock_refused(*number, *request, reason),
            (&Body::Attach { incarnation, .. }, Subject::Attach(name)) => {
                Some(LocalReply::AttachRefused { database: name.clone(), incarnation, reason })
            }
            (_, Subject::Detach(id)) => {
                let database = state.database(*id)?;
                let incarnation = database.attachments.incarnation(self.me).unwrap_or_default();
                Some(LocalReply::AttachRefused { database: database.name.clone(), incarnation, reason })
            }
            _ => None,
        }
    }
}

fn subject(tag: Tag, piece: Piece) -> Subject {
    Subject::Piece(tag.database, tag.slot, tag.sequence, piece)
}

/// Positions only move forward; anything the ordered one does not cover is news.
fn is_news(latest: Report, ordered: Report) -> bool {
    latest.out_of_service != ordered.out_of_service
        || latest.committed > ordered.committed
        || latest.flushed > ordered.flushed
        || latest.oldest_base > ordered.oldest_base
}

//! The ordered state: everything that follows from the log, and nothing else.
//!
//! [`State::apply`] takes one entry after another; two nodes that applied the same entries are in the same state, whatever else
//! they lived through. Nothing here reads a clock, a connection or what this node's PostgreSQL is doing. What a command meant
//! comes out as [`Event`]s, for the node that is waiting for it.

use std::collections::BTreeMap;

use gcs_writeset::link::RefusalReason;
use gcs_writeset::{DatabaseId, Incarnation, Key, LockAnswer, LockOp, LockSession, NodeId, Position, Tag, TokenOutcome};

use crate::api::{EntryOutcome, LogIndex, LogRef, Ordered, PositionOutcome};
use crate::bounds::DATABASES_MAX;
use crate::certify::{Rules, WindowBounds};
use crate::command::{Command, Generation};
use crate::deliver::{Database, Decided};
use crate::locks::{Lives, Told, What, Who};
use crate::membership::{Change, Membership};

#[derive(Debug)]
pub struct State {
    pub group: String,
    pub membership: Membership,
    pub applied: LogIndex,
    pub applied_term: u64,
    pub databases: BTreeMap<DatabaseId, Database>,
    /// Databases ever numbered. A number is never given twice, so positions of different lives of a name do not mix.
    pub databases_ever: u32,
    /// Of sessions that use group locks.
    pub lives: Lives,
    pub bounds: WindowBounds,
}

/// What a command came to.
#[derive(Clone, Debug)]
pub enum Event {
    Ordered(Ordered),
    /// The submission did not count: it was ordered before, or is not of the current life.
    Dropped {
        tag: Tag,
    },
    Chunk {
        tag: Tag,
        index: u32,
    },
    Abandoned {
        tag: Tag,
    },
    /// What a commit token had come to when this question's turn came.
    Token {
        tag: Tag,
        outcome: TokenOutcome,
    },
    Attached {
        node: NodeId,
        database: DatabaseId,
        name: String,
        incarnation: Incarnation,
        serve_from: Position,
    },
    /// The attach did not follow what it said it follows: whoever still wants it says so anew.
    AttachStale {
        node: NodeId,
        name: String,
    },
    /// There is no room for another database, or the group has contents for it already.
    AttachImpossible {
        node: NodeId,
        name: String,
        incarnation: Incarnation,
        reason: RefusalReason,
    },
    Detached {
        node: NodeId,
        database: DatabaseId,
    },
    DetachStale {
        node: NodeId,
        database: DatabaseId,
    },
    /// Another life of a node's sessions has begun, by whom it says.
    Life {
        node: NodeId,
        life: u64,
        by: u64,
    },
    /// It did not follow what it said it follows.
    LifeStale {
        node: NodeId,
    },
    /// A request about locks has had its place in the order.
    LockOrdered {
        node: NodeId,
        session: LockSession,
        number: u64,
    },
    /// A session of that node has asked for the lock of a row that others want at the same time.
    Contended {
        node: NodeId,
        database: DatabaseId,
        key: Key,
    },
    /// What such a request came to; `node` is whose session made it.
    Lock {
        node: NodeId,
        session: LockSession,
        number: u64,
        answer: LockAnswer,
    },
}

impl State {
    pub fn new(group: String, membership: Membership, bounds: WindowBounds) -> State {
        State {
            group,
            membership,
            applied: LogIndex(0),
            applied_term: 0,
            databases: BTreeMap::new(),
            databases_ever: 0,
            lives: Lives::default(),
            bounds,
        }
    }

    /// Applies the entry after the last one, certifying by these rules.
    pub fn apply(
        &mut self,
        rules: impl Rules,
        index: LogIndex,
        term: u64,
        commands: Vec<Command>,
    ) -> (EntryOutcome, Vec<Event>) {
        debug_assert_eq!(index.0, self.applied.0 + 1);
        let mut events = Vec::with_capacity(commands.len());
        for (ordinal, command) in commands.into_iter().enumerate() {
            let at = LogRef { index, ordinal: ordinal as u32 };
            let event = self.apply_command(rules, command, at, &mut events);
            events.extend(event);
        }
        self.applied = index;
        self.applied_term = term;
        let positions = events.iter().filter_map(|event| match event {
            Event::Ordered(ordered) => Some(ordered.outcome.clone()),
            _ => None,
        });
        let positions: Vec<PositionOutcome> = positions.collect();
        for last in &positions {
            if let Some(database) = self.databases.get_mut(&last.database)
                && database.head == last.position
            {
                database.entry_applied(index, last.verdict);
            }
        }
        (EntryOutcome { index, positions, heads: self.heads() }, events)
    }

    /// Applies an entry that changes votes, `None` being the end of a joint step: whether it counts, and Raft is to do it.
    pub fn apply_votes(&mut self, index: LogIndex, term: u64, change: Option<&Change>) -> (EntryOutcome, bool) {
        debug_assert_eq!(index.0, self.applied.0 + 1);
        (self.applied, self.applied_term) = (index, term);
        let removed = match change {
            Some(change) => self.membership.change(change),
            None => self.membership.leave_joint(),
        };
        for node in removed.iter().flatten() {
            self.forget(*node);
        }
        (EntryOutcome { index, positions: Vec::new(), heads: self.heads() }, removed.is_some())
    }

    /// The node is no member any more: it takes part in no database. As with a detach, a database that is left by the last ends. What its sessions
    /// hold is free when the leader ends their life: they may not have heard of it yet.
    fn forget(&mut self, node: NodeId) {
        let members = &self.membership.members;
        self.databases.values_mut().for_each(|database| database.forget(node, members));
        self.databases.retain(|_, database| !database.attachments.nobody());
    }

    pub fn heads(&self) -> Vec<(DatabaseId, Position)> {
        self.databases.iter().map(|(id, database)| (*id, database.head)).collect()
    }

    pub fn database(&self, id: DatabaseId) -> Option<&Database> {
        self.databases.get(&id)
    }

    pub fn database_named(&self, name: &str) -> Option<(DatabaseId, &Database)> {
        self.databases.iter().find(|(_, database)| database.name == name).map(|(id, database)| (*id, database))
    }

    pub fn has_lock_sessions_of(&self, node: NodeId) -> bool {
        self.databases.values().any(|database| database.locks.has_sessions_of(node))
    }

    /// The last entry that no member needs any more, as of now.
    pub fn releasable(&self) -> LogIndex {
        let by_database = self.databases.values().filter_map(|database| {
            let flushed = database.attachments.flushed_by_all(&self.membership.members);
            database.releasable(flushed)
        });
        by_database.min().unwrap_or(self.applied)
    }

    fn apply_command(&mut self, rules: impl Rules, command: Command, at: LogRef, events: &mut Vec<Event>) -> Option<Event> {
        match command {
            Command::Attach { node, incarnation, generation, database, founds } => {
                Some(self.attach(node, incarnation, generation, database, founds))
            }
            Command::Detach { node, generation, database } => {
                self.detach(rules, node, generation, database, events);
                None
            }
            Command::Submit { tag, writeset } => {
                let database = self.databases.get_mut(&tag.database);
                let known = (&self.lives, self.membership.format);
                let Some(Decided { outcome, told }) = database.and_then(|db| db.submit(rules, known, tag, &writeset, at))
                else {
                    return Some(Event::Dropped { tag });
                };
                events.push(Event::Ordered(Ordered { index: at.index, outcome, tag, writeset }));
                self.tell(tag.database, told, events);
                None
            }
            Command::Chunk { tag, index, .. } => {
                self.databases.get_mut(&tag.database)?.chunk(tag, index, at);
                Some(Event::Chunk { tag, index })
            }
            Command::Abandon { tag } => {
                self.databases.get_mut(&tag.database)?.abandon(tag);
                Some(Event::Abandoned { tag })
            }
            Command::Ask { tag, token, fence_after } => {
                let outcome = self.databases.get_mut(&tag.database)?.ask(tag, token, fence_after)?;
                Some(Event::Token { tag, outcome })
            }
            Command::Change(change) => {
                self.membership.change(&change);
                None
            }
            Command::Life { node, life, by } => {
                self.next_life(rules, node, (life, by), events);
                None
            }
            Command::Lock { node, session, database, number, op } => {
                self.lock(rules, (node, session), database, (number, &op), events);
                None
            }
            Command::Progress { node, incarnation, database, report } => {
                let database = self.databases.get_mut(&database)?;
                database.progress(node, incarnation, report);
                if let Some(flushed) = database.attachments.flushed_by_all(&self.membership.members) {
                    database.retention.flushed(flushed);
                }
                None
            }
        }
    }

    /// Ends this life of a node's sessions, and all that they hold with it.
    fn next_life(&mut self, rules: impl Rules, node: NodeId, (life, by): (u64, u64), events: &mut Vec<Event>) {
        if !self.membership.contains(node) && self.lives.of(node) == 0 {
            return;
        }
        let Some(life) = self.lives.end(node, life) else { return events.push(Event::LifeStale { node }) };
        if !self.membership.contains(node) {
            self.lives.forget(node);
        }
        events.push(Event::Life { node, life, by });
        let told: Vec<_> = self.databases.iter_mut().map(|(id, db)| (*id, db.locks.release(rules, node))).collect();
        told.into_iter().for_each(|(database, told)| self.tell(database, told, events));
    }

    /// One request about locks. Of a session that is closed, or of an earlier life, it is a copy.
    fn lock(
        &mut self,
        rules: impl Rules,
        (node, session): (NodeId, LockSession),
        database: DatabaseId,
        (number, op): (u64, &LockOp),
        events: &mut Vec<Event>,
    ) {
        events.push(Event::LockOrdered { node, session, number });
        if !self.lives.counts(node, session.life, session.number) {
            return;
        }
        if matches!(op, LockOp::Close) {
            self.lives.close(node, session.number);
        }
        if let Some(known) = self.databases.get_mut(&database) {
            let who = Who { node, session: session.number };
            events.extend(known.contended(who, number, op).map(|key| Event::Contended { node, database, key }));
            let told = known.lock(rules, who, number, op);
            self.tell(database, told, events);
        }
    }

    fn tell(&self, database: DatabaseId, told: Vec<Told>, events: &mut Vec<Event>) {
        let known = self.databases.get(&database);
        events.extend(told.into_iter().map(|Told { who, number, what }| {
            let answer = match what {
                What::Granted(lock) => {
                    LockAnswer::Granted { position: known.map_or(Position::ZERO, |db| db.last_under(lock)) }
                }
                What::Found(at) => LockAnswer::Found { at },
                What::NotAvailable => LockAnswer::NotAvailable,
                What::Deadlock => LockAnswer::Deadlock,
                What::Full => LockAnswer::Full,
                What::Given => LockAnswer::Given,
            };
            let session = LockSession { life: self.lives.of(who.node), number: who.session };
            Event::Lock { node: who.node, session, number, answer }
        }));
    }

    fn attach(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        generation: Generation,
        name: String,
        founds: bool,
    ) -> Event {
        let known = self.database_named(&name).map(|(id, _)| id);
        // A copy of what it said when it was a member.
        if !self.membership.contains(node) {
            return Event::AttachStale { node, name };
        }
        let kind = self.membership.member(node).map(|member| member.kind).unwrap_or_default();
        // Its daemon takes none.
        if !kind.has_databases() {
            return Event::AttachImpossible { node, name, incarnation, reason: RefusalReason::NotAttached };
        }
        if founds && !kind.takes_writes() {
            return Event::AttachImpossible { node, name, incarnation, reason: RefusalReason::HasContents };
        }
        if known.is_none() && self.databases.len() >= DATABASES_MAX {
            return Event::AttachImpossible { node, name, incarnation, reason: RefusalReason::Overloaded };
        }
        if founds && known.is_some_and(|id| !self.databases[&id].may_be_founded_by(node)) {
            return Event::AttachImpossible { node, name, incarnation, reason: RefusalReason::HasContents };
        }
        // What follows an attach of an earlier life of this name comes too late.
        if known.is_none() && generation != Generation::default() {
            return Event::AttachStale { node, name };
        }
        // Databases are numbered in the order in which they were first attached, from 1.
        let id = known.unwrap_or(DatabaseId(self.databases_ever + 1));
        self.databases_ever = self.databases_ever.max(id.0);
        let database = self.databases.entry(id).or_insert_with(|| Database::new(name.clone(), self.bounds));
        match database.attach(node, incarnation, generation, founds) {
            Some(serve_from) => Event::Attached { node, database: id, name, incarnation, serve_from },
            None => Event::AttachStale { node, name },
        }
    }

    /// With the last detach the database's life in the group ends: whoever starts it again starts from nothing.
    /// What the node's sessions hold there is free.
    fn detach(&mut self, rules: impl Rules, node: NodeId, generation: Generation, id: DatabaseId, events: &mut Vec<Event>) {
        let Some(database) = self.databases.get_mut(&id).and_then(|db| db.detach(node, generation).then_some(db)) else {
            return events.push(Event::DetachStale { node, database: id });
        };
        let told = database.locks.release(rules, node);
        let is_over = database.attachments.nobody();
        events.push(Event::Detached { node, database: id });
        self.tell(id, told, events);
        if is_over {
            self.databases.remove(&id);
        }
    }
}

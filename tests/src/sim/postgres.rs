//! A model of one PostgreSQL server with `postgres_r`, after docs/architecture.md: enough of it that what the group promises can
//! be seen to hold or not.
//!
//! Rows have versions, each made by the position that wrote it. A snapshot is a position: what was visible when it was taken.
//! Local transactions lock rows, wait for each other, submit, and hold their locks until they end. Remote backends apply what
//! others wrote, killing those who are in an earlier position's way. Everybody commits at the gate, in position order; commits
//! are flushed now and then, so that a crash loses the last ones, and the node catches up from the log.
//!
//! - [`model`]: rows, values, bodies, keys
//! - [`locks`]: row locks
//! - [`local`]: clients and their transactions
//! - [`apply`]: remote backends
//! - [`gate`]: commits, flushes, crashes
//! - [`manager`]: the link to the daemon

mod apply;
mod gate;
mod local;
mod locks;
mod manager;
mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use gcs_core::{Local, LocalReply};
use gcs_writeset::{DatabaseId, Incarnation, NodeId, Position, Sequence, SlotId};

pub use model::{Body, Change, ChangeKind, Row, TxnId, Value};

use super::fact::{Delivery, Fact, N};
use super::time::{Span, Time};
use crate::rng::Rng;
use apply::Remote;
use gate::Commit;
use local::Txn;
use locks::Locks;
use model::Table;

/// What a server does later.
#[derive(Clone, Copy, Debug)]
pub enum PgEvent {
    /// A client's next move, unless another was planned since.
    Client(SlotId, u64),
    /// A lock was waited for too long.
    LockTimeout(SlotId, Sequence),
    /// A verdict was waited for too long.
    CommitTimeout(SlotId, Sequence),
    /// Submit again what was refused after it had been sent before.
    Resubmit(SlotId, Sequence),
    /// A remote backend has applied its writeset.
    Applied(Position, u64),
    /// The commit under way goes one stage on.
    Commit(Position),
    Flush,
    Report,
    /// Try to attach.
    Attach,
}

/// Deliberate mistakes of the server, to be found like those of the certifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// What was read is compared with what was ordered after COMMIT was asked for, not after the snapshot.
    ReadBaseAtSubmit,
    /// A SERIALIZABLE transaction is treated as a REPEATABLE READ one.
    ReadsNotChecked,
}

/// From the daemon.
#[derive(Clone, Debug)]
pub enum Down {
    Delivery(Rc<Delivery>),
    Reply(LocalReply),
    Quorum(bool),
}

/// To the daemon.
#[derive(Clone, Debug)]
pub enum Up {
    /// Opens the stream after this position.
    Attach {
        incarnation: Incarnation,
        resume_after: Position,
    },
    Local(Local),
}

#[derive(Debug)]
pub enum Action {
    Later(Span, PgEvent),
    Up(Up),
    Fact(Fact),
}

/// What a server may use of the world.
pub struct Ctx<'a> {
    pub now: Time,
    pub rng: &'a mut Rng,
    pub txns: &'a mut u64,
    pub out: &'a mut Vec<Action>,
}

impl Ctx<'_> {
    fn later(&mut self, span: Span, event: PgEvent) {
        self.out.push(Action::Later(span, event));
    }

    fn within(&mut self, soonest: Span, latest: Span, event: PgEvent) {
        let span = Span(self.rng.between(soonest.0, latest.0));
        self.later(span, event);
    }

    fn up(&mut self, local: Local) {
        self.out.push(Action::Up(Up::Local(local)));
    }

    fn fact(&mut self, fact: Fact) {
        self.out.push(Action::Fact(fact));
    }
}

/// What is known of a position above the committed one.
#[derive(Debug)]
enum Known {
    Aborted,
    /// To be committed by the client's own backend.
    Local(SlotId),
    Remote(Remote),
}

#[derive(Debug)]
pub struct Postgres {
    pub n: N,
    node: NodeId,
    clients: u32,
    rows: u32,
    mistake: Option<Mistake>,
    pub up: bool,
    incarnation: Incarnation,
    // Durable but for what the last flush did not cover.
    table: Table,
    /// Commit records, in order, that a crash may lose.
    unflushed: Vec<Position>,
    flushed: Position,
    /// What was committed at the last flush: more than the last commit record says, where aborted positions follow it.
    flushed_for_sure: Position,
    // Lost with the server.
    visible: Position,
    committed: Position,
    /// The last position received.
    received: Position,
    ring: BTreeMap<Position, Known>,
    bodies: BTreeMap<Position, Rc<Body>>,
    locks: Locks,
    txns: BTreeMap<SlotId, Txn>,
    sequences: BTreeMap<SlotId, Sequence>,
    commit: Option<Commit>,
    turns: BTreeMap<SlotId, u64>,
    waits: u64,
    attempts: u64,
    // The link.
    database: Option<DatabaseId>,
    attached: bool,
    quorum: bool,
    serve_from: Position,
    serving: bool,
    /// Clients begin nothing new.
    pub quiet: bool,
}

impl Postgres {
    pub fn new(n: N, node: NodeId, clients: u32, rows: u32, mistake: Option<Mistake>) -> Postgres {
        Postgres {
            n,
            node,
            clients,
            rows,
            mistake,
            up: false,
            incarnation: Incarnation(0),
            table: Table::new(rows),
            unflushed: Vec::new(),
            flushed: Position::ZERO,
            flushed_for_sure: Position::ZERO,
            visible: Position::ZERO,
            committed: Position::ZERO,
            received: Position::ZERO,
            ring: BTreeMap::new(),
            bodies: BTreeMap::new(),
            locks: Locks::default(),
            txns: BTreeMap::new(),
            sequences: BTreeMap::new(),
            commit: None,
            turns: BTreeMap::new(),
            waits: 0,
            attempts: 0,
            database: None,
            attached: false,
            quorum: false,
            serve_from: Position::ZERO,
            serving: false,
            quiet: false,
        }
    }

    pub fn committed(&self) -> Position {
        self.committed
    }

    pub fn is_idle(&self) -> bool {
        self.ring.is_empty() && self.txns.is_empty()
    }

    /// Every row and what it is now.
    pub fn snapshot(&self) -> Vec<(Row, Value)> {
        self.table.snapshot(self.visible)
    }

    pub fn handle(&mut self, ctx: &mut Ctx<'_>, event: PgEvent) {
        match event {
            PgEvent::Client(slot, turn) if self.turns.get(&slot) == Some(&turn) => self.client(ctx, slot),
            PgEvent::Client(..) => {}
            PgEvent::LockTimeout(slot, sequence) => self.lock_timeout(ctx, slot, sequence),
            PgEvent::CommitTimeout(slot, sequence) => self.commit_timeout(ctx, slot, sequence),
            PgEvent::Resubmit(slot, sequence) => self.resubmit(ctx, slot, sequence),
            PgEvent::Applied(position, attempt) => self.applied(position, attempt),
            PgEvent::Commit(position) => self.commit_goes_on(ctx, position),
            PgEvent::Flush => self.flush(ctx),
            PgEvent::Report => self.report(ctx),
            PgEvent::Attach => self.attach(ctx),
        }
        self.settle(ctx);
    }

    pub fn receive(&mut self, ctx: &mut Ctx<'_>, down: Down) {
        match down {
            Down::Delivery(delivery) => self.delivered(ctx, &delivery),
            Down::Reply(reply) => self.reply(ctx, reply),
            Down::Quorum(quorum) => self.quorum = quorum,
        }
        self.settle(ctx);
    }

    /// Lets everybody go on who can, earlier positions first, until nobody can.
    fn settle(&mut self, ctx: &mut Ctx<'_>) {
        loop {
            let moved = self.apply_some(ctx) | self.grant_some(ctx) | self.pass_gate(ctx);
            if !moved {
                break;
            }
        }
    }

    /// The oldest base that a transaction here may still use.
    fn oldest_base(&self) -> Position {
        self.txns.values().map(|txn| txn.oldest_base).min().unwrap_or(self.committed).min(self.committed)
    }

    fn slots(&self) -> BTreeSet<SlotId> {
        (0..self.clients).map(SlotId).collect()
    }
}

/// A writeset's payload and where its body goes: chunks, then the envelope with the rest.
#[derive(Clone, Debug, Default)]
struct Payload {
    chunks: Vec<Bytes>,
    writeset: Bytes,
}

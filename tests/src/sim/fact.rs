//! What happened, as far as invariants are about it.

use std::rc::Rc;

use bytes::Bytes;
use gcs_core::{LogIndex, PositionOutcome};
use gcs_writeset::{Lock, LockSession, NodeId, Position, Tag};

use super::postgres::{Row, TxnId, Value};
use super::time::{Span, Time};

/// A node of the simulation, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct N(pub usize);

/// One position, as a node's daemon gave it out.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub index: LogIndex,
    pub outcome: PositionOutcome,
    pub tag: Tag,
    pub writeset: Bytes,
    /// The front of the body.
    pub chunks: Vec<Bytes>,
    /// Chunks and the end of the body, put together.
    pub body: Bytes,
}

/// Why a client was not told what became of its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// No verdict came in time.
    NoVerdict,
    /// It stood in the way of what had to go first for its verdict to come.
    InTheWay,
    /// Its session was ended while there was no verdict.
    SessionEnded,
    /// An error came up in the middle.
    Error,
    /// The server died.
    ServerGone,
}

/// Why a client was told that its transaction is committed, though not by its own session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// An earlier position needed its locks.
    Yielded,
    /// Earlier positions took too long.
    TooLate,
    SessionEnded,
    /// An error came up after the verdict.
    Error,
}

#[derive(Clone, Debug)]
pub enum Fact {
    /// A core ordered a position, whether its node has a database or not.
    Ordered { node: N, tag: Tag, outcome: PositionOutcome, holder: Option<LockSession> },
    /// A node wrote down its ordered state as of this entry.
    Checkpointed { node: N, index: LogIndex, checksum: u32 },
    /// A daemon gave a position to its PostgreSQL.
    Delivered { node: N, delivery: Rc<Delivery> },
    /// PostgreSQL needs positions after this one, and its daemon no longer has them.
    LogTooShort { node: N, after: Position },
    /// Daemon and PostgreSQL do not understand each other.
    Misunderstood { node: N, what: String },
    /// What was queued for this position cannot be read.
    Unreadable { node: N, position: Position, what: String },
    /// A writeset does not fit the rows it is to be applied to.
    Diverged { node: N, position: Position, row: Row },
    /// Snapshots taken from now on see this position, which holds this transaction.
    Visible { node: N, position: Position, txn: TxnId },
    /// Everything up to here is committed, aborted positions passed over.
    Committed { node: N, position: Position },
    /// PostgreSQL came back from a crash with everything up to here.
    Recovered { node: N, position: Position },
    /// PostgreSQL takes clients, who see everything up to here.
    Serving { node: N, visible: Position },
    /// A transaction is handed to the group under this tag.
    Submitted { node: N, txn: TxnId, tag: Tag },
    /// A submission goes to the daemon again, under its tag.
    SentAgain { node: N, txn: TxnId },
    /// COMMIT returned.
    Acknowledged { node: N, txn: TxnId, position: Position },
    /// A definite error: nothing of it may remain.
    Failed { node: N, txn: TxnId, why: &'static str },
    /// An error that leaves the outcome open.
    Unknown { node: N, txn: TxnId, why: Doubt },
    /// An error that says at which position the group has committed it.
    CommittedElsewhere { node: N, txn: TxnId, position: Position, why: Elsewhere },
    /// A client that wanted to write was refused for want of a quorum.
    RefusedWrite { node: N },
    /// Somebody asks a daemon up to where to read.
    AskedWhereToRead { number: u64 },
    /// And is told.
    ToldWhereToRead { node: N, number: u64, position: Position },
    /// A backend with locks was granted one; what was ordered before lies at or below this position.
    LockGranted { node: N, id: NodeId, locker: usize, lock: Lock, session: LockSession, position: Position },
    /// It gives it back, or ends.
    LockGiven { node: N, locker: usize },
    /// It can't know any more that it holds it.
    LockLost { node: N, locker: usize },
    /// A position has been waiting so long for a lock of something later.
    HeldUp { node: N, position: Position, by: String, since: Time },
    /// Something happened that seeds must have been through.
    Corner { node: N, what: &'static str },
    /// How far a server is. `undisturbed`: for how long it has been up, attached and writable with nothing stopped on it.
    Gate { node: N, committed: Position, known: Position, undisturbed: Span },
    /// A daemon's clock ticked: what it thinks of the group, whether it can exchange messages with a majority, and with whom it can at all.
    Ticked { node: N, quorum: bool, in_touch: bool, touched: Vec<N> },
    /// The end of a run: what every row is on this node.
    Final { node: N, committed: Position, rows: Vec<(Row, Value)> },
}

/// Where a check may look besides the facts.
pub struct View<'a> {
    pub now: Time,
    /// Since when nothing has gone wrong any more.
    pub calm_since: Option<Time>,
    /// How long a verdict, and a turn, is waited for.
    pub commit_timeout: Span,
    /// Whether this entry, as this node has it, is flushed at a majority, or once was.
    pub flushed_by_majority: &'a dyn Fn(LogIndex, N) -> bool,
}

impl View<'_> {
    pub fn flushed_by_majority(&self, index: LogIndex, node: N) -> bool {
        (self.flushed_by_majority)(index, node)
    }
}

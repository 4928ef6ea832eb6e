//! The boundary of the core.
//!
//! ```text
//! impl<L: raft::Storage> Core<L> {
//!     /// `recovered` is what the log store found; `log` reads what was made durable (the driver writes to it between steps).
//!     pub fn new(config: CoreConfig, log: L, recovered: Recovered) -> Result<Core<L>, CoreError>;
//!     /// Feeds inputs in order and returns everything to be done. An error is a broken invariant or a storage failure: the
//!     /// process must end. Bad input from peers or PostgreSQL is never an error here: it is dropped or refused.
//!     pub fn step(&mut self, now: Tick, inputs: Vec<Input>) -> Result<Effects, CoreError>;
//!     /// The ordered state as of `applied()`, for `DurableWrite::checkpoint` on recovery.
//!     pub fn applied(&self) -> LogIndex;
//! }
//! ```
//!
//! **How the driver runs it.** Gather inputs until none is waiting (or a bound), `step`, then:
//! 1. put `send_now` on the wire (a leader's appends may travel while it writes);
//! 2. if there is a `write`, make all of it durable in one atomic batch, then `step` again with `Input::Written(write.number)`
//!    before any other input;
//! 3. put `send_after_write` on the wire (votes, append acknowledgements: promises about what is now durable);
//! 4. hand on `ordered` and `replies`, in order.
//!
//! Effects of one step are always carried out in that order, and completely, before the next step.

use bytes::Bytes;
use gcs_writeset::link::{GroupStatus, RefusalReason, Verdict};
use gcs_writeset::{
    DatabaseId, Incarnation, Key, LockAnswer, LockOp, LockSession, NodeId, Position, Sequence, SlotId, Tag, Token,
    TokenOutcome,
};
use raft::eraftpb;

use crate::command::Encoded;
use crate::detector::Detector;
use crate::format::Format;
use crate::membership::wish::{Founder, Wish};
pub use crate::membership::{Member, Membership, Objection};

/// Logical time: how often the driver's clock has ticked. One tick is 100 ms in the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

/// An index in the Raft log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogIndex(pub u64);

/// Where a command stands: the entry, and its place among the commands of that entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogRef {
    pub index: LogIndex,
    pub ordinal: u32,
}

#[derive(Clone, Debug)]
pub struct CoreConfig {
    pub group: String,
    pub node: NodeId,
    /// Where this node's peers reach it. If the membership says something else, this node has it changed.
    pub address: String,
    /// The number of this node's data directory; likewise if the membership has none. 0: not to be said.
    pub directory: u64,
    /// The first members, the same on all nodes; sorted by name, which gives each its ordinal from 0. What the empty log means: whoever
    /// the members are later is in the ordered state. This node need not be among them.
    pub founders: Vec<Founder>,
    /// Up to which format this node reads, and writes when the group may.
    pub reads: Format,
    /// Seeds election timeouts.
    pub seed: u64,
    pub detector: Detector,
    /// Leading, it goes where most is written ([`crate::writers`]).
    pub follows_writers: bool,
}

/// What the log store found when it was opened. All empty on the first start.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    pub hard_state: Option<eraftpb::HardState>,
    /// The last checkpoint; everything after it is applied again.
    pub checkpoint: Option<Checkpoint>,
}

/// The whole ordered state (positions, certification window, deduplication, membership, progress) after applying `index`.
/// Also the data of a Raft snapshot. The format is documented in docs/formats.md, versioned and checksummed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub index: LogIndex,
    pub term: u64,
    pub state: Bytes,
}

#[derive(Clone, Debug)]
pub enum Input {
    /// The clock moved; `now` of the step says where to.
    Tick,
    /// The driver finished `DurableWrite` number n.
    Written(u64),
    /// A connection to this peer is up or was lost. Messages only come from peers that are up. A peer need not be a member, as far as is known
    /// here: it may have become one while this node was away.
    PeerUp {
        node: NodeId,
        /// Up to which format it reads, as it says.
        reads: Format,
    },
    PeerDown(NodeId),
    /// Whether this peer is being made ready to be shut down, as it says: leadership does not go there by itself. Not, until it says so.
    PeerDrains {
        node: NodeId,
        drains: bool,
    },
    Peer {
        from: NodeId,
        message: PeerMessage,
    },
    /// From this node's PostgreSQL.
    Local(Local),
    /// From whoever reads on this node: answered `LocalReply::ReadFrom` or `ReadRefused`.
    Read(Question),
}

/// Up to where must this node be before it has everything that anybody was told before? (`crate::reads`)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// By which the answer is told from others: the driver's, each once.
    pub number: u64,
    pub database: DatabaseId,
}

/// What travels between daemons.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerMessage {
    /// Validated by the core before raft sees it: sender, kind (no propose, hup or beat; of changes of votes, such as can be read), term, indexes.
    Raft(Box<eraftpb::Message>),
    /// Commands for the leader to propose. Dropped by whoever does not lead: the sender keeps
    /// them and sends again.
    Forward(Vec<Encoded>),
    /// Something for the leader to bring about. Likewise.
    Wish(Wish),
}

#[derive(Clone, Debug)]
pub enum Local {
    /// PostgreSQL attached a database. Ordered; answered `LocalReply::Attached`.
    Attach {
        database: String,
        incarnation: Incarnation,
        /// It brings contents, which are position 1.
        founds: bool,
    },
    /// Ends replication of the database on this node. Ordered; answered `LocalReply::Detached`.
    Detach {
        database: DatabaseId,
    },
    Submit {
        tag: Tag,
        writeset: Bytes,
    },
    Chunk {
        tag: Tag,
        index: u32,
        bytes: Bytes,
    },
    Abandon {
        tag: Tag,
    },
    /// Asks what a commit token came to. Ordered; answered `LocalReply::Token`.
    AskToken {
        tag: Tag,
        token: Token,
        fence_after: Option<Position>,
    },
    /// Asks for group locks, or gives them back: what the session of this connection wants next ([`crate::locks`]). Answered `LocalReply::Lock` or
    /// `LockRefused`, under the session's own number of the request. Connections are the driver's, each once; one that is at its end has its session
    /// closed, with any number that is higher than its last.
    Lock {
        connection: u64,
        database: DatabaseId,
        number: u64,
        op: LockOp,
    },
    /// Wants something of the membership. Answered `LocalReply::Wish` under this number. What would take a database away from the group is done only with
    /// `force`.
    Wish {
        number: u64,
        wish: Wish,
        force: bool,
    },
    /// Not a command, and changes nothing: whether that could be wished, as far as is known here now. Answered `LocalReply::Wish` under this number.
    Consider {
        number: u64,
        wish: Wish,
        force: bool,
    },
    /// Not a command: tells of a submission that goes ahead in so many chunks, and is to be applied here before it has a position ([`crate::followed`]).
    /// Answered `LocalReply::Followed` when its chunks are all there, and `FollowedOver` when nothing more is to be expected. Numbers are the driver's,
    /// each once.
    Follow {
        number: u64,
        tag: Tag,
        chunks: u32,
    },
    /// Nothing more is to be told of it.
    Unfollow {
        number: u64,
    },
    /// Goes into the order at most once a second and only if something changed.
    Progress {
        database: DatabaseId,
        committed: Position,
        flushed: Position,
        oldest_base: Position,
        out_of_service: bool,
    },
}

/// What a step wants done; see the contract on top.
#[derive(Debug, Default)]
pub struct Effects {
    pub send_now: Vec<(NodeId, PeerMessage)>,
    pub write: Option<DurableWrite>,
    pub send_after_write: Vec<(NodeId, PeerMessage)>,
    pub ordered: Vec<Ordered>,
    pub replies: Vec<LocalReply>,
    /// Set whenever the status that clients see changed.
    pub status: Option<GroupStatus>,
    /// Set by the first step, and whenever the members changed.
    pub membership: Option<Membership>,
    /// Leadership is being handed to this member, on which most is written.
    pub goes_to_writers: Option<NodeId>,
}

/// One atomic, durable write.
#[derive(Debug, Default)]
pub struct DurableWrite {
    /// To be given back in `Input::Written`.
    pub number: u64,
    /// A snapshot from the leader replaces the log: everything before and up to its index goes.
    pub install: Option<Checkpoint>,
    /// To be appended; an entry at an existing index replaces it and everything behind.
    pub entries: Vec<eraftpb::Entry>,
    pub hard_state: Option<eraftpb::HardState>,
    /// What entries became when they were applied, one for each applied entry, in order. They need not be flushed by
    /// themselves: after a crash they are made again from the last checkpoint. They let a PostgreSQL that was away read its
    /// verdicts without the history that led to them.
    pub outcomes: Vec<EntryOutcome>,
    /// Now and then: from here recovery starts.
    pub checkpoint: Option<Checkpoint>,
    /// Nothing at or below this index is needed by any member any more.
    pub truncate_to: Option<LogIndex>,
    /// Whether the write must reach the disk before `Written` (false when it holds only outcomes).
    pub sync: bool,
}

/// What one log entry became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryOutcome {
    pub index: LogIndex,
    pub positions: Vec<PositionOutcome>,
    /// The last position ordered in each database as of this entry, for the binary search from a position to its entry.
    pub heads: Vec<(DatabaseId, Position)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PositionOutcome {
    pub database: DatabaseId,
    pub position: Position,
    pub ordinal: u32,
    pub verdict: Verdict,
    /// Where the front of the body stands, for writesets that came in chunks.
    pub chunks: Vec<LogRef>,
}

/// One ordered writeset, in position order within its database.
#[derive(Clone, Debug)]
pub struct Ordered {
    pub index: LogIndex,
    pub outcome: PositionOutcome,
    pub tag: Tag,
    /// The encoded writeset (the envelope and the end of the body).
    pub writeset: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalReply {
    /// `serve_from`: the last position ordered in the database when the attach was.
    Attached {
        database: DatabaseId,
        name: String,
        incarnation: Incarnation,
        serve_from: Position,
    },
    Detached {
        database: DatabaseId,
    },
    ChunkOrdered {
        tag: Tag,
        index: u32,
    },
    /// What it had come to at the question's place in the order.
    Token {
        tag: Tag,
        outcome: TokenOutcome,
    },
    Refused {
        tag: Tag,
        reason: RefusalReason,
    },
    /// The membership is as it was wished, or why it cannot be.
    Wish {
        number: u64,
        outcome: Result<(), Objection>,
    },
    /// An attach or detach could not be taken: not now (no quorum), or not at all (there are contents).
    AttachRefused {
        database: String,
        incarnation: Incarnation,
        reason: RefusalReason,
    },
    Lock {
        connection: u64,
        number: u64,
        session: LockSession,
        answer: LockAnswer,
    },
    LockRefused {
        connection: u64,
        number: u64,
        reason: RefusalReason,
    },
    /// What the session of this connection believes to hold, others may: it is over.
    LocksLost {
        connection: u64,
    },
    /// Sessions of other nodes fight over the row with this key.
    Contended {
        database: DatabaseId,
        key: Key,
    },
    /// The chunks of a followed submission are all ordered: where they stand, in their order.
    Followed {
        number: u64,
        chunks: Vec<LogRef>,
    },
    /// A followed submission is over, and its number forgotten. `ordered`: it has a position, whatever the verdict, which is among what this very step
    /// ordered. Else it has none and is not going to get one, as far as is known here.
    FollowedOver {
        number: u64,
        ordered: bool,
    },
    /// Whatever was acknowledged, or shown to anybody, before the question was asked lies at or below this position.
    ReadFrom {
        number: u64,
        position: Position,
    },
    ReadRefused {
        number: u64,
        reason: RefusalReason,
    },
}

impl LocalReply {
    /// The submission this answers, if it answers one.
    pub fn submission(&self) -> Option<(SlotId, Sequence)> {
        match self {
            LocalReply::ChunkOrdered { tag, .. } | LocalReply::Token { tag, .. } | LocalReply::Refused { tag, .. } => {
                Some((tag.slot, tag.sequence))
            }
            _ => None,
        }
    }
}

//! The link: messages on the Unix socket between PostgreSQL and its daemon.
//!
//! A frame is `length u32` (of all that follows), `head u32` (length of the message), the message, and then a payload of raw
//! bytes. `link/codec.rs` says how a message stands in bytes, and docs/formats.md lists every one of them. There is no checksum: the
//! socket does not leave the machine, and a writeset carries its own.
//!
//! Every connection opens with [`Request::Hello`] and is answered [`Reply::Welcome`] or [`Reply::Failed`]. Then, by role:
//!
//! - **Manager** (one for each database): sends `Attach`, then `Progress` as it goes; receives `Attached`, then every position
//!   in order as `Ordered` (and `Body` for what did not fit one frame), and `Group` whenever the group's state changes. All
//!   answers to submissions come here too, also those made on other connections.
//!
//!   *The stream.* Nothing but `Group` comes between `Attach` and `Attached`, which waits until the attach has been ordered: for as
//!   long as there is no majority, and then by itself. After it come the positions after `resume_after`, each once and without a
//!   gap, from disk first and then live; a manager that reads slowly falls back to the disk, and notices nothing of it. After
//!   `Detach` the stream goes on until `Detached`.
//!
//!   *Parts.* Between an `Ordered` with `more` and its last `Body` only `Group`, `ChunkOrdered`, `TokenOutcome`, `Refused` and
//!   `Watch` can come.
//! - **Backend**: only writes, `Submit`, `Chunk` and `AskToken`; nothing but `Welcome` is ever sent to it.
//! - **Control**: `Status`, answered `Group`; `Change`, answered `Done` or `Failed`; `Certificates`, answered `Certificates`; `Inquire`, answered `Report`; `Events`, answered by
//!   as many `Report` as it takes; `Note`, answered `Done`; `Consider`, answered `Report` or `Failed`; and `Await`, answered `Done` when it is so; used by people and by the playground.
//! - **Fetcher**: sends nothing but `Fetch`, which asks for the writeset of a position that came in the stream without it. Each is
//!   answered with the `Body` frames of its position, from disk and in the order of the questions; nothing else but `Welcome` and
//!   `Failed` comes on this connection. It is a connection of its own because a manager stops reading the stream when it has no
//!   room for further positions, and there may be no room before the writeset that it fetches has been applied.
//! - **Rehearsing**: sends `Rehearse`: what a transaction with statements would do, to be tried on every other node before it is ordered. Or `Clear`: tables that
//!   every other node is to keep its writers out of. Or `Ahead`: a transaction whose chunks are all ordered, to be applied there before it is submitted.
//!   Answered `Rehearsing` with the number of nodes that were asked, then `Rehearsed` for each as it answers; one that does not answer in
//!   time is passed over by whoever asked. One question at a time. A question by `Ahead` is withdrawn from the other nodes when the connection ends or has another
//!   question, unless `AheadDone` came before: the transaction is about to be submitted, or its end is in the order anyhow.
//! - **Reader**: sends `ReadFrom`, answered `ReadFrom` or `ReadRefused`: up to where must be read to see whatever anybody was told before. And
//!   `AskShown`, answered `Showing` with the nodes that were asked, then `Shown` for each as it shows the position to its clients, or is
//!   found to have gone. One question of each kind at a time.
//! - **Locker** (one for each backend that uses group locks): sends `Lock`; each `Take` and `Give` is answered `Lock` or `LockRefused`, a `Take` that
//!   waits for as long as it does. When the connection ends, its session does, and all that it held is free. When the group has given the session up for lost,
//!   the answer is `Failed` with `LocksLost`.
//! - **Rehearser** (one for each database): receives `Rehearse`, tries it in a transaction that is rolled back, and sends `Rehearsed`; receives `Clear`, and sends `Rehearsed`
//!   when those have ended who had written to the tables. It receives no second `Rehearse` before it has answered the first, but as many `Clear` as there are.
//! - **Forerunner** (some for each database): receives `Ahead`, a transaction of another node that is not submitted yet, asks for its chunks by `FetchAhead` (answered with
//!   `Body` frames of position 0 when all of them are ordered), applies it and sends `Rehearsed`, once. With `Passed` it keeps the transaction open, and is to commit it: from
//!   then on until `AheadDone` the manager of its database is sent the position without the writeset. `Over` says that no such position is to come, and that the transaction
//!   is to be rolled back; no `Body` frame comes behind it, and `Passed` changes nothing any more. Either way the forerunner receives no other `Ahead` before it has sent
//!   `AheadDone`. When its connection ends, whatever it has not done is applied from the log.
//!
//! When the daemon goes away, the manager reconnects, attaches again after its own committed position, and the backends that
//! were waiting submit again under the same tag; the group drops what it had already ordered.

mod codec;
mod frame;

pub use codec::Message;
pub use frame::{decode_frame, frame_len, put_frame, put_frame_with};

use crate::id::{DatabaseId, Incarnation, NodeId, Position, Sequence, SlotId, Tag};
use crate::key::Key;
use crate::kind::NodeKind;
use crate::lock::{LockAnswer, LockOp, LockSession};
use crate::token::{Token, TokenOutcome};

/// Goes up when a frame or a message changes; both sides refuse another number with a clear error. So that they can, two things
/// keep their form in every protocol: the beginning of a [`Request::Hello`] up to this number, and a [`Reply::Failed`].
pub const PROTOCOL: u32 = 11;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Manager,
    Backend,
    Control,
    Fetcher,
    Rehearsing,
    Rehearser,
    Reader,
    Locker,
    Forerunner,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Hello {
        protocol: u32,
        role: Role,
        /// Empty for `Control`.
        database: String,
        /// The group the caller expects; `None` where it does not matter.
        group: Option<String>,
        incarnation: Incarnation,
    },
    /// How the server is reached by programs that run on its machine. Sent before the attach.
    Server(ServerPlace),
    /// Joins the group's order for the Hello's database, which the group numbers on first sight. With `founds`, the database brings contents
    /// that the group has not got: they are position 1. One that `leaves` attaches to be detached, and is sent nothing of the order. With
    /// `overwrite`, a copy of the group's contents is to take the place of the database, which is kept: answered `Failed`, with `Copying` once the
    /// group has ordered the attach, or with `NoContents`.
    Attach {
        resume_after: Position,
        founds: bool,
        leaves: bool,
        overwrite: bool,
    },
    /// Payload: an encoded writeset. The tag is completed from the Hello.
    Submit {
        slot: SlotId,
        sequence: Sequence,
    },
    /// Payload: the next part of a body; answered `ChunkOrdered`.
    Chunk {
        slot: SlotId,
        sequence: Sequence,
        index: u32,
    },
    /// Drops the chunks that were sent for this submission.
    Abandon {
        slot: SlotId,
        sequence: Sequence,
    },
    /// Where this node is; goes into the group's horizon and log retention. Out of service, it can't apply what comes next.
    Progress {
        committed: Position,
        flushed: Position,
        oldest_base: Position,
        out_of_service: bool,
    },
    /// This node holds something else than the group: it could not apply this position in its turn, time and again. Answered `Failed` with
    /// `Copying` if another node's database takes the place of this one, else not at all.
    Rebuild {
        position: Position,
    },
    /// Which tables and keys transactions of this server have lost over, those over which most were lost: the answer to `AskConflicts`.
    Conflicts {
        counts: Vec<ConflictCount>,
    },
    /// Asks what a commit token has come to: answered `TokenOutcome` from the question's place in the order. With `fence_after`,
    /// before which the token was not used, nothing with it will be committed from there on.
    AskToken {
        slot: SlotId,
        sequence: Sequence,
        token: Token,
        fence_after: Option<Position>,
    },
    /// Asks for the writeset of a position that was delivered without it (its backend is gone): answered `Body`. A fetcher may ask
    /// once its database has been attached, and for positions that have been ordered; else the answer is `Failed`.
    Fetch {
        position: Position,
    },
    /// Ends replication of the database on this node: answered `Detached` once ordered.
    Detach,
    Status,
    /// Changes who the members are, or who leads: answered `Done` once it is so, or `Failed`.
    Change(Change),
    /// Payload: an encoded writeset without keys, its body cut where it would be too long. To be tried on the other nodes once `after` is
    /// committed there; whoever can't begin within `patience_ms` need not.
    Rehearse {
        after: Position,
        patience_ms: u32,
    },
    /// What became of the rehearsal of this number.
    Rehearsed {
        number: u64,
        outcome: Rehearsal,
    },
    /// Payload: tables ([`crate::tables`]). Whoever writes to them from now on is to take their locks in the group first, which the asker holds; and those who have written to them are to be
    /// waited for, for `patience_ms`.
    Clear {
        patience_ms: u32,
    },
    /// Payload: an encoded writeset without keys, whose whole body went ahead in so many chunks, all of them ordered. To be applied on the other nodes, once `after` is committed
    /// there, in a transaction that stays open until the submission is decided. The other nodes are to expect the submission until this is withdrawn: by the end of the connection
    /// or its next question, unless [`Request::AheadDone`] comes before.
    Ahead {
        slot: SlotId,
        sequence: Sequence,
        chunks: u32,
        after: Position,
        patience_ms: u32,
    },
    /// Asks for the chunks of what is to be applied ahead under this number, once all of them are ordered as far as this node knows.
    FetchAhead {
        number: u64,
    },
    /// Of a forerunner: what was applied ahead under this number is committed or rolled back, and another can come. Of whoever asked for it by [`Request::Ahead`], with the
    /// number 0: the submission has been made or is about to be, or was abandoned; the order tells the other nodes, and nobody else has to.
    AheadDone {
        number: u64,
    },
    /// At or below which position does everything lie that was acknowledged, or shown to anybody on any node, before this was asked?
    ReadFrom {
        number: u64,
    },
    /// Which of the other nodes that can be reached show this position to their clients?
    AskShown {
        number: u64,
        position: Position,
    },
    /// Numbered by the backend, each one higher than the last.
    Lock {
        number: u64,
        op: LockOp,
    },
    /// How the connections to the other daemons are protected: answered `Certificates`.
    Certificates,
    /// Where the PostgreSQL of this node is that has the database: answered `Place`, or `Failed`.
    AskPlace {
        database: String,
    },
    /// How much of the log is kept on this node: answered `Log`.
    AskLog,
    /// What a person's command wants to know: answered `Report`.
    Inquire(Inquiry),
    /// Answered `Done` when it is so; the end of the connection withdraws it.
    Await(Awaited),
    /// What has happened to the group, as this node's daemon saw it: answered `Report` once or more, each with some events, and then `Done`; if `follows`, by one more `Report`
    /// whenever something happens instead, until the end of the connection.
    Events {
        follows: bool,
    },
    /// Payload: something that has happened, which the daemon does not see by itself, as JSON. Answered `Done`.
    Note,
    /// What [`Request::Change`] would do, and whether it could be done, as far as is known here: answered `Report`, or `Failed`. Changes nothing.
    Consider(Change),
    /// While the node is drained: how many sessions of clients the database has here.
    Sessions {
        count: u32,
    },
    /// Drains this member, or puts it back to work. Answered by `Draining` as long as it is not drained, then by `Done`.
    Drain {
        node: String,
        /// Seconds that sessions have to go by themselves; none if it is to work again.
        grace: Option<u32>,
    },
}

/// What a person's command wants to know of a daemon beside the state of the group. The forms of the answers are `gcs`'s own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inquiry {
    /// How the daemon finds itself, its peers, its databases and the group: JSON.
    Examination,
    /// What it tells over HTTP: OpenMetrics.
    Metrics,
}

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// Whatever anybody had been told before the question is visible on this node.
    Synced,
    /// A COMMIT could be had on this node.
    Writable,
}

/// What a person can ask of the membership, by names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Takes a member out of the group. `force`: also if its daemon is connected.
    Evict { name: String, force: bool },
    /// This node goes.
    Leave,
    /// The learner `new` becomes a voter in the very step in which `old` ceases to be one.
    Replace { old: String, new: String },
    /// This voter is to lead.
    Lead { name: String },
}

/// Where a PostgreSQL server is, for programs of its user on its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerPlace {
    /// The directory of its Unix socket.
    pub socket_directory: String,
    pub port: u16,
    /// The superuser that initdb made.
    pub user: String,
    /// Where pg_dump and pg_restore of its version are.
    pub programs: String,
    /// Whether the database may be replaced by a copy of another node's when this node has lost the group's order.
    pub may_rebuild: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Welcome {
        protocol: u32,
        group: String,
        node: NodeId,
        name: String,
        ordinal: u16,
    },
    /// The attach was ordered. No submission of an earlier incarnation can be ordered any more, and everything this node may
    /// have shown its clients lies at or below `serve_from`: clients wait until that is committed here.
    Attached {
        database: DatabaseId,
        serve_from: Position,
    },
    /// The next position. Payload: the encoded writeset, if certified and not submitted by the attached incarnation; nor if a forerunner of its server has applied it and keeps its transaction open.
    /// With `more`, `Body` frames follow: first the chunks in order, then nothing else.
    Ordered {
        position: Position,
        tag: Tag,
        verdict: Verdict,
        more: bool,
    },
    /// Payload: a further part for `position`; for `Fetch`, first the encoded writeset, then its chunks.
    Body {
        position: Position,
        more: bool,
    },
    ChunkOrdered {
        slot: SlotId,
        sequence: Sequence,
        index: u32,
    },
    TokenOutcome {
        slot: SlotId,
        sequence: Sequence,
        outcome: TokenOutcome,
    },
    /// The submission (or question) was never sent and never will be.
    Refused {
        slot: SlotId,
        sequence: Sequence,
        reason: RefusalReason,
    },
    Group(GroupStatus),
    Detached,
    /// The membership is as it was asked for.
    Done,
    /// So many nodes try what was to be rehearsed.
    Rehearsing {
        nodes: u32,
    },
    /// What became of it on one of them.
    Rehearsed {
        node: String,
        outcome: Rehearsal,
    },
    /// To be tried here. Payload: as of the request.
    Rehearse {
        number: u64,
        after: Position,
    },
    /// To be kept clear of writers here. Payload: as of the request.
    Clear {
        number: u64,
        patience_ms: u32,
    },
    /// To be applied ahead here. `tag` is the one that it will be submitted under, `number` this node's own. Payload: as of the request.
    Ahead {
        number: u64,
        tag: Tag,
        chunks: u32,
        after: Position,
        patience_ms: u32,
    },
    /// What was to be applied ahead under this number will not be submitted, or has a position already that is delivered with its writeset: to be rolled back.
    Over {
        number: u64,
    },
    /// To a manager: something is to be applied ahead, and no forerunner of its database is free.
    ForerunnerWanted,
    /// To a manager: the forerunner that applies this, if one does, is to stop. It has been told so itself ([`Reply::Over`]), and may be busy with a statement.
    AheadOver {
        tag: Tag,
    },
    /// The connection ends after this.
    Failed(Failure),
    /// Those in force; none if the daemon runs without TLS.
    Certificates(Vec<CertificateStatus>),
    Place(ServerPlace),
    Log(LogStatus),
    /// Payload: what was asked for, as text.
    Report,
    ReadFrom {
        number: u64,
        position: Position,
    },
    ReadRefused {
        number: u64,
        reason: RefusalReason,
    },
    /// These nodes were asked whether they show a position.
    Showing {
        number: u64,
        nodes: Vec<String>,
    },
    /// This one does, or nobody reads there.
    Shown {
        number: u64,
        node: String,
    },
    Lock {
        number: u64,
        session: LockSession,
        answer: LockAnswer,
    },
    LockRefused {
        number: u64,
        reason: RefusalReason,
    },
    /// To a manager: somebody waits for this position to be visible here. To be reported (`Progress`) at once when it is.
    Watch {
        position: Position,
    },
    /// To a manager: a session of another node has had to wait for the lock of the row with this key, or came to it after somebody else's change.
    Contended {
        key: Key,
    },
    /// To a manager: somebody looks at the conflicts. Answered `Conflicts`.
    AskConflicts,
    /// To a manager: how clients are to be treated from now on.
    Drain(Drain),
    /// How far a member is that is being drained: sessions, if they have been counted.
    Draining {
        leads: bool,
        sessions: Option<u32>,
    },
}

/// Whether clients are sent elsewhere, since the node is about to be shut down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drain {
    #[default]
    No,
    /// Nobody is let in; sessions end that have been idle, between transactions, for a while.
    Idle,
    /// No session begins another transaction either.
    All,
}

/// A pure function of the ordered history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// May be applied once everything up to `depends_on` is committed; commits in position order.
    Certified {
        depends_on: Position,
    },
    Aborted(AbortCause),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortCause {
    /// The key at `key_index` was also held by `winner`, ordered after the key's base.
    Conflict { winner: Position, winner_node: NodeId, key_index: u32 },
    /// The history needed to certify the base has been purged.
    BelowHorizon { horizon: Position },
    /// The writeset could not be decoded, or its chunks are incomplete.
    Malformed,
    /// A transaction with the same commit token was certified before.
    TokenUsed { first: Position },
    /// Somebody who asked for the token's outcome was told that it will never be committed.
    TokenFenced,
    /// The token may have been used at or before a position up to which tokens are forgotten.
    TokenTooOld { floor: Position },
    /// The session held group locks, and had been given up for lost when this was ordered: others may hold them.
    LocksLost,
    /// The key at `key_index` is pinned by the transaction that was prepared at `winner`, and is not decided on ([`crate::two_phase`]).
    Prepared { winner: Position, winner_node: NodeId, key_index: u32 },
    /// What COMMIT PREPARED or ROLLBACK PREPARED names is not prepared.
    NotPrepared,
    /// A transaction is prepared under this name.
    AlreadyPrepared,
    /// There is no room for another prepared transaction.
    TooManyPrepared,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// No majority can be reached: 25006.
    NoQuorum,
    /// Too much is waiting to be ordered: 53000, try again.
    Overloaded,
    /// This incarnation is not attached (any more).
    NotAttached,
    /// The group has contents for this database already.
    HasContents,
    /// A member does not read what this would have written ([`crate::lock`]).
    Format,
}

/// What became of a transaction that a node tried and rolled back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rehearsal {
    /// All that was sent can run there.
    Passed,
    /// What could not be tried, since somebody held a lock or for want of time, nobody knows of.
    Partly,
    /// Nobody tries anything for this database there.
    Absent,
    /// A statement cannot run there.
    Failed(RehearsalFailure),
    /// To [`Request::Clear`]: nobody is in the tables any more who did not ask the group first. What those who were in them have committed lies at or below.
    Clear { committed: Position },
}

/// PostgreSQL's error there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RehearsalFailure {
    /// SQLSTATE, in PostgreSQL's form of a number.
    pub code: u32,
    pub message: String,
    pub detail: String,
    pub hint: String,
    /// The last position with statements that was committed there: if it is news to whoever asked, this may be why.
    pub last_statement: Position,
    /// The same of any position: rows may be why, too.
    pub committed: Position,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus {
    pub quorum: bool,
    pub leader: Option<NodeId>,
    pub term: u64,
    pub members: Vec<MemberStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    pub node: NodeId,
    pub name: String,
    pub address: String,
    pub ordinal: u16,
    pub role: MemberRole,
    pub state: MemberState,
    /// Of the attached database; for `Control`, the highest of any database.
    pub committed: Position,
    /// The last position ordered in that database, as known here.
    pub ordered: Position,
    /// What is being copied to it.
    pub copy: Option<CopyStatus>,
    pub kind: NodeKind,
}

/// Transactions that were lost on a server over one table and kind of key, since the server started. Never the values of keys: whoever looks on need not
/// be allowed to see them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConflictCount {
    /// Both empty for all that are not counted apart.
    pub table: String,
    /// The columns: `(id)`.
    pub key: String,
    pub certification: u64,
    pub victim: u64,
    pub yielded: u64,
    /// The member whose transaction won last, and its position.
    pub winner: String,
    pub position: Position,
    /// Microseconds since 2000.
    pub last_at: u64,
}

/// A copy that is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyStatus {
    /// Empty for a whole server.
    pub database: String,
    /// The member that is copied from.
    pub from: String,
    pub bytes_done: u64,
    /// As large as the original is, which the copy need not be.
    pub bytes_total: u64,
    /// For how long.
    pub seconds: u64,
}

impl CopyStatus {
    /// How long it will take if it goes on like that; not known at first.
    pub fn seconds_left(&self) -> Option<u64> {
        let left = self.bytes_total.saturating_sub(self.bytes_done);
        (self.bytes_done > 0 && self.seconds > 0).then(|| {
            let left = u128::from(left) * u128::from(self.seconds) / u128::from(self.bytes_done);
            u64::try_from(left).unwrap_or(u64::MAX)
        })
    }
}

/// How much of the log is kept, and in which format it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    pub bytes_kept: u64,
    /// Beyond this the oldest end goes.
    pub bytes_max: u64,
    /// How fast it has grown in the last minutes.
    pub bytes_a_second: u64,
    /// What the group writes, and up to which format this node reads.
    pub format: u16,
    pub reads: u16,
    /// Members that do not read as far, or are not there to say so.
    pub waits_for: Vec<String>,
}

/// A certificate that a daemon uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateStatus {
    /// Its subject.
    pub name: String,
    /// Of an authority that is believed, not of the node.
    pub is_authority: bool,
    /// In hexadecimal digits.
    pub serial: String,
    /// Until when it counts, in seconds of Unix time.
    pub not_after: u64,
}

/// What a member is in the group's votes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemberRole {
    #[default]
    Voter,
    /// Gets the log, and has no vote yet.
    Learner,
    /// Takes the place of one that is leaving: votes with the new voters, in a change that is under way.
    Joining,
    /// Gives its place up: votes with the old voters, in a change that is under way.
    Leaving,
}

impl MemberRole {
    /// What a member of this kind is to the group, in one word or two: whether it votes yet is said of those that ever do.
    pub fn name(self, kind: NodeKind) -> &'static str {
        match (kind, self) {
            (NodeKind::Full, MemberRole::Voter) => "voter",
            (NodeKind::Full, MemberRole::Learner) => "learner",
            (NodeKind::Full, MemberRole::Joining) => "joining",
            (NodeKind::Full, MemberRole::Leaving) => "leaving",
            (NodeKind::QueryOnly, _) => "query-only",
            (NodeKind::Witness, MemberRole::Voter) => "witness",
            (NodeKind::Witness, MemberRole::Learner) => "witness learner",
            (NodeKind::Witness, MemberRole::Joining) => "witness joining",
            (NodeKind::Witness, MemberRole::Leaving) => "witness leaving",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// Its daemon is connected and its PostgreSQL attached.
    Online,
    /// Its daemon is connected; no PostgreSQL has attached.
    Detached,
    Unreachable,
    /// Its daemon is connected; its PostgreSQL can't apply what the group ordered.
    OutOfService,
    /// Online, and clients are sent elsewhere: it is about to be shut down.
    Draining,
    /// It gets a copy of a database or of a whole server.
    Copying,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
    pub hint: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    Protocol,
    WrongGroup,
    NotAuthorized,
    /// Another manager holds this database on this node.
    AlreadyAttached,
    /// The log no longer reaches back to `resume_after`.
    LogTruncated,
    /// `resume_after` lies beyond everything the group ever ordered: this is not the group this database belongs to.
    AheadOfGroup,
    ShuttingDown,
    /// The database has not been attached since this daemon started.
    NotAttached,
    /// The group has contents for this database already, so that it cannot bring its own.
    HasContents,
    /// The log no longer reaches back to `resume_after`, and a copy of another node's database is being made.
    Copying,
    /// What the database's values mean is not what other nodes' mean: its encoding, say, is another.
    Differs,
    /// This node is not (any more) a member of the group.
    Removed,
    /// What was asked of the membership cannot be done, or not now.
    Membership,
    /// This node has no databases.
    Witness,
    /// A query-only node cannot bring the group its contents.
    QueryOnly,
    /// The group has no contents for this database that could take the place of its own.
    NoContents,
    /// The session's locks may be held by others.
    LocksLost,
}

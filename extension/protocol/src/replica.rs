//! What a database is to replication on this node: one record in shared memory, written by the database's manager, read by all; and the
//! handles by which a process reaches everything that belongs to the database and to the server.

use std::sync::atomic::AtomicI64;

use gcs_writeset::bounds::{GROUP_MEMBERS_MAX, NAME_BYTES_MAX};
use gcs_writeset::link::{CopyStatus, Drain, GroupStatus, MemberRole, MemberState};
use gcs_writeset::{DatabaseId, Incarnation, NodeId, NodeKind, Position};

use crate::bounds::{NAME_BYTES, REASON_BYTES};
use crate::closed::Closed;
use crate::conflicts::{Conflict, Conflicts, Kind};
use crate::counters::Counters;
use crate::failure::Failure;
use crate::gate::Gate;
use crate::heat::Heat;
use crate::id::{Holds, ProcNo};
use crate::numbered::Atomic;
use crate::offer::Forerunner;
use crate::platform::{Platform, Wake};
use crate::progress::Progress;
use crate::recent::Recent;
use crate::sighting::Sighting;
use crate::slot::Slot;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::text::Text;
use crate::victim::Winner;
use crate::watch::Watch;
use crate::worker::Worker;

crate::numbered! {
    #[derive(Default)]
    pub enum Phase else Off {
        /// Not replicated; the entry is free.
        #[default]
        Off = 0,
        /// START REPLICATION is under way.
        Starting = 1,
        Active = 2,
        /// STOP REPLICATION is under way.
        Stopping = 3,
        /// Its contents no longer follow the group's order, or can't: out of service until it is rebuilt.
        Failed = 4,
    }
}

crate::numbered! {
    /// A member of the group as gcs sees it.
    #[derive(Default)]
    pub enum Presence else Unreachable {
        #[default]
        Online = 0,
        Detached = 1,
        Unreachable = 2,
        OutOfService = 3,
        Draining = 4,
        Copying = 5,
    }
}

impl Presence {
    pub fn name(self) -> &'static str {
        match self {
            Presence::Online => "online",
            Presence::Detached => "detached",
            Presence::Unreachable => "unreachable",
            Presence::OutOfService => "out of service",
            Presence::Draining => "draining",
            Presence::Copying => "copying",
        }
    }

    /// It follows the group's order, whether clients are sent elsewhere or not.
    pub fn is_online(self) -> bool {
        matches!(self, Presence::Online | Presence::Draining)
    }
}

impl From<MemberState> for Presence {
    fn from(state: MemberState) -> Presence {
        match state {
            MemberState::Online => Presence::Online,
            MemberState::Detached => Presence::Detached,
            MemberState::Unreachable => Presence::Unreachable,
            MemberState::OutOfService => Presence::OutOfService,
            MemberState::Draining => Presence::Draining,
            MemberState::Copying => Presence::Copying,
        }
    }
}

crate::numbered! {
    /// How clients are treated on this node, see [`Drain`].
    #[derive(Default)]
    pub enum Turnaway else No {
        #[default]
        No = 0,
        Idle = 1,
        All = 2,
    }
}

impl From<Drain> for Turnaway {
    fn from(drain: Drain) -> Turnaway {
        match drain {
            Drain::No => Turnaway::No,
            Drain::Idle => Turnaway::Idle,
            Drain::All => Turnaway::All,
        }
    }
}

crate::numbered! {
    /// What a member is in the group's votes.
    #[derive(Default)]
    pub enum Role else Learner {
        #[default]
        Voter = 0,
        Learner = 1,
        Joining = 2,
        Leaving = 3,
    }
}

impl From<Role> for MemberRole {
    fn from(role: Role) -> MemberRole {
        match role {
            Role::Voter => MemberRole::Voter,
            Role::Learner => MemberRole::Learner,
            Role::Joining => MemberRole::Joining,
            Role::Leaving => MemberRole::Leaving,
        }
    }
}

impl From<MemberRole> for Role {
    fn from(role: MemberRole) -> Role {
        match role {
            MemberRole::Voter => Role::Voter,
            MemberRole::Learner => Role::Learner,
            MemberRole::Joining => Role::Joining,
            MemberRole::Leaving => Role::Leaving,
        }
    }
}

crate::numbered! {
    /// What a member is for.
    #[derive(Default)]
    pub enum MemberKind else Full {
        #[default]
        Full = 0,
        QueryOnly = 1,
        Witness = 2,
    }
}

impl From<NodeKind> for MemberKind {
    fn from(kind: NodeKind) -> MemberKind {
        match kind {
            NodeKind::Full => MemberKind::Full,
            NodeKind::QueryOnly => MemberKind::QueryOnly,
            NodeKind::Witness => MemberKind::Witness,
        }
    }
}

impl From<MemberKind> for NodeKind {
    fn from(kind: MemberKind) -> NodeKind {
        match kind {
            MemberKind::Full => NodeKind::Full,
            MemberKind::QueryOnly => NodeKind::QueryOnly,
            MemberKind::Witness => NodeKind::Witness,
        }
    }
}

impl Member {
    pub fn kind(&self) -> NodeKind {
        self.kind.load().into()
    }

    /// What people call it.
    pub fn role_name(&self) -> &'static str {
        MemberRole::from(self.role.load()).name(self.kind())
    }
}

#[derive(Default)]
pub struct Member {
    pub node: AtomicU64,
    pub presence: Atomic<Presence>,
    pub role: Atomic<Role>,
    pub kind: Atomic<MemberKind>,
    pub ordinal: AtomicU32,
    pub committed: AtomicU64,
    pub ordered: AtomicU64,
    pub name: Text<NAME_BYTES_MAX>,
    pub address: Text<NAME_BYTES_MAX>,
    pub copy: Copying,
}

/// What is being copied to a member; nothing is if nobody is named.
#[derive(Default)]
pub struct Copying {
    pub from: Text<NAME_BYTES_MAX>,
    pub bytes_done: AtomicU64,
    pub bytes_total: AtomicU64,
    /// How long it will take, if that is known.
    pub seconds_left: AtomicU64,
}

impl Copying {
    /// As [`Copying::seconds_left`] has it.
    pub const NOT_KNOWN: u64 = u64::MAX;

    fn set(&self, copy: Option<&CopyStatus>) {
        let from = copy.map_or("", |copy| &copy.from);
        if !self.from.is(from) {
            self.from.set(from);
        }
        let Some(copy) = copy else { return };
        self.bytes_done.store(copy.bytes_done, Ordering::SeqCst);
        self.bytes_total.store(copy.bytes_total, Ordering::SeqCst);
        self.seconds_left.store(copy.seconds_left().unwrap_or(Copying::NOT_KNOWN), Ordering::SeqCst);
    }
}

#[derive(Default)]
pub struct Replica {
    pub phase: Atomic<Phase>,
    pub name: Text<NAME_BYTES>,
    pub group: Text<NAME_BYTES_MAX>,
    /// Why the phase is `Failed`.
    pub reason: Text<REASON_BYTES>,
    /// What can't be applied, if that is why.
    pub failure: Failure,
    pub manager: Holds,
    /// Who tries transactions of other nodes before they are ordered.
    pub rehearser: Holds,
    /// The last position with statements that was committed here, as far as this life of the server knows.
    last_statement: AtomicU64,
    /// How many sessions are about to copy or move the database as a whole: while there are any, no process of ours is connected to it.
    pub lent: AtomicU32,

    /// START REPLICATION brings contents that the group has not got.
    pub founds: AtomicBool,
    /// START REPLICATION has the group's contents take the place of what the database holds: until the copy is there it attaches for nothing
    /// but that.
    pub overwrites: AtomicBool,
    /// gcs makes a copy of another node's database, which is to take the place of this one.
    pub copying: AtomicBool,
    /// It attaches for nothing but to leave.
    pub leaving: AtomicBool,
    /// Clients are sent elsewhere.
    pub turnaway: Atomic<Turnaway>,

    /// gcs answers.
    pub greeted: AtomicBool,
    /// Why it does not, if so.
    pub link_trouble: Text<REASON_BYTES>,
    /// The link to gcs is up and this incarnation attached.
    pub attached: AtomicBool,
    /// Goes up with every attach; a backend that waited across one submits again.
    pub attaches: AtomicU64,
    pub quorum: AtomicBool,
    /// When the node last stopped being able to write, microseconds since 2000; meaningful while it can't.
    pub unwritable_since: AtomicI64,
    number: AtomicU32,
    node: AtomicU64,
    /// This node's place in the group, from 0; fixed while it is a member.
    pub ordinal: AtomicU32,
    /// This node applies what others write, and takes no writes itself; fixed while it is a member.
    is_query_only: AtomicBool,
    /// Clients may come in once this is committed here; `u64::MAX` until an attach said so.
    serve_from: AtomicU64,
    pub serving: AtomicBool,

    pub leader: AtomicU64,
    pub term: AtomicU64,
    pub member_count: AtomicU32,
    /// By how many positions the slowest member in service is behind.
    slowest_lag: AtomicU64,
    pub members: [Member; GROUP_MEMBERS_MAX],

    /// How far the writeset is that comes in on the second connection, see [`crate::fetcher`].
    pub fetched: Progress,

    /// Sessions that wait for a position to be visible here.
    pub readers: Watch,
    /// The manager, which is to report that a position is visible here the moment that it is.
    pub asked: Watch,
    /// How far the group is.
    pub sighting: Sighting,

    pub counters: Counters,
}

const UNKNOWN: u64 = u64::MAX;

impl Replica {
    pub fn number(&self) -> DatabaseId {
        DatabaseId(self.number.load(Ordering::SeqCst))
    }

    pub fn node(&self) -> NodeId {
        NodeId(self.node.load(Ordering::SeqCst))
    }

    pub fn is_attached(&self) -> bool {
        self.attached.load(Ordering::SeqCst)
    }

    pub fn attaches(&self) -> u64 {
        self.attaches.load(Ordering::SeqCst)
    }

    /// Whether it is to be left alone for a moment.
    pub fn is_lent(&self) -> bool {
        self.lent.load(Ordering::SeqCst) > 0
    }

    /// The link is up and the group has a majority.
    pub fn is_writable(&self) -> bool {
        self.is_attached() && self.quorum.load(Ordering::SeqCst)
    }

    /// The manager's: there is no link any more, as of that time.
    pub fn unlinked(&self, at: i64) {
        self.greeted.store(false, Ordering::SeqCst);
        self.set_writable(false, false, at);
    }

    /// By how many positions the slowest member in service is behind, as last reported.
    pub fn slowest_lag(&self) -> u64 {
        self.slowest_lag.load(Ordering::SeqCst)
    }

    /// This node is one for queries alone.
    pub fn is_query_only(&self) -> bool {
        self.is_query_only.load(Ordering::SeqCst)
    }

    /// How many members that vote this node reaches, itself among them if it does, and how many there are. The caller holds the lock that guards the
    /// members.
    pub fn reached(&self) -> (usize, usize) {
        let count = self.member_count.load(Ordering::SeqCst) as usize;
        let voters = || self.members.iter().take(count).filter(|member| member.role.load() != Role::Learner);
        (voters().filter(|member| member.presence.load() != Presence::Unreachable).count(), voters().count())
    }

    /// The manager's: what became of the link and the majority, `at` that time. True if the node can write now and could not before.
    pub fn set_writable(&self, attached: bool, quorum: bool, at: i64) -> bool {
        let before = self.is_writable();
        self.attached.store(attached, Ordering::SeqCst);
        self.quorum.store(quorum, Ordering::SeqCst);
        if before && !self.is_writable() {
            self.unwritable_since.store(at, Ordering::SeqCst);
        }
        !before && self.is_writable()
    }

    pub fn serve_from(&self) -> Position {
        Position(self.serve_from.load(Ordering::SeqCst))
    }

    /// Whether the group has taken this life of the server in, so that it is known how far it must come before it serves clients.
    pub fn has_attached(&self) -> bool {
        self.serve_from.load(Ordering::SeqCst) != UNKNOWN
    }

    pub fn last_statement(&self) -> Position {
        Position(self.last_statement.load(Ordering::SeqCst))
    }

    /// A position with statements is about to be committed here.
    pub fn note_statement(&self, position: Position) {
        self.last_statement.fetch_max(position.0, Ordering::SeqCst);
    }

    /// Clients come in again once this position, which can't be committed yet, is.
    pub fn hold_back(&self, position: Position) {
        self.serving.store(false, Ordering::SeqCst);
        let raised = self.serve_from.fetch_max(position.0, Ordering::SeqCst);
        debug_assert_ne!(raised, UNKNOWN, "nothing is applied before the first attach");
    }

    pub(crate) fn welcomed(&self, node: NodeId, ordinal: u16) {
        self.greeted.store(true, Ordering::SeqCst);
        self.node.store(node.0, Ordering::SeqCst);
        self.ordinal.store(u32::from(ordinal), Ordering::SeqCst);
    }

    pub(crate) fn attached_as(&self, number: DatabaseId, serve_from: Position) {
        self.number.store(number.0, Ordering::SeqCst);
        // Only the first attach of a server's life can be behind what its predecessor showed.
        let _ = self.serve_from.compare_exchange(UNKNOWN, serve_from.0, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// The group as gcs sees it. The caller holds the lock that guards the members.
    pub fn set_group(&self, status: &GroupStatus) {
        self.leader.store(status.leader.map_or(0, |leader| leader.0), Ordering::SeqCst);
        self.term.store(status.term, Ordering::SeqCst);
        for (entry, member) in self.members.iter().zip(&status.members) {
            entry.node.store(member.node.0, Ordering::SeqCst);
            entry.presence.store(member.state.into());
            entry.role.store(member.role.into());
            entry.kind.store(member.kind.into());
            if member.node == self.node() {
                self.is_query_only.store(member.kind == NodeKind::QueryOnly, Ordering::SeqCst);
            }
            entry.ordinal.store(u32::from(member.ordinal), Ordering::SeqCst);
            entry.committed.store(member.committed.0, Ordering::SeqCst);
            entry.ordered.store(member.ordered.0, Ordering::SeqCst);
            if !entry.name.is(&member.name) {
                entry.name.set(&member.name);
            }
            if !entry.address.is(&member.address) {
                entry.address.set(&member.address);
            }
            entry.copy.set(member.copy.as_ref());
        }
        let in_service =
            status.members.iter().filter(|member| Presence::from(member.state).is_online() && member.kind.has_databases());
        let slowest = in_service.map(|member| member.ordered.0.saturating_sub(member.committed.0)).max();
        self.slowest_lag.store(slowest.unwrap_or_default(), Ordering::SeqCst);
        let count = status.members.len().min(self.members.len());
        self.member_count.store(count as u32, Ordering::SeqCst);
    }

    /// Whether the group has no other member.
    pub fn is_alone(&self) -> bool {
        self.member_count.load(Ordering::SeqCst) <= 1
    }

    /// The name of a member, or its number where it is not known.
    pub fn node_name(&self, node: NodeId) -> String {
        self.member_name(node).unwrap_or_else(|| format!("{:016x}", node.0))
    }

    /// The name of a member; none if there is no such member.
    pub fn member_name(&self, node: NodeId) -> Option<String> {
        let count = self.member_count.load(Ordering::SeqCst) as usize;
        let mut members = self.members.iter().take(count);
        members.find(|member| member.node.load(Ordering::SeqCst) == node.0).map(|member| member.name.get())
    }
}

/// The processes of a server.
pub struct Server<P: Platform> {
    /// This life of the server.
    pub incarnation: Incarnation,
    /// One for each place in the process array.
    pub slots: P::Shared<[Slot]>,
    pub waker: P::Waker,
}

impl<P: Platform> Server<P> {
    pub fn slot_of(&self, process: ProcNo) -> Option<&Slot> {
        self.slots.get(process.0 as usize)
    }

    pub fn wake(&self, process: ProcNo) {
        self.waker.wake(process);
    }

    pub fn wake_holder(&self, duty: &Holds) {
        if let Some(process) = duty.get() {
            self.wake(process);
        }
    }
}

/// A replicated database, and what belongs to it.
pub struct Database<P: Platform> {
    pub index: usize,
    pub replica: P::Shared<Replica>,
    pub gate: Gate<P>,
    pub queue: P::Ring,
    pub workers: P::Shared<[Worker]>,
    pub recent: Recent<P>,
    pub conflicts: Conflicts<P>,
    pub heat: Heat<P>,
    pub closed: Closed<P>,
    pub forerunners: P::Shared<[Forerunner]>,
}

impl<P: Platform> Database<P> {
    /// Whether the node is back at everything that it may have shown to clients before.
    pub fn is_caught_up(&self) -> bool {
        self.gate.committed() >= self.replica.serve_from()
    }

    /// What a transaction of this node has lost to this winner.
    pub fn conflict(&self, kind: Kind, winner: Winner) -> Conflict {
        let Winner { position, node, table, key } = winner;
        let (node, application) = (self.replica.node_name(node), self.recent.application(position));
        Conflict { kind, table, key, position, node, application }
    }

    /// Makes the entry as new, for another database. The gate starts after `committed`.
    pub fn reset(&self, committed: Position, at: i64) {
        let replica = &self.replica;
        replica.founds.store(false, Ordering::SeqCst);
        replica.overwrites.store(false, Ordering::SeqCst);
        replica.copying.store(false, Ordering::SeqCst);
        replica.leaving.store(false, Ordering::SeqCst);
        replica.greeted.store(false, Ordering::SeqCst);
        replica.link_trouble.set("");
        replica.attached.store(false, Ordering::SeqCst);
        replica.quorum.store(false, Ordering::SeqCst);
        replica.unwritable_since.store(at, Ordering::SeqCst);
        replica.serving.store(false, Ordering::SeqCst);
        replica.serve_from.store(UNKNOWN, Ordering::SeqCst);
        replica.last_statement.store(0, Ordering::SeqCst);
        replica.member_count.store(0, Ordering::SeqCst);
        replica.slowest_lag.store(0, Ordering::SeqCst);
        replica.reason.set("");
        replica.failure.forget();
        replica.readers.clear();
        replica.asked.clear();
        replica.sighting.clear();
        self.recent.clear();
        self.conflicts.clear();
        self.heat.clear();
        self.closed.clear();
        self.gate.reset(committed);
    }
}

/// One database of one server: what most of this crate is about.
pub struct At<'a, P: Platform> {
    pub server: &'a Server<P>,
    pub database: &'a Database<P>,
}

impl<P: Platform> Clone for At<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Platform> Copy for At<'_, P> {}

impl<P: Platform> At<'_, P> {
    pub fn wake_manager(self) {
        self.server.wake_holder(&self.database.replica.manager);
    }

    /// Two numbers of which one changes whenever the position whose turn it is comes nearer to its commit.
    pub fn progress(self) -> (Position, u64) {
        let database = self.database;
        let next = database.gate.committed().next();
        let doers = database.workers.iter().map(|worker| &worker.process).chain([&database.replica.manager]);
        let slots = doers.filter_map(|duty| self.server.slot_of(duty.get()?));
        let in_slots: u64 = slots.map(|slot| slot.progress.towards(database.index, next)).sum();
        (next, in_slots + database.replica.fetched.towards(database.index, next))
    }
}

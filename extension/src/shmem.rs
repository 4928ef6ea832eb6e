//! All shared memory: what is there, who writes it, how large it is.
//!
//! | area | one for each | written by |
//! |---|---|---|
//! | [`Server`] | server | the launcher; once the postmaster |
//! | [`Database`] | `postgres_r.max_databases` | its manager; the launcher while it is free; counters by everybody |
//! | gate entries | database, [`gate::WINDOW`] of them | under the gate's lock |
//! | apply queue | database | its manager; read by remote backends |
//! | [`Recent`] | database | its manager |
//! | [`Conflicts`] | database | whoever loses |
//! | [`Worker`] | database, [`APPLY_WORKERS_MAX`] of them | the remote backend of that number |
//! | [`Slot`] | process | its process and the manager, by compare and swap |
//! | [`Request`] | [`REQUESTS`] | the session that asks, then launcher and manager |
//!
//! After a crash the postmaster lays everything out afresh: whatever matters longer is in the log of the group, or in the
//! replication origin.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};

use gcs_writeset::bounds::{GROUP_MEMBERS_MAX, NAME_BYTES_MAX};
use gcs_writeset::link::MemberState;
use gcs_writeset::{DatabaseId, Incarnation, NodeId, Position};
use pgrx::pg_sys;

use crate::conflicts::Conflicts;
use crate::gate::{self, Gate};
use crate::guc::{self, APPLY_WORKERS_MAX};
use crate::manager::request::Request;
use crate::pg::clock;
use crate::pg::lock::Lock;
use crate::pg::origin::OriginId;
use crate::pg::process::{self, ProcNo};
use crate::pg::shmem::{self, Arena, ByteRing, Condition, Demand, Handle, Text, bytes_of};
use crate::recent::Recent;
use crate::stats::Counters;
use crate::submit::slot::Slot;

/// STARTs and STOPs that may be under way at once; the next is told to try again.
pub const REQUESTS: usize = 8;

/// Room for a database's name and a reason.
pub const NAME: usize = 64;
pub const REASON: usize = 512;

const NOBODY: u32 = u32::MAX;

pub struct Shared {
    pub server: &'static Server,
    pub databases: Vec<DatabaseArea>,
    pub slots: &'static [Slot],
    pub requests: &'static [Request],
    /// Guards the table of databases, the requests and texts that are not a manager's own.
    pub table: Lock,
}

/// A database and what belongs to it.
pub struct DatabaseArea {
    pub index: usize,
    pub state: &'static Database,
    pub gate: Gate,
    pub queue: ByteRing,
    pub workers: &'static [Worker],
    pub recent: Recent,
    pub conflicts: Conflicts,
}

#[derive(Default)]
pub struct Server {
    pub incarnation: AtomicU64,
    pub launcher: Place,
    pub scout: Place,
    /// Goes up whenever the table of databases changes; what sessions cache is good for one number.
    pub table_version: AtomicU64,
    pub spool_swept: AtomicBool,
    /// The replicated databases are known: until then nobody knows whose writes are the group's.
    pub adopted: AtomicBool,
    pub adopted_changed: Condition,
}

/// Somebody's place in the process array, or nobody's.
pub struct Place(AtomicU32);

impl Default for Place {
    fn default() -> Self {
        Place(AtomicU32::new(NOBODY))
    }
}

impl Place {
    pub fn set(&self, process: Option<ProcNo>) {
        self.0.store(process.map_or(NOBODY, |p| p.0), Ordering::SeqCst);
    }

    pub fn get(&self) -> Option<ProcNo> {
        let place = self.0.load(Ordering::SeqCst);
        (place != NOBODY).then_some(ProcNo(place))
    }

    /// Takes the place if nobody has it.
    pub fn claim(&self, process: ProcNo) -> bool {
        self.0.compare_exchange(NOBODY, process.0, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    pub fn wake(&self) {
        if let Some(process) = self.get() {
            crate::pg::latch::wake(process);
        }
    }
}

/// What a database is to replication on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// Not replicated; the entry is free.
    Off = 0,
    /// START REPLICATION is under way.
    Starting = 1,
    Active = 2,
    /// STOP REPLICATION is under way.
    Stopping = 3,
    /// Its contents no longer follow the group's order, or can't: out of service until it is rebuilt.
    Failed = 4,
}

#[derive(Default)]
pub struct Database {
    phase: AtomicU32,
    oid: AtomicU32,
    origin: AtomicU32,
    pub name: Text<NAME>,
    pub group: Text<NAME_BYTES_MAX>,
    /// Why the phase is `Failed`.
    pub reason: Text<REASON>,
    pub manager: Place,
    /// The request that START or STOP answers, plus one.
    pub request: AtomicU32,

    /// The link to gcs is up and this incarnation attached.
    pub attached: AtomicBool,
    /// Goes up with every attach; a backend that waited across one submits again.
    pub attaches: AtomicU64,
    pub quorum: AtomicBool,
    /// When the node last stopped being able to write, microseconds since 2000; meaningful while it can't.
    pub unwritable_since: AtomicI64,
    number: AtomicU32,
    node: AtomicU64,
    pub ordinal: AtomicU32,
    /// Clients may come in once this is committed here; `u64::MAX` until an attach said so.
    pub serve_from: AtomicU64,
    pub serving: AtomicBool,
    pub serving_changed: Condition,
    pub writable_changed: Condition,
    /// No more positions wait to be applied than may.
    pub lag_fell: Condition,

    pub leader: AtomicU64,
    pub term: AtomicU64,
    pub member_count: AtomicU32,
    pub members: [Member; GROUP_MEMBERS_MAX],

    pub counters: Counters,
}

#[derive(Default)]
pub struct Member {
    pub node: AtomicU64,
    pub state: AtomicU32,
    pub ordinal: AtomicU32,
    pub committed: AtomicU64,
    pub ordered: AtomicU64,
    pub name: Text<NAME_BYTES_MAX>,
    pub address: Text<NAME_BYTES_MAX>,
}

impl Member {
    pub fn state(&self) -> &'static str {
        match self.state.load(Ordering::Relaxed) {
            0 => "online",
            1 => "detached",
            _ => "unreachable",
        }
    }

    pub fn set_state(&self, state: MemberState) {
        let number = match state {
            MemberState::Online => 0,
            MemberState::Detached => 1,
            MemberState::Unreachable => 2,
        };
        self.state.store(number, Ordering::Relaxed);
    }
}

impl Database {
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            1 => Phase::Starting,
            2 => Phase::Active,
            3 => Phase::Stopping,
            4 => Phase::Failed,
            _ => Phase::Off,
        }
    }

    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u32, Ordering::SeqCst);
        if let Some(shared) = get() {
            shared.server.table_version.fetch_add(1, Ordering::SeqCst);
        }
    }

    pub fn oid(&self) -> pg_sys::Oid {
        pg_sys::Oid::from(self.oid.load(Ordering::Relaxed))
    }

    pub fn set_oid(&self, oid: pg_sys::Oid) {
        self.oid.store(oid.to_u32(), Ordering::Relaxed);
    }

    pub fn origin(&self) -> OriginId {
        OriginId(self.origin.load(Ordering::Relaxed) as u16)
    }

    pub fn set_origin(&self, origin: OriginId) {
        self.origin.store(u32::from(origin.0), Ordering::Relaxed);
    }

    pub fn number(&self) -> DatabaseId {
        DatabaseId(self.number.load(Ordering::Relaxed))
    }

    pub fn set_number(&self, number: DatabaseId) {
        self.number.store(number.0, Ordering::Relaxed);
    }

    pub fn node(&self) -> NodeId {
        NodeId(self.node.load(Ordering::Relaxed))
    }

    pub fn set_node(&self, node: NodeId) {
        self.node.store(node.0, Ordering::Relaxed);
    }

    /// The link is up and the group has a majority.
    pub fn is_writable(&self) -> bool {
        self.attached.load(Ordering::SeqCst) && self.quorum.load(Ordering::SeqCst)
    }

    /// The manager's: what became of the link and the majority.
    pub fn set_writable(&self, attached: bool, quorum: bool) {
        let before = self.is_writable();
        self.attached.store(attached, Ordering::SeqCst);
        self.quorum.store(quorum, Ordering::SeqCst);
        if before && !self.is_writable() {
            self.unwritable_since.store(clock::now(), Ordering::SeqCst);
        }
        if !before && self.is_writable() {
            self.writable_changed.broadcast();
        }
    }

    pub fn serve_from(&self) -> Position {
        Position(self.serve_from.load(Ordering::SeqCst))
    }

    /// The name of a member, or its number where it is not known.
    pub fn node_name(&self, node: NodeId) -> String {
        let count = self.member_count.load(Ordering::Relaxed) as usize;
        self.members
            .iter()
            .take(count)
            .find(|member| member.node.load(Ordering::Relaxed) == node.0)
            .map_or_else(|| format!("{:016x}", node.0), |member| member.name.get())
    }
}

/// What a remote backend does just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Doing {
    Absent = 0,
    /// Asleep, free for work.
    Idle = 1,
    /// Told to look for work.
    Called = 2,
    Applying = 3,
    /// Waits for a position to be committed: one it depends on, or the one before its own.
    Waiting = 4,
}

#[derive(Default)]
pub struct Worker {
    doing: AtomicU32,
    pub place: Place,
    pub pid: AtomicI32,
    /// 0 when it has none.
    pub position: AtomicU64,
    /// The committed position it sleeps for, while it waits for a dependency.
    pub awaits: AtomicU64,
    /// A lower position than its own has nobody to apply it.
    pub let_go: AtomicBool,
}

impl Worker {
    pub fn doing(&self) -> Doing {
        match self.doing.load(Ordering::SeqCst) {
            1 => Doing::Idle,
            2 => Doing::Called,
            3 => Doing::Applying,
            4 => Doing::Waiting,
            _ => Doing::Absent,
        }
    }

    pub fn set_doing(&self, doing: Doing) {
        self.doing.store(doing as u32, Ordering::SeqCst);
    }

    /// Calls it if it sleeps; whoever gets `true` is the only one who did.
    pub fn call(&self) -> bool {
        let called = self
            .doing
            .compare_exchange(Doing::Idle as u32, Doing::Called as u32, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
        if called {
            self.place.wake();
        }
        called
    }
}

static SHARED: Handle<Shared> = Handle::unset();

/// `None` when the library was not preloaded.
pub fn get() -> Option<&'static Shared> {
    SHARED.get()
}

/// Called while libraries are preloaded.
pub fn install() {
    shmem::install(demand, lay_out);
}

fn demand() -> Demand {
    let databases = guc::max_databases();
    let one = bytes_of::<Database>(1)
        + Gate::bytes()
        + guc::apply_queue_bytes().next_multiple_of(64)
        + bytes_of::<Worker>(APPLY_WORKERS_MAX)
        + Recent::bytes()
        + Conflicts::bytes();
    let bytes =
        bytes_of::<Server>(1) + databases * one + bytes_of::<Slot>(process::places()) + bytes_of::<Request>(REQUESTS);
    Demand { bytes, locks: 1 + 2 * databases }
}

fn lay_out(arena: &mut Arena) {
    let server = &arena.slice::<Server>(1)[0];
    // Random enough: the standard library seeds it from the system for every process.
    let drawn = RandomState::new().build_hasher().finish();
    server.incarnation.store(drawn.max(1), Ordering::Relaxed);
    let table = arena.lock();
    let databases = (0..guc::max_databases())
        .map(|index| DatabaseArea {
            index,
            state: &arena.slice::<Database>(1)[0],
            gate: Gate::lay_out(arena),
            queue: arena.ring(guc::apply_queue_bytes()),
            workers: arena.slice::<Worker>(APPLY_WORKERS_MAX),
            recent: Recent::lay_out(arena),
            conflicts: Conflicts::lay_out(arena),
        })
        .collect();
    let slots = arena.slice::<Slot>(process::places());
    let requests = arena.slice::<Request>(REQUESTS);
    SHARED.set(Shared { server, databases, slots, requests, table });
}

impl Shared {
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(self.server.incarnation.load(Ordering::Relaxed))
    }

    /// This process's slot.
    pub fn my_slot(&self) -> Option<(&'static Slot, ProcNo)> {
        let me = process::me()?;
        self.slots.get(me.0 as usize).map(|slot| (slot, me))
    }

    pub fn slot_of(&self, process: ProcNo) -> Option<&'static Slot> {
        self.slots.get(process.0 as usize)
    }

    /// The entry of a database that is not `Off`.
    pub fn database(&self, oid: pg_sys::Oid) -> Option<&DatabaseArea> {
        self.databases.iter().find(|area| area.state.phase() != Phase::Off && area.state.oid() == oid)
    }
}

impl DatabaseArea {
    /// Whether the node is back at everything that it may have shown to clients before.
    pub fn caught_up(&self) -> bool {
        self.gate.committed() >= self.state.serve_from()
    }

    /// Two numbers of which one changes whenever the position whose turn it is comes nearer to its commit.
    pub fn progress(&self) -> (Position, u64) {
        let next = self.gate.committed().next();
        let slots = get().map(|shared| shared.slots).unwrap_or_default();
        let doers = self.workers.iter().map(|worker| &worker.place).chain([&self.state.manager]);
        let done =
            doers.filter_map(|place| slots.get(place.get()?.0 as usize)).map(|slot| slot.progress.towards(self, next));
        (next, done.sum())
    }

    /// Makes the entry as new, for another database. The gate starts after `committed`.
    pub fn reset(&self, committed: Position) {
        let state = self.state;
        state.attached.store(false, Ordering::SeqCst);
        state.quorum.store(false, Ordering::SeqCst);
        state.unwritable_since.store(clock::now(), Ordering::SeqCst);
        state.serving.store(false, Ordering::SeqCst);
        state.serve_from.store(u64::MAX, Ordering::SeqCst);
        state.member_count.store(0, Ordering::SeqCst);
        state.reason.set("");
        self.recent.clear();
        self.conflicts.clear();
        self.gate.reset(committed);
    }
}

const _: () = assert!(gate::WINDOW.is_power_of_two());

//! All shared memory of this server: what is there, who writes it, how large it is.
//!
//! | area | one for each | written by |
//! |---|---|---|
//! | [`Registry`] | server | the launcher; once the postmaster |
//! | [`Entry`], [`Replica`], [`Conditions`] | `postgres_r.max_databases` | the database's manager; the launcher while the entry is free; counters by every process |
//! | entries of the gate | database, [`WINDOW`] of them | whoever holds the gate's lock |
//! | apply queue | database | its manager; read by remote backends |
//! | recent winners | database | its manager |
//! | conflicts, hot rows | database | whoever loses |
//! | [`Leases`] | database, [`LEASES`] of them | the leaser, and who draws values |
//! | [`Worker`] | database, [`APPLY_WORKERS_MAX`] of them | the remote backend of that number |
//! | [`Forerunner`] | database, [`FORERUNNERS`] of them | the forerunner of that number; read by the manager |
//! | [`Build`] | database, [`BUILDS`] of them | the rehearser; its stage by the builder of that number too |
//! | [`Slot`] | process | its process and the manager, by compare and swap |
//! | [`Request`] | [`REQUESTS`] | the session that asks, then launcher and manager |
//! | [`Verification`] | database | see there |
//!
//! What lies there is of `postgres_r_protocol`, but for what only PostgreSQL knows. After a crash the postmaster lays everything out afresh:
//! whatever matters longer is in the log of the group, or in the replication origin.

pub mod building;
pub mod leases;
pub mod making;
pub mod platform;
pub mod request;
pub mod verification;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use gcs_writeset::{Incarnation, Position};
use pgrx::pg_sys;
use postgres_r_protocol::bounds::{CLOSED_TABLES, CONFLICTS_COUNTED, CONFLICTS_KEPT, FORERUNNERS, HOT_KEYS, RECENT, WINDOW};
use postgres_r_protocol::closed::{self, Closed};
use postgres_r_protocol::conflicts::{self, Conflicts};
use postgres_r_protocol::gate::{self, Gate};
use postgres_r_protocol::heat::{self, Heat};
use postgres_r_protocol::id::{Holds, ProcNo};
use postgres_r_protocol::offer::Forerunner;
use postgres_r_protocol::recent::{self, Recent};
use postgres_r_protocol::replica::{At, Database, Phase, Replica, Server};
use postgres_r_protocol::slot::Slot;
use postgres_r_protocol::worker::Worker;

use crate::guc::{self, APPLY_WORKERS_MAX};
use crate::pg::clock;
use crate::pg::latch;
use crate::pg::lock::Lock;
use crate::pg::origin::OriginId;
use crate::pg::process;
use crate::pg::shmem::{self, Arena, Condition, Demand, Handle, bytes_of};
use crate::pg::shutdown;
use crate::pg::worker;
use building::{BUILDS, Build};
use leases::{LEASES, Leases};
use making::{Birth, Making};
use request::Request;
use verification::Verification;

pub use platform::{Conditions, Postgres, Waker};

/// STARTs and STOPs that may be under way at once; the next is told to try again.
pub const REQUESTS: usize = 8;

/// What a process knows of the server's shared memory: where everything is.
pub struct Node {
    pub registry: &'static Registry,
    pub server: &'static Server<Postgres>,
    pub databases: Vec<DatabaseArea>,
    pub requests: &'static [Request],
    /// Guards the table of databases, the requests and texts that are not a manager's own.
    pub table: Lock,
}

/// What the server has once.
#[derive(Default)]
pub struct Registry {
    pub launcher: Holds,
    pub scout: Holds,
    /// Goes up whenever the table of databases changes; what sessions cache is good for one number.
    pub table_version: AtomicU64,
    pub spool_swept: AtomicBool,
    /// The replicated databases are known: until then nobody knows whose writes are the group's.
    pub adopted: AtomicBool,
    /// How many sessions are about to give a database's place to another: what is known is about to be wrong.
    pub replacing: AtomicU32,
    /// The server was shut down in order before it started: everything that it has ever shown is there.
    pub has_all: AtomicBool,
    /// There is no replication origin of a database that is gone.
    pub origins_swept: AtomicBool,
    pub adopted_changed: Condition,
}

impl Registry {
    /// Whether it is known which databases are replicated.
    pub fn knows_databases(&self) -> bool {
        // In this order: whoever replaces one makes it unknown before it stops replacing.
        self.replacing.load(Ordering::SeqCst) == 0 && self.adopted.load(Ordering::SeqCst)
    }
}

/// What only this server knows of a replicated database.
#[derive(Default)]
pub struct Entry {
    oid: AtomicU32,
    origin: AtomicU32,
    /// The request that START or STOP answers, plus one.
    pub request: AtomicU32,
    /// STOP is to succeed also where the group cannot be told.
    pub by_force: AtomicBool,
    /// START is to succeed also where the database has contents, and the group's take their place.
    pub overwrite: AtomicBool,
    /// It was out of service when STOP came.
    pub had_failed: AtomicBool,
    pub making: Making,
}

/// A database and what belongs to it.
pub struct DatabaseArea {
    database: Database<Postgres>,
    server: &'static Server<Postgres>,
    pub entry: &'static Entry,
    pub conditions: &'static Conditions,
    pub leases: Leases,
    pub verification: &'static Verification,
    pub builds: &'static [Build],
}

impl Deref for DatabaseArea {
    type Target = Database<Postgres>;

    fn deref(&self) -> &Database<Postgres> {
        &self.database
    }
}

impl DatabaseArea {
    pub fn at(&self) -> At<'_, Postgres> {
        At { server: self.server, database: &self.database }
    }

    pub fn oid(&self) -> pg_sys::Oid {
        pg_sys::Oid::from(self.entry.oid.load(Ordering::Relaxed))
    }

    pub fn origin(&self) -> OriginId {
        OriginId(self.entry.origin.load(Ordering::Relaxed) as u16)
    }

    pub fn set_origin(&self, origin: OriginId) {
        self.entry.origin.store(u32::from(origin.0), Ordering::Relaxed);
    }

    /// Names the database that a free entry is for from now on.
    pub fn fill(&self, oid: pg_sys::Oid, name: &str, group: &str) {
        self.entry.oid.store(oid.to_u32(), Ordering::Relaxed);
        self.replica.name.set(name);
        self.replica.group.set(group);
        self.set_origin(OriginId(0));
        self.entry.request.store(0, Ordering::SeqCst);
        self.entry.making.birth.store(Birth::Ordinary);
        self.entry.making.is_plain.store(false, Ordering::SeqCst);
        self.entry.making.is_due.store(true, Ordering::SeqCst);
    }

    pub fn phase(&self) -> Phase {
        self.replica.phase.load()
    }

    pub fn set_phase(&self, phase: Phase) {
        self.replica.phase.store(phase);
        if let Some(node) = get() {
            node.registry.table_version.fetch_add(1, Ordering::SeqCst);
        }
        // A client that waits to be let in is to see it.
        self.conditions.serving_changed();
    }

    /// Wakes every process of ours that is connected to the database, but for its manager.
    pub fn wake_helpers(&self) {
        wake(self.leases.leaser);
        self.workers.iter().for_each(|worker| wake(&worker.process));
        wake(&self.replica.rehearser);
        self.forerunners.iter().for_each(|forerunner| wake(&forerunner.process));
        self.builds.iter().for_each(|build| wake(&build.process));
        wake(&self.verification.verifier);
        wake(&self.verification.coordinator);
        wake(&self.entry.making.maker);
    }

    /// There may be databases that this one's maker is to make or to drop.
    pub fn is_to_make(&self) {
        self.entry.making.is_due.store(true, Ordering::SeqCst);
        wake(&self.entry.making.maker);
        if let Some(node) = get() {
            wake(&node.registry.launcher);
        }
    }

    /// Whether processes of ours may be connected to it for the sake of clients.
    pub fn is_in_use(&self) -> bool {
        self.phase() == Phase::Active && !self.replica.is_lent()
    }

    pub fn reset(&self, committed: Position) {
        self.database.reset(committed, clock::now());
        self.leases.clear();
    }
}

static NODE: Handle<Node> = Handle::unset();

/// None when the library was not preloaded.
pub fn get() -> Option<&'static Node> {
    NODE.get()
}

/// Called while libraries are preloaded.
pub fn install() {
    shmem::install(demand, lay_out);
}

/// Wakes the process that has a duty, if any has.
pub fn wake(duty: &Holds) {
    if let Some(process) = duty.get() {
        latch::wake(process);
    }
}

fn demand() -> Demand {
    let databases = guc::max_databases();
    let one = bytes_of::<Replica>(1)
        + bytes_of::<Entry>(1)
        + bytes_of::<Conditions>(1)
        + bytes_of::<gate::Header>(1)
        + bytes_of::<gate::Entry>(WINDOW)
        + guc::apply_queue_bytes().next_multiple_of(64)
        + bytes_of::<Worker>(APPLY_WORKERS_MAX)
        + bytes_of::<recent::Entry>(RECENT)
        + bytes_of::<conflicts::Memory>(1)
        + bytes_of::<conflicts::Entry>(CONFLICTS_KEPT)
        + bytes_of::<conflicts::Count>(CONFLICTS_COUNTED)
        + bytes_of::<leases::Entry>(LEASES)
        + bytes_of::<Holds>(1)
        + bytes_of::<Verification>(1)
        + bytes_of::<heat::Memory>(1)
        + bytes_of::<heat::Entry>(HOT_KEYS)
        + bytes_of::<closed::Memory>(1)
        + bytes_of::<closed::Entry>(CLOSED_TABLES)
        + bytes_of::<Forerunner>(FORERUNNERS)
        + bytes_of::<Build>(BUILDS);
    let bytes =
        bytes_of::<Registry>(1) + databases * one + bytes_of::<Slot>(process::places()) + bytes_of::<Request>(REQUESTS);
    Demand { bytes, locks: 1 + 3 * databases }
}

fn lay_out(arena: &mut Arena) {
    let registry = &arena.slice::<Registry>(1)[0];
    registry.has_all.store(shutdown::take(), Ordering::SeqCst);
    let table = arena.lock();
    let conditions: Vec<&'static Conditions> = (0..guc::max_databases()).map(|_| &arena.slice::<Conditions>(1)[0]).collect();
    let slots = arena.slice::<Slot>(process::places());
    // Random enough: the standard library seeds it from the system for every process.
    let drawn = RandomState::new().build_hasher().finish();
    let server = Server { incarnation: Incarnation(drawn.max(1)), slots, waker: Waker::new(conditions.clone()) };
    // As long-lived as the handle itself: the postmaster lays out once in a server's life.
    let server: &'static Server<Postgres> = Box::leak(Box::new(server));
    let databases = conditions.into_iter().enumerate().map(|(index, conditions)| DatabaseArea {
        database: lay_out_database(arena, index),
        server,
        entry: &arena.slice::<Entry>(1)[0],
        leases: {
            let entries = arena.slice::<leases::Entry>(LEASES);
            Leases::new(entries, arena.lock(), conditions.leases_answered(), &arena.slice::<Holds>(1)[0])
        },
        conditions,
        verification: &arena.slice::<Verification>(1)[0],
        builds: arena.slice(BUILDS),
    });
    let databases = databases.collect();
    let requests = arena.slice::<Request>(REQUESTS);
    NODE.set(Node { registry, server, databases, requests, table });
}

fn lay_out_database(arena: &mut Arena, index: usize) -> Database<Postgres> {
    let gate = Gate::new(&arena.slice::<gate::Header>(1)[0], arena.slice::<gate::Entry>(WINDOW), arena.lock());
    let memory = &arena.slice::<conflicts::Memory>(1)[0];
    let (kept, counted) = (arena.slice(CONFLICTS_KEPT), arena.slice(CONFLICTS_COUNTED));
    Database {
        index,
        replica: &arena.slice::<Replica>(1)[0],
        gate,
        queue: arena.ring(guc::apply_queue_bytes()),
        workers: arena.slice::<Worker>(APPLY_WORKERS_MAX),
        recent: Recent::new(arena.slice(RECENT)),
        conflicts: Conflicts::new(arena.lock(), memory, kept, counted),
        heat: Heat::new(&arena.slice::<heat::Memory>(1)[0], arena.slice(HOT_KEYS)),
        closed: Closed::new(&arena.slice::<closed::Memory>(1)[0], arena.slice(CLOSED_TABLES)),
        forerunners: arena.slice(FORERUNNERS),
    }
}

impl Node {
    /// How many remote backends each database is to have: as many as the setting says, but not so many that nobody else has room: the server's
    /// logical replication launcher, our own launcher, a scout; for each database its manager, leaser and rehearser.
    pub fn apply_workers(&self) -> usize {
        const OF_THE_SERVER: usize = 3;
        const OF_A_DATABASE: usize = 3;
        let databases = self.databases.iter().filter(|area| area.phase() != Phase::Off).count().max(1);
        let room = worker::room().saturating_sub(OF_THE_SERVER + databases * OF_A_DATABASE) / databases;
        guc::apply_workers().min(room.max(1))
    }

    /// This process's slot.
    pub fn my_slot(&self) -> Option<(&'static Slot, ProcNo)> {
        let me = process::me()?;
        self.server.slots.get(me.0 as usize).map(|slot| (slot, me))
    }

    pub fn slot_of(&self, process: ProcNo) -> Option<&'static Slot> {
        self.server.slots.get(process.0 as usize)
    }

    /// The entry of a database that is not `Off`.
    pub fn database(&self, oid: pg_sys::Oid) -> Option<&DatabaseArea> {
        self.databases.iter().find(|area| area.phase() != Phase::Off && area.oid() == oid)
    }

    /// An entry that no database has.
    pub fn free_entry(&self) -> Option<&DatabaseArea> {
        self.databases.iter().find(|area| area.phase() == Phase::Off && area.replica.manager.get().is_none())
    }
}

/// This process's slot, if there is shared memory and the process has a place.
pub fn my_slot() -> Option<&'static Slot> {
    get()?.my_slot().map(|(slot, _)| slot)
}

const _: () = assert!(WINDOW.is_power_of_two());

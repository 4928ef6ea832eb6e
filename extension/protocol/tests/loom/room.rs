//! A server for one interleaving: its shared memory, made of loom's atomics and locks, and what processes do in it.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use gcs_writeset::link::{AbortCause, Reply, Verdict};
use gcs_writeset::{DatabaseId, Incarnation, NodeId, Position, Sequence, SlotId, Tag};
use loom::sync::{Notify, RwLock};
use loom::thread::{self, ThreadId};
use postgres_r_protocol::assembly::{Spool, SpoolFile};
use postgres_r_protocol::closed::{self, Closed};
use postgres_r_protocol::conflicts::Conflicts;
use postgres_r_protocol::dispatch::{Dispatch, Me, Taken};
use postgres_r_protocol::ending::{self, Released};
use postgres_r_protocol::gate::{Gate, Job, Storage};
use postgres_r_protocol::heat::Heat;
use postgres_r_protocol::id::{LocalXid, Lsn, Moment, ProcNo};
use postgres_r_protocol::platform::{Exclusion, Planted, Platform, Ring, Wake};
use postgres_r_protocol::progress::Progress;
use postgres_r_protocol::recent::Recent;
use postgres_r_protocol::replica::{At, Database, Phase, Server};
use postgres_r_protocol::slot::{Slot, State};
use postgres_r_protocol::sync::tried;
use postgres_r_protocol::turn::{self, LocalTurn, Unfinished, Wait};
use postgres_r_protocol::worker::Worker;

/// Far more than the models need, and little enough that places are used again.
pub const WINDOW: usize = 4;

pub const NO_FAULT: u8 = 0;
/// What is submitted is of this one.
pub const TRANSACTION: LocalXid = LocalXid(1);
/// Whoever passes the turn on wakes nobody.
pub const TURN_WAKES_NOBODY: u8 = 1;
/// A backend that waits for its turn does not look whether it was told to let an earlier position through.
pub const YIELD_UNHEARD: u8 = 2;

/// Loom as a platform, with one mistake planted.
pub struct Loom<const FAULT: u8>;

impl<const FAULT: u8> Platform for Loom<FAULT> {
    type Shared<T: ?Sized + 'static> = Arc<T>;
    type Lock = Lock;
    type Waker = Latches;
    type Ring = Bytes;

    fn planted(mistake: Planted) -> bool {
        match mistake {
            Planted::TurnWakesNobody => FAULT == TURN_WAKES_NOBODY,
            Planted::YieldUnheard => FAULT == YIELD_UNHEARD,
            _ => false,
        }
    }
}

pub struct Lock(RwLock<()>);

impl Default for Lock {
    fn default() -> Self {
        Lock(RwLock::new(()))
    }
}

impl Exclusion for Lock {
    fn exclusive<R>(&self, critical: impl FnOnce() -> R) -> R {
        tried::step();
        let _held = self.0.write().unwrap();
        uninterrupted(critical)
    }

    fn shared<R>(&self, critical: impl FnOnce() -> R) -> R {
        tried::step();
        let _held = self.0.read().unwrap();
        uninterrupted(critical)
    }
}

/// One latch a process, like PostgreSQL's.
pub struct Latches(Vec<Notify>);

impl Wake for Latches {
    fn wake(&self, process: ProcNo) {
        tried::step();
        self.0[process.0 as usize].notify();
    }

    fn ahead(&self, _: usize, _: u64) {}

    /// A condition variable: all that sleep are woken.
    fn committed(&self, _: usize) {
        for latch in &self.0 {
            tried::step();
            latch.notify();
        }
    }

    fn writable(&self, _: usize) {}
}

/// Writesets have no bytes here.
pub struct Bytes;

impl Ring for Bytes {
    fn size(&self) -> usize {
        1024
    }

    fn write(&self, _: usize, _: &[u8]) {}

    fn read(&self, _: usize, _: usize, _: &mut Vec<u8>) {}
}

/// No writeset is large.
pub struct NoSpool;

pub enum NoFile {}

impl Spool for NoSpool {
    type File = NoFile;

    fn create(&self, _: Position) -> io::Result<NoFile> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl SpoolFile for NoFile {
    fn append(&mut self, _: &[u8]) -> io::Result<()> {
        match *self {}
    }

    fn length(&self) -> u64 {
        match *self {}
    }

    fn discard(self) {}
}

/// The server, and its only database. Position 0 is committed.
pub struct Room<const FAULT: u8 = NO_FAULT> {
    pub server: Server<Loom<FAULT>>,
    pub database: Database<Loom<FAULT>>,
    members: Lock,
}

impl Room {
    pub fn new(processes: usize, workers: usize) -> Arc<Room> {
        Room::with_fault(processes, workers)
    }
}

impl<const FAULT: u8> Room<FAULT> {
    pub fn with_fault(processes: usize, workers: usize) -> Arc<Room<FAULT>> {
        let server = Server::<Loom<FAULT>> {
            incarnation: Incarnation(1),
            slots: many(processes),
            waker: Latches((0..processes).map(|_| Notify::new()).collect()),
        };
        let database = Database::<Loom<FAULT>> {
            index: 0,
            replica: Arc::default(),
            gate: Gate::new(Arc::default(), many(WINDOW), Lock::default()),
            queue: Bytes,
            workers: many::<Worker>(workers),
            recent: Recent::new(many(1)),
            conflicts: Conflicts::new(Lock::default(), Arc::default(), many(1), many(1)),
            heat: Heat::new(Arc::default(), many(0)),
            closed: Closed::new(Arc::new(closed::Memory::default()), Arc::from(Vec::<closed::Entry>::new())),
            forerunners: many(1),
        };
        database.gate.reset(Position(0));
        database.replica.phase.store(Phase::Active);
        Arc::new(Room { server, database, members: Lock::default() })
    }

    pub fn at(&self) -> At<'_, Loom<FAULT>> {
        At { server: &self.server, database: &self.database }
    }

    pub fn gate(&self) -> &Gate<Loom<FAULT>> {
        &self.database.gate
    }

    pub fn slot(&self, process: ProcNo) -> &Slot {
        self.server.slot_of(process).unwrap()
    }

    /// Until somebody wakes the process; or, once in an interleaving, for no reason at all.
    pub fn sleep(&self, process: ProcNo) {
        self.server.waker.0[process.0 as usize].wait();
    }

    /// A backend opens a submission and sends it.
    pub fn submit(&self, process: ProcNo) -> Sequence {
        let slot = self.slot(process);
        slot.in_transaction(TRANSACTION);
        let sequence = slot.open(0).unwrap();
        assert!(slot.send(sequence));
        sequence
    }

    /// A backend opens its next submission, and sleeps while a manager has yet to notice that it left the last one.
    pub fn open_next(&self, process: ProcNo) -> Sequence {
        loop {
            if let Some(sequence) = self.slot(process).open(0) {
                return sequence;
            }
            self.sleep(process);
        }
    }

    /// A backend waits for the verdict on its only copy.
    pub fn wait_for_verdict(&self, process: ProcNo) -> State {
        loop {
            match self.slot(process).state() {
                State::Open | State::Sent | State::Deciding => self.sleep(process),
                verdict => return verdict,
            }
        }
    }

    /// A certified backend commits when its turn comes, or does not; and its transaction ends. True if it has committed.
    pub fn commit_in_turn(&self, process: ProcNo) -> bool {
        self.commit_after(process, || ()).is_ok()
    }

    /// The same; `freed` runs at the transaction's end, when its locks are given up.
    pub fn commit_after(&self, process: ProcNo, freed: impl FnOnce()) -> Result<(), Unfinished> {
        let (slot, now) = (self.slot(process), Moment::default());
        let position = slot.position();
        let mut waiting = LocalTurn::new(self.at(), slot, position, std::time::Duration::MAX, now);
        let came = loop {
            match waiting.step(self.at(), slot, false, now) {
                Wait::Turn => break Ok(()),
                Wait::Unfinished(why) => break Err(why),
                Wait::Sleep(_) => self.sleep(process),
            }
        };
        if came.is_ok() {
            turn::pass(self.at(), position, Lsn(position.0));
        }
        freed();
        let released = ending::release(self.at(), slot);
        assert_eq!(released, if came.is_ok() { Released::Nothing } else { Released::HandedOver(position) });
        came
    }

    /// The manager takes a position of this node's own from its stream.
    pub fn take_own(&self, position: u64, process: ProcNo, sequence: Sequence, verdict: Verdict) {
        self.take(position, SlotId(process.0), sequence, self.server.incarnation, verdict);
    }

    /// The manager takes an aborted position of another node.
    pub fn take_aborted(&self, position: u64) {
        self.take(position, SlotId(0), Sequence(0), Incarnation(2), Verdict::Aborted(AbortCause::Malformed));
    }

    /// The manager takes a position that another node wrote, and that a forerunner may have applied.
    pub fn take_ahead(&self, position: u64, sequence: Sequence, verdict: Verdict) {
        self.take_with(position, ahead(sequence), verdict, &[]);
    }

    /// The manager takes a position that another node wrote.
    pub fn take_foreign(&self, position: u64, depends_on: u64) {
        let depends_on = Position(depends_on);
        self.take(position, SlotId(0), Sequence(0), Incarnation(2), Verdict::Certified { depends_on });
    }

    fn take(&self, position: u64, slot: SlotId, sequence: Sequence, incarnation: Incarnation, verdict: Verdict) {
        let tag = Tag { database: DatabaseId(1), node: NodeId(0), incarnation, slot, sequence };
        // Any bytes will do where there is a writeset.
        let writeset: &[u8] = if incarnation == self.server.incarnation { &[] } else { &[0] };
        self.take_with(position, tag, verdict, writeset);
    }

    fn take_with(&self, position: u64, tag: Tag, verdict: Verdict, writeset: &[u8]) {
        let position = Position(position);
        let reply = Reply::Ordered { position, tag, verdict, more: false };
        let progress = Progress::default();
        let me = Me { pid: 0, progress: &progress, at: 0 };
        let taken = Dispatch::new(NoSpool).take(self.at(), me, &self.members, &reply, writeset).unwrap();
        assert_eq!(taken, Taken::Done);
    }

    /// Nobody is left at work: a position of this node's own was either committed by its backend, or is there to be fetched.
    pub fn assert_committed_once(&self, position: u64, by_its_backend: bool) {
        let (position, gate) = (Position(position), self.gate());
        let orphans = gate.take_orphans(true);
        assert_eq!(gate.committed() >= position, by_its_backend, "committed up to {}", gate.committed());
        assert_eq!(orphans.contains(&position), !by_its_backend, "position {position}, orphans: {orphans:?}");
    }

    /// The slot is nobody's, and can be used again.
    pub fn assert_free(&self, process: ProcNo) {
        let slot = self.slot(process);
        assert_eq!(slot.state(), State::Idle);
        assert!(slot.open(0).is_some());
    }
}

pub const CERTIFIED: Verdict = Verdict::Certified { depends_on: Position(0) };
pub const ABORTED: Verdict = Verdict::Aborted(AbortCause::Malformed);

fn many<T: Default>(count: usize) -> Arc<[T]> {
    (0..count).map(|_| T::default()).collect()
}

/// The tag of another node's transaction that is applied ahead.
pub fn ahead(sequence: Sequence) -> Tag {
    Tag { database: DatabaseId(1), node: NodeId(2), incarnation: Incarnation(2), slot: SlotId(5), sequence }
}

/// A writeset that was fetched.
pub fn fetched() -> Storage {
    Storage::File { chunks: 0, length: 1 }
}

pub fn job(position: u64, depends_on: u64) -> Job {
    let (position, depends_on) = (Position(position), Position(depends_on));
    Job { position, depends_on, node: NodeId(2), storage: fetched() }
}

/// One that may be in a run.
pub fn small(position: u64, depends_on: u64) -> Job {
    Job { storage: Storage::Ring { offset: 0, length: 1, end: position }, ..job(position, depends_on) }
}

thread_local! {
    /// The process that is to end, and after how many steps.
    static MORTAL: Cell<Option<(ThreadId, u32)>> = const { Cell::new(None) };
    static IS_UNINTERRUPTED: Cell<bool> = const { Cell::new(false) };
}

struct Died;

fn mortal_steps() -> Option<u32> {
    MORTAL.get().filter(|(mortal, _)| *mortal == thread::current().id()).map(|(_, steps)| steps)
}

fn uninterrupted<R>(critical: impl FnOnce() -> R) -> R {
    if mortal_steps().is_none() {
        return critical();
    }
    IS_UNINTERRUPTED.set(true);
    let result = critical();
    IS_UNINTERRUPTED.set(false);
    result
}

fn step() {
    let Some(steps) = mortal_steps().filter(|_| !IS_UNINTERRUPTED.get()) else { return };
    if steps == 0 {
        MORTAL.set(None);
        resume_unwind(Box::new(Died));
    }
    MORTAL.set(Some((thread::current().id(), steps - 1)));
}

/// The process does so many steps of the deed, and then ends. None if it did; what the deed came to if it had fewer steps.
pub fn dies_after<R>(steps: u32, deed: impl FnOnce() -> R) -> Option<R> {
    tried::before_each(step);
    IS_UNINTERRUPTED.set(false);
    MORTAL.set(Some((thread::current().id(), steps)));
    let result = catch_unwind(AssertUnwindSafe(deed));
    MORTAL.set(None);
    match result {
        Ok(done) => Some(done),
        Err(why) if why.is::<Died>() => None,
        Err(why) => resume_unwind(why),
    }
}

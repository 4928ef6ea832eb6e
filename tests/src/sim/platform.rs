//! The platform of simulated servers: everything in one thread, so shared memory is a reference count, and a lock is only there to notice that
//! it was entered twice. Whom somebody woke is noted; the server does the waking in simulated time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use gcs_writeset::{Incarnation, Position};
use postgres_r_protocol::bounds::FORERUNNERS;
use postgres_r_protocol::closed::{self, Closed};
use postgres_r_protocol::conflicts::{self, Conflicts};
use postgres_r_protocol::gate::{self, Gate};
use postgres_r_protocol::heat::{self, Heat};
use postgres_r_protocol::id::ProcNo;
use postgres_r_protocol::offer::Forerunner;
use postgres_r_protocol::platform::{Exclusion, Planted, Platform, Ring, Wake};
use postgres_r_protocol::recent::{self, Recent};
use postgres_r_protocol::replica::{At, Database, Phase, Replica, Server};
use postgres_r_protocol::slot::Slot;
use postgres_r_protocol::worker::Worker;

thread_local! {
    /// Of the run that this thread is busy with.
    static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
}

/// A run begins: it has this mistake in it.
pub fn plant(mistake: Option<Planted>) {
    PLANTED.set(mistake);
}

pub struct SimPlatform;

impl Platform for SimPlatform {
    type Shared<T: ?Sized + 'static> = Rc<T>;
    type Lock = SimLock;
    type Waker = SimWaker;
    type Ring = SimRing;

    fn planted(mistake: Planted) -> bool {
        PLANTED.get() == Some(mistake)
    }
}

#[derive(Default)]
pub struct SimLock(Cell<bool>);

impl Exclusion for SimLock {
    fn exclusive<R>(&self, critical: impl FnOnce() -> R) -> R {
        assert!(!self.0.replace(true), "a lock is entered twice by one process");
        let result = critical();
        self.0.set(false);
        result
    }

    fn shared<R>(&self, critical: impl FnOnce() -> R) -> R {
        self.exclusive(critical)
    }
}

/// Somebody may have been waiting for this.
#[derive(Clone, Copy, Debug)]
pub enum Note {
    Wake(ProcNo),
    /// So many positions are ahead of the committed one.
    Ahead(u64),
    Writable,
}

#[derive(Clone, Default)]
pub struct SimWaker(Rc<RefCell<Vec<Note>>>);

impl SimWaker {
    /// What was noted since the last time, in order.
    pub fn take(&self) -> Vec<Note> {
        self.0.take()
    }
}

impl Wake for SimWaker {
    fn wake(&self, process: ProcNo) {
        self.0.borrow_mut().push(Note::Wake(process));
    }

    fn ahead(&self, _: usize, positions: u64) {
        self.0.borrow_mut().push(Note::Ahead(positions));
    }

    fn committed(&self, _: usize) {}

    fn writable(&self, _: usize) {
        self.0.borrow_mut().push(Note::Writable);
    }
}

pub struct SimRing(RefCell<Vec<u8>>);

impl Ring for SimRing {
    fn size(&self) -> usize {
        self.0.borrow().len()
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        self.0.borrow_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn read(&self, offset: usize, length: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.borrow()[offset..offset + length]);
    }
}

/// How much there is of everything in a server's shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub places: usize,
    pub workers: usize,
    pub window: usize,
    pub ring_bytes: usize,
}

/// The shared memory of one life of a server, with its one database.
pub struct Memory {
    pub server: Server<SimPlatform>,
    pub database: Database<SimPlatform>,
    /// Guards the list of members.
    pub members: SimLock,
}

impl Memory {
    /// As the server finds it when it starts, with everything up to `committed` on its disk.
    pub fn new(incarnation: Incarnation, sizes: Sizes, committed: Position) -> Memory {
        let gate = Gate::new(Rc::new(gate::Header::default()), many(sizes.window), SimLock::default());
        let conflicts: Conflicts<SimPlatform> =
            Conflicts::new(SimLock::default(), Rc::new(conflicts::Memory::default()), many(4), many(4));
        let database = Database {
            index: 0,
            replica: Rc::new(Replica::default()),
            gate,
            queue: SimRing(RefCell::new(vec![0; sizes.ring_bytes])),
            workers: many::<Worker>(sizes.workers),
            recent: Recent::new(many::<recent::Entry>(16)),
            conflicts,
            heat: Heat::new(Rc::new(heat::Memory::default()), many::<heat::Entry>(16)),
            closed: Closed::new(Rc::new(closed::Memory::default()), many::<closed::Entry>(1)),
            forerunners: many::<Forerunner>(FORERUNNERS),
        };
        database.reset(committed, 0);
        database.replica.name.set("shop");
        database.replica.phase.store(Phase::Active);
        let server = Server { incarnation, slots: many::<Slot>(sizes.places), waker: SimWaker::default() };
        Memory { server, database, members: SimLock::default() }
    }

    pub fn at(&self) -> At<'_, SimPlatform> {
        At { server: &self.server, database: &self.database }
    }

    pub fn slot(&self, process: ProcNo) -> &Slot {
        &self.server.slots[process.0 as usize]
    }
}

fn many<T: Default>(count: usize) -> Rc<[T]> {
    (0..count).map(|_| T::default()).collect()
}

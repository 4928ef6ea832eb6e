//! A server for unit tests: one process at a time, and nobody waits for a lock.

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use gcs_writeset::{Incarnation, Position, Sequence};

use crate::closed::Closed;
use crate::conflicts::Conflicts;
use crate::gate::Gate;
use crate::heat::Heat;
use crate::id::{LocalXid, ProcNo};
use crate::numbered::Numbered;
use crate::offer::Forerunner;
use crate::platform::{Exclusion, Platform, Ring, Wake};
use crate::recent::Recent;
use crate::replica::{At, Database, Server};
use crate::slot::Slot;
use crate::worker::Worker;

pub struct Alone;

impl Platform for Alone {
    type Shared<T: ?Sized + 'static> = Arc<T>;
    type Lock = NoLock;
    type Waker = Woken;
    type Ring = NoBytes;
}

pub struct NoLock;

impl Exclusion for NoLock {
    fn exclusive<R>(&self, critical: impl FnOnce() -> R) -> R {
        critical()
    }

    fn shared<R>(&self, critical: impl FnOnce() -> R) -> R {
        critical()
    }
}

/// Who was woken.
#[derive(Default)]
pub struct Woken(RefCell<Vec<ProcNo>>);

impl Wake for Woken {
    fn wake(&self, process: ProcNo) {
        self.0.borrow_mut().push(process);
    }

    fn ahead(&self, _: usize, _: u64) {}

    fn committed(&self, _: usize) {}

    fn writable(&self, _: usize) {}
}

pub struct NoBytes;

impl Ring for NoBytes {
    fn size(&self) -> usize {
        0
    }

    fn write(&self, _: usize, _: &[u8]) {}

    fn read(&self, _: usize, _: usize, _: &mut Vec<u8>) {}
}

/// One backend, in place 0, and its server, of which position 0 is committed.
pub struct Room {
    server: Server<Alone>,
    database: Database<Alone>,
}

pub const BACKEND: ProcNo = ProcNo(0);
/// What the backend submits is of this one.
pub const TRANSACTION: LocalXid = LocalXid(7);
pub const MANAGER: ProcNo = ProcNo(1);

impl Room {
    pub fn new() -> Room {
        let slots = (0..2).map(|_| Slot::default()).collect();
        let database = Database::<Alone> {
            index: 0,
            replica: Arc::default(),
            gate: Gate::new(Arc::default(), (0..8).map(|_| Default::default()).collect(), NoLock),
            queue: NoBytes,
            workers: Arc::from([Worker::default()]),
            recent: Recent::new((0..8).map(|_| Default::default()).collect()),
            conflicts: Conflicts::new(NoLock, Arc::default(), Arc::from([]), Arc::from([])),
            heat: Heat::new(Arc::default(), Arc::from([])),
            closed: Closed::new(Arc::default(), Arc::from([])),
            forerunners: Arc::from([Forerunner::default()]),
        };
        database.gate.reset(Position::ZERO);
        database.replica.manager.set(Some(MANAGER));
        Room { server: Server { incarnation: Incarnation(1), slots, waker: Woken::default() }, database }
    }

    pub fn at(&self) -> At<'_, Alone> {
        At { server: &self.server, database: &self.database }
    }

    pub fn gate(&self) -> &Gate<Alone> {
        &self.database.gate
    }

    pub fn slot(&self) -> &Slot {
        &self.server.slots[BACKEND.0 as usize]
    }

    /// The only remote backend.
    pub fn worker(&self) -> &Worker {
        &self.database.workers[0]
    }

    pub fn submit(&self) -> Sequence {
        self.slot().in_transaction(TRANSACTION);
        let sequence = self.slot().open(0).unwrap();
        assert!(self.slot().send(sequence));
        sequence
    }

    /// Whom anybody woke since this was last asked.
    pub fn woken(&self) -> Vec<ProcNo> {
        self.server.waker.0.take()
    }
}

/// Checks `may_become` for every pair of values against the table in the module's documentation: each row with four columns names, in the first
/// two, from what to what.
pub fn assert_table<E: Numbered + std::fmt::Debug>(source: &str, count: u32, may_become: impl Fn(E, E) -> bool) {
    let all = || (0..count).map(E::of);
    let names: BTreeSet<String> = all().map(|value| format!("{value:?}")).collect();
    assert_eq!(names.len(), count as usize, "{names:?}");
    let listed = |column: &str| -> Vec<String> {
        let names = column.split(',').map(|name| name.trim().trim_matches('`').to_string());
        names.collect()
    };
    let mut allowed = BTreeSet::new();
    for row in source.lines().filter_map(|line| line.strip_prefix("//! | `")) {
        let columns: Vec<&str> = row.split(" | ").collect();
        if let [from, to, _, _] = columns[..] {
            let pairs = listed(from).into_iter().flat_map(|from| listed(to).into_iter().map(move |to| (from.clone(), to)));
            allowed.extend(pairs);
        }
    }
    assert!(allowed.iter().all(|(from, to)| names.contains(from) && names.contains(to)), "{allowed:?}");
    for (from, to) in all().flat_map(|from| all().map(move |to| (from, to))) {
        let is_listed = allowed.contains(&(format!("{from:?}"), format!("{to:?}")));
        assert_eq!(may_become(from, to), is_listed, "from {from:?} to {to:?}: the code, and the table");
    }
}

//! Names for processes, transactions and moments of one server.

use std::ops::Add;
use std::time::Duration;

use crate::sync::{AtomicU32, Ordering};

/// A place in the server's process array. A process has one for life; when it has ended, the next process gets the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcNo(pub u32);

/// A process's own number of a transaction: never 0 inside of a transaction, never used twice by one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalXid(pub u32);

impl LocalXid {
    /// Of a process that is in no transaction.
    pub const NONE: LocalXid = LocalXid(0);
}

/// A role's object identifier on this server; 0 is no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleId(pub u32);

/// A place in the server's write-ahead log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

/// A moment, as time passed since some fixed one: monotonic, and of one process only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Duration);

impl Moment {
    /// How long after `earlier` this is; nothing if it is not.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, span: Duration) -> Moment {
        Moment(self.0.saturating_add(span))
    }
}

const NOBODY: u32 = u32::MAX;

/// Which process has a duty, if any has: a field of shared memory.
pub struct Holds(AtomicU32);

impl Default for Holds {
    fn default() -> Self {
        Holds(AtomicU32::new(NOBODY))
    }
}

impl Holds {
    pub fn set(&self, process: Option<ProcNo>) {
        self.0.store(process.map_or(NOBODY, |process| process.0), Ordering::SeqCst);
    }

    pub fn get(&self) -> Option<ProcNo> {
        let process = self.0.load(Ordering::SeqCst);
        (process != NOBODY).then_some(ProcNo(process))
    }

    /// Takes the duty if no process has it.
    pub fn claim(&self, process: ProcNo) -> bool {
        self.0.compare_exchange(NOBODY, process.0, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

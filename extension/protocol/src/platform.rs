//! What this crate needs of whatever it runs on, and gets from it by type: shared memory, locks, and a way to wake a process.
//!
//! Three platforms exist: PostgreSQL (the extension's `node::Server`), the simulator (everything in one thread, every wake-up an event in
//! simulated time), and loom (tests/loom: every interleaving of a few threads).

use std::ops::Deref;

use crate::id::ProcNo;

pub trait Platform: Sized + 'static {
    /// A reference to memory that all processes of the server share. What lies there is made of atomics.
    type Shared<T: ?Sized + 'static>: Deref<Target = T>;
    type Lock: Exclusion;
    type Waker: Wake;
    type Ring: Ring;

    /// Whether a deliberate mistake is to be made here. Only the simulator ever plants one, to show that it would be found.
    #[inline(always)]
    fn planted(_: Planted) -> bool {
        false
    }
}

/// A lock that is held for the length of a closure.
pub trait Exclusion {
    fn exclusive<R>(&self, critical: impl FnOnce() -> R) -> R;
    fn shared<R>(&self, critical: impl FnOnce() -> R) -> R;
}

pub trait Wake {
    /// Makes the process in that place, if there is one, look around: it returns from its present sleep, or does not begin its next one. Raises
    /// nothing.
    fn wake(&self, process: ProcNo);

    /// The database has so many positions ahead of the committed one now: processes may be waiting for few enough. Raises nothing.
    fn ahead(&self, database: usize, positions: u64);

    /// The database's committed position has reached one that sessions wait for ([`crate::watch`]). Raises nothing.
    fn committed(&self, database: usize);

    /// The node can write to this database again: processes may be waiting for that.
    fn writable(&self, database: usize);

    /// Members have said how far they are: processes may be waiting for the slowest ([`crate::replica::Replica::slowest_lag`]).
    fn members_moved(&self, _database: usize) {}
}

/// Bytes in shared memory that one process writes and others read later, told by the gate that they may.
pub trait Ring {
    fn size(&self) -> usize;
    fn write(&self, offset: usize, bytes: &[u8]);
    /// Appends `length` bytes from `offset` on to `out`.
    fn read(&self, offset: usize, length: usize, out: &mut Vec<u8>);
}

/// Mistakes that the simulator can plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A manager decides on a submission and does not write the verdict down.
    VerdictDropped,
    /// The writeset of an orphan has come and is not queued.
    OrphanNotQueued,
    /// A backend that waits for its turn does not look whether it was told to let an earlier position through.
    YieldUnheard,
    /// Whoever passes the turn on wakes nobody.
    TurnWakesNobody,
    /// A submission is sent again under a tag of its own.
    ResubmittedUnderNewTag,
    /// The second half of a run is passed on and was not applied.
    RunCommitsHalf,
    /// A position joins a run that does not wait for what the position depends on.
    RunAheadOfDependency,
    /// A forerunner begins before what its transaction was made from is committed, and is given the position though it had not seen what that depends on.
    AheadOfDependency,
}

//! PostgreSQL as the protocol's platform: shared memory, lightweight locks, latches.

use std::time::Duration;

use postgres_r_protocol::id::ProcNo;
use postgres_r_protocol::platform::{Platform, Wake};

use crate::guc;
use crate::pg::latch;
use crate::pg::lock::Lock;
use crate::pg::shmem::{ByteRing, Condition};

pub struct Postgres;

impl Platform for Postgres {
    /// Laid out by the postmaster before any other process is there, and never moved.
    type Shared<T: ?Sized + 'static> = &'static T;
    type Lock = Lock;
    type Waker = Waker;
    type Ring = ByteRing;
}

/// What many processes at once may be waiting for, one for each database.
#[derive(Default)]
pub struct Conditions {
    /// Clients may come in, or must not any more.
    serving_changed: Condition,
    writable_changed: Condition,
    members_moved: Condition,
    /// No more positions wait to be applied than may.
    lag_fell: Condition,
    /// A position is committed that sessions wait for.
    committed_moved: Condition,
    /// The leaser has answered somebody.
    leases_answered: Condition,
    /// The maker of databases has looked.
    made: Condition,
}

impl Conditions {
    pub fn leases_answered(&self) -> &Condition {
        &self.leases_answered
    }

    pub fn serving_changed(&self) {
        self.serving_changed.broadcast();
    }

    /// Sleeps until `holds`, which says something about whether the database serves; interrupts are served. False when the time was over first.
    pub fn wait_for_serving(&self, timeout: Duration, holds: impl Fn() -> bool) -> bool {
        self.serving_changed.wait_until(timeout, holds)
    }

    pub fn made(&self) {
        self.made.broadcast();
    }

    /// Sleeps until `holds`, which says something about whether the maker of databases has looked; interrupts are served.
    pub fn wait_for_made(&self, timeout: Duration, holds: impl Fn() -> bool) -> bool {
        self.made.wait_until(timeout, holds)
    }

    pub fn wait_for_writable(&self, timeout: Duration, holds: impl Fn() -> bool) -> bool {
        self.writable_changed.wait_until(timeout, holds)
    }

    pub fn wait_for_committed(&self, timeout: Duration, holds: impl Fn() -> bool) -> bool {
        self.committed_moved.wait_until(timeout, holds)
    }

    pub fn wait_for_members(&self, timeout: Duration, holds: impl Fn() -> bool) -> bool {
        self.members_moved.wait_until(timeout, holds)
    }

    pub fn wait_for_lag(&self, timeout: Duration, holds: impl Fn() -> bool) -> bool {
        self.lag_fell.wait_until(timeout, holds)
    }
}

pub struct Waker {
    /// By the database's index.
    conditions: Vec<&'static Conditions>,
}

impl Waker {
    pub fn new(conditions: Vec<&'static Conditions>) -> Waker {
        Waker { conditions }
    }
}

impl Wake for Waker {
    fn wake(&self, process: ProcNo) {
        latch::wake(process);
    }

    fn ahead(&self, database: usize, positions: u64) {
        if positions <= guc::apply_lag_target() {
            self.conditions[database].lag_fell.broadcast();
        }
    }

    fn committed(&self, database: usize) {
        self.conditions[database].committed_moved.broadcast();
    }

    fn members_moved(&self, database: usize) {
        self.conditions[database].members_moved.broadcast();
    }

    fn writable(&self, database: usize) {
        self.conditions[database].writable_changed.broadcast();
    }
}

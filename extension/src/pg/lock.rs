//! Lightweight locks.

use pgrx::pg_sys;
use postgres_r_protocol::platform::Exclusion;

/// An LWLock of this extension's tranche. Held only for the length of a closure; an ERROR in the closure releases it, with all others.
#[derive(Clone, Copy)]
pub struct Lock {
    lock: *mut pg_sys::LWLock,
}

// SAFETY: the pointer goes to shared memory, where LWLocks are made to be used by all processes.
unsafe impl Sync for Lock {}
// SAFETY: as above.
unsafe impl Send for Lock {}

impl Lock {
    pub(super) fn new(lock: *mut pg_sys::LWLock) -> Lock {
        Lock { lock }
    }

    fn hold<R>(&self, mode: pg_sys::LWLockMode::Type, critical: impl FnOnce() -> R) -> R {
        // SAFETY: a lock of our tranche, alive as long as the server.
        unsafe { pg_sys::LWLockAcquire(self.lock, mode) };
        let result = critical();
        // SAFETY: acquired above and nobody else releases it.
        unsafe { pg_sys::LWLockRelease(self.lock) };
        result
    }
}

impl Exclusion for Lock {
    fn exclusive<R>(&self, critical: impl FnOnce() -> R) -> R {
        self.hold(pg_sys::LWLockMode::LW_EXCLUSIVE, critical)
    }

    fn shared<R>(&self, critical: impl FnOnce() -> R) -> R {
        self.hold(pg_sys::LWLockMode::LW_SHARED, critical)
    }
}

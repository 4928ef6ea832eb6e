//! Subtransactions: how deep they are nested now, and being told how one ended.

use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::xact::{self, Failed};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Released,
    Aborted,
}

type Listener = fn(level: i32, End);

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// The nesting level of the current (sub)transaction: 1 is the transaction itself.
pub fn level() -> i32 {
    // SAFETY: reads the state of the transaction.
    unsafe { pg_sys::GetCurrentTransactionNestLevel() }
}

/// Calls `listener` with the level of each subtransaction that ends. Once a process; it must not raise errors.
pub fn on_end(listener: Listener) {
    if LISTENER.set(listener).is_ok() {
        // SAFETY: registers a callback for the life of the process.
        unsafe { pg_sys::RegisterSubXactCallback(Some(ended), std::ptr::null_mut()) };
    }
}

#[pgrx::pg_guard]
extern "C-unwind" fn ended(
    event: pg_sys::SubXactEvent::Type,
    _id: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut std::ffi::c_void,
) {
    let end = match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => End::Released,
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => End::Aborted,
        _ => return,
    };
    if let Some(listener) = LISTENER.get() {
        listener(level(), end);
    }
}

/// Runs `work` in a subtransaction that is rolled back in any case, so that nothing of it stays, not even a lock. An ERROR comes back.
pub fn attempt<R>(work: impl FnOnce() -> R) -> Result<R, Failed> {
    // SAFETY: reads variables of this process.
    let (context, owner) = unsafe { (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner) };
    let work = AssertUnwindSafe(work);
    let restore = move || {
        // SAFETY: ends the subtransaction begun below; both were current before it, and outlive it.
        unsafe {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
            pg_sys::CurrentMemoryContext = context;
            pg_sys::CurrentResourceOwner = owner;
        }
    };
    PgTryBuilder::new(|| {
        // SAFETY: in a transaction.
        unsafe { pg_sys::BeginInternalSubTransaction(std::ptr::null()) };
        let result = { work }.0();
        restore();
        Ok(result)
    })
    .catch_others(|error| {
        restore();
        // SAFETY: the report was copied into `error`.
        unsafe { pg_sys::FlushErrorState() };
        Err(xact::describe(&error))
    })
    .execute()
}

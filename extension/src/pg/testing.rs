//! For tests only: the end of transactions.

use std::sync::OnceLock;

use pgrx::pg_sys;

pub enum End {
    PreCommit,
    Over,
}

static LISTENER: OnceLock<fn(End)> = OnceLock::new();

pub fn on_transaction_end(listener: fn(End)) {
    if LISTENER.set(listener).is_ok() {
        // SAFETY: registers a callback for the life of the process.
        unsafe { pg_sys::RegisterXactCallback(Some(ended), std::ptr::null_mut()) };
    }
}

#[pgrx::pg_guard]
extern "C-unwind" fn ended(event: pg_sys::XactEvent::Type, _argument: *mut std::ffi::c_void) {
    let end = match event {
        pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT => End::PreCommit,
        pg_sys::XactEvent::XACT_EVENT_COMMIT | pg_sys::XactEvent::XACT_EVENT_ABORT => End::Over,
        _ => return,
    };
    if let Some(listener) = LISTENER.get() {
        listener(end);
    }
}

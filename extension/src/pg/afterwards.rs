//! Being called when a transaction is committed, visible and without locks, before its client hears of it; and whenever locks were released.

use std::sync::OnceLock;

use pgrx::pg_sys;

static CALLBACK: OnceLock<fn()> = OnceLock::new();
static RELEASED: OnceLock<fn()> = OnceLock::new();

/// Calls `callback` each time that this process has released locks at the end of a transaction, or of a part of one. It must raise nothing, and is called where
/// interrupts are held off. Before [`on_committed`], and while libraries are preloaded.
pub fn on_released(callback: fn()) {
    let _ = RELEASED.set(callback);
}

/// Calls `callback` at the end of every commit, once the transaction holds nothing any more. It must not raise an ERROR, nor read catalogs:
/// PostgreSQL is between two transactions there, and holds interrupts off. A WARNING is fine. Called while libraries are preloaded.
pub fn on_committed(callback: fn()) {
    if CALLBACK.set(callback).is_ok() {
        // SAFETY: a plain callback without an argument.
        unsafe { pg_sys::RegisterResourceReleaseCallback(Some(released), std::ptr::null_mut()) };
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn released(
    phase: pg_sys::ResourceReleasePhase::Type,
    is_commit: bool,
    is_top_level: bool,
    _argument: *mut std::ffi::c_void,
) {
    let is_last = phase == pg_sys::ResourceReleasePhase::RESOURCE_RELEASE_AFTER_LOCKS;
    // What a part commits, the whole goes on holding.
    if let Some(callback) = RELEASED.get().filter(|_| is_last && (is_top_level || !is_commit)) {
        callback();
    }
    if let Some(callback) = CALLBACK.get().filter(|_| is_last && is_commit && is_top_level) {
        callback();
    }
}

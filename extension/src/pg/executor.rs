//! Being asked before a plan starts. Other extensions' hooks stay in the chain.

use std::sync::OnceLock;

use pgrx::pg_sys;

struct Hook {
    before: fn(),
    previous: pg_sys::ExecutorStart_hook_type,
}

static HOOK: OnceLock<Hook> = OnceLock::new();

/// Calls `before` ahead of every plan; it may raise an ERROR. Called while libraries are preloaded.
pub fn before_start(before: fn()) {
    // SAFETY: loading libraries, single-threaded.
    let previous = unsafe { pg_sys::ExecutorStart_hook };
    if HOOK.set(Hook { before, previous }).is_ok() {
        // SAFETY: as above.
        unsafe { pg_sys::ExecutorStart_hook = Some(on_start) };
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_start(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int) {
    let Some(hook) = HOOK.get() else { return };
    (hook.before)();
    // SAFETY: passes on what we were given.
    unsafe {
        match hook.previous {
            Some(previous) => pg_sys::ffi::pg_guard_ffi_boundary(|| previous(query, flags)),
            None => pg_sys::standard_ExecutorStart(query, flags),
        }
    }
}

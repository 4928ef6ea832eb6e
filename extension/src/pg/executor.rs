//! Being called before a plan starts, to refuse it or to make it wait. Other extensions' hooks stay in the chain.

use std::sync::OnceLock;

use pgrx::pg_sys;

use super::summons;

struct Hook {
    before: fn(bool),
    previous: pg_sys::ExecutorStart_hook_type,
}

static HOOK: OnceLock<Hook> = OnceLock::new();

/// Calls `before` ahead of every plan, and tells it whether the plan may write or lock rows. `before` may raise an ERROR. To be called
/// once, while libraries are preloaded.
pub fn before_start(before: fn(bool)) {
    // SAFETY: loading libraries, single-threaded.
    let previous = unsafe { pg_sys::ExecutorStart_hook };
    if HOOK.set(Hook { before, previous }).is_ok() {
        // SAFETY: as above.
        unsafe { pg_sys::ExecutorStart_hook = Some(on_start) };
    }
}

unsafe extern "C-unwind" {
    /// As pgrx binds it, but without the guard: errors of the executor pass with all their fields.
    #[link_name = "standard_ExecutorStart"]
    fn start_by_postgres(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int);
}

/// # Safety
/// Called by PostgreSQL. Not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
unsafe extern "C-unwind" fn on_start(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int) {
    // SAFETY: passes on what we were given.
    unsafe {
        summons::statement_is_known();
        tell_start(query);
        HOOK.get().and_then(|hook| hook.previous).unwrap_or(start_by_postgres)(query, flags);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn tell_start(query: *mut pg_sys::QueryDesc) {
    if let Some(hook) = HOOK.get() {
        // SAFETY: ExecutorStart is given a query with its plan.
        let writes = unsafe {
            let plan = (*query).plannedstmt;
            (*query).operation != pg_sys::CmdType::CMD_SELECT || (*plan).hasModifyingCTE || !(*plan).rowMarks.is_null()
        };
        (hook.before)(writes);
    }
}

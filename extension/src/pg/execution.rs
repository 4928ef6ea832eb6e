//! Being told of statements: analysed, started, ended. Other extensions' hooks stay in the chain.

use std::sync::OnceLock;

use pgrx::pg_sys;

use super::relation::Oid;

#[derive(Clone, Copy)]
pub struct Listener {
    /// A statement was parsed and analysed; it may run soon, with a snapshot not yet taken.
    pub analysed: fn(),
    /// A plan starts; the snapshot it sees by is active. It writes to these relations.
    pub starts: fn(&dyn Fn() -> Vec<Oid>),
    pub ends: fn(),
}

struct Hooks {
    listener: Listener,
    analyse: pg_sys::post_parse_analyze_hook_type,
    start: pg_sys::ExecutorStart_hook_type,
    end: pg_sys::ExecutorEnd_hook_type,
}

static HOOKS: OnceLock<Hooks> = OnceLock::new();

/// Installs the hooks; once a process, from `_PG_init`.
pub fn on_execution(listener: Listener) {
    // SAFETY: hooks are plain variables, set while the library loads; the previous values are kept and called.
    unsafe {
        let hooks = Hooks {
            listener,
            analyse: pg_sys::post_parse_analyze_hook,
            start: pg_sys::ExecutorStart_hook,
            end: pg_sys::ExecutorEnd_hook,
        };
        if HOOKS.set(hooks).is_ok() {
            pg_sys::post_parse_analyze_hook = Some(analyse);
            pg_sys::ExecutorStart_hook = Some(start);
            pg_sys::ExecutorEnd_hook = Some(end);
        }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn analyse(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    let Some(hooks) = HOOKS.get() else { return };
    (hooks.listener.analysed)();
    if let Some(previous) = hooks.analyse {
        // SAFETY: passes on what we were given.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| previous(state, query, jumble)) }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn start(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int) {
    let Some(hooks) = HOOKS.get() else { return };
    // SAFETY: the descriptor is what the executor is about to start.
    (hooks.listener.starts)(&|| unsafe { super::utility::written_by(query) });
    // SAFETY: passes on what we were given.
    unsafe {
        match hooks.start {
            Some(previous) => pg_sys::ffi::pg_guard_ffi_boundary(|| previous(query, flags)),
            None => pg_sys::standard_ExecutorStart(query, flags),
        }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn end(query: *mut pg_sys::QueryDesc) {
    let Some(hooks) = HOOKS.get() else { return };
    // SAFETY: passes on what we were given.
    unsafe {
        match hooks.end {
            Some(previous) => pg_sys::ffi::pg_guard_ffi_boundary(|| previous(query)),
            None => pg_sys::standard_ExecutorEnd(query),
        }
    }
    (hooks.listener.ends)();
}

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

unsafe extern "C-unwind" {
    /// As pgrx binds them, but without the guard: errors of the executor pass with all their fields.
    #[link_name = "standard_ExecutorStart"]
    fn start_by_postgres(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int);
    #[link_name = "standard_ExecutorEnd"]
    fn end_by_postgres(query: *mut pg_sys::QueryDesc);
}

/// # Safety
/// Called by PostgreSQL. Like the two below not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
unsafe extern "C-unwind" fn analyse(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    // SAFETY: passes on what we were given.
    unsafe {
        tell_analysed();
        if let Some(previous) = HOOKS.get().and_then(|hooks| hooks.analyse) {
            previous(state, query, jumble);
        }
    }
}

unsafe extern "C-unwind" fn start(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int) {
    // SAFETY: passes on what we were given.
    unsafe {
        tell_start(query);
        HOOKS.get().and_then(|hooks| hooks.start).unwrap_or(start_by_postgres)(query, flags);
    }
}

unsafe extern "C-unwind" fn end(query: *mut pg_sys::QueryDesc) {
    // SAFETY: passes on what we were given.
    unsafe {
        HOOKS.get().and_then(|hooks| hooks.end).unwrap_or(end_by_postgres)(query);
        tell_end();
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn tell_analysed() {
    if let Some(hooks) = HOOKS.get() {
        (hooks.listener.analysed)();
    }
}

/// # Safety
/// `query` must be what the executor is about to start.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn tell_start(query: *mut pg_sys::QueryDesc) {
    if let Some(hooks) = HOOKS.get() {
        // SAFETY: by contract.
        (hooks.listener.starts)(&|| unsafe { super::utility::written_by(query) });
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn tell_end() {
    if let Some(hooks) = HOOKS.get() {
        (hooks.listener.ends)();
    }
}

//! What SQL is shown of a sequence: how far the group is, in place of this server's own row.
//!
//! `pg_sequences` asks a built-in function, whose place we take; a query that reads a sequence as a table is made to call two functions of ours
//! (see [`super::plan`]).

use std::sync::OnceLock;

use pgrx::pg_sys;
use postgres_r_protocol::lease::State;

use super::builtin;
use super::names::Oid;

/// How far a sequence is, given how far it is on this server.
pub type Listener = fn(Oid, State) -> State;

type Function = unsafe extern "C-unwind" fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum;

struct Hook {
    listener: Listener,
    original: Function,
}

static HOOK: OnceLock<Hook> = OnceLock::new();

/// Called while libraries are preloaded. False if this server can't be made to ask.
pub fn on_shown(listener: Listener) -> bool {
    let original = builtin::replace(pg_sys::F_PG_SEQUENCE_LAST_VALUE, pg_sequence_last_value);
    original.is_some_and(|original| HOOK.set(Hook { listener, original }).is_ok())
}

/// # Safety
/// Called by PostgreSQL's function manager with an OID. Not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
unsafe extern "C-unwind" fn pg_sequence_last_value(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: by contract; the function is strict.
    unsafe {
        let sequence = Oid::from((*call).args.as_slice(1)[0].value.value() as u32);
        let Some(hook) = HOOK.get() else { return pg_sys::Datum::null() };
        // It also checks that there is such a sequence, and the caller's rights.
        let own = (hook.original)(call);
        let mut state = State { last: own.value() as i64, is_called: !(*call).isnull };
        ask(sequence, &raw mut state);
        (*call).isnull = !state.is_called;
        pg_sys::Datum::from(state.last)
    }
}

/// # Safety
/// `state` must be valid.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn ask(sequence: Oid, state: *mut State) {
    if let Some(hook) = HOOK.get() {
        // SAFETY: by contract.
        unsafe { *state = (hook.listener)(sequence, *state) };
    }
}

/// # Safety
/// `call` must be of a function that was given a regclass, a bigint and a boolean, none of them null.
unsafe fn shown(call: pg_sys::FunctionCallInfo) -> State {
    // SAFETY: by contract.
    let arguments = unsafe { (*call).args.as_slice(3) };
    let sequence = Oid::from(arguments[0].value.value() as u32);
    let own = State { last: arguments[1].value.value() as i64, is_called: arguments[2].value.value() & 0xff != 0 };
    HOOK.get().map_or(own, |hook| (hook.listener)(sequence, own))
}

#[unsafe(no_mangle)]
#[doc(hidden)]
pub extern "C" fn pg_finfo_postgres_r_last_value() -> &'static pg_sys::Pg_finfo_record {
    static RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &RECORD
}

/// # Safety
/// Called by PostgreSQL's function manager; see [`shown`].
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn postgres_r_last_value(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: by contract.
    pg_sys::Datum::from(unsafe { shown(call) }.last)
}

#[unsafe(no_mangle)]
#[doc(hidden)]
pub extern "C" fn pg_finfo_postgres_r_is_called() -> &'static pg_sys::Pg_finfo_record {
    static RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &RECORD
}

/// # Safety
/// Called by PostgreSQL's function manager; see [`shown`].
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn postgres_r_is_called(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: by contract.
    pg_sys::Datum::from(unsafe { shown(call) }.is_called)
}

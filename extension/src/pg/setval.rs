//! setval() in the group: it becomes ALTER SEQUENCE ... RESTART WITH, an ordered statement, and then sets its own node's sequence as ever.
//!
//! PostgreSQL's setval counts at once and for good, on one node, whatever becomes of its transaction. The group's is part of its transaction.

use std::sync::OnceLock;

use pgrx::pg_sys;

use super::builtin;
use super::names::Oid;

/// Decides about a call of setval with these arguments before PostgreSQL's own runs. May raise an error.
pub type Listener = fn(Oid, i64);

type Function = unsafe extern "C-unwind" fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum;

struct Hook {
    listener: Listener,
    with_two: Function,
    with_three: Function,
}

static HOOK: OnceLock<Hook> = OnceLock::new();

/// Called while libraries are preloaded. False if this server can't be made to ask.
pub fn on_setval(listener: Listener) -> bool {
    let with_two = builtin::replace(pg_sys::F_SETVAL_REGCLASS_INT8, with_two);
    let with_three = builtin::replace(pg_sys::F_SETVAL_REGCLASS_INT8_BOOL, with_three);
    match (with_two, with_three) {
        (Some(with_two), Some(with_three)) => HOOK.set(Hook { listener, with_two, with_three }).is_ok(),
        _ => false,
    }
}

/// # Safety
/// Called by PostgreSQL's function manager. Not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
unsafe extern "C-unwind" fn with_two(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: by contract.
    unsafe { set(call, HOOK.get().map(|hook| hook.with_two)) }
}

/// # Safety
/// As [`with_two`].
unsafe extern "C-unwind" fn with_three(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: by contract.
    unsafe { set(call, HOOK.get().map(|hook| hook.with_three)) }
}

/// # Safety
/// `call` must be of setval, with a regclass and a bigint that are not null.
unsafe fn set(call: pg_sys::FunctionCallInfo, original: Option<Function>) -> pg_sys::Datum {
    // SAFETY: by contract; setval is strict.
    unsafe {
        let arguments = (*call).args.as_slice(2);
        tell(Oid::from(arguments[0].value.value() as u32), arguments[1].value.value() as i64);
        original.map_or(pg_sys::Datum::null(), |original| original(call))
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn tell(sequence: Oid, value: i64) {
    if let Some(hook) = HOOK.get() {
        (hook.listener)(sequence, value);
    }
}

//! Being asked about each value that a sequence gives: nextval() itself, wherever it is called from, and identity columns.
//!
//! PostgreSQL's own nextval draws a value from the sequence of this server; whether that value is this node's is for the listener to say.
//! Identity columns draw without a call: the planner's hook (see [`super::plan`]) makes their draws calls of a function of ours. Like an identity
//! column it asks for no right on the sequence, if the call has a mark that no SQL can put there. COPY into an identity column is neither; see
//! `crate::sequences`.

use std::sync::OnceLock;

use pgrx::pg_sys;

use super::builtin;
use super::names::Oid;

#[derive(Clone, Copy)]
pub struct Listener {
    /// A value is about to be drawn; whether it is to be looked at. May raise an error.
    pub before: fn(Oid, Draw) -> bool,
    /// Whether it stands. If not, another is drawn. May raise an error.
    pub stands: fn(Oid, i64) -> bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Draw {
    Call,
    /// By an identity column, for whoever may insert.
    Identity,
}

type Function = unsafe extern "C-unwind" fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum;

struct Hook {
    listener: Listener,
    original: Function,
}

static HOOK: OnceLock<Hook> = OnceLock::new();

unsafe extern "C-unwind" {
    /// Of commands/sequence.h, which pgrx does not bind.
    fn nextval_internal(sequence: Oid, check_permissions: bool) -> i64;
}

/// Called while libraries are preloaded. False if this server can't be made to ask.
pub fn on_draw(listener: Listener) -> bool {
    let original = builtin::replace(pg_sys::F_NEXTVAL, nextval);
    original.is_some_and(|original| HOOK.set(Hook { listener, original }).is_ok())
}

/// # Safety
/// Called by PostgreSQL's function manager with a regclass. Not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
unsafe extern "C-unwind" fn nextval(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: by contract; nextval is strict, so that there is an argument.
    unsafe {
        let sequence = Oid::from((*call).args.as_slice(1)[0].value.value() as u32);
        let Some(hook) = HOOK.get() else { return pg_sys::Datum::null() };
        let is_watched = before(sequence, Draw::Call);
        loop {
            let value = (hook.original)(call);
            if !is_watched || stands(sequence, value.value() as i64) {
                return value;
            }
        }
    }
}

#[unsafe(no_mangle)]
#[doc(hidden)]
pub extern "C" fn pg_finfo_postgres_r_next_identity() -> &'static pg_sys::Pg_finfo_record {
    static RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &RECORD
}

/// Where in its text the call of an identity column stands: nowhere that a text could have.
pub(super) const OF_IDENTITY: i32 = -47;

/// Whether the planner's hook has made this call.
///
/// # Safety
/// `call` must be a call by the function manager.
unsafe fn is_of_identity(call: pg_sys::FunctionCallInfo) -> bool {
    // SAFETY: by contract; the expression of a call is null or a node that lives as long as the call.
    unsafe {
        let info = (*call).flinfo;
        let expression = if info.is_null() { std::ptr::null_mut() } else { (*info).fn_expr };
        !expression.is_null()
            && (*expression).type_ == pg_sys::NodeTag::T_FuncExpr
            && (*expression.cast::<pg_sys::FuncExpr>()).location == OF_IDENTITY
    }
}

/// # Safety
/// Called by PostgreSQL's function manager, with a regclass. Not guarded, as [`nextval`].
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn postgres_r_next_identity(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: by contract; the function is strict.
    unsafe {
        let sequence = Oid::from((*call).args.as_slice(1)[0].value.value() as u32);
        let draw = if is_of_identity(call) { Draw::Identity } else { Draw::Call };
        let is_watched = before(sequence, draw);
        loop {
            let value = nextval_internal(sequence, draw == Draw::Call);
            if !is_watched || stands(sequence, value) {
                return pg_sys::Datum::from(value);
            }
        }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn before(sequence: Oid, draw: Draw) -> bool {
    HOOK.get().is_some_and(|hook| (hook.listener.before)(sequence, draw))
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn stands(sequence: Oid, value: i64) -> bool {
    HOOK.get().is_none_or(|hook| (hook.listener.stands)(sequence, value))
}

//! NOTIFY: being told of what a transaction of this process is to send, and sending what one of another node has sent.
//!
//! Two ways lead to PostgreSQL's list of what a transaction sends at its commit: the statement, which the hook on utility statements sees, and
//! pg_notify(), which is replaced here. The list itself is PostgreSQL's own, and nobody else can look at it. So a function in C that adds to the list by itself
//! (contrib/tcn has one) is not seen.
//!
//! At its commit a transaction that sends takes a lock of the server, and has it until the transaction is over (PreCommit_Notify): behind XACT_EVENT_PRE_COMMIT, and so with its
//! turn in hand. Whoever has that lock waits for nothing of the group.

use std::ffi::CStr;
use std::sync::OnceLock;

use pgrx::pg_sys;

use super::utility::Utility;
use super::{builtin, encoding, varlena};

/// Told of a channel and a payload, in the database's encoding, that this transaction sends if it commits. May raise an error.
pub type Listener = fn(&[u8], &[u8]);

type Function = unsafe extern "C-unwind" fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum;

struct Hook {
    listener: Listener,
    original: Function,
}

static HOOK: OnceLock<Hook> = OnceLock::new();

unsafe extern "C-unwind" {
    /// Of commands/async.h, which pgrx does not bind.
    fn Async_Notify(channel: *const std::ffi::c_char, payload: *const std::ffi::c_char);
}

/// Called while libraries are preloaded. False if this server can't be made to tell.
pub fn on_notify(listener: Listener) -> bool {
    let original = builtin::replace(pg_sys::F_PG_NOTIFY, pg_notify);
    original.is_some_and(|original| HOOK.set(Hook { listener, original }).is_ok())
}

/// # Safety
/// Called by PostgreSQL's function manager. Not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
unsafe extern "C-unwind" fn pg_notify(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: by contract.
    unsafe {
        let Some(hook) = HOOK.get() else { return pg_sys::Datum::null() };
        let result = (hook.original)(call);
        tell(call);
        result
    }
}

/// # Safety
/// `call` must be of pg_notify, which is not strict.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn tell(call: pg_sys::FunctionCallInfo) {
    let Some(hook) = HOOK.get() else { return };
    // SAFETY: by contract; pg_notify takes two texts, and null for an empty one.
    unsafe {
        let arguments = (*call).args.as_slice(2);
        let text = |argument: &pg_sys::NullableDatum| match argument.isnull {
            true => Vec::new(),
            false => varlena::with_varlena(argument.value, <[u8]>::to_vec),
        };
        (hook.listener)(&text(&arguments[0]), &text(&arguments[1]));
    }
}

/// Tells the same listener of a NOTIFY statement, once it has run.
pub fn statement_has_run(utility: &Utility) {
    // SAFETY: a parse tree that lives as long as the call; the tag says of which kind. Without a payload there is a null pointer.
    unsafe {
        let node = utility.node();
        if (*node).type_ != pg_sys::NodeTag::T_NotifyStmt {
            return;
        }
        let statement = &*node.cast::<pg_sys::NotifyStmt>();
        let text = |string: *mut std::ffi::c_char| match string.is_null() {
            true => &[],
            false => CStr::from_ptr(string).to_bytes(),
        };
        if let Some(hook) = HOOK.get() {
            (hook.listener)(text(statement.conditionname), text(statement.payload));
        }
    }
}

/// Sends it when the current transaction commits, unless the transaction sends the same already. False if that is no notification.
pub fn send(channel: &str, payload: &str) -> bool {
    let (Some(channel), Some(payload)) = (encoding::c_string(channel), encoding::c_string(payload)) else { return false };
    // SAFETY: two C strings, which are copied; an ERROR passes.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| Async_Notify(channel.as_ptr(), payload.as_ptr())) }
    true
}

/// How full the server's queue is of what has been sent and not been read by all who listen: 0 to 1.
pub fn queue_usage() -> f64 {
    // SAFETY: a function without arguments, which looks at none.
    let usage = unsafe { pgrx::direct_function_call::<f64>(pg_sys::pg_notification_queue_usage, &[]) };
    usage.unwrap_or(0.0)
}

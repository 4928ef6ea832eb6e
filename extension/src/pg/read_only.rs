//! What `transaction_read_only` and `default_transaction_read_only` say: SHOW, current_setting(), pg_settings, and what a client library is told
//! of its own accord.
//!
//! Client libraries and balancers go by these two when they look for a server that takes writes (libpq's `target_session_attrs`, JDBC's
//! `targetServerType`). A server whose database cannot be written to says *on* there, whatever has been set. What has been set, and goes by the
//! name in PostgreSQL's own code, stays as it is: a session's own choice is back as soon as the server can write again.
//!
//! `default_transaction_read_only` is also reported by PostgreSQL itself (ParameterStatus): when a session begins, and at the end of a statement
//! if it was set meanwhile. [`report`] has it look again though nobody has set it.

use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

use pgrx::pg_sys;

use super::majors::process::settings;

const DEFAULT: &CStr = c"default_transaction_read_only";
const TRANSACTION: &CStr = c"transaction_read_only";

static IS_READ_ONLY: OnceLock<fn() -> bool> = OnceLock::new();

/// `is_read_only` tells whether the server refuses whatever this session would write. It must not raise. Called while libraries are preloaded.
pub fn install(is_read_only: fn() -> bool) {
    if IS_READ_ONLY.set(is_read_only).is_ok() {
        // SAFETY: loading libraries, single-threaded; both are settings of PostgreSQL's own, and boolean.
        unsafe {
            for (name, hook) in
                [(DEFAULT, show_default as unsafe extern "C-unwind" fn() -> _), (TRANSACTION, show_transaction)]
            {
                if let Some(record) = find(name) {
                    (*record).show_hook = Some(hook);
                }
            }
        }
    }
}

/// # Safety
/// `name` must be a boolean setting's.
unsafe fn find(name: &CStr) -> Option<*mut pg_sys::config_bool> {
    // SAFETY: each record has a name.
    settings().into_iter().find(|&record| unsafe { CStr::from_ptr((*record).name) } == name).map(|record| record.cast())
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn show_default() -> *const c_char {
    // SAFETY: a variable of this process.
    show(unsafe { pg_sys::DefaultXactReadOnly })
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn show_transaction() -> *const c_char {
    // SAFETY: a variable of this process.
    show(unsafe { pg_sys::XactReadOnly })
}

fn show(is_set: bool) -> *const c_char {
    let is_on = is_set || IS_READ_ONLY.get().is_some_and(|is_read_only| is_read_only());
    if is_on { c"on".as_ptr() } else { c"off".as_ptr() }
}

/// Has PostgreSQL tell the client at the end of the statement, if what it said last is no longer so. False if that cannot be asked for now.
pub fn report() -> bool {
    // SAFETY: sets the setting to what it is, by the same giver: nothing changes but that PostgreSQL looks at it again. As a local change it
    // leaves no trace at the transaction's end. Below ERROR nothing is raised.
    unsafe {
        let Some(record) = find(DEFAULT) else { return false };
        if pg_sys::IsInParallelMode() {
            return false;
        }
        let value = if pg_sys::DefaultXactReadOnly { c"on" } else { c"off" };
        let generic = &(*record).gen_;
        pg_sys::set_config_option(
            DEFAULT.as_ptr(),
            value.as_ptr(),
            generic.scontext,
            generic.source,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            pg_sys::DEBUG1 as i32,
            false,
        ) > 0
    }
}

//! Admission: deciding about a client that has authenticated, before it gets a session.

use std::ffi::CStr;
use std::sync::OnceLock;

use pgrx::prelude::*;

use super::majors::process::Port;

mod raw {
    use super::Port;

    /// libpq/auth.h, which pgrx does not bind.
    pub type Hook = unsafe extern "C-unwind" fn(*mut Port, i32);

    unsafe extern "C" {
        pub static mut ClientAuthentication_hook: Option<Hook>;
    }
}

/// STATUS_OK of c.h.
const STATUS_OK: i32 = 0;

static PREVIOUS: OnceLock<Option<raw::Hook>> = OnceLock::new();
static ADMIT: OnceLock<fn(&str)> = OnceLock::new();

/// Calls `admit` with the database's name for every client that has authenticated. It may raise a FATAL.
pub fn install(admit: fn(&str)) {
    // SAFETY: loading libraries, single-threaded.
    let previous = unsafe { raw::ClientAuthentication_hook };
    if ADMIT.set(admit).is_ok() && PREVIOUS.set(previous).is_ok() {
        // SAFETY: as above.
        unsafe { raw::ClientAuthentication_hook = Some(on_authenticated) };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_authenticated(port: *mut Port, status: i32) {
    if let Some(Some(previous)) = PREVIOUS.get() {
        // SAFETY: the hook that was installed before ours, called as PostgreSQL would.
        unsafe { pgrx::pg_sys::ffi::pg_guard_ffi_boundary(|| previous(port, status)) };
    }
    if status != STATUS_OK || port.is_null() {
        return;
    }
    // SAFETY: PostgreSQL's Port, of which ours is the front; the name is set from the startup packet.
    let name = unsafe { (*port).database_name };
    if let (Some(admit), false) = (ADMIT.get(), name.is_null()) {
        // SAFETY: a C string that lives as long as the connection.
        admit(&unsafe { CStr::from_ptr(name) }.to_string_lossy());
    }
}

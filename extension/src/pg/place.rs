//! Where this server is, for programs of its user on its machine.

use std::ffi::{CStr, c_char};
use std::path::Path;

use pgrx::pg_sys;

unsafe extern "C" {
    /// The path of the running `postgres`; MAXPGPATH bytes.
    static my_exec_path: [c_char; 1024];
}

/// The first directory with a Unix socket of the server; none where it has no Unix socket.
pub fn socket_directory() -> Option<String> {
    // SAFETY: a setting, null or a C string, which only changes with the server.
    let all = unsafe { pg_sys::Unix_socket_directories.as_ref().map(|first| CStr::from_ptr(first)) }?;
    let first = all.to_str().ok()?.split(',').next()?.trim().trim_matches('"');
    (!first.is_empty()).then(|| first.to_owned())
}

pub fn port() -> u16 {
    // SAFETY: a setting, which only changes with the server.
    u16::try_from(unsafe { pg_sys::PostPortNumber }).unwrap_or_default()
}

/// The directory of the server's programs.
pub fn programs() -> String {
    // SAFETY: set before any process of the server is started, and never changed.
    let path = unsafe { CStr::from_ptr(my_exec_path.as_ptr()) }.to_string_lossy();
    Path::new(&*path).parent().map(|directory| directory.display().to_string()).unwrap_or_default()
}

/// The superuser that initdb made. Inside a transaction.
pub fn superuser() -> String {
    // SAFETY: a catalog look-up; gives null where the role is gone, else a palloc'd string.
    unsafe {
        let name = pg_sys::GetUserNameFromId(pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID), true);
        if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
    }
}

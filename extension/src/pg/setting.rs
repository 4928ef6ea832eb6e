//! Settings (GUCs): reading them, and setting some for a while.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

/// The value of a setting in this session; none if there is no such setting.
pub fn get(name: &CStr) -> Option<String> {
    // SAFETY: gives a string that stays until the setting changes; copied at once.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
    }
}

/// The session's application_name. Reads no catalog, so that a report hook may ask.
pub fn application_name() -> String {
    // SAFETY: null or a C string of this process, which only this process changes.
    unsafe {
        let name = pg_sys::application_name;
        if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
    }
}

/// Settings in force until dropped. An ERROR puts the old ones back by itself.
pub struct Scope(std::ffi::c_int);

impl Scope {
    pub fn enter() -> Scope {
        // SAFETY: opens a nest level of settings.
        Scope(unsafe { pg_sys::NewGUCNestLevel() })
    }

    /// False if the value is not accepted.
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        let (Ok(name), Ok(value)) = (CString::new(name), CString::new(value)) else { return false };
        // SAFETY: both strings outlive the call; at level WARNING a bad value is reported and gives 0.
        unsafe {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                pg_sys::WARNING as i32,
                false,
            ) > 0
        }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: closes the nest level opened above.
            unsafe { pg_sys::AtEOXact_GUC(true, self.0) }
        }
    }
}

//! Settings (GUCs): those of a session, as another process takes them over.
//!
//! What a statement means depends on its session's settings, and nobody can list which: functions read any of them, custom ones too, and
//! `SET ... FROM CURRENT` writes them into a catalog. So every setting that a session may change travels, as for PostgreSQL's parallel workers;
//! one that does not travel stands at PostgreSQL's own default ([`Scope::at_defaults`]). What [`STAYS`] names is the process's own.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;
use pgrx::pg_sys::config_type;

use super::encoding;
use super::majors::process::settings;
use super::role;

/// Settings of a process or its machine, whatever it runs: how it commits, how long it waits, where its files are. And whether bodies of functions
/// are looked at: the origin has done so, where they may name what only its session has.
const STAYS: [&str; 17] = [
    "check_function_bodies",
    "deadlock_timeout",
    "default_tablespace",
    "dynamic_library_path",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "lc_messages",
    "local_preload_libraries",
    "lock_timeout",
    "max_stack_depth",
    "session_preload_libraries",
    "session_replication_role",
    "statement_timeout",
    "synchronous_commit",
    "temp_buffers",
    "temp_tablespaces",
    "transaction_timeout",
];

/// And those beginning so: the log of a node, and what an operator has set for replication there.
const STAYS_FROM: [&str; 2] = ["log_", "postgres_r."];

/// How far a setting of one session counts in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// No session can change it, or there is no such setting.
    Server,
    /// It stays with the process.
    Process,
    /// It goes along with a statement.
    Statement,
}

fn stays(name: &str) -> bool {
    STAYS.contains(&name) || STAYS_FROM.iter().any(|beginning| name.starts_with(beginning))
}

/// Calls `visit` with the name of each setting and its record.
fn for_each(mut visit: impl FnMut(&'static CStr, *mut pg_sys::config_generic)) {
    for record in settings() {
        // SAFETY: records outlive the process's settings; names are not changed once made.
        visit(unsafe { CStr::from_ptr((*record).name) }, record);
    }
}

/// # Safety
/// `record` must be the record of the setting with this name.
unsafe fn reach_of(name: &CStr, record: *const pg_sys::config_generic) -> Reach {
    use pg_sys::GucContext::{PGC_SUSET, PGC_USERSET};
    // SAFETY: by contract.
    let (context, flags) = unsafe { ((*record).context, (*record).flags) };
    if context != PGC_SUSET && context != PGC_USERSET {
        return Reach::Server;
    }
    // The role and the properties of the transaction have this flag, and go their own ways.
    let is_reset_by_itself = flags as u32 & pg_sys::GUC_NO_RESET_ALL != 0;
    match name.to_str() {
        Ok(name) if !is_reset_by_itself && !stays(name) => Reach::Statement,
        _ => Reach::Process,
    }
}

/// How far the setting with this name reaches, in any case of letters.
pub fn reach(name: &CStr) -> Reach {
    let mut found = Reach::Server;
    for_each(|other, record| {
        if other.to_bytes().eq_ignore_ascii_case(name.to_bytes()) {
            // SAFETY: the setting's record.
            found = unsafe { reach_of(other, record) };
        }
    });
    found
}

/// A setting as a session has it.
pub struct Given {
    pub name: String,
    pub value: String,
    /// Whether a superuser, or the configuration, has given the value, or PostgreSQL has found that its giver may. Else it is set elsewhere with
    /// no more rights than an ordinary session has: what is a name that anybody may make up here may be a superuser's setting of a library
    /// that is loaded there.
    pub by_superuser: bool,
}

/// A setting whose name or value is not UTF-8.
pub struct NotUtf8(pub String);

/// The settings of this session that go along with a statement and are not at PostgreSQL's own default.
pub fn of_session() -> Result<Vec<Given>, NotUtf8> {
    use pg_sys::GucContext::{PGC_BACKEND, PGC_SUSET, PGC_USERSET};
    let mut settings = Vec::new();
    let mut wrong = None;
    for_each(|name, record| {
        // SAFETY: the setting's record.
        let goes_along =
            unsafe { reach_of(name, record) == Reach::Statement && (*record).source != pg_sys::GucSource::PGC_S_DEFAULT };
        if !goes_along {
            return;
        }
        // SAFETY: gives null or a string that stays until the setting changes; copied at once.
        let value = unsafe {
            let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
            if value.is_null() {
                return;
            }
            CStr::from_ptr(value)
        };
        match (encoding::exactly(name.to_bytes()), encoding::exactly(value.to_bytes())) {
            (Some(name), Some(value)) => {
                // SAFETY: the setting's record.
                let (context, by) = unsafe { ((*record).context, (*record).scontext) };
                let by_superuser = context == PGC_SUSET || (by != PGC_USERSET && by != PGC_BACKEND);
                settings.push(Given { name, value, by_superuser });
            }
            _ => wrong = Some(NotUtf8(encoding::text(name))),
        }
    });
    match wrong {
        Some(wrong) => Err(wrong),
        None => Ok(settings),
    }
}

/// The value that PostgreSQL, or an extension, gives a setting before anybody else does. None for custom settings that nobody has defined.
///
/// # Safety
/// `record` must be a setting's record.
unsafe fn built_in(record: *mut pg_sys::config_generic) -> Option<CString> {
    // SAFETY: the type says what the record is the beginning of; strings are null or end with a zero byte.
    unsafe {
        let text = match (*record).vartype {
            config_type::PGC_BOOL => {
                let value = (*record.cast::<pg_sys::config_bool>()).boot_val;
                if value { "on".to_owned() } else { "off".to_owned() }
            }
            config_type::PGC_INT => (*record.cast::<pg_sys::config_int>()).boot_val.to_string(),
            config_type::PGC_REAL => (*record.cast::<pg_sys::config_real>()).boot_val.to_string(),
            config_type::PGC_STRING => {
                let value = (*record.cast::<pg_sys::config_string>()).boot_val;
                return (!value.is_null()).then(|| CStr::from_ptr(value).to_owned());
            }
            config_type::PGC_ENUM => {
                let record = record.cast::<pg_sys::config_enum>();
                return Some(CStr::from_ptr(pg_sys::config_enum_lookup_by_value(record, (*record).boot_val)).to_owned());
            }
            _ => return None,
        };
        CString::new(text).ok()
    }
}

/// Settings in force until dropped. An ERROR puts the old ones back by itself.
pub struct Scope(std::ffi::c_int);

impl Scope {
    pub fn enter() -> Scope {
        // SAFETY: opens a nest level of settings.
        Scope(unsafe { pg_sys::NewGUCNestLevel() })
    }

    /// With all that go along with statements at PostgreSQL's own default.
    pub fn at_defaults() -> Scope {
        let mut scope = Scope::enter();
        let mut changed = Vec::new();
        for_each(|name, record| {
            // SAFETY: the setting's record.
            unsafe {
                if reach_of(name, record) == Reach::Statement && (*record).source != pg_sys::GucSource::PGC_S_DEFAULT {
                    changed.extend(built_in(record).map(|value| (name, value)));
                }
            }
        });
        for (name, value) in changed {
            scope.put(name, &value, true, pg_sys::WARNING);
        }
        scope
    }

    /// For a value's text that is read back exactly, under whatever settings of those that can show in it.
    pub fn readable() -> Scope {
        let mut scope = Scope::readable_here();
        scope.set("search_path", "pg_catalog");
        scope
    }

    /// The same, with names as the session finds them.
    pub fn readable_here() -> Scope {
        let mut scope = Scope::enter();
        for (name, value) in
            [("datestyle", "ISO, YMD"), ("intervalstyle", "postgres"), ("extra_float_digits", "3"), ("bytea_output", "hex")]
        {
            scope.set(name, value);
        }
        scope
    }

    /// Becomes a session of that role, with SET ROLE `set` unless that is empty, as PostgreSQL's parallel workers do: whether the session may take
    /// the role has been asked where it did. Both must exist.
    pub fn become_session(&mut self, session: &str, set: &str) {
        self.set("session_authorization", session);
        let Some(role) = role::find(set) else { return };
        // SAFETY: the role is put in force, and then the setting that shows it, which PostgreSQL takes from what is in force while the flag is
        // up. Below ERROR, so that nothing passes by the line that takes it down.
        unsafe {
            pg_sys::SetCurrentRoleId(role, pg_sys::superuser_arg(role));
            pg_sys::InitializingParallelWorker = true;
            self.set("role", set);
            pg_sys::InitializingParallelWorker = false;
        }
    }

    /// False if PostgreSQL does not accept the value.
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        self.set_for(name, value, true)
    }

    /// With a superuser's rights or without. A custom setting that is not accepted is passed over: its library, once loaded, does not accept
    /// it from a session either, and leaves it at its default.
    pub fn set_for(&mut self, name: &str, value: &str, by_superuser: bool) -> bool {
        let is_custom = name.contains('.');
        let (Some(name), Some(value)) = (encoding::c_string(name), encoding::c_string(value)) else { return false };
        let level = if is_custom { pg_sys::DEBUG1 } else { pg_sys::WARNING };
        self.put(&name, &value, by_superuser, level) || is_custom
    }

    fn put(&mut self, name: &CStr, value: &CStr, by_superuser: bool, level: u32) -> bool {
        use pg_sys::GucContext::{PGC_SUSET, PGC_USERSET};
        // SAFETY: both strings outlive the call; below ERROR a bad value is reported and gives 0.
        unsafe {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                if by_superuser { PGC_SUSET } else { PGC_USERSET },
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                level as i32,
                false,
            ) > 0
        }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: closes the nest level opened above: whatever was set in it, also by a SET in a function, is as it was before.
            unsafe { pg_sys::AtEOXact_GUC(false, self.0) }
        }
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

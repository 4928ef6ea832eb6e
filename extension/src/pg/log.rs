//! PostgreSQL's error reports on their way out: read, rewritten, or held back.
//!
//! The hook runs while an error is being reported, with interrupts held and outside of any transaction one could rely on:
//! it must not raise, nor read catalogs.

use std::ffi::CStr;
use std::sync::OnceLock;

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::encoding;
use super::interrupt;

type Hook = unsafe extern "C-unwind" fn(*mut pg_sys::ErrorData);

static PREVIOUS: OnceLock<Option<Hook>> = OnceLock::new();
static OURS: OnceLock<fn(&mut Report)> = OnceLock::new();

/// Shows every report to `look` before it is written anywhere. Called while libraries are preloaded.
pub fn install(look: fn(&mut Report)) {
    // SAFETY: loading libraries, single-threaded.
    let previous = unsafe { pg_sys::emit_log_hook };
    if OURS.set(look).is_ok() && PREVIOUS.set(previous).is_ok() {
        // SAFETY: as above.
        unsafe { pg_sys::emit_log_hook = Some(on_report) };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_report(data: *mut pg_sys::ErrorData) {
    if let (Some(look), false) = (OURS.get(), data.is_null()) {
        look(&mut Report { data });
    }
    if let Some(Some(previous)) = PREVIOUS.get() {
        // SAFETY: the hook that was installed before ours, called as PostgreSQL would.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| previous(data)) };
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Log,
    Other,
    Error,
    Fatal,
}

/// One report, valid for the length of the hook.
pub struct Report {
    data: *mut pg_sys::ErrorData,
}

impl Report {
    fn data(&self) -> &pg_sys::ErrorData {
        // SAFETY: non-null, and ours for the length of the hook.
        unsafe { &*self.data }
    }

    fn data_mut(&mut self) -> &mut pg_sys::ErrorData {
        // SAFETY: as above; `self` is the only handle.
        unsafe { &mut *self.data }
    }

    pub fn level(&self) -> Level {
        match self.data().elevel as u32 {
            pg_sys::LOG | pg_sys::LOG_SERVER_ONLY => Level::Log,
            pg_sys::PGERROR => Level::Error,
            pg_sys::FATAL => Level::Fatal,
            _ => Level::Other,
        }
    }

    pub fn is(&self, code: PgSqlErrorCode) -> bool {
        self.data().sqlerrcode == code as i32
    }

    /// The message's untranslated format, by which PostgreSQL's own reports are known.
    pub fn has_format(&self, prefix: &CStr) -> bool {
        let id = self.data().message_id;
        // SAFETY: null or a C string that lives as long as the report.
        !id.is_null() && unsafe { CStr::from_ptr(id) }.to_bytes().starts_with(prefix.to_bytes())
    }

    /// Its message, as it will be shown.
    pub fn says(&self, message: &str) -> bool {
        let text = self.data().message;
        // SAFETY: null or a C string that lives as long as the report.
        !text.is_null() && unsafe { CStr::from_ptr(text) }.to_bytes() == message.as_bytes()
    }

    /// Its message, if that is UTF-8.
    pub fn message(&self) -> Option<&str> {
        let text = self.data().message;
        // SAFETY: null or a C string that lives as long as the report.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_str().ok()).flatten()
    }

    /// Where in the query's text it points, in bytes.
    pub fn position(&self, text: &str) -> Option<usize> {
        let characters = usize::try_from(self.data().cursorpos).ok()?.checked_sub(1)?;
        text.char_indices().nth(characters).map(|(at, _)| at)
    }

    pub fn to_client(&self) -> bool {
        self.data().output_to_client
    }

    /// Neither the log nor the client will see it.
    pub fn hold_back(&mut self) {
        let data = self.data_mut();
        data.output_to_server = false;
        data.output_to_client = false;
    }

    /// Says something else instead.
    pub fn rewrite(&mut self, code: PgSqlErrorCode, message: &str, detail: Option<&str>, hint: Option<&str>) {
        let context = self.data().assoc_context;
        let data = self.data_mut();
        data.sqlerrcode = code as i32;
        data.message = copy(context, Some(message));
        data.detail = copy(context, detail);
        data.detail_log = std::ptr::null_mut();
        data.hint = copy(context, hint);
        data.cursorpos = 0;
        data.internalpos = 0;
        data.internalquery = std::ptr::null_mut();
    }
}

fn copy(context: pg_sys::MemoryContext, text: Option<&str>) -> *mut std::ffi::c_char {
    let Some(text) = text.and_then(encoding::c_string) else { return std::ptr::null_mut() };
    // SAFETY: the context is the report's own; the C string is copied.
    unsafe { pg_sys::MemoryContextStrdup(context, text.as_ptr()) }
}

/// What the client sent, as typed; `None` outside of a query.
pub fn query_text() -> Option<String> {
    // SAFETY: null or a C string that lives as long as the query.
    let text = unsafe { pg_sys::debug_query_string };
    // SAFETY: as above.
    (!text.is_null()).then(|| encoding::text(unsafe { CStr::from_ptr(text) }))
}

/// Whether PostgreSQL is reading a statement to run it later under a name. One without a name is run at once by every client that there is,
/// and is read in a memory context of its own. With `update_process_title` off nobody can tell, and the answer is no.
pub fn is_preparing() -> bool {
    const UNNAMED: &CStr = c"unnamed prepared statement";
    // SAFETY: the title is so many bytes; contexts are a list that ends with null, each with a name that is null or a C string.
    unsafe {
        let mut length = 0;
        let title = pg_sys::get_ps_display(&mut length).cast::<u8>();
        let length = usize::try_from(length).unwrap_or(0);
        if title.is_null() || std::slice::from_raw_parts(title, length) != b"PARSE" || pg_sys::MessageContext.is_null() {
            return false;
        }
        let mut context = (*pg_sys::MessageContext).firstchild;
        while !context.is_null() {
            if !(*context).name.is_null() && CStr::from_ptr((*context).name) == UNNAMED {
                return false;
            }
            context = (*context).nextchild;
        }
        true
    }
}

/// Tells the client that its command is done, in place of an error that was held back.
pub fn complete_command_alter_database() {
    // SAFETY: QueryCompletion is plain data; EndCommand writes one message to the client, buffered.
    unsafe {
        let mut completion: pg_sys::QueryCompletion = std::mem::zeroed();
        completion.commandTag = pg_sys::CommandTag::CMDTAG_ALTER_DATABASE;
        pg_sys::EndCommand(&completion, pg_sys::CommandDest::DestRemote, false);
    }
}

/// Whether this process talks to a client.
pub fn has_client() -> bool {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::whereToSendOutput == pg_sys::CommandDest::DestRemote }
}

/// Writes a line to the server's log without raising anything, at LOG level.
pub fn log(message: impl Into<String>, detail: Option<String>, hint: Option<String>) {
    write_log(PgLogLevel::LOG, message.into(), detail, hint);
}

/// A NOTICE to the client.
pub fn notice(message: impl Into<String>) {
    let message: String = message.into();
    ErrorReport::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message, "postgres_r").report(PgLogLevel::NOTICE);
}

/// As [`log`] at WARNING level, for what a person should look at.
pub fn warn(message: impl Into<String>, detail: Option<String>, hint: Option<String>) {
    write_log(PgLogLevel::WARNING, message.into(), detail, hint);
}

fn write_log(level: PgLogLevel, message: String, detail: Option<String>, hint: Option<String>) {
    // Not to be interrupted while half written.
    interrupt::hold();
    let mut report = ErrorReport::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message, "postgres_r");
    if let Some(detail) = detail {
        report = report.set_detail(detail);
    }
    if let Some(hint) = hint {
        report = report.set_hint(hint);
    }
    report.report(level);
    interrupt::resume();
}

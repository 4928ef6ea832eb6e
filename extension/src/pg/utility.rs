//! The hook on utility statements, and running one from its text.

use std::ffi::CStr;
use std::sync::OnceLock;

use pgrx::pg_sys;

use super::statement::{Class, classify, command_tag};
use super::{list, sequence};

type Listener = fn(&mut Utility<'_>);

struct Hook {
    listener: Listener,
    previous: pg_sys::ProcessUtility_hook_type,
}

static HOOK: OnceLock<Hook> = OnceLock::new();

/// A utility statement about to run.
pub struct Utility<'a> {
    hook: &'a Hook,
    statement: *mut pg_sys::PlannedStmt,
    text: *const std::ffi::c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
}

/// Hands every utility statement to `listener`, which must run it (or raise an error). Once a process, from `_PG_init`.
pub fn on_utility(listener: Listener) {
    // SAFETY: a plain variable, set while the library loads; the previous value is kept and called.
    unsafe {
        if HOOK.set(Hook { listener, previous: pg_sys::ProcessUtility_hook }).is_ok() {
            pg_sys::ProcessUtility_hook = Some(process);
        }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn process(
    statement: *mut pg_sys::PlannedStmt,
    text: *const std::ffi::c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    let Some(hook) = HOOK.get() else { return };
    let mut utility =
        Utility { hook, statement, text, read_only_tree, context, params, environment, destination, completion };
    (hook.listener)(&mut utility);
}

impl Utility<'_> {
    fn node(&self) -> *mut pg_sys::Node {
        // SAFETY: the hook is only called with utility statements.
        unsafe { (*self.statement).utilityStmt }
    }

    pub fn class(&self) -> Class {
        // SAFETY: a parse tree that lives as long as the call.
        unsafe { classify(self.node()) }
    }

    /// Its name as in a command tag.
    pub fn tag(&self) -> String {
        // SAFETY: as above.
        unsafe { command_tag(self.node()) }
    }

    /// A part of another statement, which travels as a whole.
    pub fn is_subcommand(&self) -> bool {
        self.context == pg_sys::ProcessUtilityContext::PROCESS_UTILITY_SUBCOMMAND
    }

    /// The statement's own text, cut out of what the client sent; none if it is not UTF-8.
    pub fn text(&self) -> Option<String> {
        // SAFETY: the location counts bytes of the text; a length of 0 means to its end.
        let bytes = unsafe {
            let all = CStr::from_ptr(self.text).to_bytes();
            let start = usize::try_from((*self.statement).stmt_location).unwrap_or(0).min(all.len());
            match usize::try_from((*self.statement).stmt_len) {
                Ok(length) if length > 0 => &all[start..(start + length).min(all.len())],
                _ => &all[start..],
            }
        };
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    }

    /// Runs it as it is.
    pub fn run(&mut self) {
        // SAFETY: passes on what we were given.
        unsafe {
            match self.hook.previous {
                Some(previous) => pg_sys::ffi::pg_guard_ffi_boundary(|| {
                    previous(
                        self.statement,
                        self.text,
                        self.read_only_tree,
                        self.context,
                        self.params,
                        self.environment,
                        self.destination,
                        self.completion,
                    )
                }),
                None => pg_sys::standard_ProcessUtility(
                    self.statement,
                    self.text,
                    self.read_only_tree,
                    self.context,
                    self.params,
                    self.environment,
                    self.destination,
                    self.completion,
                ),
            }
        }
    }

    /// Runs it; a sequence that it makes or restarts gets values of this node's own.
    pub fn run_with_sequences(&mut self, ordinal: u16) -> Result<(), sequence::Refused> {
        // SAFETY: the tree is copied before anything in it may be changed.
        unsafe {
            let tag = (*self.node()).type_;
            if !matches!(tag, pg_sys::NodeTag::T_CreateSeqStmt | pg_sys::NodeTag::T_AlterSeqStmt) {
                self.run();
                return Ok(());
            }
            self.statement = pg_sys::copyObjectImpl(self.statement.cast()).cast();
            self.read_only_tree = false;
            let pending = sequence::prepare(self.node())?;
            self.run();
            sequence::finish(&pending, ordinal);
        }
        Ok(())
    }
}

/// Runs statements from their text, through SPI. Errors are PostgreSQL's own.
pub fn run_text(text: &CStr) {
    // SAFETY: connects, runs, disconnects; an ERROR in between cleans up by itself.
    unsafe {
        pg_sys::SPI_connect();
        let result = pg_sys::SPI_execute(text.as_ptr(), false, 0);
        if result < 0 {
            pgrx::error!("could not run an ordered statement: SPI result {result}");
        }
        pg_sys::SPI_finish();
    }
}

/// The relations that a plan writes to.
///
/// # Safety
/// `query` must be a query descriptor.
pub(super) unsafe fn written_by(query: *mut pg_sys::QueryDesc) -> Vec<super::relation::Oid> {
    // SAFETY: by contract; resultRelations are indexes, from 1, into the range table.
    unsafe {
        let plan = (*query).plannedstmt;
        if (*plan).resultRelations.is_null() {
            return Vec::new();
        }
        let table = list::pointers::<pg_sys::RangeTblEntry>((*plan).rtable);
        list::integers((*plan).resultRelations)
            .into_iter()
            .filter_map(|index| table.get(usize::try_from(index).ok()?.checked_sub(1)?).map(|&entry| (*entry).relid))
            .collect()
    }
}

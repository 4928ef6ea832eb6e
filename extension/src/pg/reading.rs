//! Being called before a statement looks at data for the first time, to make it wait, and taking the snapshots anew that PostgreSQL took before it
//! could be called.
//!
//! PostgreSQL offers no hook before a statement's snapshot. There are three places at which every statement that needs data comes by: it is
//! analysed, a plan starts, a utility statement runs; a plan from the cache comes by the later ones only. (A function that the protocol calls comes by none: large objects are opened so.) By then there may be a snapshot: under
//! REPEATABLE READ and above the transaction's own, since analysing a query takes it first, and at a plan's start the one that the plan is to
//! see by. Nothing has been read by either. So if the listener has waited, they are taken anew ([`snapshot::renew`]).

use std::sync::OnceLock;

use pgrx::pg_sys;

use super::{snapshot, summons};

struct Hooks {
    before: fn() -> bool,
    analyse: pg_sys::post_parse_analyze_hook_type,
    start: pg_sys::ExecutorStart_hook_type,
    utility: pg_sys::ProcessUtility_hook_type,
}

static HOOKS: OnceLock<Hooks> = OnceLock::new();

/// Calls `before` ahead of every statement that looks at data, nested ones too; it may raise an ERROR, and gives whether whatever snapshots there
/// are must be taken anew. To be called once, while libraries are preloaded, after all that install the same hooks: they are to see by what is
/// there afterwards.
pub fn before_data(before: fn() -> bool) {
    // SAFETY: hooks are plain variables, set while the library loads; the previous values are kept and called.
    unsafe {
        let hooks = Hooks {
            before,
            analyse: pg_sys::post_parse_analyze_hook,
            start: pg_sys::ExecutorStart_hook,
            utility: pg_sys::ProcessUtility_hook,
        };
        if HOOKS.set(hooks).is_ok() {
            pg_sys::post_parse_analyze_hook = Some(analyse);
            pg_sys::ExecutorStart_hook = Some(start);
            pg_sys::ProcessUtility_hook = Some(utility);
        }
    }
}

unsafe extern "C-unwind" {
    /// As pgrx binds them, but without the guard: errors pass with all their fields.
    #[link_name = "standard_ExecutorStart"]
    fn start_by_postgres(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int);
    #[link_name = "standard_ProcessUtility"]
    fn run_by_postgres(
        statement: *mut pg_sys::PlannedStmt,
        text: *const std::ffi::c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        params: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// # Safety
/// Called by PostgreSQL. Like the two below not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
unsafe extern "C-unwind" fn analyse(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    // SAFETY: passes on what we were given.
    unsafe {
        if is_about_data((*query).utilityStmt) {
            tell();
        }
        if let Some(previous) = HOOKS.get().and_then(|hooks| hooks.analyse) {
            previous(state, query, jumble);
        }
    }
}

unsafe extern "C-unwind" fn start(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int) {
    // SAFETY: passes on what we were given.
    unsafe {
        tell_start(query);
        HOOKS.get().and_then(|hooks| hooks.start).unwrap_or(start_by_postgres)(query, flags);
    }
}

unsafe extern "C-unwind" fn utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const std::ffi::c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: passes on what we were given.
    unsafe {
        snapshot::note_import((*statement).utilityStmt);
        if is_about_data((*statement).utilityStmt) {
            tell();
        }
        let run = HOOKS.get().and_then(|hooks| hooks.utility).unwrap_or(run_by_postgres);
        run(statement, text, read_only_tree, context, params, environment, destination, completion);
    }
}

/// Whether a statement looks at data: any but those for which PostgreSQL takes no snapshot, or needs none.
///
/// # Safety
/// `utility` must be null, for a query, or a parse tree.
unsafe fn is_about_data(utility: *const pg_sys::Node) -> bool {
    use pg_sys::NodeTag::*;
    // SAFETY: by contract.
    unsafe {
        utility.is_null()
            || !matches!(
                (*utility).type_,
                T_TransactionStmt
                    | T_LockStmt
                    | T_VariableSetStmt
                    | T_VariableShowStmt
                    | T_ConstraintsSetStmt
                    | T_FetchStmt
                    | T_ClosePortalStmt
                    | T_ListenStmt
                    | T_NotifyStmt
                    | T_UnlistenStmt
                    | T_CheckPointStmt
                    | T_DiscardStmt
                    | T_DeallocateStmt
                    | T_LoadStmt
            )
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn tell() {
    if is_told() {
        snapshot::renew();
    }
}

/// A function that looks at data is called. Where no statement calls it, the protocol does (libpq's `lo_open`), and nothing has come by before.
pub(super) fn function_is_called() {
    // SAFETY: a variable of this process; there is a portal while a statement runs.
    if unsafe { pg_sys::ActivePortal.is_null() } && is_told() {
        snapshot::renew();
    }
}

/// # Safety
/// `query` must be what the executor is about to start.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn tell_start(query: *mut pg_sys::QueryDesc) {
    if is_told() {
        snapshot::renew();
        // SAFETY: by contract; it has not been started.
        unsafe { snapshot::renew_of(query) };
    }
}

fn is_told() -> bool {
    // SAFETY: a variable of this process. A parallel worker sees by its leader's snapshot.
    let is_parallel_worker = unsafe { pg_sys::ParallelWorkerNumber >= 0 };
    let Some(hooks) = HOOKS.get().filter(|_| !is_parallel_worker) else { return false };
    // Whoever waits may be told to give way.
    summons::statement_is_known();
    (hooks.before)()
}

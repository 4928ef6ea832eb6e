//! Query trees, plans and their execution, as each major version has them.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use pgrx::pg_sys;

pub type Walker = unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut c_void) -> bool;
pub type StateWalker = unsafe extern "C-unwind" fn(*mut pg_sys::PlanState, *mut c_void) -> bool;
pub type Mutator = unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut c_void) -> *mut pg_sys::Node;

// Of nodes/nodeFuncs.h. Since 16 these names are macros. Without pgrx's guard: errors pass with all their fields.
unsafe extern "C-unwind" {
    #[cfg_attr(not(feature = "pg15"), link_name = "expression_tree_walker_impl")]
    pub fn expression_tree_walker(node: *mut pg_sys::Node, walker: Walker, context: *mut c_void) -> bool;
    #[cfg_attr(not(feature = "pg15"), link_name = "raw_expression_tree_walker_impl")]
    pub fn raw_expression_tree_walker(node: *mut pg_sys::Node, walker: Walker, context: *mut c_void) -> bool;
    #[cfg_attr(not(feature = "pg15"), link_name = "query_tree_walker_impl")]
    pub fn query_tree_walker(query: *mut pg_sys::Query, walker: Walker, context: *mut c_void, flags: c_int) -> bool;
    #[cfg_attr(not(feature = "pg15"), link_name = "planstate_tree_walker_impl")]
    pub fn planstate_tree_walker(state: *mut pg_sys::PlanState, walker: StateWalker, context: *mut c_void) -> bool;
    #[cfg_attr(not(feature = "pg15"), link_name = "expression_tree_mutator_impl")]
    pub fn expression_tree_mutator(node: *mut pg_sys::Node, mutator: Mutator, context: *mut c_void) -> *mut pg_sys::Node;
}

/// Whether a MERGE's action is about rows of its target that are there.
pub fn is_of_target_rows(action: &pg_sys::MergeAction) -> bool {
    #[cfg(feature = "pg15")]
    return action.matched;
    #[cfg(not(feature = "pg15"))]
    return action.matchKind != pg_sys::MergeMatchKind::MERGE_WHEN_NOT_MATCHED_BY_TARGET;
}

/// The rights that a plan wants on one of its relations, and the columns that it updates.
///
/// # Safety
/// `entry` must be of the plan's range table.
pub unsafe fn wanted_of(
    plan: *const pg_sys::PlannedStmt,
    entry: *mut pg_sys::RangeTblEntry,
) -> (u64, *mut pg_sys::Bitmapset) {
    // SAFETY: by contract. Since 16 these stand in a list of their own; entries that want none are not in it.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            let _ = plan;
            (u64::from((*entry).requiredPerms), (*entry).updatedCols)
        }
        #[cfg(not(feature = "pg15"))]
        {
            if (*entry).perminfoindex == 0 {
                return (0, std::ptr::null_mut());
            }
            let info = pg_sys::getRTEPermissionInfo((*plan).permInfos, entry);
            ((*info).requiredPerms, (*info).updatedCols)
        }
    }
}

/// What an entry of a query's range table wants is wanted by its copy in another query, and not by itself any more.
///
/// # Safety
/// `entry` must be of `query`, and `copy`, an exact copy, the first entry of `inner`.
pub unsafe fn hand_over_wanted(
    (query, entry): (*mut pg_sys::Query, *mut pg_sys::RangeTblEntry),
    (inner, copy): (*mut pg_sys::Query, *mut pg_sys::RangeTblEntry),
) {
    // SAFETY: by contract. Since 16 each query has a list of its own of what its entries want, to which they point.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            let _ = (query, inner, copy);
            (*entry).requiredPerms = 0;
            (*entry).selectedCols = std::ptr::null_mut();
        }
        #[cfg(not(feature = "pg15"))]
        {
            if (*entry).perminfoindex == 0 {
                return;
            }
            let wanted = pg_sys::getRTEPermissionInfo((*query).rteperminfos, entry);
            let wanted = pg_sys::copyObjectImpl(wanted.cast());
            (*inner).rteperminfos = pg_sys::lappend(std::ptr::null_mut(), wanted);
            (*copy).perminfoindex = 1;
            (*entry).perminfoindex = 0;
        }
    }
}

/// What is called for ExecutorRun(): with the query, the direction, how many rows (0: all), and whether it is run once and no more.
pub type Run = unsafe fn(*mut pg_sys::QueryDesc, pg_sys::ScanDirection::Type, u64, bool);

struct Hook {
    run: Run,
    previous: pg_sys::ExecutorRun_hook_type,
}

static HOOK: OnceLock<Hook> = OnceLock::new();

/// Has `run` called for every ExecutorRun(). Called while libraries are preloaded.
pub fn on_run(run: Run) {
    // SAFETY: loading libraries, single-threaded.
    let previous = unsafe { pg_sys::ExecutorRun_hook };
    if HOOK.set(Hook { run, previous }).is_ok() {
        // SAFETY: as above.
        unsafe { pg_sys::ExecutorRun_hook = Some(of_version::called) };
    }
}

pub use of_version::{execute, run_by_others};

/// Up to 17 the hook is told whether a query is run once.
#[cfg(any(feature = "pg15", feature = "pg17"))]
mod of_version {
    use super::{HOOK, pg_sys};
    use pg_sys::ScanDirection::Type as Direction;

    // Without pgrx's guard: ERRORs pass on to the caller's sigsetjmp().
    unsafe extern "C-unwind" {
        fn standard_ExecutorRun(query: *mut pg_sys::QueryDesc, direction: Direction, count: u64, once: bool);
        fn ExecutorRun(query: *mut pg_sys::QueryDesc, direction: Direction, count: u64, once: bool);
    }

    /// # Safety
    /// Called by PostgreSQL. Not guarded: ERRORs pass through this frame, in which nothing needs a `Drop`.
    pub unsafe extern "C-unwind" fn called(query: *mut pg_sys::QueryDesc, direction: Direction, count: u64, once: bool) {
        if let Some(hook) = HOOK.get() {
            // SAFETY: passes on what it was given.
            unsafe { (hook.run)(query, direction, count, once) };
        }
    }

    /// What would run the query without us.
    ///
    /// # Safety
    /// With what [`super::Run`] was given.
    pub unsafe fn run_by_others(query: *mut pg_sys::QueryDesc, direction: Direction, count: u64, once: bool) {
        // SAFETY: by contract.
        unsafe { HOOK.get().and_then(|hook| hook.previous).unwrap_or(standard_ExecutorRun)(query, direction, count, once) };
    }

    /// Runs a query to its end, for the first and only time.
    ///
    /// # Safety
    /// It must have been started.
    pub unsafe fn execute(query: *mut pg_sys::QueryDesc, direction: Direction) {
        // SAFETY: by contract.
        unsafe { ExecutorRun(query, direction, 0, true) };
    }
}

/// Since 18 it is not told. More rows are fetched of a cursor, and of what a client has given a name; and of what it has fetched rows of before.
#[cfg(not(any(feature = "pg15", feature = "pg17")))]
mod of_version {
    use super::{HOOK, pg_sys};
    use pg_sys::ScanDirection::Type as Direction;

    // Without pgrx's guard: ERRORs pass on to the caller's sigsetjmp().
    unsafe extern "C-unwind" {
        fn standard_ExecutorRun(query: *mut pg_sys::QueryDesc, direction: Direction, count: u64);
        fn ExecutorRun(query: *mut pg_sys::QueryDesc, direction: Direction, count: u64);
    }

    /// # Safety
    /// Called by PostgreSQL. Not guarded: ERRORs pass through this frame, in which nothing needs a `Drop`.
    pub unsafe extern "C-unwind" fn called(query: *mut pg_sys::QueryDesc, direction: Direction, count: u64) {
        if let Some(hook) = HOOK.get() {
            // SAFETY: passes on what it was given.
            unsafe { (hook.run)(query, direction, count, !(*query).already_executed && !is_of_named(query)) };
        }
    }

    unsafe fn is_of_named(query: *const pg_sys::QueryDesc) -> bool {
        // SAFETY: null, or the portal that is being run, with a name that ends in a zero.
        unsafe {
            pg_sys::ActivePortal.as_ref().is_some_and(|portal| portal.queryDesc.cast_const() == query && *portal.name != 0)
        }
    }

    /// What would run the query without us.
    ///
    /// # Safety
    /// With what [`super::Run`] was given.
    pub unsafe fn run_by_others(query: *mut pg_sys::QueryDesc, direction: Direction, count: u64, _once: bool) {
        // SAFETY: by contract.
        unsafe { HOOK.get().and_then(|hook| hook.previous).unwrap_or(standard_ExecutorRun)(query, direction, count) };
    }

    /// Runs a query to its end, for the first and only time.
    ///
    /// # Safety
    /// It must have been started.
    pub unsafe fn execute(query: *mut pg_sys::QueryDesc, direction: Direction) {
        // SAFETY: by contract.
        unsafe { ExecutorRun(query, direction, 0) };
    }
}

/// Whether the client has sent something that was not read yet.
pub fn has_unread() -> bool {
    unsafe extern "C-unwind" {
        // Of libpq/libpq.h, which pgrx does not bind.
        #[cfg(feature = "pg15")]
        fn pq_buffer_has_data() -> bool;
        #[cfg(not(feature = "pg15"))]
        fn pq_buffer_remaining_data() -> isize;
    }
    // SAFETY: looks at this process's buffer.
    unsafe {
        #[cfg(feature = "pg15")]
        return pq_buffer_has_data();
        #[cfg(not(feature = "pg15"))]
        return pq_buffer_remaining_data() > 0;
    }
}

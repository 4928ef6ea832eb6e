//! Functions of the executor that pgrx does not bind, or binds with a guard.

use std::ffi::c_void;

use pgrx::pg_sys;

unsafe extern "C-unwind" {
    /// Of nodes/nodeFuncs.h, which pgrx does not bind.
    pub(super) fn planstate_tree_walker(
        state: *mut pg_sys::PlanState,
        walker: unsafe extern "C-unwind" fn(*mut pg_sys::PlanState, *mut c_void) -> bool,
        context: *mut c_void,
    ) -> bool;
    /// As pgrx binds it, but without the guard: errors of the executor pass with all their fields.
    #[link_name = "ExecReScan"]
    pub(super) fn rescan_by_postgres(state: *mut pg_sys::PlanState);
}

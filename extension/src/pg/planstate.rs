//! Functions of the executor that pgrx does not bind, or binds with a guard.

use pgrx::pg_sys;

unsafe extern "C-unwind" {
    /// As pgrx binds it, but without the guard: errors of the executor pass with all their fields.
    #[link_name = "ExecReScan"]
    pub(super) fn rescan_by_postgres(state: *mut pg_sys::PlanState);
}

/// What the executor calls for a plan node.
pub(super) type Real = unsafe extern "C-unwind" fn(*mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot;

/// The next row of a node, as ExecProcNode() gives it.
///
/// # Safety
/// `node` must be a node of a plan that runs. Not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
pub(super) unsafe fn next_of(node: *mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: by contract.
    unsafe {
        if !(*node).chgParam.is_null() {
            rescan_by_postgres(node);
        }
        match (*node).ExecProcNode {
            Some(run) => run(node),
            None => std::ptr::null_mut(),
        }
    }
}

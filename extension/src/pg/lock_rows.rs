//! Being shown each row that SELECT FOR UPDATE, FOR SHARE and the like lock.

use std::ffi::c_void;
use std::sync::OnceLock;

use pgrx::pg_sys;

use super::before_change;
use super::candidates::{self, is_empty};
use super::list;
use super::majors::query::planstate_tree_walker;
use super::planstate::Real;
use super::row::Row;
use super::rowlock::{Locked, strength_of};

struct Hook {
    listener: fn(&Locked<'_>),
}

static HOOK: OnceLock<Hook> = OnceLock::new();
/// What the executor itself calls for a node that locks rows.
static LOCK_ROWS: OnceLock<Real> = OnceLock::new();

/// Calls `listener` for each row locked by a plan that is watched. Once, while libraries are preloaded.
pub fn on_lock(listener: fn(&Locked<'_>)) {
    let _ = HOOK.set(Hook { listener });
}

/// Has every row that a node of this plan locks shown to the listener.
///
/// # Safety
/// `state` must be the top of a plan that was initialised and has not run.
pub(super) unsafe fn watch(state: *mut pg_sys::PlanState) {
    if !state.is_null() {
        // SAFETY: by contract.
        unsafe { visit(state, std::ptr::null_mut()) };
    }
}

/// # Safety
/// Called by `planstate_tree_walker` with the nodes of a plan. Nothing in this frame needs a `Drop`.
unsafe extern "C-unwind" fn visit(state: *mut pg_sys::PlanState, context: *mut c_void) -> bool {
    // SAFETY: by contract. The first call of a node goes through PostgreSQL's own wrapper, which then uses `ExecProcNodeReal`.
    unsafe {
        if (*state).type_ == pg_sys::NodeTag::T_LockRowsState
            && let Some(real) = (*state).ExecProcNodeReal
            && std::ptr::fn_addr_eq(*LOCK_ROWS.get_or_init(|| real), real)
        {
            (*state).ExecProcNodeReal = Some(lock_rows);
        }
        planstate_tree_walker(state, visit, context)
    }
}

/// # Safety
/// Called by the executor. Not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
unsafe extern "C-unwind" fn lock_rows(state: *mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: only nodes that were watched come here.
    unsafe {
        let Some(real) = LOCK_ROWS.get() else { return std::ptr::null_mut() };
        let slot = if before_change::concerns_lock(state) {
            before_change::through_lock(state, *real)
        } else {
            candidates::through(state.cast(), *real)
        };
        if !is_empty(slot) {
            tell(state.cast());
        }
        slot
    }
}

/// # Safety
/// `node` must have just given a row.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn tell(node: *mut pg_sys::LockRowsState) {
    let Some(hook) = HOOK.get() else { return };
    // SAFETY: by contract: every active mark has its row, as it was locked, in the slot kept for a recheck.
    unsafe {
        let slots = (*node).lr_epqstate.relsubs_slot;
        if slots.is_null() {
            return;
        }
        for mark in list::pointers::<pg_sys::ExecAuxRowMark>((*node).lr_arowMarks) {
            let mark = &*(*mark).rowmark;
            let Some(strength) = strength_of(mark.markType) else { continue };
            let slot = *slots.add(mark.rti as usize - 1);
            if mark.ermActive && !is_empty(slot) {
                (hook.listener)(&Locked { relation: mark.relation, strength, row: Row::of_slot(slot) });
            }
        }
    }
}

//! EXPLAIN (ANALYZE) and auto_explain: the triggers by which rows are captured are not shown, as `\d` does not show them.
//!
//! EXPLAIN lists each trigger that has been called, with its calls and its time. It reads both when the plan has been finished, AFTER triggers among
//! that; so what was counted for capture triggers is forgotten then. Their time stays in that of the whole statement.

use std::ffi::CStr;
use std::sync::OnceLock;

use pgrx::pg_sys;

use super::list;
use super::trigger;

static PREVIOUS: OnceLock<pg_sys::ExecutorFinish_hook_type> = OnceLock::new();

/// Called while libraries are preloaded.
pub fn install() {
    // SAFETY: loading libraries, single-threaded.
    unsafe {
        if PREVIOUS.set(pg_sys::ExecutorFinish_hook).is_ok() {
            pg_sys::ExecutorFinish_hook = Some(finish);
        }
    }
}

unsafe extern "C-unwind" {
    /// As pgrx binds it, but without the guard: errors of triggers pass with all their fields.
    #[link_name = "standard_ExecutorFinish"]
    fn finish_by_postgres(query: *mut pg_sys::QueryDesc);
}

/// # Safety
/// Called by PostgreSQL. Not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
unsafe extern "C-unwind" fn finish(query: *mut pg_sys::QueryDesc) {
    // SAFETY: passes on what we were given.
    unsafe {
        PREVIOUS.get().copied().flatten().unwrap_or(finish_by_postgres)(query);
        if (*query).instrument_options != 0 {
            forget_capture((*query).estate);
        }
    }
}

/// # Safety
/// `state` must be that of a query that was finished and not ended yet.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn forget_capture(state: *mut pg_sys::EState) {
    // SAFETY: by contract; lists of relations whose triggers, if they are instrumented, have one record each.
    unsafe {
        let changed = [
            (*state).es_opened_result_relations,
            (*state).es_tuple_routing_result_relations,
            (*state).es_trig_target_relations,
        ];
        for relation in changed.into_iter().flat_map(|relations| list::pointers::<pg_sys::ResultRelInfo>(relations)) {
            let (triggers, counted) = ((*relation).ri_TrigDesc, (*relation).ri_TrigInstrument);
            if triggers.is_null() || counted.is_null() {
                continue;
            }
            for nth in 0..usize::try_from((*triggers).numtriggers).unwrap_or(0) {
                if trigger::is_ours(CStr::from_ptr((*(*triggers).triggers.add(nth)).tgname)) {
                    counted.add(nth).write_bytes(0, 1);
                }
            }
        }
    }
}

//! What event triggers of sql_drop are told: pg_event_trigger_dropped_objects() without the triggers by which rows are captured.
//!
//! They go with their table, and are nobody's: whoever keeps a list of what was dropped would find one more object for each table.

use std::sync::OnceLock;

use pgrx::pg_sys;

use super::{builtin, trigger, varlena};

type Function = unsafe extern "C-unwind" fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum;

static ORIGINAL: OnceLock<Function> = OnceLock::new();

/// The columns object_type and object_identity, of 12.
const TYPE: usize = 6;
const IDENTITY: usize = 9;

/// Called while libraries are preloaded. A server that can't be made to leave them out shows them.
pub fn install() {
    if let Some(original) = builtin::replace(pg_sys::F_PG_EVENT_TRIGGER_DROPPED_OBJECTS, dropped_objects) {
        let _ = ORIGINAL.set(original);
    }
}

/// # Safety
/// Called by PostgreSQL's function manager. Not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
unsafe extern "C-unwind" fn dropped_objects(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: by contract.
    unsafe {
        let Some(original) = ORIGINAL.get() else { return pg_sys::Datum::null() };
        let result = original(call);
        leave_out_ours(call);
        result
    }
}

/// # Safety
/// `call` must be one that has just put its rows into a tuplestore.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn leave_out_ours(call: pg_sys::FunctionCallInfo) {
    // SAFETY: by contract; the new tuplestore lives as long as the one whose place it takes.
    unsafe {
        let result = (*call).resultinfo.cast::<pg_sys::ReturnSetInfo>();
        let context = pg_sys::MemoryContextSwitchTo((*(*result).econtext).ecxt_per_query_memory);
        let all = (*result).setResult;
        let slot = pg_sys::MakeSingleTupleTableSlot((*result).setDesc, &raw const pg_sys::TTSOpsMinimalTuple);
        let allows_random = (*result).allowedModes as u32 & pg_sys::SetFunctionReturnMode::SFRM_Materialize_Random != 0;
        let left = pg_sys::tuplestore_begin_heap(allows_random, false, pg_sys::work_mem);
        while pg_sys::tuplestore_gettupleslot(all, true, false, slot) {
            if !is_ours(slot) {
                pg_sys::tuplestore_puttupleslot(left, slot);
            }
        }
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        (*result).setResult = left;
        pg_sys::tuplestore_end(all);
        pg_sys::MemoryContextSwitchTo(context);
    }
}

/// # Safety
/// `slot` must hold a row of the function.
unsafe fn is_ours(slot: *mut pg_sys::TupleTableSlot) -> bool {
    // SAFETY: by contract; both columns are texts.
    unsafe {
        pg_sys::slot_getsomeattrs_int(slot, IDENTITY as i32 + 1);
        let is = |column: usize, wanted: fn(&[u8]) -> bool| {
            !*(*slot).tts_isnull.add(column) && varlena::with_varlena(*(*slot).tts_values.add(column), wanted)
        };
        is(TYPE, |kind| kind == b"trigger") && is(IDENTITY, trigger::is_identity_of_ours)
    }
}

//! `pg_prepared_xacts` shows what is prepared in the group, too: whoever coordinates transactions recovers by it.
//!
//! The view asks a built-in function for one row after another. Its place is taken by one that goes on with other rows when PostgreSQL's own are
//! through.

use std::ffi::CString;
use std::sync::OnceLock;

use pgrx::pg_sys;

use super::{builtin, encoding};

/// Rows of five texts: transaction, gid, prepared, OIDs of owner and database.
pub type Listener = fn() -> Vec<[String; COLUMNS]>;

pub const COLUMNS: usize = 5;

type Function = unsafe extern "C-unwind" fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum;

struct Hook {
    listener: Listener,
    original: Function,
}

static HOOK: OnceLock<Hook> = OnceLock::new();

/// Called while libraries are preloaded. False if this server can't be made to ask.
pub fn on_list(listener: Listener) -> bool {
    let original = builtin::replace(pg_sys::F_PG_PREPARED_XACT, pg_prepared_xact);
    original.is_some_and(|original| HOOK.set(Hook { listener, original }).is_ok())
}

/// # Safety
/// Called by PostgreSQL's function manager. Not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
unsafe extern "C-unwind" fn pg_prepared_xact(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: by contract; the function returns a set, one row a call.
    unsafe {
        let Some(hook) = HOOK.get() else { return pg_sys::Datum::null() };
        if !is_ours((*(*call).flinfo).fn_extra.cast()) {
            let own = (hook.original)(call);
            let result = (*call).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            if (*result).isDone != pg_sys::ExprDoneCond::ExprEndResult {
                return own;
            }
            begin(call);
        }
        next(call)
    }
}

/// PostgreSQL's own call keeps no such thing in its state.
///
/// # Safety
/// `state` must be null or that of a call of this function.
unsafe fn is_ours(state: *const pg_sys::FuncCallContext) -> bool {
    // SAFETY: by contract.
    unsafe { !state.is_null() && !(*state).attinmeta.is_null() }
}

/// # Safety
/// `call` must be of this function, of which PostgreSQL's own rows are through.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn begin(call: pg_sys::FunctionCallInfo) {
    let Some(hook) = HOOK.get() else { return };
    let rows = (hook.listener)();
    // SAFETY: by contract; all is made in the memory that lasts until the last call.
    unsafe {
        let state = pg_sys::init_MultiFuncCall(call);
        let before = pg_sys::MemoryContextSwitchTo((*state).multi_call_memory_ctx);
        let description = pg_sys::CreateTemplateTupleDesc(COLUMNS as i32);
        let columns = [
            (c"transaction", pg_sys::XIDOID),
            (c"gid", pg_sys::TEXTOID),
            (c"prepared", pg_sys::TIMESTAMPTZOID),
            (c"ownerid", pg_sys::OIDOID),
            (c"dbid", pg_sys::OIDOID),
        ];
        for (number, (name, of)) in (1..).zip(columns) {
            pg_sys::TupleDescInitEntry(description, number, name.as_ptr(), of, -1, 0);
        }
        (*state).tuple_desc = pg_sys::BlessTupleDesc(description);
        (*state).attinmeta = pg_sys::TupleDescGetAttInMetadata((*state).tuple_desc);
        let tuples = pg_sys::palloc0((rows.len() + 1) * size_of::<pg_sys::HeapTuple>()).cast::<pg_sys::HeapTuple>();
        for (place, row) in rows.iter().enumerate() {
            let texts = row.each_ref().map(|text| encoding::c_string(text).unwrap_or_default());
            let mut values = texts.each_ref().map(|text: &CString| text.as_ptr().cast_mut());
            *tuples.add(place) = pg_sys::BuildTupleFromCStrings((*state).attinmeta, values.as_mut_ptr());
        }
        (*state).user_fctx = tuples.cast();
        (*state).max_calls = rows.len() as u64;
        pg_sys::MemoryContextSwitchTo(before);
    }
}

/// # Safety
/// `call` must be of this function, behind [`begin`].
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn next(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: by contract; what SRF_RETURN_NEXT and SRF_RETURN_DONE do.
    unsafe {
        let state = pg_sys::per_MultiFuncCall(call);
        let result = (*call).resultinfo.cast::<pg_sys::ReturnSetInfo>();
        if (*state).call_cntr < (*state).max_calls {
            let tuple = *(*state).user_fctx.cast::<pg_sys::HeapTuple>().add((*state).call_cntr as usize);
            (*state).call_cntr += 1;
            (*result).isDone = pg_sys::ExprDoneCond::ExprMultipleResult;
            (*call).isnull = false;
            return pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data);
        }
        pg_sys::end_MultiFuncCall(call, state);
        (*result).isDone = pg_sys::ExprDoneCond::ExprEndResult;
        (*call).isnull = true;
        pg_sys::Datum::null()
    }
}

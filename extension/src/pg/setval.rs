//! setval() in the group: it becomes ALTER SEQUENCE ... RESTART WITH, which all nodes run, each from its own place (docs/adr/0004).
//!
//! PostgreSQL's setval counts at once and for good, on one node, whatever becomes of its transaction. That would put the node's values
//! where another's are. So calls of it, as they are analysed, become calls of a function of ours with the same arguments.

use std::sync::OnceLock;

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

use super::names::{Oid, quoted};
use super::relation::{Entry, Persistence, RelationKind, entry};
use super::role::Acting;
use super::{sequence, utility};

#[derive(Clone, Copy)]
pub struct Listener {
    /// Whether calls of setval in the query that is being analysed are to become calls of our function.
    pub redirects: fn() -> bool,
    /// Whether our function, for a permanent sequence, is to run the ALTER SEQUENCE. Else it does what setval does.
    pub orders: fn() -> bool,
}

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Asks `listener` what is to become of calls of setval. Once, while libraries are preloaded; without it they stay as they are.
pub fn on_setval(listener: Listener) {
    let _ = LISTENER.set(listener);
}

unsafe extern "C-unwind" {
    /// Of nodes/nodeFuncs.h, which pgrx does not bind.
    fn query_tree_walker(query: *mut pg_sys::Query, walker: Walker, context: *mut std::ffi::c_void, flags: i32) -> bool;
    fn expression_tree_walker(node: *mut pg_sys::Node, walker: Walker, context: *mut std::ffi::c_void) -> bool;
}

type Walker = unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut std::ffi::c_void) -> bool;

/// Redirects the calls of setval in a query that was just analysed.
///
/// # Safety
/// `query` must be the result of analysis, ours to change.
#[pgrx::pg_guard]
pub(super) unsafe extern "C-unwind" fn redirect(query: *mut pg_sys::Query) {
    if LISTENER.get().is_some_and(|listener| (listener.redirects)()) {
        // SAFETY: by contract.
        unsafe { walk(query.cast(), std::ptr::null_mut()) };
    }
}

unsafe extern "C-unwind" fn walk(node: *mut pg_sys::Node, context: *mut std::ffi::c_void) -> bool {
    // SAFETY: the walkers hand us nodes of the tree or null; its tag says what a node is.
    unsafe {
        if node.is_null() {
            return false;
        }
        match (*node).type_ {
            Tag::T_Query => query_tree_walker(node.cast(), walk, context, 0),
            tag => {
                if tag == Tag::T_FuncExpr {
                    let call = &mut *node.cast::<pg_sys::FuncExpr>();
                    match call.funcid.to_u32() {
                        pg_sys::F_SETVAL_REGCLASS_INT8 => call.funcid = ours(2),
                        pg_sys::F_SETVAL_REGCLASS_INT8_BOOL => call.funcid = ours(3),
                        _ => {}
                    }
                }
                expression_tree_walker(node, walk, context)
            }
        }
    }
}

/// Our function with so many of setval's arguments.
fn ours(arguments: i32) -> Oid {
    let types = [pg_sys::REGCLASSOID, pg_sys::INT8OID, pg_sys::BOOLOID];
    // SAFETY: looks up a function by a list of two names, palloc'd; raises an error if there is none.
    unsafe {
        let name = |name: &std::ffi::CStr| pg_sys::makeString(pg_sys::pstrdup(name.as_ptr())).cast();
        let names = pg_sys::lappend(pg_sys::lappend(std::ptr::null_mut(), name(c"postgres_r")), name(c"setval"));
        pg_sys::LookupFuncName(names, arguments, types.as_ptr(), false)
    }
}

#[unsafe(no_mangle)]
#[doc(hidden)]
pub extern "C" fn pg_finfo_postgres_r_setval() -> &'static pg_sys::Pg_finfo_record {
    static RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &RECORD
}

/// # Safety
/// Called by PostgreSQL's function manager, with a regclass, a bigint and, maybe, a boolean; never with nulls.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn postgres_r_setval(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: by contract.
    let arguments = unsafe { (*fcinfo).args.as_slice(usize::try_from((*fcinfo).nargs).unwrap_or(0)) };
    let [sequence, value, ..] = arguments else { return pg_sys::Datum::null() };
    let is_called = arguments.get(2).is_none_or(|argument| argument.value.value() & 0xff != 0);
    let (oid, to) = (Oid::from(sequence.value.value() as u32), value.value.value() as i64);
    match entry(oid).filter(is_ordered) {
        Some(entry) => restart(oid, &entry, to, is_called),
        // Temporary, or no sequence at all: PostgreSQL's own, with its errors.
        // SAFETY: a function of these three arguments.
        None => unsafe {
            pg_sys::OidFunctionCall3Coll(
                pg_sys::Oid::from(pg_sys::F_SETVAL_REGCLASS_INT8_BOOL),
                pg_sys::InvalidOid,
                sequence.value,
                value.value,
                pg_sys::Datum::from(is_called),
            );
        },
    }
    value.value
}

fn is_ordered(entry: &Entry) -> bool {
    entry.kind == RelationKind::Sequence
        && entry.persistence == Persistence::Permanent
        && LISTENER.get().is_some_and(|listener| (listener.orders)())
}

/// As the sequence's owner: setval needs no more than UPDATE.
fn restart(oid: Oid, entry: &Entry, to: i64, is_called: bool) {
    let name = &entry.name;
    // SAFETY: a catalog look-up.
    let may = unsafe { pg_sys::pg_class_aclcheck(oid, pg_sys::GetUserId(), pg_sys::ACL_UPDATE as pg_sys::AclMode) };
    if may != pg_sys::AclResult::ACLCHECK_OK {
        let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
        raise(code, format!("permission denied for sequence {name}"), None);
    }
    let Some(range) = sequence::range(oid) else { return };
    let (min, max) = (range.min, range.max);
    if !(min..=max).contains(&to) {
        let code = PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE;
        raise(code, format!("setval: value {to} is out of bounds for sequence \"{name}\" ({min}..{max})"), None);
    }
    let next = if is_called { to.checked_add(range.increment) } else { Some(to) };
    let Some(next) = next.filter(|next| (min..=max).contains(next)) else {
        let message = format!("setval() to the end of sequence \"{name}\" is not supported in a replicated database");
        raise(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message, Some("Set it to an earlier value, or drop it."));
        return;
    };
    let text = format!("ALTER SEQUENCE {}.{} RESTART WITH {next}", quoted(&entry.schema), quoted(name));
    let _role = Acting::fully(range.owner);
    utility::run_text(&std::ffi::CString::new(text).unwrap_or_default(), None);
}

fn raise(code: PgSqlErrorCode, message: String, hint: Option<&str>) {
    let report = ErrorReport::new(code, message, "postgres_r");
    match hint {
        Some(hint) => report.set_hint(hint),
        None => report,
    }
    .report(PgLogLevel::ERROR);
}

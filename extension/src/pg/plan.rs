//! The planner's hook: what a query does with sequences unseen becomes calls of functions of ours.
//!
//! - A default of an identity column draws its value without a call (NextValueExpr). It becomes a call of `postgres_r.next_identity`.
//! - A query that reads a sequence as a table (`SELECT last_value FROM s`, which is what pg_dump does) sees the row on this server. It becomes a
//!   subquery that shows how far the group is: `postgres_r.last_value` and `postgres_r.is_called` of that row.
//!
//! The planner may scribble on the tree that it is given; so do we.

use std::sync::OnceLock;

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;

use super::majors::query::{expression_tree_walker, hand_over_wanted, query_tree_walker};
use super::nextval;

struct Hook {
    is_wanted: fn() -> bool,
    previous: pg_sys::planner_hook_type,
}

static HOOK: OnceLock<Hook> = OnceLock::new();

unsafe extern "C-unwind" {
    /// As pgrx binds it, but without the guard: errors of the planner pass with all their fields.
    #[link_name = "standard_planner"]
    fn plan_by_postgres(
        query: *mut pg_sys::Query,
        text: *const std::ffi::c_char,
        options: std::ffi::c_int,
        parameters: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::PlannedStmt;
}

/// Installs the hook; once a process, from `_PG_init`. Queries are changed where `is_wanted`.
pub fn install(is_wanted: fn() -> bool) {
    // SAFETY: a plain variable, set while the library loads; the previous value is kept and called.
    unsafe {
        if HOOK.set(Hook { is_wanted, previous: pg_sys::planner_hook }).is_ok() {
            pg_sys::planner_hook = Some(plan);
        }
    }
}

/// # Safety
/// Called by PostgreSQL. Not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
unsafe extern "C-unwind" fn plan(
    query: *mut pg_sys::Query,
    text: *const std::ffi::c_char,
    options: std::ffi::c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: passes on what we were given.
    unsafe {
        rewrite(query);
        HOOK.get().and_then(|hook| hook.previous).unwrap_or(plan_by_postgres)(query, text, options, parameters)
    }
}

/// # Safety
/// `query` must be what the planner is about to plan.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn rewrite(query: *mut pg_sys::Query) {
    if HOOK.get().is_some_and(|hook| (hook.is_wanted)()) {
        // SAFETY: by contract.
        unsafe { walk(query.cast(), std::ptr::null_mut()) };
    }
}

unsafe extern "C-unwind" fn walk(node: *mut pg_sys::Node, context: *mut std::ffi::c_void) -> bool {
    // SAFETY: the walkers hand us nodes of the tree or null; its tag says what a node is. A list is given before its elements, and an entry
    // of a target list before its expression, so that what is put in their place is walked over in the end.
    unsafe {
        if node.is_null() {
            return false;
        }
        match (*node).type_ {
            Tag::T_Query => {
                let query = node.cast::<pg_sys::Query>();
                show_sequences(query);
                query_tree_walker(query, walk, context, 0)
            }
            Tag::T_TargetEntry => {
                let entry = &mut *node.cast::<pg_sys::TargetEntry>();
                if let Some(call) = call_for(entry.expr.cast()) {
                    entry.expr = call.cast();
                }
                expression_tree_walker(node, walk, context)
            }
            // Rows of VALUES.
            Tag::T_List => {
                let list = &*node.cast::<pg_sys::List>();
                for index in 0..usize::try_from(list.length).unwrap_or(0) {
                    let cell = &mut *list.elements.add(index);
                    if let Some(call) = call_for(cell.ptr_value.cast()) {
                        cell.ptr_value = call.cast();
                    }
                }
                expression_tree_walker(node, walk, context)
            }
            _ => expression_tree_walker(node, walk, context),
        }
    }
}

/// Our function with so many arguments of these types.
fn ours(name: &std::ffi::CStr, types: &[pg_sys::Oid]) -> pg_sys::Oid {
    // SAFETY: looks up a function by a list of two names, palloc'd; raises an error if there is none.
    unsafe {
        let text = |name: &std::ffi::CStr| pg_sys::makeString(pg_sys::pstrdup(name.as_ptr())).cast();
        let names = pg_sys::lappend(pg_sys::lappend(std::ptr::null_mut(), text(c"postgres_r")), text(name));
        pg_sys::LookupFuncName(names, types.len() as i32, types.as_ptr(), false)
    }
}

/// The call in place of the draw of an identity column's value.
///
/// # Safety
/// `node` must be null or a node.
unsafe fn call_for(node: *mut pg_sys::Node) -> Option<*mut pg_sys::Node> {
    // SAFETY: by contract; makes nodes in the memory of the query.
    unsafe {
        if node.is_null() || (*node).type_ != Tag::T_NextValueExpr {
            return None;
        }
        let draw = &*node.cast::<pg_sys::NextValueExpr>();
        let sequence = pg_sys::Datum::from(draw.seqid);
        let (none, regclass) = (pg_sys::InvalidOid, pg_sys::REGCLASSOID);
        let argument = pg_sys::makeConst(regclass, -1, none, 4, sequence, false, true);
        let arguments = pg_sys::lappend(std::ptr::null_mut(), argument.cast());
        let function = ours(c"next_identity", &[regclass]);
        // A value of the sequence fits the column's type, and integers are passed alike.
        let explicit = pg_sys::CoercionForm::COERCE_EXPLICIT_CALL;
        let call = pg_sys::makeFuncExpr(function, draw.typeId, arguments, none, none, explicit);
        (*call).location = nextval::OF_IDENTITY;
        Some(call.cast())
    }
}

/// # Safety
/// `query` must be a query that was rewritten.
unsafe fn show_sequences(query: *mut pg_sys::Query) {
    // SAFETY: by contract; the entries of a range table are RangeTblEntry.
    unsafe {
        let entries = super::list::pointers::<pg_sys::RangeTblEntry>((*query).rtable);
        for (number, entry) in (1..).zip(entries) {
            let is_sequence = (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION
                && (*entry).relkind as u8 == pg_sys::RELKIND_SEQUENCE
                && (*entry).inFromCl;
            if is_sequence && !uses_system_columns(query, number) {
                become_subquery(query, entry);
            }
        }
    }
}

/// # Safety
/// As [`show_sequences`].
unsafe fn uses_system_columns(query: *mut pg_sys::Query, number: u32) -> bool {
    // SAFETY: by contract; columns are counted from FirstLowInvalidHeapAttributeNumber, so that system columns come first.
    unsafe {
        let mut used = std::ptr::null_mut();
        pg_sys::pull_varattnos((*query).targetList.cast(), number, &raw mut used);
        pg_sys::pull_varattnos((*query).jointree.cast(), number, &raw mut used);
        let first = pg_sys::bms_next_member(used, -1);
        first >= 0 && first + pg_sys::FirstLowInvalidHeapAttributeNumber < 0
    }
}

/// # Safety
/// `entry` must be the query's, of a sequence that is read.
unsafe fn become_subquery(outer: *mut pg_sys::Query, entry: *mut pg_sys::RangeTblEntry) {
    // SAFETY: by contract; makes nodes in the memory of the query. The relation and the rights on it are the subquery's.
    unsafe {
        let inner = pg_sys::copyObjectImpl(entry.cast()).cast::<pg_sys::RangeTblEntry>();
        let none = pg_sys::InvalidOid;
        let (regclass, int8, bool_) = (pg_sys::REGCLASSOID, pg_sys::INT8OID, pg_sys::BOOLOID);
        let column = |number: i16, of: pg_sys::Oid| pg_sys::makeVar(1, number, of, -1, none, 0).cast::<std::ffi::c_void>();
        let sequence = || pg_sys::makeConst(regclass, -1, none, 4, pg_sys::Datum::from((*entry).relid), false, true);
        let call = |name: &std::ffi::CStr, result: pg_sys::Oid| {
            let mut arguments = pg_sys::lappend(std::ptr::null_mut(), sequence().cast());
            arguments = pg_sys::lappend(arguments, column(1, int8));
            arguments = pg_sys::lappend(arguments, column(3, bool_));
            let function = ours(name, &[regclass, int8, bool_]);
            let explicit = pg_sys::CoercionForm::COERCE_EXPLICIT_CALL;
            pg_sys::makeFuncExpr(function, result, arguments, none, none, explicit).cast::<pg_sys::Expr>()
        };
        let target = |expression: *mut pg_sys::Expr, number: i16, name: &std::ffi::CStr| {
            pg_sys::makeTargetEntry(expression, number, pg_sys::pstrdup(name.as_ptr()), false).cast()
        };
        let mut targets = pg_sys::lappend(std::ptr::null_mut(), target(call(c"last_value", int8), 1, c"last_value"));
        targets = pg_sys::lappend(targets, target(column(2, int8).cast(), 2, c"log_cnt"));
        targets = pg_sys::lappend(targets, target(call(c"is_called", bool_), 3, c"is_called"));

        let reference = pg_sys::palloc0(size_of::<pg_sys::RangeTblRef>()).cast::<pg_sys::RangeTblRef>();
        (*reference).type_ = Tag::T_RangeTblRef;
        (*reference).rtindex = 1;
        let query = pg_sys::palloc0(size_of::<pg_sys::Query>()).cast::<pg_sys::Query>();
        (*query).type_ = Tag::T_Query;
        (*query).commandType = pg_sys::CmdType::CMD_SELECT;
        (*query).canSetTag = true;
        (*query).rtable = pg_sys::lappend(std::ptr::null_mut(), inner.cast());
        (*query).jointree =
            pg_sys::makeFromExpr(pg_sys::lappend(std::ptr::null_mut(), reference.cast()), std::ptr::null_mut());
        (*query).targetList = targets;
        // So that the walker, which comes by here next, leaves it as it is.
        (*inner).inFromCl = false;
        hand_over_wanted((outer, entry), (query, inner));
        (*entry).rtekind = pg_sys::RTEKind::RTE_SUBQUERY;
        (*entry).subquery = query;
        (*entry).relid = none;
        (*entry).relkind = 0;
        (*entry).rellockmode = 0;
        (*entry).inh = false;
    }
}

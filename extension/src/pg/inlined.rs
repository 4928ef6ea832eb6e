//! Functions in SQL that the planner may replace by their text.
//!
//! PostgreSQL puts the expression of such a function where the function is called, before it asks whether an expression is immutable: an index may
//! use a function that is VOLATILE by its declaration, if its text is not. It does not where a hook of the function manager wants to see
//! the calls. So nobody may want to see those of a function that is a mere expression: it writes nothing itself, and what it calls is
//! looked up by itself.

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;

use super::list;

/// Of pg_language, which pgrx does not bind.
const SQL: u32 = 14;

/// Whether a function is one in SQL whose text is one SELECT of one expression, without WITH and FROM.
///
/// # Safety
/// The tuple is one of pg_proc's, from the cache PROCOID.
pub(super) unsafe fn is_an_expression(tuple: pg_sys::HeapTuple) -> bool {
    // SAFETY: by contract; the columns are read as what they are in pg_proc, and nodes as what their tags say.
    unsafe {
        let form = &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_proc>(tuple);
        if form.prolang.to_u32() != SQL || form.prosecdef {
            return false;
        }
        let column = |number: u32| {
            let mut is_null = true;
            let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
            let value = pg_sys::SysCacheGetAttr(cache, tuple, number as i16, &mut is_null);
            (!is_null).then_some(value)
        };
        if column(pg_sys::Anum_pg_proc_proconfig).is_some() {
            return false;
        }
        if let Some(body) = column(pg_sys::Anum_pg_proc_prosqlbody) {
            let node = pg_sys::stringToNode(pg_sys::text_to_cstring(body.cast_mut_ptr())).cast::<pg_sys::Node>();
            return is_analysed_expression(node);
        }
        let Some(text) = column(pg_sys::Anum_pg_proc_prosrc) else { return false };
        let text = pg_sys::text_to_cstring(text.cast_mut_ptr());
        let parsed = list::pointers::<pg_sys::RawStmt>(pg_sys::raw_parser(text, pg_sys::RawParseMode::RAW_PARSE_DEFAULT));
        let [statement] = parsed[..] else { return false };
        if (*(*statement).stmt).type_ != Tag::T_SelectStmt {
            return false;
        }
        let select = &*(*statement).stmt.cast::<pg_sys::SelectStmt>();
        select.withClause.is_null()
            && select.fromClause.is_null()
            && select.intoClause.is_null()
            && select.op == pg_sys::SetOperation::SETOP_NONE
            && list::pointers::<pg_sys::Node>(select.targetList).len() == 1
    }
}

/// # Safety
/// The node is what pg_proc.prosqlbody holds: a query after RETURN, after BEGIN ATOMIC a list in a list.
unsafe fn is_analysed_expression(node: *mut pg_sys::Node) -> bool {
    // SAFETY: by contract; nodes are read as what their tags say.
    unsafe {
        if (*node).type_ != Tag::T_Query {
            return false;
        }
        let query = &*node.cast::<pg_sys::Query>();
        query.commandType == pg_sys::CmdType::CMD_SELECT && query.cteList.is_null() && query.rtable.is_null()
    }
}

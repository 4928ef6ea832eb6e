//! The mark of a table whose rows stay on their node (sql/exclude.sql): a trigger with a function that is there for nothing else.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::names::{Oid, valid};

/// Whether a trigger says that the table's rows stay on their node: one of TRUNCATE with the function that is there for it (sql/exclude.sql).
pub(super) fn marks_excluded(table: Oid) -> bool {
    // SAFETY: the relation's entry is held for as long as it is looked at; nothing of it but its triggers is used, so no lock is needed.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(table);
        if relation.is_null() {
            return false;
        }
        let descriptor = (*relation).trigdesc;
        let is_marked = !descriptor.is_null() && (*descriptor).trig_truncate_before_statement && {
            let triggers = std::slice::from_raw_parts((*descriptor).triggers, (*descriptor).numtriggers as usize);
            function().is_some_and(|mark| triggers.iter().any(|trigger| trigger.tgfoid == mark))
        };
        pg_sys::RelationClose(relation);
        is_marked
    }
}

/// The function of triggers that mark a table.
pub(super) fn function() -> Option<Oid> {
    valid(own_function(c"excluded", true))
}

/// A function of the extension without arguments; whether it may be missing, else an error is raised.
pub(super) fn own_function(name: &CStr, may_be_missing: bool) -> Oid {
    // SAFETY: looks up a function by a list of two names, palloc'd.
    unsafe {
        let string = |name: &CStr| pg_sys::makeString(pg_sys::pstrdup(name.as_ptr())).cast();
        let names = pg_sys::lappend(pg_sys::lappend(std::ptr::null_mut(), string(c"postgres_r")), string(name));
        pg_sys::LookupFuncName(names, 0, std::ptr::null(), may_be_missing)
    }
}

//! Relations by the names that parse trees have for them.

use pgrx::pg_sys;

use super::list;
use super::names::{Oid, valid};

/// # Safety
/// `relation` must be null or a parse tree's RangeVar.
pub(super) unsafe fn find(relation: *mut pg_sys::RangeVar) -> Option<Oid> {
    if relation.is_null() {
        return None;
    }
    // SAFETY: a look-up by name, without a lock; nothing is raised if it is not there.
    unsafe {
        let flags = pg_sys::RVROption::RVR_MISSING_OK;
        valid(pg_sys::RangeVarGetRelidExtended(relation, pg_sys::NoLock as i32, flags, None, std::ptr::null_mut()))
    }
}

/// # Safety
/// `relations` must be NIL or a parse tree's list of RangeVars.
pub(super) unsafe fn find_all(relations: *mut pg_sys::List) -> Vec<Oid> {
    // SAFETY: a parse tree's list of RangeVars.
    unsafe { list::pointers::<pg_sys::RangeVar>(relations).into_iter().filter_map(|relation| find(relation)).collect() }
}

pub(super) fn is_view(relation: Oid) -> bool {
    // SAFETY: a syscache look-up.
    (unsafe { pg_sys::get_rel_relkind(relation) }) as u8 == pg_sys::RELKIND_VIEW
}

pub(super) fn is_temporary(relation: Oid) -> bool {
    // SAFETY: a syscache look-up.
    (unsafe { pg_sys::get_rel_persistence(relation) }) as u8 == pg_sys::RELPERSISTENCE_TEMP
}

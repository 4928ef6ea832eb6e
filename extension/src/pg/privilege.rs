//! What a role may see, and lock.

use pgrx::pg_sys;

use super::majors::process::{owns_relation, owns_schema};
use super::names::Oid;

/// Whether the role may see the values of these columns (indexes among all attributes) in every row, by the rule of PostgreSQL's
/// own messages (BuildIndexValueDescription): not where row security applies to it, nor without SELECT.
pub fn sees(role: Oid, relation: Oid, attributes: &[usize]) -> bool {
    let granted = pg_sys::AclResult::ACLCHECK_OK;
    let select = pg_sys::ACL_SELECT as pg_sys::AclMode;
    let mut is_missing = false;
    // SAFETY: catalog look-ups inside a transaction; with `is_missing` given, a relation that is gone is no error.
    unsafe {
        let of_table = pg_sys::pg_class_aclcheck_ext(relation, role, select, &mut is_missing);
        if is_missing || pg_sys::check_enable_rls(relation, role, true) == ROW_SECURITY_APPLIES {
            return false;
        }
        let column = |attribute: &usize| {
            let mut is_missing = false;
            let number = *attribute as pg_sys::AttrNumber + 1;
            pg_sys::pg_attribute_aclcheck_ext(relation, number, role, select, &mut is_missing) == granted && !is_missing
        };
        of_table == granted || (!attributes.is_empty() && attributes.iter().all(column))
    }
}

const ROW_SECURITY_APPLIES: std::ffi::c_int = pg_sys::CheckEnableRlsResult::RLS_ENABLED as std::ffi::c_int;

/// Whether the current role may alter a relation.
pub fn is_owner(relation: Oid) -> bool {
    // SAFETY: a variable of this process.
    owns_relation(unsafe { pg_sys::GetUserId() }, relation)
}

/// Whether the current role may see what another's sessions did, as in pg_stat_activity.
pub fn sees_activity_of(role: Oid) -> bool {
    // SAFETY: catalog look-ups inside a transaction.
    unsafe {
        let me = pg_sys::GetUserId();
        pg_sys::has_privs_of_role(me, pg_sys::Oid::from(pg_sys::ROLE_PG_READ_ALL_STATS))
            || pg_sys::has_privs_of_role(me, role)
    }
}

/// Whether the current role may have a table for itself for as long as a statement takes: it owns the table or its schema, or has one of the privileges by which a statement, or LOCK TABLE, does.
pub fn may_lock(table: Oid) -> bool {
    const BY: u32 =
        pg_sys::ACL_UPDATE | pg_sys::ACL_DELETE | pg_sys::ACL_TRUNCATE | pg_sys::ACL_REFERENCES | pg_sys::ACL_TRIGGER;
    let mut is_missing = false;
    // SAFETY: catalog look-ups inside a transaction; with `is_missing` given, a relation that is gone is no error, and whoever has found it looks at it in the caches.
    unsafe {
        let me = pg_sys::GetUserId();
        let mask = BY as pg_sys::AclMode;
        let granted = pg_sys::pg_class_aclcheck_ext(table, me, mask, &mut is_missing);
        !is_missing
            && (granted == pg_sys::AclResult::ACLCHECK_OK
                || owns_relation(me, table)
                || owns_schema(me, pg_sys::get_rel_namespace(table)))
    }
}

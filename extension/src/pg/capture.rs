//! The capture triggers of all tables, when replication is over ([`super::trigger`] makes them).

use std::ffi::CStr;

use pgrx::pg_sys;

use super::names::Oid;
use super::trigger;

/// All of them, but for those that go with another. Inside a transaction.
pub fn triggers() -> Vec<Oid> {
    let mut found = Vec::new();
    // SAFETY: a scan of pg_trigger, whose tuples begin with the struct's fields.
    unsafe {
        let catalog = pg_sys::table_open(pg_sys::TriggerRelationId, pg_sys::AccessShareLock as i32);
        let scan =
            pg_sys::systable_beginscan(catalog, pg_sys::InvalidOid, false, std::ptr::null_mut(), 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let form = &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_trigger>(tuple);
            let is_ours = form.tgisinternal && trigger::is_ours(CStr::from_ptr(form.tgname.data.as_ptr()));
            if is_ours && form.tgparentid == pg_sys::InvalidOid {
                found.push(form.oid);
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
    }
    found
}

/// Takes the trigger off its table, for which it locks the table. Inside a transaction.
pub fn remove(trigger: Oid) {
    let address = pg_sys::ObjectAddress { classId: pg_sys::TriggerRelationId, objectId: trigger, objectSubId: 0 };
    // SAFETY: raises if the trigger is gone, or the lock cannot be had in time.
    unsafe {
        pg_sys::performDeletion(&address, pg_sys::DropBehavior::DROP_RESTRICT, pg_sys::PERFORM_DELETION_INTERNAL as i32);
    }
}

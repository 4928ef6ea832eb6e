//! Finding and removing capture triggers ([`super::trigger`] makes them): of all tables when replication is over, and of one whose rows stay from now on.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::names::Oid;
use super::relation::{Lock, Open};
use super::trigger;

/// All of them, but for those that go with another. Inside a transaction.
pub fn triggers() -> Vec<Oid> {
    find(None)
}

/// That of one table.
pub fn trigger_of(table: Oid) -> Option<Oid> {
    find(Some(table)).pop()
}

fn find(table: Option<Oid>) -> Vec<Oid> {
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
            let is_meant = table.is_none_or(|table| form.tgrelid == table);
            if is_ours && is_meant && form.tgparentid == pg_sys::InvalidOid {
                found.push(form.oid);
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
    }
    found
}

/// A table that is about to become a view by CREATE RULE "_RETURN" may have no trigger, nor ever have had one.
pub fn make_room_for_rule(table: Oid) {
    let Some(trigger) = trigger_of(table) else { return };
    remove(trigger);
    // SAFETY: the tuple is a copy, freed after it was stored; pg_class's tuples begin with the struct's fields.
    unsafe {
        pg_sys::CommandCounterIncrement();
        let has_more = Open::by_oid(table, Lock::AccessExclusive).is_some_and(|table| !(*table.raw()).trigdesc.is_null());
        if has_more {
            return;
        }
        let catalog = pg_sys::table_open(pg_sys::RelationRelationId, pg_sys::RowExclusiveLock as i32);
        let cache = pg_sys::SysCacheIdentifier::RELOID as i32;
        let zero = pg_sys::Datum::null();
        let tuple = pg_sys::SearchSysCacheCopy(cache, pg_sys::Datum::from(table), zero, zero, zero);
        if !tuple.is_null() {
            (*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_class>(tuple)).relhastriggers = false;
            pg_sys::CatalogTupleUpdate(catalog, &raw mut (*tuple).t_self, tuple);
            pg_sys::heap_freetuple(tuple);
        }
        pg_sys::table_close(catalog, pg_sys::RowExclusiveLock as i32);
        pg_sys::CommandCounterIncrement();
    }
}

/// Takes the trigger off its table, for which it locks the table. Inside a transaction.
pub fn remove(trigger: Oid) {
    let address = pg_sys::ObjectAddress { classId: pg_sys::TriggerRelationId, objectId: trigger, objectSubId: 0 };
    // SAFETY: raises if the trigger is gone, or the lock cannot be had in time.
    unsafe {
        pg_sys::performDeletion(&address, pg_sys::DropBehavior::DROP_RESTRICT, pg_sys::PERFORM_DELETION_INTERNAL as i32);
    }
}

//! A range type's function of differences (its subtype_diff), where rows and statements of other nodes are applied: it is not called.
//!
//! GiST asks it how far apart bounds are, to choose the page for a new entry and to split one. Any role can make such a function, in PL/pgSQL
//! too, and it may read tables and settings or raise an error, as it could when the origin stored the row. What it gives shapes the tree, and
//! no result depends on it: PostgreSQL does without where a type has none. So the processes that apply have it so for every type that has
//! one that is not built in. Their type cache reads pg_range once for each type, and keeps what is written into it here.

use std::cell::Cell;

use pgrx::pg_sys;
use pgrx::pg_sys::SysCacheIdentifier as Cache;

use super::expressions::FIRST_OF_OTHERS;
use super::names::Oid;

/// The catalog and its columns, of catalog/pg_range.h, which pgrx does not bind.
const PG_RANGE: u32 = 3541;
const TYPE: i32 = 1;
const SUBTYPE_DIFF: i32 = 7;

thread_local! {
    /// Whether pg_range may have changed since it was read.
    static CHANGED: Cell<bool> = const { Cell::new(true) };
    static LISTENS: Cell<bool> = const { Cell::new(false) };
}

/// From here on, no such function is called in this process; again after each statement that may have made a type. Inside a transaction.
pub fn forget() {
    if !LISTENS.replace(true) {
        // SAFETY: registers a callback for the life of the process.
        unsafe {
            pg_sys::CacheRegisterSyscacheCallback(Cache::RANGETYPE as i32, Some(ranges_changed), pg_sys::Datum::null());
        }
    }
    // Locks are taken while it is read, with what others have changed by then.
    while CHANGED.take() {
        for range in with_functions_of_users() {
            // SAFETY: a range type; its entry stays as long as the process.
            unsafe {
                let entry = pg_sys::lookup_type_cache(range, pg_sys::TYPECACHE_RANGE_INFO as i32);
                (*entry).rng_subdiff_finfo.fn_oid = pg_sys::InvalidOid;
            }
        }
    }
}

#[pgrx::pg_guard]
extern "C-unwind" fn ranges_changed(_argument: pg_sys::Datum, _cache: std::ffi::c_int, _hash: u32) {
    CHANGED.set(true);
}

/// Range types whose subtype_diff is not built in.
fn with_functions_of_users() -> Vec<Oid> {
    let mut found = Vec::new();
    // SAFETY: a sequential scan of a catalog with the transaction's catalog snapshot; its columns are fixed-width OIDs and NOT NULL.
    unsafe {
        let relation = pg_sys::table_open(Oid::from(PG_RANGE), pg_sys::AccessShareLock as i32);
        let scan =
            pg_sys::systable_beginscan(relation, pg_sys::InvalidOid, false, std::ptr::null_mut(), 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let mut is_null = false;
            let mut column = |number| pg_sys::heap_getattr(tuple, number, (*relation).rd_att, &mut is_null).value() as u32;
            if column(SUBTYPE_DIFF) >= FIRST_OF_OTHERS {
                found.push(Oid::from(column(TYPE)));
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
    }
    found
}

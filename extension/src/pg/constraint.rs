//! Constraints that were looked at on another node, and so are valid here.

use std::ffi::{CStr, c_char};

use pgrx::pg_sys;

use super::encoding;
use super::majors::relation::Constraint;
use super::majors::relation::constraint::{CONRELID, CONTYPID};
use super::names::Oid;
use super::relation;

/// Of catalog/pg_constraint.h, which pgrx does not bind: the catalog, its index by what is constrained.
const CATALOG: u32 = 2606;
const BY_CONSTRAINED: u32 = 2665;

const CHECK: c_char = b'c' as c_char;

unsafe extern "C-unwind" {
    /// Of catalog/pg_constraint.h.
    fn ConstraintNameExists(name: *const c_char, schema: pg_sys::Oid) -> bool;
}

/// Whether a constraint of this schema has the name: PostgreSQL then makes up another one for an index that belongs to a constraint.
pub fn is_named(schema: &str, name: &str) -> bool {
    let (Some(schema), Some(name)) = (encoding::c_string(schema), encoding::c_string(name)) else { return false };
    // SAFETY: look-ups in the catalogs by C strings that outlive them.
    unsafe {
        let schema = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        schema != pg_sys::InvalidOid && pg_sys::ffi::pg_guard_ffi_boundary(|| ConstraintNameExists(name.as_ptr(), schema))
    }
}

/// The schema of a constraint: its table's, or its domain's. Invalid if there is no such constraint.
pub(super) fn schema_of(constraint: Oid) -> Oid {
    // SAFETY: a syscache look-up, its tuple released after the field was read.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::CONSTROID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(constraint));
        if tuple.is_null() {
            return pg_sys::InvalidOid;
        }
        let schema = (*pg_sys::heap_tuple_get_struct::<Constraint>(tuple)).schema;
        pg_sys::ReleaseSysCache(tuple);
        schema
    }
}

/// Makes the constraint of a table valid, and with a check those of the tables below. False if there is none.
pub(super) fn set_valid(table: Oid, name: &CStr) -> bool {
    let (mut is_found, mut is_inherited) = (false, false);
    each(table, pg_sys::InvalidOid, |constraint| {
        let is_it = name_of(constraint) == name;
        is_found |= is_it;
        is_inherited |= is_it && constraint.kind == CHECK && !constraint.no_inherit;
        is_it
    });
    if is_inherited {
        for below in relation::with_children(table).into_iter().filter(|&below| below != table) {
            each(below, pg_sys::InvalidOid, |constraint| name_of(constraint) == name);
        }
    }
    is_found
}

/// Makes valid the constraints of a domain, or the one with this name. False if there is none.
pub(super) fn set_valid_of_domain(domain: Oid, name: Option<&CStr>, but: &[Oid]) -> bool {
    let mut is_found = false;
    each(pg_sys::InvalidOid, domain, |constraint| {
        let is_it = name.is_none_or(|name| name_of(constraint) == name) && !but.contains(&constraint.oid);
        is_found |= is_it;
        is_it
    });
    is_found
}

/// The constraints of a domain that are not valid.
pub(super) fn not_valid_of_domain(domain: Oid) -> Vec<Oid> {
    let mut found = Vec::new();
    each(pg_sys::InvalidOid, domain, |constraint| {
        if !constraint.validated {
            found.push(constraint.oid);
        }
        false
    });
    found
}

fn name_of(constraint: &Constraint) -> &CStr {
    // SAFETY: a NameData is zero-terminated within its 64 bytes.
    unsafe { CStr::from_ptr(constraint.name.data.as_ptr()) }
}

/// Shows each constraint of a table or domain, and makes it valid if told so.
fn each(table: Oid, domain: Oid, mut is_valid: impl FnMut(&Constraint) -> bool) {
    // SAFETY: an ordinary scan and update of pg_constraint by its index; the columns of `Constraint` are never null.
    unsafe {
        pg_sys::CommandCounterIncrement();
        let catalog = pg_sys::table_open(pg_sys::Oid::from(CATALOG), pg_sys::RowExclusiveLock as i32);
        let mut keys = [pg_sys::ScanKeyData::default(), pg_sys::ScanKeyData::default()];
        for (key, (column, value)) in keys.iter_mut().zip([(CONRELID, table), (CONTYPID, domain)]) {
            let equals = pg_sys::BTEqualStrategyNumber as u16;
            pg_sys::ScanKeyInit(key, column, equals, pg_sys::F_OIDEQ.into(), pg_sys::Datum::from(value));
        }
        let index = pg_sys::Oid::from(BY_CONSTRAINED);
        let scan = pg_sys::systable_beginscan(catalog, index, true, std::ptr::null_mut(), 2, keys.as_mut_ptr());
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let constraint = &*pg_sys::heap_tuple_get_struct::<Constraint>(tuple);
            if is_valid(constraint) && !constraint.validated {
                let copy = pg_sys::heap_copytuple(tuple);
                (*pg_sys::heap_tuple_get_struct::<Constraint>(copy)).validated = true;
                pg_sys::CatalogTupleUpdate(catalog, &mut (*copy).t_self, copy);
                pg_sys::heap_freetuple(copy);
                if table != pg_sys::InvalidOid {
                    pg_sys::CacheInvalidateRelcacheByRelid(table);
                }
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::RowExclusiveLock as i32);
        pg_sys::CommandCounterIncrement();
    }
}

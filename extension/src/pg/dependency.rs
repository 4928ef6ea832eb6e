//! Whether an object is temporary, or depends on an object that is.

use pgrx::pg_sys;

use super::names::{Oid, valid};

/// Of catalog/pg_depend.h, which pgrx does not bind: the catalog, its index by the depending object, and its columns.
const CATALOG: u32 = 2608;
const BY_OBJECT: u32 = 2673;
const CLASS: i16 = 1;
const OBJECT: i16 = 2;
const REFERENCED_CLASS: i32 = 4;
const REFERENCED_OBJECT: i32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    Permanent,
    /// In the schema of a session's temporary objects.
    Temporary,
    /// Permanent itself, but it depends on a temporary object and is dropped with it.
    OnLoan,
}

/// Makes visible to [`lifetime`] what the current statement did to the catalogs.
pub fn see_own_changes() {
    // SAFETY: between two commands.
    unsafe { pg_sys::CommandCounterIncrement() }
}

/// The lifetime of the object with this OID in the catalog `class`.
pub fn lifetime(class: Oid, object: Oid) -> Lifetime {
    let mut lifetime = Lifetime::Permanent;
    // SAFETY: a scan of pg_depend by its index; both columns that are read are NOT NULL oids.
    unsafe {
        let catalog = pg_sys::table_open(pg_sys::Oid::from(CATALOG), pg_sys::AccessShareLock as i32);
        let mut keys = [pg_sys::ScanKeyData::default(), pg_sys::ScanKeyData::default()];
        for (key, (column, value)) in keys.iter_mut().zip([(CLASS, class), (OBJECT, object)]) {
            let equals = pg_sys::BTEqualStrategyNumber as u16;
            pg_sys::ScanKeyInit(key, column, equals, pg_sys::F_OIDEQ.into(), pg_sys::Datum::from(value));
        }
        let index = pg_sys::Oid::from(BY_OBJECT);
        let scan = pg_sys::systable_beginscan(catalog, index, true, std::ptr::null_mut(), 2, keys.as_mut_ptr());
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let column = |number| {
                let mut is_null = false;
                let datum = pg_sys::heap_getattr(tuple, number, (*catalog).rd_att, &mut is_null);
                pg_sys::Oid::from(datum.value() as u32)
            };
            let (class, referenced) = (column(REFERENCED_CLASS), column(REFERENCED_OBJECT));
            if class == pg_sys::NamespaceRelationId {
                if pg_sys::isAnyTempNamespace(referenced) {
                    lifetime = Lifetime::Temporary;
                    break;
                }
            } else if schema_of(class, referenced).is_some_and(|schema| pg_sys::isAnyTempNamespace(schema)) {
                lifetime = Lifetime::OnLoan;
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
    }
    lifetime
}

/// The schema of a relation, function or type; none for objects of other kinds, which are not looked at.
fn schema_of(class: Oid, object: Oid) -> Option<Oid> {
    // SAFETY: syscache look-ups; a tuple is released after its schema was read.
    let schema = unsafe {
        match class {
            pg_sys::RelationRelationId => pg_sys::get_rel_namespace(object),
            pg_sys::ProcedureRelationId => pg_sys::get_func_namespace(object),
            pg_sys::TypeRelationId => {
                let cache = pg_sys::SysCacheIdentifier::TYPEOID as i32;
                let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(object));
                if tuple.is_null() {
                    return None;
                }
                let schema = (*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_type>(tuple)).typnamespace;
                pg_sys::ReleaseSysCache(tuple);
                schema
            }
            _ => return None,
        }
    };
    valid(schema)
}

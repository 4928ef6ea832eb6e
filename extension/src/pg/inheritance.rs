//! Which tables inherit from which, partitions among them, as the catalog shows it now.
//!
//! PostgreSQL's own look-up (`find_all_inheritors`) is for relations that are locked: it raises an error over one that is dropped meanwhile. This one is also for those that are
//! not: what it gives may be gone.

use pgrx::pg_sys;

use super::names::Oid;

/// Of catalog/pg_inherits.h, which pgrx does not bind: the catalog, its indexes by children and by parents, and the columns.
const CATALOG: u32 = 2611;
const BY_CHILD: u32 = 2680;
const BY_PARENT: u32 = 2187;
const CHILD: i16 = 1;
const PARENT: i16 = 2;

/// A relation and all below it.
pub fn with_children(oid: Oid) -> Vec<Oid> {
    with_all(oid, |parent| look_up((BY_PARENT, PARENT), parent, CHILD))
}

/// A relation and all above it.
pub fn with_parents(oid: Oid) -> Vec<Oid> {
    with_all(oid, |child| look_up((BY_CHILD, CHILD), child, PARENT))
}

fn with_all(oid: Oid, next: impl Fn(Oid) -> Vec<Oid>) -> Vec<Oid> {
    let mut found = vec![oid];
    let mut at = 0;
    while let Some(&relation) = found.get(at) {
        for other in next(relation) {
            // A table may inherit from several.
            if !found.contains(&other) {
                found.push(other);
            }
        }
        at += 1;
    }
    found
}

/// A column of the rows that have this value in another one, by which the index is.
fn look_up((index, column): (u32, i16), value: Oid, wanted: i16) -> Vec<Oid> {
    let mut found = Vec::new();
    // SAFETY: a scan of a catalog by its index; the column that is read is NOT NULL, an oid.
    unsafe {
        let catalog = pg_sys::table_open(pg_sys::Oid::from(CATALOG), pg_sys::AccessShareLock as i32);
        let mut key = pg_sys::ScanKeyData::default();
        let equals = pg_sys::BTEqualStrategyNumber as u16;
        pg_sys::ScanKeyInit(&mut key, column, equals, pg_sys::F_OIDEQ.into(), pg_sys::Datum::from(value));
        let index = pg_sys::Oid::from(index);
        let scan = pg_sys::systable_beginscan(catalog, index, true, std::ptr::null_mut(), 1, &mut key);
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let mut is_null = false;
            let found_in = pg_sys::heap_getattr(tuple, i32::from(wanted), (*catalog).rd_att, &mut is_null);
            found.push(Oid::from(found_in.value() as u32));
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
    }
    found
}

//! What this node remembers of the OIDs of objects that values name: the table `postgres_r.named_objects`, of this node only.
//!
//! A value goes on holding the OID of its object when the object is gone, and that is another number on every node. So each node notes
//! which objects are named by the rows that it stores ([`note`]), and when such an object is dropped, under which bytes the number that
//! is left travels from now on ([`bind`]). Nothing is ever deleted: the number may stand in any row. There are as many entries as
//! objects that values have named.

use gcs_writeset::key::bytes_hash;
use pgrx::pg_sys;

use super::names::Oid;
use super::object::{self, Class};
use super::relation::{self, Lock, Open};
use super::varlena::with_varlena;

const SCHEMA: &str = "postgres_r";
const TABLE: &str = "named_objects";
const BY_OBJECT: &str = "named_objects_by_object";
const BY_HASH: &str = "named_objects_by_hash";

const CLASS: i16 = 1;
const OBJECT: i16 = 2;
const HASH: i16 = 3;
const BYTES: i32 = 4;

/// Below are objects that no user has made, nor can drop.
const FIRST_OF_USERS: u32 = 16_384;

/// Whether an object is one that can be dropped.
fn can_be_dropped(oid: Oid) -> bool {
    oid.to_u32() >= FIRST_OF_USERS
}

/// Notes that a row names this object.
pub(super) fn note(class: Class, oid: Oid) {
    if can_be_dropped(oid) && !is_noted(class, oid) {
        insert(class, oid, None);
    }
}

/// Whether a row that was stored here has named this object.
pub fn is_noted(class: Class, oid: Oid) -> bool {
    let mut found = false;
    by_object(class, oid, |_| found = true);
    found
}

/// The bytes under which a number travels that names nothing (any more).
pub fn bytes_of(class: Class, oid: Oid) -> Option<Vec<u8>> {
    let mut found = None;
    by_object(class, oid, |bytes| {
        if bytes.is_some() {
            found = bytes;
        }
    });
    found
}

/// The number that travels under these bytes.
pub fn oid_of(class: Class, wanted: &[u8]) -> Option<Oid> {
    let mut found = None;
    scan(BY_HASH, &[(HASH, pg_sys::Datum::from(bytes_hash(wanted) as i64), pg_sys::F_INT8EQ)], |entry| {
        if entry.class == class.catalog() && entry.bytes.as_deref() == Some(wanted) {
            found = Some(entry.object);
        }
    });
    found
}

/// From now on the number travels under these bytes.
pub fn bind(class: Class, oid: Oid, bytes: &[u8]) {
    insert(class, oid, Some(bytes));
}

/// A number that no object of this class has here, nor will have before all numbers have been used.
pub(super) fn unused(class: Class) -> Oid {
    loop {
        // SAFETY: takes the next number, under its lock.
        let oid = unsafe { pg_sys::GetNewObjectId() };
        if !object::exists(class, oid) && bytes_of(class, oid).is_none() {
            return oid;
        }
    }
}

struct Entry {
    class: Oid,
    object: Oid,
    bytes: Option<Vec<u8>>,
}

fn by_object(class: Class, oid: Oid, mut visit: impl FnMut(Option<Vec<u8>>)) {
    let keys = [
        (CLASS, pg_sys::Datum::from(class.catalog()), pg_sys::F_OIDEQ),
        (OBJECT, pg_sys::Datum::from(oid), pg_sys::F_OIDEQ),
    ];
    scan(BY_OBJECT, &keys, |entry| visit(entry.bytes));
}

fn open() -> Option<Open> {
    relation::find(SCHEMA, TABLE).and_then(|oid| Open::by_oid(oid, Lock::RowExclusive))
}

fn scan(index: &str, equal: &[(i16, pg_sys::Datum, u32)], mut visit: impl FnMut(Entry)) {
    let (Some(table), Some(index)) = (open(), relation::find(SCHEMA, index)) else { return };
    if table.is_empty() {
        return;
    }
    // SAFETY: an index scan with a snapshot taken now; the first two columns are never null; what is kept of a tuple is copied.
    unsafe {
        let mut keys: Vec<pg_sys::ScanKeyData> = Vec::with_capacity(equal.len());
        for &(column, value, function) in equal {
            let mut key = pg_sys::ScanKeyData::default();
            pg_sys::ScanKeyInit(&mut key, column, pg_sys::BTEqualStrategyNumber as u16, function.into(), value);
            keys.push(key);
        }
        let count = keys.len() as i32;
        let scan = pg_sys::systable_beginscan(table.raw(), index, true, std::ptr::null_mut(), count, keys.as_mut_ptr());
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let mut is_null = false;
            let mut column = |number| pg_sys::heap_getattr(tuple, number, (*table.raw()).rd_att, &mut is_null);
            let (class, object) = (column(i32::from(CLASS)), column(i32::from(OBJECT)));
            let bytes = column(BYTES);
            let bytes = (!is_null).then(|| with_varlena(bytes, <[u8]>::to_vec));
            visit(Entry { class: Oid::from(class.value() as u32), object: Oid::from(object.value() as u32), bytes });
        }
        pg_sys::systable_endscan(scan);
    }
}

fn insert(class: Class, oid: Oid, bytes: Option<&[u8]>) {
    let Some(table) = open() else { return };
    // SAFETY: the arrays hold a value for each of the table's four columns; the tuple is palloc'd, and copied into the table.
    unsafe {
        let none = pg_sys::Datum::null();
        let hash = bytes.map_or(none, |bytes| pg_sys::Datum::from(bytes_hash(bytes) as i64));
        let bytes = bytes.map_or(none, |bytes| {
            let start = pg_sys::palloc(bytes.len() + 4).cast::<u8>();
            start.cast::<u32>().write_unaligned(((bytes.len() + 4) as u32) << 2);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.add(4), bytes.len());
            pg_sys::Datum::from(start)
        });
        let mut values = [pg_sys::Datum::from(class.catalog()), pg_sys::Datum::from(oid), hash, bytes];
        let is_null = bytes.is_null();
        let mut nulls = [false, false, is_null, is_null];
        let tuple = pg_sys::heap_form_tuple((*table.raw()).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::CatalogTupleInsert(table.raw(), tuple);
    }
}

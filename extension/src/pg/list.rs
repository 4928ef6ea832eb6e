//! PostgreSQL's lists, read into vectors.

use pgrx::pg_sys;

/// # Safety
/// `list` must be NIL or a live list of pointers to `T`.
pub(super) unsafe fn pointers<T>(list: *const pg_sys::List) -> Vec<*mut T> {
    // SAFETY: by contract; the cells of a pointer list hold pointers.
    unsafe { cells(list).iter().map(|cell| cell.ptr_value.cast::<T>()).collect() }
}

/// # Safety
/// `list` must be NIL or a list of pointers to `T`, alive and as it is while it is gone through.
pub(super) unsafe fn each<'a, T>(list: *const pg_sys::List) -> impl Iterator<Item = *mut T> + 'a {
    // SAFETY: by contract; the cells of a pointer list hold pointers.
    unsafe { cells(list).iter().map(|cell| cell.ptr_value.cast::<T>()) }
}

/// # Safety
/// `list` must be NIL or a live list of OIDs.
pub(super) unsafe fn oids(list: *const pg_sys::List) -> Vec<pg_sys::Oid> {
    // SAFETY: by contract; the cells of an OID list hold OIDs.
    unsafe { cells(list).iter().map(|cell| cell.oid_value).collect() }
}

/// # Safety
/// `list` must be NIL or a live list.
unsafe fn cells<'a>(list: *const pg_sys::List) -> &'a [pg_sys::ListCell] {
    if list.is_null() {
        return &[];
    }
    // SAFETY: a list holds `length` initialised cells at `elements`.
    unsafe { std::slice::from_raw_parts((*list).elements, (*list).length as usize) }
}

/// # Safety
/// `list` must be NIL or a live list of integers.
pub(super) unsafe fn integers(list: *const pg_sys::List) -> Vec<i32> {
    // SAFETY: by contract; the cells of an integer list hold integers.
    unsafe { cells(list).iter().map(|cell| cell.int_value).collect() }
}

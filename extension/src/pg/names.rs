//! OIDs and names: what every description of a catalog entry is made of.

use std::ffi::CStr;

use pgrx::pg_sys;
pub use pgrx::pg_sys::Oid;

use super::encoding;

/// None for InvalidOid, by which PostgreSQL says that there is none.
pub(super) fn valid(oid: Oid) -> Option<Oid> {
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Schema and name of a relation.
pub fn qualified_name(oid: Oid) -> Option<(String, String)> {
    // SAFETY: syscache look-ups giving palloc'd copies or null.
    unsafe {
        let name = owned(pg_sys::get_rel_name(oid))?;
        let schema = owned(pg_sys::get_namespace_name(pg_sys::get_rel_namespace(oid)))?;
        Some((schema, name))
    }
}

/// Takes over a palloc'd C string.
///
/// # Safety
/// `string` must be null or a palloc'd C string that nobody else uses.
pub(super) unsafe fn owned(string: *mut std::ffi::c_char) -> Option<String> {
    if string.is_null() {
        return None;
    }
    // SAFETY: by contract.
    unsafe {
        let copy = encoding::text(CStr::from_ptr(string));
        pg_sys::pfree(string.cast());
        Some(copy)
    }
}

/// The name in a column of a catalog.
pub(super) fn name_of(name: &pg_sys::NameData) -> String {
    // SAFETY: a NameData is zero-terminated within its 64 bytes.
    unsafe { encoding::text(CStr::from_ptr(name.data.as_ptr())) }
}

/// A type's schema and name, as in pg_type.
pub(super) fn type_name(oid: Oid) -> Option<(Oid, String)> {
    // SAFETY: a syscache look-up, its tuple released after the name was copied.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::TYPEOID as i32, pg_sys::Datum::from(oid));
        if tuple.is_null() {
            return None;
        }
        let form = &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_type>(tuple);
        let name = (form.typnamespace, name_of(&form.typname));
        pg_sys::ReleaseSysCache(tuple);
        Some(name)
    }
}

/// A name as an SQL identifier.
pub fn quoted(name: &str) -> String {
    let Some(name) = encoding::c_string(name) else { return String::new() };
    // SAFETY: gives its argument or a palloc'd copy; read at once.
    unsafe { encoding::text(CStr::from_ptr(pg_sys::quote_identifier(name.as_ptr()))) }
}

/// A text as an SQL literal.
pub fn quoted_text(text: &str) -> String {
    let Some(text) = encoding::c_string(text) else { return String::new() };
    // SAFETY: gives a palloc'd copy.
    unsafe { owned(pg_sys::quote_literal_cstr(text.as_ptr())) }.unwrap_or_default()
}

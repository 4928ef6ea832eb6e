//! Access methods of tables: rows are captured from, and put into, heap tables; by whatever name that access method goes.

use std::ffi::c_char;

use pgrx::pg_sys;

/// heap_tableam_handler, whose number pgrx does not bind.
const HEAP_HANDLER: u32 = 3;

/// Whether tables with the access method of this name, or without one with the session's default, are anything but heap tables. No, if there is no such
/// access method: PostgreSQL says so itself.
///
/// # Safety
/// `name` must be null or a C string.
pub(super) unsafe fn is_other(name: *const c_char) -> bool {
    // SAFETY: by contract; a setting's value; a syscache look-up whose tuple is released after it was read.
    unsafe {
        let name = if name.is_null() { pg_sys::default_table_access_method.cast_const() } else { name };
        let oid = pg_sys::get_am_oid(name, true);
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::AMOID as i32, pg_sys::Datum::from(oid));
        if tuple.is_null() {
            return false;
        }
        let found = &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_am>(tuple);
        let is_other = found.amtype as u8 == pg_sys::AMTYPE_TABLE && found.amhandler.to_u32() != HEAP_HANDLER;
        pg_sys::ReleaseSysCache(tuple);
        is_other
    }
}

//! Text between PostgreSQL, which holds it in the database's encoding, and everything else here, which is UTF-8.
//!
//! Names, statements and settings go through here both ways, so that they mean the same whatever the database's encoding. Values of rows do not: they travel
//! as the bytes that they are, since every node's database has the same encoding.
//!
//! SQL_ASCII is no encoding but the lack of one: bytes of a name that are not UTF-8 cannot be told from others that are not. What must be exact
//! asks [`exactly`]; what is for people takes [`text`].

use std::ffi::{CStr, CString};

use pgrx::pg_sys;
use pgrx::pg_sys::pg_enc;

/// What it says; for bytes that say nothing, the character that stands for such.
pub fn text(string: &CStr) -> String {
    exactly(string.to_bytes()).unwrap_or_else(|| string.to_string_lossy().into_owned())
}

/// What it says, if it can be said in UTF-8.
pub fn exactly(bytes: &[u8]) -> Option<String> {
    if !must_be_converted(bytes) {
        return std::str::from_utf8(bytes).ok().map(str::to_owned);
    }
    let length = i32::try_from(bytes.len()).ok()?;
    // SAFETY: so many bytes are read; what comes back is another, palloc'd C string, or the same bytes; an ERROR passes.
    unsafe {
        let converted = pg_sys::pg_server_to_any(bytes.as_ptr().cast(), length, pg_enc::PG_UTF8 as i32);
        take(converted, bytes).and_then(|bytes| String::from_utf8(bytes).ok())
    }
}

/// As PostgreSQL takes it; none if there is a zero byte in it. A character that the database's encoding has not got is PostgreSQL's ERROR.
pub fn c_string(text: &str) -> Option<CString> {
    let bytes = text.as_bytes();
    if !must_be_converted(bytes) || bytes.contains(&0) {
        return CString::new(bytes).ok();
    }
    let length = i32::try_from(bytes.len()).ok()?;
    // SAFETY: as in `exactly`.
    unsafe {
        let converted = pg_sys::pg_any_to_server(bytes.as_ptr().cast(), length, pg_enc::PG_UTF8 as i32);
        take(converted, bytes).and_then(|bytes| CString::new(bytes).ok())
    }
}

/// ASCII is the same in every encoding that a server can have. How others are converted is looked up in a catalog, for which there must be a
/// transaction; without one, text is for people.
fn must_be_converted(bytes: &[u8]) -> bool {
    // SAFETY: both read variables of this process.
    let (encoding, is_in_transaction) = unsafe { (pg_sys::GetDatabaseEncoding() as u32, pg_sys::IsTransactionState()) };
    !bytes.is_ascii() && encoding != pg_enc::PG_UTF8 && encoding != pg_enc::PG_SQL_ASCII && is_in_transaction
}

/// A copy of what was converted from `bytes`.
///
/// # Safety
/// `converted` must point to `bytes`, or to a palloc'd C string, which is freed.
unsafe fn take(converted: *mut std::ffi::c_char, bytes: &[u8]) -> Option<Vec<u8>> {
    if converted.is_null() {
        return None;
    }
    if std::ptr::eq(converted.cast_const().cast(), bytes.as_ptr()) {
        return Some(bytes.to_vec());
    }
    // SAFETY: by contract.
    unsafe {
        let copy = CStr::from_ptr(converted).to_bytes().to_vec();
        pg_sys::pfree(converted.cast());
        Some(copy)
    }
}

//! Taking the place of a function that is built into PostgreSQL.
//!
//! The function manager finds such a function in a table, `fmgr_builtins`, which is constant: its memory is made writable for the moment in
//! which one entry gets another function. Done by the postmaster while it loads libraries, it holds for every process, and for every way in
//! which SQL calls the function: in queries, defaults, COPY, PL/pgSQL.

use pgrx::pg_sys;

type Function = unsafe extern "C-unwind" fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum;

/// An entry of the table: FmgrBuiltin of utils/fmgrtab.h, which pgrx does not bind.
#[repr(C)]
struct Builtin {
    oid: pg_sys::Oid,
    nargs: i16,
    strict: bool,
    retset: bool,
    name: *const std::ffi::c_char,
    function: Option<Function>,
}

unsafe extern "C" {
    static fmgr_nbuiltins: std::ffi::c_int;
    static fmgr_last_builtin_oid: pg_sys::Oid;
}

// Arrays, of which the length is known only to the server.
unsafe extern "C" {
    #[link_name = "fmgr_builtins"]
    static BUILTINS: [Builtin; 0];
    #[link_name = "fmgr_builtin_oid_index"]
    static INDEX: [u16; 0];
}

/// Puts `function` in the place of the built-in function with this number, and gives the one that was there. None if that can't be done.
/// Called while libraries are preloaded.
pub(super) fn replace(number: u32, function: Function) -> Option<Function> {
    // SAFETY: tables of the server that loads us, with the lengths it gives; the postmaster is single-threaded, and nothing is called while
    // the entry changes. Entry and page sizes are what they are in its headers.
    unsafe {
        if number > fmgr_last_builtin_oid.to_u32() {
            return None;
        }
        let index = usize::from(INDEX.as_ptr().add(number as usize).read());
        if index >= usize::try_from(fmgr_nbuiltins).unwrap_or(0) {
            return None;
        }
        let entry = BUILTINS.as_ptr().add(index).cast_mut();
        if (*entry).oid.to_u32() != number {
            return None;
        }
        let place = &raw mut (*entry).function;
        let page = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).ok()?;
        let start = place as usize & !(page - 1);
        let length = (place as usize + size_of::<Option<Function>>()).next_multiple_of(page) - start;
        let memory = start as *mut libc::c_void;
        if libc::mprotect(memory, length, libc::PROT_READ | libc::PROT_WRITE) != 0 {
            return None;
        }
        let before = place.read_volatile();
        place.write_volatile(Some(function));
        // Best effort: a table that stays writable does no harm.
        libc::mprotect(memory, length, libc::PROT_READ);
        before
    }
}

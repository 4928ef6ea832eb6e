//! Values in memory as PostgreSQL lays them out: varlena headers, values out of line, and their plain bytes.

use gcs_writeset::body::PutItem;
use pgrx::pg_sys;

/// Whether two datums point to the same value out of line, so that its bytes need not travel.
///
/// # Safety
/// Both must be varlena datums.
pub(super) unsafe fn same_external(a: pg_sys::Datum, b: pg_sys::Datum) -> bool {
    const ON_DISK: u8 = 18;
    const POINTER_BYTES: usize = 18;
    // SAFETY: an external datum starts with 0x01 and its tag; an on-disk one has 18 bytes.
    unsafe {
        let (a, b) = (a.cast_mut_ptr::<u8>(), b.cast_mut_ptr::<u8>());
        *a == 1
            && *b == 1
            && *a.add(1) == ON_DISK
            && std::slice::from_raw_parts(a, POINTER_BYTES) == std::slice::from_raw_parts(b, POINTER_BYTES)
    }
}

/// Whether two values have the same bytes as they stand: nothing is detoasted.
///
/// # Safety
/// Both must be pointers to values of a type with this length.
pub(super) unsafe fn same_bytes(a: pg_sys::Datum, b: pg_sys::Datum, typlen: i16) -> bool {
    // SAFETY: by contract; `stored_length` says how many bytes there are.
    unsafe {
        let (a, b) = (a.cast_mut_ptr::<u8>(), b.cast_mut_ptr::<u8>());
        let length = stored_length(a, typlen);
        length == stored_length(b, typlen) && std::slice::from_raw_parts(a, length) == std::slice::from_raw_parts(b, length)
    }
}

/// # Safety
/// `start` must point to a value of a type with this length.
unsafe fn stored_length(start: *const u8, typlen: i16) -> usize {
    // SAFETY: by contract; the first byte tells the kinds of varlena header apart.
    unsafe {
        match (typlen, *start) {
            (-1, 1) => pgrx::varsize_any(start.cast()),
            (-1, first) if first & 1 == 1 => (first >> 1) as usize,
            (-1, _) => (start.cast::<u32>().read_unaligned() >> 2) as usize,
            (-2, _) => std::ffi::CStr::from_ptr(start.cast()).to_bytes().len(),
            (length, _) => length as usize,
        }
    }
}

/// A long value that is stored out of line and plain is read piece by piece, so that it is in memory once, not twice. False if it
/// is not such a one.
///
/// # Safety
/// `datum` must be a varlena datum.
pub(super) unsafe fn put_in_slices(datum: pg_sys::Datum, out: &mut Vec<u8>) -> bool {
    const SLICE_BYTES: usize = 1 << 20;
    const ON_DISK: u8 = 18;
    // SAFETY: an external datum starts with 0x01 and its tag; an on-disk one goes on with its raw size, header included, and its
    // stored size in the low 30 bits of a word; they differ by the header where nothing is compressed.
    unsafe {
        let start = datum.cast_mut_ptr::<u8>();
        if *start != 1 || *start.add(1) != ON_DISK {
            return false;
        }
        let length = (start.add(2).cast::<i32>().read_unaligned() as usize).saturating_sub(4);
        let stored = (start.add(6).cast::<u32>().read_unaligned() & 0x3fff_ffff) as usize;
        if length <= SLICE_BYTES || stored != length {
            return false;
        }
        out.put_physical_header(length);
        out.reserve_exact(length);
        for offset in (0..length).step_by(SLICE_BYTES) {
            let slice = pg_sys::detoast_attr_slice(start.cast(), offset as i32, SLICE_BYTES as i32).cast::<u8>();
            out.extend_from_slice(plain(slice));
            pg_sys::pfree(slice.cast());
        }
        true
    }
}

/// Calls `f` with a varlena's bytes, flat and without header.
///
/// # Safety
/// `datum` must be a varlena datum.
pub(super) unsafe fn with_varlena<R>(datum: pg_sys::Datum, f: impl FnOnce(&[u8]) -> R) -> R {
    // SAFETY: the first byte tells the four kinds of header apart (postgres.h, little-endian).
    unsafe {
        let start = datum.cast_mut_ptr::<u8>();
        let first = *start;
        if first == 1 || first & 3 == 2 {
            let flat = pg_sys::detoast_attr(start.cast()).cast::<u8>();
            let result = f(plain(flat));
            pg_sys::pfree(flat.cast());
            result
        } else if first & 1 == 1 {
            f(std::slice::from_raw_parts(start.add(1), (first >> 1) as usize - 1))
        } else {
            f(plain(start))
        }
    }
}

/// # Safety
/// `start` must point to a varlena with an uncompressed 4-byte header.
unsafe fn plain<'a>(start: *const u8) -> &'a [u8] {
    // SAFETY: the header holds the total length, itself included.
    unsafe {
        let total = (start.cast::<u32>().read_unaligned() >> 2) as usize;
        std::slice::from_raw_parts(start.add(4), total - 4)
    }
}

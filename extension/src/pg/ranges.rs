//! Ranges and multiranges of users' types as values of a column: they travel as their bounds.
//!
//! ```text
//! value := ranges varint × range                   a range is a multirange of one
//! range := flags u8: 1 empty, 2 no lower bound, 4 with the lower bound, 8 no upper bound, 16 with the upper bound,
//!          then a datum for each bound that there is
//! ```
//!
//! A range of a domain is read without its checks, like an array of one. One of what names objects is refused: which bound is the lower
//! one would depend on the node's OIDs.

use gcs_writeset::body;
use gcs_writeset::wire::{Put, Reader};
use pgrx::pg_sys;

use super::majors::relation::range_serialize;
use super::memory::Context;
use super::names::{Oid, valid};
use super::naming;
use super::nested::{DatumError, Part};

const EMPTY: u8 = 1;
const NO_LOWER: u8 = 2;
const WITH_LOWER: u8 = 4;
const NO_UPPER: u8 = 8;
const WITH_UPPER: u8 = 16;

unsafe extern "C-unwind" {
    /// Of utils/multirangetypes.h, which pgrx does not bind.
    fn multirange_deserialize(
        range_type: *mut pg_sys::TypeCacheEntry,
        multirange: *const std::ffi::c_void,
        count: *mut i32,
        ranges: *mut *mut *mut pg_sys::RangeType,
    );
    fn make_multirange(
        multirange_type: Oid,
        range_type: *mut pg_sys::TypeCacheEntry,
        count: i32,
        ranges: *mut *mut pg_sys::RangeType,
    ) -> *mut std::ffi::c_void;
}

pub(super) struct RangeForm<P> {
    range: Oid,
    /// If values are multiranges of it.
    multirange: Option<Oid>,
    part: P,
}

impl<P: Part> RangeForm<P> {
    /// For a range or multirange type.
    pub(super) fn new(typid: Oid, context: &Context) -> RangeForm<P> {
        // SAFETY: syscache look-ups.
        unsafe {
            let of_multirange = valid(pg_sys::get_multirange_range(typid));
            let range = of_multirange.unwrap_or(typid);
            let subtype = pg_sys::get_range_subtype(range);
            let (mut length, mut byval) = (0, false);
            pg_sys::get_typlenbyval(subtype, &mut length, &mut byval);
            RangeForm { range, multirange: of_multirange.map(|_| typid), part: P::of(subtype, -1, length, byval, context) }
        }
    }

    pub(super) fn bound(&self) -> &P {
        &self.part
    }

    /// The type's entry in the type cache, which stays as long as the process.
    fn entry(&self) -> *mut pg_sys::TypeCacheEntry {
        // SAFETY: the type is a range.
        unsafe { pg_sys::lookup_type_cache(self.range, pg_sys::TYPECACHE_RANGE_INFO as i32) }
    }

    /// # Safety
    /// `datum` must be of this type. `names_objects` says whether bounds do.
    pub(super) unsafe fn put(&self, datum: pg_sys::Datum, names_objects: bool) -> Vec<u8> {
        let mut out = Vec::new();
        // SAFETY: by contract; what is palloc'd belongs to the caller's context.
        unsafe {
            let flat = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
            let entry = self.entry();
            if self.multirange.is_none() {
                out.put_varint(1);
                self.put_range(entry, flat.cast(), names_objects, &mut out);
                return out;
            }
            let (mut count, mut ranges) = (0, std::ptr::null_mut());
            pg_sys::ffi::pg_guard_ffi_boundary(|| multirange_deserialize(entry, flat.cast(), &mut count, &mut ranges));
            out.put_varint(u64::try_from(count).unwrap_or(0));
            for at in 0..usize::try_from(count).unwrap_or(0) {
                self.put_range(entry, *ranges.add(at), names_objects, &mut out);
            }
        }
        out
    }

    /// # Safety
    /// `range` must be of the type of `entry`.
    unsafe fn put_range(
        &self,
        entry: *mut pg_sys::TypeCacheEntry,
        range: *const pg_sys::RangeType,
        names_objects: bool,
        out: &mut Vec<u8>,
    ) {
        let (mut lower, mut upper, mut is_empty) = (pg_sys::RangeBound::default(), pg_sys::RangeBound::default(), false);
        // SAFETY: by contract.
        unsafe { pg_sys::range_deserialize(entry, range, &mut lower, &mut upper, &mut is_empty) };
        if is_empty {
            return out.put_u8(EMPTY);
        }
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        out.put_u8(
            flag(lower.infinite, NO_LOWER)
                | flag(lower.inclusive, WITH_LOWER)
                | flag(upper.infinite, NO_UPPER)
                | flag(upper.inclusive, WITH_UPPER),
        );
        for bound in [lower, upper].into_iter().filter(|bound| !bound.infinite) {
            if names_objects {
                naming::refuse_captured("an object as a bound of a range", "Bounds have another order on other nodes");
            }
            self.part.put(bound.val, out);
        }
    }

    /// Makes a value in the current memory context.
    pub(super) fn take(&self, bytes: &[u8]) -> Result<pg_sys::Datum, DatumError> {
        let mut reader = Reader::new(bytes);
        let entry = self.entry();
        let count = reader.varint()?;
        let mut ranges = Vec::new();
        for _ in 0..count {
            ranges.push(self.take_range(entry, &mut reader)?);
        }
        if !reader.is_empty() {
            return Err(DatumError::Form);
        }
        match (self.multirange, ranges.as_slice()) {
            (None, [range]) => Ok(pg_sys::Datum::from(*range)),
            (None, _) => Err(DatumError::Form),
            // SAFETY: so many ranges of the type's range type, in order, as they were on the origin.
            (Some(multirange), _) => Ok(pg_sys::Datum::from(unsafe {
                pg_sys::ffi::pg_guard_ffi_boundary(|| {
                    make_multirange(multirange, entry, ranges.len() as i32, ranges.as_mut_ptr())
                })
            })),
        }
    }

    fn take_range(
        &self,
        entry: *mut pg_sys::TypeCacheEntry,
        reader: &mut Reader<'_>,
    ) -> Result<*mut pg_sys::RangeType, DatumError> {
        let flags = reader.u8()?;
        let is_empty = flags & EMPTY != 0;
        let mut bound = |infinite, inclusive, lower| {
            let mut bound = pg_sys::RangeBound {
                infinite: flags & infinite != 0,
                inclusive: flags & inclusive != 0,
                lower,
                ..pg_sys::RangeBound::default()
            };
            if !is_empty && !bound.infinite {
                bound.val = self.part.take(body::read_datum(reader)?)?.ok_or(DatumError::Missing)?;
            }
            Ok::<_, DatumError>(bound)
        };
        let (mut lower, mut upper) = (bound(NO_LOWER, WITH_LOWER, true)?, bound(NO_UPPER, WITH_UPPER, false)?);
        // SAFETY: bounds of the range's subtype, in order.
        Ok(unsafe { range_serialize(entry, &mut lower, &mut upper, is_empty) })
    }
}

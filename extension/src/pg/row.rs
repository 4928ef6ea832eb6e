//! A row that PostgreSQL holds in memory.

use pgrx::pg_sys;

use super::majors::relation::attributes;
use super::varlena::same_bytes;

/// A row in memory, taken apart.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    values: &'a [pg_sys::Datum],
    nulls: &'a [bool],
    pub(super) slot: *mut pg_sys::TupleTableSlot,
}

impl<'a> Row<'a> {
    /// # Safety
    /// `slot` must hold a tuple and stay unchanged for `'a`.
    pub(super) unsafe fn of_slot(slot: *mut pg_sys::TupleTableSlot) -> Row<'a> {
        // SAFETY: by contract; after slot_getallattrs, natts values are there.
        unsafe {
            let attributes = (*(*slot).tts_tupleDescriptor).natts as usize;
            if ((*slot).tts_nvalid as usize) < attributes {
                pg_sys::slot_getsomeattrs_int(slot, attributes as i32);
            }
            Row {
                values: std::slice::from_raw_parts((*slot).tts_values, attributes),
                nulls: std::slice::from_raw_parts((*slot).tts_isnull, attributes),
                slot,
            }
        }
    }

    /// The value of the attribute at this index, unless null.
    pub(super) fn get(&self, attribute: usize) -> Option<pg_sys::Datum> {
        (!self.nulls[attribute]).then(|| self.values[attribute])
    }

    /// Whether both rows, of one table, have the very same bytes in an attribute. False says nothing.
    pub(super) fn has_same_bytes(&self, other: Row<'_>, attribute: usize) -> bool {
        self.has_bytes_of(other.get(attribute), attribute)
    }

    /// Whether an attribute has the very same bytes as this value of its type. False says nothing.
    pub(super) fn has_bytes_of(&self, value: Option<pg_sys::Datum>, attribute: usize) -> bool {
        match (self.get(attribute), value) {
            (None, None) => true,
            // SAFETY: both are values of the attribute's type, which the slot's descriptor gives.
            (Some(a), Some(b)) => unsafe {
                let descriptor = (*self.slot).tts_tupleDescriptor;
                let form = &attributes(descriptor)[attribute];
                if form.attbyval { a.value() == b.value() } else { same_bytes(a, b, form.attlen) }
            },
            _ => false,
        }
    }
}

//! Arrays, rows and aclitems as values of a column: they travel as what they are made of, each part in its own form.
//!
//! ```text
//! array := dimensions varint × (length varint, lower bound u32), one datum for each element
//! row   := columns varint, one datum for each live column
//! aclitem := grantee bytes, grantor bytes (naming), privileges bytes
//! ```
//!
//! So parts may be what has no text that reads back elsewhere, and nothing is checked again: a domain's checks belong to the origin.
//! (The text of an array or row would be read by the input functions of its parts, that of a domain among them.)

use std::cell::RefCell;
use std::rc::Rc;

use gcs_writeset::body::{self, Datum as Wire, PutItem};
use gcs_writeset::wire::{Put, Reader, WireError};
use pgrx::pg_sys;

use super::memory::Context;
use super::names::{Oid, valid};
use super::naming;
use super::object::Class;

const DIMENSIONS_MAX: u64 = 6;

/// Why a value of the wire can't become one of this column.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DatumError {
    #[error("has {found} bytes where its type has {expected}")]
    Length { found: usize, expected: usize },
    #[error("has a value in the wrong form for its type")]
    Form,
    #[error("has a text with a zero byte")]
    ZeroByte,
    #[error("is a row of {found} columns where its type has {expected}")]
    Columns { found: u64, expected: u64 },
    #[error("has no value")]
    Missing,
    #[error("cannot be read: {0}")]
    Damaged(#[from] WireError),
}

/// How a part travels.
pub(super) trait Part: Sized {
    /// For a part of this type; function look-ups live in `context`.
    fn of(typid: Oid, typmod: i32, typlen: i16, byval: bool, context: &Context) -> Self;
    /// Appends a value of the type, which must not be null.
    fn put(&self, datum: pg_sys::Datum, out: &mut Vec<u8>);
    /// Makes a datum in the current memory context. Null where the wire says so.
    fn take(&self, wire: Wire<'_>) -> Result<Option<pg_sys::Datum>, DatumError>;
}

pub(super) struct ArrayForm<P> {
    element: Oid,
    length: i32,
    byval: bool,
    align: std::ffi::c_char,
    part: P,
}

impl<P: Part> ArrayForm<P> {
    pub(super) fn new(element: Oid, context: &Context) -> ArrayForm<P> {
        let (mut length, mut byval, mut align) = (0, false, 0);
        // SAFETY: a syscache look-up into locals.
        unsafe { pg_sys::get_typlenbyvalalign(element, &mut length, &mut byval, &mut align) };
        let part = P::of(element, -1, length, byval, context);
        ArrayForm { element, length: i32::from(length), byval, align, part }
    }

    pub(super) fn element(&self) -> &P {
        &self.part
    }

    /// # Safety
    /// `datum` must be an array of this element type.
    pub(super) unsafe fn put(&self, datum: pg_sys::Datum) -> Vec<u8> {
        let mut out = Vec::new();
        // SAFETY: by contract; dimensions and lower bounds follow the header. What is palloc'd belongs to the caller's context.
        unsafe {
            let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            let dimensions = usize::try_from((*array).ndim).unwrap_or(0);
            let numbers = std::slice::from_raw_parts(array.add(1).cast::<i32>(), 2 * dimensions);
            out.put_varint(dimensions as u64);
            for at in 0..dimensions {
                out.put_varint(numbers[at] as u64);
                out.put_u32(numbers[dimensions + at] as u32);
            }
            let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
            pg_sys::deconstruct_array(
                array,
                self.element,
                self.length,
                self.byval,
                self.align,
                &mut values,
                &mut nulls,
                &mut count,
            );
            for at in 0..usize::try_from(count).unwrap_or(0) {
                if *nulls.add(at) {
                    out.put_datum(Wire::Null);
                } else {
                    self.part.put(*values.add(at), &mut out);
                }
            }
        }
        out
    }

    /// Makes an array in the current memory context.
    pub(super) fn take(&self, bytes: &[u8]) -> Result<pg_sys::Datum, DatumError> {
        let mut reader = Reader::new(bytes);
        let dimensions = reader.varint()?;
        if dimensions > DIMENSIONS_MAX {
            return Err(
                WireError::TooLarge { what: "number of dimensions", value: dimensions, limit: DIMENSIONS_MAX }.into()
            );
        }
        let (mut lengths, mut bounds, mut count) = (Vec::new(), Vec::new(), u64::from(dimensions > 0));
        for _ in 0..dimensions {
            let length = reader.varint()?;
            // Each element takes a byte at least.
            count = count.checked_mul(length).filter(|&count| count <= bytes.len() as u64).ok_or(DatumError::Form)?;
            lengths.push(length as i32);
            bounds.push(reader.u32()? as i32);
        }
        let (mut values, mut nulls) = take_parts(&mut reader, (0..count).map(|_| Some(&self.part)))?;
        // SAFETY: as many values of the element type as the lengths say.
        unsafe {
            let array = if dimensions == 0 {
                pg_sys::construct_empty_array(self.element)
            } else {
                pg_sys::construct_md_array(
                    values.as_mut_ptr(),
                    nulls.as_mut_ptr(),
                    dimensions as i32,
                    lengths.as_mut_ptr(),
                    bounds.as_mut_ptr(),
                    self.element,
                    self.length,
                    self.byval,
                    self.align,
                )
            };
            Ok(pg_sys::Datum::from(array))
        }
    }
}

/// An aclitem: two roles, and what one has granted the other.
pub(super) struct AclItemForm {
    length: usize,
}

/// Bytes of the two OIDs at the front of an aclitem.
const ROLES_BYTES: usize = 8;
const ROLE_BYTES_MAX: usize = 1024;

impl AclItemForm {
    pub(super) fn new(length: i16) -> AclItemForm {
        AclItemForm { length: usize::try_from(length).unwrap_or(ROLES_BYTES).max(ROLES_BYTES) }
    }

    /// # Safety
    /// `datum` must be an aclitem.
    pub(super) unsafe fn put(&self, datum: pg_sys::Datum) -> Vec<u8> {
        let mut out = Vec::new();
        // SAFETY: by contract: so many bytes, two OIDs first.
        unsafe {
            let start = datum.cast_mut_ptr::<u8>();
            for role in 0..2 {
                let role = Oid::from(start.cast::<u32>().add(role).read_unaligned());
                out.put_bytes(&naming::bytes(Class::Role, role));
            }
            out.extend_from_slice(std::slice::from_raw_parts(start.add(ROLES_BYTES), self.length - ROLES_BYTES));
        }
        out
    }

    /// Makes an aclitem in the current memory context.
    pub(super) fn take(&self, bytes: &[u8]) -> Result<pg_sys::Datum, DatumError> {
        let mut reader = Reader::new(bytes);
        let mut roles = [pg_sys::InvalidOid; 2];
        for role in &mut roles {
            *role = naming::oid(Class::Role, reader.bytes("role", ROLE_BYTES_MAX)?)?;
        }
        let privileges = reader.rest();
        if privileges.len() != self.length - ROLES_BYTES {
            return Err(DatumError::Length { found: privileges.len(), expected: self.length - ROLES_BYTES });
        }
        // SAFETY: palloc gives so many bytes, aligned; all of them are written.
        unsafe {
            let start = pg_sys::palloc(self.length).cast::<u8>();
            for (at, role) in roles.iter().enumerate() {
                start.cast::<u32>().add(at).write_unaligned(role.to_u32());
            }
            std::ptr::copy_nonoverlapping(privileges.as_ptr(), start.add(ROLES_BYTES), privileges.len());
            Ok(pg_sys::Datum::from(start))
        }
    }
}

/// Reads one datum for each part to the end; where there is none, the value is null and takes no room.
fn take_parts<'a, P: Part + 'a>(
    reader: &mut Reader<'_>,
    parts: impl Iterator<Item = Option<&'a P>>,
) -> Result<(Vec<pg_sys::Datum>, Vec<bool>), DatumError> {
    let (mut values, mut nulls) = (Vec::new(), Vec::new());
    for part in parts {
        let value = match part {
            Some(part) => part.take(body::read_datum(reader)?)?,
            None => None,
        };
        nulls.push(value.is_none());
        values.push(value.unwrap_or(pg_sys::Datum::null()));
    }
    if reader.is_empty() { Ok((values, nulls)) } else { Err(DatumError::Form) }
}

/// The columns of a row type as of one version of its definition; none for dropped ones.
struct Columns<P> {
    /// PostgreSQL's own number of that version.
    version: u64,
    parts: Vec<Option<P>>,
    _context: Context,
}

pub(super) struct RecordForm<P> {
    type_: Oid,
    columns: RefCell<Option<Rc<Columns<P>>>>,
}

impl<P: Part> RecordForm<P> {
    pub(super) fn new(type_: Oid) -> RecordForm<P> {
        RecordForm { type_, columns: RefCell::default() }
    }

    /// # Safety
    /// `datum` must be of this row type.
    pub(super) unsafe fn put(&self, datum: pg_sys::Datum) -> Vec<u8> {
        // SAFETY: syscache look-ups.
        let relation = unsafe { valid(pg_sys::get_typ_typrelid(self.type_)) };
        // A type that is made by CREATE TYPE is held still by a lock that all writers have (`relation::announce_writes`).
        let of_table = relation.filter(|&relation| is_table(relation));
        if let Some(relation) = of_table {
            naming::hold_row_type(relation);
        }
        let mut out = Vec::new();
        // SAFETY: by contract; a row as a value begins with a tuple header that holds its length.
        unsafe {
            let header = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::HeapTupleHeaderData>();
            let mut tuple = pg_sys::HeapTupleData {
                t_len: header.cast::<u32>().read_unaligned() >> 2,
                t_data: header,
                ..Default::default()
            };
            let descriptor = Descriptor::of(self.type_);
            let columns = self.columns(&descriptor);
            let count = columns.parts.len();
            let (mut values, mut nulls) = (vec![pg_sys::Datum::null(); count], vec![true; count]);
            pg_sys::heap_deform_tuple(&mut tuple, descriptor.0, values.as_mut_ptr(), nulls.as_mut_ptr());
            out.put_varint(columns.parts.iter().flatten().count() as u64);
            for (at, part) in columns.parts.iter().enumerate() {
                match part {
                    Some(_) if nulls[at] => out.put_datum(Wire::Null),
                    Some(part) => part.put(values[at], &mut out),
                    None => {}
                }
            }
        }
        out
    }

    /// Makes a row in the current memory context.
    pub(super) fn take(&self, bytes: &[u8]) -> Result<pg_sys::Datum, DatumError> {
        let mut reader = Reader::new(bytes);
        let descriptor = Descriptor::of(self.type_);
        let columns = self.columns(&descriptor);
        let (found, expected) = (reader.varint()?, columns.parts.iter().flatten().count() as u64);
        if found != expected {
            return Err(DatumError::Columns { found, expected });
        }
        let (mut values, mut nulls) = take_parts(&mut reader, columns.parts.iter().map(Option::as_ref))?;
        // SAFETY: a value for each column of the descriptor; the copy holds nothing out of line.
        unsafe {
            let tuple = pg_sys::heap_form_tuple(descriptor.0, values.as_mut_ptr(), nulls.as_mut_ptr());
            Ok(pg_sys::heap_copy_tuple_as_datum(tuple, descriptor.0))
        }
    }

    fn columns(&self, descriptor: &Descriptor) -> Rc<Columns<P>> {
        // SAFETY: gives a number that changes with the type's definition.
        let version = unsafe { pg_sys::assign_record_type_identifier(self.type_, -1) };
        if let Some(columns) = self.columns.borrow().as_ref().filter(|columns| columns.version == version) {
            return Rc::clone(columns);
        }
        let context = Context::lasting(c"postgres_r row type");
        let parts = descriptor.attributes().iter().map(|attribute| {
            (!attribute.attisdropped)
                .then(|| P::of(attribute.atttypid, attribute.atttypmod, attribute.attlen, attribute.attbyval, &context))
        });
        let columns = Rc::new(Columns { version, parts: parts.collect(), _context: context });
        self.columns.replace(Some(Rc::clone(&columns)));
        columns
    }
}

fn is_table(relation: Oid) -> bool {
    // SAFETY: a syscache look-up.
    unsafe { pg_sys::get_rel_relkind(relation) as u8 != pg_sys::RELKIND_COMPOSITE_TYPE }
}

/// A row type's descriptor, held until dropped.
struct Descriptor(pg_sys::TupleDesc);

impl Descriptor {
    fn of(type_: Oid) -> Descriptor {
        // SAFETY: the type is composite; counts a reference, which an ERROR gives back by the resource owner.
        Descriptor(unsafe { pg_sys::lookup_rowtype_tupdesc(type_, -1) })
    }

    fn attributes(&self) -> &[pg_sys::FormData_pg_attribute] {
        // SAFETY: a descriptor holds `natts` attributes.
        unsafe { super::majors::relation::attributes(self.0) }
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: counted in `of`; those that are not counted are below zero.
        if !std::thread::panicking() && unsafe { (*self.0).tdrefcount } >= 0 {
            // SAFETY: as above.
            unsafe { pg_sys::DecrTupleDescRefCount(self.0) }
        }
    }
}

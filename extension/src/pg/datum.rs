//! How one column's value travels: PostgreSQL's own bytes where they mean the same on every node, else a form of ours, else the type's text.
//!
//! *Physical* are built-in types whose in-memory form holds no OID that differs between nodes, and arrays of and domains over
//! them. A varlena travels without its header, flat: detoasted, decompressed. A value that *names* an object of the database travels as
//! that object's identity ([`super::naming`]). What is *made of* other values, an array, a row or a range, travels as those, each in its own form
//! ([`super::nested`], [`super::ranges`]). *Text* is everything else: enums, types of extensions and users (docs/adr/0003).

use gcs_writeset::body::{Datum as Wire, PutItem};
use pgrx::pg_sys;

use super::encoding;
use super::memory::Context;
use super::names::{owned, valid};
use super::naming;
pub use super::nested::DatumError;
use super::nested::{AclItemForm, ArrayForm, Part, RecordForm};
use super::object::Class;
use super::ranges::RangeForm;
use super::setting::Scope;
use super::types::{Kind, is_physical, type_kind};
use super::varlena::{put_in_slices, with_varlena};

/// Longest value that a 4-byte varlena header can hold.
const VARLENA_BYTES_MAX: usize = 0x3fff_ffff - 4;

pub struct Codec {
    typid: pg_sys::Oid,
    pub(super) typlen: i16,
    pub(super) byval: bool,
    form: Form,
}

enum Form {
    Physical,
    Name(Class),
    AclItem(AclItemForm),
    Array(Box<ArrayForm<Codec>>),
    Record(Box<RecordForm<Codec>>),
    Range(Box<RangeForm<Codec>>),
    Text(Box<TextForm>),
}

struct TextForm {
    output: pg_sys::FmgrInfo,
    input: pg_sys::FmgrInfo,
    io_param: pg_sys::Oid,
    typmod: i32,
    /// Whether settings such as DateStyle can show in the text.
    depends_on_settings: bool,
}

impl Codec {
    /// For a column of type `typid`; function look-ups live in `context`.
    pub(super) fn new(typid: pg_sys::Oid, typmod: i32, typlen: i16, byval: bool, context: &Context) -> Codec {
        if is_physical(typid) {
            return Codec { typid, typlen, byval, form: Form::Physical };
        }
        // SAFETY: syscache look-ups.
        let (base, element) = unsafe {
            let base = pg_sys::getBaseType(typid);
            (base, valid(pg_sys::get_element_type(base)))
        };
        let form = if let Some(class) = Class::named_by(base) {
            Form::Name(class)
        } else if base == pg_sys::ACLITEMOID {
            Form::AclItem(AclItemForm::new(typlen))
        } else if let Some(element) = element {
            Form::Array(Box::new(ArrayForm::new(element, context)))
        } else if type_kind(base) == Kind::Composite {
            Form::Record(Box::new(RecordForm::new(base)))
        } else if type_kind(base) == Kind::Range {
            Form::Range(Box::new(RangeForm::new(base, context)))
        } else {
            Form::Text(Codec::text_form(typid, typmod, context))
        };
        Codec { typid, typlen, byval, form }
    }

    fn text_form(typid: pg_sys::Oid, typmod: i32, context: &Context) -> Box<TextForm> {
        let mut form = Box::new(TextForm {
            output: pg_sys::FmgrInfo::default(),
            input: pg_sys::FmgrInfo::default(),
            io_param: pg_sys::InvalidOid,
            typmod,
            depends_on_settings: type_kind(typid) != Kind::Enum,
        });
        let (mut output, mut input, mut varlena) = (pg_sys::InvalidOid, pg_sys::InvalidOid, false);
        // SAFETY: plain catalog look-ups into locals; the FmgrInfo lives in the box, its memory in `context`.
        unsafe {
            // A domain's checks are not run again: rows older than a check may break it.
            let base = pg_sys::getBaseTypeAndTypmod(typid, &mut form.typmod);
            pg_sys::getTypeOutputInfo(base, &mut output, &mut varlena);
            pg_sys::getTypeInputInfo(base, &mut input, &mut form.io_param);
            pg_sys::fmgr_info_cxt(output, &mut form.output, context.raw());
            pg_sys::fmgr_info_cxt(input, &mut form.input, context.raw());
        }
        form
    }

    pub fn is_physical(&self) -> bool {
        matches!(self.form, Form::Physical)
    }

    /// Whether [`TransmissionModes`] must be in force around `put` and `take`.
    pub fn depends_on_settings(&self) -> bool {
        match &self.form {
            Form::Physical | Form::Name(_) | Form::AclItem(_) => false,
            Form::Array(array) => array.element().depends_on_settings(),
            Form::Range(range) => range.bound().depends_on_settings(),
            // What it is made of may change.
            Form::Record(_) => true,
            Form::Text(text) => text.depends_on_settings,
        }
    }

    /// Whether values may name objects, or depend on what a row type is made of: a window of [`naming`] must be open around `put` and `take`.
    pub fn names_objects(&self) -> bool {
        match &self.form {
            Form::Physical | Form::Text(_) => false,
            Form::Array(array) => array.element().names_objects(),
            Form::Range(range) => range.bound().names_objects(),
            Form::Name(_) | Form::AclItem(_) | Form::Record(_) => true,
        }
    }

    /// Appends a value of this column, which must not be null.
    pub(super) fn put(&self, datum: pg_sys::Datum, out: &mut Vec<u8>) {
        match &self.form {
            Form::Physical if self.byval => {
                let bytes = (datum.value() as u64).to_le_bytes();
                out.put_datum(Wire::Physical(&bytes[..self.typlen as usize]));
            }
            // SAFETY: `datum` is a value of this column's type, of typlen bytes.
            Form::Physical if self.typlen > 0 => out.put_datum(Wire::Physical(unsafe {
                std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), self.typlen as usize)
            })),
            // SAFETY: typlen -1 says varlena.
            Form::Physical if unsafe { put_in_slices(datum, out) } => {}
            // SAFETY: as before.
            Form::Physical => unsafe { with_varlena(datum, |bytes| out.put_datum(Wire::Physical(bytes))) },
            Form::Name(class) => {
                out.put_datum(Wire::Text(&naming::bytes(*class, pg_sys::Oid::from(datum.value() as u32))));
            }
            // SAFETY: the type is aclitem.
            Form::AclItem(item) => out.put_datum(Wire::Nested(&unsafe { item.put(datum) })),
            // SAFETY: the type is an array.
            Form::Array(array) => out.put_datum(Wire::Nested(&unsafe { array.put(datum) })),
            // SAFETY: the type is a range.
            Form::Range(range) => out.put_datum(Wire::Nested(&unsafe { range.put(datum, range.bound().names_objects()) })),
            // SAFETY: the type is composite.
            Form::Record(record) => out.put_datum(Wire::Nested(&unsafe { record.put(datum) })),
            // SAFETY: an output function of the type, given a value of the type; it returns a palloc'd C string.
            Form::Text(text) => unsafe {
                let output = std::ptr::from_ref(&text.output).cast_mut();
                let string = pg_sys::OutputFunctionCall(output, datum);
                out.put_datum(Wire::Text(std::ffi::CStr::from_ptr(string).to_bytes()));
                pg_sys::pfree(string.cast());
            },
        }
    }

    /// The value's text as a person would read it; none where the wire carries no value of the column.
    pub fn text(&self, wire: Wire<'_>) -> Option<String> {
        match (wire, &self.form) {
            (Wire::Text(bytes), Form::Name(_)) => return Some(naming::text(bytes)),
            (Wire::Text(bytes), _) => {
                return Some(encoding::exactly(bytes).unwrap_or_else(|| String::from_utf8_lossy(bytes).into_owned()));
            }
            _ => {}
        }
        let datum = match self.take(wire) {
            Ok(Some(datum)) => datum,
            Ok(None) => return Some("null".to_owned()),
            Err(_) => return None,
        };
        self.text_of(datum)
    }

    pub(super) fn text_of(&self, datum: pg_sys::Datum) -> Option<String> {
        let (mut output, mut varlena) = (pg_sys::InvalidOid, false);
        // SAFETY: the output function of the type, given a value of the type.
        unsafe {
            pg_sys::getTypeOutputInfo(self.typid, &mut output, &mut varlena);
            owned(pg_sys::OidOutputFunctionCall(output, datum))
        }
    }

    /// Makes a datum in the current memory context. Null where the wire says so.
    pub(super) fn take(&self, wire: Wire<'_>) -> Result<Option<pg_sys::Datum>, DatumError> {
        match (wire, &self.form) {
            (Wire::Null, _) => Ok(None),
            (Wire::Physical(bytes), Form::Physical) => self.take_physical(bytes).map(Some),
            (Wire::Text(bytes), Form::Text(text)) => take_text(text, bytes).map(Some),
            (Wire::Text(bytes), Form::Name(class)) => Ok(Some(pg_sys::Datum::from(naming::oid(*class, bytes)?))),
            (Wire::Nested(bytes), Form::AclItem(item)) => item.take(bytes).map(Some),
            (Wire::Nested(bytes), Form::Array(array)) => array.take(bytes).map(Some),
            (Wire::Nested(bytes), Form::Range(range)) => range.take(bytes).map(Some),
            (Wire::Nested(bytes), Form::Record(record)) => record.take(bytes).map(Some),
            (Wire::Physical(_) | Wire::Text(_) | Wire::Nested(_), _) => Err(DatumError::Form),
            (Wire::Unchanged | Wire::Absent, _) => Err(DatumError::Missing),
        }
    }

    fn take_physical(&self, bytes: &[u8]) -> Result<pg_sys::Datum, DatumError> {
        if self.typlen > 0 && bytes.len() != self.typlen as usize {
            return Err(DatumError::Length { found: bytes.len(), expected: self.typlen as usize });
        }
        if self.byval {
            let mut word = [0u8; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            // PostgreSQL keeps narrow values sign-extended (DatumGet* only looks at the low bytes, but comparisons of whole
            // datums, as in datumIsEqual, look at all).
            let value = match bytes.len() {
                1 => i64::from(i8::from_le_bytes([word[0]])),
                2 => i64::from(i16::from_le_bytes([word[0], word[1]])),
                4 => i64::from(i32::from_le_bytes([word[0], word[1], word[2], word[3]])),
                _ => i64::from_le_bytes(word),
            };
            return Ok(pg_sys::Datum::from(value));
        }
        if bytes.len() > VARLENA_BYTES_MAX {
            return Err(DatumError::Length { found: bytes.len(), expected: VARLENA_BYTES_MAX });
        }
        let header = if self.typlen == -1 { 4 } else { 0 };
        // SAFETY: palloc gives at least header + len bytes, aligned; all of them are written.
        unsafe {
            let start = pg_sys::palloc(header + bytes.len()).cast::<u8>();
            if header == 4 {
                start.cast::<u32>().write_unaligned(((bytes.len() + 4) as u32) << 2);
            }
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.add(header), bytes.len());
            Ok(pg_sys::Datum::from(start))
        }
    }
}

impl Part for Codec {
    fn of(typid: pg_sys::Oid, typmod: i32, typlen: i16, byval: bool, context: &Context) -> Codec {
        Codec::new(typid, typmod, typlen, byval, context)
    }
    fn put(&self, datum: pg_sys::Datum, out: &mut Vec<u8>) {
        Codec::put(self, datum, out);
    }
    fn take(&self, wire: Wire<'_>) -> Result<Option<pg_sys::Datum>, DatumError> {
        Codec::take(self, wire)
    }
}

fn take_text(text: &TextForm, bytes: &[u8]) -> Result<pg_sys::Datum, DatumError> {
    let string = std::ffi::CString::new(bytes).map_err(|_| DatumError::ZeroByte)?;
    // SAFETY: the input function of the type; it copies what it needs from the string.
    Ok(unsafe {
        let input = std::ptr::from_ref(&text.input).cast_mut();
        pg_sys::InputFunctionCall(input, string.as_ptr().cast_mut(), text.io_param, text.typmod)
    })
}

/// Settings under which a value has one text, the same everywhere and read alike: dates in ISO order, times in UTC, floats exact, names
/// qualified. A row without a key is found by that text, and its certification key is a hash of it.
pub struct TransmissionModes(#[expect(dead_code, reason = "held for its Drop")] Scope);

impl TransmissionModes {
    pub fn enter() -> TransmissionModes {
        let mut scope = Scope::enter();
        for (name, value) in [
            ("datestyle", "ISO, YMD"),
            ("intervalstyle", "postgres"),
            ("extra_float_digits", "3"),
            ("search_path", "pg_catalog"),
            ("bytea_output", "hex"),
            ("TimeZone", "UTC"),
            ("lc_monetary", "C"),
            ("quote_all_identifiers", "off"),
            ("array_nulls", "on"),
            ("xmloption", "content"),
        ] {
            scope.set(name, value);
        }
        TransmissionModes(scope)
    }
}

//! How one column's value travels: PostgreSQL's own bytes where they mean the same on every node, else the type's text.
//!
//! *Physical* are built-in types whose in-memory form holds no OID that differs between nodes, and arrays of and domains over
//! them. A varlena travels without its header, flat: detoasted, decompressed. *Text* is everything else: enums, composites,
//! reg* types, types of extensions and users (docs/adr/0003).

use gcs_writeset::body::{Datum as Wire, PutItem};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

use super::memory::Context;
use super::relation::{self, Persistence};
use super::setting::Scope;

/// The first OID that initdb or a user may assign; below it every node has the same.
const FIRST_UNPINNED_OID: u32 = 10_000;

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
    Text(Box<TextForm>),
}

struct TextForm {
    output: pg_sys::FmgrInfo,
    input: pg_sys::FmgrInfo,
    io_param: pg_sys::Oid,
    typmod: i32,
    /// Whether settings such as DateStyle can show in the text.
    depends_on_settings: bool,
    /// Whether values name relations or types, which may be temporary.
    names_objects: bool,
}

/// Why a value of the wire can't become one of this column.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DatumError {
    #[error("has {found} bytes where its type has {expected}")]
    Length { found: usize, expected: usize },
    #[error("has a value in the wrong form for its type")]
    Form,
    #[error("has a text with a zero byte")]
    ZeroByte,
    #[error("has no value")]
    Missing,
}

impl Codec {
    /// For a column of type `typid`; function look-ups live in `context`.
    pub(super) fn new(typid: pg_sys::Oid, typmod: i32, typlen: i16, byval: bool, context: &Context) -> Codec {
        if is_physical(typid) {
            return Codec { typid, typlen, byval, form: Form::Physical };
        }
        let mut form = Box::new(TextForm {
            output: pg_sys::FmgrInfo::default(),
            input: pg_sys::FmgrInfo::default(),
            io_param: pg_sys::InvalidOid,
            typmod,
            depends_on_settings: type_kind(typid) != Kind::Enum,
            names_objects: NAME_RELATIONS.contains(&base_and_element(typid).1),
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
        Codec { typid, typlen, byval, form: Form::Text(form) }
    }

    pub fn is_physical(&self) -> bool {
        matches!(self.form, Form::Physical)
    }

    /// Whether [`TransmissionModes`] must be in force around `put` and `take`.
    pub fn depends_on_settings(&self) -> bool {
        matches!(&self.form, Form::Text(text) if text.depends_on_settings)
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
            // SAFETY: an output function of the type, given a value of the type; it returns a palloc'd C string.
            Form::Text(text) => unsafe {
                if text.names_objects {
                    refuse_temporary(self.typid, datum);
                }
                let output = std::ptr::from_ref(&text.output).cast_mut();
                let string = pg_sys::OutputFunctionCall(output, datum);
                out.put_datum(Wire::Text(std::ffi::CStr::from_ptr(string).to_bytes()));
                pg_sys::pfree(string.cast());
            },
        }
    }

    /// A value as people read it; none where the wire has none.
    pub fn text(&self, wire: Wire<'_>) -> Option<String> {
        if let Wire::Text(bytes) = wire {
            return Some(String::from_utf8_lossy(bytes).into_owned());
        }
        let datum = match self.take(wire) {
            Ok(Some(datum)) => datum,
            Ok(None) => return Some("null".to_owned()),
            Err(_) => return None,
        };
        let (mut output, mut varlena) = (pg_sys::InvalidOid, false);
        // SAFETY: the output function of the type, given a value of the type.
        unsafe {
            pg_sys::getTypeOutputInfo(self.typid, &mut output, &mut varlena);
            relation::owned(pg_sys::OidOutputFunctionCall(output, datum))
        }
    }

    /// Makes a datum in the current memory context. Null where the wire says so.
    pub(super) fn take(&self, wire: Wire<'_>) -> Result<Option<pg_sys::Datum>, DatumError> {
        match (wire, &self.form) {
            (Wire::Null, _) => Ok(None),
            (Wire::Physical(bytes), Form::Physical) => self.take_physical(bytes).map(Some),
            (Wire::Text(bytes), Form::Text(text)) => take_text(text, bytes).map(Some),
            (Wire::Physical(_) | Wire::Text(_), _) => Err(DatumError::Form),
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

fn take_text(text: &TextForm, bytes: &[u8]) -> Result<pg_sys::Datum, DatumError> {
    let string = std::ffi::CString::new(bytes).map_err(|_| DatumError::ZeroByte)?;
    // SAFETY: the input function of the type; it copies what it needs from the string.
    Ok(unsafe {
        let input = std::ptr::from_ref(&text.input).cast_mut();
        pg_sys::InputFunctionCall(input, string.as_ptr().cast_mut(), text.io_param, text.typmod)
    })
}

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
unsafe fn put_in_slices(datum: pg_sys::Datum, out: &mut Vec<u8>) -> bool {
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Base,
    Composite,
    Enum,
    Range,
    Pseudo,
}

/// What a type is, domains looked through.
pub(super) fn type_kind(typid: pg_sys::Oid) -> Kind {
    // SAFETY: syscache look-ups.
    let kind = unsafe { pg_sys::get_typtype(pg_sys::getBaseType(typid)) } as u8;
    match kind {
        b'c' => Kind::Composite,
        b'e' => Kind::Enum,
        b'r' | b'm' => Kind::Range,
        b'p' => Kind::Pseudo,
        _ => Kind::Base,
    }
}

/// Whether the in-memory bytes of a type mean the same on every node.
pub(super) fn is_physical(typid: pg_sys::Oid) -> bool {
    let (base, looked_at) = base_and_element(typid);
    base.to_u32() < FIRST_UNPINNED_OID
        && looked_at.to_u32() < FIRST_UNPINNED_OID
        && matches!(type_kind(looked_at), Kind::Base | Kind::Range)
        && !holds_oids(typid)
}

/// Whether a type's values, or the elements of its arrays, stand for objects of this node by their OIDs.
fn holds_oids(typid: pg_sys::Oid) -> bool {
    [
        pg_sys::REGPROCOID,
        pg_sys::REGPROCEDUREOID,
        pg_sys::REGOPEROID,
        pg_sys::REGOPERATOROID,
        pg_sys::REGCLASSOID,
        pg_sys::REGTYPEOID,
        pg_sys::REGCONFIGOID,
        pg_sys::REGDICTIONARYOID,
        pg_sys::REGNAMESPACEOID,
        pg_sys::REGROLEOID,
        pg_sys::REGCOLLATIONOID,
        pg_sys::ACLITEMOID,
    ]
    .contains(&base_and_element(typid).1)
}

/// The type without domains, and what it is an array of, else itself.
fn base_and_element(typid: pg_sys::Oid) -> (pg_sys::Oid, pg_sys::Oid) {
    // SAFETY: syscache look-ups.
    let (base, element) = unsafe {
        let base = pg_sys::getBaseType(typid);
        (base, pg_sys::get_element_type(base))
    };
    (base, if element == pg_sys::InvalidOid { base } else { element })
}

const NAME_RELATIONS: [pg_sys::Oid; 2] = [pg_sys::REGCLASSOID, pg_sys::REGTYPEOID];

/// A temporary table, or its row type, has no namesake on other nodes.
///
/// # Safety
/// `datum` must be a value of a type that holds relations or types, or an array or a domain of it.
unsafe fn refuse_temporary(typid: pg_sys::Oid, datum: pg_sys::Datum) {
    let (base, element) = base_and_element(typid);
    // SAFETY: by contract; elements are OIDs by value.
    let is_temporary = unsafe {
        let values = if base == element { vec![datum] } else { elements(datum, element) };
        values.into_iter().any(|value| {
            let oid = pg_sys::Oid::from(value.value() as u32);
            let relation = if element == pg_sys::REGCLASSOID { oid } else { pg_sys::get_typ_typrelid(oid) };
            relation::entry(relation).is_some_and(|entry| entry.persistence == Persistence::Temporary)
        })
    };
    if is_temporary {
        let message = "storing a reference to a temporary object is not supported in a replicated database";
        ErrorReport::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message, "postgres_r")
            .set_hint("It exists in this session only; store its name as text.")
            .report(PgLogLevel::ERROR);
    }
}

/// # Safety
/// `array` must be an array of a type of the size of an OID.
unsafe fn elements(array: pg_sys::Datum, element: pg_sys::Oid) -> Vec<pg_sys::Datum> {
    // SAFETY: by contract; both arrays are palloc'd, nulls come as zero, which names nothing.
    unsafe {
        let flat = pg_sys::pg_detoast_datum(array.cast_mut_ptr());
        let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        pg_sys::deconstruct_array(flat.cast(), element, 4, true, b'i' as _, &mut values, &mut nulls, &mut count);
        std::slice::from_raw_parts(values, usize::try_from(count).unwrap_or(0)).to_vec()
    }
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

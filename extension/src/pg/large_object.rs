//! Large objects: being told of what a session does to them, and doing to them what another node has done.
//!
//! The functions that write (`lowrite`, `lo_put`, `lo_truncate` ...) are replaced. Each calls PostgreSQL's own, which does the work and asks for
//! rights, and tells the listener what was done. They are called so by SQL and by the protocol's function calls, with which libpq's `lo_...` work. Functions
//! in C that write by themselves (`inv_write`) are not seen. That a large object is made or dropped is not seen here but by the hook on access to
//! objects ([`super::access`]): so it is also seen where such a function does it, as contrib/lo's trigger does.
//!
//! Whether anybody is to be told is asked before and after: a database may come to be replicated while a function waits for a lock.
//!
//! What a descriptor stands for PostgreSQL tells nobody, so it is noted when a descriptor is opened. An entry that is out of date does no harm:
//! PostgreSQL has refused the descriptor before anybody looks it up.
//!
//! New large objects get numbers that no other node gives meanwhile: see [`unused`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::OnceLock;

use pgrx::{direct_function_call_as_datum, pg_sys};

use super::builtin;
use super::majors::process::refuse_if_read_only;
use super::memory::Context;
use super::names::Oid;
use super::{reading, varlena};

/// The catalog that PostgreSQL names large objects by: pg_largeobject, of catalog/pg_largeobject.h, which pgrx does not bind.
pub const CATALOG: u32 = 2613;

/// That, and pg_largeobject_metadata: whoever changes large objects locks either.
pub const CATALOGS: [Oid; 2] = [Oid::from_u32(CATALOG), Oid::from_u32(2995)];

/// Of libpq/libpq-fs.h.
const FOR_WRITING: i32 = 0x20000;

/// How much of an imported file is read at a time.
const READ_BYTES: i32 = 1 << 20;

/// Numbers are below this: what clients keep them in may be a signed integer of 32 bits.
const NUMBERS: u32 = 1 << 31;

#[derive(Clone, Copy)]
pub struct Listener {
    /// Whether what this process does is to be told at all.
    pub concerns: fn() -> bool,
    /// The number for a new large object.
    pub number: fn() -> Oid,
    /// One is about to be opened for writing. May raise an error.
    pub opens: fn(),
    /// One was, and is there.
    pub opened: fn(Oid),
    /// Something is about to be written, or made; through a descriptor of this large object, or by its number. May raise an error.
    pub before: fn(Option<Oid>),
    /// These bytes were put at this offset.
    pub wrote: fn(Oid, u64, &[u8]),
    pub truncated: fn(Oid, u64),
}

type Function = unsafe extern "C-unwind" fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum;

static LISTENER: OnceLock<Listener> = OnceLock::new();

thread_local! {
    /// What each descriptor was last opened for.
    static DESCRIPTORS: RefCell<HashMap<i32, u32>> = RefCell::default();
}

unsafe extern "C-unwind" {
    /// Of catalog/pg_largeobject.h, which pgrx does not bind.
    fn LargeObjectExists(number: Oid) -> bool;
}

/// Called while libraries are preloaded. False if this server can't be made to tell.
pub fn on_change(listener: Listener) -> bool {
    let import_as = pg_sys::F_LO_IMPORT_TEXT_OID.to_u32();
    let ours: [(u32, Function); 10] = [
        (pg_sys::F_LO_CREAT, lo_creat),
        (pg_sys::F_LO_CREATE, lo_create),
        (pg_sys::F_LO_FROM_BYTEA, lo_from_bytea),
        (pg_sys::F_LO_IMPORT_TEXT, lo_import),
        (import_as, lo_import_as),
        (pg_sys::F_LO_OPEN, lo_open),
        (pg_sys::F_LOWRITE, lowrite),
        (pg_sys::F_LO_PUT, lo_put),
        (pg_sys::F_LO_TRUNCATE, lo_truncate),
        (pg_sys::F_LO_TRUNCATE64, lo_truncate64),
    ];
    ours.into_iter().all(|(number, function)| builtin::replace(number, function).is_some()) && LISTENER.set(listener).is_ok()
}

fn concerned() -> Option<&'static Listener> {
    LISTENER.get().filter(|listener| (listener.concerns)())
}

/// Something is about to be written, or made.
fn before(number: Option<Oid>) {
    concerned().into_iter().for_each(|listener| (listener.before)(number));
}

/// # Safety
/// `bytes` must be a bytea.
unsafe fn wrote(number: Oid, offset: u64, bytes: pg_sys::Datum) {
    if let Some(listener) = concerned() {
        // SAFETY: by contract.
        unsafe { varlena::with_varlena(bytes, |bytes| (listener.wrote)(number, offset, bytes)) }
    }
}

/// # Safety
/// `call` must be a call by the function manager with that many arguments, none of them null: all functions here are strict.
unsafe fn arguments<const N: usize>(call: pg_sys::FunctionCallInfo) -> [pg_sys::Datum; N] {
    // SAFETY: by contract.
    let given = unsafe { (*call).args.as_slice(N) };
    std::array::from_fn(|index| given[index].value)
}

fn oid_of(datum: pg_sys::Datum) -> Oid {
    Oid::from(datum.value() as u32)
}

/// The number that a caller asks for, or a new one; 0 lets PostgreSQL choose.
fn number(asked: pg_sys::Datum) -> pg_sys::Datum {
    match concerned() {
        Some(listener) if oid_of(asked) == pg_sys::InvalidOid => pg_sys::Datum::from((listener.number)()),
        _ => asked,
    }
}

/// What a function that is never null has returned.
///
/// # Safety
/// The function must take these arguments.
unsafe fn call(
    function: unsafe fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum,
    arguments: &[pg_sys::Datum],
) -> pg_sys::Datum {
    let arguments: Vec<_> = arguments.iter().copied().map(Some).collect();
    // SAFETY: by contract.
    unsafe { direct_function_call_as_datum(function, &arguments) }.unwrap_or(pg_sys::Datum::null())
}

/// # Safety
/// Of this and the functions below: called by PostgreSQL's function manager, with the arguments of the function that it stands for.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn lo_creat(_info: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    refuse_if_read_only(c"lo_creat()");
    before(None);
    // SAFETY: takes an oid. The argument of lo_creat, a mode, has no meaning any more.
    unsafe { call(pg_sys::be_lo_create, &[number(pg_sys::InvalidOid.into())]) }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn lo_create(info: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    before(None);
    // SAFETY: by contract.
    unsafe {
        let [asked] = arguments(info);
        call(pg_sys::be_lo_create, &[number(asked)])
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn lo_from_bytea(info: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    before(None);
    // SAFETY: by contract.
    unsafe {
        let [asked, bytes] = arguments(info);
        let made = call(pg_sys::be_lo_from_bytea, &[number(asked), bytes]);
        wrote(oid_of(made), 0, bytes);
        made
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn lo_import(info: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: by contract.
    unsafe {
        let [file] = arguments(info);
        import(file, pg_sys::InvalidOid.into())
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn lo_import_as(info: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: by contract.
    unsafe {
        let [file, asked] = arguments(info);
        import(file, asked)
    }
}

/// A file of this server becomes a large object. What was in the file is what is in the large object now.
///
/// # Safety
/// `file` must be a text, `asked` an oid.
unsafe fn import(file: pg_sys::Datum, asked: pg_sys::Datum) -> pg_sys::Datum {
    before(None);
    // SAFETY: by contract. A descriptor for writing reads what is there now, and not what the snapshot shows.
    unsafe {
        let made = call(pg_sys::be_lo_import_with_oid, &[file, number(asked)]);
        if concerned().is_none() {
            return made;
        }
        let descriptor = call(pg_sys::be_lo_open, &[made, FOR_WRITING.into()]);
        let mut piece = Context::in_transaction(c"postgres_r import");
        let mut offset = 0;
        loop {
            let read = piece.with(|| {
                let bytes = call(pg_sys::be_loread, &[descriptor, READ_BYTES.into()]);
                wrote(oid_of(made), offset, bytes);
                varlena::with_varlena(bytes, |bytes| bytes.len() as u64)
            });
            piece.reset();
            offset += read;
            if read == 0 {
                break;
            }
        }
        call(pg_sys::be_lo_close, &[descriptor]);
        made
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn lo_open(info: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: by contract.
    unsafe {
        reading::function_is_called();
        let [asked, mode] = arguments(info);
        let is_for_writing = mode.value() as i32 & FOR_WRITING != 0;
        concerned().filter(|_| is_for_writing).into_iter().for_each(|listener| (listener.opens)());
        let descriptor = pg_sys::be_lo_open(info);
        let number = oid_of(asked);
        DESCRIPTORS.with_borrow_mut(|known| known.insert(descriptor.value() as i32, number.to_u32()));
        concerned().filter(|_| is_for_writing).into_iter().for_each(|listener| (listener.opened)(number));
        descriptor
    }
}

fn of_descriptor(descriptor: pg_sys::Datum) -> Option<Oid> {
    DESCRIPTORS.with_borrow(|known| known.get(&(descriptor.value() as i32)).copied()).map(Oid::from)
}

/// The same, of one that is open: all come by [`lo_open`].
fn of_open(descriptor: pg_sys::Datum) -> Oid {
    of_descriptor(descriptor).unwrap_or_else(|| pgrx::error!("large-object descriptor is not known to postgres_r"))
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn lowrite(info: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: by contract.
    unsafe {
        let [descriptor, bytes] = arguments(info);
        before(of_descriptor(descriptor));
        let written = pg_sys::be_lowrite(info);
        let end = call(pg_sys::be_lo_tell64, &[descriptor]).value() as u64;
        wrote(of_open(descriptor), end - written.value() as i32 as u64, bytes);
        written
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn lo_put(info: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: by contract.
    unsafe {
        let [number, offset, bytes] = arguments(info);
        let number = oid_of(number);
        before(Some(number));
        let nothing = pg_sys::be_lo_put(info);
        concerned().into_iter().for_each(|listener| (listener.opened)(number));
        wrote(number, offset.value() as u64, bytes);
        nothing
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn lo_truncate(info: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: by contract.
    unsafe {
        let [_, length] = arguments(info);
        truncate_through(info, pg_sys::be_lo_truncate, length.value() as i32 as u64)
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn lo_truncate64(info: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: by contract.
    unsafe {
        let [_, length] = arguments(info);
        truncate_through(info, pg_sys::be_lo_truncate64, length.value() as u64)
    }
}

/// # Safety
/// `info` must be a call of this function, PostgreSQL's own. It refuses a length below zero.
unsafe fn truncate_through(
    info: pg_sys::FunctionCallInfo,
    own: unsafe fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum,
    length: u64,
) -> pg_sys::Datum {
    // SAFETY: by contract.
    unsafe {
        let [descriptor, _] = arguments(info);
        before(of_descriptor(descriptor));
        let result = own(info);
        concerned().into_iter().for_each(|listener| (listener.truncated)(of_open(descriptor), length));
        result
    }
}

/// A number that no large object has here, and that no other of `places` nodes gives. Each node has its own remainder, and counts on as this server's
/// OIDs do; what others have made meanwhile is passed over.
pub fn unused(place: u32, places: u32) -> Oid {
    loop {
        // SAFETY: draws from the server's counter.
        let count = unsafe { pg_sys::GetNewObjectId() }.to_u32();
        let number = count % (NUMBERS / places) * places + place % places;
        let number = Oid::from(number);
        if number.to_u32() >= pg_sys::FirstNormalObjectId && !exists(number) {
            return number;
        }
    }
}

/// Whether there is one, as of now.
pub fn exists(number: Oid) -> bool {
    // SAFETY: a scan of a catalog by its index; an ERROR becomes a panic here.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| LargeObjectExists(number)) }
}

/// Makes it, empty. It belongs to the current role. Raises an error if there is one.
pub fn create(number: Oid) {
    // SAFETY: takes an oid.
    unsafe { call(pg_sys::be_lo_create, &[number.into()]) };
}

/// Puts bytes into it; by what is there now, whatever a snapshot shows.
pub fn write(number: Oid, offset: u64, bytes: &[u8]) {
    // SAFETY: takes an oid, an int8 and a bytea, which is made here: a varlena like a text.
    unsafe {
        let bytes = pg_sys::cstring_to_text_with_len(bytes.as_ptr().cast(), bytes.len() as i32);
        call(pg_sys::be_lo_put, &[number.into(), (offset as i64).into(), pg_sys::Datum::from(bytes)]);
    }
}

pub fn truncate(number: Oid, length: u64) {
    // SAFETY: an oid and a mode; then the descriptor, and an int8.
    unsafe {
        let descriptor = call(pg_sys::be_lo_open, &[number.into(), FOR_WRITING.into()]);
        call(pg_sys::be_lo_truncate64, &[descriptor, (length as i64).into()]);
        call(pg_sys::be_lo_close, &[descriptor]);
    }
}

pub fn unlink(number: Oid) {
    // SAFETY: takes an oid.
    unsafe { call(pg_sys::be_lo_unlink, &[number.into()]) };
}

//! How a value that names an object travels, and how it is read where it is stored.
//!
//! ```text
//! value := 0                             names nothing, and says so: OID 0
//!        | 1, identity                   of the object
//!        | 2, number u32                 that names nothing where the row comes from, and never did
//!        | 3, time i64, count u32, identity    of an object that was dropped: by the transaction that started then, as the count-th of it
//! ```
//!
//! Names are read while a *window* is open: a row's while it is captured, a writeset's while it is applied. What was read is remembered as
//! long as it cannot change: for one command where rows are captured, until the next statement where they are applied. A window also
//! collects what the values depend on, for certification keys.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use gcs_writeset::key::bytes_hash;
use gcs_writeset::wire::{Put, Reader, WireError};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

use super::names::Oid;
use super::object::{self, Class, Identity, NoIdentity, Reading};
use super::{clock, number};

const NOTHING: u8 = 0;
const OBJECT: u8 = 1;
const NUMBER: u8 = 2;
const DROPPED: u8 = 3;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    /// Names are read as they are now; nothing is remembered, nothing written.
    #[default]
    Outside,
    Capturing,
    Applying,
}

/// What the values of a row depend on.
#[derive(Debug, Default)]
pub struct Needs {
    /// Hashes of the identities that must still be whose they are.
    pub objects: Vec<u64>,
    /// Relations of whose row type there are values, locked: schema and name.
    pub row_types: Vec<(String, String)>,
}

struct Wire {
    bytes: Vec<u8>,
    parts: Vec<u64>,
}

#[derive(Default)]
struct State {
    /// The command whose rows are captured.
    command: Option<u32>,
    by_oid: HashMap<(Class, u32), Rc<Wire>>,
    by_bytes: HashMap<Vec<u8>, Oid>,
    noted: HashSet<(Class, u32)>,
    locked: HashSet<u32>,
    needs: Needs,
}

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Outside) };
    static STATE: RefCell<State> = RefCell::default();
}

/// The end of a transaction or of a subtransaction that failed.
pub fn reset() {
    MODE.set(Mode::Outside);
    STATE.with_borrow_mut(|state| {
        if state.command.is_some() || !state.by_oid.is_empty() || !state.by_bytes.is_empty() || !state.noted.is_empty() {
            *state = State::default();
        }
    });
}

/// Names may have changed.
fn forget() {
    STATE.with_borrow_mut(|state| {
        state.by_oid.clear();
        state.by_bytes.clear();
        state.locked.clear();
        state.needs = Needs::default();
    });
}

/// Rows of `command` are captured until [`captured`] is called.
pub fn capture(command: u32) {
    let is_same = STATE.with_borrow(|state| state.command == Some(command));
    if !is_same {
        forget();
        STATE.with_borrow_mut(|state| state.command = Some(command));
    }
    MODE.set(Mode::Capturing);
}

/// The row is captured; gives what it depends on.
pub fn captured() -> Needs {
    MODE.set(Mode::Outside);
    STATE.with_borrow_mut(|state| std::mem::take(&mut state.needs))
}

/// Rows are applied from here to the end of the transaction; no name changes but by statements, each of which calls this again.
pub fn apply() {
    forget();
    MODE.set(Mode::Applying);
}

/// Notes what values name that are put into bytes meanwhile.
pub(super) fn noting(f: impl FnOnce()) {
    let before = MODE.get();
    apply();
    f();
    MODE.set(before);
    forget();
}

/// How a value of this class travels, unless it is null.
pub(super) fn bytes(class: Class, oid: Oid) -> Vec<u8> {
    if MODE.get() == Mode::Outside {
        return read(class, oid).bytes;
    }
    let known = STATE.with_borrow(|state| state.by_oid.get(&(class, oid.to_u32())).cloned());
    let wire = known.unwrap_or_else(|| {
        let wire = Rc::new(read(class, oid));
        STATE.with_borrow_mut(|state| state.by_oid.insert((class, oid.to_u32()), Rc::clone(&wire)));
        wire
    });
    if MODE.get() == Mode::Capturing {
        STATE.with_borrow_mut(|state| state.needs.objects.extend_from_slice(&wire.parts));
    }
    wire.bytes.clone()
}

fn read(class: Class, oid: Oid) -> Wire {
    if oid == pg_sys::InvalidOid {
        return Wire { bytes: vec![NOTHING], parts: Vec::new() };
    }
    match object::identity(class, oid, Reading::Fresh) {
        Ok(identity) => {
            note(class, oid);
            let mut bytes = vec![OBJECT];
            bytes.extend_from_slice(&identity.bytes);
            return Wire { bytes, parts: identity.parts };
        }
        Err(NoIdentity::Temporary) => refuse_captured("a temporary object", "It exists in this session only"),
        Err(NoIdentity::Toast) => refuse_captured("a TOAST table", "It has another name on other nodes"),
        Err(NoIdentity::Missing) => {}
    }
    let bytes = number::bytes_of(class, oid).unwrap_or_else(|| {
        let mut bytes = vec![NUMBER];
        bytes.put_u32(oid.to_u32());
        bytes
    });
    let parts = dropped_identity(&bytes).map(bytes_hash);
    Wire { bytes, parts: parts.into_iter().collect() }
}

/// Of what was dropped. Its number has these bytes from the drop on, so whoever uses them needs the drop, as whoever names what is there needs its
/// definition.
fn dropped_identity(bytes: &[u8]) -> Option<&[u8]> {
    const TIME_AND_COUNT: usize = 12;
    let rest = bytes.strip_prefix(&[DROPPED])?;
    rest.get(TIME_AND_COUNT..).filter(|identity| !identity.is_empty())
}

fn note(class: Class, oid: Oid) {
    if MODE.get() != Mode::Outside {
        let is_new = STATE.with_borrow_mut(|state| state.noted.insert((class, oid.to_u32())));
        if is_new {
            number::note(class, oid);
        }
    }
}

/// Refuses to capture a value; where rows are applied it is what it is.
pub(super) fn refuse_captured(what: &str, why: &str) {
    if MODE.get() == Mode::Capturing {
        refuse(what, why);
    }
}

fn refuse(what: &str, why: &str) {
    let message = format!("storing a reference to {what} is not supported in a replicated database");
    ErrorReport::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message, "postgres_r")
        .set_hint(format!("{why}; store its name as text."))
        .report(PgLogLevel::ERROR);
}

/// The OID that stands here for what the bytes say. Where nothing here has that name, it is a number that names nothing, and travels as
/// these bytes again.
pub(super) fn oid(class: Class, bytes: &[u8]) -> Result<Oid, WireError> {
    if bytes == [NOTHING] {
        return Ok(pg_sys::InvalidOid);
    }
    let known = STATE.with_borrow(|state| state.by_bytes.get(bytes).copied());
    if let Some(oid) = known.filter(|_| MODE.get() != Mode::Outside) {
        return Ok(oid);
    }
    let oid = resolve(class, bytes)?;
    if MODE.get() != Mode::Outside {
        STATE.with_borrow_mut(|state| state.by_bytes.insert(bytes.to_vec(), oid));
    }
    Ok(oid)
}

fn resolve(class: Class, bytes: &[u8]) -> Result<Oid, WireError> {
    let mut reader = Reader::new(bytes);
    let free = match reader.u8()? {
        OBJECT => {
            if let Some((found, oid)) = object::find(reader.rest())? {
                if found != class {
                    return Err(WireError::OutOfRange { what: "class of an object" });
                }
                note(class, oid);
                return Ok(oid);
            }
            None
        }
        NUMBER => {
            let number = Oid::from(reader.u32()?);
            (!object::exists(class, number) && number::bytes_of(class, number).is_none()).then_some(number)
        }
        DROPPED => None,
        kind => return Err(WireError::Unknown { what: "kind of name", value: u64::from(kind) }),
    };
    if let Some(oid) = number::oid_of(class, bytes).or(free) {
        return Ok(oid);
    }
    if MODE.get() != Mode::Applying {
        return Ok(pg_sys::InvalidOid);
    }
    let oid = number::unused(class);
    number::bind(class, oid, bytes);
    Ok(oid)
}

/// What the bytes say, for a person.
pub(super) fn text(bytes: &[u8]) -> String {
    let number = |bytes: &[u8]| Reader::new(bytes).u32().map(|number| number.to_string()).unwrap_or_default();
    match bytes.split_first() {
        Some((&OBJECT, identity)) => object::text(identity),
        Some((&NUMBER, rest)) => number(rest),
        _ => dropped_identity(bytes).map_or("-".to_owned(), |identity| format!("{} (dropped)", object::text(identity))),
    }
}

/// An object that rows stored here may name was dropped by the current statement: its number travels under a name of its own from now on,
/// the same on every node, since the statement runs at the same place in the order everywhere, as at the same time.
pub fn dropped(class: Class, oid: Oid, identity: &Identity) {
    if !number::is_noted(class, oid) {
        return;
    }
    for count in 0.. {
        let mut bytes = vec![DROPPED];
        bytes.put_i64(clock::transaction_started_at());
        bytes.put_u32(count);
        bytes.extend_from_slice(&identity.bytes);
        if number::oid_of(class, &bytes).is_none() {
            return number::bind(class, oid, &bytes);
        }
    }
}

/// Before a value of this relation's row type is read: what the type is made of stays until the transaction ends, and is known as it is now.
pub(super) fn hold_row_type(relation: Oid) {
    if MODE.get() != Mode::Capturing {
        return;
    }
    let is_new = STATE.with_borrow_mut(|state| state.locked.insert(relation.to_u32()));
    if is_new {
        // SAFETY: an ordinary lock, released with the transaction.
        unsafe { pg_sys::LockRelationOid(relation, pg_sys::AccessShareLock as i32) };
    }
    if let Some(name) = super::names::qualified_name(relation) {
        STATE.with_borrow_mut(|state| state.needs.row_types.push(name));
    }
}

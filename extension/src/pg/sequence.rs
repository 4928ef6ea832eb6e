//! Sequences that never give the same value on two nodes: each steps over the values of the others (docs/adr/0004).
//!
//! A sequence that the user declares with increment k and start s steps by k × `GROUP_MEMBERS_MAX` and starts at
//! s + ordinal × k, on each node for itself. The step is rewritten in the parse tree before the statement runs, the start is
//! moved after it, on the origin and wherever else the statement is applied. The declared increment stays what
//! pg_sequence.seqincrement holds, divided by `GROUP_MEMBERS_MAX`; the declared start is pg_sequence.seqstart.

use std::ffi::CStr;

use gcs_writeset::bounds::GROUP_MEMBERS_MAX;
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;

use super::list;
use super::names::{Oid, valid};
use super::relation::{Persistence, entry};

const STRIDE: i64 = GROUP_MEMBERS_MAX as i64;

/// What remains to be done to a sequence after its statement ran.
#[derive(Clone, Copy)]
pub(super) enum Pending {
    None,
    /// Move the sequence with this name, if it is new.
    Created(*mut pg_sys::RangeVar),
    /// Move this sequence: the statement restarted it.
    Restarted(Oid),
}

/// ALTER SEQUENCE gives a new increment and no new start: from where they stand, nodes would give the same values.
pub struct Refused;

/// A row of pg_sequence, which pgrx does not bind.
#[repr(C)]
#[derive(Clone, Copy)]
struct Parameters {
    seqrelid: pg_sys::Oid,
    seqtypid: pg_sys::Oid,
    seqstart: i64,
    seqincrement: i64,
    seqmax: i64,
    seqmin: i64,
    seqcache: i64,
    seqcycle: bool,
}

/// Rewrites the statement (which must be a private copy) if it makes or changes a sequence.
///
/// # Safety
/// `node` must be the parse tree of a utility statement.
pub(super) unsafe fn prepare(node: *mut pg_sys::Node) -> Result<Pending, Refused> {
    // SAFETY: each tag says what the node is.
    unsafe {
        match (*node).type_ {
            Tag::T_CreateSeqStmt => {
                let statement = &mut *node.cast::<pg_sys::CreateSeqStmt>();
                if (*statement.sequence).relpersistence as u8 == b't' || find(statement.sequence).is_some() {
                    return Ok(Pending::None);
                }
                let increment = option(statement.options, c"increment").map_or(1, |option| pg_sys::defGetInt64(option));
                statement.options = with_increment(statement.options, increment.saturating_mul(STRIDE));
                Ok(Pending::Created(statement.sequence))
            }
            Tag::T_AlterSeqStmt => {
                let statement = &mut *node.cast::<pg_sys::AlterSeqStmt>();
                let Some(oid) = find(statement.sequence).filter(|&oid| is_permanent(oid)) else { return Ok(Pending::None) };
                let restarts = option(statement.options, c"restart").is_some();
                if let Some(increment) = option(statement.options, c"increment") {
                    if !restarts {
                        return Err(Refused);
                    }
                    let increment = pg_sys::defGetInt64(increment);
                    statement.options = with_increment(statement.options, increment.saturating_mul(STRIDE));
                }
                Ok(if restarts { Pending::Restarted(oid) } else { Pending::None })
            }
            _ => Ok(Pending::None),
        }
    }
}

/// Moves what `prepare` left to be moved to this node's place.
///
/// # Safety
/// The statement that `pending` came from must have run, and its parse tree be alive.
pub(super) unsafe fn finish(pending: Pending, ordinal: u16) {
    let oid = match pending {
        Pending::None => return,
        // SAFETY: by contract; makes the new sequence visible first.
        Pending::Created(name) => unsafe {
            pg_sys::CommandCounterIncrement();
            find(name)
        },
        Pending::Restarted(oid) => Some(oid),
    };
    if let Some(oid) = oid.filter(|&oid| is_permanent(oid)) {
        move_to_place(oid, ordinal);
    }
}

/// Moves the sequences that a table's columns own; after TRUNCATE ... RESTART IDENTITY.
pub fn restart_owned(table: Oid, ordinal: u16) {
    // SAFETY: a catalog look-up.
    let owned = unsafe { list::oids(pg_sys::getOwnedSequences(table)) };
    for sequence in owned.into_iter().filter(|&oid| is_permanent(oid)) {
        move_to_place(sequence, ordinal);
    }
}

/// What a sequence can give, as it was declared.
pub struct Range {
    pub min: i64,
    pub max: i64,
    pub increment: i64,
    pub owner: Oid,
}

/// None if there is no such sequence.
pub(super) fn range(sequence: Oid) -> Option<Range> {
    let parameters = parameters(sequence)?;
    // SAFETY: a catalog look-up.
    let owner = unsafe {
        let cache = pg_sys::SysCacheIdentifier::RELOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(sequence));
        if tuple.is_null() {
            return None;
        }
        let owner = (*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_class>(tuple)).relowner;
        pg_sys::ReleaseSysCache(tuple);
        owner
    };
    let Parameters { seqmin: min, seqmax: max, seqincrement, .. } = parameters;
    Some(Range { min, max, increment: seqincrement / STRIDE, owner })
}

fn parameters(sequence: Oid) -> Option<Parameters> {
    // SAFETY: a syscache look-up, its tuple released after it was copied.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::SEQRELID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(sequence));
        if tuple.is_null() {
            return None;
        }
        let parameters = *pg_sys::heap_tuple_get_struct::<Parameters>(tuple);
        pg_sys::ReleaseSysCache(tuple);
        Some(parameters)
    }
}

/// Moves a sequence from the value at which it stands on all nodes to the one that is this node's.
fn move_to_place(sequence: Oid, ordinal: u16) {
    // SAFETY: reads the sequence's parameters and its one row; sets it by PostgreSQL's own setval.
    unsafe {
        pg_sys::CommandCounterIncrement();
        let Some(parameters) = parameters(sequence) else { return };
        let declared = parameters.seqincrement / STRIDE;
        let here = last_value(sequence).checked_add(declared.saturating_mul(i64::from(ordinal)));
        let (value, is_called) = match here {
            Some(value) if (parameters.seqmin..=parameters.seqmax).contains(&value) => (value, false),
            // No value of this sequence falls to this node: it is exhausted from the start.
            _ if declared > 0 => (parameters.seqmax, true),
            _ => (parameters.seqmin, true),
        };
        pg_sys::OidFunctionCall3Coll(
            pg_sys::Oid::from(pg_sys::F_SETVAL_REGCLASS_INT8_BOOL),
            pg_sys::InvalidOid,
            pg_sys::Datum::from(sequence),
            pg_sys::Datum::from(value),
            pg_sys::Datum::from(is_called),
        );
    }
}

/// # Safety
/// `sequence` must be a sequence, locked by its statement.
unsafe fn last_value(sequence: Oid) -> i64 {
    // SAFETY: a sequence is a table of one row whose first column is last_value.
    unsafe {
        let relation = pg_sys::relation_open(sequence, pg_sys::AccessShareLock as i32);
        let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
        let scan = pg_sys::heap_beginscan(
            relation,
            std::ptr::addr_of_mut!(pg_sys::SnapshotAnyData),
            0,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            pg_sys::ScanOptions::SO_TYPE_SEQSCAN,
        );
        let mut value = 0;
        if pg_sys::heap_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot) {
            pg_sys::slot_getsomeattrs_int(slot, 1);
            value = (*(*slot).tts_values).value() as i64;
        }
        pg_sys::heap_endscan(scan);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        value
    }
}

fn is_permanent(oid: Oid) -> bool {
    entry(oid).is_some_and(|entry| entry.persistence == Persistence::Permanent)
}

/// # Safety
/// `name` must be a parse tree's RangeVar.
unsafe fn find(name: *mut pg_sys::RangeVar) -> Option<Oid> {
    // SAFETY: a look-up by name that raises nothing if it is not there.
    unsafe {
        let flags = pg_sys::RVROption::RVR_MISSING_OK;
        valid(pg_sys::RangeVarGetRelidExtended(name, pg_sys::NoLock as i32, flags, None, std::ptr::null_mut()))
    }
}

/// # Safety
/// `options` must be a parse tree's list of DefElem.
unsafe fn option(options: *mut pg_sys::List, name: &CStr) -> Option<*mut pg_sys::DefElem> {
    // SAFETY: by contract.
    unsafe {
        list::pointers::<pg_sys::DefElem>(options).into_iter().find(|&option| CStr::from_ptr((*option).defname) == name)
    }
}

/// # Safety
/// As `option`; the list must be ours to change.
unsafe fn with_increment(options: *mut pg_sys::List, increment: i64) -> *mut pg_sys::List {
    // SAFETY: makes nodes as the parser does: numbers beyond an int are kept as text.
    unsafe {
        let text = std::ffi::CString::new(increment.to_string()).unwrap_or_default();
        let value = pg_sys::makeFloat(pg_sys::pstrdup(text.as_ptr())).cast::<pg_sys::Node>();
        match option(options, c"increment") {
            Some(element) => {
                (*element).arg = value;
                options
            }
            None => {
                let element = pg_sys::makeDefElem(pg_sys::pstrdup(c"increment".as_ptr()), value, -1);
                pg_sys::lappend(options, element.cast())
            }
        }
    }
}

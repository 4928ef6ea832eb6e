//! Who is in a table, so as to change its rows: what PostgreSQL's lock manager knows of it.

use std::ffi::c_int;

use pgrx::pg_sys;
use postgres_r_protocol::id::ProcNo;

use super::majors::process::{place_of, process_of, virtual_parts};
use super::majors::relation::is_locked_by_me;
use super::names::Oid;

/// What those take on a table who change or lock its rows, and stronger.
const MODES: std::ops::RangeInclusive<u32> = pg_sys::RowShareLock..=pg_sys::AccessExclusiveLock;

/// As pgrx does not bind SET_LOCKTAG_RELATION.
pub(super) fn tag(relation: Oid) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        // SAFETY: set at process start.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: relation.to_u32(),
        locktag_field3: 0,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_RELATION as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    }
}

/// A process in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    backend: c_int,
    transaction: u32,
}

/// Other processes that hold a lock on the relation which conflicts with this mode; those that VACUUM do not count, nor those that `are_none`.
fn holders(relation: Oid, mode: u32, are_none: impl Fn(ProcNo) -> bool) -> Vec<Running> {
    let tag = tag(relation);
    let mut count = 0;
    // SAFETY: gives a palloc'd array of so many entries, which is freed; an entry of the process array stays allocated, and its fields are read once.
    unsafe {
        let found = pg_sys::GetLockConflicts(&tag, mode as i32, &mut count);
        let all = std::slice::from_raw_parts(found, usize::try_from(count).unwrap_or(0));
        let counts = |holder: &&pg_sys::VirtualTransactionId| {
            process_of(virtual_parts(holder).0).is_some_and(|process| {
                let vacuums = u32::from(process.statusFlags) & (pg_sys::PROC_IN_VACUUM | pg_sys::PROC_IS_AUTOVACUUM) != 0;
                !vacuums && !are_none(place_of(process))
            })
        };
        let running = |holder: &pg_sys::VirtualTransactionId| {
            let (backend, transaction) = virtual_parts(holder);
            Running { backend, transaction }
        };
        let holders = all.iter().filter(counts).map(running).collect();
        pg_sys::pfree(found.cast());
        holders
    }
}

/// Whether another process may change rows of the relation, or has locked some.
pub fn are_in(relation: Oid, are_none: impl Fn(ProcNo) -> bool) -> bool {
    !holders(relation, pg_sys::ExclusiveLock, are_none).is_empty()
}

/// Who has read it as well.
pub fn readers(relation: Oid, are_none: impl Fn(ProcNo) -> bool) -> Vec<Running> {
    holders(relation, pg_sys::AccessExclusiveLock, are_none)
}

/// Whether this process may change rows of the relation, or has locked some.
pub fn am_in(relation: Oid) -> bool {
    let tag = tag(relation);
    MODES.into_iter().any(|mode| is_locked_by_me(&tag, mode as i32))
}

/// Whether it has read it.
pub fn have_read(relation: Oid) -> bool {
    is_locked_by_me(&tag(relation), pg_sys::AccessShareLock as i32)
}

/// Gives back a lock on a relation once, if this process has it.
pub(super) fn release(relation: Oid, mode: pg_sys::LOCKMODE) {
    let tag = tag(relation);
    if is_locked_by_me(&tag, mode) {
        // SAFETY: it is held.
        unsafe { pg_sys::UnlockRelationOid(relation, mode) };
    }
}

/// Every process makes its plans about the relation anew before it uses them again. In a transaction.
pub fn forget_plans(relation: Oid) {
    // SAFETY: a look-up in the catalog, and a message to all when this transaction commits.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) };
}

//! The replication origin: where a position becomes durable together with the data of its transaction.

use std::ffi::CString;

use gcs_writeset::Position;
use pgrx::pg_sys;

/// PostgreSQL's number of an origin; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginId(pub u16);

/// Makes this transaction's commit record carry `position`. Only with the gate's turn in hand: an origin belongs to one
/// process at a time.
pub fn arm(origin: OriginId, position: Position, committed_at: i64) {
    // SAFETY: setup raises if the origin is taken or there is no room; the globals are this process's.
    unsafe {
        pg_sys::replorigin_session_setup(origin.0);
        pg_sys::replorigin_session_origin = origin.0;
        pg_sys::replorigin_session_origin_lsn = position.0;
        pg_sys::replorigin_session_origin_timestamp = committed_at;
    }
}

/// Gives the origin back. After [`arm`] this raises nothing: PostgreSQL takes a lock, clears a field and wakes waiters.
pub fn disarm() {
    // SAFETY: as above; reset raises only without a setup before it, which callers keep track of.
    unsafe {
        pg_sys::replorigin_session_reset();
        pg_sys::replorigin_session_origin = 0;
        pg_sys::replorigin_session_origin_lsn = 0;
        pg_sys::replorigin_session_origin_timestamp = 0;
    }
}

/// The position that the newest committed transaction carried; 0 if none ever did.
pub fn progress(origin: OriginId) -> Position {
    // SAFETY: reads shared memory under its lock.
    Position(unsafe { pg_sys::replorigin_get_progress(origin.0, false) })
}

/// Inside a transaction.
pub fn by_name(name: &str) -> Option<OriginId> {
    let name = CString::new(name).ok()?;
    // SAFETY: a catalog look-up; missing_ok.
    let id = unsafe { pg_sys::replorigin_by_name(name.as_ptr(), true) };
    (id != 0).then_some(OriginId(id))
}

/// Inside a transaction.
pub fn create(name: &str) -> OriginId {
    let name = CString::new(name).unwrap_or_default();
    // SAFETY: raises if it exists already.
    OriginId(unsafe { pg_sys::replorigin_create(name.as_ptr()) })
}

/// Sets how far the origin has come; the transaction's commit makes it last. Inside the transaction that created it.
pub fn advance(origin: OriginId, position: Position) {
    // SAFETY: raises if another process holds the origin; the record is flushed with the commit, which is made to wait for the disk.
    unsafe {
        pg_sys::replorigin_advance(origin.0, position.0, pg_sys::InvalidXLogRecPtr.into(), true, true);
        pg_sys::ForceSyncCommit();
    }
}

/// Inside a transaction.
pub fn drop(name: &str) {
    let name = CString::new(name).unwrap_or_default();
    // SAFETY: missing_ok; waits for a process that still holds it.
    unsafe { pg_sys::replorigin_drop_by_name(name.as_ptr(), true, false) };
}

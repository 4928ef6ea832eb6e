//! The replication origin: where a position becomes durable together with the data of its transaction.
//!
//! A process has one origin at a time. The workers of a subscription have one of their own, by which PostgreSQL would remember how far the
//! subscription is. While such a worker commits at a position, its own origin is set aside; a commit record has room for one, and it is the group's. How far
//! the subscription is stands in a row of the same transaction instead (docs/adr/0069-subscriptions.md).

use std::cell::Cell;
use std::ffi::CString;
use std::panic::AssertUnwindSafe;

use gcs_writeset::Position;
use pgrx::pg_sys;

use super::majors::relation::origin_session_setup;
use pgrx::prelude::*;
use postgres_r_protocol::id::Lsn;

/// PostgreSQL's number of an origin; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginId(pub u16);

thread_local! {
    /// The origin that this process had before [`arm`], and how far the publisher's transaction brings it.
    static ASIDE: Cell<Option<(OriginId, Lsn)>> = const { Cell::new(None) };
}

/// Makes this transaction's commit record carry `position`. Only with the gate's turn in hand: an origin belongs to one
/// process at a time.
pub fn arm(origin: OriginId, position: Position, committed_at: i64) {
    // SAFETY: setup raises if the origin is taken or there is no room; the globals are this process's.
    unsafe {
        ASIDE.set(None);
        if pg_sys::replorigin_session_origin != 0 && pg_sys::IsLogicalWorker() {
            let theirs = OriginId(pg_sys::replorigin_session_origin);
            ASIDE.set(Some((theirs, Lsn(pg_sys::replorigin_session_origin_lsn))));
            pg_sys::replorigin_session_reset();
        }
        origin_session_setup(origin.0);
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

/// After the commit record and [`disarm`]: the origin that was set aside is this process's again, as far as the transaction has brought it. Raises
/// nothing. Where it cannot be had, because somebody has dropped it or holds it, the process ends at the next chance.
pub fn take_up_again() {
    let Some((theirs, reached)) = ASIDE.take() else { return };
    let theirs_again = AssertUnwindSafe(move || {
        // SAFETY: the process has no origin now. An ERROR of setup is caught below; the others raise nothing.
        unsafe {
            origin_session_setup(theirs.0);
            pg_sys::replorigin_session_origin = theirs.0;
            pg_sys::replorigin_session_advance(reached.0, pg_sys::XactLastCommitEnd);
        }
    });
    PgTryBuilder::new(theirs_again)
        .catch_others(|_| {
            // SAFETY: past the commit record no lock of this kind is held but what setup has left behind; the report is not needed any more.
            unsafe {
                pg_sys::LWLockReleaseAll();
                pg_sys::FlushErrorState();
                pg_sys::ProcDiePending = 1;
                pg_sys::InterruptPending = 1;
            }
        })
        .execute();
}

/// How far the transaction at hand of a subscription's worker brings the subscription, by the publisher's count; none if it brings nothing.
pub fn reached() -> Option<Lsn> {
    // SAFETY: variables of this process.
    unsafe {
        let is_told = pg_sys::replorigin_session_origin != 0 && pg_sys::replorigin_session_origin_lsn != 0;
        is_told.then_some(Lsn(pg_sys::replorigin_session_origin_lsn))
    }
}

/// How far an origin of a subscription is.
pub fn reached_by(origin: OriginId) -> Lsn {
    // SAFETY: reads shared memory under its lock.
    Lsn(unsafe { pg_sys::replorigin_get_progress(origin.0, false) })
}

/// Sets how far an origin of a subscription is, at once and whatever becomes of the transaction. Raises if a process holds it.
pub fn set_reached(origin: OriginId, reached: Lsn) {
    // SAFETY: raises if another process holds the origin; the record goes into the log.
    unsafe { pg_sys::replorigin_advance(origin.0, reached.0, pg_sys::InvalidXLogRecPtr.into(), true, true) }
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

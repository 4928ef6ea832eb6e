//! Transactions: their end, and the ones that background workers run.

use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;
use std::time::Duration;

use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use postgres_r_protocol::id::Lsn;

use super::{timer, wal};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Deferred triggers have run, locks are held, an ERROR still aborts cleanly.
    PreCommit,
    /// The commit record is written and other processes see the transaction. An ERROR here would be a PANIC.
    Commit,
    Abort,
    PrePrepare,
}

static CALLBACK: OnceLock<fn(Event)> = OnceLock::new();

/// Called while libraries are preloaded; every process inherits it.
pub fn on_end(callback: fn(Event)) {
    if CALLBACK.set(callback).is_ok() {
        // SAFETY: a plain callback without an argument.
        unsafe { pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut()) };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    let event = match event {
        pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT => Event::PreCommit,
        pg_sys::XactEvent::XACT_EVENT_COMMIT => Event::Commit,
        pg_sys::XactEvent::XACT_EVENT_ABORT => Event::Abort,
        pg_sys::XactEvent::XACT_EVENT_PRE_PREPARE => Event::PrePrepare,
        _ => return,
    };
    if let Some(callback) = CALLBACK.get() {
        callback(event);
    }
}

/// Runs `work` in a transaction of its own and commits it; after an ERROR the transaction is rolled back and the ERROR
/// returned. For background workers, which have no loop of PostgreSQL's around them.
pub fn transaction<R>(work: impl FnOnce() -> R) -> Result<R, Failed> {
    let work = AssertUnwindSafe(work);
    PgTryBuilder::new(|| {
        // SAFETY: a background worker that is in no transaction.
        unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::StartTransactionCommand();
        }
        let result = { work }.0();
        // SAFETY: in the transaction started above.
        unsafe { pg_sys::CommitTransactionCommand() };
        Ok(result)
    })
    .catch_others(|error| {
        // SAFETY: what every loop of PostgreSQL does after an ERROR, out of whatever subtransactions it came from; cancels that came meanwhile
        // were meant for this.
        unsafe {
            pg_sys::InterruptHoldoffCount += 1;
            timer::stop_all();
            pg_sys::QueryCancelPending = 0;
            pg_sys::AbortOutOfAnyTransaction();
            pg_sys::FlushErrorState();
            pg_sys::InterruptHoldoffCount -= 1;
        }
        Err(describe(&error))
    })
    .execute()
}

/// Waits until the transaction has ended, as for a lock.
pub fn wait_for(id: pg_sys::TransactionId) {
    // SAFETY: waits for the lock that every transaction has on its own id; no relation to name in a message.
    unsafe {
        pg_sys::XactLockTableWait(id, std::ptr::null_mut(), std::ptr::null_mut(), pg_sys::XLTW_Oper::XLTW_None);
    }
}

/// An ERROR that ended a transaction of a background worker.
#[derive(Debug)]
pub struct Failed {
    pub code: PgSqlErrorCode,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

pub(super) fn describe(error: &CaughtError) -> Failed {
    let (code, report) = match error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => (report.sql_error_code(), report),
        CaughtError::RustPanic { ereport, .. } => (PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, ereport),
    };
    let (detail, hint) = (report.detail().map(str::to_owned), report.hint().map(str::to_owned));
    Failed { code, message: report.message().to_owned(), detail, hint }
}

/// A SQLSTATE's number as its five characters.
pub fn sqlstate(code: u32) -> String {
    (0..5).map(|at| char::from((code >> (6 * at) & 0x3f) as u8 + b'0')).collect()
}

/// Gives the transaction an id, so that it writes a commit record.
pub fn ensure_id() {
    // SAFETY: in a transaction.
    unsafe { pg_sys::GetTopTransactionId() };
}

/// Whether the transaction has been given an id.
pub fn has_id() -> bool {
    // SAFETY: reads this process's state.
    unsafe { pg_sys::GetTopTransactionIdIfAny() != pg_sys::InvalidTransactionId }
}

/// Whether this is inside of BEGIN ... COMMIT, or in a message of several statements, which is one transaction too.
pub fn in_block() -> bool {
    // SAFETY: reads this process's state.
    unsafe { pg_sys::IsTransactionBlock() }
}

pub fn is_serializable() -> bool {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::XactIsoLevel == pg_sys::XACT_SERIALIZABLE as i32 }
}

/// Whether the transaction is READ ONLY; after its first statement it stays so.
pub fn is_read_only() -> bool {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::XactReadOnly }
}

unsafe extern "C-unwind" {
    /// Of storage/predicate.h, which pgrx does not bind.
    fn PreCommit_CheckForSerializationFailure();
}

/// PostgreSQL's own check of SERIALIZABLE transactions against each other, on this server, ahead of its time; it raises an ERROR
/// if this one must give way. Having passed it once, the transaction counts as committing: others give way to it.
pub fn check_serializable() {
    if is_serializable() {
        // SAFETY: in a transaction; does nothing if it is not tracked.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| PreCommit_CheckForSerializationFailure()) }
    }
}

/// Tells all processes which catalog entries the transaction made stale, earlier than PostgreSQL does: a moment after
/// XACT_EVENT_COMMIT, still under the transaction's locks. PostgreSQL then finds nothing left to tell.
pub fn send_invalidations() {
    // SAFETY: called once, past the commit record and outside of any command: no message can be added any more. Sending reads no
    // catalog and leaves this process's own caches alone.
    unsafe { pg_sys::AtEOXact_Inval(true) }
}

/// Microseconds since 2000-01-01 UTC: when the transaction started, and now.
pub fn started() -> i64 {
    // SAFETY: reads this process's state.
    unsafe { pg_sys::GetCurrentTransactionStartTimestamp() }
}

/// That, and now.
pub fn times() -> (i64, i64) {
    // SAFETY: reads the clock and this process's state.
    unsafe { (pg_sys::GetCurrentTransactionStartTimestamp(), pg_sys::GetCurrentTimestamp()) }
}

/// For how long the client has kept the transaction idle, between its statements.
pub fn idle_time() -> Duration {
    // SAFETY: reads this process's state. PostgreSQL adds to it within a transaction, and hands it over between two.
    let microseconds = unsafe { pg_sys::pgStatTransactionIdleTime };
    Duration::from_micros(u64::try_from(microseconds).unwrap_or(0))
}

/// synchronous_commit and lock_timeout, as they are but for the commit about to be made.
#[derive(Clone, Copy, Debug)]
pub struct CommitSettings {
    synchronous_commit: i32,
    lock_timeout: i32,
}

/// Lets the commit return before its record is on disk: the group is the durability point. Nor is there a limit to the moment for which a commit that
/// notifies waits for the one before.
pub fn enter_commit() -> CommitSettings {
    // SAFETY: variables of this process, restored at the end of the transaction.
    unsafe {
        let before = CommitSettings { synchronous_commit: pg_sys::synchronous_commit, lock_timeout: pg_sys::LockTimeout };
        pg_sys::synchronous_commit = pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_OFF as i32;
        pg_sys::LockTimeout = 0;
        before
    }
}

pub fn restore(settings: CommitSettings) {
    // SAFETY: as above.
    unsafe {
        pg_sys::synchronous_commit = settings.synchronous_commit;
        pg_sys::LockTimeout = settings.lock_timeout;
    }
}

/// Where the commit record of this process's last transaction ends.
pub fn last_commit_lsn() -> Lsn {
    // SAFETY: a variable of this process.
    Lsn(unsafe { pg_sys::XactLastCommitEnd })
}

/// Puts the commit records of this server on disk that are not there yet. Only then does PostgreSQL note in a row that its transaction has committed.
pub fn flush_commits() {
    // SAFETY: what has been inserted can be flushed.
    unsafe { pg_sys::XLogFlush(wal::end_of_last_record(pg_sys::GetXLogInsertRecPtr())) }
}

/// Everything before it is on disk.
pub fn flushed_lsn() -> Lsn {
    // SAFETY: reads shared memory; the timeline is not asked for.
    Lsn(unsafe { pg_sys::GetFlushRecPtr(std::ptr::null_mut()) })
}

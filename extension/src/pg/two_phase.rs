//! PREPARE TRANSACTION and what decides on it, as statements: which they are, and what PostgreSQL itself says to them.
//!
//! Nothing of PostgreSQL's own two-phase commit is used: what it prepares keeps its locks, and could not give way to what the group has ordered before.

use std::ffi::CStr;

use gcs_writeset::Phase;
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::{encoding, summons};

/// One of the three statements.
pub struct Statement {
    pub phase: Phase,
    /// None if it is not UTF-8.
    pub identifier: Option<String>,
    /// As PostgreSQL counts them, in the encoding of the database.
    pub identifier_bytes: usize,
}

unsafe extern "C-unwind" {
    /// Of commands/async.h, which pgrx does not bind.
    fn AtPrepare_Notify();
}

unsafe extern "C" {
    /// Of access/twophase.h.
    static max_prepared_xacts: std::ffi::c_int;
}

/// The statement, if it is one of these.
pub(super) fn statement(statement: &pg_sys::TransactionStmt) -> Option<Statement> {
    use pg_sys::TransactionStmtKind::{TRANS_STMT_COMMIT_PREPARED, TRANS_STMT_PREPARE, TRANS_STMT_ROLLBACK_PREPARED};
    let phase = match statement.kind {
        TRANS_STMT_PREPARE => Phase::Prepare,
        TRANS_STMT_COMMIT_PREPARED => Phase::Commit,
        TRANS_STMT_ROLLBACK_PREPARED => Phase::Rollback,
        _ => return None,
    };
    if statement.gid.is_null() {
        return None;
    }
    // SAFETY: the parser's C string, which lives as long as the parse tree.
    let bytes = unsafe { CStr::from_ptr(statement.gid) }.to_bytes();
    Some(Statement { phase, identifier: encoding::exactly(bytes), identifier_bytes: bytes.len() })
}

/// How many transactions the server would keep prepared; none if that is disabled.
pub fn server_limit() -> usize {
    // SAFETY: a variable that is set when the server starts.
    usize::try_from(unsafe { max_prepared_xacts }).unwrap_or(0)
}

/// Whether the transaction is in a block, and has not failed: one that could be prepared.
pub fn is_in_block() -> bool {
    // SAFETY: reads this process's state.
    unsafe { pg_sys::IsTransactionBlock() && !pg_sys::IsAbortedTransactionBlockState() }
}

/// Runs `work`; whether it succeeds or raises, the block is over: the transaction is rolled back when the statement has ended, as after PREPARE TRANSACTION on one server the session is in none.
pub fn ending_the_block(work: impl FnOnce()) {
    summons::block_is_ending();
    let work = std::panic::AssertUnwindSafe(work);
    PgTryBuilder::new(|| { work }.0())
        .finally(|| {
            // SAFETY: in a block that has not failed; notes what is to be done when the statement has ended.
            unsafe { pg_sys::UserAbortTransactionBlock(false) }
        })
        .execute();
}

/// Raises what PostgreSQL says to either of the other two in a transaction block.
pub fn not_in_block(is_top_level: bool, tag: &CStr) {
    // SAFETY: reads this process's state; an ERROR passes.
    unsafe { pg_sys::PreventInTransactionBlock(is_top_level, tag.as_ptr()) }
}

/// Runs what the transaction has put off to its end.
pub fn run_deferred() {
    let mut immediate = pg_sys::ConstraintsSetStmt {
        type_: pg_sys::NodeTag::T_ConstraintsSetStmt,
        constraints: std::ptr::null_mut(),
        deferred: false,
    };
    // SAFETY: SET CONSTRAINTS ALL IMMEDIATE, at the end of a transaction that is alive.
    unsafe { pg_sys::AfterTriggerSetState(&raw mut immediate) }
}

/// What of this server alone the transaction has to do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Temporary,
    ExportedSnapshot,
    HeldCursor,
}

/// Raises PostgreSQL's own error if the transaction has to do with notifications; says what else keeps it from being prepared.
pub fn bound() -> Option<Bound> {
    // SAFETY: reads this process's state; an ERROR passes.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| AtPrepare_Notify());
        if pg_sys::MyXactFlags & pg_sys::XACT_FLAGS_ACCESSEDTEMPNAMESPACE as i32 != 0 {
            return Some(Bound::Temporary);
        }
        if pg_sys::XactHasExportedSnapshots() {
            return Some(Bound::ExportedSnapshot);
        }
    }
    const HELD: &str = "SELECT FROM pg_catalog.pg_cursor() c WHERE c.is_holdable AND c.creation_time >= pg_catalog.now()";
    super::query::first_row(HELD).map(|_| Bound::HeldCursor)
}

//! What the workers of subscriptions are and do, as each major version has it.

use std::ffi::{CStr, c_char};

use pgrx::pg_sys;

use crate::pg::names::Oid;

/// LogicalRepWorker of replication/worker_internal.h up to the field relid.
#[repr(C)]
pub struct LogicalRepWorker {
    #[cfg(not(feature = "pg15"))]
    kind: std::ffi::c_int,
    launch_time: pg_sys::TimestampTz,
    in_use: bool,
    generation: u16,
    process: *mut pg_sys::PGPROC,
    database: Oid,
    user: Oid,
    pub subscription: Oid,
    pub table: Oid,
}

unsafe extern "C-unwind" {
    /// Of replication/worker_internal.h: what the server's launcher has told this process.
    pub static MyLogicalRepWorker: *const LogicalRepWorker;
}

/// Writes how far a table of a subscription is, which is not in the catalog yet. May raise an error.
///
/// # Safety
/// Both must be there.
pub unsafe fn add_state(subscription: Oid, table: Oid, state: c_char, lsn: u64) {
    unsafe extern "C-unwind" {
        /// Of catalog/pg_subscription_rel.h, which pgrx does not bind.
        #[cfg(feature = "pg15")]
        fn AddSubscriptionRelState(subscription: Oid, table: Oid, state: c_char, lsn: u64);
        /// The last says whether the lock on the catalog is kept.
        #[cfg(not(feature = "pg15"))]
        fn AddSubscriptionRelState(subscription: Oid, table: Oid, state: c_char, lsn: u64, keeps_lock: bool);
    }
    // SAFETY: by contract.
    unsafe {
        #[cfg(feature = "pg15")]
        AddSubscriptionRelState(subscription, table, state, lsn);
        #[cfg(not(feature = "pg15"))]
        AddSubscriptionRelState(subscription, table, state, lsn, false);
    }
}

/// The same, of one that is.
///
/// # Safety
/// As [`add_state`].
pub unsafe fn update_state(subscription: Oid, table: Oid, state: c_char, lsn: u64) {
    unsafe extern "C-unwind" {
        #[cfg(any(feature = "pg15", feature = "pg17"))]
        fn UpdateSubscriptionRelState(subscription: Oid, table: Oid, state: c_char, lsn: u64);
        /// The last says whether the caller has locked the subscription and the catalog.
        #[cfg(not(any(feature = "pg15", feature = "pg17")))]
        fn UpdateSubscriptionRelState(subscription: Oid, table: Oid, state: c_char, lsn: u64, is_locked: bool);
    }
    // SAFETY: by contract.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg17"))]
        UpdateSubscriptionRelState(subscription, table, state, lsn);
        #[cfg(not(any(feature = "pg15", feature = "pg17")))]
        UpdateSubscriptionRelState(subscription, table, state, lsn, false);
    }
}

/// A connection for logical replication; null and a text if there is none.
///
/// # Safety
/// As the function that it calls.
pub unsafe fn connect(
    functions: &pg_sys::WalReceiverFunctionsType,
    connection: &CStr,
    name: &CStr,
    error: *mut *mut c_char,
) -> Option<*mut pg_sys::WalReceiverConn> {
    let connect = functions.walrcv_connect?;
    // SAFETY: by contract. Since 16 it is said whether it is for replication, and whether the connection string must hold a password.
    unsafe {
        #[cfg(feature = "pg15")]
        return Some(connect(connection.as_ptr(), true, name.as_ptr(), error));
        #[cfg(not(feature = "pg15"))]
        return Some(connect(connection.as_ptr(), true, true, false, name.as_ptr(), error));
    }
}

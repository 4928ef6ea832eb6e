//! Processes, sessions, settings and rights, as each major version has them.

use std::ffi::{c_char, c_int};

use pgrx::pg_sys;
use postgres_r_protocol::id::ProcNo;

use crate::pg::names::Oid;

/// USER_TIMEOUT of utils/timeout.h: the first timer that extensions get.
pub const USER_TIMEOUT: i32 = if cfg!(feature = "pg15") { 12 } else { 13 };

/// What ends a statement, a transaction or a wait by time.
pub const TIMEOUTS: &[&str] = if cfg!(feature = "pg15") {
    &["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"]
} else {
    &["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_timeout"]
};

/// At least NUM_AUXILIARY_PROCS of storage/proc.h: 5 in 15, 38 in 18, which has processes for reading and writing.
pub const AUXILIARY_PROCESSES_MAX: usize = 64;

type Text = *mut c_char;

/// SockAddr of libpq/pqcomm.h.
#[repr(C)]
struct Address {
    storage: libc::sockaddr_storage,
    length: libc::socklen_t,
}

/// The front of Port of libpq/libpq-be.h, as far as the database's name.
#[repr(C)]
pub struct Port {
    socket: c_int,
    noblock: bool,
    protocol: u32,
    local: Address,
    remote: Address,
    remote_host: Text,
    remote_hostname: Text,
    remote_hostname_resolved: c_int,
    remote_hostname_errcode: c_int,
    remote_port: Text,
    #[cfg(feature = "pg15")]
    can_accept: c_int,
    #[cfg(not(any(feature = "pg15", feature = "pg17")))]
    local_host: [c_char; 64],
    pub database_name: Text,
}

/// The number of the transaction that a process is in; 0 in none.
pub fn lxid(process: &pg_sys::PGPROC) -> u32 {
    #[cfg(feature = "pg15")]
    return process.lxid;
    #[cfg(not(feature = "pg15"))]
    return process.vxid.lxid;
}

/// The same, of whoever has a lock or waits for it.
pub fn lxid_of_lock(lock: &pg_sys::LockInstanceData) -> u32 {
    #[cfg(feature = "pg15")]
    return lock.lxid;
    #[cfg(not(feature = "pg15"))]
    return lock.vxid.localTransactionId;
}

/// The place of a process among all.
pub fn place_of(process: &pg_sys::PGPROC) -> ProcNo {
    #[cfg(feature = "pg15")]
    return ProcNo(process.pgprocno as u32);
    #[cfg(not(feature = "pg15"))]
    // SAFETY: every entry is one of that array, which is there in every process with shared memory.
    return unsafe { ProcNo(std::ptr::from_ref(process).offset_from((*pg_sys::ProcGlobal).allProcs) as u32) };
}

/// The number by which signals and virtual transactions name a process.
pub fn backend_number(process: &pg_sys::PGPROC) -> c_int {
    #[cfg(feature = "pg15")]
    return process.backendId;
    #[cfg(not(feature = "pg15"))]
    return process.vxid.procNumber;
}

/// The process of that number, if there is one.
pub fn process_of(number: c_int) -> Option<&'static pg_sys::PGPROC> {
    unsafe extern "C-unwind" {
        /// Of storage/sinvaladt.h and storage/procarray.h, which pgrx does not bind in 15.
        #[cfg_attr(not(feature = "pg15"), link_name = "ProcNumberGetProc")]
        fn BackendIdGetProc(backend: c_int) -> *mut pg_sys::PGPROC;
    }
    // SAFETY: null or an entry in shared memory that stays allocated.
    unsafe { BackendIdGetProc(number).as_ref() }
}

/// Whether a process is no background worker: a client's, a walsender, or one of autovacuum.
pub fn is_session(process: &pg_sys::PGPROC) -> bool {
    #[cfg(any(feature = "pg15", feature = "pg17"))]
    return !process.isBackgroundWorker;
    #[cfg(not(any(feature = "pg15", feature = "pg17")))]
    return process.isRegularBackend
        || u32::from(process.statusFlags) & (pg_sys::PROC_IS_AUTOVACUUM | pg_sys::PROC_IN_LOGICAL_DECODING) != 0;
}

/// Whether this process is a background worker.
pub fn am_background_worker() -> bool {
    // SAFETY: set at process start.
    #[cfg(feature = "pg15")]
    return unsafe { pg_sys::IsBackgroundWorker };
    // SAFETY: set at process start.
    #[cfg(not(feature = "pg15"))]
    return unsafe { pg_sys::MyBackendType == pg_sys::BackendType::B_BG_WORKER };
}

/// A virtual transaction's process and number.
pub fn virtual_parts(id: &pg_sys::VirtualTransactionId) -> (c_int, u32) {
    #[cfg(feature = "pg15")]
    return (id.backendId, id.localTransactionId);
    #[cfg(not(feature = "pg15"))]
    return (id.procNumber, id.localTransactionId);
}

pub fn virtual_id((process, transaction): (c_int, u32)) -> pg_sys::VirtualTransactionId {
    #[cfg(feature = "pg15")]
    return pg_sys::VirtualTransactionId { backendId: process, localTransactionId: transaction };
    #[cfg(not(feature = "pg15"))]
    return pg_sys::VirtualTransactionId { procNumber: process, localTransactionId: transaction };
}

type Handler = unsafe extern "C-unwind" fn(c_int);

/// Has a signal handled.
pub fn on_signal(signal: c_int, handler: Handler) {
    // SAFETY: a system call; whoever gives the handler says what it does.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg17"))]
        pg_sys::pqsignal(signal, Some(handler));
        #[cfg(not(any(feature = "pg15", feature = "pg17")))]
        pg_sys::pqsignal_be(signal, Some(handler));
    }
}

/// Ends this process.
pub fn exit(code: c_int) -> ! {
    // SAFETY: the regular way out of a process. It does not return, which the bindings do not say of each version.
    #[allow(unreachable_code)]
    unsafe {
        pg_sys::proc_exit(code);
        std::process::abort()
    }
}

/// A set of events to wait for, for as long as this process lives.
pub fn wait_event_set(events: c_int) -> *mut pg_sys::WaitEventSet {
    // SAFETY: since 17 sets live in TopMemoryContext, and those that belong to nobody are given back by hand.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::CreateWaitEventSet(pg_sys::TopMemoryContext, events);
        #[cfg(not(feature = "pg15"))]
        return pg_sys::CreateWaitEventSet(std::ptr::null_mut(), events);
    }
}

/// Raises an error in a READ ONLY transaction, where functions of large objects do since 16.
pub fn refuse_if_read_only(function: &std::ffi::CStr) {
    // SAFETY: the name is copied into the error.
    #[cfg(not(feature = "pg15"))]
    unsafe {
        pg_sys::PreventCommandIfReadOnly(function.as_ptr());
    }
    #[cfg(feature = "pg15")]
    let _ = function;
}

/// The records of all settings.
pub fn settings() -> Vec<*mut pg_sys::config_generic> {
    // SAFETY: an array of that many records; since 16 it is palloc'd.
    unsafe {
        let mut count: c_int = 0;
        #[cfg(feature = "pg15")]
        let all = {
            count += pg_sys::GetNumConfigOptions();
            pg_sys::get_guc_variables()
        };
        #[cfg(not(feature = "pg15"))]
        let all = pg_sys::get_guc_variables(&raw mut count);
        let records = std::slice::from_raw_parts(all, usize::try_from(count).unwrap_or(0)).to_vec();
        #[cfg(not(feature = "pg15"))]
        pg_sys::pfree(all.cast());
        records
    }
}

/// Whether a role owns a database, or may do what its owner may.
pub fn owns_database(role: Oid, database: Oid) -> bool {
    // SAFETY: catalog look-ups inside a transaction.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::pg_database_ownercheck(database, role);
        #[cfg(not(feature = "pg15"))]
        return pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, database, role);
    }
}

pub fn owns_relation(role: Oid, relation: Oid) -> bool {
    // SAFETY: as above.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::pg_class_ownercheck(relation, role);
        #[cfg(not(feature = "pg15"))]
        return pg_sys::object_ownercheck(pg_sys::RelationRelationId, relation, role);
    }
}

pub fn owns_schema(role: Oid, schema: Oid) -> bool {
    // SAFETY: as above.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::pg_namespace_ownercheck(schema, role);
        #[cfg(not(feature = "pg15"))]
        return pg_sys::object_ownercheck(pg_sys::NamespaceRelationId, schema, role);
    }
}

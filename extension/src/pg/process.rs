//! Processes: their places in PostgreSQL's process array, what transaction each is in, and signals to them.

use std::cell::RefCell;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::majors::process::{AUXILIARY_PROCESSES_MAX, am_background_worker, backend_number, is_session, lxid, place_of};
pub use super::summons::{forget_summons, install_summons, was_ended, was_sent_away, was_summoned};
use postgres_r_protocol::id::{LocalXid, ProcNo};
use postgres_r_protocol::victim;

/// A transaction that holds a lock, as found under a lock, and its process.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    pub transaction: victim::Holder,
    pub pid: i32,
}

impl Holder {
    fn new(process: ProcNo, transaction: LocalXid, writes: bool, pid: i32) -> Holder {
        Holder { transaction: victim::Holder { process, transaction, writes }, pid }
    }
}

/// How many places there will be, asked while shared memory is sized.
pub fn places() -> usize {
    // SAFETY: MaxBackends is set before shmem_request_hook runs; auxiliary processes and prepared transactions come on top.
    unsafe { pg_sys::MaxBackends as usize + AUXILIARY_PROCESSES_MAX }
}

pub(super) fn place(process: ProcNo) -> Option<*mut pg_sys::PGPROC> {
    // SAFETY: ProcGlobal is set in every process with shared memory; allProcs has allProcCount entries.
    unsafe {
        let header = pg_sys::ProcGlobal.as_ref()?;
        (process.0 < header.allProcCount).then(|| header.allProcs.add(process.0 as usize))
    }
}

/// This process's place; `None` before it has one and in the postmaster.
pub fn me() -> Option<ProcNo> {
    // SAFETY: null or this process's own entry.
    unsafe { pg_sys::MyProc.as_ref() }.map(place_of)
}

pub fn my_pid() -> i32 {
    // SAFETY: set at process start.
    unsafe { pg_sys::MyProcPid }
}

/// The process in this place, if there is one.
pub fn pid_at(index: usize) -> Option<i32> {
    let place = place(ProcNo(u32::try_from(index).ok()?))?;
    // SAFETY: see `place`; the field is read once.
    Some(unsafe { (*place).pid }).filter(|pid| *pid != 0)
}

/// The transaction that this process is in.
pub fn my_transaction() -> Option<LocalXid> {
    // SAFETY: null or this process's own entry.
    let lxid = lxid(unsafe { pg_sys::MyProc.as_ref() }?);
    (lxid != 0).then_some(LocalXid(lxid))
}

pub fn my_database() -> pg_sys::Oid {
    // SAFETY: set at process start, InvalidOid before.
    unsafe { pg_sys::MyDatabaseId }
}

pub fn is_background_worker() -> bool {
    // SAFETY: set at process start.
    am_background_worker()
}

/// Whether this process can take part in commits: forked by the postmaster, with a place of its own.
pub fn is_postmaster_child() -> bool {
    // SAFETY: set at process start.
    unsafe { pg_sys::IsUnderPostmaster }
}

/// Who runs transaction `xid` (a subtransaction's id will do), looked up under ProcArrayLock so that it can't end meanwhile.
pub fn holder_of(xid: pg_sys::TransactionId) -> Option<Holder> {
    // SAFETY: ProcArrayLock keeps entries and their xids in place while we look; the lock is ours to take since callers hold
    // no LWLocks.
    unsafe {
        let top = pg_sys::SubTransGetTopmostTransaction(xid);
        let header = pg_sys::ProcGlobal.as_ref()?;
        let lock = proc_array_lock();
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_SHARED);
        let mut found = None;
        for i in 0..header.allProcCount {
            let process = &*header.allProcs.add(i as usize);
            if process.xid == top && process.pid != 0 {
                found = Some(Holder::new(ProcNo(i), LocalXid(lxid(process)), true, process.pid));
                break;
            }
        }
        pg_sys::LWLockRelease(lock);
        found
    }
}

/// The transaction of the process with this pid, if it is still the one numbered `transaction`.
pub fn holder_by_pid(pid: i32, transaction: LocalXid) -> Option<Holder> {
    // SAFETY: BackendPidGetProc returns null or an entry in shared memory that stays allocated; fields are read once.
    let process = unsafe { pg_sys::BackendPidGetProc(pid).as_ref() }?;
    let writes = process.xid != pg_sys::InvalidTransactionId;
    (lxid(process) == transaction.0 && transaction.0 != 0).then(|| Holder::new(place_of(process), transaction, writes, pid))
}

/// Whether that process is still in that transaction.
pub fn still_in(holder: &Holder) -> bool {
    let number = holder.transaction.transaction.0;
    // SAFETY: see `place`.
    place(holder.transaction.process)
        .is_some_and(|process| unsafe { lxid(&*process) == number && (*process).pid == holder.pid })
}

/// Signals the process: its handler (see [`super::summons`]) asks what is meant. A process without the handler ignores the signal.
pub fn summon(holder: &Holder) {
    // SAFETY: a plain system call; SIGUSR2 is ignored by every PostgreSQL process that does not expect it, but for
    // walsenders and the postmaster's children with other duties, which never hold locks of user tables in a transaction.
    unsafe { libc::kill(holder.pid, libc::SIGUSR2) };
}

/// PostgreSQL's own recovery conflict, for a process that does not hear a summons: a running statement gets an ERROR, an idle
/// session a FATAL, both 40001. It may hit the transaction after the one that was meant.
pub fn dislodge(holder: &Holder) {
    if let Some(process) = place(holder.transaction.process) {
        // SAFETY: the entry is in shared memory; SendProcSignal checks that the pid still has that backend id.
        unsafe {
            let backend = backend_number(&*process);
            pg_sys::SendProcSignal(holder.pid, pg_sys::ProcSignalReason::PROCSIG_RECOVERY_CONFLICT_LOCK, backend);
        }
    }
}

/// Ends the process, as pg_terminate_backend does.
pub fn terminate(process: ProcNo) {
    // SAFETY: see `place`; the pid is read once.
    let pid = place(process).map_or(0, |process| unsafe { (*process).pid });
    if lives(pid, process) {
        // SAFETY: a plain system call.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// Whether the process of this pid has this place. A place that is free keeps the pid of whoever had it, and that number may be anybody's.
fn lives(pid: i32, process: ProcNo) -> bool {
    // SAFETY: looks the pid up among the processes that there are; the caller holds no LWLock.
    let found = unsafe { pg_sys::BackendPidGetProc(pid).as_ref() };
    pid != 0 && found.is_some_and(|found| place_of(found) == process)
}

/// Runs `visit` for every process of the database, and perhaps for some that have ended ([`lives`]), under ProcArrayLock.
fn each_in(database: pg_sys::Oid, mut visit: impl FnMut(&pg_sys::PGPROC)) {
    // SAFETY: ProcArrayLock keeps entries in place while we look; callers hold no LWLocks.
    unsafe {
        let Some(header) = pg_sys::ProcGlobal.as_ref() else { return };
        let lock = proc_array_lock();
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_SHARED);
        for i in 0..header.allProcCount {
            let process = &*header.allProcs.add(i as usize);
            if process.pid != 0 && process.databaseId == database {
                visit(process);
            }
        }
        pg_sys::LWLockRelease(lock);
    }
}

/// Has every session of the database that is in no transaction look whether it is to go ([`super::summons`]). How many sessions there are.
pub fn summon_idle_sessions(database: pg_sys::Oid) -> u32 {
    // A walsender takes the signal for its end.
    let others = pg_sys::PROC_IS_AUTOVACUUM | pg_sys::PROC_IN_LOGICAL_DECODING;
    let mut found = Vec::new();
    each_in(database, |process| {
        if is_session(process) && u32::from(process.statusFlags) & others == 0 {
            found.push((process.pid, place_of(process), lxid(process) == 0));
        }
    });
    found.retain(|&(pid, place, _)| lives(pid, place));
    for (pid, ..) in found.iter().filter(|(.., is_idle)| *is_idle) {
        // SAFETY: a plain system call; see `summon`.
        unsafe { libc::kill(*pid, libc::SIGUSR2) };
    }
    found.len() as u32
}

/// Ends every session of the database but one; background workers stay.
pub fn terminate_sessions(database: pg_sys::Oid, but: Option<ProcNo>) {
    let mut found = Vec::new();
    each_in(database, |process| {
        if is_session(process) && process.pid != my_pid() {
            found.push((process.pid, place_of(process)));
        }
    });
    found.retain(|(_, place)| Some(*place) != but);
    for (pid, _) in found.into_iter().filter(|&(pid, place)| lives(pid, place)) {
        // SAFETY: a plain system call.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// Other transactions of the database that have an id.
pub fn writers_in(database: pg_sys::Oid) -> Vec<pg_sys::TransactionId> {
    let mut found = Vec::new();
    each_in(database, |process| {
        if process.xid != pg_sys::InvalidTransactionId && process.pid != my_pid() {
            found.push(process.xid);
        }
    });
    found
}

fn proc_array_lock() -> *mut pg_sys::LWLock {
    /// ProcArrayLock is number 4 of lwlocknames.h.
    const PROC_ARRAY_LOCK: usize = 4;
    // SAFETY: MainLWLockArray holds all individually named locks.
    unsafe { &raw mut (*pg_sys::MainLWLockArray.add(PROC_ARRAY_LOCK)).lock }
}

thread_local! {
    static ON_EXIT: RefCell<Vec<Box<dyn Fn()>>> = const { RefCell::new(Vec::new()) };
}

/// Runs `callback` when this process ends in an orderly way, before it gives up its place.
pub fn on_exit(callback: impl Fn() + 'static) {
    let first = ON_EXIT.with_borrow_mut(|callbacks| {
        callbacks.push(Box::new(callback));
        callbacks.len() == 1
    });
    if first {
        // SAFETY: a plain callback; the list has room for a handful of extensions.
        unsafe { pg_sys::before_shmem_exit(Some(exiting), pg_sys::Datum::from(0usize)) };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn exiting(_code: i32, _arg: pg_sys::Datum) {
    for callback in ON_EXIT.take() {
        callback();
    }
}

/// Whether the server is a standby, or still recovers from a crash.
pub fn in_recovery() -> bool {
    // SAFETY: reads shared memory.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Whether shared_preload_libraries are being loaded.
pub fn is_preloading() -> bool {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// No backtrace is taken of an error, whatever RUST_BACKTRACE says in the server's environment: for the first one of each process the library's
/// debug information would be read, with all locks held, and what PostgreSQL logs does not show it. Who wants them sets RUST_LIB_BACKTRACE, which is left as it is. Called while libraries are preloaded.
pub fn leave_out_backtraces() {
    const VARIABLE: &str = "RUST_LIB_BACKTRACE";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: the postmaster has one thread.
        unsafe { std::env::set_var(VARIABLE, "0") };
    }
}

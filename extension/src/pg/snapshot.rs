//! Questions about snapshots.

use std::cell::Cell;
use std::ffi::CStr;

use pgrx::pg_sys;

thread_local! {
    /// SET TRANSACTION SNAPSHOT was run in the current transaction.
    static IS_IMPORTED: Cell<bool> = const { Cell::new(false) };
}

/// Whether all statements of the current transaction see by the same snapshot (REPEATABLE READ and above).
pub fn is_kept_for_transaction() -> bool {
    // SAFETY: reads the isolation level.
    unsafe { pg_sys::XactIsoLevel as u32 >= pg_sys::XACT_REPEATABLE_READ }
}

/// Whether the current transaction has taken its first snapshot.
pub fn is_taken() -> bool {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::FirstSnapshotSet }
}

/// Whether the current transaction sees by another one's snapshot.
pub fn is_imported() -> bool {
    IS_IMPORTED.get()
}

/// At the end of every transaction.
pub fn forget_import() {
    IS_IMPORTED.set(false);
}

/// Notes SET TRANSACTION SNAPSHOT.
///
/// # Safety
/// `utility` must be null or a parse tree.
pub(super) unsafe fn note_import(utility: *const pg_sys::Node) {
    // SAFETY: by contract; the tag says what the node is, its name is null or ends with a zero byte.
    unsafe {
        if utility.is_null() || (*utility).type_ != pg_sys::NodeTag::T_VariableSetStmt {
            return;
        }
        let set = &*utility.cast::<pg_sys::VariableSetStmt>();
        if !set.name.is_null() && CStr::from_ptr(set.name) == c"TRANSACTION SNAPSHOT" {
            IS_IMPORTED.set(true);
        }
    }
}

/// Whether nothing has become visible since the active snapshot was taken: a new one would see the same.
pub fn active_is_current() -> bool {
    // SAFETY: both snapshots stay valid while we compare; nothing in between takes another.
    unsafe { !pg_sys::ActiveSnapshotSet() || is_current(&*pg_sys::GetActiveSnapshot()) }
}

/// Whether nothing has become visible since the snapshot that the transaction keeps was taken; false before it is.
pub fn of_transaction_is_current() -> bool {
    // SAFETY: gives the snapshot that is there already.
    unsafe { pg_sys::FirstSnapshotSet && is_current(&*pg_sys::GetTransactionSnapshot()) }
}

/// # Safety
/// `snapshot` must be an MVCC snapshot, valid while another is taken.
unsafe fn is_current(snapshot: &pg_sys::SnapshotData) -> bool {
    // SAFETY: by contract.
    unsafe {
        // No other may be taken while a query runs in parallel; nothing is written then, so that nobody needs to know.
        if pg_sys::IsInParallelMode() {
            return false;
        }
        let latest = &*pg_sys::GetLatestSnapshot();
        snapshot.xmin == latest.xmin && snapshot.xmax == latest.xmax && running(snapshot) == running(latest)
    }
}

/// # Safety
/// `snapshot` must be an MVCC snapshot.
unsafe fn running(snapshot: &pg_sys::SnapshotData) -> &[pg_sys::TransactionId] {
    match snapshot.xcnt {
        0 => &[],
        // SAFETY: xip holds xcnt transaction ids.
        count => unsafe { std::slice::from_raw_parts(snapshot.xip, count as usize) },
    }
}

/// Takes a snapshot and lets other transactions have it for as long as this one lasts: its name, and what `before` gave before it was taken.
/// `is_exact` is asked about that once it is taken, and another is taken until the answer is yes.
pub fn export<T>(before: impl Fn() -> T, is_exact: impl Fn(&T) -> bool) -> (String, T) {
    loop {
        crate::pg::interrupt::check();
        let known = before();
        // SAFETY: a copy of a snapshot taken now is pushed, registered by the export, and popped.
        unsafe {
            pg_sys::PushCopiedSnapshot(pg_sys::GetLatestSnapshot());
            let name = is_exact(&known).then(|| {
                let name = pg_sys::ExportSnapshot(pg_sys::GetActiveSnapshot());
                std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned()
            });
            pg_sys::PopActiveSnapshot();
            if let Some(name) = name {
                return (name, known);
            }
        }
    }
}

/// The snapshot that the transaction keeps, active until dropped. In a transaction that keeps one; taken now if it has none yet.
pub struct Kept(());

impl Kept {
    pub fn take() -> Kept {
        // SAFETY: pushes the transaction's snapshot; popped in Drop, or by the end of the transaction after an ERROR.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
        Kept(())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: ours is on top.
            unsafe { pg_sys::PopActiveSnapshot() }
        }
    }
}

/// An active snapshot that is as new as can be, until dropped.
pub struct Fresh(());

impl Fresh {
    pub fn take() -> Fresh {
        // SAFETY: pushes a copy of a snapshot taken now; popped in Drop, or by the end of the transaction after an ERROR.
        unsafe { pg_sys::PushCopiedSnapshot(pg_sys::GetLatestSnapshot()) };
        Fresh(())
    }

    /// Makes what this transaction did so far visible to it.
    pub fn see_own_changes(&mut self) {
        // SAFETY: the snapshot on top of the stack is ours, copied and not registered elsewhere.
        unsafe {
            pg_sys::CommandCounterIncrement();
            pg_sys::UpdateActiveSnapshotCommandId();
        }
    }

    /// Replaces it by a newer one.
    pub fn renew(&mut self) {
        // SAFETY: pops our own, pushes another.
        unsafe {
            pg_sys::PopActiveSnapshot();
            pg_sys::PushCopiedSnapshot(pg_sys::GetLatestSnapshot());
        }
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: ours is on top.
            unsafe { pg_sys::PopActiveSnapshot() }
        }
    }
}

unsafe extern "C-unwind" {
    /// Of storage/predicate.h, which pgrx does not bind.
    fn ReleasePredicateLocks(is_commit: bool, is_read_only_safe: bool);
}

/// Takes the snapshots anew that are there, so that they show what is committed by now. Nothing must have been read by the transaction's own, if it
/// keeps one, nor by the active one.
pub fn renew() {
    // SAFETY: in a transaction that is not in parallel mode. The steps are those by which PostgreSQL took the snapshots, undone and done again: the
    // transaction's own snapshot is registered with no owner, so it is given one to be taken back from; the copies that are active or registered
    // live on by themselves. A SERIALIZABLE transaction has read nothing, so that what is kept of it in shared memory can be given back as by a
    // rollback; the next snapshot begins it anew.
    unsafe {
        if pg_sys::IsInParallelMode() || !pg_sys::FirstSnapshotSet {
            return;
        }
        if is_kept_for_transaction() {
            let first = pg_sys::GetTransactionSnapshot();
            if pg_sys::XactIsoLevel as u32 == pg_sys::XACT_SERIALIZABLE {
                pg_sys::ffi::pg_guard_ffi_boundary(|| ReleasePredicateLocks(false, false));
            }
            let owner = pg_sys::TopTransactionResourceOwner;
            pg_sys::RegisterSnapshotOnOwner(first, owner);
            (*first).regd_count -= 1;
            pg_sys::UnregisterSnapshotFromOwner(first, owner);
            pg_sys::FirstSnapshotSet = false;
        }
        let renewed = pg_sys::GetTransactionSnapshot();
        replace_active(renewed);
    }
}

/// # Safety
/// `snapshot` must be valid.
unsafe fn replace_active(snapshot: pg_sys::Snapshot) {
    // SAFETY: by contract. The new one takes the place of the old one on the stack, at the level of its portal where the portal knows it.
    unsafe {
        if !pg_sys::ActiveSnapshotSet() {
            return;
        }
        let portal = pg_sys::ActivePortal;
        let is_portals = !portal.is_null() && (*portal).portalSnapshot == pg_sys::GetActiveSnapshot();
        let level = if is_portals { (*portal).createLevel } else { pg_sys::GetCurrentTransactionNestLevel() };
        pg_sys::PopActiveSnapshot();
        pg_sys::PushActiveSnapshotWithLevel(snapshot, level);
        if is_portals {
            (*portal).portalSnapshot = pg_sys::GetActiveSnapshot();
        }
    }
}

/// The query sees by the active snapshot.
///
/// # Safety
/// `query` must be a query descriptor that was not started.
pub unsafe fn renew_of(query: *mut pg_sys::QueryDesc) {
    // SAFETY: by contract; its snapshot was registered when it was made, with the same owner.
    unsafe {
        if pg_sys::ActiveSnapshotSet() {
            let old = (*query).snapshot;
            (*query).snapshot = pg_sys::RegisterSnapshot(pg_sys::GetActiveSnapshot());
            pg_sys::UnregisterSnapshot(old);
        }
    }
}

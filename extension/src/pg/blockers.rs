//! Whom a process waits for: the look-up behind pg_blocking_pids.

use pgrx::pg_sys;
use postgres_r_protocol::id::LocalXid;

use super::majors::process::{lxid, lxid_of_lock};
use super::process::{Holder, holder_by_pid, my_pid};

/// The transactions that hold the lock that this process waits for, or wait for it in front of this process. Empty when this
/// process waits for no lock. To be called with no LWLock held.
pub fn mine() -> Vec<Holder> {
    of(my_pid())
}

/// Whether the process with this pid waits for this one, perhaps behind others.
pub fn waits_for_me(pid: i32) -> bool {
    let (mut seen, mut open) = (vec![pid], vec![pid]);
    while let Some(next) = open.pop() {
        for blocker in of(next) {
            if blocker.pid == my_pid() {
                return true;
            }
            if !seen.contains(&blocker.pid) {
                seen.push(blocker.pid);
                open.push(blocker.pid);
            }
        }
    }
    false
}

fn of(pid: i32) -> Vec<Holder> {
    let mut blockers = Vec::new();
    in_own_memory(|| {
        // SAFETY: returns palloc'd arrays whose sizes it tells; freed with the memory context.
        let data = unsafe { &*pg_sys::GetBlockerStatusData(pid) };
        for index in 0..data.nprocs {
            // SAFETY: procs has nprocs entries.
            let blocked = unsafe { &*data.procs.add(index as usize) };
            // SAFETY: every entry's ranges lie inside of the arrays.
            let (locks, waiters) = unsafe {
                (
                    std::slice::from_raw_parts(data.locks.add(blocked.first_lock as usize), blocked.num_locks as usize),
                    std::slice::from_raw_parts(
                        data.waiter_pids.add(blocked.first_waiter as usize),
                        blocked.num_waiters as usize,
                    ),
                )
            };
            collect(blocked.pid, locks, waiters, &mut blockers);
        }
    });
    blockers
}

fn collect(pid: i32, locks: &[pg_sys::LockInstanceData], waiters: &[i32], blockers: &mut Vec<Holder>) {
    let Some(wanted) = locks.iter().find(|lock| lock.pid == pid) else { return };
    for lock in locks {
        if lock.leaderPid == wanted.leaderPid {
            continue;
        }
        let holds = (1..=pg_sys::AccessExclusiveLock as i32)
            .any(|mode| lock.holdMask & (1 << mode) != 0 && conflict(wanted.waitLockMode, mode));
        let stands_before = lock.waitLockMode != pg_sys::NoLock as i32
            && conflict(wanted.waitLockMode, lock.waitLockMode)
            && waiters.contains(&lock.pid);
        if (holds || stands_before)
            && let Some(holder) = holder_by_pid(lock.leaderPid, LocalXid(lxid_of_lock(lock))).or_else(|| leader(lock))
        {
            blockers.push(holder);
        }
    }
}

/// A parallel worker's lock belongs to its leader's transaction, which has another local number.
fn leader(lock: &pg_sys::LockInstanceData) -> Option<Holder> {
    if lock.leaderPid == lock.pid {
        return None;
    }
    // SAFETY: null or an entry in shared memory that stays allocated.
    let process = unsafe { pg_sys::BackendPidGetProc(lock.leaderPid).as_ref() }?;
    holder_by_pid(lock.leaderPid, LocalXid(lxid(process)))
}

fn conflict(a: i32, b: i32) -> bool {
    // SAFETY: reads a constant table; both are lock modes of the default method. Advisory locks use the same table.
    unsafe { pg_sys::DoLockModesConflict(a, b) }
}

/// Runs `work` in a memory context that is deleted afterwards. The report hook, from which the look-up is called, runs in
/// ErrorContext, which only an error empties.
fn in_own_memory(work: impl FnOnce()) {
    // SAFETY: created under TopMemoryContext, switched to and back, deleted once.
    unsafe {
        let context = pg_sys::AllocSetContextCreateInternal(
            pg_sys::TopMemoryContext,
            c"postgres_r blockers".as_ptr(),
            pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
            pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
            pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
        );
        let previous = pg_sys::MemoryContextSwitchTo(context);
        work();
        pg_sys::MemoryContextSwitchTo(previous);
        pg_sys::MemoryContextDelete(context);
    }
}

//! Shared memory: asked for before the postmaster starts, laid out once, the same address in every process.
//!
//! What lives there is made of atomics, locks and byte rings, so sharing it is safe by type. Nothing there points into a
//! process's own heap.

use std::cell::UnsafeCell;
use std::mem::{align_of, size_of};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use pgrx::pg_sys;
use pgrx::prelude::*;
use postgres_r_protocol::platform::Ring;

use super::lock::Lock;

/// Everything starts on a cache line of its own.
const ALIGN: usize = 64;

const AREA: &std::ffi::CStr = c"postgres_r";

/// What an extension wants of shared memory, decided when the settings are known.
pub struct Demand {
    pub bytes: usize,
    pub locks: usize,
}

type Hook = Option<unsafe extern "C-unwind" fn()>;

struct Callbacks {
    demand: fn() -> Demand,
    lay_out: fn(&mut Arena),
    previous_request: Hook,
    previous_startup: Hook,
}

static CALLBACKS: OnceLock<Callbacks> = OnceLock::new();

/// Called while shared_preload_libraries are loaded. `lay_out` runs again when the postmaster starts over after a crash.
pub fn install(demand: fn() -> Demand, lay_out: fn(&mut Arena)) {
    // SAFETY: the postmaster is single-threaded and loading libraries; hooks are plain function pointers.
    let (previous_request, previous_startup) = unsafe { (pg_sys::shmem_request_hook, pg_sys::shmem_startup_hook) };
    if CALLBACKS.set(Callbacks { demand, lay_out, previous_request, previous_startup }).is_ok() {
        // SAFETY: as above.
        unsafe {
            pg_sys::shmem_request_hook = Some(on_request);
            pg_sys::shmem_startup_hook = Some(on_startup);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_request() {
    let Some(callbacks) = CALLBACKS.get() else { return };
    if let Some(previous) = callbacks.previous_request {
        // SAFETY: the hook that was installed before ours, called as PostgreSQL would.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| previous()) };
    }
    let demand = (callbacks.demand)();
    // SAFETY: we are in shmem_request_hook, where these are allowed.
    unsafe {
        pg_sys::RequestAddinShmemSpace(demand.bytes);
        pg_sys::RequestNamedLWLockTranche(AREA.as_ptr(), demand.locks as i32);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_startup() {
    let Some(callbacks) = CALLBACKS.get() else { return };
    if let Some(previous) = callbacks.previous_startup {
        // SAFETY: the hook that was installed before ours, called as PostgreSQL would.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| previous()) };
    }
    let demand = (callbacks.demand)();
    let mut found = false;
    // SAFETY: we are in shmem_startup_hook; the tranche was requested above with this number of locks.
    let (base, locks) = unsafe {
        let base = pg_sys::ShmemInitStruct(AREA.as_ptr(), demand.bytes, &mut found).cast::<u8>();
        (base, pg_sys::GetNamedLWLockTranche(AREA.as_ptr()))
    };
    assert!(!found, "shared memory of postgres_r laid out twice");
    let mut arena = Arena { base, used: 0, size: demand.bytes, locks, locks_used: 0, locks_total: demand.locks };
    (callbacks.lay_out)(&mut arena);
}

/// The bytes that [`Arena::slice`] takes for `n` values.
pub const fn bytes_of<T>(n: usize) -> usize {
    (size_of::<T>() * n).next_multiple_of(ALIGN)
}

/// Hands out the area front to back. Values live until the server ends, hence `'static`.
pub struct Arena {
    base: *mut u8,
    used: usize,
    size: usize,
    locks: *mut pg_sys::LWLockPadded,
    locks_used: usize,
    locks_total: usize,
}

impl Arena {
    /// `n` default values. `T` must not own heap memory: other processes will see it.
    pub fn slice<T: Default + Sync + 'static>(&mut self, n: usize) -> &'static [T] {
        const { assert!(align_of::<T>() <= ALIGN) };
        let start = self.take(bytes_of::<T>(n)).cast::<T>();
        for i in 0..n {
            // SAFETY: `take` returned room for n values of T, aligned; nobody else has seen it yet.
            unsafe { start.add(i).write(T::default()) };
        }
        // SAFETY: just initialised; never freed before the process ends.
        unsafe { std::slice::from_raw_parts(start, n) }
    }

    pub fn ring(&mut self, size: usize) -> ByteRing {
        ByteRing { base: self.take(size.next_multiple_of(ALIGN)), size }
    }

    pub fn lock(&mut self) -> Lock {
        assert!(self.locks_used < self.locks_total, "more locks used than requested");
        // SAFETY: the tranche has `locks_total` locks.
        let lock = unsafe { &raw mut (*self.locks.add(self.locks_used)).lock };
        self.locks_used += 1;
        Lock::new(lock)
    }

    fn take(&mut self, bytes: usize) -> *mut u8 {
        assert!(bytes <= self.size - self.used, "more shared memory used than requested");
        // SAFETY: checked to lie inside the area.
        let start = unsafe { self.base.add(self.used) };
        self.used += bytes;
        start
    }
}

/// Bytes that one process writes and others read later, told by an atomic elsewhere that they may.
pub struct ByteRing {
    base: *mut u8,
    size: usize,
}

// SAFETY: plain memory; writers and readers are ordered by the protocol of the queue that owns it (see `apply::queue`).
unsafe impl Sync for ByteRing {}
// SAFETY: as above.
unsafe impl Send for ByteRing {}

impl Ring for ByteRing {
    fn size(&self) -> usize {
        self.size
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset <= self.size && bytes.len() <= self.size - offset, "write outside of a ring");
        // SAFETY: inside the ring, checked above; the source is not in it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(offset), bytes.len()) };
    }

    fn read(&self, offset: usize, len: usize, out: &mut Vec<u8>) {
        assert!(offset <= self.size && len <= self.size - offset, "read outside of a ring");
        out.reserve(len);
        // SAFETY: inside the ring, checked above; `out` has room for `len` more bytes, which are then initialised.
        unsafe {
            std::ptr::copy_nonoverlapping(self.base.add(offset), out.as_mut_ptr().add(out.len()), len);
            out.set_len(out.len() + len);
        }
    }
}

/// A process's handle on the layout. Set by the postmaster and inherited by its children; set again after a crash.
pub struct Handle<T: 'static> {
    pointer: AtomicPtr<T>,
}

impl<T: Sync> Handle<T> {
    pub const fn unset() -> Handle<T> {
        Handle { pointer: AtomicPtr::new(std::ptr::null_mut()) }
    }

    pub fn set(&self, value: T) {
        self.pointer.store(Box::leak(Box::new(value)), Ordering::Release);
    }

    pub fn get(&self) -> Option<&'static T> {
        // SAFETY: null, or leaked by `set` and never freed.
        unsafe { self.pointer.load(Ordering::Acquire).as_ref() }
    }
}

/// PostgreSQL's condition variable: sleepers are woken all at once.
pub struct Condition {
    inner: UnsafeCell<pg_sys::ConditionVariable>,
}

// SAFETY: a condition variable guards itself with a spinlock.
unsafe impl Sync for Condition {}

impl Default for Condition {
    fn default() -> Self {
        // SAFETY: zeroes are a valid bit pattern, and Init sets what must be set; it holds no pointer to itself.
        let mut variable = unsafe { std::mem::zeroed::<pg_sys::ConditionVariable>() };
        // SAFETY: a valid, exclusive pointer.
        unsafe { pg_sys::ConditionVariableInit(&mut variable) };
        Condition { inner: UnsafeCell::new(variable) }
    }
}

impl Condition {
    pub fn broadcast(&self) {
        // SAFETY: initialised in Default; lives in shared memory.
        unsafe { pg_sys::ConditionVariableBroadcast(self.inner.get()) };
    }

    /// Sleeps until `holds`, checking interrupts. False when the time was over first.
    pub fn wait_until(&self, timeout: std::time::Duration, holds: impl Fn() -> bool) -> bool {
        let deadline = std::time::Instant::now() + timeout;
        // SAFETY: as above; every path out cancels the sleep, and so does PostgreSQL's abort.
        unsafe { pg_sys::ConditionVariablePrepareToSleep(self.inner.get()) };
        let mut fulfilled = holds();
        while !fulfilled {
            let left = deadline.saturating_duration_since(std::time::Instant::now()).as_millis();
            if left == 0 {
                break;
            }
            // SAFETY: as above.
            unsafe { pg_sys::ConditionVariableTimedSleep(self.inner.get(), left as i64, pg_sys::PG_WAIT_EXTENSION) };
            fulfilled = holds();
        }
        // SAFETY: as above.
        unsafe { pg_sys::ConditionVariableCancelSleep() };
        fulfilled
    }
}

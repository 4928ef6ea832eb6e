//! Memory contexts as owned values.

use pgrx::pg_sys;

/// A memory context that belongs to this value and lives as long.
#[derive(Debug)]
pub struct Context(pg_sys::MemoryContext);

impl Context {
    /// One that outlives transactions.
    pub fn lasting(name: &'static std::ffi::CStr) -> Context {
        // SAFETY: made when a backend starts, and never deleted.
        unsafe { Context::below(pg_sys::CacheMemoryContext, name) }
    }

    /// One that ends with the transaction at the latest; the value must not outlive the transaction.
    pub fn in_transaction(name: &'static std::ffi::CStr) -> Context {
        // SAFETY: there as long as the transaction.
        unsafe { Context::below(pg_sys::TopTransactionContext, name) }
    }

    /// # Safety
    /// `parent` must be a living context.
    unsafe fn below(parent: pg_sys::MemoryContext, name: &'static std::ffi::CStr) -> Context {
        // SAFETY: by contract; the name is static.
        Context(unsafe {
            pg_sys::AllocSetContextCreateInternal(
                parent,
                name.as_ptr(),
                0,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        })
    }

    pub(super) fn raw(&self) -> pg_sys::MemoryContext {
        self.0
    }

    /// Runs `f` with this as the current context.
    pub fn with<R>(&self, f: impl FnOnce() -> R) -> R {
        let _switched = Switched::to(self.0);
        f()
    }

    /// Frees everything that was allocated in this context.
    pub fn reset(&mut self) {
        // SAFETY: the context is ours and alive; borrowed mutably, so nothing of ours still points into it.
        unsafe { pg_sys::MemoryContextReset(self.0) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: created by us, deleted once. While an ERROR unwinds nothing may call PostgreSQL:
            // a lasting one then leaks, another goes with its transaction.
            unsafe { pg_sys::MemoryContextDelete(self.0) }
        }
    }
}

/// The current context, put back when dropped. PostgreSQL resets it by itself after an ERROR.
struct Switched(pg_sys::MemoryContext);

impl Switched {
    fn to(context: pg_sys::MemoryContext) -> Switched {
        // SAFETY: assigning CurrentMemoryContext a living context is what MemoryContextSwitchTo does.
        unsafe {
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = context;
            Switched(before)
        }
    }
}

impl Drop for Switched {
    fn drop(&mut self) {
        // SAFETY: `self.0` was current when this was made and outlives this scope.
        unsafe { pg_sys::CurrentMemoryContext = self.0 }
    }
}

//! PostgreSQL's interrupts: cancel, terminate, and holding them off.

use pgrx::pg_sys;

/// Serves pending interrupts; raises what they ask for.
pub fn check() {
    // SAFETY: flags of this process; ProcessInterrupts raises through pgrx's guard.
    unsafe {
        if pg_sys::InterruptPending != 0 {
            pg_sys::ProcessInterrupts();
        }
    }
}

/// Whether a cancel or the end of the session is asked for and not yet served.
pub fn pending() -> bool {
    // SAFETY: flags of this process.
    unsafe { pg_sys::QueryCancelPending != 0 || pg_sys::ProcDiePending != 0 }
}

/// Whether this process was asked to end.
pub fn die_pending() -> bool {
    // SAFETY: a flag of this process.
    unsafe { pg_sys::ProcDiePending != 0 }
}

/// This process's wait is to end with an ERROR, as a cancel would end it. Raises nothing.
pub fn cancel_wait() {
    // SAFETY: flags of this process; what StatementCancelHandler sets.
    unsafe {
        pg_sys::InterruptPending = 1;
        pg_sys::QueryCancelPending = 1;
    }
}

/// Drops a cancel that came too late.
pub fn forget_cancel() {
    // SAFETY: a flag of this process.
    unsafe { pg_sys::QueryCancelPending = 0 };
}

/// Serves barriers (ProcSignalBarrier) only, for a wait in which cancel and terminate must not be: other processes wait until this one has
/// served them.
pub fn serve_barrier() {
    // SAFETY: a flag of this process, and what ProcessInterrupts itself would call.
    unsafe {
        if pg_sys::ProcSignalBarrierPending != 0 {
            pg_sys::ProcessProcSignalBarrier();
        }
    }
}

/// As HOLD_INTERRUPTS. An ERROR sets the count back to zero by itself.
pub fn hold() {
    // SAFETY: a counter of this process.
    unsafe { pg_sys::InterruptHoldoffCount += 1 };
}

/// As RESUME_INTERRUPTS.
pub fn resume() {
    // SAFETY: a counter of this process.
    unsafe { pg_sys::InterruptHoldoffCount = pg_sys::InterruptHoldoffCount.saturating_sub(1) };
}

/// Reads the configuration again if SIGHUP asked for it.
pub fn reload_config() {
    // SAFETY: a flag of this process; the context is the one background workers use.
    unsafe {
        if pg_sys::ConfigReloadPending != 0 {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

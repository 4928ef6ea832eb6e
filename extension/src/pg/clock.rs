//! The transaction's idea of when it started.

use pgrx::pg_sys;

/// Makes now() and statement_timestamp() of the current transaction say this, in microseconds since 2000-01-01 UTC.
pub fn pretend_started_at(time: i64) {
    // SAFETY: assigns two variables of this process; made for parallel workers, which take over their leader's times.
    unsafe { pg_sys::SetParallelStartTimestamps(time, time) }
}

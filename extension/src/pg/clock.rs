//! Time: when the current transaction started, and now.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use postgres_r_protocol::id::Moment;
use postgres_r_protocol::sighting::Uptime;

/// Makes now() and statement_timestamp() of the current transaction give `time`, in microseconds since 2000-01-01 UTC.
pub fn pretend_started_at(time: i64) {
    // SAFETY: assigns two variables of this process; made for parallel workers, which take over their leader's times.
    unsafe { pg_sys::SetParallelStartTimestamps(time, time) }
}

/// When the current transaction started.
pub fn transaction_started_at() -> i64 {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::GetCurrentTransactionStartTimestamp() }
}

/// Microseconds since 2000-01-01 UTC.
pub fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// Now, in milliseconds, by the clock of [`now`]: the same for all processes of the server.
pub fn millis() -> u64 {
    (now() / 1_000).max(0) as u64
}

/// How long ago `then` was; zero if it lies ahead.
pub fn since(then: i64) -> Duration {
    Duration::from_micros(now().saturating_sub(then).max(0) as u64)
}

/// Now, by a clock that only goes forward, also while the machine is asleep; the same in all processes.
pub fn uptime() -> Uptime {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to a variable of ours; the clock is there on every Linux that PostgreSQL 15 runs on.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    Uptime(Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.max(0) as u32))
}

/// Now, by a clock that only goes forward; of this process alone.
pub fn moment() -> Moment {
    static BEGINNING: OnceLock<Instant> = OnceLock::new();
    Moment(BEGINNING.get_or_init(Instant::now).elapsed())
}

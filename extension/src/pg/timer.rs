//! Timers of this process: one that sets its latch, one that cancels what it does, one that says that it still lives.

use std::sync::OnceLock;
use std::time::Duration;

use super::majors::process::USER_TIMEOUT;

mod raw {
    unsafe extern "C" {
        // utils/timeout.h, which pgrx does not bind.
        pub fn RegisterTimeout(id: i32, handler: unsafe extern "C" fn()) -> i32;
        pub fn enable_timeout_after(id: i32, delay_ms: i32);
        pub fn enable_timeout_every(id: i32, first: i64, delay_ms: i32);
        pub fn disable_timeout(id: i32, keep_indicator: bool);
        pub fn disable_all_timeouts(keep_indicators: bool);
    }
}

static TIMER: OnceLock<i32> = OnceLock::new();
static LIMIT: OnceLock<i32> = OnceLock::new();
static BEAT: OnceLock<i32> = OnceLock::new();
static ON_BEAT: OnceLock<fn()> = OnceLock::new();

unsafe extern "C" fn on_time() {
    // PostgreSQL's handler of SIGALRM has set the latch already.
}

unsafe extern "C" fn on_limit() {
    super::interrupt::cancel_wait();
}

/// What this background worker does is cancelled after so long, unless [`stop_all`] comes first.
pub fn cancel_after(limit: Duration) {
    // SAFETY: as `start`; the handler sets flags, as PostgreSQL's own does for statement_timeout.
    unsafe {
        let timer = *LIMIT.get_or_init(|| raw::RegisterTimeout(USER_TIMEOUT, on_limit));
        raw::enable_timeout_after(timer, limit.as_millis() as i32);
    }
}

unsafe extern "C" fn on_beat() {
    if let Some(act) = ON_BEAT.get() {
        act();
    }
}

/// Calls `act`, which may touch nothing but atomics, every so often from now on, until [`stop_beat`] or [`stop_all`]. A process has one such
/// `act`.
pub fn start_beat(every: Duration, act: fn()) {
    let _ = ON_BEAT.set(act);
    // SAFETY: as `start`; the handler calls what touches atomics only.
    unsafe {
        let timer = *BEAT.get_or_init(|| raw::RegisterTimeout(USER_TIMEOUT, on_beat));
        raw::enable_timeout_every(timer, super::clock::now() + every.as_micros() as i64, every.as_millis() as i32);
    }
}

pub fn stop_beat() {
    if let Some(timer) = BEAT.get() {
        // SAFETY: registered above.
        unsafe { raw::disable_timeout(*timer, false) };
    }
}

/// (Re)starts it. Raises nothing once it was started for the first time.
pub fn start(after: Duration) {
    // SAFETY: USER_TIMEOUT asks for a free number; the handler does nothing. Called by background workers after
    // InitializeTimeouts, never nested in another PostgreSQL call that could be interrupted.
    unsafe {
        let timer = *TIMER.get_or_init(|| raw::RegisterTimeout(USER_TIMEOUT, on_time));
        raw::enable_timeout_after(timer, after.as_millis() as i32);
    }
}

pub fn stop() {
    if let Some(timer) = TIMER.get() {
        // SAFETY: registered above.
        unsafe { raw::disable_timeout(*timer, false) };
    }
}

/// Every timer of this process, PostgreSQL's own too: after an ERROR.
pub fn stop_all() {
    // SAFETY: what PostgreSQL's loops do after an ERROR.
    unsafe { raw::disable_all_timeouts(false) };
}

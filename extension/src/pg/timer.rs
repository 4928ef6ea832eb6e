//! A timer that sets this process's latch.

use std::sync::OnceLock;
use std::time::Duration;

mod raw {
    unsafe extern "C" {
        // utils/timeout.h, which pgrx does not bind.
        pub fn RegisterTimeout(id: i32, handler: unsafe extern "C" fn()) -> i32;
        pub fn enable_timeout_after(id: i32, delay_ms: i32);
        pub fn disable_timeout(id: i32, keep_indicator: bool);
        pub fn disable_all_timeouts(keep_indicators: bool);
    }
}

/// USER_TIMEOUT of PostgreSQL 15's TimeoutId: the first that extensions get.
const USER_TIMEOUT: i32 = 12;

static TIMER: OnceLock<i32> = OnceLock::new();

unsafe extern "C" fn on_time() {
    // PostgreSQL's handler of SIGALRM has set the latch already.
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

//! Waiting for a condition that nothing announces.

use std::thread;
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `condition` gives a value, and returns it with the time that took; panics with the last reason at the bound.
pub fn until<T>(what: &str, at_most: Duration, mut condition: impl FnMut() -> Result<T, String>) -> (T, Duration) {
    let start = Instant::now();
    loop {
        match condition() {
            Ok(value) => return (value, start.elapsed()),
            Err(reason) if start.elapsed() > at_most => panic!("{what}: not within {at_most:?}: {reason}"),
            Err(_) => thread::sleep(LOOK_EVERY),
        }
    }
}

//! How fast copies may be read, all of this node's together: `copy.rate` of the configuration.
//!
//! Each piece that has been read is followed by as long a pause as it took of the rate. Nothing is saved up: who was idle may not be faster afterwards.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio::time::sleep;

#[derive(Debug)]
pub struct Pace {
    /// A second.
    bytes: Option<u64>,
    /// When what was read so far is paid for.
    free_at: Cell<Instant>,
}

impl Pace {
    pub fn of(bytes_a_second: Option<u64>) -> Pace {
        Pace { bytes: bytes_a_second, free_at: Cell::new(Instant::now()) }
    }

    /// After so many bytes were read, before more are.
    pub async fn pass(&self, bytes: usize) {
        let pause = self.pause(bytes, Instant::now());
        if !pause.is_zero() {
            sleep(pause).await;
        }
    }

    fn pause(&self, bytes: usize, now: Instant) -> Duration {
        let Some(rate) = self.bytes else { return Duration::ZERO };
        let cost = Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / rate.max(1));
        self.free_at.set(self.free_at.get().max(now) + cost);
        self.free_at.get() - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_for_all_together_and_idle_time_is_not_saved() {
        let pace = Pace::of(Some(1_000));
        let start = pace.free_at.get();
        assert_eq!(pace.pause(500, start), Duration::from_millis(500));
        // Another connection, at the same moment, waits for both.
        assert_eq!(pace.pause(500, start), Duration::from_secs(1));
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.pause(2_000, later), Duration::from_secs(2));
        assert_eq!(Pace::of(None).pause(usize::MAX, later), Duration::ZERO);
    }
}

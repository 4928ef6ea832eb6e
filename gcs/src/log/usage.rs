//! How much of the log is kept, and how fast it grows: what tells an operator for how long a node can be away before it needs a copy.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::LogReader;

/// The pace is that of this time, seen so often.
const PACE_OVER: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Usage {
    log: LogReader,
    bytes_max: u64,
    /// What had been written in all, and when.
    samples: RefCell<VecDeque<(Instant, u64)>>,
}

impl Usage {
    pub fn new(log: LogReader, bytes_max: u64) -> Usage {
        let samples = RefCell::new(VecDeque::from([(Instant::now(), log.written())]));
        Usage { log, bytes_max, samples }
    }

    /// Looks now and then, for ever.
    pub async fn watch(&self) {
        let mut clock = interval(LOOK_EVERY);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            note(&mut self.samples.borrow_mut(), Instant::now(), self.log.written());
        }
    }

    /// Bytes that are kept, that may be kept, and that come in a second.
    pub fn bytes(&self) -> (u64, u64, u64) {
        let pace = pace(&self.samples.borrow(), Instant::now(), self.log.written());
        (self.log.kept(), self.bytes_max, pace)
    }
}

fn note(samples: &mut VecDeque<(Instant, u64)>, now: Instant, written: u64) {
    samples.push_back((now, written));
    while samples.len() > 1 && samples.front().is_some_and(|(at, _)| now.duration_since(*at) > PACE_OVER) {
        samples.pop_front();
    }
}

fn pace(samples: &VecDeque<(Instant, u64)>, now: Instant, written: u64) -> u64 {
    let Some((at, before)) = samples.front() else { return 0 };
    let seconds = now.duration_since(*at).as_secs_f64().max(1.0);
    (written.saturating_sub(*before) as f64 / seconds) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_the_last_minutes() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut samples = VecDeque::from([(start, 1_000)]);
        assert_eq!(pace(&samples, at(100), 6_000), 50);
        for seconds in (0..=1_200).step_by(10) {
            note(&mut samples, at(seconds), 6_000);
        }
        assert_eq!(pace(&samples, at(1_200), 6_000), 0, "nothing has been written lately");
        assert!(samples.len() <= 61, "{}", samples.len());
    }
}

//! The last that this node has heard of how far the group is: whatever was acknowledged to anybody before a moment lies at or below a position.
//! A node that shows this position shows data that is no older than the time since that moment.
//!
//! The moment is when the question was asked, by this machine's own clock, so no other clock is compared with it and nothing is assumed about how
//! long the answer was on its way. Written by every session that has an answer, read by every session that may read what is a little old.
//!
//! The two numbers are never torn apart in the wrong direction: the position is raised before the moment, and read after it. So a reader that sees
//! a moment sees its position or a later one, which only makes it wait for more.

use std::time::Duration;

use gcs_writeset::Position;

use crate::sync::{AtomicU64, Ordering};

/// A moment of this machine: time since it was started, asleep or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uptime(pub Duration);

impl Uptime {
    /// How long after `earlier` this is; nothing if it is not.
    pub fn since(self, earlier: Uptime) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

#[derive(Default)]
pub struct Sighting {
    position: AtomicU64,
    /// In microseconds; 0 before the first.
    asked_at: AtomicU64,
}

impl Sighting {
    /// Whatever was acknowledged before `asked_at` lies at or below `position`.
    pub fn note(&self, asked_at: Uptime, position: Position) {
        self.position.fetch_max(position.0, Ordering::SeqCst);
        self.asked_at.fetch_max(asked_at.0.as_micros() as u64, Ordering::SeqCst);
    }

    pub fn last(&self) -> Option<(Uptime, Position)> {
        let asked_at = self.asked_at.load(Ordering::SeqCst);
        let position = self.position.load(Ordering::SeqCst);
        (asked_at != 0).then(|| (Uptime(Duration::from_micros(asked_at)), Position(position)))
    }

    pub fn clear(&self) {
        self.asked_at.store(0, Ordering::SeqCst);
        self.position.store(0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Uptime {
        Uptime(Duration::from_secs(seconds))
    }

    #[test]
    fn a_late_answer_to_an_early_question_takes_nothing_back() {
        let sighting = Sighting::default();
        assert_eq!(sighting.last(), None);
        sighting.note(at(20), Position(7));
        sighting.note(at(10), Position(9));
        assert_eq!(sighting.last(), Some((at(20), Position(9))));
    }
}

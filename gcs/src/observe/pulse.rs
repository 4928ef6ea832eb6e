//! Whether the driver still steps, to be read from another thread without asking it: it beats with each step, and a tick has it step ten times a
//! second whatever else happens.
//!
//! | phase | |
//! |---|---|
//! | starting | the log is being opened, or the node asks to be let in: that takes as long as it takes, and nobody steps |
//! | running | silence for longer than [`SILENCE_MAX`](crate::bounds::SILENCE_MAX) is a loop that hangs, or a disk that does |
//! | stopping | the last words are being said, within a bound of its own |

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::bounds::SILENCE_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Running,
    Stopping,
}

#[derive(Debug)]
pub struct Pulse {
    began: Instant,
    pub began_at: SystemTime,
    phase: AtomicU8,
    /// Of the last step, in milliseconds since the beginning.
    beat: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Pulse {
        let phase = AtomicU8::new(Phase::Starting as u8);
        Pulse { began: Instant::now(), began_at: SystemTime::now(), phase, beat: AtomicU64::new(0) }
    }
}

impl Pulse {
    /// The driver steps.
    pub fn beat(&self) {
        self.beat.store(self.uptime().as_millis() as u64, Ordering::Relaxed);
    }

    pub fn enter(&self, phase: Phase) {
        self.beat();
        self.phase.store(phase as u8, Ordering::Release);
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Running,
            _ => Phase::Stopping,
        }
    }

    pub fn uptime(&self) -> Duration {
        self.began.elapsed()
    }

    /// How long ago the driver last stepped; none while it is not to.
    pub fn silence(&self) -> Option<Duration> {
        let beat = Duration::from_millis(self.beat.load(Ordering::Relaxed));
        (self.phase() == Phase::Running).then(|| self.uptime().saturating_sub(beat))
    }

    /// Whether the process does what it has to.
    pub fn is_healthy(&self) -> bool {
        self.silence().is_none_or(|silence| silence <= SILENCE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_only_while_the_driver_is_to_step() {
        let began = Instant::now().checked_sub(2 * SILENCE_MAX).unwrap();
        let pulse = Pulse { began, ..Pulse::default() };
        assert!(pulse.is_healthy() && pulse.silence().is_none(), "it opens its log, for however long");
        pulse.phase.store(Phase::Running as u8, Ordering::Release);
        assert!(!pulse.is_healthy(), "it has not stepped since");
        pulse.beat();
        assert!(pulse.is_healthy());
        pulse.beat.store(0, Ordering::Relaxed);
        pulse.phase.store(Phase::Stopping as u8, Ordering::Release);
        assert!(pulse.is_healthy());
    }
}

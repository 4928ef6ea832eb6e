//! A position that somebody waits to see committed, for any number of processes in one word.
//!
//! Whoever waits says so ([`Watch::wait_for`]), then looks at the committed position, and only then sleeps. Whoever moves the committed position
//! looks here afterwards ([`Watch::take`]) and, if the position was reached, wakes *all* that sleep: of those whose position is a later one
//! nothing is left here, so they say so again. A process that has said what it waits for can be woken before it looks, never afterwards in vain.
//! While nobody waits, a move costs one look.

use gcs_writeset::Position;

use crate::sync::{AtomicU64, Ordering};

#[derive(Default)]
pub struct Watch {
    /// The lowest position that is waited for; 0 if none is.
    lowest: AtomicU64,
}

impl Watch {
    pub fn wait_for(&self, position: Position) {
        let lower = |lowest| (lowest == 0 || position.0 < lowest).then_some(position.0);
        // An error is a lower one that is there already.
        let _ = self.lowest.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lower);
    }

    /// Whether a position that is waited for is committed.
    pub fn is_reached(&self, committed: Position) -> bool {
        let lowest = self.lowest.load(Ordering::SeqCst);
        lowest != 0 && lowest <= committed.0
    }

    /// The same; then nothing is waited for until somebody says so anew.
    pub fn take(&self, committed: Position) -> bool {
        self.is_reached(committed) && self.lowest.swap(0, Ordering::SeqCst) != 0
    }

    pub fn clear(&self) {
        self.lowest.store(0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_position_counts() {
        let watch = Watch::default();
        assert!(!watch.take(Position(9)), "nobody waits");
        watch.wait_for(Position(5));
        watch.wait_for(Position(3));
        watch.wait_for(Position(4));
        assert!(!watch.is_reached(Position(2)));
        assert!(watch.take(Position(3)));
        assert!(!watch.take(Position(9)), "until somebody says so anew");
    }
}

//! Which chunks of a submission are ordered.
//!
//! They may be ordered in another order than they were sent in: one that got lost on its way to the leader is sent again, behind
//! others. Only what is ordered without a gap from the first on need never be sent again; were a gap passed over, and the daemon's
//! memory of what is to be resent lost with the daemon, the writeset would be sent without it and be malformed.
//!
//! One word: 15 bits of the sequence, so that a late answer to the last submission changes nothing; 17 bits, how many chunks
//! from the first on; 32 bits for those that follow.

use gcs_writeset::Sequence;
use gcs_writeset::bounds::CHUNKS_IN_FLIGHT_MAX;

use crate::sync::{AtomicU64, Ordering};

/// No more chunks are on their way than there are bits for them.
const _: () = assert!(CHUNKS_IN_FLIGHT_MAX <= u32::BITS);

const FIRST_MAX: u32 = (1 << 17) - 1;

#[derive(Default)]
pub struct Chunks(AtomicU64);

impl Chunks {
    /// None of this submission.
    pub fn start(&self, sequence: Sequence) {
        self.0.store(pack(sequence, 0, 0), Ordering::SeqCst);
    }

    /// So many are ordered from the first on, without a gap.
    pub fn count(&self) -> u32 {
        unpack(self.0.load(Ordering::SeqCst)).1
    }

    pub fn ordered(&self, sequence: Sequence, index: u32) {
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| {
            let (of, first, later) = unpack(word);
            // Below: a copy. Far above: nothing that was ever sent.
            let bit = index.checked_sub(first).filter(|bit| *bit < u32::BITS && index < FIRST_MAX)?;
            let later = later | 1 << bit;
            let run = later.trailing_ones();
            let later = later.checked_shr(run).unwrap_or(0);
            (of == unpack(pack(sequence, 0, 0)).0).then(|| pack(sequence, first + run, later))
        });
    }
}

fn pack(sequence: Sequence, first: u32, later: u32) -> u64 {
    sequence.0 << 49 | u64::from(first) << 32 | u64::from(later)
}

fn unpack(word: u64) -> (u64, u32, u32) {
    (word >> 49, (word >> 32) as u32 & FIRST_MAX, word as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(indexes: &[u32]) -> u32 {
        let chunks = Chunks::default();
        chunks.start(Sequence(70_000));
        for &index in indexes {
            chunks.ordered(Sequence(70_000), index);
        }
        chunks.count()
    }

    #[test]
    fn a_gap_is_not_passed_over() {
        assert_eq!(after(&[]), 0);
        assert_eq!(after(&[0, 1, 2]), 3);
        assert_eq!(after(&[0, 2, 3]), 1);
        assert_eq!(after(&[3, 2, 0, 1, 0]), 4);
    }

    #[test]
    fn a_whole_window_may_come_in_any_order() {
        let mut window: Vec<u32> = (0..u32::BITS).rev().collect();
        assert_eq!(after(&window), u32::BITS);
        window.push(u32::BITS);
        assert_eq!(after(&window), u32::BITS + 1);
    }

    #[test]
    fn what_was_never_sent_and_what_belongs_to_another_submission_change_nothing() {
        assert_eq!(after(&[u32::BITS, u32::MAX]), 0);
        let chunks = Chunks::default();
        chunks.start(Sequence(8));
        chunks.ordered(Sequence(7), 0);
        assert_eq!(chunks.count(), 0);
    }
}

//! Writers: which node most of what is ordered comes from, so that the leader can be there.
//!
//! A transaction of a node that does not lead takes a hop more: its writeset goes to the leader first, and its verdict comes when the leader has told it
//! what is committed. Where one node does most of the writing, that node had better lead. A leader that sees so hands over to it, as it would if it were
//! asked to (`gcs lead`); the group orders nothing for a few milliseconds meanwhile.
//!
//! Every node counts what is ordered, by origin, in *windows*: whoever comes to lead has the counts. Two things keep the leader from going to and fro:
//!
//! - *It goes only to a node that wrote most of it, three quarters, in two windows one after the other.* Load that is spread moves nothing, whoever is ahead
//!   of the others by a little, and load that changes sides within two windows neither.
//! - *A leader stays for two windows.* So there are never more moves than that.
//!
//! What is right to do is decided with what the leader knows at the moment, and is not in the order: whoever leads, the outcome is the same.

use std::collections::BTreeMap;

use gcs_writeset::NodeId;

use crate::api::Tick;
use crate::bounds::{WRITERS_LEAST, WRITERS_WINDOW_TICKS};

/// So much of what is ordered must come from one node.
const SHARE_PERCENT: u64 = 75;

/// When the leader goes to where most is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Following {
    pub window_ticks: u64,
    /// Transactions in a window, below which it is not worth it.
    pub least: u64,
}

impl Default for Following {
    fn default() -> Following {
        Following { window_ticks: WRITERS_WINDOW_TICKS, least: WRITERS_LEAST }
    }
}

#[derive(Debug)]
pub struct Writers {
    following: Following,
    /// The present window: when it began, and what came from whom. No more nodes than there are members, and those that went meanwhile.
    since: Tick,
    counts: BTreeMap<NodeId, u64>,
    /// Who wrote most of the last two windows, the older one first.
    favourites: [Option<NodeId>; 2],
    /// This node leads since then.
    leads_since: Tick,
}

impl Writers {
    pub fn new(following: Following) -> Writers {
        let (since, leads_since) = Default::default();
        Writers { following, since, counts: BTreeMap::new(), favourites: [None; 2], leads_since }
    }

    /// A transaction of this node has been ordered.
    pub fn ordered(&mut self, node: NodeId) {
        *self.counts.entry(node).or_default() += 1;
    }

    /// Time passed.
    pub fn tick(&mut self, now: Tick) {
        if now.0.saturating_sub(self.since.0) >= self.following.window_ticks {
            self.since = now;
            let counts = std::mem::take(&mut self.counts);
            self.favourites = [self.favourites[1], favourite(&counts, self.following.least)];
        }
    }

    /// This node has begun to lead, or to hand over and stays.
    pub fn stays(&mut self, now: Tick) {
        self.leads_since = now;
    }

    /// Leading: where the leader had better be, if it is time to go.
    pub fn best(&self, now: Tick) -> Option<NodeId> {
        let has_stayed = now.0.saturating_sub(self.leads_since.0) >= 2 * self.following.window_ticks;
        self.favourites[0].filter(|node| has_stayed && self.favourites[1] == Some(*node))
    }
}

fn favourite(counts: &BTreeMap<NodeId, u64>, least: u64) -> Option<NodeId> {
    let all: u64 = counts.values().sum();
    let most = counts.iter().max_by_key(|(_, count)| **count).filter(|_| all >= least);
    most.filter(|(_, count)| **count * 100 >= all * SHARE_PERCENT).map(|(node, _)| *node)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const WINDOW: u64 = 10;

    fn writers() -> Writers {
        Writers::new(Following { window_ticks: WINDOW, least: 4 })
    }

    /// A window that ends now, in which each of the nodes wrote so much.
    fn window(writers: &mut Writers, now: u64, wrote: &[(NodeId, usize)]) -> Option<NodeId> {
        for (node, times) in wrote {
            (0..*times).for_each(|_| writers.ordered(*node));
        }
        writers.tick(Tick(now));
        writers.best(Tick(now))
    }

    #[test]
    fn whoever_wrote_most_of_two_windows_is_where_the_leader_goes() {
        let mut writers = writers();
        assert_eq!(window(&mut writers, 10, &[(A, 1), (B, 3)]), None);
        assert_eq!(window(&mut writers, 20, &[(A, 1), (B, 3)]), Some(B));
        assert_eq!(window(&mut writers, 30, &[]), None, "what was before counts no more");
    }

    #[test]
    fn load_that_is_spread_or_changes_sides_or_is_small_moves_nothing() {
        let mut writers = writers();
        for (nth, wrote) in
            [&[(A, 30), (B, 70)][..], &[(A, 30), (B, 70)], &[(A, 8)], &[(B, 8)], &[(A, 8)], &[(B, 3)], &[(B, 3)]]
                .into_iter()
                .enumerate()
        {
            assert_eq!(window(&mut writers, 10 * (nth as u64 + 1), wrote), None, "window {nth}");
        }
    }

    #[test]
    fn a_leader_stays_for_two_windows() {
        let mut writers = writers();
        window(&mut writers, 10, &[(B, 8)]);
        writers.stays(Tick(15));
        assert_eq!(window(&mut writers, 20, &[(B, 8)]), None);
        assert_eq!(window(&mut writers, 30, &[(B, 8)]), None);
        assert_eq!(writers.best(Tick(35)), Some(B));
    }
}

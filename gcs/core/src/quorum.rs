//! Quorum: whether this node can expect its commands to be ordered.
//!
//! A judgement, not a fact: Raft decides what is ordered, this only decides when to stop taking writes, so that a client of a
//! minority gets an error instead of waiting (invariant 9). It errs towards "no" within a bound: there is a quorum while
//! connections to a majority are up and the node heard from the leader (the leader: from a majority) a short while ago.

use std::collections::{BTreeMap, BTreeSet};

use gcs_writeset::NodeId;

use crate::api::Tick;
use crate::bounds::QUORUM_TICKS_MAX;

#[derive(Debug)]
pub struct Quorum {
    /// All members but this one.
    others: Vec<NodeId>,
    up: BTreeSet<NodeId>,
    heard: BTreeMap<NodeId, Tick>,
    /// When there last was a leader in touch.
    good_at: Option<Tick>,
}

impl Quorum {
    pub fn new(others: Vec<NodeId>) -> Quorum {
        Quorum { others, up: BTreeSet::new(), heard: BTreeMap::new(), good_at: None }
    }

    pub fn peer_up(&mut self, node: NodeId) {
        if self.others.contains(&node) {
            self.up.insert(node);
        }
    }

    pub fn peer_down(&mut self, node: NodeId) {
        self.up.remove(&node);
        self.heard.remove(&node);
    }

    pub fn is_up(&self, node: NodeId) -> bool {
        self.up.contains(&node)
    }

    pub fn heard(&mut self, from: NodeId, now: Tick) {
        self.heard.insert(from, now);
    }

    /// The judgement as of `now`. `led_by` is the leader, if one is known; `leading` whether it is this node.
    pub fn judge(&mut self, now: Tick, led_by: Option<NodeId>, leading: bool) -> bool {
        let contact =
            if leading { self.heard_by_majority(now) } else { led_by.and_then(|node| self.heard.get(&node).copied()) };
        self.good_at = self.good_at.max(contact);
        let majority_up = self.up.len() + 1 > self.others.len().div_ceil(2);
        majority_up && self.good_at.is_some_and(|good_at| now.0.saturating_sub(good_at.0) < QUORUM_TICKS_MAX)
    }

    /// When this node and others that make a majority with it were last all heard from.
    fn heard_by_majority(&self, now: Tick) -> Option<Tick> {
        let needed = self.others.len().div_ceil(2);
        if needed == 0 {
            return Some(now);
        }
        let mut heard: Vec<Tick> = self.heard.values().copied().collect();
        heard.sort_unstable_by(|a, b| b.cmp(a));
        heard.get(needed - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Quorum {
        let mut quorum = Quorum::new(vec![NodeId(2), NodeId(3)]);
        quorum.peer_up(NodeId(2));
        quorum.peer_up(NodeId(3));
        quorum
    }

    #[test]
    fn a_single_member_is_its_own_quorum_once_it_leads() {
        let mut quorum = Quorum::new(Vec::new());
        assert!(!quorum.judge(Tick(1), None, false));
        assert!(quorum.judge(Tick(2), Some(NodeId(1)), true));
    }

    #[test]
    fn a_follower_has_quorum_while_it_hears_its_leader() {
        let mut quorum = three();
        assert!(!quorum.judge(Tick(1), None, false));
        quorum.heard(NodeId(2), Tick(1));
        assert!(quorum.judge(Tick(1), Some(NodeId(2)), false));
        assert!(quorum.judge(Tick(QUORUM_TICKS_MAX), Some(NodeId(2)), false));
        assert!(!quorum.judge(Tick(QUORUM_TICKS_MAX + 1), Some(NodeId(2)), false));
    }

    #[test]
    fn losing_the_connections_to_a_majority_is_losing_quorum_at_once() {
        let mut quorum = three();
        quorum.heard(NodeId(2), Tick(1));
        assert!(quorum.judge(Tick(1), Some(NodeId(1)), true));
        quorum.peer_down(NodeId(3));
        assert!(quorum.judge(Tick(1), Some(NodeId(1)), true));
        quorum.peer_down(NodeId(2));
        assert!(!quorum.judge(Tick(1), Some(NodeId(1)), true));
    }

    #[test]
    fn a_leader_of_five_needs_to_hear_from_two() {
        let mut quorum = Quorum::new((2..=5).map(NodeId).collect());
        (2..=5).for_each(|node| quorum.peer_up(NodeId(node)));
        quorum.heard(NodeId(2), Tick(5));
        assert!(!quorum.judge(Tick(5), Some(NodeId(1)), true));
        quorum.heard(NodeId(4), Tick(5));
        assert!(quorum.judge(Tick(6), Some(NodeId(1)), true));
    }
}

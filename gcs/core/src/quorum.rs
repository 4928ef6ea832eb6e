//! Quorum: whether this node can expect its commands to be ordered.
//!
//! Only voters count; while two of them change, a majority of both the old and the new ones is needed.
//!
//! A judgement, not a fact: Raft decides what is ordered, this only decides when to stop taking writes, so that a client of a
//! minority gets an error instead of waiting (invariant 9). It errs towards "no" within a bound: there is a quorum while
//! connections to a majority are up, and the leader was in touch with a majority a short while ago.
//!
//! The leader knows that from the answers it gets. Followers know it from the leader: each heartbeat says, in its context, how many
//! ticks ago it last heard from a majority and from this follower. Without it, a follower on the leader's side of a partition
//! would go on trusting for as long as the leader takes to step down, and one that hears its leader but is not heard, for ever.

use std::collections::{BTreeMap, BTreeSet};

use gcs_writeset::NodeId;
use raft::eraftpb::{Message, MessageType};

use crate::api::Tick;

#[derive(Debug)]
pub struct Quorum {
    me: NodeId,
    /// So long after the last word there still is a quorum.
    ticks_max: u64,
    /// Those of whom a majority is needed: the voters, and while two change also those that were.
    halves: Vec<Vec<NodeId>>,
    up: BTreeSet<NodeId>,
    /// When each last answered, and when it last said anything.
    heard: BTreeMap<NodeId, Tick>,
    said: BTreeMap<NodeId, Tick>,
    /// When there last was a leader in touch.
    good_at: Option<Tick>,
}

impl Quorum {
    pub fn new(me: NodeId, ticks_max: u64) -> Quorum {
        Quorum {
            me,
            ticks_max,
            halves: Vec::new(),
            up: BTreeSet::new(),
            heard: BTreeMap::new(),
            said: BTreeMap::new(),
            good_at: None,
        }
    }

    /// From now on these vote; `outgoing` is empty unless two are changing.
    pub fn set_voters(&mut self, (voters, outgoing): (Vec<NodeId>, Vec<NodeId>)) {
        self.halves = [voters, outgoing].into_iter().filter(|half| !half.is_empty()).collect();
    }

    pub fn peer_up(&mut self, node: NodeId) {
        if node != self.me {
            self.up.insert(node);
        }
    }

    pub fn peer_down(&mut self, node: NodeId) {
        self.up.remove(&node);
        self.heard.remove(&node);
        self.said.remove(&node);
    }

    pub fn is_up(&self, node: NodeId) -> bool {
        self.up.contains(&node)
    }

    /// Every peer that is up, member or not.
    pub fn all_up(&self) -> &BTreeSet<NodeId> {
        &self.up
    }

    pub fn said(&mut self, from: NodeId, now: Tick) {
        self.said.insert(from, now);
    }

    pub fn heard(&mut self, from: NodeId, now: Tick) {
        self.heard.insert(from, now);
    }

    /// When this peer last said anything, if it is up.
    pub fn said_at(&self, node: NodeId) -> Option<Tick> {
        self.said.get(&node).copied()
    }

    /// The judgement as of `now`; `leading` whether this node is the leader.
    pub fn judge(&mut self, now: Tick, leading: bool) -> bool {
        if leading {
            self.good_at = self.good_at.max(self.heard_by_majority(now));
        }
        let is_up = |node: &NodeId| *node == self.me || self.up.contains(node);
        let majority_up = |half: &Vec<NodeId>| half.iter().filter(|node| is_up(node)).count() > half.len() / 2;
        !self.halves.is_empty()
            && self.halves.iter().all(majority_up)
            && self.good_at.is_some_and(|good_at| now.0.saturating_sub(good_at.0) < self.ticks_max)
    }

    /// Leading: writes into a heartbeat, behind what Raft has it carry, how long ago both a majority and the one it goes to were heard.
    pub fn mark(&self, now: Tick, message: &mut Message) {
        if message.get_msg_type() == MessageType::MsgHeartbeat {
            let both = self.heard_by_majority(now).zip(self.heard.get(&NodeId(message.to)));
            let age = both.map_or(u64::MAX, |(majority, follower)| now.0.saturating_sub(majority.min(*follower).0));
            message.context.push(u8::try_from(age).unwrap_or(u8::MAX));
        }
    }

    /// Whether a message says that its sender has heard this node. One that asks for votes says the opposite: a leader that hears others and is not heard by
    /// them has no majority.
    pub fn is_answer(message: &Message) -> bool {
        let answers = [MessageType::MsgAppendResponse, MessageType::MsgHeartbeatResponse];
        answers.iter().any(|kind| message.msg_type == *kind as i32)
    }

    /// Takes the mark off a heartbeat, so that Raft does not see it: how many ticks ago its leader was in touch.
    pub fn unmark(message: &mut Message) -> Option<u8> {
        // Compared as a number: the generated accessor panics on kinds that it does not know.
        (message.msg_type == MessageType::MsgHeartbeat as i32).then(|| message.context.pop()).flatten()
    }

    /// A leader that Raft follows was in touch with a majority so many ticks ago.
    pub fn led(&mut self, now: Tick, age: u8) {
        self.good_at = self.good_at.max(now.0.checked_sub(u64::from(age)).map(Tick));
    }

    /// When a majority of each half, this node included where it votes, was last heard from.
    fn heard_by_majority(&self, now: Tick) -> Option<Tick> {
        let by_half = |half: &Vec<NodeId>| {
            let heard = |node: &NodeId| if *node == self.me { Some(now) } else { self.heard.get(node).copied() };
            let mut heard: Vec<Tick> = half.iter().filter_map(heard).collect();
            heard.sort_unstable_by(|a, b| b.cmp(a));
            heard.get(half.len() / 2).copied()
        };
        let halves: Option<Vec<Tick>> = self.halves.iter().map(by_half).collect();
        halves?.into_iter().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUORUM_TICKS_MAX: u64 = 15;

    fn of<const N: usize>(voters: [u64; N]) -> Quorum {
        let mut quorum = Quorum::new(NodeId(1), QUORUM_TICKS_MAX);
        quorum.set_voters((voters.map(NodeId).to_vec(), Vec::new()));
        quorum
    }

    fn three() -> Quorum {
        let mut quorum = of([1, 2, 3]);
        quorum.peer_up(NodeId(2));
        quorum.peer_up(NodeId(3));
        quorum
    }

    #[test]
    fn a_single_member_is_its_own_quorum_once_it_leads() {
        let mut quorum = of([1]);
        assert!(!quorum.judge(Tick(1), false));
        assert!(quorum.judge(Tick(2), true));
    }

    #[test]
    fn a_follower_has_quorum_while_its_leader_is_in_touch() {
        let mut quorum = three();
        assert!(!quorum.judge(Tick(1), false));
        quorum.led(Tick(3), 2);
        assert!(quorum.judge(Tick(QUORUM_TICKS_MAX), false));
        assert!(!quorum.judge(Tick(QUORUM_TICKS_MAX + 1), false));
    }

    #[test]
    fn a_follower_learns_from_heartbeats_that_its_leader_is_cut_off() {
        let (mut leader, mut follower) = (three(), three());
        leader.heard(NodeId(2), Tick(1));
        let mut known = true;
        for now in (1..=QUORUM_TICKS_MAX + 1).map(Tick) {
            let mut heartbeat = Message { msg_type: MessageType::MsgHeartbeat as i32, to: 2, ..Message::default() };
            leader.mark(now, &mut heartbeat);
            let age = Quorum::unmark(&mut heartbeat).expect("a marked heartbeat");
            assert!(heartbeat.context.is_empty());
            follower.led(now, age);
            known = follower.judge(now, false);
        }
        assert!(!known);
    }

    /// Found by the simulator (seed 2230).
    #[test]
    fn a_follower_that_is_not_heard_learns_it_from_heartbeats() {
        let mut leader = three();
        leader.heard(NodeId(2), Tick(10));
        leader.heard(NodeId(3), Tick(3));
        let mut heartbeat = Message { msg_type: MessageType::MsgHeartbeat as i32, to: 3, ..Message::default() };
        leader.mark(Tick(10), &mut heartbeat);
        assert_eq!(Quorum::unmark(&mut heartbeat), Some(7));
    }

    #[test]
    fn losing_the_connections_to_a_majority_is_losing_quorum_at_once() {
        let mut quorum = three();
        quorum.heard(NodeId(2), Tick(1));
        assert!(quorum.judge(Tick(1), true));
        quorum.peer_down(NodeId(3));
        assert!(quorum.judge(Tick(1), true));
        quorum.peer_down(NodeId(2));
        assert!(!quorum.judge(Tick(1), true));
    }

    #[test]
    fn a_leader_of_five_needs_to_hear_from_two() {
        let mut quorum = of([1, 2, 3, 4, 5]);
        (2..=5).for_each(|node| quorum.peer_up(NodeId(node)));
        quorum.heard(NodeId(2), Tick(5));
        assert!(!quorum.judge(Tick(5), true));
        quorum.heard(NodeId(4), Tick(5));
        assert!(quorum.judge(Tick(6), true));
    }

    #[test]
    fn a_learner_counts_for_nothing() {
        let mut quorum = of([1, 2]);
        quorum.peer_up(NodeId(3));
        quorum.heard(NodeId(3), Tick(5));
        assert!(!quorum.judge(Tick(5), true));
        quorum.peer_up(NodeId(2));
        quorum.heard(NodeId(2), Tick(5));
        assert!(quorum.judge(Tick(5), true));
    }

    #[test]
    fn while_two_change_the_old_and_the_new_voters_are_needed() {
        let mut quorum = of([1, 2, 3]);
        quorum.set_voters(([1, 2, 4].map(NodeId).to_vec(), [1, 2, 3].map(NodeId).to_vec()));
        for node in [NodeId(4), NodeId(3)] {
            assert!(!quorum.judge(Tick(5), true));
            quorum.peer_up(node);
            quorum.heard(node, Tick(5));
        }
        assert!(quorum.judge(Tick(5), true));
        quorum.peer_down(NodeId(4));
        assert!(!quorum.judge(Tick(5), true));
    }

    #[test]
    fn a_node_without_a_vote_needs_a_majority_of_those_that_have_one() {
        let mut quorum = of([2, 3, 4]);
        quorum.led(Tick(5), 0);
        quorum.peer_up(NodeId(2));
        assert!(!quorum.judge(Tick(5), false));
        quorum.peer_up(NodeId(3));
        assert!(quorum.judge(Tick(5), false));
    }
}

//! The core and group locks: the leader gives up a node that it has not heard of for long, so that what its sessions hold is free again.

use gcs_writeset::NodeId;
use raft::Storage;

use super::Core;
use super::lost::{Lost, TOUCH};
use crate::api::{LocalReply, Question, Tick};
use crate::bounds::{LOCKS_LOST_TICKS, TOUCH_TICKS};
use crate::certify::Rules;
use crate::command::{self, Command};

impl<L: Storage, R: Rules> Core<L, R> {
    /// While sessions of this node use locks: has the leader say now and then that it has heard of this node ([`crate::flow`], `locks`).
    pub(super) fn touch_locks(&mut self, now: Tick, replies: &mut Vec<LocalReply>) {
        if let Some(database) = self.flow.locks_in() {
            let is_due = self.touch.asked.is_none_or(|asked| now.0.saturating_sub(asked.0) >= TOUCH_TICKS);
            if is_due && !self.touch.waits {
                (self.touch.asked, self.touch.waits) = (Some(now), true);
                self.reads.ask(Question { number: TOUCH, database }, self.has_quorum, replies);
            }
        } else {
            self.touch.confirmed = None;
        }
        self.flow.watch_locks(now, self.touch.confirmed, &self.state, replies);
    }

    pub(super) fn lead_locks(&mut self, now: Tick) {
        if !self.order.is_leader() {
            self.lost = Lost::default();
            return;
        }
        let term = self.order.term();
        if self.lost.leads.is_none_or(|(of, _)| of != term) {
            self.lost = Lost { leads: Some((term, now)), ..Lost::default() };
        }
        let since = self.lost.leads.map_or(now, |(_, since)| since);
        let nodes: Vec<NodeId> = self.state.lives.all().keys().copied().collect();
        for node in nodes.into_iter().filter(|node| *node != self.config.node) {
            // One that is no member any more may still say things, but believes in what it holds only as long as it is told of a majority.
            let is_member = self.state.membership.contains(node);
            let heard = self.lost.heard.entry(node).or_insert(since);
            *heard = (*heard).max(self.quorum.said_at(node).filter(|_| is_member).unwrap_or_default());
            let is_silent = now.0.saturating_sub(heard.0) >= LOCKS_LOST_TICKS;
            let life = self.state.lives.of(node);
            if is_silent && self.state.has_lock_sessions_of(node) && self.lost.proposed.get(&node) != Some(&life) {
                let entry = command::encode_entry(&[Command::Life { node, life, by: 0 }.encode()]);
                if self.order.propose(entry) {
                    self.lost.proposed.insert(node, life);
                }
            }
        }
    }
}

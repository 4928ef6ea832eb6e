//! Order: Raft, wrapped so that nothing but this module knows it.
//!
//! One entry after another becomes durable on a majority; everything else in the core is a function of that sequence. What is
//! added to `raft`:
//!
//! - its defaults are unsafe: pre-vote, check-quorum, bounds and safe reads are set here;
//! - it draws election timeouts from the thread's random generator; [`Elections`] draws them from the seed instead;
//! - it trusts messages; [`check`] looks at each before it gets in, so that no peer can make this process panic;
//! - it hears of no connections: a follower whose connection to the leader is lost waits no longer than it takes to make another
//!   ([`Order::peer_down`]);
//! - it waits for ever for a snapshot whose message was lost; here it counts as lost after a while;
//! - it asks the log for who votes; [`MemberLog`] answers that from the ordered state, so that the driver's log only keeps
//!   entries, a hard state and checkpoints;
//! - a leader that loses its vote goes on leading, and fails at the next thing that it counts; here it steps down at once
//!   ([`Order::change_votes`]).

mod check;
mod elections;
mod member_log;

use std::collections::{BTreeMap, BTreeSet};

use gcs_writeset::NodeId;
use raft::eraftpb::{self, ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, HardState};
use raft::{ProgressState, RawNode, ReadOnlyOption, Ready, SnapshotStatus, StateRole, Storage};

use crate::api::{CoreConfig, LogIndex, Tick};
use crate::bounds::*;
use crate::checkpoint::{Origin, same_votes};
use crate::detector::{Detector, ticks_after_loss};
use crate::error::CoreError;
use crate::membership::{Change, Step};
use crate::state::State;
use elections::Elections;
use member_log::MemberLog;

pub struct Order<L: Storage> {
    raft: RawNode<MemberLog<L>>,
    me: NodeId,
    /// Whose messages are heard.
    known: BTreeSet<NodeId>,
    origin: Origin,
    elections: Elections,
    /// Followers to whom a snapshot is on its way, and until when it may be.
    snapshots: BTreeMap<NodeId, Tick>,
}

impl<L: Storage> Order<L> {
    /// `state` is what the recovered checkpoint covers.
    pub fn new(config: &CoreConfig, state: &State, log: L, hard_state: HardState) -> Result<Order<L>, CoreError> {
        let (me, applied) = (config.node, state.applied);
        let log = MemberLog::new(log, me, hard_state, state.membership.votes(), applied)?;
        let mut raft = RawNode::new(&raft_config(config, applied), log, &slog::Logger::root(slog::Discard, slog::o!()))?;
        let elections = Elections::new(config, &mut raft.raft);
        let origin = Origin { group: state.group.clone(), founders: state.membership.founders.clone(), reads: config.reads };
        Ok(Order { raft, me, known: BTreeSet::new(), origin, elections, snapshots: BTreeMap::new() })
    }

    /// From now on these are heard, and nobody else.
    pub fn hear(&mut self, known: BTreeSet<NodeId>) {
        self.known = known;
    }

    pub fn tick(&mut self, now: Tick) {
        // The only voter leads as soon as it stands for election, and `become_leader` panics if its log is not wholly stable.
        let raft = &self.raft.raft;
        if !raft.prs().is_singleton() || raft.raft_log.unstable_entries().is_empty() || self.is_leader() {
            self.raft.tick();
        }
        self.elections.settle(&mut self.raft.raft);
        self.give_up_lost_snapshots(now);
    }

    /// Takes a peer's message, or drops it: whether it was taken.
    pub fn step(&mut self, from: NodeId, message: eraftpb::Message) -> bool {
        if !self.known.contains(&from) || !check::admissible(&self.raft.raft, &self.origin, from, &message) {
            return false;
        }
        let taken = self.raft.step(message).is_ok();
        self.elections.settle(&mut self.raft.raft);
        taken
    }

    /// Leading only: appends an entry. `false` if it could not be taken now.
    pub fn propose(&mut self, data: Vec<u8>) -> bool {
        self.is_leader() && self.raft.propose(Vec::new(), data).is_ok()
    }

    /// Asks up to which index everything was committed that anybody knew to be: answered by a ready with this context, or not at all. A
    /// context is never used twice.
    pub fn read_index(&mut self, context: Vec<u8>) {
        self.raft.read_index(context);
    }

    pub fn committed(&self) -> LogIndex {
        LogIndex(self.raft.raft.raft_log.committed)
    }

    /// Leading only: appends a change of votes. `false` if it could not be taken now.
    pub fn propose_votes(&mut self, change: &Change) -> bool {
        self.may_change_votes() && self.raft.propose_conf_change(Vec::new(), change.entry()).is_ok()
    }

    /// Whether a change of votes would be taken: the last one has been applied, and leadership is not being handed over.
    pub fn may_change_votes(&self) -> bool {
        let raft = &self.raft.raft;
        self.is_leader() && !raft.has_pending_conf() && raft.lead_transferee.is_none()
    }

    /// A change of votes has been applied to the ordered state, which ends with `votes`; `None` is the end of a joint step.
    ///
    /// Whoever loses its own vote stops asking for votes, and leading. (It would go on; and Raft fails when a leader that is not among
    /// the voters counts how far it is itself.)
    pub fn change_votes(&mut self, change: Option<&Change>, votes: &ConfState) -> Result<(), CoreError> {
        let counted = match change.map(|change| &change.step) {
            Some(Step::Recover { node }) => self.leave_alone(*node)?,
            Some(step) => self.raft.apply_conf_change(&step.conf_change())?,
            None => self.raft.apply_conf_change(&ConfChangeV2::default())?,
        };
        if !same_votes(&counted, votes) {
            return Err(CoreError::Votes);
        }
        let raft = &mut self.raft.raft;
        if !raft.promotable() && raft.state != StateRole::Follower {
            raft.become_follower(raft.term, raft::INVALID_ID);
            // What it was about to say as a leader; `advance` panics if somebody says that who is none.
            raft.msgs.clear();
        }
        self.elections.settle(raft);
        Ok(())
    }

    /// From now on this one votes, and nobody else is there. In steps that Raft can take, each from one majority to another that it
    /// overlaps; nobody leads meanwhile, since whoever applies a recovery has just started, or learns.
    fn leave_alone(&mut self, node: NodeId) -> Result<ConfState, CoreError> {
        let mut votes = self.raft.raft.prs().conf().to_conf_state();
        if !votes.voters_outgoing.is_empty() {
            votes = self.raft.apply_conf_change(&ConfChangeV2::default())?;
        }
        let is_new = !votes.voters.contains(&node.0);
        let comes = is_new.then_some((ConfChangeType::AddNode, node.0));
        let others = votes.voters.iter().chain(&votes.learners).filter(|other| **other != node.0);
        let go = others.map(|other| (ConfChangeType::RemoveNode, *other));
        for (change_type, node_id) in comes.into_iter().chain(go).collect::<Vec<_>>() {
            let single = ConfChangeSingle { change_type: change_type as i32, node_id };
            votes = self.raft.apply_conf_change(&ConfChangeV2 { changes: vec![single], ..ConfChangeV2::default() })?;
        }
        Ok(votes)
    }

    /// Leading only: begins to hand over to a voter. False if it cannot.
    pub fn hand_over(&mut self, to: NodeId) -> bool {
        let raft = &self.raft.raft;
        if !self.is_leader() || to == self.me || !raft.prs().conf().voters().contains(to.0) {
            return false;
        }
        if raft.lead_transferee != Some(to.0) {
            self.raft.transfer_leader(to.0);
        }
        true
    }

    /// Leading only: by how many entries this member's log is behind, if it takes entries as they come.
    ///
    /// Whoever has just been given a snapshot, and all of the log by that, is asked for nothing as long as nothing is ordered: Raft does not
    /// know of it that it takes entries, but it has them.
    pub fn behind(&self, node: NodeId) -> Option<u64> {
        let raft = &self.raft.raft;
        let progress = raft.prs().get(node.0).filter(|_| self.is_leader())?;
        let behind = raft.raft_log.last_index().saturating_sub(progress.matched);
        (progress.state == ProgressState::Replicate || behind == 0).then_some(behind)
    }

    pub fn peer_down(&mut self, node: NodeId) {
        if self.snapshots.remove(&node).is_some() {
            self.raft.report_snapshot(node.0, SnapshotStatus::Failure);
        }
        self.raft.report_unreachable(node.0);
        if self.leader() == Some(node) && self.raft.raft.state == StateRole::Follower {
            self.forget_leader();
        }
    }

    /// The connection to the leader is lost: most often its process has ended. As if it had not been heard for long, this node follows nobody in
    /// this term, so that it may vote for another at once, and stands for election itself before long; each voter a little after
    /// the one before it, by their ids. If the leader is there after all, its next heartbeat makes this node follow it again, and those that
    /// have not lost it refuse their votes. Term and vote stay: nothing that Raft rests on is forgotten. (etcd's raft has the same, MsgForgetLeader.)
    fn forget_leader(&mut self) {
        let raft = &mut self.raft.raft;
        let gone = raft.leader_id;
        raft.become_follower(raft.term, raft::INVALID_ID);
        self.elections.settle(raft);
        let mut voters: Vec<u64> = raft.prs().conf().voters().ids().iter().filter(|id| *id != gone).collect();
        voters.sort_unstable();
        if let Some(rank) = voters.iter().position(|id| *id == self.me.0) {
            self.elections.hasten(raft, ticks_after_loss(rank));
        }
    }

    pub fn has_ready(&self) -> bool {
        self.raft.has_ready()
    }

    pub fn ready(&mut self) -> Ready {
        self.raft.ready()
    }

    pub fn advance(&mut self, ready: Ready) -> raft::LightReady {
        self.raft.advance(ready)
    }

    /// What [`Order::advance`] gave out as committed has been applied. Raft would take it for applied with the next ready only, which may never come:
    /// whoever has a change of votes yet to apply does not stand for election, and the leader may have died of it.
    pub fn advance_apply(&mut self) {
        self.raft.advance_apply();
    }

    /// Notes snapshots that leave, to know when they are lost.
    pub fn sending(&mut self, messages: &[eraftpb::Message], now: Tick) {
        for message in messages.iter().filter(|m| m.get_msg_type() == eraftpb::MessageType::MsgSnapshot) {
            let bytes = message.get_snapshot().get_data().len() as u64;
            let patience = SNAPSHOT_TICKS_MAX + bytes / SNAPSHOT_BYTES_A_TICK;
            self.snapshots.insert(NodeId(message.to), Tick(now.0.saturating_add(patience)));
        }
    }

    pub fn is_leader(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    pub fn leader(&self) -> Option<NodeId> {
        Some(NodeId(self.raft.raft.leader_id)).filter(|node| node.0 != raft::INVALID_ID)
    }

    pub fn term(&self) -> u64 {
        self.raft.raft.term
    }

    pub fn me(&self) -> NodeId {
        self.me
    }

    fn give_up_lost_snapshots(&mut self, now: Tick) {
        if self.snapshots.is_empty() {
            return;
        }
        let raft = &mut self.raft;
        self.snapshots.retain(|node, until| {
            let waiting = raft.raft.state == StateRole::Leader
                && raft.raft.prs().get(node.0).is_some_and(|progress| progress.state == ProgressState::Snapshot);
            let lost = waiting && now >= *until;
            if lost {
                raft.report_snapshot(node.0, SnapshotStatus::Failure);
            }
            waiting && !lost
        });
    }
}

fn raft_config(config: &CoreConfig, applied: LogIndex) -> raft::Config {
    let Detector { heartbeat_ticks, election_ticks } = config.detector;
    raft::Config {
        id: config.node.0,
        election_tick: election_ticks as usize,
        min_election_tick: election_ticks as usize,
        max_election_tick: 2 * election_ticks as usize,
        heartbeat_tick: heartbeat_ticks as usize,
        applied: applied.0,
        max_size_per_msg: APPEND_BYTES_MAX,
        max_inflight_msgs: APPENDS_IN_FLIGHT_MAX,
        check_quorum: true,
        pre_vote: true,
        read_only_option: ReadOnlyOption::Safe,
        max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
        max_committed_size_per_ready: COMMITTED_BYTES_PER_STEP_MAX,
        ..raft::Config::default()
    }
}

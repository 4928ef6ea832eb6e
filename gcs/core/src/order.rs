//! Order: Raft, wrapped so that nothing but this module knows it.
//!
//! One entry after another becomes durable on a majority; everything else in the core is a function of that sequence. What is
//! added to `raft`:
//!
//! - its defaults are unsafe: pre-vote, check-quorum, bounds and safe reads are set here;
//! - it draws election timeouts from the thread's random generator; [`Elections`] draws them from the seed instead;
//! - it trusts messages; [`check`] looks at each before it gets in, so that no peer can make this process panic;
//! - it waits for ever for a snapshot whose message was lost; here it counts as lost after a while;
//! - it asks the log for the membership; [`MemberLog`] answers that from the configuration, so that the driver's log only keeps
//!   entries, a hard state and checkpoints.

mod check;
mod elections;
mod member_log;

use std::collections::BTreeMap;

use gcs_writeset::NodeId;
use raft::eraftpb::{self, ConfState, HardState};
use raft::{ProgressState, RawNode, ReadOnlyOption, Ready, SnapshotStatus, StateRole, Storage};

use crate::api::{LogIndex, Tick};
use crate::bounds::*;
use crate::error::CoreError;
use elections::Elections;
use member_log::MemberLog;

pub struct Order<L: Storage> {
    raft: RawNode<MemberLog<L>>,
    me: NodeId,
    voters: Vec<NodeId>,
    elections: Elections,
    /// Followers to whom a snapshot is on its way, since when.
    snapshots: BTreeMap<NodeId, Tick>,
}

impl<L: Storage> Order<L> {
    /// `voters` are all members; `applied` is what the recovered checkpoint covers.
    pub fn new(
        me: NodeId,
        voters: Vec<NodeId>,
        seed: u64,
        log: L,
        hard_state: HardState,
        applied: LogIndex,
    ) -> Result<Order<L>, CoreError> {
        let conf_state = ConfState { voters: voters.iter().map(|node| node.0).collect(), ..ConfState::default() };
        let log = MemberLog::new(log, hard_state, conf_state, applied)?;
        let mut raft = RawNode::new(&raft_config(me, applied), log, &slog::Logger::root(slog::Discard, slog::o!()))?;
        let elections = Elections::new(me, seed, &mut raft.raft);
        Ok(Order { raft, me, voters, elections, snapshots: BTreeMap::new() })
    }

    pub fn tick(&mut self, now: Tick) {
        self.raft.tick();
        self.elections.settle(&mut self.raft.raft);
        self.give_up_lost_snapshots(now);
    }

    /// Takes a peer's message, or drops it: whether it was taken.
    pub fn step(&mut self, from: NodeId, message: eraftpb::Message) -> bool {
        if !check::admissible(&self.raft.raft, &self.voters, from, &message) {
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

    pub fn peer_down(&mut self, node: NodeId) {
        if self.snapshots.remove(&node).is_some() {
            self.raft.report_snapshot(node.0, SnapshotStatus::Failure);
        }
        self.raft.report_unreachable(node.0);
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

    /// Notes snapshots that leave, to know when they are lost.
    pub fn sending(&mut self, messages: &[eraftpb::Message], now: Tick) {
        for message in messages.iter().filter(|m| m.get_msg_type() == eraftpb::MessageType::MsgSnapshot) {
            self.snapshots.insert(NodeId(message.to), now);
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
        self.snapshots.retain(|node, since| {
            let waiting = raft.raft.state == StateRole::Leader
                && raft.raft.prs().get(node.0).is_some_and(|progress| progress.state == ProgressState::Snapshot);
            let lost = waiting && now.0.saturating_sub(since.0) >= SNAPSHOT_TICKS_MAX;
            if lost {
                raft.report_snapshot(node.0, SnapshotStatus::Failure);
            }
            waiting && !lost
        });
    }
}

fn raft_config(me: NodeId, applied: LogIndex) -> raft::Config {
    raft::Config {
        id: me.0,
        election_tick: ELECTION_TICKS,
        min_election_tick: ELECTION_TICKS,
        max_election_tick: 2 * ELECTION_TICKS,
        heartbeat_tick: HEARTBEAT_TICKS,
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

//! The driver's log as `raft` wants to see it: with the membership, and with snapshots only where there is a checkpoint.
//!
//! **A witness sends no snapshot to a node that has databases.** It holds nothing of the log back, and so may have been sent a snapshot itself;
//! its log then begins behind positions that a full node has yet to apply, and that other full nodes have. One that leads would make such a
//! node skip them, which costs it a copy of every database. It hands over to a full node instead, which has what all others need.

use gcs_writeset::{NodeId, NodeKind};
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use crate::api::LogIndex;
use crate::checkpoint;
use crate::error::CoreError;

pub struct MemberLog<L> {
    inner: L,
    me: NodeId,
    hard_state: HardState,
    /// As of the recovered checkpoint: asked for once, when Raft starts.
    conf_state: ConfState,
}

impl<L: Storage> MemberLog<L> {
    /// Fails where `raft` would panic: on a log with a hole, or one that does not belong to this hard state.
    pub fn new(
        inner: L,
        me: NodeId,
        mut hard_state: HardState,
        conf_state: ConfState,
        applied: LogIndex,
    ) -> Result<MemberLog<L>, CoreError> {
        let first = inner.first_index()?;
        let last = inner.last_index()?;
        // The hard state's commit index is written without a flush of its own. What was applied was committed.
        hard_state.commit = hard_state.commit.max(applied.0);
        if first > applied.0 + 1 {
            return Err(CoreError::Recovery(format!("the log begins at {first}, the checkpoint ends at {}", applied.0)));
        }
        if hard_state.commit > last {
            return Err(CoreError::Recovery(format!(
                "the log ends at {last}, before committed entry {}",
                hard_state.commit
            )));
        }
        if hard_state.term < inner.term(last)? {
            return Err(CoreError::Recovery(format!("the hard state is older than the log's last entry {last}")));
        }
        Ok(MemberLog { inner, me, hard_state, conf_state })
    }
}

impl<L: Storage> Storage for MemberLog<L> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        self.inner.entries(low, high, max_size, context)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.inner.term(index)
    }

    fn first_index(&self) -> raft::Result<u64> {
        self.inner.first_index()
    }

    fn last_index(&self) -> raft::Result<u64> {
        self.inner.last_index()
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let mut snapshot = self.inner.snapshot(request_index, to)?;
        if snapshot.get_metadata().index == 0 {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        // As of the checkpoint; the membership may have changed since.
        let unreadable = |cause| raft::Error::Store(StorageError::Other(Box::new(cause)));
        let membership = checkpoint::membership(&snapshot.data).map_err(unreadable)?;
        let votes = membership.votes();
        let is_witness = |node| membership.member(node).is_some_and(|member| member.kind == NodeKind::Witness);
        if is_witness(self.me) && !is_witness(NodeId(to)) {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        // Whoever is not a member in it would not take it; one that is newer is on its way to the disk (`Core::apply_votes`).
        if ![&votes.voters, &votes.learners, &votes.voters_outgoing].iter().any(|nodes| nodes.contains(&to)) {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        snapshot.mut_metadata().conf_state = Some(votes);
        Ok(snapshot)
    }
}

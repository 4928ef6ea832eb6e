//! What a peer may say to `raft`.
//!
//! `raft` asserts where a peer breaks the protocol; here such a message is dropped before it gets there. Each rule names the
//! panic it prevents. A dropped message is like a lost one, which the protocol survives.

use bytes::Bytes;
use gcs_writeset::NodeId;
use raft::eraftpb::{EntryType, Message, MessageType};
use raft::{Raft, StateRole, Storage};

use crate::bounds::{RAFT_NUMBER_MAX, READ_CONTEXT_BYTES_MAX, READ_ROUNDS_MAX};
use crate::checkpoint;
use crate::command;

pub fn admissible<S: Storage>(raft: &Raft<S>, voters: &[NodeId], from: NodeId, message: &Message) -> bool {
    addressed(raft, voters, from, message) && in_range(message) && kind_allowed(raft, voters, message)
}

fn addressed<S: Storage>(raft: &Raft<S>, voters: &[NodeId], from: NodeId, message: &Message) -> bool {
    message.from == from.0 && message.to == raft.id && from.0 != raft.id && voters.contains(&from)
}

/// A term of 0 marks a local message, and a question that a follower passes on; numbers near the top overflow when one is added.
fn in_range(m: &Message) -> bool {
    let numbers = [m.term, m.log_term, m.index, m.commit, m.commit_term, m.reject_hint];
    let is_question = m.msg_type == MessageType::MsgReadIndex as i32;
    (m.term == 0) == is_question
        && numbers.iter().all(|&number| number < RAFT_NUMBER_MAX)
        && m.request_snapshot == 0
        && context_is_sound(m)
}

/// Heartbeats and their answers say which question of readers they confirm.
fn context_is_sound(m: &Message) -> bool {
    let may_carry = [MessageType::MsgHeartbeat as i32, MessageType::MsgHeartbeatResponse as i32].contains(&m.msg_type);
    m.context.len() <= if may_carry { READ_CONTEXT_BYTES_MAX } else { 0 }
}

fn kind_allowed<S: Storage>(raft: &Raft<S>, voters: &[NodeId], m: &Message) -> bool {
    let carries = !m.entries.is_empty();
    let snapshot = m.snapshot.as_ref().is_some_and(|snapshot| !snapshot.is_empty());
    match MessageType::from_i32(m.msg_type) {
        Some(MessageType::MsgAppend) => !snapshot && append_is_sound(m),
        Some(MessageType::MsgSnapshot) => !carries && snapshot_is_sound(voters, m),
        // Only a leader answers; a follower would pass it on.
        Some(MessageType::MsgReadIndex) => {
            !snapshot
                && raft.state == StateRole::Leader
                && raft.pending_read_count() < READ_ROUNDS_MAX
                && question_is_sound(m)
        }
        Some(MessageType::MsgReadIndexResp) => {
            !snapshot && m.term == raft.term && m.from == raft.leader_id && question_is_sound(m)
        }
        _ if carries || snapshot => false,
        // `commit_to` panics beyond the end of the log.
        Some(MessageType::MsgHeartbeat) => m.term < raft.term || m.commit <= raft.raft_log.last_index(),
        Some(MessageType::MsgAppendResponse) => response_is_sound(raft, m),
        Some(MessageType::MsgHeartbeatResponse | MessageType::MsgRequestVote | MessageType::MsgRequestPreVote) => true,
        // `become_leader` panics if the log is not wholly stable. One that still has entries to write was a follower a moment
        // ago, and cannot be waiting for votes that mean it.
        Some(MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse) => {
            raft.raft_log.unstable_entries().is_empty()
        }
        _ => false,
    }
}

/// Entries must continue each other and the message's anchor, or slicing them panics; an anchor of term 0 would match any index
/// beyond the end of the log.
fn append_is_sound(m: &Message) -> bool {
    if (m.index == 0) != (m.log_term == 0) || m.log_term > m.term {
        return false;
    }
    let mut term = m.log_term;
    m.entries.iter().zip(m.index + 1..).all(|(entry, index)| {
        let follows = entry.index == index && entry.term >= term.max(1) && entry.term <= m.term;
        term = entry.term;
        follows && entry.entry_type == EntryType::EntryNormal as i32 && command::check_entry(&entry.data).is_ok()
    })
}

/// The context of a question of readers stands in its one entry, which is looked at unasked.
fn question_is_sound(m: &Message) -> bool {
    let [entry] = &m.entries[..] else { return false };
    (1..=READ_CONTEXT_BYTES_MAX).contains(&entry.data.len()) && entry.entry_type == EntryType::EntryNormal as i32
}

/// `restore` panics on a membership that it cannot build. The state is decoded here, so that a bad one is never installed.
fn snapshot_is_sound(voters: &[NodeId], m: &Message) -> bool {
    let Some(snapshot) = &m.snapshot else { return false };
    let Some(metadata) = &snapshot.metadata else { return false };
    let Some(members) = &metadata.conf_state else { return false };
    let mut listed = members.voters.clone();
    listed.sort_unstable();
    let mut expected: Vec<u64> = voters.iter().map(|node| node.0).collect();
    expected.sort_unstable();
    listed == expected
        && members.learners.is_empty()
        && members.voters_outgoing.is_empty()
        && members.learners_next.is_empty()
        && !members.auto_leave
        && (1..RAFT_NUMBER_MAX).contains(&metadata.index)
        && (1..=m.term).contains(&metadata.term)
        && checkpoint::check(&Bytes::copy_from_slice(&snapshot.data), metadata.index).is_ok()
}

/// Acknowledging entries that a leader does not have leads it to send from beyond its end.
fn response_is_sound<S: Storage>(raft: &Raft<S>, m: &Message) -> bool {
    let last = raft.raft_log.last_index();
    m.term != raft.term || (m.index <= last && m.reject_hint <= last)
}

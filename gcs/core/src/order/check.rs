//! What a peer may say to `raft`.
//!
//! `raft` asserts where a peer breaks the protocol; here such a message is dropped before it gets there. Each rule names the
//! panic it prevents. A dropped message is like a lost one, which the protocol survives.

use gcs_writeset::NodeId;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use raft::{CAMPAIGN_TRANSFER, Raft, StateRole, Storage};

use crate::bounds::{RAFT_NUMBER_MAX, READ_CONTEXT_BYTES_MAX, READ_ROUNDS_MAX};
use crate::checkpoint::{self, Origin};
use crate::command;
use crate::membership::Change;

pub fn admissible<S: Storage>(raft: &Raft<S>, origin: &Origin, from: NodeId, message: &Message) -> bool {
    addressed(raft, from, message) && in_range(message) && kind_allowed(raft, origin, message)
}

fn addressed<S: Storage>(raft: &Raft<S>, from: NodeId, message: &Message) -> bool {
    message.from == from.0 && message.to == raft.id && from.0 != raft.id
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

/// Heartbeats and their answers say which question of readers they confirm. Whoever was handed the leadership says so when it asks for votes,
/// since the old leader is still there.
fn context_is_sound(m: &Message) -> bool {
    match MessageType::from_i32(m.msg_type) {
        Some(MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse) => m.context.len() <= READ_CONTEXT_BYTES_MAX,
        Some(MessageType::MsgRequestVote) => m.context.is_empty() || m.context == CAMPAIGN_TRANSFER,
        _ => m.context.is_empty(),
    }
}

fn kind_allowed<S: Storage>(raft: &Raft<S>, origin: &Origin, m: &Message) -> bool {
    let carries = !m.entries.is_empty();
    let snapshot = m.snapshot.as_ref().is_some_and(|snapshot| !snapshot.is_empty());
    match MessageType::from_i32(m.msg_type) {
        Some(MessageType::MsgAppend) => !snapshot && append_is_sound(m),
        Some(MessageType::MsgSnapshot) => !carries && snapshot_is_sound(origin, m),
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
        // Whoever hears it asks for votes at once; alone it leads at once, for which `become_leader` wants the log to be stable.
        Some(MessageType::MsgTimeoutNow) => {
            m.term == raft.term && m.from == raft.leader_id && raft.raft_log.unstable_entries().is_empty()
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
        follows && entry_is_sound(entry)
    })
}

/// The context of a question of readers stands in its one entry, which is looked at unasked.
fn question_is_sound(m: &Message) -> bool {
    let [entry] = &m.entries[..] else { return false };
    (1..=READ_CONTEXT_BYTES_MAX).contains(&entry.data.len()) && entry.entry_type == EntryType::EntryNormal as i32
}

/// Nothing may be committed that cannot be applied, but for a raise of the format beyond what this node reads: whether it counts for anything is known
/// when it is applied, and not before; one that counts stops the node there ([`crate::recovery::check_format`]). Changes of votes in the form before joint steps are made by nobody.
fn entry_is_sound(entry: &Entry) -> bool {
    match EntryType::from_i32(entry.entry_type) {
        Some(EntryType::EntryNormal) => command::check_entry(&entry.data).is_ok(),
        Some(EntryType::EntryConfChangeV2) => Change::of_entry(&entry.data).is_ok(),
        _ => false,
    }
}

/// `restore` panics on votes that it cannot count. The state is decoded here, so that a bad one is never installed, and the votes must be
/// those that it ends with.
fn snapshot_is_sound(origin: &Origin, m: &Message) -> bool {
    let Some(snapshot) = &m.snapshot else { return false };
    let Some(metadata) = &snapshot.metadata else { return false };
    let Some(votes) = &metadata.conf_state else { return false };
    (1..RAFT_NUMBER_MAX).contains(&metadata.index)
        && (1..=m.term).contains(&metadata.term)
        && checkpoint::check(&snapshot.data, (metadata.index, metadata.term), votes, origin).is_ok()
}

/// Acknowledging entries that a leader does not have leads it to send from beyond its end.
fn response_is_sound<S: Storage>(raft: &Raft<S>, m: &Message) -> bool {
    let last = raft.raft_log.last_index();
    m.term != raft.term || (m.index <= last && m.reject_hint <= last)
}

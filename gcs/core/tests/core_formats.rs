//! Two releases in one group: what is written when, on a perfect network.

mod support;

use gcs_core::command::{Command, encode_entry};
use gcs_core::membership::{Change, Step};
use gcs_core::*;
use gcs_writeset::NodeId;
use gcs_writeset::NodeKind;
use raft::Storage;
use raft::eraftpb::{Entry, Message, MessageType};
use support::*;

const OLD: Format = Format::FIRST;
const NEW: Format = Format::NEWEST;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

/// Starts a node again with a release that reads this.
fn release(cluster: &mut Cluster, node: NodeId, reads: Format) {
    let log = cluster.stop(node);
    let config = CoreConfig { reads, ..cluster.config(node) };
    cluster.start_as(config, log);
}

/// A group of three whose nodes have these releases.
fn group(releases: [Format; 3]) -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.reads = NEW;
    for (node, reads) in [A, B, C].into_iter().zip(releases) {
        release(&mut cluster, node, reads);
    }
    cluster.elect();
    cluster.ticks(20);
    cluster
}

fn format(cluster: &Cluster, at: NodeId) -> Format {
    cluster.nodes[&at].core.state().membership.format
}

fn formats(cluster: &Cluster) -> Vec<Format> {
    cluster.nodes.values().filter(|node| node.up).map(|node| node.core.state().membership.format).collect()
}

fn add_wish(name: &str, reads: Format) -> Wish {
    let (name, address) = (name.to_owned(), format!("{name}:1"));
    Wish::Add { name, generation: 0, address, directory: 9, kind: NodeKind::Full, reads }
}

/// What became of a wish of node A's.
fn wished(cluster: &mut Cluster, wish: Wish) -> Result<(), Objection> {
    cluster.local(A, Local::Wish { number: 1, wish, force: true });
    for _ in 0..30 {
        cluster.ticks(1);
        let answer = cluster.replies(A).into_iter().find_map(|reply| match reply {
            LocalReply::Wish { outcome, .. } => Some(outcome),
            _ => None,
        });
        if let Some(answer) = answer {
            return answer;
        }
    }
    panic!("no answer in 30 ticks");
}

#[test]
fn a_newer_format_is_written_when_the_last_member_has_the_newer_release() {
    let mut cluster = group([OLD, OLD, OLD]);
    for node in [A, B] {
        assert_eq!(formats(&cluster), [OLD; 3]);
        release(&mut cluster, node, NEW);
        cluster.elect();
        cluster.ticks(20);
    }
    assert_eq!(formats(&cluster), [OLD; 3]);
    release(&mut cluster, C, NEW);
    cluster.elect();
    cluster.ticks(20);
    assert_eq!(formats(&cluster), [NEW; 3]);
}

#[test]
fn a_member_that_is_away_is_waited_for_and_not_once_it_is_evicted() {
    let mut cluster = group([NEW, NEW, OLD]);
    cluster.stop(C);
    cluster.elect();
    cluster.ticks(50);
    assert_eq!(formats(&cluster), [OLD; 2]);
    assert_eq!(wished(&mut cluster, Wish::Remove { node: C }), Ok(()));
    cluster.ticks(20);
    assert_eq!(formats(&cluster), [NEW; 2]);
}

#[test]
fn an_older_release_joins_as_long_as_it_can_read_what_is_written() {
    let mut cluster = group([NEW, NEW, OLD]);
    assert_eq!(wished(&mut cluster, add_wish("d", OLD)), Ok(()));
    release(&mut cluster, C, NEW);
    cluster.elect();
    cluster.ticks(20);
    // The new member has not said what it reads.
    assert_eq!(formats(&cluster), [OLD; 3]);
    let member = cluster.nodes[&A].core.state().membership.named("d").unwrap().clone();
    let config = CoreConfig { address: member.address, directory: 9, ..cluster.config(member.node) };
    cluster.start_as(config, MemLog::default());
    cluster.ticks(20);
    assert_eq!(formats(&cluster), [NEW; 4]);
    assert_eq!(wished(&mut cluster, add_wish("e", OLD)), Err(Objection::TooOld));
    assert_eq!(wished(&mut cluster, add_wish("e", NEW)), Ok(()));
}

/// The leader still has the wish of before, and what was proposed for the membership of before does not count.
#[test]
fn an_addition_and_a_newer_format_that_are_made_at_once_do_not_both_count() {
    let mut membership = group([NEW, NEW, NEW]).nodes[&A].core.state().membership.clone();
    assert_eq!(membership.format, NEW);
    let wish = add_wish("d", NEW);
    let version = membership.version;
    let add = membership::Change { version, step: membership.step(&wish).unwrap() };
    let raise = membership::Change { version, step: membership::Step::Format { format: Format(NEW.0 + 1) } };
    assert!(membership.change(&raise).is_some());
    assert_eq!(membership.change(&add), None);
    assert_eq!(membership.step(&wish), Err(Objection::TooOld));
}

#[test]
fn an_older_release_stops_where_it_would_have_to_read_a_newer_format() {
    let mut cluster = group([NEW, NEW, NEW]);
    assert_eq!(formats(&cluster), [NEW; 3]);
    let log = cluster.stop(C);
    let config = CoreConfig { reads: OLD, ..cluster.config(C) };
    let mut core = Core::new(config.clone(), log.clone(), log.recovered()).expect("its checkpoint is older");
    let failed = remains::replay(&mut core, |_| Ok::<(), CoreError>(()));
    assert!(matches!(failed, Err(CoreError::Format { written: NEW, read: OLD, .. })), "{failed:?}");
    // Nothing is lost: the newer release goes on.
    cluster.start(C, log);
    cluster.elect();
    cluster.ticks(20);
    assert_eq!(format(&cluster, C), NEW);
}

/// What the leader has appended at the end of its log, for a membership of this version, on its way to `C`.
fn raise(cluster: &Cluster, leader: NodeId, version: u64) -> Input {
    let log = &cluster.nodes[&C].log;
    let index = log.last_index().expect("a log in memory");
    let term = log.term(index).expect("a log in memory");
    let change = Change { version, step: Step::Format { format: NEW } };
    let data = encode_entry(&[Command::Change(change).encode()]);
    let entry = Entry { term, index: index + 1, data, ..Entry::default() };
    let message = Message {
        msg_type: MessageType::MsgAppend as i32,
        to: C.0,
        from: leader.0,
        term,
        log_term: term,
        index,
        commit: index + 1,
        entries: vec![entry],
        ..Message::default()
    };
    Input::Peer { from: leader, message: PeerMessage::Raft(Box::new(message)) }
}

/// It was made for a membership in which this node was not, and lost to the change by which the node came.
#[test]
fn an_older_release_takes_a_raise_that_came_to_nothing_and_what_is_behind_it() {
    let mut cluster = group([OLD; 3]);
    let leader = cluster.leader().unwrap();
    assert_ne!(leader, C, "this test gives to C what a leader says");
    let version = cluster.nodes[&C].core.state().membership.version;
    let before = cluster.nodes[&C].core.applied();
    let message = raise(&cluster, leader, version + 1);
    cluster.give(C, message);
    cluster.settle();
    let core = &cluster.nodes[&C].core;
    assert_eq!((core.applied(), format(&cluster, C)), (LogIndex(before.0 + 1), OLD));
}

#[test]
fn the_format_survives_checkpoints_snapshots_and_restarts() {
    let mut cluster = Cluster::new(3);
    cluster.reads = NEW;
    cluster.limits.checkpoint_entries_max = 3;
    for node in [A, B, C] {
        release(&mut cluster, node, NEW);
    }
    cluster.elect();
    cluster.ticks(20);
    let log = cluster.stop(B);
    cluster.elect();
    // With its change of votes comes a checkpoint, by which the joiner learns.
    assert_eq!(wished(&mut cluster, add_wish("d", NEW)), Ok(()));
    let member = cluster.nodes[&A].core.state().membership.named("d").unwrap().clone();
    let config = CoreConfig { address: member.address, directory: 9, ..cluster.config(member.node) };
    cluster.start_as(config, MemLog::default());
    cluster.ticks(20);
    cluster.start(B, log);
    cluster.ticks(20);
    assert_eq!(formats(&cluster), [NEW; 4]);
    let log = cluster.stop(A);
    cluster.start(A, log.clone());
    assert_eq!(format(&cluster, A), NEW, "as its own checkpoint says");
    let held = CoreConfig { reads: OLD, ..cluster.config(A) };
    let refused = Core::<MemLog>::new(held, log.clone(), log.recovered()).err();
    assert!(matches!(refused, Some(CoreError::Format { .. })), "{refused:?}");
}

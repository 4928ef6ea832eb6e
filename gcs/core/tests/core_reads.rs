//! Up to where a reader must wait: whatever anybody was told before it asked lies at or below the answer.

mod support;

use gcs_core::*;
use gcs_writeset::link::RefusalReason;
use gcs_writeset::{DatabaseId, Incarnation, NodeId, Position};
use support::*;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Three nodes with a database, one of which leads.
fn led() -> (Cluster, NodeId) {
    let mut cluster = Cluster::new(3);
    cluster.elect();
    for name in NAMES {
        cluster.local(node(name), Local::Attach { database: "shop".into(), incarnation: Incarnation(1), founds: false });
        cluster.settle();
    }
    let leader = cluster.elect();
    NAMES.iter().for_each(|name| drop(cluster.replies(node(name))));
    (cluster, leader)
}

fn others(of: NodeId) -> Vec<NodeId> {
    NAMES.iter().map(|name| node(name)).filter(|other| *other != of).collect()
}

fn ask(cluster: &mut Cluster, at: NodeId, number: u64) {
    cluster.give(at, Input::Read(Question { number, database: DatabaseId(1) }));
    cluster.settle();
}

fn commit(cluster: &mut Cluster, at: NodeId, sequence: u64) {
    cluster.local(at, Local::Submit { tag: tag(at, 1, 0, sequence), writeset: writeset(0, &[sequence], &[]) });
    cluster.settle();
}

fn cut_off(cluster: &mut Cluster, id: NodeId) {
    for other in others(id) {
        cluster.cut.extend([(id, other), (other, id)]);
    }
}

fn read_from(number: u64, position: u64) -> LocalReply {
    LocalReply::ReadFrom { number, position: Position(position) }
}

#[test]
fn every_node_is_told_of_what_is_committed_in_one_round_and_without_a_tick() {
    let (mut cluster, leader) = led();
    let follower = others(leader)[0];
    commit(&mut cluster, leader, 1);
    for (number, id) in [(1, leader), (2, follower)] {
        ask(&mut cluster, id, number);
        assert_eq!(cluster.replies(id), [read_from(number, 1)]);
    }
}

#[test]
fn whoever_asks_while_a_round_is_under_way_waits_for_the_next_and_not_for_a_tick() {
    let (mut cluster, leader) = led();
    let follower = others(leader)[0];
    commit(&mut cluster, leader, 1);
    for number in 1..=3 {
        cluster.give(follower, Input::Read(Question { number, database: DatabaseId(1) }));
    }
    cluster.settle();
    assert_eq!(cluster.replies(follower), [read_from(1, 1), read_from(2, 1), read_from(3, 1)]);
}

#[test]
fn a_leader_that_was_replaced_and_does_not_know_it_yet_tells_nobody_anything() {
    let (mut cluster, old) = led();
    commit(&mut cluster, old, 1);
    cluster.ticks(2);
    cut_off(&mut cluster, old);
    ask(&mut cluster, old, 1);
    assert_eq!(cluster.replies(old), [], "it cannot know");
    let majority = others(old);
    let new = (0..40).find_map(|_| {
        cluster.ticks(1);
        majority.iter().copied().find(|id| cluster.nodes[id].core.status(None).leader == Some(*id))
    });
    commit(&mut cluster, new.expect("the majority elects a leader"), 1);
    let told = cluster.replies(old);
    assert!(told.iter().all(|reply| matches!(reply, LocalReply::ReadRefused { .. })), "{told:?}");
    cluster.cut.clear();
    cluster.elect();
    cluster.ticks(5);
    cluster.replies(old);
    ask(&mut cluster, old, 2);
    cluster.ticks(5);
    assert_eq!(cluster.replies(old), [read_from(2, 2)]);
}

#[test]
fn a_question_whose_leader_dies_is_asked_again() {
    let (mut cluster, leader) = led();
    let follower = others(leader)[0];
    commit(&mut cluster, follower, 1);
    cluster.cut.insert((follower, leader));
    ask(&mut cluster, follower, 1);
    assert_eq!(cluster.replies(follower), []);
    cluster.stop(leader);
    cluster.cut.clear();
    cluster.ticks(40);
    assert_eq!(cluster.replies(follower), [read_from(1, 1)]);
}

#[test]
fn a_question_that_is_lost_is_asked_again() {
    let (mut cluster, leader) = led();
    let follower = others(leader)[0];
    commit(&mut cluster, follower, 1);
    cluster.cut.insert((follower, leader));
    ask(&mut cluster, follower, 1);
    cluster.cut.clear();
    cluster.ticks(4);
    assert_eq!(cluster.replies(follower), [read_from(1, 1)]);
}

#[test]
fn without_a_quorum_everybody_is_refused_at_once() {
    let (mut cluster, leader) = led();
    let alone = others(leader)[0];
    cluster.cut.insert((alone, leader));
    ask(&mut cluster, alone, 1);
    for other in others(alone) {
        cluster.stop(other);
    }
    cluster.settle();
    ask(&mut cluster, alone, 2);
    let refused = |number| LocalReply::ReadRefused { number, reason: RefusalReason::NoQuorum };
    assert_eq!(cluster.replies(alone), [refused(1), refused(2)]);
}

#[test]
fn a_single_member_tells_by_itself() {
    let mut cluster = Cluster::new(1);
    let id = cluster.elect();
    cluster.local(id, Local::Attach { database: "shop".into(), incarnation: Incarnation(1), founds: false });
    cluster.settle();
    commit(&mut cluster, id, 1);
    cluster.replies(id);
    ask(&mut cluster, id, 1);
    assert_eq!(cluster.replies(id), [read_from(1, 1)]);
}

#[test]
fn of_a_database_that_is_not_there_nothing_is_told() {
    let (mut cluster, leader) = led();
    cluster.give(leader, Input::Read(Question { number: 1, database: DatabaseId(9) }));
    cluster.settle();
    assert_eq!(cluster.replies(leader), [LocalReply::ReadRefused { number: 1, reason: RefusalReason::NotAttached }]);
}

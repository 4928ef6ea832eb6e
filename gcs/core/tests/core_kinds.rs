//! Nodes that are no full ones: witnesses, which vote and hold nothing, and query-only ones, which hold everything and do not vote.

mod support;

use gcs_core::*;
use gcs_writeset::link::{MemberRole, RefusalReason};
use gcs_writeset::{Incarnation, NodeId, NodeKind, Position};
use raft::Storage;
use support::*;

const SHOP: &str = "shop";

fn attach(cluster: &mut Cluster, node: NodeId) {
    cluster.local(node, Local::Attach { database: SHOP.into(), incarnation: Incarnation(node.0), founds: false });
    for _ in 0..40 {
        cluster.ticks(1);
        if cluster.replies(node).iter().any(|reply| matches!(reply, LocalReply::Attached { .. })) {
            return;
        }
    }
    panic!("no attach in 40 ticks");
}

fn report(cluster: &mut Cluster, node: NodeId, committed: Position) {
    let database = cluster.nodes[&node].core.state().database_named(SHOP).expect("a database").0;
    let progress =
        Local::Progress { database, committed, flushed: committed, oldest_base: committed, out_of_service: false };
    cluster.local(node, progress);
    cluster.ticks(15);
}

/// Orders a writeset of `from`, which is attached; its position, within so many ticks.
fn order(cluster: &mut Cluster, from: NodeId, sequence: u64) -> Option<Position> {
    let tag = tag(from, from.0, 0, sequence);
    let base = cluster.nodes[&from].core.state().database_named(SHOP).expect("a database").1.head.0;
    for _ in 0..60 {
        cluster.local(from, Local::Submit { tag, writeset: writeset(base, &[sequence], &[]) });
        cluster.ticks(1);
        if let Some(ordered) = cluster.ordered(from).into_iter().find(|ordered| ordered.tag == tag) {
            return Some(ordered.outcome.position);
        }
    }
    None
}

fn role(cluster: &Cluster, at: NodeId, of: NodeId) -> Option<MemberRole> {
    cluster.nodes[&at].core.state().membership.member(of).map(|member| member.role)
}

#[test]
fn two_full_nodes_and_a_witness_go_on_when_any_one_of_them_is_lost() {
    for lost in ["a", "b", "c"].map(node) {
        let mut cluster = Cluster::of(&[NodeKind::Full, NodeKind::Full, NodeKind::Witness]);
        let leader = cluster.elect();
        for full in ["a", "b"].map(node) {
            attach(&mut cluster, full);
        }
        assert_eq!(order(&mut cluster, node("a"), 1), Some(Position(1)), "{leader} leads");
        cluster.stop(lost);
        cluster.ticks(40);
        let writer = if lost == node("a") { node("b") } else { node("a") };
        assert_eq!(order(&mut cluster, writer, 2), Some(Position(2)), "{lost} is lost");
    }
}

#[test]
fn a_witness_that_leads_hands_over_to_a_full_node_as_soon_as_there_is_one() {
    let mut cluster = Cluster::of(&[NodeKind::Full, NodeKind::Full, NodeKind::Witness]);
    let (a, b, w) = (node("a"), node("b"), node("c"));
    let first = cluster.elect();
    cluster.ticks(30);
    assert_ne!(cluster.leader(), Some(w));
    // The witness alone has what was ordered last, so that nobody else can be elected.
    attach(&mut cluster, a);
    let (leader, other) = if cluster.leader() == Some(a) { (a, b) } else { (b, a) };
    for (from, to) in [(leader, other), (other, leader), (w, other), (other, w)] {
        cluster.cut.insert((from, to));
    }
    attach(&mut cluster, leader);
    assert!(order(&mut cluster, leader, 1).is_some());
    let log = cluster.stop(leader);
    cluster.cut.clear();
    cluster.ticks(60);
    assert_eq!(cluster.leader(), Some(other), "{first} led first");
    cluster.start(leader, log);
    cluster.ticks(30);
    assert_ne!(cluster.leader(), Some(w));
}

#[test]
fn a_witness_holds_no_log_back_and_takes_no_database() {
    let mut cluster = Cluster::of(&[NodeKind::Full, NodeKind::Full, NodeKind::Witness]);
    let (a, b, w) = (node("a"), node("b"), node("c"));
    cluster.elect();
    cluster.ticks(30);
    for full in [a, b] {
        attach(&mut cluster, full);
    }
    let position = order(&mut cluster, a, 1).expect("a position");
    report(&mut cluster, a, position);
    assert_eq!(cluster.nodes[&w].core.state().releasable(), LogIndex(0), "b has flushed nothing");
    report(&mut cluster, b, position);
    assert!(cluster.nodes[&w].core.state().releasable() > LogIndex(0));
    cluster.local(w, Local::Attach { database: SHOP.into(), incarnation: Incarnation(9), founds: false });
    cluster.ticks(20);
    let refused = |reply: &LocalReply| matches!(reply, LocalReply::AttachRefused { reason: RefusalReason::NotAttached, .. });
    assert!(cluster.replies(w).iter().any(refused));
}

#[test]
fn a_query_only_node_holds_the_log_back_never_votes_and_brings_no_contents() {
    let mut cluster = Cluster::of(&[NodeKind::Full, NodeKind::Full, NodeKind::QueryOnly]);
    let (a, b, q) = (node("a"), node("b"), node("c"));
    cluster.elect();
    cluster.local(q, Local::Attach { database: SHOP.into(), incarnation: Incarnation(9), founds: true });
    cluster.ticks(20);
    let refused = |reply: &LocalReply| matches!(reply, LocalReply::AttachRefused { reason: RefusalReason::HasContents, .. });
    assert!(cluster.replies(q).iter().any(refused));
    for each in [a, b, q] {
        attach(&mut cluster, each);
    }
    let position = order(&mut cluster, a, 1).expect("a position");
    for full in [a, b] {
        report(&mut cluster, full, position);
    }
    assert_eq!(cluster.nodes[&a].core.state().releasable(), LogIndex(0), "one has flushed nothing");
    report(&mut cluster, q, position);
    assert!(cluster.nodes[&a].core.state().releasable() > LogIndex(0));
    assert_eq!(role(&cluster, a, q), Some(MemberRole::Learner), "it has caught up, and learns");
    cluster.stop(q);
    assert!(order(&mut cluster, b, 2).is_some(), "nobody waits for it");
    cluster.stop(b);
    cluster.ticks(40);
    assert!(!cluster.nodes[&a].core.status(None).quorum, "nor does it help a minority");
}

/// Found by the simulator (seed 64): a witness that had been sent a snapshot led, and made a full node skip what it had yet to apply.
#[test]
fn a_witness_makes_no_full_node_skip_what_it_has_yet_to_apply() {
    let mut cluster = Cluster::of(&[NodeKind::Full, NodeKind::Full, NodeKind::Full, NodeKind::Full, NodeKind::Witness]);
    cluster.limits.checkpoint_entries_max = 7;
    for id in cluster.nodes.keys().copied().collect::<Vec<_>>() {
        let log = cluster.stop(id);
        cluster.start(id, log);
    }
    let [a, b, c, d, w] = ["a", "b", "c", "d", "e"].map(node);
    cluster.elect();
    cluster.ticks(30);
    for full in [a, b, c, d] {
        attach(&mut cluster, full);
    }
    let mut last = Position(0);
    let mut write = |cluster: &mut Cluster, count: u64, flushed_by: &[NodeId]| {
        for sequence in last.0 + 1..=last.0 + count {
            last = order(cluster, b, sequence).expect("a position");
        }
        for full in flushed_by {
            report(cluster, *full, last);
        }
    };
    // The witness is away while the log is cut, then the first node while the log goes on.
    write(&mut cluster, 5, &[a, b, c, d]);
    let log_of_w = cluster.stop(w);
    write(&mut cluster, 150, &[a, b, c, d]);
    write(&mut cluster, 80, &[a, b, c, d]);
    let log_of_a = cluster.stop(a);
    cluster.ticks(40);
    write(&mut cluster, 30, &[b, c, d]);
    cluster.start(w, log_of_w);
    cluster.ticks(40);
    assert!(cluster.nodes[&w].log.first_index().unwrap() > log_of_a.last_index().unwrap());
    // What is left of those with all of the log is one full node, which leads again once the witness has handed over.
    let (log_of_c, _) = (cluster.stop(c), cluster.stop(d));
    drop(log_of_c);
    let log_of_b = cluster.stop(b);
    cluster.start(a, log_of_a);
    cluster.ticks(40);
    cluster.start(b, log_of_b);
    cluster.ticks(60);
    assert_eq!(cluster.leader(), Some(b));
    let first = cluster.nodes[&a].log.first_index().unwrap();
    let (id, database) = cluster.nodes[&a].core.state().database_named(SHOP).expect("a database");
    assert_eq!((database.head, cluster.nodes[&a].core.applied()), (last, cluster.nodes[&b].core.applied()), "{id}");
    assert!(first < cluster.nodes[&w].log.first_index().unwrap(), "its log has no hole");
}

#[test]
fn what_kind_a_member_is_of_survives_a_checkpoint() {
    let cluster = Cluster::of(&[NodeKind::Full, NodeKind::Witness, NodeKind::QueryOnly]);
    let state = cluster.nodes[&node("a")].core.state();
    let again = checkpoint::decode(&checkpoint::encode(state).state, Default::default()).expect("a checkpoint");
    assert_eq!(again.membership, state.membership);
    assert_eq!(again.membership.members[1].kind, NodeKind::Witness);
}

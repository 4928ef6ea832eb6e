//! The core as a whole, on a perfect network.

mod support;

use gcs_core::*;
use gcs_writeset::link::{AbortCause, RefusalReason, Verdict};
use gcs_writeset::{DatabaseId, Incarnation, NodeId, Position};
use support::*;

fn attach_all(cluster: &mut Cluster, size: usize) {
    for name in ["a", "b", "c", "d", "e"].iter().take(size) {
        cluster.local(node(name), Local::Attach { database: "shop".into(), incarnation: Incarnation(1), founds: false });
        cluster.settle();
        let replies = cluster.replies(node(name));
        assert!(matches!(replies[..], [LocalReply::Attached { database: DatabaseId(1), .. }]), "{replies:?}");
    }
}

#[test]
fn three_nodes_order_a_writeset_of_each_and_agree_on_every_verdict() {
    let mut cluster = Cluster::new(3);
    cluster.elect();
    attach_all(&mut cluster, 3);
    for name in ["a", "b", "c"] {
        let id = node(name);
        cluster.local(id, Local::Submit { tag: tag(id, 1, 0, 1), writeset: writeset(0, &[42], &[]) });
    }
    cluster.settle();
    cluster.ticks(2);
    let histories: Vec<Vec<(Position, Verdict)>> = ["a", "b", "c"]
        .map(|name| cluster.ordered(node(name)).into_iter().map(|o| (o.outcome.position, o.outcome.verdict)).collect())
        .to_vec();
    assert_eq!(histories[0], histories[1]);
    assert_eq!(histories[0], histories[2]);
    assert_eq!(histories[0].len(), 3);
    assert!(matches!(histories[0][0], (Position(1), Verdict::Certified { depends_on: Position(0) })));
    assert!(matches!(
        histories[0][1],
        (Position(2), Verdict::Aborted(AbortCause::Conflict { winner: Position(1), key_index: 0, .. }))
    ));
}

#[test]
fn a_minority_refuses_at_once_and_takes_writes_again_when_healed() {
    let mut cluster = Cluster::new(3);
    cluster.elect();
    attach_all(&mut cluster, 3);
    let logs = [cluster.stop(node("b")), cluster.stop(node("c"))];
    cluster.settle();
    let id = node("a");
    cluster.replies(id);
    cluster.local(id, Local::Submit { tag: tag(id, 1, 0, 1), writeset: writeset(0, &[1], &[]) });
    cluster.settle();
    let replies = cluster.replies(id);
    assert!(matches!(replies[..], [LocalReply::Refused { reason: RefusalReason::NoQuorum, .. }]), "{replies:?}");
    let [b, c] = logs;
    cluster.start(node("b"), b);
    cluster.start(node("c"), c);
    cluster.elect();
    cluster.local(id, Local::Submit { tag: tag(id, 1, 0, 2), writeset: writeset(0, &[1], &[]) });
    cluster.ticks(3);
    for name in ["a", "b", "c"] {
        assert_eq!(cluster.ordered(node(name)).last().unwrap().outcome.position, Position(1), "on {name}");
    }
}

/// The leader stays the leader, and nothing is to wait for what was on the connection until it is overdue.
#[test]
fn a_command_that_a_connection_took_along_is_sent_again_on_the_next() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    attach_all(&mut cluster, 3);
    let id = [node("a"), node("b")].into_iter().find(|id| *id != leader).unwrap();
    cluster.cut.insert((id, leader));
    cluster.local(id, Local::Submit { tag: tag(id, 1, 0, 1), writeset: writeset(0, &[1], &[]) });
    cluster.settle();
    cluster.cut.clear();
    cluster.ticks(1);
    assert!(cluster.ordered(leader).is_empty(), "it never came");
    cluster.give(id, Input::PeerDown(leader));
    cluster.give(id, Input::PeerUp { node: leader, reads: Format::FIRST });
    // Until the leader is heard of again.
    cluster.ticks(3);
    assert_eq!(cluster.ordered(leader).len(), 1);
}

#[test]
fn a_command_sent_to_a_leader_that_dies_is_ordered_once_by_the_next() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    attach_all(&mut cluster, 3);
    let id = *["a", "b"].map(node).iter().find(|id| **id != leader).unwrap();
    cluster.cut.insert((id, leader));
    cluster.local(id, Local::Submit { tag: tag(id, 1, 0, 1), writeset: writeset(0, &[1], &[]) });
    cluster.settle();
    cluster.stop(leader);
    cluster.cut.clear();
    cluster.elect();
    cluster.ticks(3);
    let ordered = cluster.ordered(id);
    assert_eq!(ordered.len(), 1);
    assert_eq!(ordered[0].tag, tag(id, 1, 0, 1));
}

#[test]
fn whoever_loses_the_connection_to_the_leader_does_not_wait_for_its_silence() {
    for size in [3, 5] {
        let mut cluster = Cluster::new(size);
        let leader = cluster.elect();
        // Nobody's patience has begun to run out.
        cluster.ticks(1);
        cluster.stop(leader);
        cluster.ticks(4);
        let next = cluster.leader();
        assert!(next.is_some_and(|next| next != leader), "of {size}: {next:?} after 4 ticks");
    }
}

#[test]
fn a_leader_that_only_one_has_lost_goes_on() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    attach_all(&mut cluster, 3);
    let term = cluster.nodes[&leader].core.status(None).term;
    let lost = *["a", "b", "c"].map(node).iter().find(|id| **id != leader).unwrap();
    for (from, to) in [(leader, lost), (lost, leader)] {
        cluster.cut.insert((from, to));
        cluster.give(from, Input::PeerDown(to));
    }
    cluster.ticks(30);
    assert!(!cluster.nodes[&lost].core.status(None).quorum, "it is not led");
    cluster.cut.clear();
    cluster.give(lost, Input::PeerUp { node: leader, reads: Format::NEWEST });
    cluster.give(leader, Input::PeerUp { node: lost, reads: Format::NEWEST });
    cluster.ticks(10);
    assert_eq!(cluster.leader(), Some(leader));
    assert_eq!(cluster.nodes[&leader].core.status(None).term, term, "and nobody was disturbed");
}

#[test]
fn a_restarted_node_orders_again_from_its_log_what_it_had_applied() {
    let mut cluster = Cluster::new(3);
    cluster.elect();
    attach_all(&mut cluster, 3);
    let id = node("c");
    for sequence in 1..=5 {
        let base = sequence - 1;
        cluster.local(id, Local::Submit { tag: tag(id, 1, 0, sequence), writeset: writeset(base, &[9], &[]) });
        cluster.settle();
    }
    cluster.ticks(2);
    let before: Vec<_> = cluster.ordered(id).into_iter().map(|o| o.outcome).collect();
    assert_eq!(before.len(), 5);
    let log = cluster.stop(id);
    cluster.start(id, log);
    cluster.ticks(20);
    let after: Vec<_> = cluster.ordered(id).into_iter().map(|o| o.outcome).collect();
    assert_eq!(before, after);
}

/// Submissions of this node, one a tick, until so many ticks are over.
fn write(cluster: &mut Cluster, id: NodeId, ticks: u64) {
    let from = cluster.now.0;
    for n in from..from + ticks {
        cluster.local(id, Local::Submit { tag: tag(id, 1, n as u32, 1), writeset: writeset(0, &[n], &[]) });
        cluster.ticks(1);
    }
}

#[test]
fn the_leader_goes_where_most_is_written_and_nothing_is_lost() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    attach_all(&mut cluster, 3);
    let writer = [node("a"), node("b")].into_iter().find(|id| *id != leader).unwrap();
    cluster.ordered(leader);
    write(&mut cluster, writer, 3 * bounds::WRITERS_WINDOW_TICKS);
    cluster.ticks(2);
    assert_eq!(cluster.leader(), Some(writer));
    assert_eq!(cluster.ordered(leader).len() as u64, 3 * bounds::WRITERS_WINDOW_TICKS);
    assert!(cluster.nodes[&writer].core.status(None).term <= 3, "it went there once");
}

#[test]
fn the_leader_does_not_go_to_a_node_that_is_being_drained_or_if_it_may_not() {
    for why in ["drained", "may not"] {
        let mut cluster = Cluster::new(3);
        for id in [node("a"), node("b"), node("c")] {
            let log = cluster.stop(id);
            let config = CoreConfig { follows_writers: why != "may not", ..cluster.config(id) };
            cluster.start_as(config, log);
        }
        let leader = cluster.elect();
        attach_all(&mut cluster, 3);
        let writer = [node("a"), node("b")].into_iter().find(|id| *id != leader).unwrap();
        if why == "drained" {
            cluster.give(leader, Input::PeerDrains { node: writer, drains: true });
        }
        write(&mut cluster, writer, 3 * bounds::WRITERS_WINDOW_TICKS);
        assert_eq!(cluster.nodes[&leader].core.status(None).leader, Some(leader), "{why}");
    }
}

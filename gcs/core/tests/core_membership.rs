//! The membership as the cores of a group change it, on a perfect network.

mod support;

use gcs_core::*;
use gcs_writeset::link::MemberRole;
use gcs_writeset::{DatabaseId, Incarnation, NodeId, NodeKind, Position};
use support::*;

const SHOP: &str = "shop";

/// As one who insists.
fn wish(cluster: &mut Cluster, at: NodeId, number: u64, wish: Wish) {
    cluster.local(at, Local::Wish { number, wish, force: true });
}

/// What became of a wish, within so many ticks.
fn outcome(cluster: &mut Cluster, at: NodeId, number: u64, ticks: u64) -> Option<Result<(), Objection>> {
    for _ in 0..ticks {
        let found = cluster.replies(at).into_iter().find_map(|reply| match reply {
            LocalReply::Wish { number: of, outcome } if of == number => Some(outcome),
            _ => None,
        });
        if found.is_some() {
            return found;
        }
        cluster.ticks(1);
    }
    None
}

fn add_wish_as(name: &str, generation: u32, kind: NodeKind) -> Wish {
    Wish::Add { name: name.into(), generation, address: format!("{name}:1"), directory: 9, kind, reads: Format::NEWEST }
}

/// Adds a member and starts it with an empty log.
fn add(cluster: &mut Cluster, at: NodeId, name: &str, number: u64) -> NodeId {
    add_as(cluster, at, name, number, NodeKind::Full)
}

fn add_as(cluster: &mut Cluster, at: NodeId, name: &str, number: u64, kind: NodeKind) -> NodeId {
    let generation = cluster.nodes[&at].core.state().membership.next_generation(name);
    wish(cluster, at, number, add_wish_as(name, generation, kind));
    assert_eq!(outcome(cluster, at, number, 30), Some(Ok(())));
    let member = cluster.nodes[&at].core.state().membership.named(name).expect("a member").clone();
    let config = CoreConfig { address: member.address, directory: 9, ..cluster.config(member.node) };
    cluster.start_as(config, MemLog::default());
    cluster.settle();
    member.node
}

fn attach(cluster: &mut Cluster, node: NodeId) {
    // A node that has just come has no quorum yet, and refuses.
    for _ in 0..10 {
        cluster.local(node, Local::Attach { database: SHOP.into(), incarnation: Incarnation(node.0), founds: false });
        cluster.ticks(5);
        if cluster.replies(node).iter().any(|reply| matches!(reply, LocalReply::Attached { .. })) {
            return;
        }
    }
    panic!("no attach in 50 ticks");
}

fn progress(cluster: &mut Cluster, node: NodeId, committed: u64) {
    let database = cluster.nodes[&node].core.state().database_named(SHOP).expect("a database").0;
    let (committed, oldest_base) = (Position(committed), Position(committed));
    cluster.local(node, Local::Progress { database, committed, flushed: committed, oldest_base, out_of_service: false });
}

fn role(cluster: &Cluster, at: NodeId, of: NodeId) -> Option<MemberRole> {
    cluster.nodes[&at].core.state().membership.member(of).map(|member| member.role)
}

/// Orders a writeset of `from`, which is attached; its position.
fn order(cluster: &mut Cluster, from: NodeId, sequence: u64) -> Position {
    let tag = tag(from, from.0, 0, sequence);
    cluster.local(from, Local::Submit { tag, writeset: writeset(0, &[sequence], &[]) });
    for _ in 0..40 {
        cluster.ticks(1);
        let found = cluster.ordered(from).into_iter().find(|ordered| ordered.tag == tag);
        if let Some(ordered) = found {
            return ordered.outcome.position;
        }
    }
    panic!("not ordered in 40 ticks");
}

fn follower(cluster: &Cluster, leader: NodeId) -> NodeId {
    *cluster.nodes.keys().find(|node| **node != leader).expect("another node")
}

#[test]
fn a_group_without_a_database_takes_a_fourth_as_a_voter_by_its_log_alone() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let asked = follower(&cluster, leader);
    let d = add(&mut cluster, asked, "d", 1);
    cluster.ticks(10);
    for at in cluster.nodes.keys().copied().collect::<Vec<_>>() {
        assert_eq!(role(&cluster, at, d), Some(MemberRole::Voter), "as seen by {at}");
        assert!(cluster.nodes[&at].core.status(None).quorum);
    }
    assert_eq!(cluster.nodes[&d].core.state().membership.member(d).map(|member| member.ordinal), Some(3));
}

#[test]
fn a_joiner_does_not_vote_until_its_database_has_caught_up() {
    joins_behind(bounds::PROMOTE_POSITIONS_MAX + 10);
    // However little there is, what it has it must have said.
    joins_behind(30);
}

fn joins_behind(far: u64) {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    attach(&mut cluster, leader);
    for sequence in 1..=far {
        let tag = tag(leader, leader.0, 0, sequence);
        cluster.local(leader, Local::Submit { tag, writeset: writeset(sequence - 1, &[sequence], &[]) });
    }
    cluster.ticks(3);
    let d = add(&mut cluster, leader, "d", 1);
    cluster.ticks(30);
    assert_eq!(role(&cluster, leader, d), Some(MemberRole::Learner), "nothing has attached there");
    attach(&mut cluster, d);
    cluster.ticks(30);
    assert_eq!(role(&cluster, leader, d), Some(MemberRole::Learner), "it has everything yet to apply");
    progress(&mut cluster, d, 20);
    cluster.ticks(30);
    assert_eq!(role(&cluster, leader, d), Some(MemberRole::Voter));
}

#[test]
fn a_learner_counts_for_nothing_when_the_voters_are_gone() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    attach(&mut cluster, leader);
    let d = add(&mut cluster, leader, "d", 1);
    cluster.ticks(10);
    assert_eq!(role(&cluster, leader, d), Some(MemberRole::Learner));
    for other in cluster.founders.clone().into_iter().map(|founder| founder.node).filter(|node| *node != leader) {
        cluster.stop(other);
    }
    cluster.ticks(30);
    assert!(!cluster.nodes[&leader].core.status(None).quorum);
    assert!(!cluster.nodes[&d].core.status(None).quorum);
}

#[test]
fn a_learner_holds_the_log_and_a_removed_member_does_not() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    attach(&mut cluster, leader);
    let head = order(&mut cluster, leader, 1);
    progress(&mut cluster, leader, head.0);
    cluster.ticks(15);
    // The others have never attached.
    assert_eq!(cluster.nodes[&leader].core.state().releasable(), LogIndex(0));
    for (number, other) in [(1, NodeId(2)), (2, NodeId(3)), (3, NodeId(1))] {
        if other != leader {
            wish(&mut cluster, leader, number, Wish::Remove { node: other });
            assert_eq!(outcome(&mut cluster, leader, number, 30), Some(Ok(())));
        }
    }
    assert!(cluster.nodes[&leader].core.state().releasable() > LogIndex(0));
    add(&mut cluster, leader, "d", 4);
    assert_eq!(cluster.nodes[&leader].core.state().releasable(), LogIndex(0));
}

/// The snapshot that is there when a member is added is of a time when it was none.
#[test]
fn a_joiner_gets_the_state_where_the_log_has_been_cut() {
    let mut cluster = Cluster::new(1);
    cluster.limits = Limits { checkpoint_entries_max: 20, ..Limits::default() };
    let log = cluster.stop(NodeId(1));
    cluster.start(NodeId(1), log);
    let leader = cluster.elect();
    attach(&mut cluster, leader);
    for sequence in 1..60 {
        let head = order(&mut cluster, leader, sequence);
        progress(&mut cluster, leader, head.0);
        cluster.ticks(10);
    }
    let cut = cluster.nodes[&leader].log.0.borrow().base.0;
    assert!(cut > 0);
    let d = add(&mut cluster, leader, "d", 1);
    cluster.ticks(20);
    assert_eq!(role(&cluster, d, d), Some(MemberRole::Learner));
    assert!(cluster.nodes[&d].log.0.borrow().base.0 >= cut);
}

#[test]
fn down_to_one_and_up_to_three_again_and_the_names_are_new_nodes() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    attach(&mut cluster, leader);
    let others: Vec<NodeId> = cluster.nodes.keys().copied().filter(|node| *node != leader).collect();
    for (number, other) in (1..).zip(&others) {
        wish(&mut cluster, leader, number, Wish::Remove { node: *other });
        assert_eq!(outcome(&mut cluster, leader, number, 30), Some(Ok(())));
        cluster.stop(*other);
        cluster.nodes.remove(other);
    }
    order(&mut cluster, leader, 1);
    wish(&mut cluster, leader, 9, Wish::Remove { node: leader });
    assert_eq!(outcome(&mut cluster, leader, 9, 5), Some(Err(Objection::LastVoter)));
    let names: Vec<String> = cluster.founders.iter().filter(|f| f.node != leader).map(|f| f.name.clone()).collect();
    for (number, name) in (10..).zip(&names) {
        let node = add(&mut cluster, leader, name, number);
        assert!(!others.contains(&node));
        attach(&mut cluster, node);
        progress(&mut cluster, node, 1);
        cluster.ticks(30);
        assert_eq!(role(&cluster, leader, node), Some(MemberRole::Voter));
        order(&mut cluster, leader, number);
    }
    let mut ordinals: Vec<u16> =
        cluster.nodes[&leader].core.state().membership.members.iter().map(|member| member.ordinal).collect();
    ordinals.sort_unstable();
    assert_eq!(ordinals, [0, 1, 2]);
}

#[test]
fn a_leader_that_is_to_go_hands_over_first_and_learns_that_it_is_gone() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let other = follower(&cluster, leader);
    attach(&mut cluster, other);
    wish(&mut cluster, leader, 1, Wish::Remove { node: leader });
    let gone = outcome(&mut cluster, leader, 1, 60);
    assert!(matches!(gone, Some(Ok(()) | Err(Objection::TooLate)) | None), "{gone:?}");
    cluster.ticks(20);
    assert!(role(&cluster, other, leader).is_none());
    cluster.stop(leader);
    cluster.nodes.remove(&leader);
    cluster.elect();
    order(&mut cluster, other, 1);
}

/// Two of three nodes detached the database, or never had it. What the last one has is the group's only copy.
#[test]
fn a_member_with_a_database_that_no_other_has_goes_only_by_force() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let [place, other] = [NodeId(1), NodeId(2)];
    attach(&mut cluster, place);
    let head = order(&mut cluster, place, 1);
    let report = |cluster: &mut Cluster, node: NodeId, out_of_service: bool| {
        let [committed, flushed, oldest_base] = [head; 3];
        cluster.local(node, Local::Progress { database: DatabaseId(1), committed, flushed, oldest_base, out_of_service });
        cluster.ticks(30);
    };
    let remove = |cluster: &mut Cluster, number: u64, node: NodeId, force: bool| {
        cluster.local(leader, Local::Wish { number, wish: Wish::Remove { node }, force });
        outcome(cluster, leader, number, 60)
    };
    report(&mut cluster, place, false);
    assert_eq!(remove(&mut cluster, 1, place, false), Some(Err(Objection::OnlyPlace)));
    attach(&mut cluster, other);
    assert_eq!(remove(&mut cluster, 2, place, false), Some(Err(Objection::OnlyPlace)), "the other has yet to get it");
    report(&mut cluster, other, true);
    assert_eq!(remove(&mut cluster, 3, place, false), Some(Err(Objection::OnlyPlace)), "the other does not serve it");
    cluster.local(other, Local::Detach { database: DatabaseId(1) });
    cluster.ticks(10);
    cluster.local(leader, Local::Wish { number: 6, wish: Wish::Replace { old: place, new: other }, force: false });
    assert_eq!(outcome(&mut cluster, leader, 6, 60), Some(Err(Objection::OnlyPlace)), "it would go without the database");
    attach(&mut cluster, other);
    report(&mut cluster, other, false);
    // Whoever leads asks, and stays.
    let gone = if leader == place { other } else { place };
    assert_eq!(remove(&mut cluster, 4, gone, false), Some(Ok(())), "the other one has it");
    let last = if leader == place { place } else { other };
    assert_eq!(remove(&mut cluster, 5, last, false), Some(Err(Objection::OnlyPlace)));
}

#[test]
fn leadership_goes_where_it_is_wished_and_to_nobody_without_a_vote() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    attach(&mut cluster, leader);
    let other = follower(&cluster, leader);
    wish(&mut cluster, other, 1, Wish::Lead { node: other });
    assert_eq!(outcome(&mut cluster, other, 1, 30), Some(Ok(())));
    assert_eq!(cluster.leader(), Some(other));
    let d = add(&mut cluster, other, "d", 2);
    wish(&mut cluster, leader, 3, Wish::Lead { node: d });
    assert_eq!(outcome(&mut cluster, leader, 3, 30), Some(Err(Objection::NotAVoter)));
}

#[test]
fn a_learner_replaces_a_dead_voter_in_one_step() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    attach(&mut cluster, leader);
    let dead = follower(&cluster, leader);
    cluster.stop(dead);
    let d = add(&mut cluster, leader, "d", 1);
    wish(&mut cluster, leader, 2, Wish::Replace { old: dead, new: d });
    cluster.ticks(20);
    assert_eq!(role(&cluster, leader, dead), Some(MemberRole::Voter), "the learner has not caught up");
    attach(&mut cluster, d);
    assert_eq!(outcome(&mut cluster, leader, 2, 60), Some(Ok(())));
    for at in [leader, d] {
        assert_eq!(role(&cluster, at, dead), None);
        assert_eq!(role(&cluster, at, d), Some(MemberRole::Voter));
    }
    assert!(!cluster.nodes[&leader].core.state().membership.is_joint());
}

/// The leader dies at each point of a replacement; whoever leads then finishes what was begun.
#[test]
fn a_joint_step_ends_whoever_dies_in_it() {
    for steps in 0..40 {
        let mut cluster = Cluster::new(3);
        let leader = cluster.elect();
        attach(&mut cluster, leader);
        let old = follower(&cluster, leader);
        let d = add(&mut cluster, leader, "d", 1);
        attach(&mut cluster, d);
        wish(&mut cluster, leader, 2, Wish::Replace { old, new: d });
        cluster.some_steps(steps);
        let log = cluster.stop(leader);
        cluster.ticks(60);
        let config = cluster.config(leader);
        cluster.start_as(config, log);
        cluster.ticks(60);
        for node in cluster.nodes.values() {
            let membership = &node.core.state().membership;
            assert!(!membership.is_joint() || !membership.contains(old), "after {steps} steps: {membership:?}");
        }
        let head = order(&mut cluster, leader, 1);
        assert!(head > Position::ZERO);
    }
}

/// The leader dies at each point of telling a new voter that it is one, also when entry and commit come to it in one message. With the voter that
/// is left it is a majority, which it can only be by standing for election itself, since nothing happens at the other.
#[test]
fn a_new_voter_stands_for_election_as_soon_as_it_knows_that_it_votes() {
    let mut stood = 0;
    for steps in 0..40 {
        let mut cluster = Cluster::new(2);
        let leader = cluster.elect();
        let other = follower(&cluster, leader);
        attach(&mut cluster, leader);
        let d = add(&mut cluster, leader, "d", 1);
        cluster.ticks(5);
        cluster.cut.insert((leader, d));
        cluster.local(d, Local::Attach { database: SHOP.into(), incarnation: Incarnation(d.0), founds: false });
        cluster.ticks(5);
        assert_eq!(role(&cluster, leader, d), Some(MemberRole::Voter));
        assert_eq!(role(&cluster, d, d), Some(MemberRole::Learner));
        cluster.cut.clear();
        cluster.some_steps(steps);
        cluster.stop(leader);
        let log = cluster.stop(other);
        let config = cluster.config(other);
        cluster.start_as(config, log);
        cluster.settle();
        if role(&cluster, d, d) != Some(MemberRole::Voter) {
            continue;
        }
        stood += 1;
        for _ in 0..4 * Detector::LAN.election_ticks {
            cluster.now.0 += 1;
            cluster.give(d, Input::Tick);
            cluster.settle();
        }
        assert_eq!(cluster.leader(), Some(d), "after {steps} steps");
    }
    assert!(stood > 0, "the new voter never heard that it votes");
}

#[test]
fn a_new_address_is_ordered_and_survives_a_restart_with_the_log() {
    let mut cluster = Cluster::new(3);
    cluster.elect();
    let (a, b) = (NodeId(1), NodeId(2));
    let log = cluster.stop(a);
    let config = CoreConfig { address: "moved:7".into(), ..cluster.config(a) };
    cluster.start_as(config, log);
    cluster.elect();
    cluster.ticks(30);
    let address = |cluster: &Cluster, at| cluster.nodes[&at].core.state().membership.member(a).unwrap().address.clone();
    assert_eq!(address(&cluster, b), "moved:7");
    let log = cluster.stop(b);
    cluster.start(b, log);
    cluster.elect();
    assert_eq!(address(&cluster, b), "moved:7");
}

#[test]
fn a_directory_is_claimed_once() {
    let mut cluster = Cluster::new(3);
    let a = NodeId(1);
    let log = cluster.stop(a);
    let config = CoreConfig { directory: 77, ..cluster.config(a) };
    cluster.start_as(config, log);
    cluster.elect();
    cluster.ticks(30);
    let directory = cluster.nodes[&NodeId(3)].core.state().membership.member(a).unwrap().directory;
    assert_eq!(directory, 77);
}

#[test]
fn a_witness_gets_its_vote_by_its_log_alone_though_the_group_has_a_database() {
    let mut cluster = Cluster::new(2);
    let leader = cluster.elect();
    for node in cluster.nodes.keys().copied().collect::<Vec<_>>() {
        attach(&mut cluster, node);
    }
    order(&mut cluster, leader, 1);
    let w = add_as(&mut cluster, leader, "w", 1, NodeKind::Witness);
    let q = add_as(&mut cluster, leader, "q", 2, NodeKind::QueryOnly);
    cluster.ticks(20);
    assert_eq!(role(&cluster, leader, w), Some(MemberRole::Voter));
    attach(&mut cluster, q);
    progress(&mut cluster, q, 1);
    cluster.ticks(30);
    assert_eq!(role(&cluster, leader, q), Some(MemberRole::Learner));
}

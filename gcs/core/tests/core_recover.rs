//! A majority is lost for good: one node goes on with what it has.

mod support;

use gcs_core::remains::{Remainder, Remains, replay};
use gcs_core::*;
use gcs_writeset::link::MemberRole;
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{Incarnation, NodeId, NodeKind, Position, Tag};
use raft::Storage;
use support::*;

const SHOP: &str = "shop";
const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

fn attach(cluster: &mut Cluster, node: NodeId, database: &str) {
    for _ in 0..10 {
        cluster.local(node, Local::Attach { database: database.into(), incarnation: Incarnation(node.0), founds: false });
        cluster.ticks(5);
        if cluster.replies(node).iter().any(|reply| matches!(reply, LocalReply::Attached { .. })) {
            return;
        }
    }
    panic!("no attach in 50 ticks");
}

/// Submits for `from`, which is attached, something that conflicts with nothing.
fn submit(cluster: &mut Cluster, from: NodeId, sequence: u64) -> Tag {
    let database = state(cluster, from).database_named(SHOP).expect("a database").0;
    let tag = Tag { database, ..tag(from, from.0, 0, sequence) };
    cluster.local(from, Local::Submit { tag, writeset: writeset(0, &[from.0.wrapping_mul(1_000) + sequence], &[]) });
    tag
}

fn order(cluster: &mut Cluster, from: NodeId, sequence: u64) -> Position {
    let tag = submit(cluster, from, sequence);
    for _ in 0..40 {
        cluster.ticks(1);
        let mut ordered = cluster.ordered(from).into_iter();
        if let Some(found) = ordered.find(|ordered| ordered.tag == tag) {
            return found.outcome.position;
        }
    }
    panic!("not ordered in 40 ticks");
}

fn progress(cluster: &mut Cluster, node: NodeId, position: Position) {
    let database = state(cluster, node).database_named(SHOP).expect("a database").0;
    let (committed, flushed, oldest_base) = (position, position, position);
    cluster.local(node, Local::Progress { database, committed, flushed, oldest_base, out_of_service: false });
}

fn state(cluster: &Cluster, node: NodeId) -> &gcs_core::state::State {
    cluster.nodes[&node].core.state()
}

fn wish(cluster: &mut Cluster, at: NodeId, number: u64, wish: Wish) {
    cluster.local(at, Local::Wish { number, wish, force: true });
}

/// Adds a member and starts it with an empty log.
fn add(cluster: &mut Cluster, at: NodeId, name: &str) -> NodeId {
    let generation = state(cluster, at).membership.next_generation(name);
    let (address, directory) = (format!("{name}:1"), 9);
    wish(
        cluster,
        at,
        1,
        Wish::Add {
            name: name.into(),
            generation,
            address: address.clone(),
            directory,
            kind: NodeKind::Full,
            reads: Format::NEWEST,
        },
    );
    cluster.ticks(10);
    let node = state(cluster, at).membership.named(name).expect("a member").node;
    cluster.start_as(CoreConfig { address, directory, ..cluster.config(node) }, MemLog::default());
    cluster.settle();
    node
}

fn stop_all(cluster: &mut Cluster) {
    let running: Vec<NodeId> = cluster.nodes.iter().filter(|(_, node)| node.up).map(|(id, _)| *id).collect();
    for node in running {
        cluster.stop(node);
    }
}

fn remains(cluster: &Cluster, node: NodeId) -> Remains {
    let log = cluster.nodes[&node].log.clone();
    Remains::of(cluster.config(node), log.clone(), log.recovered()).expect("a log that can be read")
}

/// What `gcs recover --accept-loss` does: the others are gone, and the node is started again.
fn recover(cluster: &mut Cluster, node: NodeId) -> Remains {
    stop_all(cluster);
    let found = remains(cluster, node);
    let log = cluster.nodes[&node].log.clone();
    log.write(&found.epoch().expect("a majority is lost"));
    let mut core = Core::new(cluster.config(node), log.clone(), log.recovered()).expect("a core");
    replay(&mut core, |effects| {
        effects.write.iter().for_each(|write| log.write(write));
        Ok::<(), CoreError>(())
    })
    .expect("no broken invariant");
    cluster.nodes.retain(|id, _| *id == node);
    cluster.start(node, log);
    found
}

fn assert_alone(cluster: &mut Cluster, node: NodeId) {
    assert_eq!(cluster.elect(), node);
    let membership = &state(cluster, node).membership;
    let members: Vec<(NodeId, MemberRole)> = membership.members.iter().map(|member| (member.node, member.role)).collect();
    assert_eq!(members, [(node, MemberRole::Voter)]);
    assert_eq!(membership.epoch(), 1);
}

#[test]
fn one_of_three_goes_on_alone_with_all_that_it_has() {
    let mut cluster = Cluster::new(3);
    cluster.elect();
    attach(&mut cluster, A, SHOP);
    attach(&mut cluster, B, SHOP);
    order(&mut cluster, B, 1);
    let head = order(&mut cluster, A, 1);
    let found = recover(&mut cluster, A);
    let shop = Remainder { name: SHOP.into(), head, dated: None, ends: false };
    assert_eq!(found.databases, [shop]);
    assert_eq!(found.membership.members.len(), 3);
    assert_alone(&mut cluster, A);
    assert_eq!(order(&mut cluster, A, 2), Position(head.0 + 1));
    // Nothing of the others holds the log.
    progress(&mut cluster, A, Position(head.0 + 1));
    cluster.ticks(15);
    assert!(state(&cluster, A).releasable() > found.last);
}

/// The leader is cut off with entries that nobody else has, among them a change of votes.
#[test]
fn what_only_the_survivor_has_counts_and_changes_of_votes_that_nobody_agreed_to_are_overtaken() {
    for adds in [false, true] {
        let mut cluster = Cluster::new(3);
        let leader = cluster.elect();
        attach(&mut cluster, leader, SHOP);
        order(&mut cluster, leader, 1);
        let others: Vec<NodeId> = cluster.nodes.keys().copied().filter(|node| *node != leader).collect();
        for node in cluster.nodes.keys().copied().filter(|node| *node != leader).collect::<Vec<_>>() {
            cluster.cut.insert((leader, node));
            cluster.cut.insert((node, leader));
        }
        submit(&mut cluster, leader, 2);
        cluster.settle();
        let address = "d:1".to_owned();
        let wanted = match adds {
            true => Wish::Add {
                name: "d".into(),
                generation: 0,
                address,
                directory: 9,
                kind: NodeKind::Full,
                reads: Format::NEWEST,
            },
            false => Wish::Remove { node: others[0] },
        };
        wish(&mut cluster, leader, 2, wanted);
        cluster.settle();
        let found = recover(&mut cluster, leader);
        assert!(found.committed < found.last, "there is something that nobody had agreed to");
        assert_eq!(found.databases[0].head, Position(2));
        assert_eq!(found.membership.members.len(), if adds { 4 } else { 2 }, "the change is among it");
        assert_alone(&mut cluster, leader);
        let membership = &state(&cluster, leader).membership;
        assert!(others.iter().all(|node| !membership.contains(*node)));
        assert_eq!(order(&mut cluster, leader, 3), Position(3));
    }
}

/// Everything stops at each point of a replacement, which is a joint step; whoever is left, it goes on.
#[test]
fn a_joint_step_is_overtaken_wherever_it_was_on_whichever_node() {
    let (mut joint, mut open) = (0, 0);
    for steps in 0..60 {
        for survivor in 0..4 {
            let mut cluster = Cluster::new(3);
            let leader = cluster.elect();
            attach(&mut cluster, leader, SHOP);
            let old = *cluster.nodes.keys().find(|node| **node != leader).unwrap();
            let d = add(&mut cluster, leader, "d");
            wish(&mut cluster, leader, 2, Wish::Replace { old, new: d });
            cluster.ticks(10);
            // With that it may vote, and the step begins.
            cluster.local(d, Local::Attach { database: SHOP.into(), incarnation: Incarnation(d.0), founds: false });
            cluster.some_steps(steps);
            let survivor = [A, B, C, d][survivor];
            stop_all(&mut cluster);
            let found = remains(&cluster, survivor);
            if !found.membership.contains(survivor) {
                assert!(matches!(found.epoch(), Err(Objection::NoSuchMember)), "it has been replaced");
                continue;
            }
            let is_joint = found.membership.is_joint();
            joint += usize::from(is_joint);
            open += usize::from(is_joint && found.committed < found.last);
            recover(&mut cluster, survivor);
            assert_alone(&mut cluster, survivor);
            attach(&mut cluster, survivor, SHOP);
            order(&mut cluster, survivor, 9);
        }
    }
    assert!(joint > 0 && open > 0, "it was never in the middle: {joint}, {open}");
}

/// As long as its entry is there, whether it has to be applied again or not. What nobody can read has no time.
#[test]
fn the_last_position_of_a_database_is_known_with_its_time() {
    let mut cluster = Cluster::new(3);
    cluster.elect();
    attach(&mut cluster, A, SHOP);
    let envelope = Envelope { committed_at: 77, ..Envelope::default() };
    cluster.local(A, Local::Submit { tag: tag(A, A.0, 0, 1), writeset: envelope.encode(b"body").into() });
    cluster.ticks(10);
    stop_all(&mut cluster);
    assert_eq!(remains(&cluster, B).databases[0].dated, Some((Position(1), 77)));
    let log = cluster.nodes[&B].log.clone();
    log.0.borrow_mut().checkpoint = Some(checkpoint::encode(state(&cluster, B)));
    assert_eq!(remains(&cluster, B).databases[0].dated, Some((Position(1), 77)));
    cluster.nodes.keys().copied().collect::<Vec<_>>().into_iter().for_each(|node| {
        let log = cluster.nodes[&node].log.clone();
        cluster.start(node, log);
    });
    cluster.elect();
    cluster.local(A, Local::Submit { tag: tag(A, A.0, 0, 2), writeset: envelope.encode(b"body").into() });
    cluster.local(A, Local::Submit { tag: tag(A, A.0, 1, 1), writeset: b"no writeset"[..].into() });
    cluster.ticks(10);
    stop_all(&mut cluster);
    let found = remains(&cluster, B);
    let shop = &found.databases[0];
    assert_eq!((shop.head, shop.dated), (Position(3), Some((Position(2), 77))));
    assert!(shop.ends, "b takes no part");
}

#[test]
fn a_learner_that_is_all_that_is_left_votes() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    attach(&mut cluster, leader, SHOP);
    let head = order(&mut cluster, leader, 1);
    let d = add(&mut cluster, leader, "d");
    cluster.ticks(20);
    let found = recover(&mut cluster, d);
    assert_eq!(found.membership.member(d).map(|member| member.role), Some(MemberRole::Learner));
    // Whoever has attached it is lost, and with the last attachment a database ends.
    assert_eq!(found.databases[0], Remainder { head, ends: true, ..found.databases[0].clone() });
    assert_alone(&mut cluster, d);
    assert!(state(&cluster, d).databases.is_empty());
}

#[test]
fn who_has_lost_nothing_or_is_nobody_begins_no_epoch() {
    let mut cluster = Cluster::new(1);
    cluster.elect();
    add(&mut cluster, A, "d");
    cluster.stop(A);
    assert!(matches!(remains(&cluster, A).epoch(), Err(Objection::LastVoter)), "beside a learner it is a majority");
    let stranger = Remains::of(cluster.config(NodeId(77)), MemLog::default(), Recovered::default()).unwrap();
    assert!(matches!(stranger.epoch(), Err(Objection::NoSuchMember)));
}

/// The epoch is one write. Interrupted before it nothing has happened; behind it, whoever starts next ends it.
#[test]
fn killed_in_the_middle_it_has_happened_or_not() {
    let mut cluster = Cluster::new(3);
    cluster.elect();
    attach(&mut cluster, A, SHOP);
    let head = order(&mut cluster, A, 1);
    stop_all(&mut cluster);
    let before = cluster.nodes[&A].log.last_index().unwrap();
    let (first, again) = (remains(&cluster, A), remains(&cluster, A));
    assert_eq!(cluster.nodes[&A].log.last_index().unwrap(), before, "looking writes nothing");
    assert_eq!((first.last, first.last_term, &first.databases), (again.last, again.last_term, &again.databases));
    let log = cluster.nodes[&A].log.clone();
    log.write(&first.epoch().unwrap());
    assert!(matches!(remains(&cluster, A).epoch(), Err(Objection::LastVoter)), "it is done");
    cluster.nodes.retain(|id, _| *id == A);
    cluster.start(A, log);
    assert_alone(&mut cluster, A);
    assert_eq!(order(&mut cluster, A, 2), Position(head.0 + 1));
}

#[test]
fn it_is_read_again_from_the_log_after_a_restart() {
    let mut cluster = Cluster::new(3);
    cluster.elect();
    attach(&mut cluster, A, SHOP);
    order(&mut cluster, A, 1);
    recover(&mut cluster, A);
    assert_alone(&mut cluster, A);
    attach(&mut cluster, A, SHOP);
    order(&mut cluster, A, 2);
    let log = cluster.stop(A);
    let (membership, heads) = (state(&cluster, A).membership.clone(), state(&cluster, A).heads());
    // All of it, from the founders on.
    log.0.borrow_mut().checkpoint = None;
    assert_eq!(log.0.borrow().base, (0, 0));
    cluster.start(A, log.clone());
    assert_alone(&mut cluster, A);
    assert_eq!((&state(&cluster, A).membership, state(&cluster, A).heads()), (&membership, heads));
    order(&mut cluster, A, 3);
    let log = cluster.stop(A);
    cluster.start(A, log);
    assert_alone(&mut cluster, A);
    assert_eq!(order(&mut cluster, A, 4), Position(4));
}

/// By the whole log, and where it has been cut by a state.
#[test]
fn lost_names_join_again_as_new_nodes_and_vote() {
    for cuts in [false, true] {
        let mut cluster = Cluster::new(3);
        if cuts {
            cluster.limits = Limits { checkpoint_entries_max: 20, ..Limits::default() };
        }
        let leader = cluster.elect();
        attach(&mut cluster, leader, SHOP);
        order(&mut cluster, leader, 1);
        recover(&mut cluster, leader);
        assert_alone(&mut cluster, leader);
        if cuts {
            for sequence in 2..60 {
                let head = order(&mut cluster, leader, sequence);
                progress(&mut cluster, leader, head);
                cluster.ticks(10);
            }
            assert!(cluster.nodes[&leader].log.0.borrow().base.0 > 0);
        }
        let names: Vec<String> = ["a", "b", "c"].map(str::to_owned).into_iter().filter(|n| node(n) != leader).collect();
        for name in &names {
            let new = add(&mut cluster, leader, name);
            assert_ne!(new, NodeId::of_name(name));
            assert_ne!(new, NodeId::of_member(name, 1));
            attach(&mut cluster, new, SHOP);
            let head = state(&cluster, leader).database_named(SHOP).unwrap().1.head;
            progress(&mut cluster, new, head);
            cluster.ticks(30);
            assert_eq!(state(&cluster, leader).membership.member(new).map(|member| member.role), Some(MemberRole::Voter));
            assert_eq!(state(&cluster, new).membership, state(&cluster, leader).membership);
        }
        // Two of three do without the one that was left.
        cluster.stop(leader);
        cluster.elect();
        let new = *cluster.nodes.keys().find(|node| **node != leader).unwrap();
        order(&mut cluster, new, 1);
    }
}

#[test]
fn a_majority_can_be_lost_again() {
    let mut cluster = Cluster::new(3);
    cluster.elect();
    attach(&mut cluster, A, SHOP);
    order(&mut cluster, A, 1);
    recover(&mut cluster, A);
    assert_alone(&mut cluster, A);
    let b = add(&mut cluster, A, "b");
    attach(&mut cluster, b, SHOP);
    progress(&mut cluster, b, Position(1));
    cluster.ticks(30);
    let head = order(&mut cluster, b, 1);
    recover(&mut cluster, b);
    assert_eq!(cluster.elect(), b);
    assert_eq!(state(&cluster, b).membership.epoch(), 2);
    assert!(state(&cluster, b).membership.is_gone("a", 0));
    assert_eq!(order(&mut cluster, b, 2), Position(head.0 + 1));
}

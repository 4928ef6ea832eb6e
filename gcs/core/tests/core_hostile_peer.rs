//! No message of a peer can make the core panic or fail, whatever it says. (Lies about what is durable can break the group's
//! promises; a member is trusted not to tell them.)

mod support;

use gcs_core::command::Encoded;
use gcs_core::*;
use gcs_writeset::{DatabaseId, Incarnation, NodeId};
use proptest::prelude::*;
use raft::eraftpb::{ConfState, Entry, Message, Snapshot, SnapshotMetadata};
use support::*;

/// Mostly numbers that are nearly right.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..12u64, 1 => any::<u64>(), 1 => (0..4u64).prop_map(|n| u64::MAX - n)]
}

fn entry() -> impl Strategy<Value = Entry> {
    (0..3i32, number(), number(), prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 0..20)])
        .prop_map(|(entry_type, term, index, data)| Entry { entry_type, term, index, data, ..Entry::default() })
}

fn snapshot() -> impl Strategy<Value = Option<Snapshot>> {
    let metadata = (prop::collection::vec(0..5u64, 0..4), number(), number()).prop_map(|(voters, index, term)| {
        SnapshotMetadata { conf_state: Some(ConfState { voters, ..ConfState::default() }), index, term }
    });
    let snapshot = (prop::collection::vec(any::<u8>(), 0..20), prop::option::of(metadata));
    prop::option::weighted(0.1, snapshot.prop_map(|(data, metadata)| Snapshot { data, metadata }))
}

fn message() -> impl Strategy<Value = Message> {
    let numbers = prop::array::uniform6(number());
    let addressed = (prop_oneof![9 => Just(1u64), 1 => any::<u64>()], prop_oneof![9 => 2..4u64, 1 => any::<u64>()]);
    (0..22i32, addressed, numbers, prop::collection::vec(entry(), 0..4), snapshot(), any::<bool>(), 0..3usize).prop_map(
        |(msg_type, (to, from), n, mut entries, snapshot, reject, context)| {
            // Half of the time the entries fit each other.
            if reject {
                for (nth, entry) in entries.iter_mut().enumerate() {
                    entry.index = n[2].wrapping_add(1 + nth as u64);
                    entry.term = n[0];
                }
            }
            Message {
                msg_type,
                to,
                from,
                term: n[0],
                log_term: n[1],
                index: n[2],
                commit: n[3],
                commit_term: n[4],
                reject_hint: n[5],
                reject,
                entries,
                snapshot,
                context: vec![7; context],
                ..Message::default()
            }
        },
    )
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        6 => message().prop_map(|message| Input::Peer {
            from: NodeId(message.from),
            message: PeerMessage::Raft(Box::new(message)),
        }),
        1 => prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Encoded::whole(bytes.into())), 0..3)
            .prop_map(|commands| Input::Peer { from: NodeId(2), message: PeerMessage::Forward(commands) }),
        3 => Just(Input::Tick),
        1 => any::<u64>().prop_map(|number| Input::Read(Question { number, database: DatabaseId(1) })),
        1 => Just(Input::PeerUp(NodeId(2))),
        1 => Just(Input::PeerDown(NodeId(3))),
        1 => Just(Input::Local(Local::Attach { database: "shop".into(), incarnation: Incarnation(1) })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_a_peer_says_the_core_goes_on(
        led in any::<bool>(), batches in prop::collection::vec(prop::collection::vec(input(), 1..6), 1..60)
    ) {
        let mut cluster = Cluster::new(3);
        if led {
            cluster.elect();
        }
        let now = cluster.now.0;
        let node = cluster.nodes.get_mut(&NodeId(1)).unwrap();
        for (at, batch) in batches.into_iter().enumerate() {
            let mut inputs = batch;
            loop {
                let effects = node.core.step(Tick(now + at as u64), std::mem::take(&mut inputs)).unwrap();
                let Some(write) = effects.write else { break };
                node.log.write(&write);
                inputs.push(Input::Written(write.number));
            }
        }
    }
}

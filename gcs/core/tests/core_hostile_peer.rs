//! No message of a peer can make the core panic or fail, whatever it says. (Lies about what is durable can break the group's
//! promises; a member is trusted not to tell them.)

mod support;

use gcs_core::command::Encoded;
use gcs_core::membership::{Change, Step};
use gcs_core::state::State;
use gcs_core::*;
use gcs_writeset::{DatabaseId, Incarnation, NodeId, NodeKind};
use proptest::prelude::*;
use raft::eraftpb::{ConfState, Entry, Message, Snapshot, SnapshotMetadata};
use raft_prost::Message as _;
use support::*;

/// Mostly numbers that are nearly right.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..12u64, 1 => any::<u64>(), 1 => (0..4u64).prop_map(|n| u64::MAX - n)]
}

fn entry() -> impl Strategy<Value = Entry> {
    let data = prop_oneof![
        3 => Just(Vec::new()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
        3 => change(),
    ];
    (0..3i32, number(), number(), data).prop_map(|(entry_type, term, index, data)| Entry {
        entry_type,
        term,
        index,
        data,
        ..Entry::default()
    })
}

/// The data of an entry that changes votes: nodes 1 to 3 are the founders, 1 is the one that hears this.
fn change() -> impl Strategy<Value = Vec<u8>> {
    let node = || (1..5u64).prop_map(NodeId);
    let step = prop_oneof![
        ("[ad]", 0..2u32, prop::sample::select(NodeKind::ALL.to_vec())).prop_map(|(name, generation, kind)| Step::Add {
            name,
            generation,
            address: "x:1".into(),
            directory: 1,
            kind
        }),
        node().prop_map(|node| Step::Promote { node }),
        node().prop_map(|node| Step::Remove { node }),
        (node(), node()).prop_map(|(old, new)| Step::Replace { old, new }),
        Just(Step::Replace { old: NodeId(1), new: NodeId::of_member("d", 0) }),
    ];
    (0..6u64, step).prop_map(|(version, step)| Change { version, step }.entry().encode_to_vec())
}

fn snapshot() -> impl Strategy<Value = Option<Snapshot>> {
    let metadata = (prop::collection::vec(0..5u64, 0..4), number(), number()).prop_map(|(voters, index, term)| {
        SnapshotMetadata { conf_state: Some(ConfState { voters, ..ConfState::default() }), index, term }
    });
    // Of a state that could be, too, in which the one that hears this may not be a member.
    let real =
        (number(), number(), prop::collection::vec(0..4usize, 0..3), any::<bool>()).prop_map(|(index, term, gone, lies)| {
            let mut state = State::new("postgresr".into(), Membership::new(Cluster::new(3).founders), Default::default());
            (state.applied, state.applied_term) = (LogIndex(index), term);
            state.membership.members.retain(|member| !gone.contains(&usize::from(member.ordinal)));
            let votes = state.membership.votes();
            let conf_state = Some(if lies { ConfState::default() } else { votes });
            let data = checkpoint::encode(&state).state.to_vec();
            Snapshot { data, metadata: Some(SnapshotMetadata { conf_state, index, term }) }
        });
    let snapshot = (prop::collection::vec(any::<u8>(), 0..20), prop::option::of(metadata));
    let any = snapshot.prop_map(|(data, metadata)| Snapshot { data, metadata });
    prop::option::weighted(0.1, prop_oneof![any, real])
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
        1 => (1..5u64).prop_map(|node| Input::Peer {
            from: NodeId(2),
            message: PeerMessage::Wish(Wish::Remove { node: NodeId(node) }),
        }),
        1 => Just(Input::Local(Local::Wish { number: 1, wish: Wish::Lead { node: NodeId(2) }, force: false })),
        3 => Just(Input::Tick),
        1 => any::<u64>().prop_map(|number| Input::Read(Question { number, database: DatabaseId(1) })),
        1 => Just(Input::PeerUp { node: NodeId(2), reads: Format::NEWEST }),
        1 => Just(Input::PeerDown(NodeId(3))),
        1 => Just(Input::Local(Local::Attach { database: "shop".into(), incarnation: Incarnation(1), founds: false })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_a_peer_says_the_core_goes_on(
        size in 1..4usize, led in any::<bool>(), batches in prop::collection::vec(prop::collection::vec(input(), 1..6), 1..60)
    ) {
        let mut cluster = Cluster::new(size);
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

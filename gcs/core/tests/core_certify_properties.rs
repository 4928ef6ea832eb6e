//! The certifier against one that keeps all of history and looks at every pair.

use gcs_core::certify::{Certifier, Holder, WindowBounds};
use gcs_writeset::link::{AbortCause, Verdict};
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{Key, KeyGroup, Mode, NodeId, Position};
use proptest::prelude::*;

/// How far back the base is; exclusive, shared and checked keys.
type Group = (u64, Vec<u64>, Vec<u64>, Vec<u64>);

/// One step of a history; bases are given by how far they are from the head.
#[derive(Clone, Debug)]
enum Step {
    Order {
        node: u64,
        groups: Vec<Group>,
    },
    RaiseHorizon {
        back: u64,
    },
    /// A node recovers from a checkpoint: what was forgotten or not must not show.
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    let keys = || prop::collection::vec(0..12u64, 0..3);
    let group = (0..12u64, keys(), keys(), keys());
    prop_oneof![
        10 => (1..4u64, prop::collection::vec(group, 1..3)).prop_map(|(node, groups)| Step::Order { node, groups }),
        2 => (0..15u64).prop_map(|back| Step::RaiseHorizon { back }),
        1 => Just(Step::Restore),
    ]
}

/// A certified writeset and all its keys.
type Held = (Position, NodeId, Vec<(Key, Mode)>);

#[derive(Default)]
struct BruteForce {
    certified: Vec<Held>,
    horizon: Position,
}

impl BruteForce {
    fn certify(&mut self, position: Position, node: NodeId, envelope: &Envelope) -> Verdict {
        let keys: Vec<(Key, Mode, Position)> = envelope.keys().collect();
        if keys.iter().any(|(_, _, base)| *base < self.horizon) {
            return Verdict::Aborted(AbortCause::BelowHorizon { horizon: self.horizon });
        }
        let mut depends_on = self.horizon;
        for (key_index, (key, mode, base)) in keys.iter().enumerate() {
            let against = |held: &[(Key, Mode)]| {
                held.iter().any(|(k, m)| k == key && *m != Mode::Checked && (*m != Mode::Shared || *mode != Mode::Shared))
            };
            let holders = self.certified.iter().filter(|(_, _, held)| against(held));
            let Some((last, winner_node, _)) = holders.max_by_key(|(position, _, _)| *position) else { continue };
            if last > base {
                let (winner, winner_node, key_index) = (*last, *winner_node, key_index as u32);
                return Verdict::Aborted(AbortCause::Conflict { winner, winner_node, key_index });
            }
            if *mode != Mode::Checked {
                depends_on = depends_on.max(*last);
            }
        }
        self.certified.push((position, node, keys.iter().map(|(key, mode, _)| (*key, *mode)).collect()));
        Verdict::Certified { depends_on }
    }
}

fn envelope(head: u64, groups: &[Group]) -> Envelope {
    let keys = |keys: &[u64]| keys.iter().copied().map(Key).collect();
    let group = |(back, exclusive, shared, checked): &Group| KeyGroup {
        base: Position(head.saturating_sub(*back)),
        exclusive: keys(exclusive),
        shared: keys(shared),
        checked: keys(checked),
    };
    Envelope { groups: groups.iter().map(group).collect(), ..Envelope::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn verdicts_are_those_of_full_history(steps in prop::collection::vec(step(), 1..120)) {
        let mut certifier = Certifier::new(WindowBounds::default());
        let mut reference = BruteForce::default();
        let mut head = 0;
        for step in steps {
            match step {
                Step::Order { node, groups } => {
                    let envelope = envelope(head, &groups);
                    head += 1;
                    let (position, node) = (Position(head), NodeId(node));
                    let expected = reference.certify(position, node, &envelope);
                    prop_assert_eq!(certifier.certify(position, node, &envelope), expected);
                }
                Step::RaiseHorizon { back } => {
                    let to = Position(head.saturating_sub(back));
                    certifier.raise_horizon(to);
                    reference.horizon = reference.horizon.max(to);
                }
                Step::Restore => {
                    let holders: Vec<Holder> = certifier.holders().collect();
                    certifier = Certifier::restore(WindowBounds::default(), certifier.horizon(), &holders);
                }
            }
        }
    }

    #[test]
    fn the_window_stays_within_its_bounds_whatever_members_report(
        steps in prop::collection::vec(step(), 1..200), keys_max in 1..40u64, positions_max in 1..40u64,
    ) {
        let mut certifier = Certifier::new(WindowBounds { keys_max, positions_max });
        let mut head = 0;
        for step in steps {
            if let Step::Order { node, groups } = step {
                let envelope = envelope(head, &groups);
                head += 1;
                certifier.certify(Position(head), NodeId(node), &envelope);
                let holders: Vec<Holder> = certifier.holders().collect();
                // The writeset just ordered stays, however many keys it has.
                let before = holders.iter().filter(|holder| holder.position.0 < head);
                let keys: usize = before.map(|holder| holder.exclusive.len() + holder.shared.len()).sum();
                prop_assert!(keys as u64 <= keys_max, "{keys} keys");
                prop_assert!(certifier.horizon().0 + positions_max >= head);
                prop_assert!(certifier.horizon().0 < head);
            }
        }
    }
}

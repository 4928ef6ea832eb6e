//! The certifier against one that keeps all of history and looks at every pair.

use std::collections::BTreeMap;

use gcs_core::certify::{Certifier, Exact, Holder, Pins, Planted, PlantedBug, Rules, WindowBounds};
use gcs_writeset::link::{AbortCause, Verdict};
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{Key, KeyGroup, Mode, NodeId, Phase, Position, TwoPhase};
use proptest::prelude::*;

/// How far back the base is; exclusive, shared and checked keys.
type Group = (u64, Vec<u64>, Vec<u64>, Vec<u64>);

/// One step of a history; bases are given by how far they are from the head.
#[derive(Clone, Debug)]
enum Step {
    Order {
        node: u64,
        groups: Vec<Group>,
        two_phase: Option<TwoPhase>,
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
        10 => (1..4u64, prop::collection::vec(group, 1..3), two_phase())
            .prop_map(|(node, groups, two_phase)| Step::Order { node, groups, two_phase }),
        2 => (0..15u64).prop_map(|back| Step::RaiseHorizon { back }),
        1 => Just(Step::Restore),
    ]
}

/// Of three names; most writesets are of none.
fn two_phase() -> impl Strategy<Value = Option<TwoPhase>> {
    let phase = prop_oneof![2 => Just(Phase::Prepare), 1 => Just(Phase::Commit), 1 => Just(Phase::Rollback)];
    let two_phase = (phase, 0..3u64).prop_map(|(phase, name)| Some(TwoPhase { phase, name: Key(name) }));
    prop_oneof![3 => Just(None), 1 => two_phase]
}

/// A certified writeset and all its keys.
type Held = (Position, NodeId, Vec<(Key, Mode)>);

#[derive(Default)]
struct BruteForce {
    certified: Vec<Held>,
    horizon: Position,
    prepared: BTreeMap<Key, Held>,
    /// Prepared transactions that have been decided on, and where.
    decided: Vec<(Held, Position)>,
}

impl BruteForce {
    fn certify(&mut self, position: Position, node: NodeId, envelope: &Envelope) -> Verdict {
        let mut keys: Vec<(Key, Mode, Position)> = envelope.keys().collect();
        let prepared = envelope.two_phase.and_then(|two_phase| self.prepared.get(&two_phase.name).cloned());
        match (envelope.two_phase.map(|two_phase| two_phase.phase), &prepared) {
            (Some(Phase::Prepare), Some(_)) => return Verdict::Aborted(AbortCause::AlreadyPrepared),
            (Some(Phase::Commit | Phase::Rollback), None) => return Verdict::Aborted(AbortCause::NotPrepared),
            (Some(Phase::Commit), Some((_, _, pinned))) => {
                let held = pinned.iter().filter(|(_, mode)| *mode != Mode::Checked);
                keys.extend(held.map(|(key, mode)| (*key, *mode, Position(position.0 - 1))));
            }
            _ => {}
        }
        if keys.iter().any(|(_, _, base)| *base < self.horizon) {
            return Verdict::Aborted(AbortCause::BelowHorizon { horizon: self.horizon });
        }
        let mut depends_on = self.horizon;
        for (key_index, (key, mode, base)) in keys.iter().enumerate() {
            if let Some((winner, winner_node)) = self.pinned_against(*key, *mode, envelope.two_phase) {
                return Verdict::Aborted(AbortCause::Prepared { winner, winner_node, key_index: key_index as u32 });
            }
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
        let held: Held = (position, node, keys.iter().map(|(key, mode, _)| (*key, *mode)).collect());
        match envelope.two_phase {
            Some(TwoPhase { phase: Phase::Prepare, name }) => drop(self.prepared.insert(name, held.clone())),
            Some(TwoPhase { name, .. }) => {
                self.decided.extend(self.prepared.remove(&name).map(|prepared| (prepared, position)));
            }
            None => {}
        }
        self.certified.push(held);
        Verdict::Certified { depends_on }
    }

    /// Whether this does nothing but decide on a prepared transaction.
    fn decides(&self, envelope: &Envelope) -> bool {
        let is_prepared =
            |decision: TwoPhase| decision.phase != Phase::Prepare && self.prepared.contains_key(&decision.name);
        envelope.two_phase.is_some_and(is_prepared) && envelope.keys().next().is_none()
    }

    /// The first prepared transaction, but for the one that is decided on, which this key must not meet.
    fn pinned_against(&self, key: Key, mode: Mode, own: Option<TwoPhase>) -> Option<(Position, NodeId)> {
        let others = self.prepared.iter().filter(|(name, _)| own.is_none_or(|own| own.name != **name));
        let is_prepared = own.is_some_and(|own| own.phase == Phase::Prepare);
        let does_not_go = |with: Mode| are_apart(mode, with) || is_prepared && are_apart(with, mode);
        let meets = |held: &[(Key, Mode)]| held.iter().any(|(k, m)| *k == key && does_not_go(*m));
        let found = others.filter(|(_, (_, _, held))| meets(held)).map(|(_, (position, node, _))| (*position, *node));
        found.min()
    }

    /// Between PREPARE TRANSACTION and what decides on it nobody is certified who must not be.
    fn nobody_has_come_between(&self) -> Result<(), String> {
        for ((prepared, _, pinned), decided) in &self.decided {
            for (position, _, held) in self.certified.iter().filter(|(at, _, _)| at > prepared && at < decided) {
                let meet = |(key, mode): &(Key, Mode)| held.iter().any(|(k, m)| k == key && are_apart(*m, *mode));
                if pinned.iter().any(meet) {
                    return Err(format!("{position} came between {prepared} and {decided}"));
                }
            }
        }
        Ok(())
    }
}

/// Whether a later writeset that has a key like this conflicts with a prepared one that has it like that.
fn are_apart(later: Mode, pinned: Mode) -> bool {
    match later {
        Mode::Exclusive => true,
        Mode::Shared => pinned != Mode::Shared,
        Mode::Checked => false,
    }
}

fn envelope(head: u64, groups: &[Group], two_phase: Option<TwoPhase>) -> Envelope {
    let keys = |keys: &[u64]| keys.iter().copied().map(Key).collect();
    let group = |(back, exclusive, shared, checked): &Group| KeyGroup {
        base: Position(head.saturating_sub(*back)),
        exclusive: keys(exclusive),
        shared: keys(shared),
        checked: keys(checked),
    };
    Envelope { groups: groups.iter().map(group).collect(), two_phase, ..Envelope::default() }
}

/// One prepares, another changes the same, having seen that, and then the first is committed: whether the second has come between.
fn comes_between(rules: impl Rules) -> bool {
    let mut certifier = Certifier::new(WindowBounds::default());
    let two_phase = |phase| Some(TwoPhase { phase, name: Key(1) });
    let change = |head| envelope(head, &[(0, vec![7], Vec::new(), Vec::new())], None);
    let prepare = Envelope { two_phase: two_phase(Phase::Prepare), ..change(0) };
    let commit = Envelope { two_phase: two_phase(Phase::Commit), ..Envelope::default() };
    let mut is_certified = |position: u64, envelope: &Envelope| {
        let verdict = certifier.certify_by(rules, Position(position), NodeId(position), envelope);
        matches!(verdict, Verdict::Certified { .. })
    };
    assert!(is_certified(1, &prepare));
    let found = is_certified(2, &change(1));
    assert!(is_certified(3, &commit));
    found
}

#[test]
fn without_pins_somebody_comes_between() {
    assert!(!comes_between(Exact));
    assert!(comes_between(Planted(Some(PlantedBug::PinsForgotten))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn verdicts_are_those_of_full_history(steps in prop::collection::vec(step(), 1..120)) {
        let mut certifier = Certifier::new(WindowBounds::default());
        let mut reference = BruteForce::default();
        let mut head = 0;
        for step in steps {
            match step {
                Step::Order { node, groups, two_phase } => {
                    let envelope = envelope(head, &groups, two_phase);
                    head += 1;
                    let (position, node) = (Position(head), NodeId(node));
                    let decides = reference.decides(&envelope);
                    let expected = reference.certify(position, node, &envelope);
                    prop_assert!(!decides || matches!(expected, Verdict::Certified { .. }), "what is prepared cannot be committed");
                    prop_assert_eq!(certifier.certify(position, node, &envelope), expected);
                }
                Step::RaiseHorizon { back } => {
                    let to = Position(head.saturating_sub(back));
                    certifier.raise_horizon(to);
                    reference.horizon = reference.horizon.max(to);
                }
                Step::Restore => {
                    let holders: Vec<Holder> = certifier.holders().collect();
                    let pinned = certifier.pins().all().clone();
                    certifier = Certifier::restore(WindowBounds::default(), certifier.horizon(), &holders);
                    certifier.pin(Pins::restore(pinned));
                }
            }
        }
        prop_assert_eq!(reference.nobody_has_come_between(), Ok(()));
    }

    #[test]
    fn the_window_stays_within_its_bounds_whatever_members_report(
        steps in prop::collection::vec(step(), 1..200), keys_max in 1..40u64, positions_max in 1..40u64,
    ) {
        let mut certifier = Certifier::new(WindowBounds { keys_max, positions_max });
        let mut head = 0;
        for step in steps {
            if let Step::Order { node, groups, .. } = step {
                let envelope = envelope(head, &groups, None);
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

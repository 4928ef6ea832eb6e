//! Invariant 2: a verdict reads nothing but ordered history. Every node must give the same one, and it must be the one that a
//! certifier gives which keeps all of history and looks at every pair.

use std::collections::{BTreeMap, BTreeSet};

use gcs_core::LogIndex;
use gcs_writeset::link::{AbortCause, Verdict};
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{Key, Mode, NodeId, Position, Tag};

use super::invariant::Invariant;
use crate::sim::fact::{Delivery, Fact, N, View};
use crate::sim::postgres::TxnId;

/// A certified writeset and all its keys.
type Held = (Position, NodeId, Vec<(Key, Mode)>);

pub struct SameVerdict {
    has_reference: bool,
    verdicts: BTreeMap<Position, Verdict>,
    /// Checksums of checkpoints.
    states: BTreeMap<LogIndex, u32>,
    /// The last position that was compared.
    justified: Position,
    history: Vec<Held>,
    /// Submissions, by tag.
    submitted: BTreeMap<Tag, TxnId>,
    /// Those that nobody waits for any longer.
    left: BTreeSet<TxnId>,
}

impl Invariant for SameVerdict {
    fn name(&self) -> &'static str {
        "same verdict"
    }

    fn observe(&mut self, fact: &Fact, _: &View<'_>) -> Result<(), String> {
        match fact {
            Fact::Ordered { node, outcome, .. } => self.agree(*node, outcome.position, outcome.verdict),
            Fact::Checkpointed { node, index, checksum } => {
                let first = *self.states.entry(*index).or_insert(*checksum);
                if first != *checksum {
                    return Err(format!("the state as of entry {} is another on node {}", index.0, node.0));
                }
                Ok(())
            }
            Fact::Submitted { txn, tag, .. } => {
                self.submitted.insert(*tag, *txn);
                Ok(())
            }
            Fact::Unknown { txn, .. } => {
                self.left.insert(*txn);
                Ok(())
            }
            Fact::Delivered { node, delivery } => {
                let (position, verdict) = (delivery.outcome.position, delivery.outcome.verdict);
                self.agree(*node, position, verdict)?;
                if !self.has_reference || position != self.justified.next() {
                    return Ok(());
                }
                self.justified = position;
                self.justify(delivery).map_err(|why| format!("position {position}, {verdict:?}: {why}"))
            }
            _ => Ok(()),
        }
    }
}

impl SameVerdict {
    pub fn new(has_reference: bool) -> SameVerdict {
        SameVerdict {
            has_reference,
            verdicts: BTreeMap::new(),
            states: BTreeMap::new(),
            justified: Position::ZERO,
            history: Vec::new(),
            submitted: BTreeMap::new(),
            left: BTreeSet::new(),
        }
    }

    fn agree(&mut self, node: N, position: Position, verdict: Verdict) -> Result<(), String> {
        let first = *self.verdicts.entry(position).or_insert(verdict);
        if first == verdict {
            Ok(())
        } else {
            Err(format!("position {position} is {verdict:?} on node {} and was {first:?}", node.0))
        }
    }

    fn is_left(&self, tag: Tag) -> bool {
        self.submitted.get(&tag).is_some_and(|txn| self.left.contains(txn))
    }

    fn justify(&mut self, delivery: &Delivery) -> Result<(), String> {
        let Ok((envelope, _)) = Envelope::decode(&delivery.writeset) else { return Err("undecodable".into()) };
        let keys: Vec<(Key, Mode, Position)> = envelope.keys().collect();
        let conflicts = |index: usize, winner: Option<Position>| {
            let (key, mode, base) = keys[index];
            self.history.iter().filter(move |(position, _, held)| {
                let named = winner.is_none_or(|winner| *position == winner);
                named && *position > base && holds_against(held, key, mode)
            })
        };
        match delivery.outcome.verdict {
            Verdict::Certified { depends_on } => {
                if let Some((other, _, _)) = (0..keys.len()).find_map(|index| conflicts(index, None).next()) {
                    return Err(format!("conflicts with position {other}"));
                }
                let changed = || keys.iter().filter(|(_, mode, _)| *mode != Mode::Checked);
                let holders = self
                    .history
                    .iter()
                    .filter(|(_, _, held)| changed().any(|(key, mode, _)| holds_against(held, *key, *mode)));
                let last = holders.map(|(position, _, _)| *position).max().unwrap_or_default();
                if depends_on < last || depends_on >= delivery.outcome.position {
                    return Err(format!("must wait for position {last}"));
                }
                let keys = keys.iter().map(|(key, mode, _)| (*key, *mode)).collect();
                self.history.push((delivery.outcome.position, delivery.tag.node, keys));
                Ok(())
            }
            Verdict::Aborted(AbortCause::Conflict { winner, winner_node, key_index }) => {
                let mut found = conflicts(key_index as usize, Some(winner));
                match found.next() {
                    Some((_, node, _)) if *node == winner_node => Ok(()),
                    _ => Err("no such conflict".into()),
                }
            }
            Verdict::Aborted(AbortCause::BelowHorizon { horizon }) => {
                let below = keys.iter().any(|(_, _, base)| *base < horizon);
                if below && horizon < delivery.outcome.position { Ok(()) } else { Err("no base is below it".into()) }
            }
            Verdict::Aborted(AbortCause::TokenUsed { .. } | AbortCause::TokenFenced | AbortCause::TokenTooOld { .. }) => {
                Err("it has no token".into())
            }
            Verdict::Aborted(AbortCause::LocksLost) if envelope.holder.is_some() => Ok(()),
            Verdict::Aborted(AbortCause::LocksLost) => Err("its session holds no locks".into()),
            Verdict::Aborted(
                AbortCause::Prepared { .. }
                | AbortCause::NotPrepared
                | AbortCause::AlreadyPrepared
                | AbortCause::TooManyPrepared,
            ) => Err("nothing is prepared".into()),
            // Its backend has left it, and the chunks of the next transaction in the same slot have taken the place of its own.
            Verdict::Aborted(AbortCause::Malformed) if envelope.chunks > 0 && self.is_left(delivery.tag) => Ok(()),
            Verdict::Aborted(AbortCause::Malformed) => Err("nothing was wrong with it".into()),
        }
    }
}

fn holds_against(held: &[(Key, Mode)], key: Key, mode: Mode) -> bool {
    held.iter().any(|(other, theirs)| {
        *other == key && *theirs != Mode::Checked && (mode != Mode::Shared || *theirs != Mode::Shared)
    })
}

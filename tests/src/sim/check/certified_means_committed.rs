//! Invariant 6: after certification nothing may undo a writeset. In the end, every certified position is committed on every
//! node; what was acknowledged is certified; what failed with a definite error is not; and what a client was told to be committed at some
//! position is certified there.

use std::collections::{BTreeMap, BTreeSet};

use gcs_writeset::Position;
use gcs_writeset::link::Verdict;

use super::invariant::Invariant;
use crate::sim::fact::{Fact, N, View};
use crate::sim::postgres::{Body, TxnId};

#[derive(Default)]
pub struct CertifiedMeansCommitted {
    certified: BTreeMap<TxnId, Position>,
    last_position: Position,
    acknowledged: BTreeSet<TxnId>,
    failed: BTreeMap<TxnId, &'static str>,
    final_positions: BTreeMap<N, Position>,
}

impl Invariant for CertifiedMeansCommitted {
    fn name(&self) -> &'static str {
        "certified means committed"
    }

    fn observe(&mut self, fact: &Fact, _: &View<'_>) -> Result<(), String> {
        match fact {
            Fact::Delivered { delivery, .. } => {
                self.last_position = self.last_position.max(delivery.outcome.position);
                if let Verdict::Certified { .. } = delivery.outcome.verdict
                    && let Ok(body) = Body::decode(&delivery.body)
                {
                    self.certified.insert(body.txn, delivery.outcome.position);
                    if let Some(why) = self.failed.get(&body.txn) {
                        return Err(format!("transaction {} failed ({why}), and is certified", body.txn.0));
                    }
                }
            }
            Fact::Acknowledged { txn, .. } => {
                self.acknowledged.insert(*txn);
            }
            Fact::Failed { txn, why, .. } => {
                self.failed.insert(*txn, why);
                if self.certified.contains_key(txn) {
                    return Err(format!("transaction {} is certified, and its client was told: {why}", txn.0));
                }
            }
            Fact::CommittedElsewhere { node, txn, position, .. } if self.certified.get(txn) != Some(position) => {
                return Err(format!("transaction {} of node {} is said to be committed at {position}", txn.0, node.0));
            }
            Fact::Final { node, committed, .. } => {
                self.final_positions.insert(*node, *committed);
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        if let Some((node, committed)) = self.final_positions.iter().find(|(_, p)| **p != self.last_position) {
            return Err(format!("node {} ends at {committed}, the order at {}", node.0, self.last_position));
        }
        match self.acknowledged.iter().find(|txn| !self.certified.contains_key(txn)) {
            Some(lost) => Err(format!("transaction {} was acknowledged and is lost", lost.0)),
            None => Ok(()),
        }
    }
}

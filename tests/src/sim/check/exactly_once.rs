//! Invariant 5: a transaction is certified at most once, however often it was sent, and each node commits a position once:
//! data and position come back from a crash together.

use std::collections::BTreeMap;

use gcs_writeset::Position;
use gcs_writeset::link::Verdict;

use super::invariant::Invariant;
use crate::sim::fact::{Fact, N, View};
use crate::sim::postgres::{Body, TxnId};

#[derive(Default)]
pub struct ExactlyOnce {
    certified_at: BTreeMap<TxnId, Position>,
    /// Commits that a crash has not undone.
    committed: BTreeMap<N, Position>,
}

impl Invariant for ExactlyOnce {
    fn name(&self) -> &'static str {
        "exactly once"
    }

    fn observe(&mut self, fact: &Fact, _: &View<'_>) -> Result<(), String> {
        match fact {
            Fact::Delivered { delivery, .. } => {
                let position = delivery.outcome.position;
                if let Verdict::Certified { .. } = delivery.outcome.verdict
                    && let Ok(body) = Body::decode(&delivery.body)
                {
                    let first = *self.certified_at.entry(body.txn).or_insert(position);
                    if first != position {
                        return Err(format!("transaction {} is certified at {first} and at {position}", body.txn.0));
                    }
                }
            }
            Fact::Visible { node, position, .. } => {
                let last = self.committed.insert(*node, *position).unwrap_or_default();
                if *position <= last {
                    return Err(format!("node {} commits position {position} again, after {last}", node.0));
                }
            }
            Fact::Recovered { node, position } => {
                self.committed.insert(*node, *position);
            }
            // A transaction's identifier in a row twice is a transaction applied twice.
            Fact::Final { node, rows, .. } => {
                for (row, value) in rows {
                    let mut txns: Vec<TxnId> = value.iter().flat_map(|value| value.iter().copied()).collect();
                    let all = txns.len();
                    txns.sort_unstable();
                    txns.dedup();
                    if txns.len() < all {
                        return Err(format!("row {} of node {} has a transaction twice", row.0, node.0));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

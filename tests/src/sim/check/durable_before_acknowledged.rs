//! Invariant 3: COMMIT returns after the writeset is flushed by a majority, certified, and visible here.

use std::collections::BTreeMap;

use gcs_core::LogIndex;
use gcs_writeset::Position;
use gcs_writeset::link::Verdict;

use super::invariant::Invariant;
use crate::sim::fact::{Fact, N, View};
use crate::sim::postgres::{Body, TxnId};

#[derive(Default)]
pub struct DurableBeforeAcknowledged {
    certified: BTreeMap<Position, (LogIndex, TxnId)>,
    visible: BTreeMap<N, Position>,
}

impl Invariant for DurableBeforeAcknowledged {
    fn name(&self) -> &'static str {
        "durable before acknowledged"
    }

    fn observe(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        match fact {
            Fact::Delivered { delivery, .. } => {
                if let Verdict::Certified { .. } = delivery.outcome.verdict
                    && let Ok(body) = Body::decode(&delivery.body)
                {
                    self.certified.insert(delivery.outcome.position, (delivery.index, body.txn));
                }
            }
            Fact::Recovered { node, position } | Fact::Visible { node, position, .. } => {
                self.visible.insert(*node, *position);
            }
            Fact::Acknowledged { node, txn, position } => {
                let Some((index, certified)) = self.certified.get(position) else {
                    return Err(format!("transaction {} acknowledged, but position {position} is not certified", txn.0));
                };
                if certified != txn {
                    return Err(format!("transaction {} acknowledged as that of another, {}", txn.0, certified.0));
                }
                if !view.flushed_by_majority(*index, *node) {
                    return Err(format!("transaction {} acknowledged before a majority flushed it", txn.0));
                }
                if self.visible.get(node) < Some(position) {
                    return Err(format!("transaction {} acknowledged before it was visible", txn.0));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

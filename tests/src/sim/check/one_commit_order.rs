//! Invariant 4: on every node, visibility follows position order, with no certified position left out; and a node shows its
//! clients nothing older than what it has shown before. What becomes visible at a position is what was ordered there.

use std::collections::BTreeMap;

use gcs_writeset::Position;
use gcs_writeset::link::Verdict;

use super::invariant::Invariant;
use crate::sim::fact::{Fact, N, View};
use crate::sim::postgres::{Body, TxnId};

#[derive(Default)]
pub struct OneCommitOrder {
    /// `None` for a body that cannot be read.
    certified: BTreeMap<Position, Option<TxnId>>,
    visible: BTreeMap<N, Position>,
    /// The last position that clients of a node may have seen.
    shown: BTreeMap<N, Position>,
}

impl Invariant for OneCommitOrder {
    fn name(&self) -> &'static str {
        "one commit order"
    }

    fn observe(&mut self, fact: &Fact, _: &View<'_>) -> Result<(), String> {
        match fact {
            Fact::Delivered { delivery, .. } => {
                if let Verdict::Certified { .. } = delivery.outcome.verdict {
                    let txn = Body::decode(&delivery.body).ok().map(|body| body.txn);
                    self.certified.insert(delivery.outcome.position, txn);
                }
            }
            Fact::Recovered { node, position } => {
                self.visible.insert(*node, *position);
            }
            Fact::Visible { node, position, txn } => {
                if self.certified.get(position) != Some(&Some(*txn)) {
                    return Err(format!(
                        "transaction {} becomes visible at {position} on node {}, not its own",
                        txn.0, node.0
                    ));
                }
                let before = self.visible.insert(*node, *position).unwrap_or_default();
                if *position <= before {
                    return Err(format!("position {position} becomes visible after {before} on node {}", node.0));
                }
                if let Some((skipped, _)) = self.certified.range(before.next()..*position).next() {
                    return Err(format!("position {position} becomes visible without {skipped} on node {}", node.0));
                }
                let shown = self.shown.entry(*node).or_default();
                *shown = (*shown).max(*position);
            }
            Fact::Serving { node, visible } => {
                let shown = self.shown.get(node).copied().unwrap_or_default();
                if *visible < shown {
                    return Err(format!("node {} serves from {visible}, having shown {shown} before", node.0));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

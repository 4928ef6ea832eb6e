//! Invariant 4: on every node, visibility follows position order, with no certified position left out; and a node shows its
//! clients nothing older than what it has shown before.

use std::collections::{BTreeMap, BTreeSet};

use gcs_writeset::Position;
use gcs_writeset::link::Verdict;

use super::Invariant;
use crate::sim::fact::{Fact, N, View};

#[derive(Default)]
pub struct OneCommitOrder {
    certified: BTreeSet<Position>,
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
                    self.certified.insert(delivery.outcome.position);
                }
            }
            Fact::Recovered { node, position } => {
                self.visible.insert(*node, *position);
            }
            Fact::Visible { node, position } => {
                let before = self.visible.insert(*node, *position).unwrap_or_default();
                if *position <= before {
                    return Err(format!("position {position} becomes visible after {before} on node {}", node.0));
                }
                if let Some(skipped) = self.certified.range(before.next()..*position).next() {
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

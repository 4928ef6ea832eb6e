//! Invariant 1: position p names the same writeset on every node, for ever.

use std::collections::BTreeMap;

use gcs_writeset::{Position, Tag};

use super::invariant::Invariant;
use crate::sim::fact::{Fact, N, View};

#[derive(Default)]
pub struct SameOrder {
    tags: BTreeMap<Position, Tag>,
    /// Checksums of what was ordered.
    writesets: BTreeMap<Position, u32>,
}

impl SameOrder {
    fn names(&mut self, node: N, position: Position, tag: Tag) -> Result<(), String> {
        let first = *self.tags.entry(position).or_insert(tag);
        if first == tag { Ok(()) } else { Err(format!("position {position} is {tag} on node {} and was {first}", node.0)) }
    }
}

impl Invariant for SameOrder {
    fn name(&self) -> &'static str {
        "same order"
    }

    fn observe(&mut self, fact: &Fact, _: &View<'_>) -> Result<(), String> {
        match fact {
            Fact::Ordered { node, tag, outcome, .. } => self.names(*node, outcome.position, *tag),
            Fact::Delivered { node, delivery } => {
                let position = delivery.outcome.position;
                let checksum = crc32c::crc32c(&delivery.writeset);
                let first = *self.writesets.entry(position).or_insert(checksum);
                if first != checksum {
                    return Err(format!("position {position} holds other bytes on node {}", node.0));
                }
                self.names(*node, position, delivery.tag)
            }
            _ => Ok(()),
        }
    }
}

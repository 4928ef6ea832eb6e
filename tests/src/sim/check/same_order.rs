//! Invariant 1: position p names the same writeset on every node, for ever.

use std::collections::BTreeMap;

use gcs_writeset::{Position, Tag};

use super::Invariant;
use crate::sim::fact::{Fact, View};

#[derive(Default)]
pub struct SameOrder {
    first: BTreeMap<Position, (Tag, u32)>,
}

impl Invariant for SameOrder {
    fn name(&self) -> &'static str {
        "same order"
    }

    fn observe(&mut self, fact: &Fact, _: &View<'_>) -> Result<(), String> {
        let Fact::Delivered { node, delivery } = fact else { return Ok(()) };
        let position = delivery.outcome.position;
        let seen = (delivery.tag, crc32c::crc32c(&delivery.writeset));
        let first = *self.first.entry(position).or_insert(seen);
        if first == seen {
            Ok(())
        } else {
            Err(format!("position {position} is {} on node {} and was {}", seen.0, node.0, first.0))
        }
    }
}

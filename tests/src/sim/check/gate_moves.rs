//! The gate moves: where nothing is down, stopped or cut off, the next position is committed soon once it is known. Whoever has it may die, be
//! ended, or have to be replaced; none of it may leave everybody behind it waiting for ever.

use std::collections::BTreeMap;

use gcs_writeset::Position;

use super::invariant::Invariant;
use crate::sim::fact::{Fact, N, View};
use crate::sim::time::{Span, Time, ms};

const MOVES_WITHIN: Span = ms(5_000);

#[derive(Default)]
pub struct GateMoves {
    /// Where each node's gate stands, and since when something could have been committed.
    stands: BTreeMap<N, (Position, Time)>,
}

impl Invariant for GateMoves {
    fn name(&self) -> &'static str {
        "the gate moves"
    }

    fn observe(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        let Fact::Gate { node, committed, known, undisturbed } = fact else { return Ok(()) };
        let (position, since) = self.stands.entry(*node).or_insert((*committed, view.now));
        if position != committed || known == committed {
            (*position, *since) = (*committed, view.now);
        }
        if view.now.since(*since) > MOVES_WITHIN && *undisturbed > MOVES_WITHIN {
            let next = committed.next();
            return Err(format!("position {next} of {known} known has been next on node {} since {since}", node.0));
        }
        Ok(())
    }
}

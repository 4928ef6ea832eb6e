//! Strong reads: who asks up to where to read is told a position at or above whatever was acknowledged, or shown to anybody on any node, before the
//! question.

use std::collections::BTreeMap;

use gcs_writeset::Position;

use super::invariant::Invariant;
use crate::sim::fact::{Fact, View};

#[derive(Default)]
pub struct ReadsSeeWhatWasTold {
    /// The last position that anybody was told of.
    told: Position,
    /// The same, when each question was asked that has no answer.
    asked: BTreeMap<u64, Position>,
}

impl Invariant for ReadsSeeWhatWasTold {
    fn name(&self) -> &'static str {
        "reads see what was told"
    }

    fn observe(&mut self, fact: &Fact, _: &View<'_>) -> Result<(), String> {
        match fact {
            Fact::Acknowledged { position, .. }
            | Fact::Visible { position, .. }
            | Fact::CommittedElsewhere { position, .. } => {
                self.told = self.told.max(*position);
            }
            Fact::AskedWhereToRead { number } => drop(self.asked.insert(*number, self.told)),
            Fact::ToldWhereToRead { node, number, position } => match self.asked.remove(number) {
                Some(told) if *position < told => {
                    let n = node.0;
                    return Err(format!("question {number} on node {n}: read from {position}, but {told} was told before"));
                }
                Some(_) => {}
                None => return Err(format!("question {number} was answered twice")),
            },
            _ => {}
        }
        Ok(())
    }
}

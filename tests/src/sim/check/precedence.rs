//! The one rule of precedence: nobody makes an earlier position wait. A remote backend says so when something later has been in its way for
//! too long, though neither of them was stopped.

use super::invariant::Invariant;
use crate::sim::fact::{Fact, View};

pub struct Precedence;

impl Invariant for Precedence {
    fn name(&self) -> &'static str {
        "nobody makes an earlier position wait"
    }

    fn observe(&mut self, fact: &Fact, _: &View<'_>) -> Result<(), String> {
        match fact {
            Fact::HeldUp { node, position, by, since } => {
                Err(format!("position {position} has been waiting on node {} for {by} since {since}", node.0))
            }
            _ => Ok(()),
        }
    }
}

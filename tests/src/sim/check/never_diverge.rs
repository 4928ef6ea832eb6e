//! Invariant 7: a writeset always fits the rows it is applied to. (What a node does when one does not is the extension's part;
//! here it must not happen.) And the log always reaches back to where a node has to resume.

use super::invariant::Invariant;
use crate::sim::fact::{Fact, View};

pub struct NeverDiverge;

impl Invariant for NeverDiverge {
    fn name(&self) -> &'static str {
        "never diverge"
    }

    fn observe(&mut self, fact: &Fact, _: &View<'_>) -> Result<(), String> {
        match fact {
            Fact::Diverged { node, position, row } => {
                Err(format!("position {position} does not fit row {} of node {}", row.0, node.0))
            }
            Fact::Unreadable { node, position, what } => {
                Err(format!("what is queued for position {position} on node {} cannot be read: {what}", node.0))
            }
            Fact::Misunderstood { node, what } => {
                Err(format!("daemon and PostgreSQL of node {} do not understand each other: {what}", node.0))
            }
            Fact::LogTooShort { node, after } => {
                Err(format!("node {} resumes after position {after}, which the log no longer reaches", node.0))
            }
            _ => Ok(()),
        }
    }
}

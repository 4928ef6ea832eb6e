//! A client is told that its outcome is unknown, or that its transaction is committed though not by its session, only for a cause. When
//! nothing has gone wrong for long enough, verdicts and turns come in time.

use super::invariant::Invariant;
use crate::sim::fact::{Doubt, Elsewhere, Fact, View};
use crate::sim::time::{Span, ms};

/// What trouble leaves behind, besides waits that began while it lasted.
const AFTERWARDS: Span = ms(3_000);

pub struct DoubtsHaveCauses;

impl Invariant for DoubtsHaveCauses {
    fn name(&self) -> &'static str {
        "doubts have causes"
    }

    fn observe(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        let (node, txn, what) = match fact {
            Fact::Unknown { node, txn, why: Doubt::NoVerdict } => (node, txn, "no verdict came"),
            Fact::CommittedElsewhere { node, txn, why: Elsewhere::TooLate, .. } => (node, txn, "no turn came"),
            _ => return Ok(()),
        };
        let bound = Span(view.commit_timeout.0 + AFTERWARDS.0);
        match view.calm_since {
            Some(since) if view.now.since(since) > bound => {
                Err(format!("{what} in time for transaction {} on node {}, in calm times", txn.0, node.0))
            }
            _ => Ok(()),
        }
    }
}

//! Invariant 9: a minority commits nothing, and says so soon.

use std::collections::BTreeMap;

use super::invariant::Invariant;
use crate::sim::fact::{Fact, N, View};
use crate::sim::time::{Span, Time, ms};

/// Within this a node that is cut off must know it: the 1.5 s of the core's bound, and what this world adds to them: a slow
/// clock (5 %), the leader's last heartbeat on its way (0.4 s), a slow flush before the core is asked again (0.4 s).
const KNOWN_WITHIN: Span = ms(2_400);

#[derive(Default)]
pub struct MinorityCommitsNothing {
    /// Since when a node has been out of touch with any majority, and with everybody who was in touch until later: a leader that has just lost
    /// its majority says to whoever comes to it now how long ago that was, and both find out together.
    alone_since: BTreeMap<N, Time>,
}

impl Invariant for MinorityCommitsNothing {
    fn name(&self) -> &'static str {
        "a minority commits nothing"
    }

    fn observe(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        match fact {
            Fact::Delivered { node, delivery } if !view.flushed_by_majority(delivery.index, *node) => {
                let position = delivery.outcome.position;
                Err(format!("position {position} is given out on node {} before a majority flushed it", node.0))
            }
            Fact::Ticked { node, in_touch: true, .. } => {
                self.alone_since.remove(node);
                Ok(())
            }
            Fact::Ticked { node, quorum, touched, .. } => {
                let of_others = touched.iter().map(|other| self.alone_since.get(other).copied().unwrap_or(view.now)).max();
                let since = self.alone_since.entry(*node).or_insert(view.now);
                *since = of_others.map_or(*since, |of_others| of_others.max(*since));
                let since = *since;
                if *quorum && view.now.since(since) > KNOWN_WITHIN {
                    return Err(format!("node {} has been alone since {since} and takes writes", node.0));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

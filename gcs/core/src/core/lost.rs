//! Which nodes a leader has not heard of, and for how long.

use std::collections::BTreeMap;

use gcs_writeset::NodeId;

use crate::api::{LocalReply, Tick};

/// What a leader knows of nodes that hold locks, in its term.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Leading in this term since then.
    pub leads: Option<(u64, Tick)>,
    /// When each was last heard, at the earliest when this node began to lead.
    pub heard: BTreeMap<NodeId, Tick>,
    /// Which of their lives it has proposed to end.
    pub proposed: BTreeMap<NodeId, u64>,
}

/// The number of this node's own question. The driver's count from 1.
pub(super) const TOUCH: u64 = u64::MAX;

/// When this node last asked up to where to read, and was answered: then its leader has heard of it since.
#[derive(Debug, Default)]
pub(super) struct Touch {
    pub asked: Option<Tick>,
    /// There is no answer yet.
    pub waits: bool,
    /// When the last question was asked that has been answered.
    pub confirmed: Option<Tick>,
}

impl Touch {
    /// Takes the answer to this node's own question out of those for others.
    pub fn take_answer(&mut self, replies: &mut Vec<LocalReply>) {
        replies.retain(|reply| match reply {
            LocalReply::ReadFrom { number: TOUCH, .. } => {
                (self.confirmed, self.waits) = (self.asked, false);
                false
            }
            LocalReply::ReadRefused { number: TOUCH, .. } => {
                self.waits = false;
                false
            }
            _ => true,
        });
    }
}

//! Whom a group begins with, and what is wanted of its membership later.

use gcs_writeset::{NodeId, NodeKind};

use crate::format::Format;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founder {
    pub node: NodeId,
    pub name: String,
    pub address: String,
    pub kind: NodeKind,
}

/// What somebody wants the membership to be, or the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A new member, whose data directory has this number.
    Add {
        name: String,
        /// The one that the name is to be in: a wish that comes late must not bring back whoever has been removed since.
        generation: u32,
        address: String,
        directory: u64,
        kind: NodeKind,
        /// Up to which format it reads.
        reads: Format,
    },
    Remove {
        node: NodeId,
    },
    /// The learner `new` is to have the vote of `old`, which goes.
    Replace {
        old: NodeId,
        new: NodeId,
    },
    Address {
        node: NodeId,
        address: String,
    },
    Claim {
        node: NodeId,
        directory: u64,
    },
    Lead {
        node: NodeId,
    },
}

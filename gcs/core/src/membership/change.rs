//! One change of the membership: its bytes, and what it is to Raft.
//!
//! ```text
//! change := version u64, then
//!           1 add      name str, generation u32, address str, directory u64
//!         | 2 promote  node u64
//!         | 3 remove   node u64
//!         | 4 replace  old u64, new u64
//!         | 5 address  node u64, address str
//!         | 6 claim    node u64, directory u64
//!         | 7 recover  node u64
//!         | 8 add as   name str, generation u32, address str, directory u64, kind u8: of a member that is not a full one
//!         | 9 format   format u16: what the group writes from here on; in format 2
//! ```
//!
//! The first four, 7 and 8 change votes: each stands in an entry of its own, as the context of a Raft configuration change that says the same.
//! The others are commands like any other. An entry of Raft's without anything ends a joint step.

use gcs_writeset::bounds::NAME_BYTES_MAX;
use gcs_writeset::wire::{Put, Reader, WireError};
use gcs_writeset::{NodeId, NodeKind};
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2};
use raft_prost::Message as _;
use thiserror::Error;

use crate::format::Format;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Of the membership that it is made for.
    pub version: u64,
    pub step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A new member, which learns.
    Add {
        name: String,
        generation: u32,
        address: String,
        directory: u64,
        kind: NodeKind,
    },
    /// A learner gets its vote.
    Promote {
        node: NodeId,
    },
    Remove {
        node: NodeId,
    },
    /// A learner gets the vote of another, which goes.
    Replace {
        old: NodeId,
        new: NodeId,
    },
    Address {
        node: NodeId,
        address: String,
    },
    /// The member's data directory is the one with this number.
    Claim {
        node: NodeId,
        directory: u64,
    },
    /// A majority is lost for good: a new epoch begins, with this member and nobody else. Proposed by no leader ([`crate::remains`]).
    Recover {
        node: NodeId,
    },
    /// The group writes this format from here on: every member reads it.
    Format {
        format: Format,
    },
}

/// Why the membership cannot be changed so.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Objection {
    #[error("there is a member of that name")]
    NameTaken,
    #[error("another member has that address")]
    AddressTaken,
    #[error("the name is in another generation, or has the same hash as another")]
    IdTaken,
    #[error("the group has as many members as it can have")]
    GroupFull,
    #[error("the group has had as many members of different names as it can remember")]
    TooManyNames,
    #[error("there is no such member")]
    NoSuchMember,
    #[error("it is the only member that votes")]
    LastVoter,
    #[error("it is the only full member that votes")]
    LastFullVoter,
    #[error("it is query-only: it never votes")]
    QueryOnly,
    #[error("it is a witness: it has no databases")]
    Witness,
    #[error("it has its vote already")]
    NotALearner,
    #[error("it has no vote")]
    NotAVoter,
    #[error("another change of the membership is under way")]
    ChangeUnderWay,
    #[error("the member's data directory is known")]
    DirectoryKnown,
    #[error("a name or an address is empty or too long")]
    BadText,
    #[error("the group writes that format, or a newer one")]
    NotNewer,
    #[error("its release is too old: it could not read what the group writes")]
    TooOld,
    #[error("that is not a matter of the order")]
    NotOfTheOrder,
    /// Not a property of the membership.
    #[error("the group did not do it in time")]
    TooLate,
    #[error("this node is not a member of the group")]
    NotAMember,
    /// Nor is this one.
    #[error("it has a database that no other member has")]
    OnlyPlace,
}

const ADD: u8 = 1;
const PROMOTE: u8 = 2;
const REMOVE: u8 = 3;
const REPLACE: u8 = 4;
const ADDRESS: u8 = 5;
const CLAIM: u8 = 6;
const RECOVER: u8 = 7;
const ADD_AS: u8 = 8;
const FORMAT: u8 = 9;

impl Step {
    /// Whether votes are counted otherwise from then on.
    pub fn is_of_votes(&self) -> bool {
        !self.vote_changes().is_empty()
    }

    fn vote_changes(&self) -> Vec<(ConfChangeType, NodeId)> {
        use ConfChangeType::{AddLearnerNode, AddNode, RemoveNode};
        match self {
            Step::Add { name, generation, .. } => vec![(AddLearnerNode, NodeId::of_member(name, *generation))],
            Step::Promote { node } | Step::Recover { node } => vec![(AddNode, *node)],
            Step::Remove { node } => vec![(RemoveNode, *node)],
            Step::Replace { old, new } => vec![(AddNode, *new), (RemoveNode, *old)],
            Step::Address { .. } | Step::Claim { .. } | Step::Format { .. } => Vec::new(),
        }
    }

    /// What Raft does; more than one change is a joint step, which it leaves by itself.
    pub fn conf_change(&self) -> ConfChangeV2 {
        let single = |(change_type, node): (ConfChangeType, NodeId)| ConfChangeSingle {
            change_type: change_type as i32,
            node_id: node.0,
        };
        // Raft is told more than that of a recovery (`Order::change_votes`); this tells it from a promotion.
        let is_recovery = matches!(self, Step::Recover { .. });
        let transition = if is_recovery { ConfChangeTransition::Explicit } else { ConfChangeTransition::Auto };
        let changes = self.vote_changes().into_iter().map(single).collect();
        ConfChangeV2 { transition: transition as i32, changes, ..ConfChangeV2::default() }
    }
}

impl Change {
    pub fn put(&self, out: &mut Vec<u8>) {
        out.put_u64(self.version);
        match &self.step {
            Step::Add { name, generation, address, directory, kind } => {
                out.put_u8(if *kind == NodeKind::Full { ADD } else { ADD_AS });
                out.put_str(name);
                out.put_u32(*generation);
                out.put_str(address);
                out.put_u64(*directory);
                if *kind != NodeKind::Full {
                    out.put_u8(kind.number());
                }
            }
            Step::Promote { node } => {
                out.put_u8(PROMOTE);
                out.put_u64(node.0);
            }
            Step::Remove { node } => {
                out.put_u8(REMOVE);
                out.put_u64(node.0);
            }
            Step::Replace { old, new } => {
                out.put_u8(REPLACE);
                out.put_u64(old.0);
                out.put_u64(new.0);
            }
            Step::Address { node, address } => {
                out.put_u8(ADDRESS);
                out.put_u64(node.0);
                out.put_str(address);
            }
            Step::Claim { node, directory } => {
                out.put_u8(CLAIM);
                out.put_u64(node.0);
                out.put_u64(*directory);
            }
            Step::Recover { node } => {
                out.put_u8(RECOVER);
                out.put_u64(node.0);
            }
            Step::Format { format } => {
                out.put_u8(FORMAT);
                out.put_u16(format.0);
            }
        }
    }

    pub fn read(reader: &mut Reader<'_>) -> Result<Change, WireError> {
        let version = reader.u64()?;
        let step = match reader.u8()? {
            tag @ (ADD | ADD_AS) => Step::Add {
                name: reader.str("member name", NAME_BYTES_MAX)?.to_owned(),
                generation: reader.u32()?,
                address: reader.str("member address", NAME_BYTES_MAX)?.to_owned(),
                directory: reader.u64()?,
                kind: if tag == ADD { NodeKind::Full } else { read_other_kind(reader)? },
            },
            PROMOTE => Step::Promote { node: NodeId(reader.u64()?) },
            REMOVE => Step::Remove { node: NodeId(reader.u64()?) },
            REPLACE => Step::Replace { old: NodeId(reader.u64()?), new: NodeId(reader.u64()?) },
            ADDRESS => Step::Address {
                node: NodeId(reader.u64()?),
                address: reader.str("member address", NAME_BYTES_MAX)?.to_owned(),
            },
            CLAIM => Step::Claim { node: NodeId(reader.u64()?), directory: reader.u64()? },
            RECOVER => Step::Recover { node: NodeId(reader.u64()?) },
            FORMAT => Step::Format { format: Format(reader.u16()?) },
            value => return Err(WireError::Unknown { what: "change of the membership", value: u64::from(value) }),
        };
        Ok(Change { version, step })
    }

    /// What stands in the entry of a change of votes.
    pub fn entry(&self) -> ConfChangeV2 {
        let mut context = Vec::new();
        self.put(&mut context);
        ConfChangeV2 { context, ..self.step.conf_change() }
    }

    /// The change of votes in an entry of Raft's; nothing is the end of a joint step. What Raft would do must be what the change says,
    /// and nothing else.
    pub fn of_entry(data: &[u8]) -> Result<Option<Change>, WireError> {
        if data.is_empty() {
            return Ok(None);
        }
        let unknown = WireError::OutOfRange { what: "change of votes" };
        let raw = ConfChangeV2::decode(data).map_err(|_| unknown.clone())?;
        let mut reader = Reader::new(&raw.context);
        let change = Change::read(&mut reader)?;
        reader.finish("change of the membership")?;
        let expected = ConfChangeV2 { context: raw.context.clone(), ..change.step.conf_change() };
        if change.step.is_of_votes() && raw == expected { Ok(Some(change)) } else { Err(unknown) }
    }
}

/// One step has one form.
fn read_other_kind(reader: &mut Reader<'_>) -> Result<NodeKind, WireError> {
    match NodeKind::read(reader)? {
        NodeKind::Full => Err(WireError::OutOfRange { what: "kind of a node" }),
        kind => Ok(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub fn step() -> impl Strategy<Value = Step> {
        let node = || any::<u64>().prop_map(NodeId);
        prop_oneof![
            ("[a-z]{1,9}", any::<u32>(), "[a-z:0-9]{1,9}", any::<u64>(), prop::sample::select(NodeKind::ALL.to_vec()))
                .prop_map(|(name, generation, address, directory, kind)| Step::Add {
                    name,
                    generation,
                    address,
                    directory,
                    kind
                }),
            node().prop_map(|node| Step::Promote { node }),
            node().prop_map(|node| Step::Remove { node }),
            (node(), node()).prop_map(|(old, new)| Step::Replace { old, new }),
            (node(), "[a-z:0-9]{1,9}").prop_map(|(node, address)| Step::Address { node, address }),
            (node(), any::<u64>()).prop_map(|(node, directory)| Step::Claim { node, directory }),
            node().prop_map(|node| Step::Recover { node }),
            any::<u16>().prop_map(|format| Step::Format { format: Format(format) }),
        ]
    }

    proptest! {
        #[test]
        fn an_entry_gives_back_its_change_if_it_is_one_of_votes(version in any::<u64>(), step in step()) {
            let change = Change { version, step };
            let found = Change::of_entry(&change.entry().encode_to_vec());
            if change.step.is_of_votes() {
                prop_assert_eq!(found, Ok(Some(change)));
            } else {
                prop_assert!(found.is_err());
            }
        }

        #[test]
        fn what_says_one_thing_to_raft_and_another_to_us_is_refused(a in step(), b in step()) {
            let context = Change { version: 1, step: a.clone() }.entry().context;
            let data = ConfChangeV2 { context, ..b.conf_change() }.encode_to_vec();
            prop_assert_eq!(Change::of_entry(&data).is_ok(), a.is_of_votes() && a.conf_change() == b.conf_change());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Change::of_entry(&bytes);
        }
    }

    #[test]
    fn an_entry_without_anything_ends_a_joint_step() {
        assert_eq!(Change::of_entry(&[]), Ok(None));
        // A change of nothing would, to Raft, be the same.
        assert!(Change::of_entry(&ConfChangeV2 { context: vec![1], ..ConfChangeV2::default() }.encode_to_vec()).is_err());
    }
}

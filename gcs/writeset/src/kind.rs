//! What a node of the group is for: its *role*, as the configuration calls it.
//!
//! | kind | has PostgreSQL | takes writes | votes |
//! |---|---|---|---|
//! | full | yes | yes | once it has caught up |
//! | query-only | yes | no (25006) | never |
//! | witness | no | | once it has the log |
//!
//! A member's kind is part of how it came into the group (as a founder, or when it joined), and stays: a node that is to be of another kind leaves
//! and joins again. One thing changes it: a query-only node with which the group goes on after a majority was lost for good is a full one then.
//! Why it is so: docs/adr/0038-roles-of-nodes.md.

use crate::wire::{Reader, WireError};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeKind {
    #[default]
    Full,
    QueryOnly,
    Witness,
}

impl NodeKind {
    pub const ALL: [NodeKind; 3] = [NodeKind::Full, NodeKind::QueryOnly, NodeKind::Witness];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            NodeKind::Full => "full",
            NodeKind::QueryOnly => "query-only",
            NodeKind::Witness => "witness",
        }
    }

    pub fn named(name: &str) -> Option<NodeKind> {
        NodeKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// In every format that holds one.
    pub fn number(self) -> u8 {
        match self {
            NodeKind::Full => 0,
            NodeKind::QueryOnly => 1,
            NodeKind::Witness => 2,
        }
    }

    pub fn numbered(number: u8) -> Option<NodeKind> {
        NodeKind::ALL.into_iter().find(|kind| kind.number() == number)
    }

    pub fn read(reader: &mut Reader<'_>) -> Result<NodeKind, WireError> {
        let number = reader.u8()?;
        NodeKind::numbered(number).ok_or(WireError::Unknown { what: "kind of a node", value: u64::from(number) })
    }

    /// Whether it has databases: only such a node can be copied from, is waited for, and says what the group's contents are.
    pub fn has_databases(self) -> bool {
        self != NodeKind::Witness
    }

    /// Whether it ever votes.
    pub fn may_vote(self) -> bool {
        self != NodeKind::QueryOnly
    }

    pub fn takes_writes(self) -> bool {
        self == NodeKind::Full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_found_by_its_name_and_its_number() {
        for kind in NodeKind::ALL {
            assert_eq!(NodeKind::named(kind.name()), Some(kind));
            assert_eq!(NodeKind::read(&mut Reader::new(&[kind.number()])), Ok(kind));
        }
        assert_eq!(NodeKind::named("spare"), None);
        assert!(NodeKind::read(&mut Reader::new(&[3])).is_err());
    }
}

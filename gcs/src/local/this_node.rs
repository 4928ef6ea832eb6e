//! This node as every connection sees it: who it is, where requests go, where positions are read back from.

use std::rc::Rc;

use gcs_writeset::NodeId;
use gcs_writeset::link::{Failure, FailureKind, PROTOCOL, Reply};

use super::databases::Databases;
use crate::inbox::Inbox;
use crate::log::LogReader;
use crate::peers::Peers;
use crate::rehearsals::Rehearsals;
use crate::roster::Roster;

pub struct ThisNode {
    pub roster: Rc<Roster>,
    /// Users that may connect.
    pub uids: Vec<u32>,
    pub inbox: Rc<Inbox>,
    pub peers: Rc<Peers>,
    pub rehearsals: Rc<Rehearsals>,
    pub log: LogReader,
    pub databases: Databases,
}

impl ThisNode {
    pub fn id(&self) -> NodeId {
        self.roster.node
    }

    pub fn name(&self) -> &str {
        &self.roster.name
    }

    /// The name of a member.
    pub fn name_of(&self, node: NodeId) -> String {
        self.roster.member(node).map_or_else(|| node.to_string(), |member| member.name)
    }

    pub fn group(&self) -> &str {
        &self.roster.group
    }

    /// The answer to a greeting.
    pub fn welcome(&self) -> Reply {
        let ordinal = self.roster.ordinal();
        let (group, name) = (self.group().to_owned(), self.name().to_owned());
        Reply::Welcome { protocol: PROTOCOL, group, node: self.id(), name, ordinal }
    }

    /// What a node says that is no member any more.
    pub fn removal(&self, message: String) -> Failure {
        let hint = "Use another node. To bring this one back, empty the data directory of its gcs and have it join again.";
        Failure { kind: FailureKind::Removed, message, hint: hint.to_owned() }
    }
}

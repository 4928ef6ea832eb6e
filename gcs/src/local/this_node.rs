//! This node as every connection sees it: who it is, where requests go, where positions are read back from.

use std::rc::Rc;

use gcs_writeset::NodeId;
use gcs_writeset::link::{PROTOCOL, Reply};

use super::databases::Databases;
use super::reader::Readers;
use crate::config::Config;
use crate::inbox::Inbox;
use crate::log::LogReader;
use crate::peers::Peers;
use crate::rehearsals::Rehearsals;
use crate::shown::Shown;

pub struct ThisNode {
    pub config: Rc<Config>,
    /// Users that may connect.
    pub uids: Vec<u32>,
    pub inbox: Rc<Inbox>,
    pub peers: Rc<Peers>,
    pub rehearsals: Rc<Rehearsals>,
    pub shown: Rc<Shown>,
    pub readers: Readers,
    pub log: LogReader,
    pub databases: Databases,
}

impl ThisNode {
    pub fn id(&self) -> NodeId {
        self.config.node
    }

    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The name of a member.
    pub fn name_of(&self, node: NodeId) -> String {
        let member = self.config.members.iter().find(|member| member.node == node);
        member.map_or_else(|| node.to_string(), |member| member.name.clone())
    }

    pub fn group(&self) -> &str {
        &self.config.group
    }

    /// The answer to a greeting.
    pub fn welcome(&self) -> Reply {
        let members = &self.config.members;
        let ordinal = members.iter().position(|member| member.node == self.id()).unwrap_or_default() as u16;
        let (group, name) = (self.group().to_owned(), self.name().to_owned());
        Reply::Welcome { protocol: PROTOCOL, group, node: self.id(), name, ordinal }
    }
}

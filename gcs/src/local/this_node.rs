//! This node as every connection sees it: who it is, where requests go, where positions are read back from.

use std::rc::Rc;

use gcs_writeset::NodeId;
use gcs_writeset::bounds::CERTIFICATES_MAX;
use gcs_writeset::link::{CertificateStatus, PROTOCOL, Reply};

use super::databases::Databases;
use crate::complaints::Complaints;
use crate::config::Config;
use crate::inbox::Inbox;
use crate::log::LogReader;
use crate::peers::Peers;
use crate::rehearsals::Rehearsals;
use crate::tls::certificate::Facts;

/// Of at most four bytes each.
const SUBJECT_CHARS_MAX: usize = 64;

pub struct ThisNode {
    pub config: Rc<Config>,
    /// Users that may connect.
    pub uids: Vec<u32>,
    pub inbox: Rc<Inbox>,
    pub peers: Rc<Peers>,
    pub rehearsals: Rc<Rehearsals>,
    pub log: LogReader,
    pub databases: Databases,
    pub complaints: Complaints,
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

    /// The certificates in force; none without TLS.
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        let Some(credentials) = self.peers.security.credentials() else { return Vec::new() };
        let status = |facts: &Facts, is_authority| CertificateStatus {
            // A subject may be longer than a name on the link.
            name: facts.subject.chars().take(SUBJECT_CHARS_MAX).collect(),
            is_authority,
            serial: facts.serial.chars().take(SUBJECT_CHARS_MAX).collect(),
            not_after: facts.not_after.unix_seconds.max(0) as u64,
        };
        let authorities = credentials.authorities.iter().map(|facts| status(facts, true));
        std::iter::once(status(&credentials.own, false)).chain(authorities).take(CERTIFICATES_MAX).collect()
    }

    /// The answer to a greeting.
    pub fn welcome(&self) -> Reply {
        let members = &self.config.members;
        let ordinal = members.iter().position(|member| member.node == self.id()).unwrap_or_default() as u16;
        let (group, name) = (self.group().to_owned(), self.name().to_owned());
        Reply::Welcome { protocol: PROTOCOL, group, node: self.id(), name, ordinal }
    }
}

//! This node as every connection sees it: who it is, where requests go, where positions are read back from.

use std::rc::Rc;

use gcs_proto::Frame;
use gcs_writeset::bounds::CERTIFICATES_MAX;
use gcs_writeset::link::{CertificateStatus, Failure, FailureKind, LogStatus, PROTOCOL, Rehearsal, Reply};
use gcs_writeset::{NodeId, NodeKind};

use super::databases::Databases;
use super::lockers::Lockers;
use super::looking::Looking;
use super::readers::Readers;
use super::sessions::Sessions;
use crate::complaints::Complaints;
use crate::copy::Copies;
use crate::inbox::Inbox;
use crate::log::{LogReader, Usage};
use crate::observe::followed::Followed;
use crate::observe::lost::Lost;
use crate::peers::Peers;
use crate::rehearsals::{Rehearsals, answer};
use crate::roster::Roster;
use crate::shown::Shown;
use crate::tls::certificate::Facts;

/// Of at most four bytes each.
const SUBJECT_CHARS_MAX: usize = 64;

pub struct ThisNode {
    pub roster: Rc<Roster>,
    /// Users that may connect.
    pub uids: Vec<u32>,
    pub inbox: Rc<Inbox>,
    pub peers: Rc<Peers>,
    pub rehearsals: Rc<Rehearsals>,
    pub copies: Rc<Copies>,
    pub shown: Rc<Shown>,
    pub readers: Readers,
    pub lockers: Lockers,
    pub log: LogReader,
    pub usage: Rc<Usage>,
    pub databases: Databases,
    pub sessions: Sessions,
    pub complaints: Complaints,
    /// For those who look on.
    pub followed: Followed,
    pub lost: Lost,
    /// For those who look on from the local socket.
    pub looking: Looking,
    /// Each connection holds one, beside this.
    pub presence: Rc<()>,
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

    /// How many there are on the local socket.
    pub fn connections(&self) -> usize {
        Rc::strong_count(&self.presence) - 1
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

    pub fn log_status(&self) -> LogStatus {
        let (bytes_kept, bytes_max, bytes_a_second) = self.usage.bytes();
        let (format, reads) = (self.roster.format().0, self.roster.reads);
        let waits_for = self.peers.readers_missing(reads);
        LogStatus { bytes_kept, bytes_max, bytes_a_second, format, reads: reads.0, waits_for }
    }

    /// The answer to a greeting.
    pub fn welcome(&self) -> Reply {
        let ordinal = self.roster.ordinal();
        let (group, name) = (self.group().to_owned(), self.name().to_owned());
        Reply::Welcome { protocol: PROTOCOL, group, node: self.id(), name, ordinal }
    }

    /// What a witness says to a PostgreSQL.
    pub fn witness(&self) -> Failure {
        let message = format!("node \"{}\" of group \"{}\" is a witness: it has no databases", self.name(), self.group());
        let hint = "Name the gcs of a node that is full or query-only in postgres_r.gcs_socket.";
        Failure { kind: FailureKind::Witness, message, hint: hint.to_owned() }
    }

    /// Peers that can be reached and have databases.
    pub fn up_with_databases(&self) -> Vec<NodeId> {
        let mut up = self.peers.up();
        up.retain(|peer| self.roster.kind_of(*peer).is_none_or(NodeKind::has_databases));
        up
    }

    /// Tells a peer what became of what it asked under this number.
    pub fn tell_rehearsed(&self, (asker, number): (NodeId, u64), outcome: &Rehearsal) {
        if let Some(rehearsed) = answer(number, outcome) {
            self.peers.send_frame(asker, &Frame::Rehearsed(rehearsed));
            self.peers.flush();
        }
    }

    /// What a node says that is no member any more.
    pub fn removal(&self, message: String) -> Failure {
        let hint = "Use another node. To bring this one back, empty the data directory of its gcs and have it join again.";
        Failure { kind: FailureKind::Removed, message, hint: hint.to_owned() }
    }
}

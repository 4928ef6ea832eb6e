//! Who this node is, and who the members are as far as it knows: the ordered membership, which the core gives out, for everybody else in the
//! daemon.
//!
//! A node that was removed may never see it in its own log: nobody sends entries to somebody who is no member. Its peers tell it when it
//! calls, and then it stops serving for good ([`Roster::set_removed`]), and leaves the other members alone: its vote would count with those that
//! have not heard of it either.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use gcs_core::{Format, Member, Membership};
use gcs_proto::message::members_hash;
use gcs_writeset::{NodeId, NodeKind};
use tokio::sync::Notify;

use crate::config::{Config, peer_silence_max};
use crate::log::{Identity, removal};

#[derive(Debug)]
pub struct Roster {
    pub group: String,
    pub name: String,
    pub node: NodeId,
    pub generation: u32,
    pub directory: u64,
    /// Where peers reach this node.
    pub address: String,
    /// Where the configuration says that members are, by name: tried too where nobody answers, as when all have moved at once.
    pub listed: BTreeMap<String, String>,
    /// As the configuration has it.
    configured_kind: NodeKind,
    /// Whether the configuration has somebody to ask instead.
    joined: bool,
    /// Of this process.
    pub life: u64,
    /// A peer that is silent for longer is down.
    pub silence_max: Duration,
    /// Of the founders: with other ones the log would mean something else.
    pub founders_hash: u64,
    /// Up to which format of the group this node reads.
    pub reads: Format,
    data_directory: PathBuf,
    membership: RefCell<Membership>,
    /// Why this node is no member any more.
    removed: RefCell<Option<String>>,
    removal: Notify,
}

impl Roster {
    pub fn new(config: &Config, identity: &Identity, life: u64) -> Roster {
        let founders = identity.founders.clone();
        Roster {
            group: config.group.clone(),
            name: config.name.clone(),
            node: identity.id(),
            generation: identity.generation,
            directory: identity.directory,
            address: config.address.clone(),
            listed: config.members.iter().map(|member| (member.name.clone(), member.address.clone())).collect(),
            configured_kind: config.kind,
            joined: !config.join.is_empty(),
            life,
            silence_max: peer_silence_max(config.detector),
            founders_hash: members_hash(founders.iter().map(|f| (f.name.as_str(), f.address.as_str(), f.kind))),
            reads: config.reads,
            data_directory: config.data_directory.clone(),
            membership: RefCell::new(Membership::new(founders)),
            removed: RefCell::default(),
            removal: Notify::new(),
        }
    }

    /// The order has it otherwise now.
    pub fn set(&self, membership: Membership) {
        let gone = membership.is_gone(&self.name, self.generation);
        if membership.format != self.format() {
            tracing::info!(format = membership.format.0, "the group writes a newer format");
        }
        if membership.version != self.version() {
            let version = membership.version;
            let members: Vec<&str> = membership.members.iter().map(|member| member.name.as_str()).collect();
            tracing::info!(version, members = members.join(" "), "the membership has changed");
        }
        *self.membership.borrow_mut() = membership;
        if gone {
            self.set_removed(format!("node \"{}\" was removed from group \"{}\"", self.name, self.group));
        }
    }

    pub fn version(&self) -> u64 {
        self.membership.borrow().version
    }

    /// What the group writes.
    pub fn format(&self) -> Format {
        self.membership.borrow().format
    }

    pub fn membership(&self) -> Membership {
        self.membership.borrow().clone()
    }

    pub fn member(&self, node: NodeId) -> Option<Member> {
        self.membership.borrow().member(node).cloned()
    }

    pub fn named(&self, name: &str) -> Option<Member> {
        self.membership.borrow().named(name).cloned()
    }

    pub fn is_gone(&self, name: &str, generation: u32) -> bool {
        self.membership.borrow().is_gone(name, generation)
    }

    pub fn others(&self) -> Vec<Member> {
        // By name: before it has the log, a node that has come again takes itself of an earlier generation for a founder.
        self.membership.borrow().members.iter().filter(|member| member.name != self.name).cloned().collect()
    }

    /// This node's place among the members.
    pub fn ordinal(&self) -> u16 {
        self.member(self.node).map_or(0, |member| member.ordinal)
    }

    /// What this node is for: as the group knows it, or as it has yet to hear.
    pub fn kind(&self) -> NodeKind {
        self.kind_of(self.node).unwrap_or(self.configured_kind)
    }

    pub fn kind_of(&self, node: NodeId) -> Option<NodeKind> {
        self.membership.borrow().member(node).map(|member| member.kind)
    }

    /// This node is no member any more, and will not be again with this data directory.
    pub fn set_removed(&self, why: String) {
        if self.removed.borrow().is_none() {
            if let Err(error) = removal::note(&self.data_directory, &why) {
                tracing::error!(%error, "this would not be known after a restart");
            }
            tracing::error!("{why}: it serves nobody any more; stop it, or empty its data directory and have it join again");
            *self.removed.borrow_mut() = Some(why);
            self.removal.notify_waiters();
        }
    }

    pub fn removed(&self) -> Option<String> {
        self.removed.borrow().clone()
    }

    /// What the configuration's list says that is not so (any more), in words; nothing if they agree.
    pub fn disagreement(&self) -> Option<String> {
        let membership = self.membership.borrow();
        let mut differences = Vec::new();
        for (name, listed) in &self.listed {
            match membership.named(name) {
                None => differences.push(format!("\"{name}\" is not a member")),
                Some(member) if member.address != *listed && *name != self.name => {
                    differences.push(format!("\"{name}\" is at {}, not at {listed}", member.address));
                }
                Some(_) => {}
            }
        }
        if let Some(member) = membership.member(self.node).filter(|member| member.kind != self.configured_kind) {
            let (known, configured) = (member.kind.name(), self.configured_kind.name());
            differences.push(format!("this node is {known}, not {configured}, until it leaves and joins again"));
        }
        // A node that joined need not list anybody.
        let missing = membership.members.iter().filter(|member| !self.joined && !self.listed.contains_key(&member.name));
        differences.extend(missing.map(|member| format!("\"{}\" at {} is a member", member.name, member.address)));
        (!differences.is_empty()).then(|| differences.join("; "))
    }

    /// Until this node is removed.
    pub async fn removal(&self) -> String {
        loop {
            let removal = self.removal.notified();
            if let Some(why) = self.removed() {
                return why;
            }
            removal.await;
        }
    }
}

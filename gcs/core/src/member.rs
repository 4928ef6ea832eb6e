//! Members: who takes part in a database, and how far each has come.
//!
//! A member's reports are ordered like everything else, so that what follows from them is the same everywhere: the horizon of
//! certification, and how much of the log is still needed.
//!
//! Who the members of the group are is [`crate::membership`]'s.

use std::collections::BTreeMap;

use gcs_writeset::{Incarnation, NodeId, Position};

use crate::command::{Generation, Report};
use crate::membership::Member;

/// One member's part in one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    pub generation: Generation,
    /// The life of PostgreSQL whose commands count; `None` once detached.
    pub incarnation: Option<Incarnation>,
    pub report: Report,
}

impl Attachment {
    /// Whether it has the database as the group does, up to some position. One that has just attached has yet to say what it has; it may be about to get a copy.
    pub fn has_contents(&self, head: Position) -> bool {
        self.incarnation.is_some() && (self.report.committed > Position::ZERO || head == Position::ZERO)
    }
}

/// Everyone's part in one database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachments {
    pub by_node: BTreeMap<NodeId, Attachment>,
}

impl Attachments {
    pub fn generation(&self, node: NodeId) -> Generation {
        self.by_node.get(&node).map_or(Generation::default(), |attachment| attachment.generation)
    }

    pub fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        self.by_node.get(&node).and_then(|attachment| attachment.incarnation)
    }

    /// Orders an attach at `head`; `None` if it does not follow what it says it follows. Otherwise whether this is another
    /// life of PostgreSQL than the last.
    pub fn attach(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        generation: Generation,
        head: Position,
    ) -> Option<bool> {
        let attachment = self.by_node.entry(node).or_default();
        if attachment.generation != generation {
            return None;
        }
        attachment.generation = generation.next();
        if attachment.incarnation == Some(incarnation) {
            return Some(false);
        }
        if attachment.incarnation.is_none() {
            attachment.report.flushed = Position::ZERO;
        }
        // Transactions of the last life are dead, and those of this one begin when everything up to here is committed.
        attachment.report.oldest_base = head;
        attachment.report.out_of_service = false;
        attachment.report.committed = attachment.report.flushed;
        attachment.incarnation = Some(incarnation);
        Some(true)
    }

    pub fn detach(&mut self, node: NodeId, generation: Generation) -> bool {
        match self.by_node.get_mut(&node) {
            Some(attachment) if attachment.generation == generation && attachment.incarnation.is_some() => {
                *attachment = Attachment { generation: generation.next(), incarnation: None, report: Report::default() };
                true
            }
            _ => false,
        }
    }

    /// The node is no member any more: nothing of it counts or holds anything back.
    pub fn forget(&mut self, node: NodeId) -> bool {
        self.by_node.remove(&node).is_some()
    }

    /// Whether everyone who ever attached has detached.
    pub fn nobody(&self) -> bool {
        self.by_node.values().all(|attachment| attachment.incarnation.is_none())
    }

    /// Reports never go back, and never beyond what was ordered; whether the member serves is what it said last.
    pub fn report(&mut self, node: NodeId, report: Report, head: Position) {
        if let Some(attachment) = self.by_node.get_mut(&node) {
            let known = &mut attachment.report;
            known.committed = known.committed.max(report.committed.min(head));
            known.flushed = known.flushed.max(report.flushed.min(known.committed));
            known.oldest_base = known.oldest_base.max(report.oldest_base.min(head));
            known.out_of_service = report.out_of_service;
        }
    }

    pub fn report_oldest_base(&mut self, node: NodeId, oldest_base: Position, head: Position) {
        if let Some(attachment) = self.by_node.get_mut(&node) {
            attachment.report.oldest_base = attachment.report.oldest_base.max(oldest_base.min(head));
        }
    }

    /// The oldest base that any attached member may still use; `head` if nobody is attached.
    pub fn oldest_base(&self, head: Position) -> Position {
        let attached = self.by_node.values().filter(|attachment| attachment.incarnation.is_some());
        attached.map(|attachment| attachment.report.oldest_base).min().unwrap_or(head).min(head)
    }

    /// What every member that has databases has flushed. One that never attached has flushed nothing; a detached one needs nothing (`None` if all
    /// are).
    pub fn flushed_by_all(&self, members: &[Member]) -> Option<Position> {
        let members = members.iter().filter(|member| member.kind.has_databases());
        let needs = members.filter_map(|member| match self.by_node.get(&member.node) {
            None => Some(Position::ZERO),
            Some(Attachment { incarnation: None, .. }) => None,
            Some(attachment) => Some(attachment.report.flushed),
        });
        needs.min()
    }
}

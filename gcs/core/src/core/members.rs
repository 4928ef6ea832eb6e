//! The core and the membership: changes that the order brings, changes that this node wants, and who becomes a voter when.

use gcs_writeset::{NodeId, NodeKind};
use raft::Storage;

use super::Core;
use crate::api::*;
use crate::bounds::{HANDS_OVER_ENTRIES_MAX, PROMOTE_ENTRIES_MAX, PROMOTE_POSITIONS_MAX};
use crate::certify::Rules;
use crate::command::{self, Command};
use crate::error::CoreError;
use crate::format::Format;
use crate::member::Attachment;
use crate::membership::wish::Wish;
use crate::membership::{Change, Member, Objection, Step};
use crate::wishes;
use gcs_writeset::link::MemberRole;

impl<L: Storage, R: Rules> Core<L, R> {
    /// Applies an entry that changes votes.
    pub(super) fn apply_votes(&mut self, index: LogIndex, term: u64, data: &[u8]) -> Result<EntryOutcome, CoreError> {
        let change = Change::of_entry(data).map_err(|cause| CoreError::Entry { index, cause })?;
        let (outcome, counts) = self.state.apply_votes(index, term, change.as_ref());
        if counts {
            self.order.change_votes(change.as_ref(), &self.state.membership.votes())?;
            // A new member can only be sent a state in which it is one.
            self.checkpoint_is_due = true;
        }
        Ok(outcome)
    }

    /// The membership may be another than when this was last called: whoever has to know hears of it.
    pub(super) fn follow_membership(&mut self, effects: &mut Effects) {
        let membership = &self.state.membership;
        if self.told_version == Some(membership.version) {
            return;
        }
        self.told_version = Some(membership.version);
        self.quorum.set_voters(membership.voters());
        self.hear_peers();
        self.status_is_due = true;
        effects.membership = Some(self.state.membership.clone());
    }

    /// Members are heard; and whoever else the driver has let in.
    pub(super) fn hear_peers(&mut self) {
        let members = self.state.membership.members.iter().map(|member| member.node);
        self.order.hear(members.chain(self.quorum.all_up().iter().copied()).collect());
    }

    pub(super) fn is_other_member(&self, node: NodeId) -> bool {
        node != self.config.node && self.state.membership.contains(node)
    }

    /// Wishes are answered, and those that remain go where they can come true.
    pub(super) fn see_to_wishes(&mut self, now: Tick, effects: &mut Effects) {
        let leader = self.order.leader();
        self.wishes.answer(now, &self.state.membership, leader, &mut effects.replies);
        match leader {
            Some(leader) if leader == self.config.node => {
                self.lead_membership(now);
                self.lead_as_witness(now);
                self.lead_where_most_is_written(now, effects);
            }
            Some(leader) if self.quorum.is_up(leader) => {
                self.wishes.forget_asked();
                let due = self.wishes.due(now, &self.state.membership);
                effects.send_now.extend(due.into_iter().map(|wish| (leader, PeerMessage::Wish(wish))));
            }
            _ => self.wishes.forget_asked(),
        }
    }

    /// Leading: proposes the first change that is wanted and possible. One for each membership, since others would not count.
    fn lead_membership(&mut self, now: Tick) {
        let wishes = self.wishes.all(now, &self.state.membership);
        let mut replaced_by = Vec::new();
        for wish in &wishes {
            if let Wish::Lead { node } = wish {
                self.order.hand_over(*node);
            }
            replaced_by.extend(if let Wish::Replace { new, .. } = wish { Some(*new) } else { None });
        }
        let made_for = (self.state.membership.version, self.order.term());
        if self.proposed_for == Some(made_for) {
            return;
        }
        let membership = &self.state.membership;
        let open = wishes.iter().filter(|wish| !membership.fulfils(wish));
        let wanted: Vec<Step> = open.filter_map(|wish| membership.step(wish).ok()).collect();
        let may_vote = |member: &&Member| member.role == MemberRole::Learner && member.kind.may_vote();
        let learners = self.state.membership.members.iter().filter(may_vote);
        let promotions = learners.map(|member| member.node).filter(|node| !replaced_by.contains(node));
        let promotions: Vec<Step> =
            promotions.filter(|node| self.may_vote(*node)).map(|node| Step::Promote { node }).collect();
        let raise = self.newer_format().map(|format| Step::Format { format });
        if wanted.into_iter().chain(promotions).chain(raise).any(|step| self.propose_step(step)) {
            self.proposed_for = Some(made_for);
        }
    }

    /// What the group could write from now on.
    fn newer_format(&self) -> Option<Format> {
        let (membership, me) = (&self.state.membership, (self.config.node, self.config.reads));
        let members = membership.members.iter().map(|member| member.node);
        let waits = self.rules.formats_wait_for_all();
        let read = if waits { self.readers.all_read(members, me) } else { Some(self.config.reads) };
        read.filter(|format| *format > membership.format)
    }

    fn propose_step(&mut self, step: Step) -> bool {
        let goes = match &step {
            Step::Remove { node } | Step::Replace { old: node, .. } => Some(*node),
            _ => None,
        };
        // Somebody else leads the group when it does without this node.
        if goes == Some(self.config.node) {
            self.hand_over_to_anyone();
            return false;
        }
        if let Step::Replace { new, .. } = &step
            && !self.may_vote(*new)
        {
            return false;
        }
        let change = Change { version: self.state.membership.version, step };
        if change.step.is_of_votes() {
            self.order.propose_votes(&change)
        } else {
            self.order.propose(command::encode_entry(&[Command::Change(change).encode()]))
        }
    }

    /// To the voter that is furthest in its log; to a witness only if there is nobody else.
    fn hand_over_to_anyone(&mut self) {
        if let Some((_, _, node)) = self.successors().min() {
            self.order.hand_over(node);
        }
    }

    /// Who could lead: whether it is a witness, by how many entries it is behind, which it is.
    fn successors(&self) -> impl Iterator<Item = (bool, u64, NodeId)> {
        let (voters, _) = self.state.membership.voters();
        let able = voters.into_iter().filter(|node| self.quorum.is_up(*node));
        able.filter_map(|node| {
            let is_witness = self.is_witness(node);
            self.order.behind(node).map(|behind| (is_witness, behind, node))
        })
    }

    fn is_witness(&self, node: NodeId) -> bool {
        self.state.membership.member(node).is_some_and(|member| member.kind == NodeKind::Witness)
    }

    /// Nobody writes on a witness: while it leads, all that is written takes one hop more. It hands over as soon as a full node is there that has
    /// (nearly) all of the log, and not too often, since nothing is proposed meanwhile.
    fn lead_as_witness(&mut self, now: Tick) {
        if self.has_rested(now)
            && self.is_witness(self.config.node)
            && let Some((_, node)) = self.near_successors().min()
        {
            self.handed_over_at = Some(now);
            self.order.hand_over(node);
        }
    }

    /// See [`crate::writers`]. Not while anything else is about to change: that would have to wait.
    fn lead_where_most_is_written(&mut self, now: Tick, effects: &mut Effects) {
        let Some(best) = self.writers.best(now).filter(|best| *best != self.config.node) else { return };
        let is_quiet = self.config.follows_writers
            && !self.draining.contains(&best)
            && self.order.may_change_votes()
            && !self.state.membership.is_joint()
            && self.wishes.all(now, &self.state.membership).is_empty();
        if is_quiet && self.has_rested(now) && self.near_successors().any(|(_, node)| node == best) {
            self.handed_over_at = Some(now);
            self.writers.stays(now);
            if self.order.hand_over(best) {
                effects.goes_to_writers = Some(best);
            }
        }
    }

    /// For longer than Raft itself waits for one that it hands over to.
    fn has_rested(&self, now: Tick) -> bool {
        let rest = 2 * self.config.detector.election_ticks;
        self.handed_over_at.is_none_or(|at| now.0.saturating_sub(at.0) >= rest)
    }

    /// Full nodes that could lead at once, and by how many entries each is behind.
    fn near_successors(&self) -> impl Iterator<Item = (u64, NodeId)> {
        let near = |(is_witness, behind, _): &(bool, u64, NodeId)| !is_witness && *behind <= HANDS_OVER_ENTRIES_MAX;
        self.successors().filter(near).map(|(_, behind, node)| (behind, node))
    }

    /// A joiner does not vote until it may: its daemon has the log, and its PostgreSQL, in every database of the group, what the log says.
    /// A database that the node has expressly detached does not count. A witness needs nothing but the log.
    fn may_vote(&self, node: NodeId) -> bool {
        let in_log = self.order.behind(node).is_some_and(|behind| behind <= PROMOTE_ENTRIES_MAX);
        self.quorum.is_up(node) && in_log && (self.is_witness(node) || self.has_caught_up(node))
    }

    pub(super) fn wish(&mut self, (number, wish): (u64, Wish), force: bool, now: Tick, effects: &mut Effects) {
        let is_possible = self.state.membership.step(&wish).is_ok();
        if !force && is_possible && self.takes_a_database_away(&wish) {
            effects.replies.push(LocalReply::Wish { number, outcome: Err(Objection::OnlyPlace) });
        } else {
            self.wishes.local(number, wish, now, &mut effects.replies);
        }
    }

    /// By the same rules as a wish that is made, and no further: what only time shows, such as whether somebody catches up, is not known.
    pub(super) fn consider(&self, (number, wish): (u64, &Wish), force: bool, effects: &mut Effects) {
        let is_so = self.state.membership.fulfils(wish);
        let outcome = match wishes::is_possible(wish, &self.state.membership) {
            Ok(()) if !force && !is_so && self.takes_a_database_away(wish) => Err(Objection::OnlyPlace),
            Ok(()) if !self.has_quorum => Err(Objection::TooLate),
            possible => possible,
        };
        effects.replies.push(LocalReply::Wish { number, outcome });
    }

    /// Whether a member is to go that has a database which no other has. A matter of what is known here now, and not of the order: a person is to be
    /// asked once more. Whoever comes for it gets what is in the order, but for what it has expressly detached.
    fn takes_a_database_away(&self, wish: &Wish) -> bool {
        let (node, successor) = match wish {
            Wish::Remove { node } => (node, None),
            Wish::Replace { old, new } => (old, Some(new)),
            _ => return false,
        };
        self.state.databases.values().any(|database| {
            let places = &database.attachments.by_node;
            let has = |attachment: &Attachment| attachment.has_contents(database.head);
            let serves = |attachment: &Attachment| has(attachment) && !attachment.report.out_of_service;
            let will_have = |node| places.get(node).is_none_or(|attachment: &Attachment| attachment.incarnation.is_some());
            places.get(node).is_some_and(has)
                && !places.iter().any(|(of, attachment)| of != node && serves(attachment))
                && !successor.is_some_and(will_have)
        })
    }

    fn has_caught_up(&self, node: NodeId) -> bool {
        self.state.databases.values().all(|database| match database.attachments.by_node.get(&node) {
            None => false,
            Some(attachment) if attachment.incarnation.is_none() => true,
            Some(attachment) => {
                let (head, committed) = (database.head, attachment.report.committed);
                let behind = head.0.saturating_sub(committed.0);
                !attachment.report.out_of_service && attachment.has_contents(head) && behind <= PROMOTE_POSITIONS_MAX
            }
        })
    }
}

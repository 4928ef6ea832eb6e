//! An operator, who changes the membership while everything else goes wrong: takes members out, dead or alive, brings them back with empty
//! disks and a copy of somebody's rows, and has a learner take the place of a voter.
//!
//! A member that comes back is another node to the group: with another id, as a learner first. Its rows are copied from a donor, as of the
//! donor's last durable commit, once its daemon's log reaches back to there: what is behind the copy must come from the log without a gap.

use gcs_core::member::Attachment;
use gcs_core::{Format, Input, Local, Membership, Wish};
use gcs_writeset::link::MemberRole;
use gcs_writeset::{NodeId, Position};

use super::operation::Operation;
use super::{Event, World};
use crate::sim::disk::SimLog;
use crate::sim::fact::N;
use crate::sim::time::{Span, ms};

const LOOKS_EVERY: (Span, Span) = (ms(100), ms(700));

impl World {
    /// One more member gets into the operator's hands. Not too many: the others are to be a group.
    pub(super) fn operation(&mut self) {
        if self.calm_since.is_some() {
            return;
        }
        let span = Span(self.operator.between(ms(1_500).0, ms(6_000).0));
        self.later(span, Event::Operation);
        let limit = self.plan.may_be_lost().min(2);
        if self.operations.len() >= limit {
            return;
        }
        let n = N(self.operator.below(self.plan.nodes as u64) as usize);
        if self.operations.contains_key(&n) || !self.others_are_attached(n) {
            return;
        }
        if self.plan.amnesia {
            return self.forget_promises(n);
        }
        let is_dead = self.operator.permille(500);
        self.tally.faults += 1;
        self.trace.line(self.now, format_args!("operator: {} is to go, dead {is_dead}", n.0));
        if is_dead {
            self.lose_machine(n);
        }
        self.operations.insert(n, Operation::Remove { is_dead });
        self.look_soon();
    }

    /// Whether somebody else takes part in the database, as some daemon knows: with the last that does, it would end.
    fn others_are_attached(&self, n: N) -> bool {
        let mut states = self.nodes.iter().filter_map(|node| Some(node.daemon.as_ref()?.core.state()));
        let others =
            |(node, attachment): (&NodeId, &Attachment)| *node != self.nodes[n.0].id && attachment.incarnation.is_some();
        states.any(|state| state.databases.values().any(|database| database.attachments.by_node.iter().any(others)))
    }

    /// What must not be done.
    fn forget_promises(&mut self, n: N) {
        self.crash_daemon(n);
        self.nodes[n.0].disk = SimLog::default();
        self.trace.line(self.now, format_args!("{} daemon has lost its disk", n.0));
        self.later(ms(300), Event::StartDaemon(n));
    }

    fn look_soon(&mut self) {
        let span = Span(self.operator.between(LOOKS_EVERY.0.0, LOOKS_EVERY.1.0));
        self.later(span, Event::Operator);
    }

    fn lose_machine(&mut self, n: N) {
        self.crash_daemon(n);
        self.crash_server(n);
        let (id, disk) = (self.nodes[n.0].id, std::mem::take(&mut self.nodes[n.0].disk));
        self.lost.push((id, disk));
    }

    /// The operator looks at what has become of it all, through the eyes of some member.
    pub(super) fn operate(&mut self) {
        let under_way: Vec<(N, Operation)> = self.operations.iter().map(|(n, operation)| (*n, *operation)).collect();
        for (n, operation) in under_way {
            if let Some((at, seen)) = self.some_member(n) {
                self.go_on(n, operation, at, &seen);
            }
        }
        if !self.operations.is_empty() {
            self.look_soon();
        }
    }

    /// A member other than this one, and who the members are as it sees it.
    fn some_member(&mut self, but: N) -> Option<(N, Membership)> {
        let is_member = |n: &N| {
            let node = &self.nodes[n.0];
            let daemon = node.daemon.as_ref().filter(|_| *n != but)?;
            let membership = &daemon.core.state().membership;
            membership.contains(node.id).then(|| membership.clone())
        };
        let all: Vec<(N, Membership)> =
            (0..self.plan.nodes).map(N).filter_map(|n| is_member(&n).map(|seen| (n, seen))).collect();
        (!all.is_empty()).then(|| self.operator.pick(&all).clone())
    }

    fn go_on(&mut self, n: N, operation: Operation, at: N, seen: &Membership) {
        let (id, name) = (self.nodes[n.0].id, format!("n{}", n.0));
        match operation {
            // Another was given its vote meanwhile, and it had to go.
            Operation::Copy { .. } | Operation::Vote { .. } if seen.is_gone(&name, self.nodes[n.0].generation) => {
                self.next(n, Some(Operation::Remove { is_dead: false }));
            }
            Operation::Remove { is_dead } if !seen.contains(id) && seen.is_gone(&name, self.nodes[n.0].generation) => {
                if !is_dead {
                    self.corner("a member was removed while it ran");
                    self.lose_machine(n);
                }
                self.nodes[n.0].directory = self.operator.draw().max(1);
                self.next(n, Some(Operation::Add));
            }
            Operation::Remove { .. } => self.wish(at, Wish::Remove { node: id }),
            Operation::Add => match seen.named(&name) {
                Some(member) if member.directory == self.nodes[n.0].directory => {
                    let (id, generation) = (member.node, member.generation);
                    self.renew(n, id, generation);
                    self.next(n, Some(Operation::Copy { of: None }));
                    self.start_daemon(n);
                }
                _ => {
                    let (directory, generation) = (self.nodes[n.0].directory, seen.next_generation(&name));
                    let address = format!("n{}:1", n.0);
                    // An operator who is told that the release is too old takes a newer one.
                    self.nodes[n.0].reads = self.nodes[n.0].reads.max(seen.format);
                    let (kind, reads) = (self.nodes[n.0].kind, self.nodes[n.0].reads);
                    self.wish(at, Wish::Add { name, generation, address, directory, kind, reads });
                }
            },
            Operation::Copy { of } if self.nodes[n.0].is_witness() || self.copy(n) => {
                let other = N(self.operator.below(self.plan.nodes as u64) as usize);
                let is_free = other != n && !self.operations.contains_key(&other) && self.calm_since.is_none();
                let may_vote = self.nodes[n.0].kind.may_vote() && self.nodes[other.0].kind.may_vote();
                let of = of.or((is_free && may_vote && self.operator.permille(400)).then_some(other));
                self.next(n, Some(Operation::Vote { of }));
                if !self.nodes[n.0].is_witness() {
                    self.start_server(n);
                }
            }
            Operation::Copy { .. } => {}
            Operation::Vote { of } => self.see_to_vote(n, of, at, seen),
        }
    }

    fn see_to_vote(&mut self, n: N, of: Option<N>, at: N, seen: &Membership) {
        let new = self.nodes[n.0].id;
        let is_done = match self.nodes[n.0].kind.may_vote() {
            true => seen.member(new).is_some_and(|member| member.role == MemberRole::Voter),
            // What is as good as a vote for one that gets none.
            false => {
                self.nodes[n.0].daemon.is_some() && self.head(&self.nodes[n.0]) == Some(self.nodes[n.0].server.committed())
            }
        };
        let old = of.map(|of| (of, self.nodes[of.0].id));
        match old.filter(|(_, old)| seen.contains(*old)) {
            Some((_, old)) => {
                self.wish(at, Wish::Replace { old, new });
            }
            None if is_done => {
                self.corner("a member came back with an empty disk");
                self.next(n, None);
                // It may be on its way out for another reason.
                if let Some((of, _)) = old.filter(|(of, _)| !self.operations.contains_key(of)) {
                    self.next(of, Some(Operation::Remove { is_dead: false }));
                }
            }
            None => {}
        }
    }

    fn next(&mut self, n: N, operation: Option<Operation>) {
        self.trace.line(self.now, format_args!("operator: {} {operation:?}", n.0));
        match operation {
            Some(operation) => self.operations.insert(n, operation),
            None => self.operations.remove(&n),
        };
    }

    fn wish(&mut self, at: N, wish: Wish) {
        self.wishes += 1;
        let number = self.wishes;
        self.give(at, Input::Local(Local::Wish { number, wish, force: true }));
    }

    pub(super) fn corner(&mut self, what: &'static str) {
        *self.tally.corners.entry(what).or_default() += 1;
    }

    /// The node of that name is another one from now on.
    fn renew(&mut self, n: N, id: NodeId, generation: u32) {
        let old = self.nodes[n.0].id;
        for other in (0..self.plan.nodes).map(N) {
            self.forget_peer(other, old);
        }
        let node = &mut self.nodes[n.0];
        (node.id, node.generation) = (id, generation);
    }

    /// Copies rows from somebody, if the log here has what comes behind them.
    fn copy(&mut self, n: N) -> bool {
        let Some(daemon) = &self.nodes[n.0].daemon else { return false };
        let Some((database, state)) = daemon.core.state().database_named("shop") else { return false };
        let (head, disk) = (state.head, self.nodes[n.0].disk.clone());
        let reaches = |copied: Position| copied >= head || disk.0.borrow().outcome(database, copied.next()).is_some();
        let may_give = |donor: &N| {
            let node = &self.nodes[donor.0];
            *donor != n && !node.is_witness() && !self.operations.contains_key(donor) && reaches(node.server.durable())
        };
        let donors: Vec<N> = (0..self.plan.nodes).map(N).filter(may_give).collect();
        if donors.is_empty() {
            return false;
        }
        let donor = *self.operator.pick(&donors);
        let copy = self.nodes[donor.0].server.copy();
        self.trace.line(self.now, format_args!("operator: {} gets a copy of {}", n.0, donor.0));
        self.nodes[n.0].server.take(copy);
        true
    }

    /// The log does not reach back to what the server has: its daemon was sent a later state. It gets another copy. False where no member came
    /// that has less of the log than the others: then nothing may have been cut off.
    pub(super) fn copy_again(&mut self, n: N) -> bool {
        let of = match self.operations.get(&n) {
            Some(Operation::Vote { of }) => *of,
            None if self.plan.operator => None,
            _ => return false,
        };
        self.corner("a copy was too old");
        self.crash_server(n);
        self.next(n, Some(Operation::Copy { of }));
        self.look_soon();
        true
    }

    /// Whether the daemon of this node may run: its machine is there, and is what the group takes it for.
    pub(super) fn has_machine(&self, n: N) -> bool {
        !matches!(self.operations.get(&n), Some(Operation::Remove { is_dead: true } | Operation::Add))
    }

    /// Whether its server may.
    pub(super) fn has_rows(&self, n: N) -> bool {
        self.has_machine(n) && !matches!(self.operations.get(&n), Some(Operation::Copy { .. }))
    }

    /// Whether a daemon takes another for a peer: a member, or one that knows more.
    pub(super) fn admits(&self, at: N, peer: N) -> bool {
        let seen_by = |n: N| self.nodes[n.0].daemon.as_ref().map(|daemon| &daemon.core.state().membership);
        let (Some(here), Some(there)) = (seen_by(at), seen_by(peer)) else { return false };
        let node = &self.nodes[peer.0];
        node.reads >= here.format
            && !here.is_gone(&format!("n{}", peer.0), node.generation)
            && (here.contains(node.id) || there.version > here.version)
    }

    /// The members are others, as a daemon knows: connections to those that are gone end.
    pub(super) fn follow_membership(&mut self, at: N, membership: &Membership) {
        let (voters, outgoing) = membership.voters();
        if !outgoing.is_empty() {
            self.corner("two voters were seen changing");
        }
        if membership.format > Format::FIRST {
            self.corner("a newer format was written");
        }
        self.votes.insert(membership.version, [voters, outgoing]);
        for peer in (0..self.plan.nodes).map(N) {
            let (id, generation) = (self.nodes[peer.0].id, self.nodes[peer.0].generation);
            if membership.is_gone(&format!("n{}", peer.0), generation) {
                self.forget_peer(at, id);
                self.ahead_lost(at, peer);
            }
        }
    }

    fn forget_peer(&mut self, at: N, peer: NodeId) {
        if let Some(daemon) = &mut self.nodes[at.0].daemon
            && daemon.peers.contains(&peer)
        {
            daemon.peers.retain(|id| *id != peer);
            self.give(at, Input::PeerDown(peer));
        }
    }
}

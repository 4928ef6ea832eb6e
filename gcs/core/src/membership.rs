//! Membership: who the members are, as the order has it.
//!
//! The first members (*founders*) come from the configuration; they are what the empty log means. From then on the membership changes by
//! ordered [`Change`]s only, so it is a function of the log like everything else, and what Raft counts votes by ([`Membership::votes`])
//! follows from it.
//!
//! - **A change counts for the membership that it was made for**, which it names by its version. So a copy that comes late does nothing, and of
//!   two that were made at once the second does nothing.
//! - **A Raft id is given once.** Whoever was removed and comes again is another node to Raft, by the *generation* of its name: what it had
//!   promised in its first life, its disk may have forgotten.
//! - **An ordinal is free again when its holder is removed**, and the smallest free one is given next (docs/adr/0032-membership-in-the-order.md
//!   argues what must be over by then).
//! - **One voter at a time changes by itself; two change in a joint step** in which both the old and the new majority must agree, and which
//!   the leader ends as soon as it has begun. Meanwhile one is [`MemberRole::Joining`], the other [`MemberRole::Leaving`].
//!
//! - **An epoch ends when a majority is lost for good** and one member goes on alone ([`Step::Recover`]). The upper half of the version counts the
//!   epochs, so that whatever an earlier one came to without that member is the older membership; and so does the upper half of generations, so
//!   that no Raft id is given again that an earlier epoch may have given without that member's knowledge.
//!
//! - **A member's kind** (full, query-only, witness) comes with it and stays ([`gcs_writeset::kind`]). A query-only one learns for ever. There is
//!   always a full one among the voters: what a witness has of the group is its log, and not for long.
//!
//! - **What all members can read is a part of it** ([`crate::format`]): a change of the format is judged by the same membership as whoever comes.
//!
//! A member's *directory* is a random number that its data directory was made with. A node that comes back with another one has lost what it
//! had promised, and is not let in.

mod change;
pub mod wish;

use std::collections::BTreeMap;

use gcs_writeset::bounds::{GROUP_MEMBERS_MAX, NAME_BYTES_MAX};
use gcs_writeset::link::MemberRole;
use gcs_writeset::{NodeId, NodeKind};
use raft::eraftpb::ConfState;

use crate::bounds::NAMES_EVER_MAX;
use crate::format::Format;

pub use change::{Change, Objection, Step};
use wish::{Founder, Wish};

/// Of the version, those below the epoch.
const EPOCH_BITS: u32 = 32;

/// Of a generation, likewise.
const EPOCH_GENERATION_BITS: u32 = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub node: NodeId,
    pub name: String,
    pub address: String,
    pub ordinal: u16,
    pub role: MemberRole,
    pub kind: NodeKind,
    pub generation: u32,
    /// 0 until the node has said it.
    pub directory: u64,
}

impl Member {
    /// Whether it votes in the membership that is to be.
    fn votes(&self) -> bool {
        matches!(self.role, MemberRole::Voter | MemberRole::Joining)
    }

    /// Whether it votes in the membership that was, while two change.
    fn voted(&self) -> bool {
        matches!(self.role, MemberRole::Voter | MemberRole::Leaving)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// What the log began with; never changes.
    pub founders: Vec<Founder>,
    /// Counts the changes, and in its upper half the epochs.
    pub version: u64,
    /// Sorted by name.
    pub members: Vec<Member>,
    /// What the group writes.
    pub format: Format,
    /// Names of members that were removed: the generation that the name will be in next.
    pub gone: BTreeMap<String, u32>,
}

impl Membership {
    /// Founders are sorted by name, which gives each its ordinal.
    pub fn new(founders: Vec<Founder>) -> Membership {
        let members = founders.iter().enumerate().map(|(ordinal, founder)| Member {
            node: founder.node,
            name: founder.name.clone(),
            address: founder.address.clone(),
            ordinal: ordinal as u16,
            role: if founder.kind.may_vote() { MemberRole::Voter } else { MemberRole::Learner },
            kind: founder.kind,
            generation: 0,
            directory: 0,
        });
        Membership { members: members.collect(), founders, version: 0, format: Format::FIRST, gone: BTreeMap::new() }
    }

    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node)
    }

    pub fn named(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    pub fn contains(&self, node: NodeId) -> bool {
        self.member(node).is_some()
    }

    /// How often a majority was lost for good.
    pub fn epoch(&self) -> u64 {
        self.version >> EPOCH_BITS
    }

    /// What names begin with that come in this epoch.
    fn first_generation(&self) -> u32 {
        u32::from(u16::try_from(self.epoch()).unwrap_or(u16::MAX)) << EPOCH_GENERATION_BITS
    }

    /// Whether this was a member and is not any more. Of an earlier epoch that is everybody who is not a member now.
    pub fn is_gone(&self, name: &str, generation: u32) -> bool {
        let is_member = || self.named(name).is_some_and(|member| member.generation == generation);
        self.gone.get(name).is_some_and(|next| generation < *next) || generation < self.first_generation() && !is_member()
    }

    /// Whether two voters are changing.
    pub fn is_joint(&self) -> bool {
        self.members.iter().any(|member| matches!(member.role, MemberRole::Joining | MemberRole::Leaving))
    }

    /// The voters: those that are to be, and while two change also those that were.
    pub fn voters(&self) -> (Vec<NodeId>, Vec<NodeId>) {
        let ids = |of: fn(&Member) -> bool| self.members.iter().filter(move |member| of(member)).map(|member| member.node);
        let outgoing = if self.is_joint() { ids(Member::voted).collect() } else { Vec::new() };
        (ids(Member::votes).collect(), outgoing)
    }

    /// What Raft counts votes by.
    pub fn votes(&self) -> ConfState {
        let (voters, voters_outgoing) = self.voters();
        let raw = |nodes: Vec<NodeId>| -> Vec<u64> { nodes.into_iter().map(|node| node.0).collect() };
        let learners = self.members.iter().filter(|member| member.role == MemberRole::Learner);
        ConfState {
            learners: learners.map(|member| member.node.0).collect(),
            auto_leave: !voters_outgoing.is_empty(),
            voters: raw(voters),
            voters_outgoing: raw(voters_outgoing),
            learners_next: Vec::new(),
        }
    }

    /// The smallest ordinal that nobody has.
    fn free_ordinal(&self) -> Option<u16> {
        (0..GROUP_MEMBERS_MAX as u16).find(|ordinal| self.members.iter().all(|member| member.ordinal != *ordinal))
    }

    /// The generation that a name is in next.
    pub fn next_generation(&self, name: &str) -> u32 {
        self.gone.get(name).copied().unwrap_or_default().max(self.first_generation())
    }

    /// The step towards what somebody wishes.
    pub fn step(&self, wish: &Wish) -> Result<Step, Objection> {
        let step = match wish.clone() {
            Wish::Add { reads, .. } if reads < self.format => return Err(Objection::TooOld),
            Wish::Add { name, generation, address, directory, kind, .. } => {
                Step::Add { name, generation, address, directory, kind }
            }
            Wish::Remove { node } => Step::Remove { node },
            // It has caught up, and got its vote, before anybody asked.
            Wish::Replace { old, new }
                if self.member(new).is_some_and(|new| new.role == MemberRole::Voter) && old != new =>
            {
                Step::Remove { node: old }
            }
            Wish::Replace { old, new } => Step::Replace { old, new },
            Wish::Address { node, address } => Step::Address { node, address },
            Wish::Claim { node, directory } => Step::Claim { node, directory },
            Wish::Lead { .. } => return Err(Objection::NotOfTheOrder),
        };
        self.check(&step)?;
        Ok(step)
    }

    /// Texts that could not be read back.
    fn check_texts(texts: &[&str]) -> Result<(), Objection> {
        let good = |text: &&str| !text.is_empty() && text.len() <= NAME_BYTES_MAX;
        if texts.iter().all(good) { Ok(()) } else { Err(Objection::BadText) }
    }

    /// Whether the membership is as wished.
    pub fn fulfils(&self, wish: &Wish) -> bool {
        match wish {
            Wish::Add { name, directory, .. } => self.named(name).is_some_and(|member| member.directory == *directory),
            Wish::Remove { node } => !self.contains(*node),
            Wish::Replace { old, new } => {
                !self.contains(*old) && self.member(*new).is_some_and(|member| member.role == MemberRole::Voter)
            }
            Wish::Address { node, address } => self.member(*node).is_none_or(|member| member.address == *address),
            Wish::Claim { node, .. } => self.member(*node).is_none_or(|member| member.directory != 0),
            Wish::Lead { .. } => false,
        }
    }

    /// Takes a change, if it counts. Members that are removed by it are returned.
    pub fn change(&mut self, change: &Change) -> Option<Vec<NodeId>> {
        if change.version != self.version || self.check(&change.step).is_err() {
            return None;
        }
        self.version = match change.step {
            Step::Recover { .. } => (self.epoch() + 1) << EPOCH_BITS,
            _ => self.version + 1,
        };
        match &change.step {
            Step::Add { name, generation, address, directory, kind } => {
                self.add(name.clone(), *generation, address.clone(), *directory, *kind);
            }
            Step::Promote { node } => self.set_role(*node, MemberRole::Voter),
            Step::Remove { node } => return Some(self.remove(|member| member.node == *node)),
            Step::Replace { old, new } => {
                self.set_role(*old, MemberRole::Leaving);
                self.set_role(*new, MemberRole::Joining);
            }
            Step::Address { node, address } => {
                let address = address.clone();
                self.with(*node, |member| member.address = address);
            }
            Step::Claim { node, directory } => self.with(*node, |member| member.directory = *directory),
            Step::Format { format } => self.format = *format,
            Step::Recover { node } => {
                self.with(*node, |member| (member.role, member.kind) = (MemberRole::Voter, NodeKind::Full));
                return Some(self.remove(|member| member.node != *node));
            }
        }
        Some(Vec::new())
    }

    /// Ends a joint step, if there is one. Members that are removed by it are returned.
    pub fn leave_joint(&mut self) -> Option<Vec<NodeId>> {
        if !self.is_joint() {
            return None;
        }
        self.version += 1;
        for member in &mut self.members {
            if member.role == MemberRole::Joining {
                member.role = MemberRole::Voter;
            }
        }
        Some(self.remove(|member| member.role == MemberRole::Leaving))
    }

    /// Whether this can be a membership: the first one, or one from somebody's checkpoint.
    pub fn is_sound(&self) -> bool {
        let ids: std::collections::BTreeSet<NodeId> = self.members.iter().map(|member| member.node).collect();
        let ordinals: std::collections::BTreeSet<u16> = self.members.iter().map(|member| member.ordinal).collect();
        let (voters, outgoing) = self.voters();
        self.has_full_voter(&voters)
            && self.members.iter().all(|member| member.kind.may_vote() || member.role == MemberRole::Learner)
            && (!self.is_joint() || !outgoing.is_empty())
            && !ids.contains(&NodeId(0))
            && ids.len() == self.members.len()
            && ordinals.len() == self.members.len()
            && ordinals.iter().all(|ordinal| usize::from(*ordinal) < GROUP_MEMBERS_MAX)
            && self.members.is_sorted_by(|a, b| a.name < b.name)
            && self.gone.len() <= NAMES_EVER_MAX
    }

    /// Why a step cannot be taken now.
    pub(crate) fn check(&self, step: &Step) -> Result<(), Objection> {
        let known = |node: NodeId| self.member(node).ok_or(Objection::NoSuchMember);
        let is_recovery = matches!(step, Step::Recover { .. });
        if step.is_of_votes() && self.is_joint() && !is_recovery {
            return Err(Objection::ChangeUnderWay);
        }
        match step {
            Step::Add { name, generation, address, .. } => self.check_new(name, *generation, address),
            Step::Promote { node } => candidate(known(*node)?),
            Step::Remove { node } => self.check_removal(known(*node)?),
            Step::Replace { old, new } => {
                candidate(known(*new)?)?;
                if known(*old)?.role != MemberRole::Voter {
                    return Err(Objection::NotAVoter);
                }
                self.check_full_voter_without(*old, Some(*new))
            }
            Step::Address { node, address } => {
                known(*node)?;
                Self::check_texts(&[address])?;
                self.check_address(*node, address)
            }
            Step::Claim { node, .. } => {
                if known(*node)?.directory == 0 {
                    Ok(())
                } else {
                    Err(Objection::DirectoryKnown)
                }
            }
            Step::Recover { node } => self.check_recovery(known(*node)?),
            Step::Format { format } if *format <= self.format => Err(Objection::NotNewer),
            Step::Format { .. } => Ok(()),
        }
    }

    fn check_new(&self, name: &str, generation: u32, address: &str) -> Result<(), Objection> {
        let node = NodeId::of_member(name, generation);
        Self::check_texts(&[name, address])?;
        if self.named(name).is_some() {
            return Err(Objection::NameTaken);
        }
        if self.contains(node) || generation != self.next_generation(name) {
            return Err(Objection::IdTaken);
        }
        if !self.gone.contains_key(name) && self.gone.len() + self.members.len() >= NAMES_EVER_MAX {
            return Err(Objection::TooManyNames);
        }
        self.check_address(node, address)?;
        self.free_ordinal().map(|_| ()).ok_or(Objection::GroupFull)
    }

    fn check_address(&self, of: NodeId, address: &str) -> Result<(), Objection> {
        let taken = self.members.iter().any(|member| member.node != of && member.address == address);
        if taken { Err(Objection::AddressTaken) } else { Ok(()) }
    }

    fn check_removal(&self, member: &Member) -> Result<(), Objection> {
        if member.role != MemberRole::Voter {
            return Ok(());
        }
        if self.voters().0.len() == 1 {
            return Err(Objection::LastVoter);
        }
        self.check_full_voter_without(member.node, None)
    }

    fn has_full_voter(&self, voters: &[NodeId]) -> bool {
        voters.iter().any(|node| self.member(*node).is_some_and(|member| member.kind == NodeKind::Full))
    }

    /// A group of witnesses could order, but nobody would have what was ordered.
    fn check_full_voter_without(&self, old: NodeId, new: Option<NodeId>) -> Result<(), Objection> {
        let (voters, _) = self.voters();
        let left: Vec<NodeId> = voters.into_iter().filter(|node| *node != old).chain(new).collect();
        if self.has_full_voter(&left) { Ok(()) } else { Err(Objection::LastFullVoter) }
    }

    /// Who is a majority by itself has lost nothing. A learner may: it has what it was sent, as everybody has. A witness has no database that the
    /// group could go on with.
    fn check_recovery(&self, member: &Member) -> Result<(), Objection> {
        if member.kind == NodeKind::Witness {
            return Err(Objection::Witness);
        }
        let (voters, outgoing) = self.voters();
        if voters == [member.node] && outgoing.is_empty() { Err(Objection::LastVoter) } else { Ok(()) }
    }

    fn add(&mut self, name: String, generation: u32, address: String, directory: u64, kind: NodeKind) {
        let Some(ordinal) = self.free_ordinal() else { return };
        let (node, role) = (NodeId::of_member(&name, generation), MemberRole::Learner);
        self.members.push(Member { node, name, address, ordinal, role, kind, generation, directory });
        self.members.sort_by(|a, b| a.name.cmp(&b.name));
    }

    fn remove(&mut self, which: impl Fn(&Member) -> bool) -> Vec<NodeId> {
        let removed: Vec<Member> = self.members.extract_if(.., |member| which(member)).collect();
        for member in &removed {
            self.gone.insert(member.name.clone(), member.generation + 1);
        }
        removed.into_iter().map(|member| member.node).collect()
    }

    fn set_role(&mut self, node: NodeId, role: MemberRole) {
        self.with(node, |member| member.role = role);
    }

    fn with(&mut self, node: NodeId, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.members.iter_mut().find(|member| member.node == node) {
            change(member);
        }
    }
}

/// A learner that may have a vote.
fn candidate(member: &Member) -> Result<(), Objection> {
    match (member.kind.may_vote(), member.role) {
        (false, _) => Err(Objection::QueryOnly),
        (true, MemberRole::Learner) => Ok(()),
        (true, _) => Err(Objection::NotALearner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founder(name: &str) -> Founder {
        let kind = NodeKind::Full;
        Founder { node: NodeId::of_name(name), name: name.to_owned(), address: format!("{name}:1"), kind }
    }

    fn three() -> Membership {
        Membership::new(["a", "b", "c"].map(founder).to_vec())
    }

    fn take(membership: &mut Membership, step: Step) -> Option<Vec<NodeId>> {
        let version = membership.version;
        membership.change(&Change { version, step })
    }

    fn add(membership: &mut Membership, name: &str) -> NodeId {
        add_as(membership, name, NodeKind::Full)
    }

    fn add_as(membership: &mut Membership, name: &str, kind: NodeKind) -> NodeId {
        let generation = membership.next_generation(name);
        let wish = Wish::Add {
            name: name.to_owned(),
            generation,
            address: format!("{name}:1"),
            directory: 7,
            kind,
            reads: Format::FIRST,
        };
        let step = membership.step(&wish).unwrap();
        assert!(take(membership, step).is_some());
        assert!(membership.fulfils(&wish) && membership.is_sound());
        membership.named(name).unwrap().node
    }

    #[test]
    fn a_name_that_comes_again_is_another_node_with_the_smallest_free_ordinal() {
        let mut membership = three();
        let (b, c) = (NodeId::of_name("b"), NodeId::of_name("c"));
        assert_eq!(take(&mut membership, Step::Remove { node: b }), Some(vec![b]));
        assert_eq!(take(&mut membership, Step::Remove { node: c }), Some(vec![c]));
        let d = add(&mut membership, "d");
        let again = add(&mut membership, "b");
        assert_ne!(again, b);
        assert_eq!(membership.member(d).map(|member| member.ordinal), Some(1));
        assert_eq!(membership.member(again).map(|member| (member.ordinal, member.generation)), Some((2, 1)));
        assert!(membership.is_gone("b", 0) && !membership.is_gone("b", 1));
    }

    /// Found by the simulator (seed 18): a leader that still had the wish brought back whoever had been removed since.
    #[test]
    fn a_late_copy_of_a_wish_brings_nobody_back() {
        let mut membership = three();
        let kind = NodeKind::Full;
        let wish =
            Wish::Add { name: "d".into(), generation: 0, address: "d:1".into(), directory: 7, kind, reads: Format::FIRST };
        let step = membership.step(&wish).unwrap();
        take(&mut membership, step);
        let node = membership.named("d").unwrap().node;
        take(&mut membership, Step::Remove { node });
        assert_eq!(membership.step(&wish), Err(Objection::IdTaken));
    }

    #[test]
    fn a_late_copy_of_a_change_does_nothing() {
        let mut membership = three();
        let change = Change { version: 0, step: Step::Remove { node: NodeId::of_name("b") } };
        assert!(membership.change(&change).is_some());
        let other = Change { version: 0, step: Step::Remove { node: NodeId::of_name("c") } };
        assert_eq!(membership.change(&other), None);
        assert_eq!((membership.members.len(), membership.version), (2, 1));
    }

    #[test]
    fn a_learner_has_no_vote_and_takes_a_place_in_a_joint_step() {
        let mut membership = three();
        let d = add(&mut membership, "d");
        assert_eq!((membership.votes().voters.len(), membership.votes().learners), (3, vec![d.0]));
        let a = NodeId::of_name("a");
        assert!(take(&mut membership, Step::Replace { old: a, new: d }).is_some());
        let votes = membership.votes();
        assert!(votes.voters.contains(&d.0) && !votes.voters.contains(&a.0));
        assert!(votes.voters_outgoing.contains(&a.0) && !votes.voters_outgoing.contains(&d.0) && votes.auto_leave);
        let wish = Wish::Remove { node: NodeId::of_name("b") };
        assert_eq!(membership.step(&wish), Err(Objection::ChangeUnderWay));
        assert_eq!(membership.leave_joint(), Some(vec![a]));
        assert_eq!((membership.votes().voters.len(), membership.leave_joint()), (3, None));
    }

    #[test]
    fn the_last_voter_stays_whatever_learners_there_are() {
        let mut membership = Membership::new(vec![founder("a")]);
        let b = add(&mut membership, "b");
        let a = NodeId::of_name("a");
        assert_eq!(membership.step(&Wish::Remove { node: a }), Err(Objection::LastVoter));
        assert!(take(&mut membership, Step::Promote { node: b }).is_some());
        assert_eq!(take(&mut membership, Step::Remove { node: a }), Some(vec![a]));
        assert_eq!(membership.votes().voters, [b.0]);
    }

    #[test]
    fn a_new_epoch_has_one_member_and_knows_no_other_of_an_earlier_one() {
        let mut membership = three();
        let d = add(&mut membership, "d");
        let (a, b) = (NodeId::of_name("a"), NodeId::of_name("b"));
        assert!(take(&mut membership, Step::Replace { old: a, new: d }).is_some());
        let lost = take(&mut membership, Step::Recover { node: a }).unwrap();
        assert_eq!(lost.len(), 3);
        assert_eq!((membership.votes().voters, membership.is_joint(), membership.epoch()), (vec![a.0], false, 1));
        assert!(membership.is_sound() && !membership.is_gone("a", 0));
        // Of e the earlier epoch may have known more than its only member.
        assert!(["b", "c", "d", "e"].iter().all(|name| membership.is_gone(name, 0)));
        assert!(membership.is_gone("e", 1));
        let again = add(&mut membership, "b");
        let generation = membership.member(again).unwrap().generation;
        assert!(again != b && again != NodeId::of_member("b", 1) && !membership.is_gone("b", generation));
        let e = add(&mut membership, "e");
        assert!(e != NodeId::of_name("e"));
        assert_eq!(take(&mut membership, Step::Recover { node: a }), None, "it is a majority by itself");
        assert!(take(&mut membership, Step::Promote { node: e }).is_some());
        assert!(take(&mut membership, Step::Recover { node: e }).is_some());
        assert!(membership.is_gone("a", 0) && membership.is_gone("b", generation) && !membership.is_gone("e", generation));
        assert_eq!(membership.epoch(), 2);
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_reason() {
        let mut membership = three();
        let new = |name: &str, address: &str| {
            let (name, address) = (name.to_owned(), address.to_owned());
            Wish::Add { name, generation: 0, address, directory: 1, kind: NodeKind::Full, reads: Format::FIRST }
        };
        assert_eq!(membership.step(&new("a", "x:1")), Err(Objection::NameTaken));
        assert_eq!(membership.step(&new("x", "a:1")), Err(Objection::AddressTaken));
        let (a, x) = (NodeId::of_name("a"), NodeId::of_name("x"));
        assert_eq!(membership.step(&Wish::Remove { node: x }), Err(Objection::NoSuchMember));
        assert_eq!(membership.step(&Wish::Replace { old: a, new: a }), Err(Objection::NotALearner));
        assert_eq!(membership.step(&Wish::Replace { old: a, new: NodeId::of_name("b") }), Ok(Step::Remove { node: a }));
        assert!(take(&mut membership, Step::Claim { node: a, directory: 5 }).is_some());
        assert_eq!(membership.step(&Wish::Claim { node: a, directory: 6 }), Err(Objection::DirectoryKnown));
        for name in ["d", "e", "f", "g", "h"] {
            add(&mut membership, name);
        }
        assert_eq!(membership.step(&new("x", "x:1")), Err(Objection::GroupFull));
    }

    #[test]
    fn a_witness_votes_and_leads_no_group_of_its_own_and_a_query_only_node_learns_for_ever() {
        let founders = [("a", NodeKind::Full), ("b", NodeKind::Full), ("w", NodeKind::Witness), ("q", NodeKind::QueryOnly)];
        let mut founders = founders.map(|(name, kind)| Founder { kind, ..founder(name) }).to_vec();
        founders.sort_by(|one, other| one.name.cmp(&other.name));
        let mut membership = Membership::new(founders);
        let [a, b, w, q] = ["a", "b", "w", "q"].map(NodeId::of_name);
        assert!(membership.is_sound());
        assert_eq!((membership.voters().0, membership.votes().learners), (vec![a, b, w], vec![q.0]));
        assert_eq!(membership.check(&Step::Promote { node: q }), Err(Objection::QueryOnly));
        assert_eq!(membership.step(&Wish::Replace { old: a, new: q }), Err(Objection::QueryOnly));
        assert_eq!(membership.check(&Step::Recover { node: w }), Err(Objection::Witness));
        let second = add_as(&mut membership, "x", NodeKind::Witness);
        assert!(take(&mut membership, Step::Remove { node: a }).is_some());
        assert_eq!(membership.step(&Wish::Remove { node: b }), Err(Objection::LastFullVoter));
        assert_eq!(membership.step(&Wish::Replace { old: b, new: second }), Err(Objection::LastFullVoter));
        assert!(take(&mut membership, Step::Replace { old: w, new: second }).is_some());
        assert!(membership.leave_joint().is_some() && membership.is_sound());
        // What it has is all that is left: it takes writes from now on.
        assert!(take(&mut membership, Step::Recover { node: q }).is_some());
        let only = &membership.members[..];
        assert_eq!(
            only.iter().map(|member| (member.node, member.kind, member.role)).collect::<Vec<_>>(),
            [(q, NodeKind::Full, MemberRole::Voter)]
        );
    }
}

//! Wishes: what this node wants of the membership, until it is so; and what others asked of it while it leads.
//!
//! A wish names what should be, not what should be done, so it can be sent again for as long as it has not come true: it is fulfilled when the
//! ordered membership says so, whoever brought it about. It goes to the leader, which proposes a [`Change`](crate::membership::Change) for the
//! membership as it then is. Whether a wish can come true at all is judged where it is wished, by the same rules.
//!
//! Beside what people wish, a node wishes by itself that the membership has its own address and data directory right.

use std::collections::BTreeMap;

use gcs_writeset::link::MemberRole;
use gcs_writeset::{NodeId, NodeKind};

use crate::api::{LocalReply, Tick};
use crate::bounds::{REPLACE_TICKS_MAX, RESEND_TICKS, WISH_TICKS_MAX, WISHES_MAX};
use crate::membership::wish::Wish;
use crate::membership::{Membership, Objection};

#[derive(Debug)]
struct Wished {
    wish: Wish,
    since: Tick,
    sent: Option<Tick>,
}

#[derive(Debug)]
pub struct Wishes {
    me: NodeId,
    address: String,
    directory: u64,
    /// Of people and of joining nodes here.
    here: BTreeMap<u64, Wished>,
    /// When this node's own was last sent.
    own_sent: Option<Tick>,
    /// Leading: what others asked for, and when they last did.
    asked: Vec<(Wish, Tick)>,
}

impl Wishes {
    pub fn new(me: NodeId, address: String, directory: u64) -> Wishes {
        Wishes { me, address, directory, here: BTreeMap::new(), own_sent: None, asked: Vec::new() }
    }

    pub fn local(&mut self, number: u64, wish: Wish, now: Tick, replies: &mut Vec<LocalReply>) {
        if self.here.len() >= WISHES_MAX {
            return replies.push(LocalReply::Wish { number, outcome: Err(Objection::TooLate) });
        }
        self.here.insert(number, Wished { wish, since: now, sent: None });
    }

    /// Somebody asks the leader.
    pub fn asked(&mut self, wish: Wish, now: Tick) {
        self.asked.retain(|(known, _)| *known != wish);
        if self.asked.len() < WISHES_MAX {
            self.asked.push((wish, now));
        }
    }

    /// Answers what has come true, cannot, or took too long.
    pub fn answer(&mut self, now: Tick, membership: &Membership, leader: Option<NodeId>, replies: &mut Vec<LocalReply>) {
        self.here.retain(|number, wished| {
            let outcome = outcome(wished, now, membership, leader);
            replies.extend(outcome.map(|outcome| LocalReply::Wish { number: *number, outcome }));
            outcome.is_none()
        });
    }

    /// What is to be sent to the leader now.
    pub fn due(&mut self, now: Tick, membership: &Membership) -> Vec<Wish> {
        let rested = |sent: Option<Tick>| sent.is_none_or(|sent| now.0.saturating_sub(sent.0) >= RESEND_TICKS);
        let mut due = Vec::new();
        for wished in self.here.values_mut().filter(|wished| rested(wished.sent)) {
            wished.sent = Some(now);
            due.push(wished.wish.clone());
        }
        if rested(self.own_sent)
            && let Some(own) = self.own(membership)
        {
            self.own_sent = Some(now);
            due.push(own);
        }
        due
    }

    /// Leading: all that is wanted, what was wanted first in front.
    pub fn all(&mut self, now: Tick, membership: &Membership) -> Vec<Wish> {
        self.asked.retain(|(_, at)| now.0.saturating_sub(at.0) <= 2 * RESEND_TICKS);
        let asked = self.asked.iter().map(|(wish, _)| wish.clone());
        let here = self.here.values().map(|wished| wished.wish.clone());
        asked.chain(here).chain(self.own(membership)).collect()
    }

    /// Following: nobody asks here.
    pub fn forget_asked(&mut self) {
        self.asked.clear();
    }

    fn own(&self, membership: &Membership) -> Option<Wish> {
        let member = membership.member(self.me)?;
        let node = self.me;
        if member.directory == 0 && self.directory != 0 {
            return Some(Wish::Claim { node, directory: self.directory });
        }
        (member.address != self.address).then(|| Wish::Address { node, address: self.address.clone() })
    }
}

fn outcome(wished: &Wished, now: Tick, membership: &Membership, leader: Option<NodeId>) -> Option<Result<(), Objection>> {
    let limit = if let Wish::Replace { .. } = wished.wish { REPLACE_TICKS_MAX } else { WISH_TICKS_MAX };
    let late = now.0.saturating_sub(wished.since.0) >= limit;
    let possible = match &wished.wish {
        Wish::Lead { node } if leader == Some(*node) => return Some(Ok(())),
        wish if membership.fulfils(wish) => return Some(Ok(())),
        wish => is_possible(wish, membership),
    };
    match possible {
        Err(Objection::ChangeUnderWay) | Ok(()) => late.then_some(Err(Objection::TooLate)),
        Err(objection) => Some(Err(objection)),
    }
}

/// Whether it can come true as things are.
pub fn is_possible(wish: &Wish, membership: &Membership) -> Result<(), Objection> {
    match wish {
        Wish::Lead { node } => match membership.member(*node) {
            None => Err(Objection::NoSuchMember),
            Some(member) if member.role != MemberRole::Voter => Err(Objection::NotAVoter),
            // It would hand over again.
            Some(member) if member.kind == NodeKind::Witness => Err(Objection::Witness),
            Some(_) => Ok(()),
        },
        wish if membership.fulfils(wish) => Ok(()),
        wish => membership.step(wish).map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::wish::Founder;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn membership() -> Membership {
        let founder = |(node, name): (NodeId, &str)| Founder {
            node,
            name: name.into(),
            address: format!("{name}:1"),
            kind: NodeKind::Full,
        };
        Membership::new([(A, "a"), (B, "b")].map(founder).to_vec())
    }

    fn replies(wishes: &mut Wishes, now: u64) -> Vec<LocalReply> {
        let mut replies = Vec::new();
        wishes.answer(Tick(now), &membership(), Some(A), &mut replies);
        replies
    }

    #[test]
    fn a_wish_is_answered_when_it_is_so_when_it_cannot_be_and_when_it_takes_too_long() {
        let mut wishes = Wishes::new(A, "a:1".into(), 0);
        let mut none = Vec::new();
        wishes.local(1, Wish::Lead { node: A }, Tick(0), &mut none);
        wishes.local(2, Wish::Remove { node: NodeId(9) }, Tick(0), &mut none);
        wishes.local(3, Wish::Lead { node: NodeId(9) }, Tick(0), &mut none);
        wishes.local(4, Wish::Remove { node: B }, Tick(0), &mut none);
        let said: Vec<_> = replies(&mut wishes, 1);
        let expected = [(1, Ok(())), (2, Ok(())), (3, Err(Objection::NoSuchMember))];
        assert_eq!(said, expected.map(|(number, outcome)| LocalReply::Wish { number, outcome }));
        let late = [LocalReply::Wish { number: 4, outcome: Err(Objection::TooLate) }];
        assert_eq!(replies(&mut wishes, WISH_TICKS_MAX), late);
    }

    #[test]
    fn a_node_wishes_that_its_own_directory_and_address_are_known() {
        let mut wishes = Wishes::new(A, "elsewhere:1".into(), 5);
        let mut known = membership();
        assert_eq!(wishes.due(Tick(1), &known), [Wish::Claim { node: A, directory: 5 }]);
        assert_eq!(wishes.due(Tick(2), &known), []);
        known.members[0].directory = 5;
        let later = Tick(1 + RESEND_TICKS);
        assert_eq!(wishes.due(later, &known), [Wish::Address { node: A, address: "elsewhere:1".into() }]);
    }
}

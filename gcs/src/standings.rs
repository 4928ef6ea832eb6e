//! Standings: what the daemons tell each other of themselves that is not in the order, since nothing is decided by it but what people are shown, and
//! where clients and copies are sent: whether a node is being drained, whether its PostgreSQL is there ([`crate::local`]; the order counts it as attached until it
//! attaches anew), and what is being copied to it ([`crate::copy`]).
//!
//! Each daemon sends its own to all others when it changes, and to whoever has just come up. What was heard of a peer is forgotten when its connection is
//! lost.

use std::cell::RefCell;
use std::collections::BTreeMap;

use gcs_proto::{CopyUnderWay, DrainOrder, Standing};
use gcs_writeset::NodeId;
use gcs_writeset::link::{CopyStatus, GroupStatus, MemberState};
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub struct Standings {
    own: RefCell<Standing>,
    others: RefCell<BTreeMap<NodeId, Standing>>,
    /// Somebody's is another.
    pub news: Notify,
    /// What this node was last told to do, until it is done.
    order: RefCell<Option<DrainOrder>>,
    pub ordered: Notify,
}

impl Standings {
    pub fn own(&self) -> Standing {
        self.own.borrow().clone()
    }

    /// Whether that makes it another.
    pub fn change(&self, change: impl FnOnce(&mut Standing)) -> bool {
        let mut changed = self.own();
        change(&mut changed);
        let is_news = changed != *self.own.borrow();
        if is_news {
            *self.own.borrow_mut() = changed;
            self.news.notify_waiters();
        }
        is_news
    }

    /// A peer's, if it has told.
    pub fn of(&self, node: NodeId) -> Option<Standing> {
        self.others.borrow().get(&node).cloned()
    }

    pub fn heard(&self, from: NodeId, standing: Standing) {
        self.others.borrow_mut().insert(from, standing);
        self.news.notify_waiters();
    }

    pub fn lost(&self, node: NodeId) {
        if self.others.borrow_mut().remove(&node).is_some() {
            self.news.notify_waiters();
        }
    }

    /// This node is to be drained, or to work again: by a command here, or by a peer's.
    pub fn order(&self, order: DrainOrder) {
        *self.order.borrow_mut() = Some(order);
        self.ordered.notify_one();
    }

    pub fn take_order(&self) -> Option<DrainOrder> {
        self.order.borrow_mut().take()
    }

    /// Adds what is known to what the core knows.
    pub fn amend(&self, me: NodeId, status: &mut GroupStatus) {
        for member in &mut status.members {
            let standing = if member.node == me { Some(self.own()) } else { self.of(member.node) };
            let Some(standing) = standing.filter(|_| member.state != MemberState::Unreachable) else { continue };
            if member.state == MemberState::Online {
                member.state = match standing {
                    Standing { is_detached: true, .. } => MemberState::Detached,
                    Standing { is_draining: true, .. } => MemberState::Draining,
                    _ => MemberState::Online,
                };
            }
            member.copy = standing.copy.as_ref().map(in_words);
            // Other databases of it may be in service.
            if member.copy.is_some() && matches!(member.state, MemberState::Detached | MemberState::OutOfService) {
                member.state = MemberState::Copying;
            }
        }
    }
}

fn in_words(copy: &CopyUnderWay) -> CopyStatus {
    let CopyUnderWay { database, from, bytes_done, bytes_total, seconds } = copy.clone();
    CopyStatus { database, from, bytes_done, bytes_total, seconds }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gcs_writeset::link::{MemberRole, MemberStatus};
    use gcs_writeset::{NodeKind, Position};

    const ME: NodeId = NodeId(1);
    const PEER: NodeId = NodeId(2);

    fn group(state: MemberState) -> GroupStatus {
        let member = |node| MemberStatus {
            node,
            name: node.to_string(),
            address: String::new(),
            ordinal: 0,
            role: MemberRole::Voter,
            state,
            committed: Position::ZERO,
            ordered: Position::ZERO,
            copy: None,
            kind: NodeKind::Full,
        };
        GroupStatus { quorum: true, leader: None, term: 1, members: vec![member(ME), member(PEER)] }
    }

    fn states(standings: &Standings, state: MemberState) -> Vec<MemberState> {
        let mut status = group(state);
        standings.amend(ME, &mut status);
        status.members.iter().map(|member| member.state).collect()
    }

    #[test]
    fn what_a_peer_said_counts_until_it_is_lost() {
        let standings = Standings::default();
        standings.heard(PEER, Standing { is_draining: true, ..Standing::default() });
        assert_eq!(states(&standings, MemberState::Online), [MemberState::Online, MemberState::Draining]);
        assert_eq!(states(&standings, MemberState::Detached), [MemberState::Detached; 2], "it has been shut down");
        standings.heard(PEER, Standing { is_draining: true, is_detached: true, ..Standing::default() });
        assert_eq!(states(&standings, MemberState::Online), [MemberState::Online, MemberState::Detached]);
        standings.lost(PEER);
        assert_eq!(states(&standings, MemberState::Online), [MemberState::Online; 2]);
    }

    #[test]
    fn a_copy_is_shown_and_its_rest_is_estimated() {
        let standings = Standings::default();
        let copy = CopyUnderWay { database: "shop".into(), from: "n2".into(), bytes_done: 0, bytes_total: 300, seconds: 5 };
        assert!(standings.change(|own| own.copy = Some(copy.clone())));
        assert!(!standings.change(|own| own.copy = Some(copy)), "no news");
        let mut status = group(MemberState::Detached);
        standings.amend(ME, &mut status);
        assert_eq!(status.members[0].state, MemberState::Copying);
        let mut shown = status.members[0].copy.clone().unwrap();
        assert_eq!(states(&standings, MemberState::Online)[0], MemberState::Online, "another database is in service");
        assert_eq!(shown.seconds_left(), None);
        shown.bytes_done = 100;
        assert_eq!(shown.seconds_left(), Some(10));
    }
}

//! The group as one node sees it, for people and for clients.

use gcs_writeset::link::{GroupStatus, MemberState, MemberStatus};
use gcs_writeset::{DatabaseId, NodeId, Position};
use raft::Storage;

use crate::deliver::Database;
use crate::order::Order;
use crate::quorum::Quorum;
use crate::state::State;

pub fn status<L: Storage>(
    order: &Order<L>,
    quorum: &Quorum,
    state: &State,
    has_quorum: bool,
    database: Option<DatabaseId>,
) -> GroupStatus {
    let databases: Vec<&Database> =
        state.databases.iter().filter(|(id, _)| database.is_none_or(|wanted| wanted == **id)).map(|(_, db)| db).collect();
    let ordered = databases.iter().map(|db| db.head).max().unwrap_or_default();
    let members = state.membership.members.iter().map(|member| MemberStatus {
        copy: None,
        node: member.node,
        name: member.name.clone(),
        address: member.address.clone(),
        ordinal: member.ordinal,
        role: member.role,
        state: member_state(member.node == order.me() || quorum.is_up(member.node), member.node, &databases),
        committed: committed(member.node, &databases),
        ordered,
        kind: member.kind,
    });
    GroupStatus { quorum: has_quorum, leader: order.leader(), term: order.term(), members: members.collect() }
}

/// Whether two reports differ in more than how far the order and its members have come.
pub fn differs_beyond_positions(a: &GroupStatus, b: &GroupStatus) -> bool {
    let same_members = a.members.len() == b.members.len()
        && a.members
            .iter()
            .zip(&b.members)
            .all(|(a, b)| (a.node, a.role, a.kind, a.state, &a.address) == (b.node, b.role, b.kind, b.state, &b.address));
    (a.quorum, a.leader, a.term) != (b.quorum, b.leader, b.term) || !same_members
}

fn member_state(connected: bool, node: NodeId, databases: &[&Database]) -> MemberState {
    let attached = databases.iter().filter_map(|db| db.attachments.by_node.get(&node));
    let attached: Vec<_> = attached.filter(|attachment| attachment.incarnation.is_some()).collect();
    match attached.as_slice() {
        _ if !connected => MemberState::Unreachable,
        [] => MemberState::Detached,
        _ if attached.iter().any(|attachment| attachment.report.out_of_service) => MemberState::OutOfService,
        _ => MemberState::Online,
    }
}

fn committed(node: NodeId, databases: &[&Database]) -> Position {
    let reports = databases.iter().filter_map(|db| db.attachments.by_node.get(&node));
    reports.map(|attachment| attachment.report.committed).max().unwrap_or_default()
}

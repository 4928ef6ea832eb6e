//! Draining: a node is made ready to be shut down without a client's noticing (`gcs drain`).
//!
//! | while it drains | |
//! |---|---|
//! | leadership | goes to another voter, and does not come back while there is one |
//! | new sessions | are refused by PostgreSQL (57P03), so that a balancer or a pooler goes elsewhere |
//! | sessions that are idle for a while, between transactions | are ended (57P01): a pooler opens another |
//! | the others | end as they please, as long as they are given (*grace*); then at the first statement of their next transaction |
//! | transactions | end as they would |
//!
//! It is *drained* when no client has a session in a replicated database of it and another node leads. Nothing of it outlives the daemon, and it
//! ends when PostgreSQL comes back with another life: a node that was shut down for maintenance serves when it is started. Whoever asks may ask another
//! node's daemon than that of the node; the order and what becomes of it travel as [`crate::standings`].

use std::time::Duration;

use gcs_core::Wish;
use gcs_proto::{DrainOrder, Frame, Standing};
use gcs_writeset::NodeId;
use gcs_writeset::link::{Drain, Failure, FailureKind, MemberRole, MemberState, Reply};
use tokio::time::{Instant, sleep_until};

use super::hub::Hub;
use crate::bounds::{DRAIN_GRACE_MAX, HAND_OVER_AGAIN};

/// Carries out orders, for as long as the daemon runs.
pub async fn run(hub: &Hub) {
    let standings = &hub.node.peers.standings;
    let mut until: Option<Instant> = None;
    let mut hand_over_at: Option<Instant> = None;
    loop {
        if let Some(order) = standings.take_order() {
            until = obey(hub, &order);
            hand_over_at = until.map(|_| Instant::now());
        }
        if hub.node.sessions.stage() == Drain::No {
            (until, hand_over_at) = (None, None);
        }
        if until.is_some_and(|at| at <= Instant::now()) {
            until = None;
            enter(hub, Drain::All);
        }
        if hand_over_at.is_some_and(|at| at <= Instant::now()) {
            hand_over(hub).await;
            // It may have failed, or leadership come back.
            hand_over_at = Some(Instant::now() + HAND_OVER_AGAIN);
        }
        let next = until.into_iter().chain(hand_over_at).min();
        tokio::select! {
            () = standings.ordered.notified() => {}
            () = async { sleep_until(next.unwrap_or_else(Instant::now)).await }, if next.is_some() => {}
        }
    }
}

/// Until when sessions have time.
fn obey(hub: &Hub, order: &DrainOrder) -> Option<Instant> {
    let Some(grace) = order.grace else {
        enter(hub, Drain::No);
        tracing::info!("this node works again");
        return None;
    };
    if hub.node.sessions.stage() == Drain::No {
        hub.node.sessions.begin(hub.lives());
        tracing::info!(grace_s = grace, "this node is being drained: clients are sent elsewhere");
    }
    enter(hub, Drain::Idle);
    Some(Instant::now() + Duration::from_secs(u64::from(grace)).min(DRAIN_GRACE_MAX))
}

fn enter(hub: &Hub, stage: Drain) {
    hub.node.sessions.set_stage(stage);
    hub.tell_managers(&Reply::Drain(stage));
    hub.show_standing();
}

/// The server has another life than that which was drained.
pub fn over(hub: &Hub) {
    tracing::info!("PostgreSQL has started again: this node is not drained any more");
    enter(hub, Drain::No);
}

/// Has another voter lead, if this node does.
async fn hand_over(hub: &Hub) {
    let (status, me) = (hub.status(), hub.node.id());
    if status.leader != Some(me) {
        return;
    }
    let may_lead = |role| matches!(role, MemberRole::Voter | MemberRole::Joining);
    let others = status.members.iter().filter(|member| {
        member.node != me
            && may_lead(member.role)
            && member.state != MemberState::Unreachable
            && !is_drained(hub, member.node)
    });
    // One with a server first, and of those the furthest.
    let best = others.max_by_key(|member| (member.state == MemberState::Online, member.ordered));
    let Some(to) = best else { return tracing::warn!("nobody is there that leadership could be handed to") };
    let asked = hub.node.peers.wishes.wish(&hub.node.inbox, Wish::Lead { node: to.node }, false);
    match asked.await {
        Ok(()) => tracing::info!(to = %to.name, "leadership was handed over"),
        Err(objection) => tracing::warn!(to = %to.name, "leadership could not be handed over: {objection}"),
    }
}

fn is_drained(hub: &Hub, node: NodeId) -> bool {
    hub.node.peers.standings.of(node).is_some_and(|standing| standing.is_draining)
}

/// What a person asks for, of this node or another: `tell` is told how far it is until it is done.
pub async fn carry_out(
    hub: &Hub,
    name: &str,
    grace: Option<u32>,
    mut tell: impl FnMut(&Reply) -> bool,
) -> Result<(), Failure> {
    let peers = &hub.node.peers;
    let unknown = || failure(format!("group \"{}\" has no member \"{name}\"", hub.node.group()), "See gcs members.");
    let node = hub.node.roster.named(name).ok_or_else(unknown)?.node;
    let order = DrainOrder { grace };
    if node == hub.node.id() {
        peers.standings.order(order);
    } else if peers.is_up(node) {
        peers.send_frame(node, &Frame::Drain(order));
        peers.flush();
    } else {
        return Err(failure(format!("member \"{name}\" cannot be reached"), "What cannot be reached need not be drained."));
    }
    let mut told: Option<Standing> = None;
    loop {
        // Made before looking, so that news in between are not missed.
        let news = peers.standings.news.notified();
        let standing = if node == hub.node.id() { Some(peers.standings.own()) } else { peers.standings.of(node) };
        let is_obeyed = standing.as_ref().is_some_and(|standing| standing.is_draining) == grace.is_some();
        match standing.filter(|_| is_obeyed) {
            Some(standing) if grace.is_some() && (standing.leads || standing.sessions != Some(0)) => {
                let draining = Reply::Draining { leads: standing.leads, sessions: standing.sessions };
                if told.as_ref() != Some(&standing) && !tell(&draining) {
                    return Ok(());
                }
                told = Some(standing);
            }
            Some(_) => return Ok(()),
            // It works, and has nothing to say.
            None if is_obeyed => return Ok(()),
            None if node != hub.node.id() && !peers.is_up(node) => {
                return Err(failure(format!("the connection to member \"{name}\" was lost"), "See gcs members."));
            }
            None => {}
        }
        news.await;
    }
}

fn failure(message: String, hint: &str) -> Failure {
    Failure { kind: FailureKind::Membership, message, hint: hint.to_owned() }
}

//! Whether carriers are there: looked at by the leaser of each node, whenever it hears of the members.
//!
//! A carrier that is away for [`AWAY`] loses its subscriptions, one that is drained or no member any more loses them at once. Whoever finds that takes over by
//! running ALTER SUBSCRIPTION ... ENABLE; of two nodes that do, one loses. So that they rarely do, nodes wait in the order of their places in the group.
//!
//! The same look mends what a copy of a server has left: a carrier on which the subscription is not enabled, and subscriptions that were enabled before the database was
//! replicated.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gcs_writeset::NodeId;
use pgrx::PgSqlErrorCode;
use postgres_r_protocol::replica::Presence;

use super::group::{self, Subscription};
use crate::node::DatabaseArea;
use crate::pg::names::quoted;
use crate::pg::{interrupt, log, query, xact};
use crate::session;

/// How long a carrier may be away.
const AWAY: Duration = Duration::from_secs(10);

/// By how much nodes of later places in the group wait longer.
const APART: Duration = Duration::from_secs(1);

/// The pause after a try that came to nothing.
const PAUSE: Duration = Duration::from_secs(1);

/// Subscriptions that this server has workers for, and the group has not heard of.
const UNKNOWN: &str = "SELECT subname FROM pg_subscription s WHERE subenabled
    AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND NOT EXISTS (SELECT FROM postgres_r.subscriptions g WHERE g.name = s.subname)";

/// What one node's leaser remembers between two looks.
#[derive(Default)]
pub struct Watch {
    /// Since when these nodes are away.
    away: BTreeMap<u64, Instant>,
    /// What it last saw of the members.
    seen: Vec<(u64, Presence)>,
    again_at: Option<Instant>,
}

impl Watch {
    /// Looks if there is news; gives after what time to look again without.
    pub fn look(&mut self, area: &DatabaseArea) -> Option<Duration> {
        let members = members(area);
        let is_due = self.again_at.is_some_and(|at| Instant::now() >= at);
        if members != self.seen || is_due {
            self.again_at = None;
            if takes_part(area) {
                self.seen = members;
                self.look_at_all(area);
            } else if !area.replica.is_query_only() {
                // It may take part before it hears of the members again.
                self.look_again_at(Instant::now() + PAUSE);
            }
        }
        self.again_at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn look_at_all(&mut self, area: &DatabaseArea) {
        let found = xact::transaction(|| {
            let unknown: Vec<String> =
                query::rows(UNKNOWN).into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
            let is_idle =
                |subscription: &Subscription| group::local(&subscription.name).is_some_and(|(.., enabled)| !enabled);
            let known: Vec<_> = group::all().into_iter().filter(|subscription| subscription.enabled).collect();
            let idle: Vec<bool> = known.iter().map(is_idle).collect();
            (unknown, known, idle)
        });
        let (unknown, known, idle) = match found {
            Ok(found) => found,
            Err(failed) => return self.try_again("look at the subscriptions", &failed),
        };
        for name in unknown {
            let enabled = xact::transaction(|| enable(&name));
            self.heed(&name, enabled);
        }
        for (subscription, is_idle) in known.iter().zip(idle) {
            if subscription.is_carried_here() {
                if is_idle {
                    let enabled = session::alone(|| xact::transaction(|| enable(&subscription.name)));
                    self.heed(&subscription.name, enabled);
                }
            } else if self.is_gone(area, subscription.carrier) {
                let taken = xact::transaction(|| {
                    let is_as_it_was = group::find(&subscription.name).as_ref() == Some(subscription);
                    if is_as_it_was {
                        enable(&subscription.name);
                    }
                    is_as_it_was
                });
                if matches!(taken, Ok(true)) {
                    let (name, node) = (&subscription.name, &subscription.node);
                    log::log(
                        format!("this node carries subscription \"{name}\" from now on, in the place of node \"{node}\""),
                        None,
                        None,
                    );
                }
                self.heed(&subscription.name, taken.map(|_| ()));
            }
        }
    }

    /// Whether this node is to take over what the carrier carries. If it may come to that, looks again in time.
    fn is_gone(&mut self, area: &DatabaseArea, carrier: NodeId) -> bool {
        let presence = self.seen.iter().find(|(node, _)| *node == carrier.0).map(|(_, presence)| *presence);
        if presence == Some(Presence::Online) {
            self.away.remove(&carrier.0);
            return false;
        }
        let patience = match presence {
            None | Some(Presence::Draining) => Duration::ZERO,
            Some(_) => AWAY,
        };
        let since = *self.away.entry(carrier.0).or_insert_with(Instant::now);
        let due = since + patience + APART * rank(area);
        if Instant::now() < due {
            self.look_again_at(due);
            return false;
        }
        true
    }

    fn look_again_at(&mut self, at: Instant) {
        self.again_at = Some(self.again_at.map_or(at, |other| other.min(at)));
    }

    fn heed(&mut self, name: &str, done: Result<(), xact::Failed>) {
        if let Err(failed) = done {
            self.try_again(&format!("take care of subscription \"{name}\""), &failed);
        }
    }

    fn try_again(&mut self, doing: &str, failed: &xact::Failed) {
        interrupt::forget_cancel();
        let is_usual = matches!(
            failed.code,
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
                | PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION
                | PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
        );
        if !is_usual {
            log::warn(format!("could not {doing}: {}", failed.message), failed.detail.clone(), failed.hint.clone());
        }
        self.look_again_at(Instant::now() + PAUSE);
    }
}

/// In a transaction.
fn enable(name: &str) {
    query::first_row(&format!("ALTER SUBSCRIPTION {} ENABLE", quoted(name)));
}

fn members(area: &DatabaseArea) -> Vec<(u64, Presence)> {
    let count = area.replica.member_count.load(Ordering::Relaxed) as usize;
    let members = area.replica.members.iter().take(count);
    members.map(|member| (member.node.load(Ordering::Relaxed), member.presence.load())).collect()
}

/// Whether this node could carry a subscription now.
fn takes_part(area: &DatabaseArea) -> bool {
    let me = area.replica.node();
    area.replica.is_writable()
        && !area.replica.is_query_only()
        && session::is_open_to_writers(area)
        && members(area).contains(&(me.0, Presence::Online))
}

/// How many members that could carry a subscription come before this one.
fn rank(area: &DatabaseArea) -> u32 {
    let count = area.replica.member_count.load(Ordering::Relaxed) as usize;
    let mine = u32::from(session::ordinal());
    let could = |member: &&postgres_r_protocol::replica::Member| {
        member.presence.load() == Presence::Online && member.kind() == gcs_writeset::NodeKind::Full
    };
    let before =
        area.replica.members.iter().take(count).filter(could).filter(|member| member.ordinal.load(Ordering::Relaxed) < mine);
    u32::try_from(before.count()).unwrap_or(u32::MAX)
}

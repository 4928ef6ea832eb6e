//! The workers that PostgreSQL runs for a subscription, in a replicated database (docs/adr/0069-subscriptions.md).
//!
//! What they write is captured and ordered as a client's. Beyond that, at the end of each transaction:
//!
//! ```text
//! the first one     reads the subscription and nothing else; so this is where the worker waits until the node is in service, and where the server's own
//!                   catalogs and origins get to know how far the group is. PostgreSQL looks at them right after it.
//! all others        move the group's row forward to where the publisher's transaction ends, or say how far a table is
//! ```
//!
//! A worker that is not the carrier's, or whose transaction the group has already, is told so by an error, and ends. PostgreSQL starts it again if the subscription is
//! enabled on this server.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use pgrx::PgSqlErrorCode;
use postgres_r_protocol::id::Lsn;
use postgres_r_protocol::replica::Phase;

use crate::error::{self, Error};
use crate::node;
use crate::pg::names::quoted;
use crate::pg::relation::Oid;
use crate::pg::subscriber::{self, TableState, Worker};
use crate::pg::{origin, query, xact};
use crate::subscriptions::{group, here};
use crate::{session, summons};

use super::capture;

/// How long a worker waits for its node to be in service. Then it ends, and is started again.
const SERVING_WITHIN: Duration = Duration::from_secs(5);

/// What a worker knows since its first transaction.
struct Known {
    term: i64,
    /// How far its table was when it last said so.
    state: Option<TableState>,
}

thread_local! {
    static KNOWN: RefCell<Option<Known>> = const { RefCell::new(None) };
}

/// At PRE_COMMIT, before it is asked whether there is anything to order.
pub fn before_commit() {
    let Some(worker) = subscriber::worker() else { return };
    if KNOWN.with_borrow(Option::is_some) {
        if session::is_captured() {
            return advance(worker);
        }
        if origin::reached().is_some() || capture::has_writes() {
            start_again("The database is no longer replicated on this node.").raise();
        }
        return;
    }
    wait_for_service();
    if !session::is_captured() {
        return;
    }
    if origin::reached().is_some() || capture::has_writes() {
        // It began before the database was replicated.
        start_again("The database was not replicated yet when the worker was started.").raise();
    }
    begin(worker);
}

/// Clients are kept out where they connect; a worker has got in already.
fn wait_for_service() {
    let Some(node) = node::get() else { return };
    let deadline = Instant::now() + SERVING_WITHIN;
    let left = || deadline.saturating_duration_since(Instant::now());
    let is_known = || node.registry.knows_databases();
    if !is_known() && !node.registry.adopted_changed.wait_until(left(), is_known) {
        error::starting_up().raise_fatal();
    }
    let Some(area) = session::database() else { return };
    let is_open = || area.phase() != Phase::Active || session::is_open_to_writers(area);
    if !area.conditions.wait_for_serving(left(), is_open) {
        session::catching_up(area).raise_fatal();
    }
}

fn start_again(why: &str) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "a worker of a subscription has to begin anew")
        .detail(why)
}

/// The first transaction of a worker: this server's catalogs and origins come to where the group is.
fn begin(worker: Worker) {
    summons::listen();
    capture::arrived::listen();
    let Some(name) = subscriber::name(worker.subscription) else { return };
    let Some(subscription) = group::find(&name) else {
        start_again(&format!("The group has not heard yet that subscription \"{name}\" is enabled.")).raise()
    };
    let is_carried_here = subscription.is_carried_here();
    // Without a term that anybody has, it can commit nothing.
    let term = if is_carried_here { subscription.term } else { 0 };
    KNOWN.set(Some(Known { term, state: worker.table.and_then(|table| known_state(worker, table)) }));
    if !is_carried_here {
        // A copy of the carrier's server says so of itself. The worker ends when it sees this.
        session::alone(|| query::first_row(&format!("ALTER SUBSCRIPTION {} DISABLE", quoted(&name))));
    } else if worker.table.is_none() {
        session::alone(|| here::come_to(&subscription));
    }
}

fn known_state(worker: Worker, table: Oid) -> Option<TableState> {
    group::local_state(worker.subscription, table).map(|(state, _)| state)
}

/// Any later transaction of a worker.
fn advance(worker: Worker) {
    capture::arrived::finish();
    let reached = origin::reached();
    if reached.is_none() && !xact::has_id() {
        return;
    }
    let Some(term) = KNOWN.with_borrow(|known| known.as_ref().map(|known| known.term)) else { return };
    let Some(name) = subscriber::name(worker.subscription) else { return };
    match worker.table {
        None => {
            if let Some(reached) = reached {
                group::move_to(&name, term, reached);
            }
        }
        Some(table) => advance_table(worker, table, (&name, term), reached),
    }
}

fn advance_table(worker: Worker, table: Oid, (name, term): (&str, i64), reached: Option<Lsn>) {
    let Some((state, lsn)) = group::local_state(worker.subscription, table) else { return };
    let before = KNOWN.with_borrow(|known| known.as_ref().and_then(|known| known.state));
    let is_news = before != Some(state) || reached.is_some();
    if !is_news || state < TableState::Copied {
        return;
    }
    let to = match state {
        TableState::Copied => reached.or_else(|| {
            let origin = origin::by_name(&subscriber::origin_name(worker.subscription, Some(table)))?;
            Some(origin::reached_by(origin))
        }),
        _ => lsn,
    };
    group::move_table(name, term, (table, &subscriber::slot_name(worker.subscription, table)), state, to);
    KNOWN.with_borrow_mut(|known| {
        if let Some(known) = known {
            known.state = Some(state);
        }
    });
}

//! What this server has of a subscription, brought to where the group is: PostgreSQL's own catalog of its tables, and the replication origins of its workers. Done where a
//! worker is about to begin, and before a statement that asks which tables there are.
//!
//! A table that another node has copied, and that has not caught up yet, needs that node's slot on the publisher: this one takes a copy of it.

use pgrx::PgSqlErrorCode;
use postgres_r_protocol::id::Lsn;

use super::group::{self, Subscription};
use crate::error::Error;
use crate::pg::relation::Oid;
use crate::pg::subscriber::{self, Publisher, TableState};
use crate::pg::{origin, query};

/// This server's origin and catalogs say what the group's rows say.
pub fn come_to(subscription: &Subscription) {
    let Some((oid, connection, _)) = group::local(&subscription.name) else { return };
    let position = group::position(&subscription.name);
    if let Some(position) = position {
        set_origin(oid, None, position);
    }
    let mut publisher = None;
    for table in group::tables(&subscription.name) {
        let local = group::local_state(oid, table.relation);
        let is_known = local.is_some();
        let local = local.map(|(state, _)| state);
        let own_slot = subscriber::slot_name(oid, table.relation);
        match (table.state, local) {
            // How far the worker for this table has come in its copy is of no use to others.
            (TableState::Init | TableState::Copying, None) => set_state(oid, table.relation, false, TableState::Init, None),
            (TableState::Copied, Some(TableState::Copied)) if table.slot == own_slot => {
                if let Some(position) = table.position {
                    set_origin(oid, Some(table.relation), position);
                }
            }
            (TableState::Copied, local) if local < Some(TableState::Synchronised) => {
                let publisher = publisher.get_or_insert_with(|| connect(&connection, &subscription.name));
                if take_slot(publisher, &table.slot, &own_slot) {
                    if let Some(position) = table.position {
                        set_origin(oid, Some(table.relation), position);
                    }
                    set_state(oid, table.relation, is_known, TableState::Copied, None);
                } else {
                    // The slot goes when the table has caught up with the subscription.
                    let caught_up = table.position.max(position);
                    set_state(oid, table.relation, is_known, TableState::Synchronised, caught_up);
                }
            }
            (TableState::Synchronised | TableState::Ready, local) if local < Some(table.state) => {
                set_state(oid, table.relation, is_known, table.state, table.position);
            }
            _ => {}
        }
    }
    if let Some(publisher) = publisher {
        publisher.close();
    }
}

fn set_state(subscription: Oid, table: Oid, is_known: bool, state: TableState, lsn: Option<Lsn>) {
    subscriber::set_state((subscription, table), is_known, state, lsn.unwrap_or(Lsn(0)));
}

fn set_origin(subscription: Oid, table: Option<Oid>, position: Lsn) {
    let name = subscriber::origin_name(subscription, table);
    let origin = origin::by_name(&name).unwrap_or_else(|| origin::create(&name));
    if origin::reached_by(origin) != position {
        origin::set_reached(origin, position);
    }
}

fn connect(connection: &str, name: &str) -> Publisher {
    Publisher::connect(connection, name).unwrap_or_else(|why| {
        Error::new(PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE, "could not connect to the publisher").detail(why).raise()
    })
}

/// Another node copied the table: this one goes on with a copy of its slot. False if that is gone.
fn take_slot(publisher: &Publisher, theirs: &str, own: &str) -> bool {
    let (theirs, own) = (query::literal(theirs), query::literal(own));
    let is_there = |slot: &str| format!("EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = {slot})");
    let query = format!(
        "SELECT CASE WHEN {} THEN 'own' WHEN {} THEN (SELECT slot_name::text FROM pg_catalog.pg_copy_logical_replication_slot({theirs}, {own})) ELSE '' END",
        is_there(&own),
        is_there(&theirs)
    );
    match publisher.text(&query) {
        Ok(slot) => !slot.is_empty(),
        Err(why) => {
            Error::new(PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE, "could not take over a replication slot of the publisher")
                .detail(why)
                .raise()
        }
    }
}

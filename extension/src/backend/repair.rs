//! The rows of a table, for one node that has others: a transaction of the coordinator's (docs/adr/0034). Other nodes, this one among them, change
//! nothing.
//!
//! The table is locked against writers here while its rows are read, and the writeset holds the whole table: what others ordered since and is
//! not visible here yet makes the transaction lose, and the coordinator does it again.

use std::collections::HashSet;
use std::rc::Rc;

use gcs_writeset::NodeId;
use gcs_writeset::body::PutItem;
use pgrx::prelude::*;
use postgres_r_protocol::capture::buffer::Guard;
use postgres_r_protocol::capture::order::Command;

use super::capture::{transaction, trigger};
use crate::error::{self, Error};
use crate::pg::datum::TransmissionModes;
use crate::pg::relation::{Lock, Oid, Open};
use crate::pg::role::{self, Acting};
use crate::pg::scan;
use crate::pg::setting::Scope;
use crate::pg::snapshot::Fresh;
use crate::verify::row::Fingerprint;
use crate::{relations, session};

/// Appends the rows of these identities, or all, to the current transaction; says how many.
pub fn put(node: &str, table: Oid, identities: Option<&[u128]>) -> u64 {
    if !role::is_superuser() {
        Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, "must be superuser to repair a table").raise();
    }
    let Some(area) = session::database() else { error::not_replicated("repair").raise() };
    let id = NodeId::of_name(node);
    if id == area.replica.node() || area.replica.member_name(id).is_none() {
        error::unknown_node(node).raise();
    }
    transaction::ensure_writable();
    let Some(open) = Open::by_oid(table, Lock::Exclusive) else {
        Error::new(PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE, "the table to repair does not exist").raise();
    };
    let held = Guard::Held(session::committed());
    let known = relations::known_open(&open);
    transaction::add_whole(known.name, held);
    // What indexes enter is computed here and travels, as the owner would compute it; rows that are there already have it.
    let _owner = Acting::restricted(known.table.owner);
    let mut scope = Scope::enter();
    scope.set("search_path", "\"$user\", public");
    let (definition, command) = (transaction::define(&known), Command(crate::pg::trigger::current_command()));
    let mut item = Vec::new();
    item.put_repair(definition, id, identities);
    transaction::append(&known, command, &item, &[]);
    let wanted: Option<HashSet<u128>> = identities.map(|identities| identities.iter().copied().collect());
    let snapshot = Fresh::take();
    let mut fingerprint = Fingerprint::new(Rc::clone(&known));
    let mut rows = 0;
    scan::for_each_row(&open, |row| {
        let is_wanted = wanted.as_ref().is_none_or(|wanted| {
            let _modes = known.table.depends_on_settings.then(TransmissionModes::enter);
            wanted.contains(&fingerprint.identity(row))
        });
        if is_wanted {
            trigger::on_remade_row(&open, command.0, row);
            rows += 1;
        }
    });
    drop(snapshot);
    item.clear();
    item.put_repaired();
    transaction::append(&known, command, &item, &[]);
    rows
}

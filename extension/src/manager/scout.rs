//! The scout: connects to some database, reads what only a process with a database can read, and leaves.
//!
//! Once a server start, and when a database has been given another's place, it finds out which databases are replicated, by their replication
//! origins, and drops origins whose database is gone. For every START and STOP it
//! checks what shared catalogs can tell, and hands over to the manager. The launcher, which lives as long as the server, must
//! not stay connected to any database.

use std::sync::atomic::Ordering;

use pgrx::pg_sys;
use pgrx::prelude::*;
use postgres_r_protocol::platform::Exclusion;
use postgres_r_protocol::replica::Phase;
use postgres_r_protocol::statement::Wanted;

use super::entry::{activate, parse_origin_name};
use crate::error::Error;
use crate::guc;
use crate::node::making::Birth;
use crate::node::request::{Asked, Request};
use crate::node::{self, DatabaseArea, Node, wake};
use crate::pg::{catalog, log, origin, process, worker, xact};
use crate::session;

/// `database`: any, to be connected to.
pub fn main(database: u64) {
    let Some(node) = node::get() else { return };
    let Some(place) = process::me() else { return };
    if !node.registry.scout.claim(place) {
        return;
    }
    process::on_exit(|| {
        if let Some(node) = node::get() {
            node.registry.scout.set(None);
            wake(&node.registry.launcher);
        }
    });
    session::become_housekeeping();
    worker::connect(pg_sys::Oid::from(database as u32));
    if !node.registry.adopted.load(Ordering::SeqCst)
        && node.registry.replacing.load(Ordering::SeqCst) == 0
        && adopt_databases(node)
    {
        node.registry.adopted.store(true, Ordering::SeqCst);
        node.registry.adopted_changed.broadcast();
        wake(&node.registry.launcher);
    }
    if !node.registry.origins_swept.swap(true, Ordering::SeqCst) {
        sweep_origins();
    }
    for (index, request) in node.requests.iter().enumerate() {
        if let Some(asked) = request.take() {
            carry_out(node, index, request, &asked);
            wake(&node.registry.launcher);
        }
    }
}

/// Fills the table from what the catalogs say. Entries that are there already belong to running managers; those that were out of service and
/// have lost their origin have lost their place to another database.
fn adopt_databases(node: &Node) -> bool {
    let found = xact::transaction(|| {
        catalog::origins()
            .into_iter()
            .filter_map(|(id, name)| {
                let (group, oid) = parse_origin_name(&name)?;
                let name = catalog::database_name(oid).filter(|_| catalog::database_exists(oid))?;
                Some((id, group.to_string(), oid, name))
            })
            .collect::<Vec<_>>()
    });
    let Ok(found) = found else { return false };
    let is_replaced = |area: &&DatabaseArea| {
        let is_known = found.iter().any(|(_, _, oid, _)| *oid == area.oid());
        area.replica.copying.load(Ordering::SeqCst) && !is_known && matches!(area.phase(), Phase::Active | Phase::Failed)
    };
    for area in node.databases.iter().filter(is_replaced) {
        area.set_phase(Phase::Off);
        area.at().wake_manager();
        area.wake_helpers();
    }
    for (id, group, oid, name) in found {
        node.table.exclusive(|| {
            if node.database(oid).is_some() {
                return;
            }
            let Some(area) = node.free_entry() else {
                log::warn(
                    format!("database \"{name}\" is not replicated: postgres_r.max_databases is too low"),
                    None,
                    Some("Raise postgres_r.max_databases and restart the server.".into()),
                );
                return;
            };
            area.fill(oid, &name, &group);
            activate(area, id);
        });
    }
    true
}

/// Drops the replication origins of databases that are gone.
fn sweep_origins() {
    let found = xact::transaction(|| {
        let ours = catalog::origins().into_iter().map(|(_, name)| name);
        let is_left = |name: &String| parse_origin_name(name).is_some_and(|(_, oid)| !catalog::database_exists(oid));
        ours.filter(is_left).collect::<Vec<_>>()
    });
    for name in found.unwrap_or_default() {
        if xact::transaction(|| origin::drop(&name)).is_ok() {
            log::log(format!("replication origin \"{name}\" is dropped: its database does not exist any more"), None, None);
        }
    }
}

fn carry_out(node: &Node, index: usize, request: &Request, asked: &Asked) {
    let name = asked.database.as_str();
    let checked = xact::transaction(|| check(name, asked.role));
    let oid = match checked {
        Ok(Ok(oid)) => oid,
        Ok(Err(error)) => return request.answer(Err(error)),
        Err(error) => return request.answer(Err(error.into())),
    };
    let result = node.table.exclusive(|| match &asked.wanted {
        Wanted::Start { group, overwrite } => begin_start(node, index, oid, (name, group), (*overwrite, asked.birth)),
        Wanted::Stop { force } => begin_stop(node, index, oid, name, *force),
    });
    if let Err(error) = result {
        request.answer(Err(error));
    }
}

/// What shared catalogs can tell.
fn check(name: &str, role: pg_sys::Oid) -> Result<pg_sys::Oid, Error> {
    let Some(oid) = catalog::database_oid(name) else {
        return Err(Error::new(PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME, format!("database \"{name}\" does not exist"))
            .hint("Create it first, on every node."));
    };
    if !catalog::may_replicate(role, oid) {
        return Err(Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of database {name}"))
            .hint("Only a superuser or the database's owner can start and stop its replication."));
    }
    Ok(oid)
}

/// Under the table's lock. The manager goes on from here.
fn begin_start(
    node: &Node,
    index: usize,
    oid: pg_sys::Oid,
    (name, group): (&str, &str),
    (overwrite, birth): (bool, Birth),
) -> Result<(), Error> {
    if let Some(area) = node.database(oid) {
        let group = area.replica.group.get();
        let message = match area.phase() {
            Phase::Starting => format!("replication of database \"{name}\" is being started"),
            Phase::Stopping => format!("replication of database \"{name}\" is being stopped"),
            _ => format!("database \"{name}\" is already replicated in group \"{group}\""),
        };
        return Err(Error::new(PgSqlErrorCode::ERRCODE_OBJECT_IN_USE, message)
            .hint(format!("To change that, run ALTER DATABASE {name} STOP REPLICATION first.")));
    }
    if group.is_empty() || group.len() > 63 {
        return Err(Error::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "invalid name of a group")
            .hint("The name is the one in gcs's configuration."));
    }
    let Some(area) = node.free_entry() else {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            "too many databases of this server are replicated",
        )
        .detail(format!("The limit is {}.", guc::max_databases()))
        .hint("Raise postgres_r.max_databases and restart the server."));
    };
    area.fill(oid, name, group);
    area.entry.overwrite.store(overwrite, Ordering::SeqCst);
    area.entry.making.birth.store(birth);
    area.entry.request.store(index as u32 + 1, Ordering::SeqCst);
    area.set_phase(Phase::Starting);
    Ok(())
}

/// Under the table's lock. The manager goes on from here.
fn begin_stop(node: &Node, index: usize, oid: pg_sys::Oid, name: &str, force: bool) -> Result<(), Error> {
    let area = node.database(oid).ok_or_else(|| {
        Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("database \"{name}\" is not replicated"),
        )
        .hint(format!("ALTER DATABASE {name} START REPLICATION IN GROUP ... starts it."))
    })?;
    match area.phase() {
        Phase::Active | Phase::Failed => {
            area.entry.request.store(index as u32 + 1, Ordering::SeqCst);
            area.entry.by_force.store(force, Ordering::SeqCst);
            area.entry.had_failed.store(area.phase() == Phase::Failed, Ordering::SeqCst);
            area.set_phase(Phase::Stopping);
            area.at().wake_manager();
            Ok(())
        }
        _ => Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            format!("replication of database \"{name}\" is being started or stopped"),
        )
        .hint("Try again in a moment.")),
    }
}

//! The scout: connects to some database, reads what only a process with a database can read, and leaves.
//!
//! Once a server start it finds out which databases are replicated, by their replication origins. For every START and STOP it
//! checks what shared catalogs can tell, and hands over to the manager. The launcher, which lives as long as the server, must
//! not stay connected to any database.

use std::sync::atomic::Ordering;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::launcher::{activate, fill, free_entry, parse_origin_name};
use super::request::{Request, Wanted};
use crate::error::Error;
use crate::guc;
use crate::pg::{catalog, log, process, worker, xact};
use crate::session;
use crate::shmem::{self, Phase, Shared};

/// `database`: any, to be connected to.
pub fn main(database: u64) {
    let Some(shared) = shmem::get() else { return };
    let Some(place) = process::me() else { return };
    if !shared.server.scout.claim(place) {
        return;
    }
    process::on_exit(|| {
        if let Some(shared) = shmem::get() {
            shared.server.scout.set(None);
            shared.server.launcher.wake();
        }
    });
    session::become_housekeeping();
    worker::connect(pg_sys::Oid::from(database as u32));
    if !shared.server.adopted.load(Ordering::SeqCst) && adopt_databases(shared) {
        shared.server.adopted.store(true, Ordering::SeqCst);
        shared.server.adopted_changed.broadcast();
        shared.server.launcher.wake();
    }
    for (index, request) in shared.requests.iter().enumerate() {
        if let Some((database, wanted, role)) = request.take() {
            carry_out(shared, index, request, &database, &wanted, role);
            shared.server.launcher.wake();
        }
    }
}

/// Fills the table from what the catalogs say. Entries that are there already belong to running managers.
fn adopt_databases(shared: &Shared) -> bool {
    let found = xact::transaction(|| {
        catalog::origins()
            .into_iter()
            .filter_map(|(id, name)| {
                let (group, oid) = parse_origin_name(&name)?;
                Some((id, group.to_string(), oid, catalog::database_name(oid)))
            })
            .collect::<Vec<_>>()
    });
    let Ok(found) = found else { return false };
    for (id, group, oid, name) in found {
        let Some(name) = name else {
            log::warn(
                format!(
                    "replication origin of group \"{group}\" belongs to database {}, which does not exist",
                    oid.to_u32()
                ),
                None,
                Some("Drop it with pg_replication_origin_drop().".into()),
            );
            continue;
        };
        shared.table.exclusive(|| {
            if shared.database(oid).is_some() {
                return;
            }
            let Some(area) = free_entry(shared) else {
                log::warn(
                    format!("database \"{name}\" is not replicated: postgres_r.max_databases is too low"),
                    None,
                    Some("Raise postgres_r.max_databases and restart the server.".into()),
                );
                return;
            };
            fill(area, oid, &name, &group);
            activate(area, id);
        });
    }
    true
}

fn carry_out(shared: &Shared, index: usize, request: &Request, name: &str, wanted: &Wanted, role: pg_sys::Oid) {
    let checked = xact::transaction(|| check(name, role));
    let oid = match checked {
        Ok(Ok(oid)) => oid,
        Ok(Err(error)) => return request.answer(Err(error)),
        Err(error) => return request.answer(Err(error.into())),
    };
    let result = shared.table.exclusive(|| match wanted {
        Wanted::Start { group } => begin_start(shared, index, oid, name, group),
        Wanted::Stop => begin_stop(shared, index, oid, name),
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
fn begin_start(shared: &Shared, index: usize, oid: pg_sys::Oid, name: &str, group: &str) -> Result<(), Error> {
    if let Some(area) = shared.database(oid) {
        let group = area.state.group.get();
        let message = match area.state.phase() {
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
    let Some(area) = free_entry(shared) else {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            "too many databases of this server are replicated",
        )
        .detail(format!("The limit is {}.", guc::max_databases()))
        .hint("Raise postgres_r.max_databases and restart the server."));
    };
    fill(area, oid, name, group);
    area.state.request.store(index as u32 + 1, Ordering::SeqCst);
    area.state.set_phase(Phase::Starting);
    Ok(())
}

/// Under the table's lock. The manager goes on from here.
fn begin_stop(shared: &Shared, index: usize, oid: pg_sys::Oid, name: &str) -> Result<(), Error> {
    let area = shared.database(oid).ok_or_else(|| {
        Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("database \"{name}\" is not replicated"),
        )
        .hint(format!("ALTER DATABASE {name} START REPLICATION IN GROUP ... starts it."))
    })?;
    match area.state.phase() {
        Phase::Active | Phase::Failed => {
            area.state.request.store(index as u32 + 1, Ordering::SeqCst);
            area.state.set_phase(Phase::Stopping);
            area.state.manager.wake();
            Ok(())
        }
        _ => Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            format!("replication of database \"{name}\" is being started or stopped"),
        )
        .hint("Try again in a moment.")),
    }
}

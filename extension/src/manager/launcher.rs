//! The launcher: one a server. Finds replicated databases by their replication origins, keeps a manager running for each,
//! and takes up what sessions ask for.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::apply::spool;
use crate::error::Error;
use crate::guc;
use crate::manager::request::{Request, Wanted};
use crate::pg::origin::{self, OriginId};
use crate::pg::worker::{self, Kind};
use crate::pg::{catalog, interrupt, latch, log, process, xact};
use crate::session;
use crate::shmem::{self, DatabaseArea, Phase, Shared};

/// What every origin of ours is named after; then group and database oid.
const PREFIX: &str = "postgres_r/";

/// Between attempts to start a manager, and how often to look after one that was asked for.
const START_AGAIN_AFTER: Duration = Duration::from_secs(1);

pub fn origin_name(group: &str, database: pg_sys::Oid) -> String {
    format!("{PREFIX}{group}/{}", database.to_u32())
}

fn parse_origin_name(name: &str) -> Option<(&str, pg_sys::Oid)> {
    let (group, oid) = name.strip_prefix(PREFIX)?.rsplit_once('/')?;
    Some((group, pg_sys::Oid::from(oid.parse::<u32>().ok()?)))
}

pub fn main(_number: u64) {
    let Some(shared) = shmem::get() else { return };
    session::become_housekeeping();
    worker::connect_to_nothing();
    shared.server.launcher.set(process::me());
    process::on_exit(|| {
        if let Some(shared) = shmem::get() {
            shared.server.launcher.set(None);
        }
    });
    if !shared.server.spool_swept.swap(true, Ordering::SeqCst) {
        spool::sweep();
    }
    adopt_databases(shared);
    let mut started: Vec<Option<Instant>> = vec![None; shared.databases.len()];
    loop {
        interrupt::check();
        interrupt::reload_config();
        for (index, request) in shared.requests.iter().enumerate() {
            if let Some((database, wanted, role)) = request.take() {
                carry_out(shared, index, request, &database, &wanted, role);
            }
        }
        let waiting = keep_managers(shared, &mut started);
        latch::wait(waiting.then_some(START_AGAIN_AFTER));
    }
}

/// Fills the table from what the catalogs say. Entries that are there already belong to running managers.
fn adopt_databases(shared: &Shared) {
    let found = xact::transaction(|| {
        catalog::origins()
            .into_iter()
            .filter_map(|(id, name)| {
                let (group, oid) = parse_origin_name(&name)?;
                Some((id, group.to_string(), oid, catalog::database_name(oid)))
            })
            .collect::<Vec<_>>()
    });
    for (id, group, oid, name) in found.unwrap_or_default() {
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
}

fn free_entry(shared: &Shared) -> Option<&DatabaseArea> {
    shared.databases.iter().find(|area| area.state.phase() == Phase::Off && area.state.manager.get().is_none())
}

fn fill(area: &DatabaseArea, oid: pg_sys::Oid, name: &str, group: &str) {
    area.state.set_oid(oid);
    area.state.name.set(name);
    area.state.group.set(group);
    area.state.set_origin(OriginId(0));
    area.state.request.store(0, Ordering::SeqCst);
}

/// From here on the database's changes are the group's.
pub fn activate(area: &DatabaseArea, id: OriginId) {
    area.reset(origin::progress(id));
    area.state.set_origin(id);
    area.state.set_phase(Phase::Active);
}

/// Starts managers that are missing. True if one is awaited.
fn keep_managers(shared: &Shared, started: &mut [Option<Instant>]) -> bool {
    let mut waiting = false;
    for (area, started) in shared.databases.iter().zip(started) {
        if area.state.phase() == Phase::Off || area.state.manager.get().is_some() {
            *started = None;
            continue;
        }
        waiting = true;
        if started.is_some_and(|at| at.elapsed() < START_AGAIN_AFTER) {
            continue;
        }
        if started.is_some() && area.state.phase() == Phase::Starting {
            // It died before it could say why.
            give_up_starting(shared, area);
            continue;
        }
        *started = Some(Instant::now());
        let name = format!("postgres_r manager of {}", area.state.name.get());
        if !worker::start(Kind::Manager, &name, area.index as u64) {
            log::warn(
                format!("could not start the manager of database \"{}\"", area.state.name.get()),
                None,
                Some("Raise max_worker_processes and restart the server.".into()),
            );
        }
    }
    waiting
}

fn give_up_starting(shared: &Shared, area: &DatabaseArea) {
    area.state.set_phase(Phase::Off);
    answer(
        shared,
        area,
        Err(Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES, "could not start the replication manager")
            .detail("See the server's log.")
            .hint("Raise max_worker_processes if there are too few.")),
    );
}

/// Answers the request that this database's START or STOP came from, if it still has one.
pub fn answer(shared: &Shared, area: &DatabaseArea, answer: Result<(), Error>) {
    let index = area.state.request.swap(0, Ordering::SeqCst);
    if let Some(request) = (index as usize).checked_sub(1).and_then(|index| shared.requests.get(index)) {
        request.answer(answer);
    }
}

fn carry_out(shared: &Shared, index: usize, request: &Request, name: &str, wanted: &Wanted, role: pg_sys::Oid) {
    let checked = xact::transaction(|| check(name, role));
    let oid = match checked {
        Ok(Ok(oid)) => oid,
        Ok(Err(error)) => return request.answer(Err(error)),
        Err(error) => {
            let (code, message) = xact::describe(&error);
            return request.answer(Err(Error::new(code, message)));
        }
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

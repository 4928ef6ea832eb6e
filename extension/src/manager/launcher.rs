//! The launcher: one a server, connected to no database. Sends a scout for what only catalogs can tell, and keeps a manager
//! running for each replicated database.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::apply::spool;
use crate::error::Error;
use crate::manager::request::Request;
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

pub(super) fn parse_origin_name(name: &str) -> Option<(&str, pg_sys::Oid)> {
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
    let mut scout_sent = None;
    let mut started: Vec<Option<Instant>> = vec![None; shared.databases.len()];
    loop {
        interrupt::check();
        interrupt::reload_config();
        let waiting = keep_scouting(shared, &mut scout_sent) | keep_managers(shared, &mut started);
        latch::wait(waiting.then_some(START_AGAIN_AFTER));
    }
}

/// Most catalogs can't be read without a database: a scout goes and looks, at the start and for every request. True while
/// one is awaited.
fn keep_scouting(shared: &Shared, sent: &mut Option<Instant>) -> bool {
    let asked = shared.requests.iter().any(Request::is_asked);
    if shared.server.adopted.load(Ordering::SeqCst) && !asked {
        *sent = None;
        return false;
    }
    let busy = shared.server.scout.get().is_some();
    if !busy && sent.is_none_or(|at| at.elapsed() >= START_AGAIN_AFTER) {
        *sent = Some(Instant::now());
        match xact::transaction(catalog::any_database) {
            Ok(Some(database)) if worker::start(Kind::Scout, "postgres_r scout", u64::from(database.to_u32())) => {}
            _ => log::warn(
                "could not look into the catalogs",
                Some("Clients are not let in before replicated databases are known.".into()),
                Some("Raise max_worker_processes and restart the server.".into()),
            ),
        }
    }
    true
}

pub(super) fn free_entry(shared: &Shared) -> Option<&DatabaseArea> {
    shared.databases.iter().find(|area| area.state.phase() == Phase::Off && area.state.manager.get().is_none())
}

pub(super) fn fill(area: &DatabaseArea, oid: pg_sys::Oid, name: &str, group: &str) {
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

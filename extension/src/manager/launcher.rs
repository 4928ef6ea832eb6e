//! The launcher: one a server, connected to no database. Sends a scout for what only catalogs can tell, and keeps a manager
//! running for each replicated database.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgrx::prelude::*;
use postgres_r_protocol::replica::Phase;

use super::entry::answer;
use crate::error::Error;
use crate::node::request::Request;
use crate::node::{self, DatabaseArea, Node};
use crate::pg::worker::{self, Kind};
use crate::pg::{catalog, interrupt, latch, log, process, xact};
use crate::{session, spool};

/// Between attempts to start a manager, and how often to look after one that was asked for.
const START_AGAIN_AFTER: Duration = Duration::from_secs(1);

pub fn main(_number: u64) {
    let Some(node) = node::get() else { return };
    session::become_housekeeping();
    worker::connect_to_nothing();
    node.registry.launcher.set(process::me());
    process::on_exit(|| {
        if let Some(node) = node::get() {
            node.registry.launcher.set(None);
        }
    });
    if !node.registry.spool_swept.swap(true, Ordering::SeqCst) {
        spool::sweep();
    }
    let mut scout_sent = None;
    let mut started: Vec<Option<Instant>> = vec![None; node.databases.len()];
    let mut maker_started = None;
    loop {
        interrupt::check();
        interrupt::reload_config();
        let waiting =
            keep_scouting(node, &mut scout_sent) | keep_managers(node, &mut started) | keep_maker(node, &mut maker_started);
        latch::wait(waiting.then_some(START_AGAIN_AFTER));
    }
}

/// Most catalogs can't be read without a database: a scout goes and looks, at the start, for every request, and after a database has vanished.
/// True while one is awaited.
fn keep_scouting(node: &Node, sent: &mut Option<Instant>) -> bool {
    let registry = &node.registry;
    if registry.replacing.load(Ordering::SeqCst) > 0 {
        // Its end wakes the launcher.
        return false;
    }
    let is_done = registry.adopted.load(Ordering::SeqCst) && registry.origins_swept.load(Ordering::SeqCst);
    if is_done && !node.requests.iter().any(Request::is_asked) {
        *sent = None;
        return false;
    }
    let busy = registry.scout.get().is_some();
    if !busy && sent.is_none_or(|at| at.elapsed() >= START_AGAIN_AFTER) {
        *sent = Some(Instant::now());
        match xact::transaction(catalog::any_database) {
            Ok(Some(database)) if worker::start(Kind::Scout, "postgres_r scout", u64::from(database.to_u32())) => {}
            // Its manager starts another one when the scout has been.
            Ok(Some(_)) if end_a_rehearser(node) => {}
            _ => log::warn(
                "could not look into the catalogs",
                Some("Clients are not let in before replicated databases are known.".into()),
                Some("Raise max_worker_processes and restart the server.".into()),
            ),
        }
    }
    true
}

/// Makes room for a scout. False if there is nobody who could be missed.
fn end_a_rehearser(node: &Node) -> bool {
    let rehearser = node.databases.iter().find_map(|area| area.replica.rehearser.get());
    if let Some(process) = rehearser {
        process::terminate(process);
    }
    rehearser.is_some()
}

/// Starts managers that are missing. True if one is awaited.
fn keep_managers(node: &Node, started: &mut [Option<Instant>]) -> bool {
    if !node.registry.knows_databases() {
        return false;
    }
    let mut waiting = false;
    for (area, started) in node.databases.iter().zip(started) {
        if area.phase() == Phase::Off || area.replica.manager.get().is_some() {
            *started = None;
            continue;
        }
        waiting = true;
        if area.replica.is_lent() {
            continue;
        }
        if started.is_some_and(|at| at.elapsed() < START_AGAIN_AFTER) {
            continue;
        }
        if started.is_some() && area.phase() == Phase::Starting {
            // It died before it could say why.
            give_up_starting(node, area);
            continue;
        }
        if is_gone(area) {
            forget(node, area);
            continue;
        }
        *started = Some(Instant::now());
        let name = format!("postgres_r manager of {}", area.replica.name.get());
        if !worker::start(Kind::Manager, &name, area.index as u64) {
            log::warn(
                format!("could not start the manager of database \"{}\"", area.replica.name.get()),
                None,
                Some("Raise max_worker_processes and restart the server.".into()),
            );
        }
    }
    waiting
}

/// Starts a maker of databases where there may be something for it to do; one at a time, since most find nothing. True if it is awaited.
fn keep_maker(node: &Node, started: &mut Option<Instant>) -> bool {
    // Its end wakes the launcher; a manager does, when its database takes writes.
    if !node.registry.knows_databases() || node.databases.iter().any(|area| area.entry.making.maker.get().is_some()) {
        *started = None;
        return false;
    }
    let is_due = |area: &&DatabaseArea| {
        area.entry.making.is_due.load(Ordering::SeqCst)
            && area.is_in_use()
            && area.replica.is_attached()
            && session::is_open_to_writers(area)
    };
    let Some(area) = node.databases.iter().filter(is_due).min_by_key(|area| area.replica.number()) else { return false };
    if started.is_none_or(|at| at.elapsed() >= START_AGAIN_AFTER) {
        *started = Some(Instant::now());
        let name = format!("postgres_r maker of {}", area.replica.name.get());
        if !worker::start(Kind::Maker, &name, area.index as u64) {
            log::warn(
                "could not start the maker of databases",
                None,
                Some("Raise max_worker_processes and restart the server.".into()),
            );
        }
    }
    true
}

/// Whether the database was dropped, by whatever way: while this library was not loaded, or between two looks of a START.
fn is_gone(area: &DatabaseArea) -> bool {
    xact::transaction(|| !catalog::database_exists(area.oid())).unwrap_or(false)
}

/// Frees the place of a database that is gone. A scout sees to its origin.
fn forget(node: &Node, area: &DatabaseArea) {
    let name = area.replica.name.get();
    log::warn(
        format!("database \"{name}\" does not exist any more, and is no longer replicated on this node"),
        None,
        Some("Its group counts on this node until the database is created here again and its replication started.".into()),
    );
    area.set_phase(Phase::Off);
    area.wake_helpers();
    node.registry.origins_swept.store(false, Ordering::SeqCst);
    answer(
        node,
        area,
        Err(Error::new(PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME, format!("database \"{name}\" does not exist"))),
    );
}

fn give_up_starting(node: &Node, area: &DatabaseArea) {
    area.set_phase(Phase::Off);
    answer(
        node,
        area,
        Err(Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES, "could not start the replication manager")
            .detail("See the server's log.")
            .hint("Raise max_worker_processes if there are too few.")),
    );
}

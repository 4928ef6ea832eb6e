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
    loop {
        interrupt::check();
        interrupt::reload_config();
        let waiting = keep_scouting(node, &mut scout_sent) | keep_managers(node, &mut started);
        latch::wait(waiting.then_some(START_AGAIN_AFTER));
    }
}

/// Most catalogs can't be read without a database: a scout goes and looks, at the start and for every request. True while
/// one is awaited.
fn keep_scouting(node: &Node, sent: &mut Option<Instant>) -> bool {
    let asked = node.requests.iter().any(Request::is_asked);
    if node.registry.adopted.load(Ordering::SeqCst) && !asked {
        *sent = None;
        return false;
    }
    let busy = node.registry.scout.get().is_some();
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
    let mut waiting = false;
    for (area, started) in node.databases.iter().zip(started) {
        if area.phase() == Phase::Off || area.replica.manager.get().is_some() {
            *started = None;
            continue;
        }
        waiting = true;
        if started.is_some_and(|at| at.elapsed() < START_AGAIN_AFTER) {
            continue;
        }
        if started.is_some() && area.phase() == Phase::Starting {
            // It died before it could say why.
            give_up_starting(node, area);
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

//! A session asks for a verification, and waits for its end (docs/adr/0034).

use std::time::{Duration, Instant};

use pgrx::PgSqlErrorCode;

use crate::error::{self, Error};
use crate::node::DatabaseArea;
use crate::node::verification::Wanted;
use crate::pg::worker::{self, Kind};
use crate::pg::{interrupt, latch, process};
use crate::session;

/// How long a process that was asked for may take to come.
const TAKEN_UP_WITHIN: Duration = Duration::from_secs(10);

/// The number of the verification, when it is over. Interrupts are served: then it is over too.
pub fn ask(wanted: &Wanted) -> Result<i64, Error> {
    let Some(area) = session::database() else { return Err(error::not_replicated("verify")) };
    if let Some(error) = session::phase_error(area).or_else(|| super::writable::group_error(area)) {
        return Err(error);
    }
    if let Some(repair) = &wanted.repair {
        check_target(area, &repair.node)?;
    }
    if !area.verification.ask(wanted, process::me()) {
        return Err(Error::new(PgSqlErrorCode::ERRCODE_OBJECT_IN_USE, "a verification of this database is under way")
            .detail("Another session of this node has asked for it.")
            .hint("Try again when it has ended."));
    }
    let name = format!("postgres_r coordinator of {}", area.replica.name.get());
    if !worker::start(Kind::Coordinator, &name, area.index as u64) {
        area.verification.withdraw();
        return Err(no_room());
    }
    wait(area)
}

fn no_room() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES, "could not start a verification")
        .detail("There is no room for another background worker.")
        .hint("Raise max_worker_processes and restart the server.")
}

fn wait(area: &DatabaseArea) -> Result<i64, Error> {
    let asked = Instant::now();
    loop {
        if let Some(answer) = area.verification.take_answer() {
            return answer;
        }
        if asked.elapsed() >= TAKEN_UP_WITHIN && area.verification.withdraw() {
            return Err(no_room());
        }
        if interrupt::pending() && area.verification.abandon() {
            interrupt::check();
            return Err(error::canceled());
        }
        latch::wait(Some(TAKEN_UP_WITHIN));
    }
}

fn check_target(area: &DatabaseArea, node: &str) -> Result<(), Error> {
    let id = gcs_writeset::NodeId::of_name(node);
    if id == area.replica.node() {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("node \"{node}\" cannot repair itself"),
        )
        .detail("A table is repaired from the node that is asked.")
        .hint("Ask on a node that is equal to the others; see postgres_r.verify()."));
    }
    if area.replica.member_name(id).is_none() { Err(error::unknown_node(node)) } else { Ok(()) }
}

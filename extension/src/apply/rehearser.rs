//! The rehearser: one a replicated database. It tries what transactions with statements on other nodes are about to do, and rolls it back
//! (docs/adr/0031-rehearsal.md).
//!
//! A statement is evaluated anew on every node, in catalogs that the group does not keep equal as a whole: roles, extensions and files are each
//! server's own. What cannot run here would take this node out of service once it is ordered. Tried before, it is an error of the client that
//! asked for it.
//!
//! Beside that it has indexes built that a session of another node makes CONCURRENTLY ([`super::building`]), and keeps tables clear of this node's writers, for whoever is about to run such a statement elsewhere ([`super::clearing`]).
//!
//! The rehearser is nobody's obstacle. It waits for a lock for [`LOCK_TIMEOUT`] at most, which is shorter than anybody's deadlock_timeout; it gives
//! way to remote backends as any open transaction does; and it stops when whoever asked waits no longer. What it could not try by then, it
//! does not speak of ([`Rehearsal::Partly`]): neither does it of rows, about which certification decides.

use std::time::{Duration, Instant};

use gcs_writeset::Position;
use gcs_writeset::building::is_building;
use gcs_writeset::link::{PROTOCOL, Rehearsal, Reply, Request, Role};
use postgres_r_protocol::dispatch::Trouble;

use super::building::Buildings;
use super::clearing::Clearings;
use super::divergence::is_passing;
use super::failure::failure;
use super::queued::Queued;
use super::rows::{self, Notifying, What};
use super::worker::configure;
use crate::error::Error;
use crate::guc;
use crate::link::{Link, LinkError};
use crate::node::{self, DatabaseArea, making, wake};
use crate::pg::{interrupt, process, timer, worker, xact};
use crate::{session, summons};

/// Between attempts to reach gcs.
const RECONNECT_EVERY: Duration = Duration::from_secs(1);

/// Nothing else wakes the rehearser when its database goes out of service.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long a lock may take.
const LOCK_TIMEOUT: &str = "100ms";

pub fn main(number: u64) {
    let Some(area) = node::get().and_then(|node| node.databases.get(number as usize)) else { return };
    let Some(place) = process::me() else { return };
    if !area.is_in_use() || !area.replica.rehearser.claim(place) {
        return;
    }
    process::on_exit(|| {
        area.replica.rehearser.set(None);
        wake(&area.replica.manager);
    });
    session::become_rehearser();
    worker::connect(area.oid());
    configure();
    worker::set_setting("lock_timeout", LOCK_TIMEOUT);
    worker::set_setting("log_lock_waits", "off");
    summons::listen();
    while area.is_in_use() {
        // gcs may be gone for a while; the manager says so in the log.
        if let Ok(link) = connect(area) {
            let _ = serve(area, link);
        }
        if area.is_in_use() {
            rest(RECONNECT_EVERY);
        }
    }
}

/// Sleeps out the time, unless the server wants this process to end.
fn rest(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        interrupt::forget_cancel();
        interrupt::check();
        crate::pg::latch::wait(Some(until.saturating_duration_since(Instant::now())));
    }
}

fn connect(area: &DatabaseArea) -> Result<Link, LinkError> {
    let mut link = Link::connect(&guc::gcs_socket())?;
    link.send(&Request::Hello {
        protocol: PROTOCOL,
        role: Role::Rehearser,
        database: area.replica.name.get(),
        group: Some(area.replica.group.get()),
        incarnation: area.at().server.incarnation,
    })?;
    Ok(link)
}

/// Until the connection is lost, or the database is no longer in service.
fn serve(area: &'static DatabaseArea, mut link: Link) -> Result<(), LinkError> {
    let mut clearings = Clearings::new(area);
    let mut buildings = Buildings::new(area);
    loop {
        link.flush()?;
        while next(area, &mut link, &mut clearings, &mut buildings)? {}
        for (number, outcome) in clearings.done().into_iter().chain(buildings.done()) {
            link.send(&Request::Rehearsed { number, outcome })?;
        }
        if !area.is_in_use() {
            return Ok(());
        }
        if link.read()? == 0 {
            let rests = [clearings.rest(), buildings.rest()];
            link.wait(rests.into_iter().flatten().min().unwrap_or(LOOK_EVERY));
            interrupt::forget_cancel();
            interrupt::check();
            interrupt::reload_config();
        }
    }
}

/// Does what stands at the front of the input, if anything does.
fn next(
    area: &DatabaseArea,
    link: &mut Link,
    clearings: &mut Clearings,
    buildings: &mut Buildings,
) -> Result<bool, LinkError> {
    let Some(frame) = link.front()? else { return Ok(false) };
    let length = frame.length;
    let answer = match &frame.reply {
        Reply::Welcome { .. } => None,
        Reply::Rehearse { number, after } => Some((*number, rehearse(area, *after, frame.payload.to_vec()))),
        Reply::Clear { number, patience_ms } => {
            let patience = Duration::from_millis(u64::from(*patience_ms));
            let at_once = if is_building(frame.payload) {
                buildings.begin(*number, patience, frame.payload)
            } else {
                clearings.begin(*number, patience, frame.payload)
            };
            at_once.map(|outcome| (*number, outcome))
        }
        Reply::Failed(failure) => return Err(LinkError::Failed(failure.message.clone())),
        _ => return Err(Trouble::Protocol("a frame on the wrong connection".into()).into()),
    };
    link.consume(length);
    if let Some((number, outcome)) = answer {
        link.send(&Request::Rehearsed { number, outcome })?;
    }
    Ok(true)
}

fn rehearse(area: &DatabaseArea, after: Position, bytes: Vec<u8>) -> Rehearsal {
    let Ok(writeset) = Queued::whole(bytes) else { return Rehearsal::Partly };
    let patience = guc::rehearsal_timeout();
    let is_there = || area.gate.committed() >= after;
    if !is_there() && !area.conditions.wait_for_lag(patience, is_there) {
        return Rehearsal::Partly;
    }
    worker::report_activity(Some("rehearsing a transaction of another node"));
    making::insists();
    let tried = attempt(&writeset, patience);
    if let Some(slot) = node::my_slot() {
        slot.victim.clear();
    }
    process::forget_summons();
    worker::report_activity(None);
    match tried {
        Ok(()) => Rehearsal::Passed,
        Err(error) if is_passing(error.code) && !making::insists() => Rehearsal::Partly,
        Err(error) => match rows::failed_at(&writeset) {
            Some(What::Statement(_)) => Rehearsal::Failed(failure(area, error)),
            _ => Rehearsal::Partly,
        },
    }
}

/// Applies the writeset in a transaction that never commits.
fn attempt(writeset: &Queued, limit: Duration) -> Result<(), Error> {
    let mut over = false;
    let rolled_back = xact::transaction(|| {
        timer::cancel_after(limit);
        if let Err(divergence) = rows::apply(writeset, Notifying::Yes, |_, _| interrupt::check()) {
            Error::new(divergence.code(), divergence.to_string()).raise();
        }
        over = true;
        Error::new(pgrx::PgSqlErrorCode::ERRCODE_QUERY_CANCELED, "the rehearsal is over").raise();
    });
    match rolled_back {
        Err(error) if !over => Err(error.into()),
        _ => Ok(()),
    }
}

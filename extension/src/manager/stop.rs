//! STOP REPLICATION, as far as the manager carries it out: the group lets go of the database (an ordered detach), what is queued is applied, and
//! the origin is dropped. From then on the database is an ordinary one: its tables stay, and lose their capture triggers.
//!
//! By FORCE the group is told only if it can be: without a majority, or without gcs, the database leaves all the same. The group goes on counting
//! on this node then, and keeps its log for it, until replication of a database of this name is started here anew; that begins from nothing, as
//! any START does. A database that is out of service, or that is being copied, attaches in order to leave: it needs nothing of the order any more. If that
//! cannot be had, it leaves as by force.
//!
//! A capture trigger of a table that somebody keeps locked stays: without replication it does nothing. Nothing waits for such a lock for long.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gcs_writeset::Position;
use gcs_writeset::link::Request;
use pgrx::prelude::*;
use postgres_r_protocol::manager::Link;
use postgres_r_protocol::replica::Phase;

use super::process::ManagerProcess;
use super::start::{ORDER_TIMEOUT, QUORUM_TIMEOUT, no_daemon};
use super::{entry, overwriting, past};
use crate::error::Error;
use crate::pg::{capture, interrupt, log, origin, query, worker, xact};
use crate::session;
use crate::subscriptions::group;

/// How long what was queued may take to apply before the origin is dropped.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the removal of a capture trigger waits for a lock on its table, and how long all of them together may take.
const TRIGGER_LOCK_TIMEOUT: &str = "500ms";
const TRIGGERS_TIMEOUT: Duration = Duration::from_secs(5);

impl ManagerProcess {
    /// Returns when the database is no longer replicated, or is again.
    pub(super) fn stop(&mut self) {
        let name = self.area.replica.name.get();
        let has_failed = self.area.entry.had_failed.load(Ordering::SeqCst);
        let is_forced = self.area.entry.by_force.load(Ordering::SeqCst);
        let ready = if is_forced || has_failed { Ok(()) } else { Self::leaves_nothing_prepared(&name) };
        let was_told = match ready.and_then(|()| self.leave_group(is_forced)) {
            Ok(()) => true,
            Err(_) if is_forced || has_failed => {
                log::warn(format!("database \"{name}\" leaves its group without telling it"), None, None);
                self.drop_link();
                false
            }
            Err(error) => {
                self.drop_link();
                self.area.set_phase(Phase::Active);
                entry::answer(self.node, self.area, Err(error));
                return;
            }
        };
        if !has_failed {
            self.drain();
        }
        let answer = self.become_ordinary(was_told);
        log::log(format!("database \"{name}\" is no longer replicated"), None, None);
        entry::answer(self.node, self.area, answer);
    }

    /// With the last node that has the database the group would forget what is prepared in it, and a node does not know whether it is the last: that is for whoever
    /// prepared it to say, or for FORCE.
    fn leaves_nothing_prepared(name: &str) -> Result<(), Error> {
        let first = "SELECT format('%L', gid) FROM postgres_r.prepared ORDER BY gid LIMIT 1";
        let found = xact::transaction(|| query::text(first)).map_err(Error::from)?;
        found.map_or(Ok(()), |transaction| {
            Err(Error::new(PgSqlErrorCode::ERRCODE_OBJECT_IN_USE, format!("database \"{name}\" has prepared transactions"))
                .detail(format!("One is {transaction}."))
                .hint("Run COMMIT PREPARED or ROLLBACK PREPARED first. Where another node has the database, STOP REPLICATION FORCE leaves them to that."))
        })
    }

    fn become_ordinary(&self, was_told: bool) -> Result<Option<Error>, Error> {
        let group = self.area.replica.group.get();
        let (oid, position) = (self.area.oid(), self.area.gate.committed());
        // What comes from now on is for whoever carries them next.
        xact::transaction(group::leave).map_err(Error::from)?;
        self.area.set_phase(Phase::Off);
        self.wake_workers();
        xact::transaction(|| origin::drop(&entry::origin_name(&group, oid))).map_err(Error::from)?;
        // What was never replaced by the group's contents was never the group's.
        let was_overwritten = self.area.replica.overwrites.load(Ordering::SeqCst);
        let note = || {
            overwriting::clear();
            if !was_overwritten {
                past::remember(&group, position, was_told);
            }
        };
        if let Err(failed) = xact::transaction(note) {
            log::warn("could not note down that the database has left its group", Some(failed.message), None);
        }
        let left = remove_triggers();
        Ok(Some(what_it_means(&self.area.replica.name.get(), &group, position, was_told, left)))
    }

    fn leave_group(&mut self, is_forced: bool) -> Result<(), Error> {
        let started = Instant::now();
        let mut asked = false;
        while !self.detached {
            interrupt::forget_cancel();
            interrupt::check();
            self.connect_if_due();
            if let Err(failure) = self.serve_stream() {
                self.link_lost(&failure.to_string());
                asked = false;
            }
            if self.link() == Link::Up && !asked {
                asked = self.send(&Request::Detach).is_ok();
            }
            if let Err(failure) = self.fetch() {
                self.link_lost(&failure.to_string());
                asked = false;
            }
            let is_late = started.elapsed() >= if asked { ORDER_TIMEOUT } else { QUORUM_TIMEOUT };
            if is_late || (is_forced && !self.area.replica.is_writable()) {
                return Err(self.cannot_tell());
            }
            self.keep_workers();
            self.sleep(Some(Duration::from_millis(100)));
        }
        self.drop_link();
        Ok(())
    }

    /// Why the group could not be told.
    fn cannot_tell(&self) -> Error {
        let why = if self.link() == Link::Down { no_daemon("it does not answer") } else { session::no_quorum(self.area) };
        let name = self.area.replica.name.get();
        Error { message: format!("could not tell the group that database \"{name}\" leaves it"), ..why }
            .hint("Try again when the group can be reached, or leave it without telling it: STOP REPLICATION FORCE.")
    }

    fn drain(&mut self) {
        let started = Instant::now();
        while self.area.gate.ahead() > 0 && started.elapsed() < DRAIN_TIMEOUT {
            interrupt::forget_cancel();
            interrupt::check();
            self.area.gate.want_room(true);
            if self.area.gate.ahead() > 0 {
                self.sleep(Some(Duration::from_millis(100)));
            }
        }
    }
}

/// Takes the capture triggers off all tables. How many had to stay.
fn remove_triggers() -> usize {
    worker::set_setting("lock_timeout", TRIGGER_LOCK_TIMEOUT);
    let started = Instant::now();
    let triggers = xact::transaction(capture::triggers).unwrap_or_default();
    let stay = |&trigger: &_| {
        interrupt::check();
        started.elapsed() >= TRIGGERS_TIMEOUT || xact::transaction(|| capture::remove(trigger)).is_err()
    };
    triggers.iter().filter(|&trigger| stay(trigger)).count()
}

fn what_it_means(name: &str, group: &str, position: Position, was_told: bool, triggers: usize) -> Error {
    let message = format!("database \"{name}\" is no longer replicated on this node");
    let code = if was_told { PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION } else { PgSqlErrorCode::ERRCODE_WARNING };
    let mut detail = format!(
        "It is an ordinary database, as of position {position} of group \"{group}\": what is written to it stays here, and what other nodes write does not come here."
    );
    if !was_told {
        detail += " The group was not told: it goes on counting on this node, and keeps its log for it.";
    }
    if triggers > 0 {
        detail += &format!(" Tables that were in use, {triggers} of them, keep a trigger that does nothing.");
    }
    Error::new(code, message).detail(detail).hint(
        "To replicate it again, drop it here, create it anew with its extension, and start its replication; \
             or start its replication WITH (OVERWRITE), which keeps it under another name.",
    )
}

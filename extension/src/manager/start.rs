//! START and STOP REPLICATION, as far as the manager carries them out.
//!
//! START: the database must be ready (extension there, no tables yet), the group must take it (an ordered attach), and then the
//! origin is created, which is what makes it last. STOP: the group lets go of it (an ordered detach), what is queued is
//! applied, and the origin is dropped. Tables stay.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gcs_writeset::link::{FailureKind, Request};
use pgrx::prelude::*;
use postgres_r_protocol::manager::Link;
use postgres_r_protocol::platform::Exclusion;
use postgres_r_protocol::replica::Phase;

use super::entry;
use super::process::ManagerProcess;
use crate::error::{self, Error};
use crate::guc;
use crate::link::LinkError;
use crate::pg::relation::{self, Lock, Open};
use crate::pg::{catalog, interrupt, log, origin, process, query, trigger, xact};

/// How long gcs may take to say who it is.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the group may take to order an attach or a detach.
const ORDER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long it may be without a majority meanwhile.
const QUORUM_TIMEOUT: Duration = Duration::from_secs(5);

/// How long what was queued may take to apply before the origin is dropped.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

impl ManagerProcess {
    pub(super) fn start(&mut self) -> Result<(), Error> {
        let name = self.area.replica.name.get();
        let group = self.area.replica.group.get();
        ready(&name)?;
        self.reset();
        self.join(&name, &group)?;
        let created = xact::transaction(|| {
            capture_sequences();
            origin::create(&entry::origin_name(&group, self.area.oid()))
        });
        let id = created.map_err(Error::from)?;
        self.area.set_origin(id);
        self.area.set_phase(Phase::Active);
        log::log(format!("database \"{name}\" is replicated in group \"{group}\""), None, None);
        Ok(())
    }

    fn join(&mut self, name: &str, group: &str) -> Result<(), Error> {
        let started = Instant::now();
        let mut greeted = false;
        let mut quorum_seen = started;
        self.connect().map_err(|error| no_daemon(&error.to_string()))?;
        while self.link() != Link::Up {
            interrupt::forget_cancel();
            interrupt::check();
            if self.area.phase() != Phase::Starting {
                return Err(error::stopping());
            }
            if let Err(failure) = self.serve_stream() {
                return Err(self.explain(&failure, name, group));
            }
            greeted |= matches!(self.link(), Link::Attaching | Link::Up);
            if self.area.replica.quorum.load(Ordering::SeqCst) {
                quorum_seen = Instant::now();
            }
            if !greeted && started.elapsed() >= WELCOME_TIMEOUT {
                return Err(no_daemon("it does not answer"));
            }
            if quorum_seen.elapsed() >= QUORUM_TIMEOUT || started.elapsed() >= ORDER_TIMEOUT {
                return Err(error::no_quorum());
            }
            self.sleep(Some(Duration::from_millis(100)));
        }
        Ok(())
    }

    fn explain(&self, failure: &LinkError, name: &str, group: &str) -> Error {
        let Some(refusal) = &self.refusal else { return no_daemon(&failure.to_string()) };
        let code = match refusal.kind {
            FailureKind::WrongGroup => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            FailureKind::AlreadyAttached => PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            FailureKind::NotAuthorized => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            _ => PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        };
        let message = match refusal.kind {
            FailureKind::WrongGroup => format!("this node does not belong to group \"{group}\""),
            _ => format!("the group does not take database \"{name}\""),
        };
        Error::new(code, message).detail(format!("gcs says: {}.", refusal.message)).hint(refusal.hint.clone())
    }

    /// Returns when the database is no longer replicated, or is again.
    pub(super) fn stop(&mut self) {
        let name = self.area.replica.name.get();
        let failed = !self.node.table.shared(|| self.area.replica.reason.get()).is_empty();
        match self.leave_group() {
            Ok(()) => {}
            // Nothing here is in the group's order any more; the group is told when somebody starts or removes it.
            Err(_) if failed => {
                log::warn(format!("database \"{name}\" leaves its group without telling it"), None, None);
            }
            Err(error) => {
                self.drop_link();
                self.area.set_phase(Phase::Active);
                entry::answer(self.node, self.area, Err(error));
                return;
            }
        }
        if !failed {
            self.drain();
        }
        let group = self.area.replica.group.get();
        let oid = self.area.oid();
        self.area.set_phase(Phase::Off);
        self.wake_workers();
        let dropped = xact::transaction(|| origin::drop(&entry::origin_name(&group, oid)));
        let answer = dropped.map_err(Error::from);
        log::log(format!("database \"{name}\" is no longer replicated"), None, None);
        entry::answer(self.node, self.area, answer);
    }

    fn leave_group(&mut self) -> Result<(), Error> {
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
            if started.elapsed() >= if asked { ORDER_TIMEOUT } else { QUORUM_TIMEOUT } {
                return Err(if self.link() == Link::Down { no_daemon("it does not answer") } else { error::no_quorum() });
            }
            self.keep_workers();
            self.sleep(Some(Duration::from_millis(100)));
        }
        self.drop_link();
        Ok(())
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

/// How far the group is with each sequence is a table like users' own.
fn capture_sequences() {
    let table = relation::find("postgres_r", "sequences");
    if let Some(table) = table.and_then(|table| Open::by_oid(table, Lock::AccessExclusive)) {
        trigger::ensure(&table);
    }
}

/// What only a process connected to the database can see.
fn ready(name: &str) -> Result<(), Error> {
    let checked = xact::transaction(|| {
        if !catalog::extension_installed("postgres_r") {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("extension postgres_r is not installed in database \"{name}\""),
            )
            .hint(format!("Run CREATE EXTENSION postgres_r in database \"{name}\".")));
        }
        if let Some(table) = query::text(FIRST_RELATION) {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("database \"{name}\" is not empty"),
            )
            .detail(format!("It contains {table}."))
            .hint("Databases must be empty on all nodes when their replication starts, for now."));
        }
        if let Some(trigger) = query::text(FIRST_EVENT_TRIGGER) {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("event trigger {trigger} of database \"{name}\" would fire on every node"),
            )
            .detail("What it does on the node where a statement is run is replicated.")
            .hint(format!("Run ALTER EVENT TRIGGER {trigger} ENABLE, or DISABLE.")));
        }
        if process::writers_in(process::my_database()) > 0 {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
                format!("database \"{name}\" has open transactions that change data"),
            )
            .hint("Try again when they have ended."));
        }
        Ok(())
    });
    checked.unwrap_or_else(|error| Err(error.into()))
}

/// A user's relation, if there is any: made after initdb and no extension's.
const FIRST_RELATION: &str = "
    SELECT format('%s %I.%I', CASE c.relkind WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence' ELSE 'table' END, n.nspname, c.relname)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'm', 'f', 'S', 'v') AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY c.oid LIMIT 1";

/// An event trigger that fires where statements are applied, if there is any.
const FIRST_EVENT_TRIGGER: &str = "
    SELECT format('%I', evtname) FROM pg_catalog.pg_event_trigger WHERE evtenabled IN ('A', 'R') ORDER BY 1 LIMIT 1";

fn no_daemon(why: &str) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION, "could not reach this node's gcs")
        .detail(format!("Socket \"{}\": {why}.", guc::gcs_socket()))
        .hint("Start it with \"gcs run --config FILE\", and let postgres_r.gcs_socket name the socket in that file.")
}

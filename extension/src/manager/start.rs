//! START REPLICATION, as far as the manager carries it out: the database must be ready (extension there, no tables yet), the group must take it
//! (an ordered attach), and then the origin is created, which is what makes it last. ([`super::stop`] is the way back.)

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gcs_writeset::link::FailureKind;
use pgrx::prelude::*;
use postgres_r_protocol::manager::Link;
use postgres_r_protocol::replica::Phase;

use super::entry;
use super::past;
use super::process::ManagerProcess;
use crate::error::{self, Error};
use crate::guc;
use crate::link::LinkError;
use crate::pg::relation::{self, Lock, Open};
use crate::pg::{catalog, interrupt, log, origin, process, query, trigger, xact};
use crate::session;
use crate::verify;

/// How long gcs may take to say who it is.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the group may take to order an attach or a detach.
pub(super) const ORDER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long it may be without a majority meanwhile.
pub(super) const QUORUM_TIMEOUT: Duration = Duration::from_secs(5);

impl ManagerProcess {
    pub(super) fn start(&mut self) -> Result<(), Error> {
        let name = self.area.replica.name.get();
        let group = self.area.replica.group.get();
        ready(&name)?;
        self.reset();
        self.join(&name, &group)?;
        let created = xact::transaction(|| {
            capture_own_tables();
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
                return Err(session::no_quorum(self.area));
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
}

/// Tables of the extension that are like users' own: empty when replication starts, and captured from then on.
fn capture_own_tables() {
    for name in ["sequences"].into_iter().chain(verify::TABLES) {
        let Some(table) = relation::find("postgres_r", name) else { continue };
        query::first_row(&format!("DELETE FROM postgres_r.{name}"));
        if let Some(table) = Open::by_oid(table, Lock::AccessExclusive) {
            trigger::ensure(&table);
        }
    }
}

/// What only a process connected to the database can see.
fn ready(name: &str) -> Result<(), Error> {
    let checked = xact::transaction(|| {
        // Renamed between the look at its name and now: the group must not know it by the old one.
        if catalog::database_name(process::my_database()).as_deref() != Some(name) {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME,
                format!("database \"{name}\" does not exist"),
            ));
        }
        if !catalog::extension_installed("postgres_r") {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("extension postgres_r is not installed in database \"{name}\""),
            )
            .hint(format!("Run CREATE EXTENSION postgres_r in database \"{name}\".")));
        }
        if let Some(table) = query::text(FIRST_RELATION) {
            return Err(not_empty(name, &table));
        }
        if let Some(trigger) = query::text(FIRST_EVENT_TRIGGER) {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("event trigger {trigger} of database \"{name}\" would fire on every node"),
            )
            .detail("What it does on the node where a statement is run is replicated.")
            .hint(format!("Run ALTER EVENT TRIGGER {trigger} ENABLE, or DISABLE.")));
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

fn not_empty(name: &str, table: &str) -> Error {
    let error =
        Error::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, format!("database \"{name}\" is not empty"));
    match past::last_group() {
        Some(past) => error
            .detail(format!("It contains {table}. {past} What was written here since then, the group does not know."))
            .hint(
                "Drop the database here, create it anew with its extension, and start its replication: the group fills it.",
            ),
        None => error
            .detail(format!("It contains {table}."))
            .hint("Databases must be empty on all nodes when their replication starts, for now."),
    }
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

pub(super) fn no_daemon(why: &str) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION, "could not reach this node's gcs")
        .detail(format!("Socket \"{}\": {why}.", guc::gcs_socket()))
        .hint("Start it with \"gcs run --config FILE\", and let postgres_r.gcs_socket name the socket in that file.")
}

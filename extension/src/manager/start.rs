//! START REPLICATION, as far as the manager carries it out: the database must be ready (extension there), the group must take it (an ordered
//! attach), and then the origin is created, which is what makes it last. ([`super::stop`] is the way back.)
//!
//! An empty database gets what the group has: from the log, or as a copy of another node's database, which gcs makes. One with contents *founds*
//! the group's: what it holds is position 1, and every other node gets it as a copy. It is refused where the group has contents already.
//!
//! WITH (OVERWRITE) a database with contents gets what the group has all the same: gcs makes a copy, as for an empty one, and keeps what was there as a
//! database of another name. From the moment on at which the group has taken it nobody is let in, so that nobody writes what the group will
//! never see. It is refused where the group has no contents: then this database's are to be the group's, without the option.
//!
//! Writers need not stop for that. While the tables get their capture triggers, all are locked against writers; transactions that had written
//! before are waited for; and the database counts as replicated before the locks are let go:
//!
//! ```text
//! START:  locks all tables, triggers          waits for T | active | COMMIT
//! T:      INSERT (not captured)    COMMIT                               its rows are a part of position 1
//! U:                       INSERT waits for the lock ...................... captured
//! ```

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gcs_writeset::Position;
use gcs_writeset::link::FailureKind;
use pgrx::prelude::*;
use postgres_r_protocol::manager::Link;
use postgres_r_protocol::replica::Phase;

use super::entry;
use super::overwriting;
use super::past;
use super::plain;
use super::process::ManagerProcess;
use crate::error::{self, Error};
use crate::guc;
use crate::link::LinkError;
use crate::node::making::Birth;
use crate::pg::database::quoted;
use crate::pg::relation::{self, Lock, Open};
use crate::pg::{catalog, interrupt, large_object, log, origin, process, query, trigger, worker, xact};
use crate::relations::OWN_TABLES;
use crate::session;

/// How long gcs may take to say who it is.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);

/// How long transactions that write, or have locked a table, are waited for.
const WRITERS_TIMEOUT: &str = "10s";

/// The position of what a database brings.
const FOUNDATION: Position = Position(1);

/// How long the group may take to order an attach or a detach.
pub(super) const ORDER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long it may be without a majority meanwhile.
pub(super) const QUORUM_TIMEOUT: Duration = Duration::from_secs(5);

/// The group has taken the database.
enum Joined {
    Up,
    /// It gets a copy of another node's before it can go on.
    Copying,
}

impl ManagerProcess {
    /// What there is to be said, though it is done.
    pub(super) fn start(&mut self) -> Result<Option<Error>, Error> {
        let name = self.area.replica.name.get();
        let group = self.area.replica.group.get();
        let birth = self.area.entry.making.birth.load();
        self.equip(birth)?;
        let contents = ready(&name)?;
        let overwrites = contents.is_some() && self.area.entry.overwrite.load(Ordering::SeqCst);
        let founds = match birth {
            Birth::Ordinary => contents.is_some() && !overwrites,
            // It brings something, were it nothing: the group takes no other one of that name.
            Birth::First => true,
            Birth::Same | Birth::Empty => false,
        };
        if overwrites {
            nothing_prepared(&name)?;
        }
        self.reset(if founds || birth == Birth::Same { FOUNDATION } else { Position::ZERO });
        self.area.replica.founds.store(founds, Ordering::SeqCst);
        self.area.replica.overwrites.store(overwrites, Ordering::SeqCst);
        let joined = self.join(&name, &group, contents.as_deref());
        self.area.replica.founds.store(false, Ordering::SeqCst);
        // Out of service, until gcs has made the copy.
        let (phase, remark) = match joined? {
            Joined::Up if overwrites => return Err(no_daemon("it took a database that is to be overwritten as it is")),
            Joined::Up if founds && birth == Birth::Ordinary => (Phase::Active, assessed(&name)),
            Joined::Up => (Phase::Active, None),
            Joined::Copying => (Phase::Failed, Some(copying(&name, overwrites))),
        };
        worker::set_setting("lock_timeout", WRITERS_TIMEOUT);
        let created = xact::transaction(|| {
            if overwrites {
                overwriting::set(&group);
            } else {
                overwriting::clear();
                capture_own_tables();
            }
            if founds {
                keep_writers_off();
            }
            let id = origin::create(&entry::origin_name(&group, self.area.oid()));
            origin::advance(id, self.area.gate.committed());
            self.area.set_origin(id);
            self.area.set_phase(phase);
        });
        worker::set_setting("lock_timeout", "0");
        if let Err(failed) = created {
            self.area.set_phase(Phase::Starting);
            return Err(writers(&name, failed));
        }
        log::log(format!("database \"{name}\" is replicated in group \"{group}\""), None, None);
        Ok(remark)
    }

    /// A database that was made for the group gets the extension here.
    fn equip(&self, birth: Birth) -> Result<(), Error> {
        if birth == Birth::Ordinary {
            return Ok(());
        }
        let equipped = xact::transaction(|| {
            self.area.entry.making.is_plain.store(plain::is_plain(), Ordering::SeqCst);
            query::first_row("CREATE EXTENSION IF NOT EXISTS postgres_r");
        });
        equipped.map_err(Error::from)
    }

    fn join(&mut self, name: &str, group: &str, contents: Option<&str>) -> Result<Joined, Error> {
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
                if self.refusal.as_ref().is_some_and(|refusal| refusal.kind == FailureKind::Copying) {
                    return Ok(Joined::Copying);
                }
                return Err(self.explain(&failure, name, group, contents));
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
        Ok(Joined::Up)
    }

    fn explain(&self, failure: &LinkError, name: &str, group: &str, contents: Option<&str>) -> Error {
        let Some(refusal) = &self.refusal else { return no_daemon(&failure.to_string()) };
        if let (FailureKind::HasContents, Some(table)) = (refusal.kind, contents) {
            return xact::transaction(|| not_empty(name, group, table)).unwrap_or_else(Error::from);
        }
        let code = match refusal.kind {
            FailureKind::WrongGroup => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            FailureKind::AlreadyAttached => PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            FailureKind::NotAuthorized => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            _ => PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        };
        let message = match refusal.kind {
            FailureKind::WrongGroup => format!("this node does not belong to group \"{group}\""),
            FailureKind::NoContents => {
                format!("database \"{name}\" cannot be overwritten: group \"{group}\" has no contents for it")
            }
            _ => format!("the group does not take database \"{name}\""),
        };
        Error::new(code, message).detail(format!("gcs says: {}.", refusal.message)).hint(refusal.hint.clone())
    }
}

/// A prepared transaction stays with its database for as long as nobody ends it, and the database could not be renamed.
fn nothing_prepared(name: &str) -> Result<(), Error> {
    let found = xact::transaction(|| query::text(FIRST_PREPARED)).map_err(Error::from)?;
    found.map_or(Ok(()), |transaction| {
        Err(Error::new(PgSqlErrorCode::ERRCODE_OBJECT_IN_USE, format!("database \"{name}\" has prepared transactions"))
            .detail(format!("One is {transaction}."))
            .hint("Run COMMIT PREPARED or ROLLBACK PREPARED first."))
    })
}

fn capture_own_tables() {
    for name in OWN_TABLES {
        let Some(table) = relation::find("postgres_r", name) else { continue };
        query::first_row(&format!("DELETE FROM postgres_r.{name}"));
        if let Some(table) = Open::by_oid(table, Lock::AccessExclusive) {
            trigger::ensure(&table);
        }
    }
}

/// No table is written to until this transaction ends, all are captured, and whatever had been written before is committed.
fn keep_writers_off() {
    for table in relation::user_tables() {
        if let Some(table) = Open::by_oid(table, Lock::ShareRowExclusive) {
            trigger::ensure(&table);
        }
    }
    // Whoever writes to large objects looks once more whether it is captured, when these locks are let go.
    let of_large_objects = large_object::CATALOGS.map(|catalog| Open::by_oid(catalog, Lock::ShareRowExclusive));
    drop(of_large_objects);
    for writer in process::writers_in(process::my_database()) {
        xact::wait_for(writer);
    }
}

fn writers(name: &str, failed: xact::Failed) -> Error {
    let is_busy =
        [PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED].contains(&failed.code);
    if !is_busy {
        return failed.into();
    }
    Error::new(
        PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
        format!("database \"{name}\" has open transactions that change data, or have locked a table"),
    )
    .detail(format!("They were waited for, {WRITERS_TIMEOUT} at most."))
    .hint("Try again when they have ended.")
}

/// What only a process connected to the database can see. The database's first relation, if it has any.
fn ready(name: &str) -> Result<Option<String>, Error> {
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
        let contents = query::text(FIRST_RELATION);
        if contents.is_none() && !process::writers_in(process::my_database()).is_empty() {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
                format!("database \"{name}\" has open transactions that change data"),
            )
            .hint("Try again when they have ended."));
        }
        Ok(contents)
    });
    checked.unwrap_or_else(|error| Err(error.into()))
}

/// What will not be as before for those who use a database with contents; none if there is nothing to say. It keeps nobody from anything, nor does an
/// error on the way.
fn assessed(name: &str) -> Option<Error> {
    let rows = xact::transaction(|| query::rows(FINDINGS)).unwrap_or_default();
    let line = |row: &query::Row| {
        let columns: Vec<&str> = row.iter().map(|column| column.as_deref().unwrap_or_default()).collect();
        columns.join(", ")
    };
    let lines: Vec<String> = rows.iter().map(line).collect();
    (!lines.is_empty()).then(|| {
        Error::new(
            PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            format!("some objects of database \"{name}\" are treated differently in a group"),
        )
        .detail(lines.join("\n"))
        .hint("SELECT * FROM postgres_r.assess() says which, why, and what to do.")
    })
}

fn copying(name: &str, overwrites: bool) -> Error {
    let then = "It takes clients when that is done, by itself.";
    let kept = "What it holds until then is kept as a database of another name.";
    Error::new(
        PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        format!("database \"{name}\" is being copied from another node"),
    )
    .detail(if overwrites { format!("{then} {kept}") } else { then.to_owned() })
    .hint("The log of gcs says how far it is.")
}

/// Inside a transaction.
fn not_empty(name: &str, group: &str, table: &str) -> Error {
    let error =
        Error::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, format!("database \"{name}\" is not empty"));
    let hint = format!(
        "Drop the database here, create it anew with its extension, and start its replication: the group fills it. \
         To keep it under another name, run ALTER DATABASE {} START REPLICATION IN GROUP {} WITH (OVERWRITE).",
        quoted(name),
        quoted(group)
    );
    let contains = format!("It contains {table}, and group \"{group}\" has contents for it already.");
    match past::last_group() {
        Some(past) => {
            error.detail(format!("{contains} {past} What was written here since then, the group does not know.")).hint(hint)
        }
        None => error.detail(contains).hint(hint),
    }
}

/// A user's relation, or large object, if there is any: made after initdb and no extension's.
const FIRST_RELATION: &str = "
    (SELECT format('%s %I.%I', CASE c.relkind WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence' ELSE 'table' END, n.nspname, c.relname)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'm', 'f', 'S', 'v') AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY c.oid LIMIT 1)
    UNION ALL (SELECT format('large object %s', min(oid)) FROM pg_catalog.pg_largeobject_metadata HAVING count(*) > 0) LIMIT 1";

/// By severity and topic: how many, and the first of them.
const FINDINGS: &str = "
    SELECT severity || ': ' || topic || ': ' || min(object) || CASE WHEN count(*) > 1 THEN ' and ' || count(*) - 1 || ' more' ELSE '' END
    FROM postgres_r.assess() WHERE severity <> 'needs'
    GROUP BY severity, topic ORDER BY min(array_position(ARRAY['blocks', 'refused', 'differs', 'slow'], severity)), topic LIMIT 12";

/// A transaction that was prepared in this database, if there is any.
const FIRST_PREPARED: &str = "
    SELECT format('%L', gid) FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database() ORDER BY 1 LIMIT 1";

pub(super) fn no_daemon(why: &str) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION, "could not reach this node's gcs")
        .detail(format!("Socket \"{}\": {why}.", guc::gcs_socket()))
        .hint("Start it with \"gcs run --config FILE\", and let postgres_r.gcs_socket name the socket in that file.")
}

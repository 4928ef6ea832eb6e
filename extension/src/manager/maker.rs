//! The maker: makes and drops databases on this node, as the group has decided by CREATE and DROP DATABASE (docs/adr/0068-databases.md). Connected to a
//! replicated database, the group's first, whose table `postgres_r.databases` says what is to be; started by the launcher when there may be
//! something to do.
//!
//! | the row says | what is found here | what is done |
//! |---|---|---|
//! | it is made, by this node | the provisional database | it gets its name |
//! | | the database, marked | its replication is started, as the group's first of that name; the row: it is ready |
//! | | neither, or it cannot be started | the row: it is dropped, and why |
//! | it is ready | no such database | it is made, and marked |
//! | | the database, marked | its replication is started |
//! | | another one of that name | nothing; the log says so |
//! | it is dropped | the database, replicated or marked | it is marked anew, its replication is stopped, it is dropped |
//! | whatever | a database that is marked as one that is to be dropped | the same, first: it is an earlier one of that name |
//!
//! Each step can be done again, and ends in a state that says which is next: whatever ends this process, or the server, another maker goes on. What has been
//! done is noted by its id in `postgres_r.databases_done`, of this node alone: nothing is done twice, whatever somebody does to the database later. What
//! could not be done is tried again after a pause.

use std::sync::atomic::Ordering;
use std::time::Duration;

use pgrx::PgSqlErrorCode as Code;
use postgres_r_protocol::platform::Exclusion;
use postgres_r_protocol::replica::Phase;
use postgres_r_protocol::statement::Wanted;
use postgres_r_protocol::tablespaces::Map;

use super::ask;
use crate::error::Error;
use crate::guc;
use crate::node::making::{Birth, DROPPING, MAKING, note, provisional, written};
use crate::node::{self, DatabaseArea, wake};
use crate::pg::query::{self, literal};
use crate::pg::{catalog, interrupt, latch, log, making, process, worker, xact};
use crate::{session, summons};

/// The pause before what could not be done is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// How long a lock may take.
const LOCK_TIMEOUT: &str = "2s";

pub fn main(number: u64) {
    let Some(node) = node::get() else { return };
    let Some(area) = node.databases.get(number as usize) else { return };
    let Some(place) = process::me() else { return };
    if !area.is_in_use() || !area.entry.making.maker.claim(place) {
        return;
    }
    process::on_exit(move || {
        area.entry.making.maker.set(None);
        wake(&node.registry.launcher);
    });
    // What it writes into the group's table is the group's.
    session::become_leaser();
    worker::connect(area.oid());
    for (name, value) in [
        ("lock_timeout", LOCK_TIMEOUT),
        // What it has noted must survive a crash, if what it does next does.
        ("synchronous_commit", "on"),
        ("postgres_r.read_level", "eventual"),
        ("postgres_r.commit_level", "here"),
        ("application_name", "postgres_r maker"),
    ] {
        worker::set_setting(name, value);
    }
    summons::listen();
    Maker { area, complaint: None }.run();
}

struct Maker {
    area: &'static DatabaseArea,
    /// What was last logged, so that it is said once.
    complaint: Option<String>,
}

/// A row of the table that this node has not done.
struct Row {
    name: String,
    id: String,
    state: String,
    node: String,
    provisional: String,
    definition: String,
    is_plain: bool,
}

/// What there is of a database on this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Replicated,
    /// It says of itself that it is made for the group.
    Marked,
    /// It says of itself that it is to be dropped, an earlier one of its name.
    Leftover,
    /// Somebody else has made it.
    Foreign,
}

/// What a row asks of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Did {
    All,
    /// It is for another node to go on.
    Nothing,
    /// The row has been changed, and says something else now.
    Again,
}

impl Maker {
    fn run(&mut self) {
        let making = &self.area.entry.making;
        while self.area.is_in_use() {
            interrupt::forget_cancel();
            interrupt::check();
            interrupt::reload_config();
            making.is_due.store(false, Ordering::SeqCst);
            let is_left = match self.look() {
                Ok(is_left) => is_left,
                Err(error) => self.complain(&error),
            };
            making.looked();
            self.area.conditions.made();
            if making.is_due.load(Ordering::SeqCst) {
                continue;
            }
            if !is_left {
                return;
            }
            worker::report_activity(None);
            worker::report_statistics(false);
            latch::wait(Some(AGAIN_AFTER));
        }
    }

    /// Says once why something could not be done; it is left to be done.
    fn complain(&mut self, error: &Error) -> bool {
        if self.complaint.as_deref() != Some(&error.message) {
            self.complaint = Some(error.message.clone());
            log::warn(
                format!("could not make or drop a database of the group: {}", error.message),
                error.detail.clone(),
                Some("It is tried again until it can be done.".into()),
            );
        }
        true
    }

    /// Does what there is to be done. Whether something is left.
    fn look(&mut self) -> Result<bool, Error> {
        if !session::is_open_to_writers(self.area) {
            return Ok(true);
        }
        let mut is_left = false;
        for row in transaction(rows)? {
            worker::report_activity(Some("making or dropping a database of the group"));
            match self.carry_out(&row) {
                Ok(Did::All) => transaction(|| done(&row.id))?,
                Ok(Did::Nothing) => {}
                Ok(Did::Again) => self.area.entry.making.is_due.store(true, Ordering::SeqCst),
                Err(error) => is_left = self.complain(&error),
            }
        }
        drop_provisional()?;
        Ok(is_left)
    }

    fn carry_out(&self, row: &Row) -> Result<Did, Error> {
        if found(&row.name)? == Found::Leftover {
            remove(&row.name)?;
            return Ok(if row.state == "dropped" { Did::All } else { Did::Again });
        }
        match row.state.as_str() {
            "making" if row.node == written(self.area.replica.node()) => self.make_first(row),
            "ready" => self.make_as_elsewhere(row),
            "dropped" => drop(row),
            _ => Ok(Did::Nothing),
        }
    }

    /// This node makes the database first; the others go by what it has made.
    fn make_first(&self, row: &Row) -> Result<Did, Error> {
        match found(&row.name)? {
            Found::Replicated => {}
            Found::Marked => {
                if let Err(error) = self.start(&row.name, Birth::First) {
                    return undo(row, error);
                }
            }
            Found::Nothing if found(&row.provisional)? == Found::Marked => {
                if let Err(error) = transaction(|| making::rename(&row.provisional, &row.name)) {
                    return undo(row, error);
                }
                return Ok(Did::Again);
            }
            Found::Nothing => return undo(row, gone(row)),
            Found::Leftover => return Ok(Did::Again),
            Found::Foreign => return undo(row, foreign(row)),
        }
        transaction(|| unmark(&row.name))?;
        let is_plain = self.is_plain(&row.name)?;
        let is_ready = transaction(|| {
            note();
            query::text(&format!(
                "UPDATE postgres_r.databases SET state = 'ready', is_plain = {is_plain}, provisional = NULL
                 WHERE id = '{}' AND state = 'making' RETURNING id",
                row.id
            ))
        })?;
        Ok(if is_ready.is_some() { Did::All } else { Did::Again })
    }

    fn make_as_elsewhere(&self, row: &Row) -> Result<Did, Error> {
        match found(&row.name)? {
            Found::Foreign => return Err(foreign(row)),
            Found::Nothing => {
                let tablespaces = Map::read(&guc::tablespaces());
                transaction(|| making::make(&row.definition, &tablespaces, MAKING))?;
                return Ok(Did::Again);
            }
            Found::Marked => self.start(&row.name, if row.is_plain { Birth::Same } else { Birth::Empty })?,
            Found::Leftover => return Ok(Did::Again),
            Found::Replicated => {}
        }
        transaction(|| unmark(&row.name))?;
        Ok(Did::All)
    }

    fn start(&self, name: &str, birth: Birth) -> Result<(), Error> {
        let wanted = Wanted::Start { group: self.area.replica.group.get(), overwrite: false };
        ask::ask_for(name, (&wanted, birth), false).map(|_| ())
    }

    /// Whether a database that this node has made first holds nothing. Where that is not known any more, it counts as one that does: then it is copied.
    fn is_plain(&self, name: &str) -> Result<bool, Error> {
        Ok(area_of(name)?.is_some_and(|area| area.entry.making.is_plain.load(Ordering::SeqCst)))
    }
}

fn transaction<R>(work: impl FnOnce() -> R) -> Result<R, Error> {
    let result = xact::transaction(work).map_err(Error::from);
    if let Some(slot) = node::my_slot() {
        slot.victim.clear();
    }
    process::forget_summons();
    interrupt::forget_cancel();
    interrupt::check();
    result
}

fn rows() -> Vec<Row> {
    let rows = query::rows(
        "SELECT d.name, d.id, d.state, d.node, d.provisional, d.definition, d.is_plain FROM postgres_r.databases d
         WHERE NOT EXISTS (SELECT FROM postgres_r.databases_done e WHERE e.id = d.id) ORDER BY d.name",
    );
    let read = |row: query::Row| {
        let [name, id, state, node, provisional, definition, is_plain] =
            <[_; 7]>::try_from(row).ok()?.map(Option::unwrap_or_default);
        Some(Row { name, id, state, node, provisional, definition, is_plain: is_plain == "t" })
    };
    rows.into_iter().filter_map(read).collect()
}

fn done(id: &str) {
    query::first_row(&format!("INSERT INTO postgres_r.databases_done VALUES ('{id}') ON CONFLICT DO NOTHING"));
}

/// What this node could not make is not made at all: no other node has begun. But what may be well in a moment.
fn undo(row: &Row, error: Error) -> Result<Did, Error> {
    let is_passing = [
        Code::ERRCODE_READ_ONLY_SQL_TRANSACTION,
        Code::ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
        Code::ERRCODE_QUERY_CANCELED,
        Code::ERRCODE_LOCK_NOT_AVAILABLE,
        Code::ERRCODE_CANNOT_CONNECT_NOW,
    ];
    if is_passing.contains(&error.code) {
        return Err(error);
    }
    let said = [Some(format!("{}.", error.message)), error.detail].into_iter().flatten().collect::<Vec<_>>().join(" ");
    transaction(|| {
        note();
        query::first_row(&format!(
            "UPDATE postgres_r.databases SET state = 'dropped', reason = {} WHERE id = '{}' AND state = 'making'",
            literal(&said),
            row.id
        ));
    })?;
    Ok(Did::Again)
}

/// Drops the database, if it is the group's.
fn drop(row: &Row) -> Result<Did, Error> {
    if !matches!(found(&row.name)?, Found::Nothing | Found::Foreign) {
        remove(&row.name)?;
    }
    Ok(Did::All)
}

/// From the mark on it is known that this database is to go, whatever the table comes to say of its name.
fn remove(name: &str) -> Result<(), Error> {
    transaction(|| making::mark(name, Some(DROPPING)))?;
    if area_of(name)?.is_some() {
        stop(name)?;
    }
    transaction(|| making::drop(name))
}

/// What is prepared in it goes with it. Else the group must hear of it: its name would not be free before.
fn stop(name: &str) -> Result<(), Error> {
    let ask = |force| ask::ask(name, &Wanted::Stop { force }, false).map(|_| ());
    match ask(false) {
        Err(error) if error.code == Code::ERRCODE_OBJECT_IN_USE && area_of(name)?.is_some_and(is_writable) => ask(true),
        other => other,
    }
}

fn is_writable(area: &'static DatabaseArea) -> bool {
    area.replica.is_writable()
}

/// Drops what statements have made under a provisional name and then given up. A statement that is still at it holds the
/// database; once it has let go, a row speaks of it, or nobody will.
fn drop_provisional() -> Result<(), Error> {
    let names = transaction(|| {
        let found = query::rows(&format!(
            "SELECT d.datname FROM pg_catalog.pg_database d
             WHERE pg_catalog.starts_with(d.datname::text, '{}') AND pg_catalog.shobj_description(d.oid, 'pg_database') = '{MAKING}'",
            provisional(process::my_database())
        ));
        found.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect::<Vec<_>>()
    })?;
    for name in &names {
        transaction(|| {
            let is_wanted = || {
                let name = literal(name);
                query::text(&format!(
                    "SELECT name FROM postgres_r.databases WHERE provisional = {name} AND state = 'making'"
                ))
                .is_some()
            };
            if making::take(name) && !is_wanted() {
                making::drop(name);
            }
        })?;
    }
    Ok(())
}

fn area_of(name: &str) -> Result<Option<&'static DatabaseArea>, Error> {
    let Some(node) = node::get() else { return Ok(None) };
    let oid = transaction(|| catalog::database_oid(name))?;
    Ok(oid.and_then(|oid| node.table.shared(|| node.database(oid))))
}

fn found(name: &str) -> Result<Found, Error> {
    let phase = area_of(name)?.map(DatabaseArea::phase);
    if phase == Some(Phase::Starting) {
        return Err(being_started(name));
    }
    transaction(|| match mark_of(name).as_deref() {
        Some(DROPPING) => Found::Leftover,
        _ if phase.is_some() => Found::Replicated,
        Some(MAKING) => Found::Marked,
        _ if catalog::database_oid(name).is_none() => Found::Nothing,
        _ => Found::Foreign,
    })
}

fn mark_of(name: &str) -> Option<String> {
    let name = literal(name);
    query::text(&format!(
        "SELECT pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database WHERE datname = {name}"
    ))
}

fn unmark(name: &str) {
    if mark_of(name).as_deref() == Some(MAKING) {
        making::mark(name, None);
    }
}

/// An earlier maker has asked for it, or somebody else.
fn being_started(name: &str) -> Error {
    Error::new(Code::ERRCODE_LOCK_NOT_AVAILABLE, format!("replication of database \"{name}\" is being started"))
}

fn gone(row: &Row) -> Error {
    Error::new(Code::ERRCODE_INVALID_CATALOG_NAME, format!("database \"{}\" was dropped while it was being made", row.name))
}

fn foreign(row: &Row) -> Error {
    Error::new(Code::ERRCODE_DUPLICATE_DATABASE, format!("database \"{}\" already exists, and is not the group's", row.name))
        .detail("Somebody has made it on this node. Rename or drop it, and the group's is made in its place.")
}

//! CREATE and DROP DATABASE in the group, with `postgres_r.replicate_databases` (docs/adr/0068-databases.md).
//!
//! What the group has of it is a row of `postgres_r.databases`, in its first database, which travels and is certified like any other row. Each
//! node's maker (`crate::manager::maker`) does what the rows say. A session asks, and waits until its own node has done it:
//!
//! ```text
//! CREATE  1. PostgreSQL runs the statement, for a database of a name that nobody knows        here only
//!         2. the row: it is being made, by this node; tried on the other nodes first           ordered
//!            the maker gives the database its name, and starts its replication; the row: it is ready; others make theirs
//! DROP    1. the row: it is dropped; tried on the other nodes first                            ordered
//!            each node's maker stops its replication, and drops it
//! ```
//!
//! Whatever PostgreSQL has to say against it, it says in the first step, where nothing has happened yet. A database that the first step has made, and
//! no row speaks of, the maker drops.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use pgrx::PgSqlErrorCode as Code;
use postgres_r_protocol::capture::order::Command;
use postgres_r_protocol::platform::Exclusion;
use postgres_r_protocol::replica::Phase;

use super::{global, item, transaction};
use crate::backend::writable;
use crate::error::Error;
use crate::guc;
use crate::node::{self, DatabaseArea, making as noted};
use crate::pg::making::{self, Statement};
use crate::pg::query::{self, literal};
use crate::pg::utility::{Stage, Utility};
use crate::pg::{catalog, clock, interrupt, latch, names, process, role, trigger, two_phase};
use crate::session;

/// Should nobody say that the maker has looked.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// How long sessions that use a database are waited for, and how often it is looked whether they do.
const SESSIONS_LEAVE_WITHIN: Duration = Duration::from_secs(5);
const LOOK_FOR_SESSIONS: Duration = Duration::from_millis(100);

/// What is shared, for messages.
const WHAT: &str = "its databases";

struct Made {
    name: String,
    provisional: String,
}

thread_local! {
    /// What the CREATE DATABASE that runs now makes.
    static MADE: RefCell<Option<Made>> = const { RefCell::new(None) };
    /// There is a database of a provisional name that no row speaks of.
    static IS_LEFT: Cell<bool> = const { Cell::new(false) };
}

/// Before every utility statement. Raises, does all that is to be done, or has PostgreSQL begin.
pub fn before(utility: &mut Utility) {
    MADE.set(None);
    if !guc::replicate_databases() || session::is_remote_backend() {
        return;
    }
    match utility.about_databases() {
        Some(Statement::Create { name }) => create(utility, name),
        Some(Statement::Drop { name, force }) => drop(utility, &name, force),
        Some(Statement::Alter { names }) => names.iter().for_each(|name| refuse_from_outside(utility, name)),
        None => {}
    }
}

/// The end of every transaction.
pub fn at_end() {
    if IS_LEFT.get() && !MADE.with_borrow(Option::is_some) {
        IS_LEFT.set(false);
        if let Some(area) = session::database() {
            area.is_to_make();
        }
    }
}

fn create(utility: &mut Utility, name: String) {
    let tag = utility.tag();
    let Some(area) = session::database().filter(|_| session::replicated()) else { refuse_outside(&tag) };
    wait_for_drop(area, &name);
    // Whatever PostgreSQL refuses by itself, it is to refuse in its own words.
    if catalog::database_oid(&name).is_some() {
        return;
    }
    two_phase::not_in_block(utility.is_top_level(), c"CREATE DATABASE");
    global::require_first(&tag, WHAT);
    writable::ensure();
    let provisional = format!("{}{}_{}", noted::provisional(process::my_database()), process::my_pid(), clock::now());
    utility.make_under(&provisional);
    utility.stage = Stage::Made;
    MADE.set(Some(Made { name, provisional }));
}

/// PostgreSQL has made the database, in the transaction at hand.
pub fn created() {
    let made = MADE.take();
    let (Some(Made { name, provisional }), Some(area)) = (made, session::database()) else { return };
    making::mark(&provisional, Some(noted::MAKING));
    let Some(definition) = making::definition_of(&provisional, &name) else { return };
    IS_LEFT.set(true);
    MADE.set(Some(Made { name: name.clone(), provisional: provisional.clone() }));
    making::commit_and_go_on();
    MADE.set(None);
    if !making::hold(&provisional) {
        lost(&name).raise();
    }
    may_be_made(&name, &definition);
    let id = query::text(&format!(
        "INSERT INTO postgres_r.databases AS d (name, id, state, node, provisional, definition)
         VALUES ({0}, pg_catalog.gen_random_uuid(), 'making', '{1}', {2}, {3})
         ON CONFLICT (name) DO UPDATE SET id = excluded.id, state = excluded.state, node = excluded.node, provisional = excluded.provisional,
                                          definition = excluded.definition, is_plain = false, reason = NULL
         WHERE d.state = 'dropped' RETURNING id",
        literal(&name),
        noted::written(area.replica.node()),
        literal(&provisional),
        literal(&definition)
    ));
    let Some(id) = id else { exists(&name).raise() };
    try_elsewhere(&format!("check_new_database({}, {})", literal(&name), literal(&definition)));
    order_and_wait(area, &name, &id, true);
}

/// The database is the group's, or was to be.
fn drop(utility: &mut Utility, name: &str, force: bool) {
    let tag = utility.tag();
    let oid = catalog::database_oid(name);
    let is_replicated = oid.and_then(replicated).is_some();
    if !session::replicated() {
        if is_replicated {
            refuse_outside(&tag);
        }
        return;
    }
    let is_allowed = match oid {
        Some(oid) => oid != process::my_database() && catalog::may_replicate(catalog::current_role(), oid),
        // It is still to be made here, and whose it is to be does not count yet.
        None => role::is_superuser(),
    };
    if !is_allowed || !is_replicated && !is_of_group(name) {
        return;
    }
    two_phase::not_in_block(utility.is_top_level(), c"DROP DATABASE");
    global::require_first(&tag, WHAT);
    writable::ensure();
    let Some(area) = session::database() else { return };
    may_be_dropped(name, force);
    let id = query::text(&format!(
        "INSERT INTO postgres_r.databases (name, id, state, node) VALUES ({}, pg_catalog.gen_random_uuid(), 'dropped', '{}')
         ON CONFLICT (name) DO UPDATE SET id = excluded.id, state = excluded.state, node = excluded.node, reason = NULL RETURNING id",
        literal(name),
        noted::written(area.replica.node())
    ));
    try_elsewhere(&format!("check_dropped_database({}, {force})", literal(name)));
    order_and_wait(area, name, &id.unwrap_or_default(), false);
    utility.has_been_done();
}

/// The other nodes try this before the transaction is ordered; where it is applied it does nothing.
fn try_elsewhere(call: &str) {
    let statement = item::item_of(&format!("SELECT postgres_r.{call}"));
    transaction::append_statement(Command(trigger::current_command()), &statement);
}

/// Commits, which is when the group hears of it, and waits until this node has done what the row says.
fn order_and_wait(area: &'static DatabaseArea, name: &str, id: &str, is_new: bool) {
    noted::note();
    making::commit_and_go_on();
    loop {
        let looks = area.entry.making.looks();
        let row = query::first_row(&format!(
            "SELECT EXISTS (SELECT FROM postgres_r.databases_done WHERE id = '{id}'),
                    (SELECT state FROM postgres_r.databases WHERE id = '{id}'), (SELECT reason FROM postgres_r.databases WHERE id = '{id}')"
        ));
        let [done, state, reason] = row.and_then(|row| <[_; 3]>::try_from(row).ok()).unwrap_or_default();
        match state.as_deref() {
            Some("dropped") if is_new && done.as_deref() == Some("t") => not_made(name, reason).raise(),
            Some(_) if done.as_deref() == Some("t") => return,
            Some(_) => {}
            // Another statement was ordered behind this one.
            None if is_new => not_made(name, None).raise(),
            None => return,
        }
        interrupt::check();
        area.conditions.wait_for_made(LOOK_AROUND, || area.entry.making.looks() != looks);
    }
}

/// An earlier database of this name is to be gone here, if the group has dropped it. Waited for as long as a rehearsal may take.
fn wait_for_drop(area: &DatabaseArea, name: &str) {
    let sql = format!(
        "SELECT d.id FROM postgres_r.databases d WHERE d.name = {} AND d.state = 'dropped'
             AND NOT EXISTS (SELECT FROM postgres_r.databases_done e WHERE e.id = d.id)",
        literal(name)
    );
    let deadline = Instant::now() + guc::rehearsal_timeout();
    loop {
        let looks = area.entry.making.looks();
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || query::text(&sql).is_none() {
            return;
        }
        interrupt::check();
        area.conditions.wait_for_made(left.min(LOOK_AROUND), || area.entry.making.looks() != looks);
    }
}

/// Raises an error if this node could not make the database.
pub fn may_be_made(name: &str, definition: &str) {
    global::require_first("CREATE DATABASE", WHAT);
    if let Some(area) = session::database() {
        wait_for_drop(area, name);
    }
    if catalog::database_oid(name).is_some() {
        insist(exists(name));
    }
    if node::get().is_some_and(|node| node.table.shared(|| node.free_entry().is_none())) {
        let message = "too many databases of the server are replicated";
        insist(
            Error::new(Code::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, message)
                .detail(format!("The limit is {}.", guc::max_databases()))
                .hint("Raise postgres_r.max_databases and restart the server."),
        );
    }
    if let Some(locale) = making::check(definition) {
        let message = format!("invalid locale name: \"{locale}\"");
        insist(Error::new(Code::ERRCODE_WRONG_OBJECT_TYPE, message).hint("Every node needs the locale."));
    }
}

/// Raises an error if this node is not to drop the database.
pub fn may_be_dropped(name: &str, force: bool) {
    global::require_first("DROP DATABASE", WHAT);
    // As PostgreSQL itself does, for those who are just leaving. A rehearsal has no more time than that.
    let patience = if session::is_rehearser() { guc::rehearsal_timeout() / 2 } else { SESSIONS_LEAVE_WITHIN };
    let deadline = Instant::now() + patience;
    loop {
        let Some(users) = Users::of(name) else { return };
        let left = deadline.saturating_duration_since(Instant::now());
        if force || users.sessions == "0" || left.is_zero() {
            return users.refuse(name, force);
        }
        interrupt::check();
        latch::wait(Some(left.min(LOOK_FOR_SESSIONS)));
    }
}

/// Who uses a database of this server, and whether it is a template; numbers as text.
struct Users {
    is_template: bool,
    sessions: String,
    subscriptions: String,
    slots: String,
}

impl Users {
    /// None if there is no such database.
    fn of(name: &str) -> Option<Users> {
        // Else it would be as it was when this transaction first looked.
        query::first_row("SELECT pg_catalog.pg_stat_clear_snapshot()");
        let row = query::first_row(&format!(
            "SELECT d.datistemplate,
                    (SELECT count(*) FROM pg_catalog.pg_stat_activity a WHERE a.datid = d.oid AND a.backend_type = 'client backend'),
                    (SELECT count(*) FROM pg_catalog.pg_subscription s WHERE s.subdbid = d.oid),
                    (SELECT count(*) FROM pg_catalog.pg_replication_slots r WHERE r.database = d.datname AND r.active)
             FROM pg_catalog.pg_database d WHERE d.datname = {}",
            literal(name)
        ))?;
        let [is_template, sessions, subscriptions, slots] = <[_; 4]>::try_from(row).ok()?.map(Option::unwrap_or_default);
        Some(Users { is_template: is_template == "t", sessions, subscriptions, slots })
    }

    /// Raises what PostgreSQL would say.
    fn refuse(&self, name: &str, force: bool) {
        let in_use = |message: String| Error::new(Code::ERRCODE_OBJECT_IN_USE, message);
        if self.is_template {
            insist(Error::new(Code::ERRCODE_WRONG_OBJECT_TYPE, "cannot drop a template database"));
        }
        if self.slots != "0" {
            insist(in_use(format!("database \"{name}\" is used by an active logical replication slot")));
        }
        if self.sessions != "0" && !force {
            insist(
                in_use(format!("database \"{name}\" is being accessed by other users"))
                    .detail(format!("There are {} other sessions using the database.", self.sessions))
                    .hint("End them, or use WITH (FORCE)."),
            );
        }
        if self.subscriptions != "0" {
            let error = in_use(format!("database \"{name}\" is being used by logical replication subscription"));
            insist(error.detail(format!("There are {} subscriptions.", self.subscriptions)));
        }
    }
}

/// Raises it; where it is raised in a rehearsal, the statement fails.
fn insist(error: Error) -> ! {
    noted::insist();
    error.raise()
}

/// Its entry, if it is replicated here.
fn replicated(database: names::Oid) -> Option<&'static DatabaseArea> {
    let node = node::get()?;
    node.table.shared(|| node.database(database).filter(|area| area.phase() != Phase::Off))
}

/// Whether the group has made it, or is about to.
fn is_of_group(name: &str) -> bool {
    query::text(&format!("SELECT state FROM postgres_r.databases WHERE name = {} AND state <> 'dropped'", literal(name)))
        .is_some()
}

fn first_name() -> Option<String> {
    let (node, first) = (node::get()?, session::first_database()?);
    Some(node.table.shared(|| first.replica.name.get()))
}

/// Raises: what is run here reaches no other node.
fn refuse_outside(tag: &str) -> ! {
    let error = Error::new(Code::ERRCODE_FEATURE_NOT_SUPPORTED, format!("{tag} is not supported in a database that is not replicated"))
        .detail("With postgres_r.replicate_databases databases are made and dropped on all nodes, in the order of the group's first database.");
    let off = "set postgres_r.replicate_databases to off to run it on this server alone.";
    match first_name() {
        Some(first) => error.hint(format!("Run it in database \"{first}\", or {off}")),
        None => error.hint(format!("No database of this server is replicated: start the replication of one, or {off}")),
    }
    .raise()
}

/// Raises if the database is replicated and another than the current one: its own order takes such statements.
fn refuse_from_outside(utility: &Utility, name: &str) {
    let other = catalog::database_oid(name).filter(|&oid| oid != process::my_database());
    if other.and_then(replicated).is_none() {
        return;
    }
    let message = format!("{} about another database of the group is not supported", utility.tag());
    Error::new(Code::ERRCODE_FEATURE_NOT_SUPPORTED, message)
        .detail("It would reach this node alone: the group changes what it has noted of a database in the order of that database.")
        .hint(format!("Run it in database \"{name}\", or set postgres_r.replicate_databases to off to run it on this node alone."))
        .raise();
}

/// As PostgreSQL says it.
fn exists(name: &str) -> Error {
    Error::new(Code::ERRCODE_DUPLICATE_DATABASE, format!("database \"{name}\" already exists"))
}

fn not_made(name: &str, reason: Option<String>) -> Error {
    let error = Error::new(Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, format!("database \"{name}\" could not be made"));
    match reason {
        Some(reason) => error.detail(reason).hint("No node has it. Try again when the reason is gone."),
        None => error.detail("It was dropped at the same time."),
    }
}

fn lost(name: &str) -> Error {
    Error::new(Code::ERRCODE_OBJECT_IN_USE, format!("database \"{name}\" was dropped while it was being made"))
        .hint("Try again.")
}

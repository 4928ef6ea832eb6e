//! Statements about replicated databases as a whole, from whichever database of the server they are sent.
//!
//! | statement | what becomes of it |
//! |---|---|
//! | DROP DATABASE, WITH (FORCE) too | refused: the group would go on counting on this node, and whoever drops it here may not know that it is replicated |
//! | ALTER DATABASE ... RENAME TO | refused: the group knows a database by its name. But where gcs puts a copy in the place of one that is out of service |
//! | CREATE DATABASE ... TEMPLATE it, ALTER DATABASE ... SET TABLESPACE | as on any server, if no client is connected to it: our own processes leave it until the statement is over |
//! | OWNER TO, SET, CONNECTION LIMIT, ALLOW_CONNECTIONS, IS_TEMPLATE, GRANT | as on any server; our own processes connect as superusers, whatever clients may |
//!
//! DROP is caught by the object access hook: there PostgreSQL has found that the role may drop the database, and has locked it against every
//! process that would connect to it. A START that is under way at that time comes too late, since its manager cannot connect, and whoever looks
//! for the manager finds the database gone (`manager::launcher`).
//!
//! Where gcs has made a copy, it renames two databases and moves the replication origin, in one transaction. Before that is committed nobody may
//! connect who would take the copy for an ordinary database; behind it a scout finds out by the origins which databases are replicated
//! (`manager::scout`). So the session that renames counts as *replacing*, and clients wait until nobody is, and the scout has been.
//!
//! A database that is to be copied or moved is *lent*: while its count is not zero, its manager and remote backends end, and the launcher starts
//! none. A new one that was on its way waits for PostgreSQL's lock on the database. The transaction's end gives it back, whichever way it ends.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;
use postgres_r_protocol::platform::Exclusion;

use crate::error::Error;
use crate::guc;
use crate::node::{self, DatabaseArea, wake};
use crate::pg::access::{Happened, Object};
use crate::pg::clock;
use crate::pg::database::{Deed, quoted};
use crate::pg::utility::Utility;
use crate::pg::xact::{self, Event};

thread_local! {
    /// The database that this transaction has borrowed.
    static BORROWED: Cell<Option<&'static DatabaseArea>> = const { Cell::new(None) };
    /// This transaction gives a database's place to another.
    static REPLACES: Cell<bool> = const { Cell::new(false) };
}

/// Before every utility statement.
pub fn before_statement(utility: &Utility) {
    let Some(about) = utility.about_database() else { return };
    let Some(area) = replicated(about.database) else { return };
    // Whatever PostgreSQL refuses by itself, it is to refuse in its own words.
    if !about.is_allowed() {
        return;
    }
    match about.deed {
        Deed::Rename if is_replaced(area) => {
            borrow(area);
            replace();
        }
        Deed::Rename => in_use(area, "rename").raise(),
        Deed::Copy | Deed::Move if !xact::in_block() => borrow(area),
        Deed::Copy | Deed::Move => {}
    }
}

/// From the object access hook, in whatever process.
pub fn on_object(happened: Happened, object: Object) {
    let Some(area) = object.database().and_then(replicated) else { return };
    // One whose place was given to another is known for a moment longer than it is replicated.
    if happened == Happened::Dropped && !is_replaced(area) {
        in_use(area, "drop").raise();
    }
}

/// Told of every transaction's end.
pub fn on_end(event: Event) {
    if matches!(event, Event::Commit | Event::Abort)
        && let Some(area) = BORROWED.take()
    {
        // Whoever writes now waits for the manager to be back, as for any moment without the group.
        area.replica.unwritable_since.store(clock::now(), Ordering::SeqCst);
        area.replica.lent.fetch_sub(1, Ordering::SeqCst);
        if let Some(node) = node::get() {
            if REPLACES.take() {
                node.registry.adopted.store(false, Ordering::SeqCst);
                node.registry.replacing.fetch_sub(1, Ordering::SeqCst);
            }
            wake(&node.registry.launcher);
        }
    }
}

/// This is gcs, which has made a copy.
fn is_replaced(area: &DatabaseArea) -> bool {
    guc::replace_database() && area.replica.copying.load(Ordering::SeqCst)
}

fn replace() {
    if let Some(node) = node::get().filter(|_| !REPLACES.replace(true)) {
        node.registry.replacing.fetch_add(1, Ordering::SeqCst);
    }
}

/// Its entry, if this database is replicated, or is being started or stopped.
fn replicated(database: Oid) -> Option<&'static DatabaseArea> {
    let node = node::get()?;
    node.table.shared(|| node.database(database))
}

fn borrow(area: &'static DatabaseArea) {
    if BORROWED.get().is_some() {
        return;
    }
    area.replica.lent.fetch_add(1, Ordering::SeqCst);
    BORROWED.set(Some(area));
    area.at().wake_manager();
    area.wake_helpers();
}

fn in_use(area: &DatabaseArea, what: &str) -> Error {
    let (name, group) = (area.replica.name.get(), area.replica.group.get());
    Error::new(PgSqlErrorCode::ERRCODE_OBJECT_IN_USE, format!("cannot {what} database \"{name}\": it is replicated"))
        .detail(format!("On this node it is a part of group \"{group}\"."))
        .hint(format!("Run ALTER DATABASE {} STOP REPLICATION first.", quoted(&name)))
}

//! What this process is to replication: which part it plays, which database it is in, and what that database lets it do.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gcs_writeset::Position;
use pgrx::pg_sys;
use postgres_r_protocol::platform::Exclusion;
use postgres_r_protocol::replica::Phase;

use crate::error::{self, Error};
use crate::guc;
use crate::node::{self, DatabaseArea};
use crate::pg::{clock, process};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// A client's backend, or somebody else's background worker.
    Session,
    Remote,
    /// A remote backend whose transactions never commit.
    Rehearser,
    /// A verifier or a coordinator: what it writes is captured, and is a matter of query-only nodes too.
    Verification,
    /// The launcher, a scout or a manager: what it writes concerns this node alone.
    Housekeeping,
}

thread_local! {
    static PART: Cell<Part> = const { Cell::new(Part::Session) };
    static DEPENDS_ON_TYPES: Cell<bool> = const { Cell::new(true) };
    /// The table's version and the index of this process's database in it.
    static FOUND: Cell<(u64, Option<usize>)> = const { Cell::new((u64::MAX, None)) };
}

/// A background worker of ours says which it is.
pub fn become_remote_backend() {
    PART.set(Part::Remote);
}

pub fn become_rehearser() {
    PART.set(Part::Rehearser);
}

pub fn become_verification() {
    PART.set(Part::Verification);
}

/// It writes rows of built-in types only.
pub fn become_leaser() {
    DEPENDS_ON_TYPES.set(false);
}

/// Whether what this process writes depends on how types read. A leaser's rows do not: a transaction that alters a type may wait for it.
pub fn depends_on_types() -> bool {
    DEPENDS_ON_TYPES.get()
}

pub fn become_housekeeping() {
    PART.set(Part::Housekeeping);
}

/// What `act` writes concerns this node alone, whatever this process is.
pub fn alone<R>(act: impl FnOnce() -> R) -> R {
    struct Before(Part);
    impl Drop for Before {
        fn drop(&mut self) {
            PART.set(self.0);
        }
    }
    let _before = Before(PART.replace(Part::Housekeeping));
    act()
}

/// The entry of this process's database, if it is replicated.
pub fn database() -> Option<&'static DatabaseArea> {
    let node = node::get()?;
    let version = node.registry.table_version.load(Ordering::Acquire);
    let (known, index) = FOUND.get();
    if known == version {
        return index.map(|index| &node.databases[index]);
    }
    let oid = process::my_database();
    if oid == pg_sys::Oid::INVALID {
        return None;
    }
    let found = node
        .databases
        .iter()
        .find(|area| matches!(area.phase(), Phase::Active | Phase::Stopping | Phase::Failed) && area.oid() == oid);
    FOUND.set((version, found.map(|area| area.index)));
    found
}

/// The database that takes statements about what all databases of a server share: of those that are replicated here the one with the lowest number
/// in the group. Until each has heard of its group since the server was started, one that has not.
pub fn first_database() -> Option<&'static DatabaseArea> {
    // One that is being started counts from when it is.
    let is_replicated = |area: &&DatabaseArea| matches!(area.phase(), Phase::Active | Phase::Stopping | Phase::Failed);
    node::get()?.databases.iter().filter(is_replicated).min_by_key(|area| area.replica.number())
}

/// Whether the database is back at what it had shown before the server started, so that transactions may begin that write. It may be shown again
/// before ([`DatabaseArea`]'s `serving`), where a server was shut down in order and has no group.
pub fn is_open_to_writers(area: &DatabaseArea) -> bool {
    area.replica.serving.load(Ordering::Acquire) && area.is_caught_up()
}

/// Whether this process's database is replicated on this node and this is a process whose changes are the group's business
/// (a client backend, a background worker of someone's, a remote backend).
pub fn replicated() -> bool {
    PART.get() != Part::Housekeeping && database().is_some()
}

/// A remote backend: what it writes has been captured elsewhere.
pub fn is_remote_backend() -> bool {
    matches!(PART.get(), Part::Remote | Part::Rehearser)
}

pub fn is_rehearser() -> bool {
    PART.get() == Part::Rehearser
}

/// Whether this process's changes are to be captured.
pub fn is_captured() -> bool {
    replicated() && !is_remote_backend()
}

/// This process has released locks: who waits for writers to leave a table looks again. Raises nothing.
pub fn locks_released() {
    if let Some(area) = database().filter(|area| area.closed.waits_for_writers()) {
        node::wake(&area.replica.rehearser);
    }
}

/// The current transaction is over. If it gave the maker of databases something to do, that is told. Only atomics and latches.
pub fn tell_maker(is_committed: bool) {
    if node::making::take()
        && is_committed
        && let Some(area) = database()
    {
        area.is_to_make();
    }
}

/// The committed position of this process's database on this node.
pub fn committed() -> Position {
    database().map_or(Position::ZERO, |area| area.gate.committed())
}

/// This node's place in the group, from 0 to `bounds::GROUP_MEMBERS_MAX` - 1; fixed while it is a member.
pub fn ordinal() -> u16 {
    database().map_or(0, |area| area.replica.ordinal.load(Ordering::Relaxed) as u16)
}

/// Why the database's phase does not let a transaction be submitted, if so.
pub fn phase_error(area: &DatabaseArea) -> Option<Error> {
    match area.phase() {
        Phase::Active | Phase::Off => None,
        Phase::Starting => Some(catching_up(area)),
        Phase::Stopping => Some(error::stopping()),
        Phase::Failed => Some(error::out_of_service(&area.replica.reason.get())),
    }
}

/// Why this node's role does not let this process write, if so.
pub fn role_error(area: &DatabaseArea) -> Option<Error> {
    (area.replica.is_query_only() && PART.get() != Part::Verification).then(error::query_only)
}

/// For how long the database could not be written to.
fn unwritable_for(area: &DatabaseArea) -> Duration {
    if area.replica.is_writable() {
        return Duration::ZERO;
    }
    clock::since(area.replica.unwritable_since.load(Ordering::SeqCst))
}

/// Why nothing can be ordered in the group now.
pub fn group_error(area: &DatabaseArea) -> Error {
    if area.replica.greeted.load(Ordering::SeqCst) { no_quorum(area) } else { no_link(area) }
}

pub fn no_quorum(area: &DatabaseArea) -> Error {
    error::no_quorum(reached(area), unwritable_for(area))
}

pub fn no_link(area: &DatabaseArea) -> Error {
    error::no_link(&guc::gcs_socket(), &link_trouble(area), unwritable_for(area))
}

/// Why clients are not let in yet.
pub fn catching_up(area: &DatabaseArea) -> Error {
    const BACK: &str =
        "The server has crashed or was stopped at once: before it is back at what it had shown, it shows nothing.";
    let (replica, since) = (area.replica, unwritable_for(area));
    let next = "Use another node until then.";
    if replica.is_writable() {
        let (at, wanted) = (area.gate.committed(), replica.serve_from());
        let left = wanted.0.saturating_sub(at.0);
        let why = format!("It is at position {at} and must be at {wanted}: {left} to go.");
        return error::catching_up(&why, "Try again in a moment, or use another node.");
    }
    let why = if replica.greeted.load(Ordering::SeqCst) {
        error::no_majority(reached(area), since)
    } else {
        error::unreachable_gcs(&guc::gcs_socket(), &link_trouble(area), since)
    };
    error::catching_up(&format!("{why} {BACK}"), next)
}

fn reached(area: &DatabaseArea) -> (usize, usize) {
    node::get().map_or((0, 0), |node| node.table.shared(|| area.replica.reached()))
}

fn link_trouble(area: &DatabaseArea) -> String {
    node::get().map_or_else(String::new, |node| node.table.shared(|| area.replica.link_trouble.get()))
}

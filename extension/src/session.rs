//! What this process is to replication: which part it plays, which database it is in, and what that database lets it do.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use gcs_writeset::Position;
use postgres_r_protocol::replica::Phase;

use crate::error::{self, Error};
use crate::node::{self, DatabaseArea};
use crate::pg::process;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// A client's backend, or somebody else's background worker.
    Session,
    Remote,
    /// The launcher, a scout or a manager: what it writes concerns this node alone.
    Housekeeping,
}

thread_local! {
    static PART: Cell<Part> = const { Cell::new(Part::Session) };
    /// The table's version and the index of this process's database in it.
    static FOUND: Cell<(u64, Option<usize>)> = const { Cell::new((u64::MAX, None)) };
}

/// A background worker of ours says which it is.
pub fn become_remote_backend() {
    PART.set(Part::Remote);
}

pub fn become_housekeeping() {
    PART.set(Part::Housekeeping);
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
    let found = node
        .databases
        .iter()
        .find(|area| matches!(area.phase(), Phase::Active | Phase::Stopping | Phase::Failed) && area.oid() == oid);
    FOUND.set((version, found.map(|area| area.index)));
    found
}

/// Whether this process's database is replicated on this node and this is a process whose changes are the group's business
/// (a client backend, a background worker of someone's, a remote backend).
pub fn replicated() -> bool {
    PART.get() != Part::Housekeeping && database().is_some()
}

/// A remote backend: what it writes has been captured elsewhere.
pub fn is_remote_backend() -> bool {
    PART.get() == Part::Remote
}

/// Whether this process's changes are to be captured.
pub fn is_captured() -> bool {
    replicated() && !is_remote_backend()
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
        Phase::Starting => Some(error::catching_up()),
        Phase::Stopping => Some(error::stopping()),
        Phase::Failed => Some(error::out_of_service(&area.replica.reason.get())),
    }
}

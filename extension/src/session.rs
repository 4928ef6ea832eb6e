//! What this process is to replication: the questions that capture asks.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gcs_writeset::Position;

use crate::error::Error;
use crate::pg::{clock, process};
use crate::shmem::{self, DatabaseArea, Phase};
use crate::{capture, commit, error, guc};

/// How long a node may be without its group before its first write waits no more.
const WRITABLE_GRACE: Duration = Duration::from_millis(1500);

/// How long a statement that writes lets what is already ordered go first.
const LAG_WAIT_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// A client's backend, or somebody else's background worker.
    Session,
    Remote,
    /// The launcher or a manager: what it writes is nobody's business.
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
    let shared = shmem::get()?;
    let version = shared.server.table_version.load(Ordering::Acquire);
    let (known, index) = FOUND.get();
    if known == version {
        return index.map(|index| &shared.databases[index]);
    }
    let oid = process::my_database();
    let found = shared.databases.iter().find(|area| {
        matches!(area.state.phase(), Phase::Active | Phase::Stopping | Phase::Failed) && area.state.oid() == oid
    });
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

/// The committed position of this process's database on this node.
pub fn committed() -> Position {
    database().map_or(Position::ZERO, |area| area.gate.committed())
}

/// Called at a transaction's first write, and again before it is submitted. Raises 25006 when the group cannot take it, 57P03
/// while the node catches up.
pub fn ensure_writable() {
    let Some(area) = database() else { return };
    let state = area.state;
    if let Some(error) = commit::phase_error(area) {
        error.raise();
    }
    if let Some(error) = group_error(area) {
        error.raise();
    }
    if !state.serving.load(Ordering::Acquire) {
        error::catching_up().raise();
    }
    announce_base();
}

/// Keeps the horizon from passing the base of what the transaction has read or changed.
pub fn announce_base() {
    if let (Some(area), Some((slot, _))) = (database(), shmem::get().and_then(|shared| shared.my_slot())) {
        slot.announce_base(area.index, capture::base::current());
    }
}

/// Why the group can't be reached now. A moment without it is waited for.
pub fn group_error(area: &DatabaseArea) -> Option<Error> {
    let state = area.state;
    if state.is_writable() || becomes_writable(area) {
        return None;
    }
    if !state.attached.load(Ordering::Acquire) {
        return Some(error::no_link());
    }
    state.counters.refused_quorum.one();
    Some(error::no_quorum())
}

/// Lets what is already ordered go first: a transaction that takes locks now would lose to it, or hold it up. Without this a
/// node that has fallen behind a busy one works for nothing: all it does is lose, and losing slows its remote backends
/// down. Called before a statement that writes; interrupts are served. The wait is bounded, since nothing is wrong with trying.
pub fn let_ordered_go_first() {
    let Some(area) = database() else { return };
    let target = guc::apply_lag_target();
    if is_remote_backend() || area.gate.ahead() <= target {
        return;
    }
    let state = area.state;
    let started = Instant::now();
    state.lag_fell.wait_until(LAG_WAIT_MAX, || area.gate.ahead() <= target);
    state.counters.lag_waits.one();
    state.counters.lag_wait_us.time(started.elapsed());
}

/// A leader that changes or a daemon that starts again costs a moment, not an error; once that has passed, the error comes at
/// once. Interrupts are served.
fn becomes_writable(area: &DatabaseArea) -> bool {
    let state = area.state;
    let left = WRITABLE_GRACE.saturating_sub(clock::since(state.unwritable_since.load(Ordering::SeqCst)));
    !left.is_zero() && state.writable_changed.wait_until(left, || state.is_writable())
}

/// This node's place in the group, from 0 to `bounds::GROUP_MEMBERS_MAX` - 1; fixed while it is a member.
pub fn ordinal() -> u16 {
    database().map_or(0, |area| area.state.ordinal.load(Ordering::Relaxed) as u16)
}

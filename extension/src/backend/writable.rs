//! Whether this session may write now: asked at a transaction's first write, and again before it is submitted.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use postgres_r_protocol::replica::{Phase, Turnaway};

use super::capture::base;
use super::read_only::{self, WRITABLE_GRACE};
use crate::error::{self, Error};
use crate::guc;
use crate::node::{self, DatabaseArea};
use crate::pg::{clock, process, xact};
use crate::session;

/// How long a transaction lets what is already ordered go first, all its statements together.
const LAG_WAIT_MAX: Duration = Duration::from_millis(250);

/// How long a transaction waits for a slow member.
const THROTTLE_WAIT_MAX: Duration = Duration::from_secs(1);

thread_local! {
    /// The transaction, by when it began, that last waited for a slow member.
    static WAITED_IN: Cell<i64> = const { Cell::new(i64::MIN) };
    /// The transaction that last let others go first, and for how long it has. A statement that lost and is run again began when it began first.
    static LET_GO_FIRST: Cell<(i64, Duration)> = const { Cell::new((i64::MIN, Duration::ZERO)) };
}

/// How long a client waits to be let in.
const ADMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Raises 25006 when the group cannot take a write, or this node none, 57P03 while the node catches up.
pub fn ensure() {
    let Some(area) = session::database() else { return };
    let error = session::phase_error(area).or_else(|| session::role_error(area)).or_else(|| group_error(area));
    let error = error.or_else(|| (!session::is_open_to_writers(area)).then(|| session::catching_up(area)));
    if let Some(error) = error {
        read_only::note();
        error.raise();
    }
    base::announce();
}

/// Why the group can't be reached now. A moment without it is waited for.
pub fn group_error(area: &DatabaseArea) -> Option<Error> {
    let replica = area.replica;
    if replica.is_writable() || becomes_writable(area) {
        return None;
    }
    if replica.is_attached() {
        replica.counters.refused_quorum.one();
    }
    Some(session::group_error(area))
}

/// A leader that changes or a daemon that starts again costs a moment, not an error; once that has passed, the error comes at
/// once. Interrupts are served.
fn becomes_writable(area: &DatabaseArea) -> bool {
    let since = area.replica.unwritable_since.load(Ordering::SeqCst);
    let left = WRITABLE_GRACE.saturating_sub(clock::since(since));
    !left.is_zero() && area.conditions.wait_for_writable(left, || area.replica.is_writable())
}

/// Lets what is already ordered go first: a transaction that takes locks now would lose to it, or hold it up. Without this a
/// node that has fallen behind a busy one works for nothing: all it does is lose, and losing slows its remote backends
/// down. What waits for clients of this node itself does not count: it holds its locks already, and they are there to be waited for. Called before a statement that writes; interrupts are served. The wait is bounded, since nothing is wrong with trying: by transaction, not by
/// statement, so that a node that stays behind makes a client wait no longer because its transaction is a long one.
pub fn let_ordered_go_first() {
    let Some(area) = session::database() else { return };
    if session::is_remote_backend() {
        return;
    }
    wait_for_the_slowest(area);
    let target = guc::apply_lag_target();
    if area.gate.to_apply() <= target {
        return;
    }
    let (transaction, _) = xact::times();
    let waited =
        Some(LET_GO_FIRST.get()).filter(|(last, _)| *last == transaction).map_or(Duration::ZERO, |(_, waited)| waited);
    let left = LAG_WAIT_MAX.saturating_sub(waited);
    if left.is_zero() {
        return;
    }
    let counters = &area.replica.counters;
    let started = Instant::now();
    area.conditions.wait_for_lag(left, || area.gate.to_apply() <= target);
    LET_GO_FIRST.set((transaction, waited + started.elapsed()));
    counters.lag_waits.one();
    counters.lag_wait_us.time(started.elapsed());
}

/// Where the policy is to throttle: a member that is far behind gets time. Each transaction waits once, before it has written, and a second at the
/// most, so that a member that does not move at all makes writing slow, and does not stop it.
fn wait_for_the_slowest(area: &DatabaseArea) {
    let Some(most) = guc::throttled_above() else { return };
    let is_near = || area.replica.slowest_lag() <= most;
    let (transaction, _) = xact::times();
    if is_near() || xact::has_id() || WAITED_IN.replace(transaction) == transaction {
        return;
    }
    let counters = &area.replica.counters;
    let started = Instant::now();
    area.conditions.wait_for_members(THROTTLE_WAIT_MAX, is_near);
    counters.throttle_waits.one();
    counters.throttle_wait_us.time(started.elapsed());
}

/// Whether a client may come in; waits a bounded time while the node catches up. Called before the session has a database.
///
/// While the client waits, another database can take the place of the one it waits for: a copy has been made. The client gets into the one that has
/// the name then, so that is the one which must be open.
pub fn admit(database: &str) {
    let Some(node) = node::get() else { return };
    if process::in_recovery() {
        return;
    }
    let deadline = Instant::now() + ADMIT_TIMEOUT;
    let left = || deadline.saturating_duration_since(Instant::now());
    let adopted = || node.registry.knows_databases();
    let concerns = |area: &DatabaseArea| area.phase() != Phase::Off && area.replica.name.is(database);
    loop {
        if !adopted() && !node.registry.adopted_changed.wait_until(left(), adopted) {
            error::starting_up().raise_fatal();
        }
        let Some(area) = node.databases.iter().find(|area| concerns(area)) else { return };
        let open = || area.phase() != Phase::Active || !concerns(area) || area.replica.serving.load(Ordering::SeqCst);
        if !area.conditions.wait_for_serving(left(), open) {
            session::catching_up(area).raise_fatal();
        }
        if !adopted() || !concerns(area) {
            continue;
        }
        if area.replica.turnaway.load() != Turnaway::No {
            error::draining().raise_fatal();
        }
        if let (Phase::Failed, Some(error)) = (area.phase(), session::phase_error(area)) {
            error.raise_fatal();
        }
        return;
    }
}

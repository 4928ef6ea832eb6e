//! Remote backends, and how many of them are awake.
//!
//! Waking a process costs as much as applying a small writeset, so a remote backend that is awake takes position after position by
//! itself, and another is called only when it can help: when the ones awake all wait, or when the queue grows all the same.
//!
//! | from | to | by |
//! |---|---|---|
//! | `Absent` | `Applying` | the remote backend, when it starts |
//! | `Applying` | `Idle` | the same: nothing is queued |
//! | `Idle` | `Called` | whoever queued something, once |
//! | `Idle`, `Called` | `Applying` | the remote backend |
//! | `Applying` | `Waiting` | the same: it sleeps until a position is committed ([`before_waiting`]) |
//! | `Waiting` | `Applying` | the same ([`after_waiting`]) |
//! | any | `Absent` | the same, when it ends: what it had claimed goes back to the queue ([`leave`]) |
//!
//! Nothing that is queued may be left lying while all remote backends sleep. What is queued in the order of positions is taken by whoever is
//! done with an earlier one. But a position can also come back below those that are being applied: fetched for a backend that could not
//! finish, or given back by a remote backend that ended. Everybody who waits then waits for it. So whoever puts it back ([`queued_below`]),
//! and whoever begins to wait or ends ([`see_to_queue`]), makes sure that somebody is free for it: calls one that is idle, or else makes the
//! one with the highest position let go of it.
//!
//! A remote backend that waits for a lock is `Applying` all the same, and the lock may be held by a transaction that itself waits for the
//! position that came back. So it looks for itself, each time that it looks up who holds the lock ([`must_leave_lock`]).

use gcs_writeset::Position;

use crate::bounds::BACKLOG;
use crate::id::ProcNo;
use crate::platform::Platform;
use crate::replica::{At, Phase};
use crate::sync::Ordering;
use crate::worker::{Doing, Worker};

/// What a remote backend that waits is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It has come: what was waited for is committed.
    Over,
    /// Roll back, and give the position back to the queue.
    LetGo,
    /// Roll back, since an earlier position needs its locks; then take the same position again.
    GiveWay,
    /// Sleep until woken.
    Sleep,
}

/// Something was queued.
pub fn queued<P: Platform>(at: At<'_, P>) {
    let workers = &at.database.workers;
    let is_busy = |worker: &&Worker| matches!(worker.doing.load(), Doing::Called | Doing::Applying);
    let active = workers.iter().filter(is_busy).count() as u32;
    if active == 0 || at.database.gate.queued() > active * BACKLOG {
        call_one(at);
    }
}

/// A lower position than others was queued: if all remote backends wait behind it, the one with the highest has to let go.
pub fn queued_below<P: Platform>(at: At<'_, P>, position: Position) {
    if call_one(at) {
        return;
    }
    let is_behind = |worker: &&Worker| worker.doing.load() == Doing::Waiting && worker.position() > position;
    if let Some(worker) = at.database.workers.iter().filter(is_behind).max_by_key(|worker| worker.position()) {
        worker.let_go.store(true, Ordering::SeqCst);
        at.server.wake_holder(&worker.process);
    }
}

/// Calls a remote backend that sleeps. False if none does.
fn call_one<P: Platform>(at: At<'_, P>) -> bool {
    let called = at.database.workers.iter().find(|worker| worker.doing.swap(Doing::Idle, Doing::Called));
    if let Some(worker) = called {
        at.server.wake_holder(&worker.process);
    }
    called.is_some()
}

/// Makes sure that somebody is free for what is queued, even if all remote backends wait behind it.
pub fn see_to_queue<P: Platform>(at: At<'_, P>) {
    if let Some(position) = at.database.gate.lowest_queued() {
        queued_below(at, position);
    }
}

/// This remote backend is about to wait: another may do what is left. If there is none, and what is left goes first, this one may have to.
pub fn before_waiting<P: Platform>(at: At<'_, P>, me: &Worker) {
    me.doing.store(Doing::Waiting);
    see_to_queue(at);
}

pub fn after_waiting(me: &Worker) {
    me.doing.store(Doing::Applying);
}

/// Whether a remote backend that waits for a lock must roll back and give its position back to the queue. To be asked at each look-up of who
/// holds the lock.
///
/// Positions 1, 2 and 3: backends of this node wait to commit 1 and 2, and all remote backends wait for locks that 2 holds, in order to apply
/// what comes from 3 on. The backend of 1 is ended, and 1 is fetched and queued. Then 2 waits for 1, the remote backends for 2, and 1
/// for a remote backend, none of which is `Idle` or `Waiting`. (Simulator, seed 47.)
pub fn must_leave_lock<P: Platform>(at: At<'_, P>, me: &Worker) -> bool {
    if at.database.gate.lowest_queued().is_some_and(|position| position < me.position()) {
        before_waiting(at, me);
        after_waiting(me);
    }
    me.must_let_go()
}

/// Goes to sleep for want of work, unless something was queued before this remote backend was idle: whoever queued that did not call it.
/// False if it has to look again.
pub fn may_sleep<P: Platform>(at: At<'_, P>, me: &Worker) -> bool {
    me.doing.store(Doing::Idle);
    at.database.gate.queued() == 0 && is_wanted(at)
}

/// While replication is being stopped, what is queued is still applied.
pub fn is_wanted<P: Platform>(at: At<'_, P>) -> bool {
    let replica = &at.database.replica;
    matches!(replica.phase.load(), Phase::Active | Phase::Stopping) && !replica.is_lent()
}

/// Everything up to `committed` is there: whoever waited for it may start. Raises nothing.
pub fn wake_dependents<P: Platform>(at: At<'_, P>, committed: Position) {
    for worker in at.database.workers.iter() {
        let awaits = worker.awaits.load(Ordering::SeqCst);
        if awaits != 0 && awaits <= committed.0 {
            at.server.wake_holder(&worker.process);
        }
    }
}

/// What a remote backend is to do that has claimed a writeset which depends on a position: to be asked after [`before_waiting`] and each
/// time that it was woken.
pub fn wait_for_dependency<P: Platform>(at: At<'_, P>, me: &Worker, depends_on: Position) -> Wait {
    if at.database.gate.committed() >= depends_on {
        Wait::Over
    } else if me.must_let_go() || !is_wanted(at) {
        Wait::LetGo
    } else {
        Wait::Sleep
    }
}

/// Whether a remote backend that applies, or waits for its turn, must roll back.
pub fn must_roll_back<P: Platform>(at: At<'_, P>, me: &Worker, is_victim: bool) -> Option<Wait> {
    if me.must_let_go() || !is_wanted(at) {
        return Some(Wait::LetGo);
    }
    if is_victim {
        at.database.replica.counters.apply_gave_way.one();
        return Some(Wait::GiveWay);
    }
    None
}

/// What a remote backend is to do that has applied its writeset; as [`wait_for_dependency`].
pub fn wait_for_turn<P: Platform>(at: At<'_, P>, me: &Worker, position: Position, is_victim: bool) -> Wait {
    if at.database.gate.is_turn(position) {
        return Wait::Over;
    }
    must_roll_back(at, me, is_victim).unwrap_or(Wait::Sleep)
}

/// The remote backend ends, in whatever state: what it held goes back, and another is called for it.
pub fn leave<P: Platform>(at: At<'_, P>, me: &Worker) {
    let position = Position(me.position.swap(0, Ordering::SeqCst));
    if position != Position::ZERO {
        at.database.gate.unclaim(position);
    }
    me.awaits(Position::ZERO);
    me.doing.store(Doing::Absent);
    me.process.set(None);
    // What it gave back, and what it was called for and never took.
    see_to_queue(at);
    at.wake_manager();
}

/// A process that becomes a remote backend. False if the place is taken.
pub fn enter(me: &Worker, process: ProcNo) -> bool {
    me.process.claim(process)
}

#[cfg(test)]
mod tests {
    use gcs_writeset::NodeId;

    use super::*;
    use crate::gate::{Job, Storage};
    use crate::testing::Room;

    const STORAGE: Storage = Storage::File { chunks: 0, length: 1 };

    fn queue(room: &Room, position: u64) {
        let position = Position(position);
        room.gate().add_queued(&Job { position, depends_on: Position::ZERO, node: NodeId(1), storage: STORAGE });
    }

    #[test]
    fn a_lower_position_that_comes_back_is_not_left_lying_by_whoever_waits_for_a_lock() {
        let (room, remote) = (Room::new(), ProcNo(1));
        let (at, me) = (room.at(), room.worker());
        assert!(enter(me, remote));
        room.gate().add_orphan(Position(1), Position::ZERO, NodeId(1));
        queue(&room, 2);
        queue(&room, 3);
        me.doing.store(Doing::Applying);
        me.set_position(room.gate().claim(remote).unwrap().position);
        assert!(!must_leave_lock(at, me), "position 3 is queued, which comes later");
        assert_eq!(room.gate().take_orphans(false), [Position(1)]);
        assert!(room.gate().requeue(Position(1), STORAGE));
        queued_below(at, Position(1));
        assert!(must_leave_lock(at, me));
    }
}

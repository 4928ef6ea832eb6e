//! The turn: how a backend waits for it, and what happens when it is passed on.
//!
//! A transaction that waits here *is* committed in the group, whatever happens on this node. A backend that cannot wait any longer says so
//! to its client and leaves the position to the remote backends ([`crate::ending`]).

use std::time::Duration;

use gcs_writeset::Position;

use crate::gate::{Moved, Run};
use crate::id::{Lsn, Moment};
use crate::platform::{Planted, Platform, Wake};
use crate::pool;
use crate::replica::At;
use crate::slot::{Slot, State};
use crate::sync::Ordering;

/// Why a backend does not commit what the group has committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// It was told to let an earlier position through.
    Yielded,
    /// Its session is being ended.
    Ending,
    /// What goes first takes too long.
    TooLate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It is this position's turn.
    Turn,
    Unfinished(Unfinished),
    /// Sleep until woken, no longer than this.
    Sleep(Duration),
}

/// A backend's wait for the turn of its own transaction.
pub struct LocalTurn {
    position: Position,
    timeout: Duration,
    /// When anything was last done about what goes first, and how far that was.
    progress: (Moment, (Position, u64)),
}

impl LocalTurn {
    pub fn new<P: Platform>(at: At<'_, P>, slot: &Slot, position: Position, timeout: Duration, now: Moment) -> LocalTurn {
        slot.arrive_at_gate();
        LocalTurn { position, timeout, progress: (now, at.progress()) }
    }

    /// What to do now. To be asked at the beginning and after each sleep.
    pub fn step<P: Platform>(&mut self, at: At<'_, P>, slot: &Slot, is_ending: bool, now: Moment) -> Wait {
        if at.database.gate.is_turn(self.position) {
            return Wait::Turn;
        }
        if slot.state() == State::Yielded && !P::planted(Planted::YieldUnheard) {
            at.database.replica.counters.yielded.one();
            return Wait::Unfinished(Unfinished::Yielded);
        }
        if is_ending {
            return Wait::Unfinished(Unfinished::Ending);
        }
        let made = at.progress();
        if made != self.progress.1 {
            // While something is being done about what goes first, the wait for it counts from then.
            self.progress = (now, made);
        }
        let left = self.timeout.saturating_sub(now.since(self.progress.0));
        if left.is_zero() { Wait::Unfinished(Unfinished::TooLate) } else { Wait::Sleep(left) }
    }
}

/// Moves the committed position to `position`, and wakes whom that concerns. Called past the commit record: raises nothing.
pub fn pass<P: Platform>(at: At<'_, P>, position: Position, lsn: Lsn) {
    pass_run(at, Run::of(position), lsn);
}

/// The same for positions that are committed together.
pub fn pass_run<P: Platform>(at: At<'_, P>, run: Run, lsn: Lsn) {
    if let Some(moved) = at.database.gate.advance(run, lsn) {
        announce(at, moved);
    }
}

/// Wakes the next owner, remote backends whose dependency is there, and the manager if it waits for this. Raises nothing.
pub fn announce<P: Platform>(at: At<'_, P>, moved: Moved) {
    if let Some(owner) = moved.next_owner {
        at.server.wake(owner);
    }
    pool::wake_dependents(at, moved.committed);
    at.server.waker.ahead(at.database.index, at.database.gate.to_apply());
    let (replica, committed) = (&at.database.replica, at.database.gate.committed());
    if replica.readers.take(committed) {
        at.server.waker.committed(at.database.index);
    }
    let is_catching_up = !replica.serving.load(Ordering::SeqCst);
    if moved.room_wanted || replica.asked.is_reached(committed) || (is_catching_up && at.database.is_caught_up()) {
        at.wake_manager();
    }
}

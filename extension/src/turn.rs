//! The turn of a position, from when this process knows that it will commit there until the turn is passed on: local and remote alike.
//!
//! ```text
//! expect   (clients' backends) the group has certified the transaction: whatever happens here, it is committed
//! arm      the turn has come: at a mark, who takes a snapshot there does so now (crate::verify); then the replication origin is this process's, interrupts are held; from here to the commit record nothing waits
//!          (PostgreSQL writes the commit record and leaves the process array)
//! passed   let go of the origin, move the gate. Nothing here can raise.
//! dropped  the transaction was rolled back instead: let go of the origin
//! ```

use std::cell::Cell;

use gcs_writeset::Position;
use postgres_r_protocol::gate::Run;
use postgres_r_protocol::turn;

use crate::node::DatabaseArea;
use crate::pg::xact::{self, CommitSettings};
use crate::pg::{interrupt, origin};
use crate::verify::mark;

/// What this process commits: one position, or a run of them.
#[derive(Clone, Copy)]
pub struct Turn {
    pub area: &'static DatabaseArea,
    pub run: Run,
    /// How many writesets that are.
    pub writesets: u64,
    /// When COMMIT was asked for on the origin of the last one, microseconds since 2000.
    pub committed_at: i64,
}

impl Turn {
    /// Of one position.
    pub fn of(area: &'static DatabaseArea, position: Position, committed_at: i64) -> Turn {
        Turn { area, run: Run::of(position), writesets: 1, committed_at }
    }

    /// Up to which everything is committed with this turn.
    pub fn position(&self) -> Position {
        self.run.last
    }
}

thread_local! {
    /// What the group has certified of this process's own, and this process has not committed yet.
    static EXPECTED: Cell<Option<Turn>> = const { Cell::new(None) };
    /// The turn that this process has in hand, and the settings that its commits are made with otherwise.
    static ARMED: Cell<Option<(Turn, CommitSettings)>> = const { Cell::new(None) };
}

/// The group has certified the current transaction of a client.
pub fn expect(turn: Turn) {
    EXPECTED.set(Some(turn));
}

/// What the current transaction of a client is certified for, if it is.
pub fn expected() -> Option<Turn> {
    EXPECTED.get()
}

/// The transaction is over.
pub fn forget() {
    EXPECTED.set(None);
}

/// The turn has come, in the transaction that is about to commit.
pub fn arm(turn: Turn) {
    mark::at_turn(turn.area, turn.position());
    origin::arm(turn.area.origin(), turn.position(), turn.committed_at);
    ARMED.set(Some((turn, xact::enter_commit())));
    interrupt::hold();
}

/// Whether the turn is this process's, and not passed on yet.
pub fn is_in_hand() -> bool {
    ARMED.get().is_some()
}

/// The transaction is committed: the turn that it had is passed on. Past the commit record: only atomics, a lock and latches.
pub fn passed() -> Option<Turn> {
    let (turn, settings) = ARMED.take()?;
    interrupt::resume();
    origin::disarm();
    origin::take_up_again();
    xact::restore(settings);
    // Whoever waits for this position may go by the catalogs as it left them.
    xact::send_invalidations();
    turn::pass_run(turn.area.at(), turn.run, xact::last_commit_lsn());
    mark::committed(turn.area);
    Some(turn)
}

/// The transaction was rolled back. True if that was with the turn in hand.
pub fn dropped() -> bool {
    let Some((_, settings)) = ARMED.take() else { return false };
    // The ERROR has already set the count of held interrupts back.
    origin::disarm();
    xact::restore(settings);
    true
}

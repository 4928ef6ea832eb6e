//! Read levels: how much of what the group has committed a transaction surely sees (docs/adr/0035-read-levels.md).
//!
//! | `postgres_r.read_level` | the transaction sees at least | costs |
//! |---|---|---|
//! | `eventual` | what is committed on this node | nothing |
//! | `session` | also what `postgres_r.read_after` names | a wait, if this node is behind it |
//! | `bounded` | also whatever was acknowledged longer ago than `postgres_r.max_staleness` | a question now and then, and the wait |
//! | `strong` | whatever was acknowledged to anybody, on any node, before its first statement | a question, and the wait |
//!
//! The wait is before the transaction's first snapshot ([`crate::pg::reading`]); later snapshots are later ones. So the guarantee is the
//! transaction's: whatever its isolation level, whatever protocol its statements come by. Outside of a block every statement is a transaction.
//! If the level is raised in the middle of a READ COMMITTED transaction, what is promised holds from its next statement on; above, the
//! snapshot is there and has been read by, and the statement fails: a level is never less than its name. A snapshot that was imported is its giver's,
//! and stays what it is.
//!
//! A wait is bounded by `postgres_r.read_timeout`. What cannot come is not waited for: without the group the error is 25006 and comes at once, but
//! for the moment that a write would wait too.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use gcs_writeset::Position;
use gcs_writeset::link::RefusalReason;
use postgres_r_protocol::replica::Turnaway;

use super::reader::{self, Answer};
use super::{session_token, writable};
use crate::error::{self, Error};
use crate::guc::{self, ReadLevel};
use crate::node::{self, DatabaseArea};
use crate::pg::{clock, interrupt, latch, snapshot};
use crate::session;

/// Between attempts to ask a gcs that does not answer, or not know the database yet.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// A wait for a position looks so often whether it can still come.
const LOOK_EVERY: Duration = Duration::from_millis(500);

thread_local! {
    /// What the current transaction has waited for, and the token if that was one.
    static DONE: RefCell<Option<(ReadLevel, String)>> = const { RefCell::new(None) };
    /// The current transaction has looked at data.
    static HAS_READ: Cell<bool> = const { Cell::new(false) };
}

/// At the end of every transaction.
pub fn reset() {
    DONE.take();
    HAS_READ.set(false);
    snapshot::forget_import();
}

/// A statement is about to look at data. Whether the snapshots that there are may be too old.
pub fn before_data() -> bool {
    let level = guc::read_level();
    send_away();
    let must_wait = level != ReadLevel::Eventual && session::is_captured() && !is_done(level);
    if must_wait && let Some(area) = session::database() {
        if snapshot::is_kept_for_transaction() && snapshot::is_taken() {
            if snapshot::is_imported() {
                return false;
            }
            // What was read by it is not to be read again.
            if HAS_READ.get() {
                error::read_level_too_late(level.name()).raise();
            }
        }
        wait(area, level);
    }
    // Not before: a wait that failed has let nothing be read.
    HAS_READ.set(true);
    must_wait
}

/// A transaction that has not begun to look at data can as well begin on another node, where this one is about to be shut down.
fn send_away() {
    let is_drained = |area: &DatabaseArea| area.replica.turnaway.load() == Turnaway::All;
    if !HAS_READ.get() && session::is_captured() && session::database().is_some_and(is_drained) {
        error::sent_away().raise_fatal();
    }
}

fn is_done(level: ReadLevel) -> bool {
    DONE.with_borrow(|done| match done {
        Some((ReadLevel::Session, token)) if level == ReadLevel::Session => *token == guc::read_after(),
        Some((done, _)) => *done == level || *done == ReadLevel::Strong,
        None => false,
    })
}

fn wait(area: &'static DatabaseArea, level: ReadLevel) {
    let waiting = Waiting { area, level, began: Instant::now(), timeout: guc::read_timeout() };
    let token = if level == ReadLevel::Session { guc::read_after() } else { String::new() };
    let result = match level {
        ReadLevel::Eventual => Ok(()),
        ReadLevel::Session => waiting.for_session(&token),
        ReadLevel::Bounded => waiting.for_bounded(guc::max_staleness()),
        ReadLevel::Strong => waiting.for_strong(),
    };
    area.replica.counters.read_waits.one();
    area.replica.counters.read_wait_us.time(waiting.began.elapsed());
    match result {
        Ok(()) => DONE.set(Some((level, token))),
        Err(error) => error.raise(),
    }
}

/// Waits until this node shows whatever was acknowledged to anybody, whatever level the transaction reads at.
pub fn see_acknowledged(area: &'static DatabaseArea) -> Result<(), Error> {
    let level = ReadLevel::Strong;
    Waiting { area, level, began: Instant::now(), timeout: guc::read_timeout() }.for_strong()
}

struct Waiting {
    area: &'static DatabaseArea,
    level: ReadLevel,
    began: Instant,
    timeout: Duration,
}

impl Waiting {
    fn deadline(&self) -> Instant {
        self.began + self.timeout
    }

    fn for_session(&self, token: &str) -> Result<(), Error> {
        match session_token::floor(self.area, token)? {
            Some(position) => self.until_visible(position, self.deadline()),
            None => Ok(()),
        }
    }

    fn for_strong(&self) -> Result<(), Error> {
        let position = self.ask()?;
        self.until_visible(position, self.deadline())
    }

    /// What was last heard of the group is enough if that was a short while ago; else the group is asked.
    fn for_bounded(&self, max_staleness: Duration) -> Result<(), Error> {
        let known = self.area.replica.sighting.last().map(|(at, position)| (clock::uptime().since(at), position));
        let position = match known {
            Some((age, position)) if age <= max_staleness => position,
            _ => self.ask().map_err(|error| error::too_stale(error, max_staleness, known.map(|(age, _)| age)))?,
        };
        self.until_visible(position, self.deadline())
    }

    /// How far the group is.
    fn ask(&self) -> Result<Position, Error> {
        let (area, deadline) = (self.area, self.deadline());
        loop {
            if let Some(error) = session::phase_error(area).or_else(|| writable::group_error(area)) {
                return Err(error::cannot_read(self.level.name(), error));
            }
            let asked_at = clock::uptime();
            match reader::read_from(area, deadline) {
                Ok(Answer::Position(position)) => {
                    area.replica.sighting.note(asked_at, position);
                    return Ok(position);
                }
                Ok(Answer::Refused(RefusalReason::NoQuorum)) => {
                    return Err(error::cannot_read(self.level.name(), session::no_quorum(area)));
                }
                Ok(Answer::Refused(RefusalReason::Overloaded)) => {
                    return Err(error::cannot_read(self.level.name(), error::overloaded()));
                }
                Ok(Answer::Interrupted) => interrupt::check(),
                // gcs has started anew, or is about to.
                Ok(Answer::Refused(RefusalReason::NotAttached | RefusalReason::HasContents | RefusalReason::Format))
                | Err(_) => latch::wait(Some(ASK_AGAIN)),
                Ok(Answer::None) => {}
            }
            interrupt::check();
            if Instant::now() >= deadline {
                return Err(error::read_timeout(self.level.name(), self.timeout, None));
            }
        }
    }

    fn until_visible(&self, position: Position, deadline: Instant) -> Result<(), Error> {
        let gate = &self.area.gate;
        until_visible(self.area, position, deadline).map_err(|why| match why {
            NotVisible::CannotCome(error) => error::cannot_read(self.level.name(), error),
            NotVisible::TooLate => {
                error::read_timeout(self.level.name(), self.timeout, Some((position, gate.committed(), gate.known())))
            }
        })
    }
}

/// Why a position is not visible here.
pub enum NotVisible {
    CannotCome(Error),
    TooLate,
}

/// Waits until a position is visible here. Without its group the node can't come to it, unless it has it already. Interrupts are served.
pub fn until_visible(area: &'static DatabaseArea, position: Position, deadline: Instant) -> Result<(), NotVisible> {
    let (gate, watch) = (&area.gate, &area.replica.readers);
    if gate.committed() >= position {
        return Ok(());
    }
    let slot = node::my_slot();
    if let Some(slot) = slot {
        slot.await_position(position);
    }
    let result = loop {
        if let Some(error) = why_it_cannot_come(area, position) {
            break Err(NotVisible::CannotCome(error));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let is_visible = || {
            watch.wait_for(position);
            gate.committed() >= position
        };
        if area.conditions.wait_for_committed(left.min(LOOK_EVERY), is_visible) {
            break Ok(());
        }
        if left.is_zero() {
            break Err(NotVisible::TooLate);
        }
    };
    if let Some(slot) = slot {
        slot.await_position(Position::ZERO);
    }
    result
}

/// What is ordered and known here comes by itself; the rest only with the group.
fn why_it_cannot_come(area: &DatabaseArea, position: Position) -> Option<Error> {
    session::phase_error(area).or_else(|| if area.gate.known() < position { writable::group_error(area) } else { None })
}

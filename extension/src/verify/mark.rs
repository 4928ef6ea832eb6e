//! Marks, as whoever commits them sees them: a client's backend or a remote backend, which knows nothing of verifications otherwise.
//!
//! ```text
//! row_of, applied  while a writeset is made or applied: the transaction has to do with a verification
//! at_turn          the turn has come: the gate stands still at this position until we let it go on
//! committed        past the commit record: whoever waits for rows of ours may look
//! forget           the transaction is over
//! ```

use std::cell::Cell;
use std::time::{Duration, Instant};

use gcs_writeset::Position;
use gcs_writeset::body::{Datum, Image};

use crate::node::DatabaseArea;
use crate::pg::worker::{self, Kind};
use crate::pg::{interrupt, latch, log, process};

/// How long the gate stands still for the sake of a snapshot. It takes a process to wake up, and a fraction of a millisecond.
const SNAPSHOT_WITHIN: Duration = Duration::from_millis(500);

pub const BEGINS: i16 = 0;
pub const LOOKS: i16 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub id: i64,
    pub kind: i16,
}

thread_local! {
    /// Whether the current transaction changes rows of ours.
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
    static MARK: Cell<Option<Mark>> = const { Cell::new(None) };
}

/// The current transaction makes a mark, if any, and other rows of ours.
pub fn made(mark: Option<Mark>) {
    IS_OURS.set(true);
    MARK.set(mark);
}

/// The current transaction applies a change of this table.
pub fn applied(schema: &str, table: &str, new: Option<Image<'_>>) {
    if schema != "postgres_r" || !table.starts_with("verification_") {
        return;
    }
    IS_OURS.set(true);
    if table == "verification_marks"
        && let Some(mark) = new.and_then(read)
    {
        MARK.set(Some(mark));
    }
}

/// The first two columns.
fn read(image: Image<'_>) -> Option<Mark> {
    let mut datums = image.datums();
    let (Some(Datum::Physical(id)), Some(Datum::Physical(kind))) = (datums.next(), datums.next()) else { return None };
    let mark = Mark { id: i64::from_le_bytes(id.try_into().ok()?), kind: i16::from_le_bytes(kind.try_into().ok()?) };
    // Zero is no mark.
    (mark.id != 0).then_some(mark)
}

/// Whether the current transaction has a mark.
pub fn is_made() -> bool {
    MARK.get().is_some()
}

/// It is the turn of the current transaction. Raises nothing that the commit would not survive: nothing has been written yet.
pub fn at_turn(area: &DatabaseArea, position: Position) {
    let Some(mark) = MARK.get() else { return };
    match mark.kind {
        BEGINS => begin(area, position),
        LOOKS => hold_still(area, position, mark.id),
        _ => {}
    }
}

/// Sees to it that there is a verifier.
fn begin(area: &DatabaseArea, position: Position) {
    // Before the look: one that is about to end looks at this afterwards, and stays.
    area.verification.begin_at(position);
    if area.verification.verifier.get().is_some() {
        return;
    }
    let name = format!("postgres_r verifier of {}", area.replica.name.get());
    if !worker::start(Kind::Verifier, &name, area.index as u64) {
        log::warn(
            "could not start a verifier",
            Some("A verification of the group goes on without this node.".into()),
            Some("Raise max_worker_processes and restart the server.".into()),
        );
    }
}

/// Everything before the position is visible, and nothing behind it can be until we go on.
fn hold_still(area: &DatabaseArea, position: Position, mark: i64) {
    let verification = area.verification;
    if !verification.is_awaited() {
        return;
    }
    verification.offer(mark, position, process::me());
    let until = Instant::now() + SNAPSHOT_WITHIN;
    while !verification.is_taken(mark) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        interrupt::serve_barrier();
        latch::wait(Some(left));
    }
    verification.take_back(mark);
}

/// The current transaction is committed. Only atomics and latches.
pub fn committed(area: &DatabaseArea) {
    if IS_OURS.get() {
        area.verification.changed();
    }
}

/// The transaction is over.
pub fn forget() {
    IS_OURS.set(false);
    MARK.set(None);
}

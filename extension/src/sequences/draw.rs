//! Each value that nextval() draws: whether it is this node's, and if not, where to get those that are.
//!
//! The value is drawn first and looked at afterwards, since only PostgreSQL knows whether it comes from the sequence or from what a session with
//! CACHE has fetched before. A value that no lease has is drawn for nothing, unless the next lease turns out to have it: one that this node gets
//! without another's in between. So that a node without a majority does not use up its sequence by failing, a lease that is known to be
//! used up is followed by the next one before the value is drawn.

use std::cell::Cell;
use std::time::Instant;

use gcs_writeset::Position;

use crate::error;
use crate::guc;
use crate::node::leases::{Outcome, Sequence, Word};
use crate::node::{self, DatabaseArea};
use crate::pg::names;
use crate::pg::nextval::Draw;
use crate::pg::relation::{Lock, Oid, Persistence};
use crate::pg::{self, xact};
use crate::session;

thread_local! {
    /// The sequence that a value is being drawn from: it is locked, so that it keeps its file.
    static DRAWING: Cell<Option<Sequence>> = const { Cell::new(None) };
}

/// Whether the value that is about to be drawn is to be looked at.
pub fn before(oid: Oid, draw: Draw) -> bool {
    DRAWING.set(None);
    let Some(area) = session::database().filter(|_| session::is_captured()) else { return false };
    // The lock that PostgreSQL's nextval takes, and keeps.
    let Some(sequence) = pg::sequence::Sequence::open(oid, Lock::RowExclusive) else { return false };
    if sequence.persistence() != Persistence::Permanent || sequence.is_own() || xact::is_read_only() {
        return false;
    }
    let of = Sequence { oid, file: sequence.file() };
    drop(sequence);
    DRAWING.set(Some(of));
    // Whoever may not draw is told so by PostgreSQL, and costs nothing.
    if !area.leases.has_left(of) && (draw == Draw::Identity || pg::sequence::may_draw(oid)) {
        lease(area, of, None, 0);
    }
    true
}

/// Whether a value that was drawn is this node's to give. If not, the sequence may have been moved on, and another is drawn.
pub fn stands(oid: Oid, value: i64) -> bool {
    let (Some(area), Some(of)) = (session::database(), DRAWING.get().filter(|of| of.oid == oid)) else { return true };
    loop {
        match area.leases.judge(of, value) {
            Word::Give { soon } => {
                if soon && area.leases.ask(of, None, 0).is_some() {
                    node::wake(area.leases.leaser);
                }
                return true;
            }
            Word::SkipTo(first) => {
                skip_to(of, first);
                return false;
            }
            Word::Ask => lease(area, of, Some(value), 0),
        }
    }
}

/// The sequence goes on from `first`, unless it is there already or past it.
fn skip_to(of: Sequence, first: i64) {
    if let Some(sequence) = pg::sequence::Sequence::open(of.oid, Lock::RowExclusive)
        && let Some(declared) = sequence.declared()
    {
        sequence.advance(&declared.series, first);
    }
}

/// Waits for more values; interrupts are served. Raises an error if there are none.
pub fn lease(area: &DatabaseArea, of: Sequence, reach: Option<i64>, at_least: u32) {
    if let Some(error) = session::phase_error(area).or_else(|| session::role_error(area)) {
        error.raise();
    }
    let started = Instant::now();
    let Some(ticket) = area.leases.ask(of, reach, at_least) else { error::too_many_sequences().raise() };
    node::wake(area.leases.leaser);
    // The lease comes behind whatever is ordered now: who needs a lock that this transaction holds must not wait for it first.
    let slot = node::my_slot();
    if let Some(slot) = slot {
        slot.await_position(Position(u64::MAX));
    }
    let outcome = area.leases.wait(ticket, guc::commit_timeout());
    if let Some(slot) = slot {
        slot.await_position(Position::ZERO);
    }
    if outcome == Some(Outcome::Granted) {
        return;
    }
    let name = names::qualified_name(of.oid).map(|(_, name)| name).unwrap_or_default();
    match outcome {
        Some(Outcome::Exhausted) => {
            let sequence = pg::sequence::Sequence::open(of.oid, Lock::RowExclusive);
            if let Some(declared) = sequence.and_then(|sequence| sequence.declared()) {
                let ascends = declared.series.increment > 0;
                let end = if ascends { declared.series.max } else { declared.series.min };
                error::exhausted(&name, ascends, end).raise();
            }
        }
        Some(Outcome::NoGroup) => {
            session::group_error(area).raise();
        }
        _ => {}
    }
    error::no_values(&name, started.elapsed()).raise()
}

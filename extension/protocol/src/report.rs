//! Where this node is, as its manager tells gcs: what is committed, what is flushed, and the oldest base still in use.

use std::time::Duration;

use gcs_writeset::Position;
use gcs_writeset::link::Request;

use crate::bounds::REPORT_EVERY;
use crate::id::{Lsn, Moment};
use crate::platform::Platform;
use crate::replica::At;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    committed: Position,
    flushed: Position,
    oldest_base: Position,
    out_of_service: bool,
}

pub struct Report {
    /// A position, and where its commit record ends.
    flushing: Option<(Position, Lsn)>,
    /// The committed position one report ago: a backend that read it as its base has announced that base by now.
    committed_before: Position,
    told: Option<(Told, Moment)>,
}

impl Report {
    pub fn new<P: Platform>(at: At<'_, P>) -> Report {
        Report { flushing: None, committed_before: at.database.gate.oldest_base(), told: None }
    }

    /// A new link knows nothing.
    pub fn forget(&mut self) {
        self.told = None;
    }

    /// What to report now, if anything. `flushed` is how far the server's own log is on its disk.
    pub fn request<P: Platform>(&mut self, at: At<'_, P>, now: Moment, flushed: impl Fn() -> Lsn) -> Option<Request> {
        let gate = &at.database.gate;
        let committed = gate.committed();
        // Somebody waits to hear of it.
        let is_due = at.database.replica.asked.take(committed);
        if !is_due && self.told.is_some_and(|(_, told_at)| now.since(told_at) < REPORT_EVERY) {
            return None;
        }
        self.follow_flush(at, committed, flushed);
        let bases = at.server.slots.iter().filter_map(|slot| slot.base_in(at.database.index));
        let oldest_base = bases.fold(self.committed_before, Position::min);
        self.committed_before = committed;
        gate.set_oldest_base(oldest_base);
        let out_of_service = at.database.replica.failure.is_set();
        let told = Told { committed, flushed: gate.flushed(), oldest_base, out_of_service };
        if !is_due && self.told.is_some_and(|(before, _)| before == told) {
            return None;
        }
        self.told = Some((told, now));
        Some(Request::Progress { committed, flushed: told.flushed, oldest_base, out_of_service })
    }

    /// The last thing that is said before the link is dropped: what comes next can't be applied here.
    pub fn out_of_service<P: Platform>(&self, at: At<'_, P>) -> Request {
        let gate = &at.database.gate;
        let (committed, flushed, oldest_base) = (gate.committed(), gate.flushed(), gate.oldest_base());
        Request::Progress { committed, flushed, oldest_base, out_of_service: true }
    }

    fn follow_flush<P: Platform>(&mut self, at: At<'_, P>, committed: Position, flushed: impl Fn() -> Lsn) {
        let gate = &at.database.gate;
        if let Some((position, lsn)) = self.flushing
            && flushed() >= lsn
        {
            gate.set_flushed(position);
            self.flushing = None;
        }
        if self.flushing.is_none() && committed > gate.flushed() {
            // Read after the committed position, so it covers at least that.
            self.flushing = Some((committed, gate.commit_lsn()));
        }
    }

    /// When to look again, though nothing wakes the manager: positions are about to be committed, or to be flushed.
    pub fn next<P: Platform>(&self, at: At<'_, P>) -> Option<Duration> {
        let known = at.database.gate.known();
        let all_known = Told { committed: known, flushed: known, oldest_base: known, out_of_service: false };
        let is_settled = self.told.is_some_and(|(told, _)| told == all_known);
        (!is_settled).then_some(REPORT_EVERY)
    }
}

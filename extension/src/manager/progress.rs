//! Where this node is, as told to gcs: committed, flushed, and the oldest base still in use.

use std::time::{Duration, Instant};

use gcs_writeset::Position;
use gcs_writeset::link::Request;

use crate::pg::xact::{self, Lsn};
use crate::shmem::{DatabaseArea, Shared};

/// No more often than this, and no later than this after something changed.
const REPORT_EVERY: Duration = Duration::from_millis(100);

type Told = (Position, Position, Position);

pub struct Progress {
    /// A position, and where its commit record ends.
    flushing: Option<(Position, Lsn)>,
    /// The committed position one round ago: a backend that read it as its base has announced it by now.
    committed_before: Position,
    told: Option<Told>,
    told_at: Instant,
}

impl Progress {
    pub fn new(area: &DatabaseArea) -> Progress {
        Progress { flushing: None, committed_before: area.gate.oldest_base(), told: None, told_at: Instant::now() }
    }

    /// A new link knows nothing.
    pub fn forget(&mut self) {
        self.told = None;
    }

    /// What to report now, if anything.
    pub fn report(&mut self, shared: &Shared, area: &DatabaseArea) -> Option<Request> {
        if self.told.is_some() && self.told_at.elapsed() < REPORT_EVERY {
            return None;
        }
        let committed = area.gate.committed();
        self.follow_flush(area, committed);
        let bases = shared.slots.iter().filter_map(|slot| slot.base_in(area.index));
        let oldest_base = bases.fold(self.committed_before, Position::min);
        self.committed_before = committed;
        area.gate.set_oldest_base(oldest_base);
        let flushed = area.gate.flushed();
        let news = (committed, flushed, oldest_base);
        if self.told == Some(news) {
            return None;
        }
        self.told = Some(news);
        self.told_at = Instant::now();
        Some(Request::Progress { committed, flushed, oldest_base })
    }

    fn follow_flush(&mut self, area: &DatabaseArea, committed: Position) {
        if let Some((position, lsn)) = self.flushing
            && xact::flushed_lsn() >= lsn
        {
            area.gate.set_flushed(position);
            self.flushing = None;
        }
        if self.flushing.is_none() && committed > area.gate.flushed() {
            // Read after the committed position, so it covers at least that.
            self.flushing = Some((committed, area.gate.commit_lsn()));
        }
    }

    /// When to look again, though nothing wakes us: positions are about to be committed, or to be flushed.
    pub fn next(&self, area: &DatabaseArea) -> Option<Duration> {
        let known = area.gate.known();
        let settled =
            self.told.is_some_and(|(committed, flushed, base)| committed == known && flushed == known && base == known);
        (!settled).then_some(REPORT_EVERY)
    }
}

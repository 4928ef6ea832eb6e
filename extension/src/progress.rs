//! How far large transactions are: what postgres_r.large_transactions shows.
//!
//! Every process has one [`Progress`] in its slot, which it alone writes and anybody reads: a backend whose transaction spilled to
//! disk, the manager while chunks come in, a remote backend while it applies. Numbers may be of slightly different moments.

use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};

use gcs_writeset::{NodeId, Position};

use crate::pg::{clock, process};
use crate::session;
use crate::shmem::{self, DatabaseArea};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// Nothing large is under way.
    None = 0,
    /// On its origin: still changing rows. How much there will be is not known.
    Capturing = 1,
    /// Chunks go into the group's log.
    Sending = 2,
    /// All is sent; the group decides.
    Ordering = 3,
    /// Elsewhere: chunks come in.
    Receiving = 4,
    Applying = 5,
    /// Earlier positions go first.
    Waiting = 6,
}

impl Phase {
    fn name(number: u32) -> Option<&'static str> {
        Some(match number {
            1 => "capturing",
            2 => "sending",
            3 => "ordering",
            4 => "receiving",
            5 => "applying",
            6 => "waiting",
            _ => return None,
        })
    }
}

pub struct Progress {
    phase: AtomicU32,
    pid: AtomicI32,
    database: AtomicU32,
    node: AtomicU64,
    position: AtomicU64,
    done: AtomicU64,
    total: AtomicU64,
    rows: AtomicU64,
    started_at: AtomicI64,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress::nothing()
    }
}

/// One line of the view.
pub struct Line {
    pub pid: i32,
    pub node: NodeId,
    pub phase: &'static str,
    pub position: Option<Position>,
    pub done: u64,
    pub total: Option<u64>,
    pub rows: u64,
    pub started_at: i64,
}

static NOBODY: Progress = Progress::nothing();

/// This process's own.
pub fn mine() -> &'static Progress {
    shmem::get().and_then(|shared| shared.my_slot()).map_or(&NOBODY, |(slot, _)| &slot.progress)
}

impl Progress {
    const fn nothing() -> Progress {
        Progress {
            phase: AtomicU32::new(0),
            pid: AtomicI32::new(0),
            database: AtomicU32::new(0),
            node: AtomicU64::new(0),
            position: AtomicU64::new(0),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            started_at: AtomicI64::new(0),
        }
    }

    pub fn clear(&self) {
        self.phase.store(Phase::None as u32, Relaxed);
    }

    fn is(&self, phase: Phase) -> bool {
        self.phase.load(Relaxed) == phase as u32
    }

    fn start(&self, area: &DatabaseArea, node: NodeId, position: Position, phase: Phase) {
        self.pid.store(process::my_pid(), Relaxed);
        self.database.store(area.index as u32, Relaxed);
        self.node.store(node.0, Relaxed);
        self.position.store(position.0, Relaxed);
        self.done.store(0, Relaxed);
        self.total.store(0, Relaxed);
        self.rows.store(0, Relaxed);
        self.started_at.store(clock::now(), Relaxed);
        self.phase.store(phase as u32, Relaxed);
    }

    /// A local transaction has spilled so much so far.
    pub fn captured(&self, bytes: u64, rows: u64) {
        if self.is(Phase::None) {
            let Some(area) = session::database() else { return };
            self.start(area, area.state.node(), Position::ZERO, Phase::Capturing);
        }
        self.done.store(bytes, Relaxed);
        self.rows.store(rows, Relaxed);
    }

    /// A local transaction begins to be sent in chunks.
    pub fn sending(&self, area: &DatabaseArea, total: u64, rows: u64) {
        if self.is(Phase::None) {
            self.start(area, area.state.node(), Position::ZERO, Phase::Sending);
        }
        self.done.store(0, Relaxed);
        self.total.store(total, Relaxed);
        self.rows.store(rows, Relaxed);
        self.phase.store(Phase::Sending as u32, Relaxed);
    }

    pub fn receiving(&self, area: &DatabaseArea, node: NodeId, position: Position) {
        self.start(area, node, position, Phase::Receiving);
    }

    pub fn applying(&self, area: &DatabaseArea, node: NodeId, position: Position, total: u64) {
        self.start(area, node, position, Phase::Applying);
        self.total.store(total, Relaxed);
    }

    pub fn done(&self, bytes: u64) {
        self.done.store(bytes, Relaxed);
    }

    pub fn rows(&self, rows: u64) {
        self.rows.store(rows, Relaxed);
    }

    /// What is under way, if anything, has come to this.
    pub fn phase(&self, phase: Phase) {
        if !self.is(Phase::None) {
            self.phase.store(phase as u32, Relaxed);
        }
    }

    pub fn position(&self, position: Position) {
        self.position.store(position.0, Relaxed);
    }

    /// Grows while something is being done about this position here.
    pub fn towards(&self, area: &DatabaseArea, position: Position) -> u64 {
        let about = self.position.load(Relaxed) == position.0 && self.database.load(Relaxed) as usize == area.index;
        if about && !self.is(Phase::None) { self.done.load(Relaxed).max(1) } else { 0 }
    }

    /// What is under way in that database.
    pub fn line(&self, area: &DatabaseArea) -> Option<Line> {
        let phase = Phase::name(self.phase.load(Relaxed))?;
        let known = |number: u64| (number != 0).then_some(number);
        (self.database.load(Relaxed) as usize == area.index).then(|| Line {
            pid: self.pid.load(Relaxed),
            node: NodeId(self.node.load(Relaxed)),
            phase,
            position: known(self.position.load(Relaxed)).map(Position),
            done: self.done.load(Relaxed),
            total: known(self.total.load(Relaxed)),
            rows: self.rows.load(Relaxed),
            started_at: self.started_at.load(Relaxed),
        })
    }
}

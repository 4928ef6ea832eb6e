//! How far large transactions, and those with statements, are: what postgres_r.large_transactions shows.
//!
//! Every process has one [`Progress`] in its slot, which it alone writes and anybody reads: a backend whose transaction spilled to
//! disk, the manager while chunks come in, a remote backend while it applies. Numbers may be of slightly different moments, and nothing is
//! decided by them but how long a wait may last.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};

use gcs_writeset::{NodeId, Position};

use crate::numbered::Numbered;

crate::numbered! {
    #[derive(Default)]
    pub enum Stage else None {
        /// Nothing large is under way.
        #[default]
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
        /// On its origin: all is sent, and other nodes apply it before it is ordered.
        Ahead = 7,
    }
}

impl Stage {
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Stage::None => return None,
            Stage::Capturing => "capturing",
            Stage::Sending => "sending",
            Stage::Ordering => "ordering",
            Stage::Receiving => "receiving",
            Stage::Applying => "applying",
            Stage::Waiting => "waiting",
            Stage::Ahead => "applied ahead",
        })
    }
}

/// Where a large transaction runs.
#[derive(Clone, Copy, Debug)]
pub struct Whose {
    pub pid: i32,
    /// Index of the database.
    pub database: usize,
    /// The node that it came from.
    pub node: NodeId,
    /// Microseconds since 2000: the beginning.
    pub started_at: i64,
}

#[derive(Default)]
pub struct Progress {
    stage: AtomicU32,
    pid: AtomicU32,
    database: AtomicU32,
    node: AtomicU64,
    position: AtomicU64,
    done: AtomicU64,
    total: AtomicU64,
    rows: AtomicU64,
    started_at: AtomicI64,
    /// Counts on while a statement runs, of which nobody can say how far it is.
    beats: AtomicU64,
}

/// One line of the view.
pub struct Line {
    pub pid: i32,
    pub node: NodeId,
    pub stage: &'static str,
    pub position: Option<Position>,
    pub done: u64,
    pub total: Option<u64>,
    pub rows: u64,
    pub started_at: i64,
}

impl Progress {
    pub fn clear(&self) {
        self.stage.store(Stage::None.number(), Relaxed);
    }

    fn is(&self, stage: Stage) -> bool {
        self.stage.load(Relaxed) == stage.number()
    }

    pub fn is_idle(&self) -> bool {
        self.is(Stage::None)
    }

    /// Something large begins, of which nothing is done yet.
    pub fn start(&self, whose: Whose, position: Position, stage: Stage) {
        self.pid.store(whose.pid as u32, Relaxed);
        self.database.store(whose.database as u32, Relaxed);
        self.node.store(whose.node.0, Relaxed);
        self.position.store(position.0, Relaxed);
        self.done.store(0, Relaxed);
        self.total.store(0, Relaxed);
        self.rows.store(0, Relaxed);
        self.started_at.store(whose.started_at, Relaxed);
        self.stage.store(stage.number(), Relaxed);
    }

    /// It begins to be sent in chunks, now that all that it changed is known.
    pub fn sending(&self, total: u64, rows: u64) {
        self.done.store(0, Relaxed);
        self.total.store(total, Relaxed);
        self.rows.store(rows, Relaxed);
        self.stage.store(Stage::Sending.number(), Relaxed);
    }

    pub fn total(&self, bytes: u64) {
        self.total.store(bytes, Relaxed);
    }

    pub fn done(&self, bytes: u64) {
        self.done.store(bytes, Relaxed);
    }

    /// A statement still runs. Asked by a signal handler: atomics only.
    pub fn beat(&self) {
        self.beats.fetch_add(1, Relaxed);
    }

    pub fn rows(&self, rows: u64) {
        self.rows.store(rows, Relaxed);
    }

    /// What is under way, if anything, has come to this.
    pub fn stage(&self, stage: Stage) {
        if !self.is_idle() {
            self.stage.store(stage.number(), Relaxed);
        }
    }

    pub fn position(&self, position: Position) {
        self.position.store(position.0, Relaxed);
    }

    /// Grows while something is being done about this position here.
    pub fn towards(&self, database: usize, position: Position) -> u64 {
        let about = self.position.load(Relaxed) == position.0 && self.database.load(Relaxed) as usize == database;
        if about && !self.is_idle() { self.done.load(Relaxed).max(1) + self.beats.load(Relaxed) } else { 0 }
    }

    /// What is under way in that database.
    pub fn line(&self, database: usize) -> Option<Line> {
        let stage = Stage::of(self.stage.load(Relaxed)).name()?;
        let known = |number: u64| (number != 0).then_some(number);
        (self.database.load(Relaxed) as usize == database).then(|| Line {
            pid: self.pid.load(Relaxed) as i32,
            node: NodeId(self.node.load(Relaxed)),
            stage,
            position: known(self.position.load(Relaxed)).map(Position),
            done: self.done.load(Relaxed),
            total: known(self.total.load(Relaxed)),
            rows: self.rows.load(Relaxed),
            started_at: self.started_at.load(Relaxed),
        })
    }
}

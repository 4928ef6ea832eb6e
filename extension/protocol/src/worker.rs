//! A remote backend's record in shared memory: what it does, and which position it has. What its states mean for others, [`crate::pool`] says.

use gcs_writeset::Position;

use crate::id::Holds;
use crate::numbered::Atomic;
use crate::sync::{AtomicBool, AtomicU64, Ordering};

crate::numbered! {
    /// What a remote backend does just now.
    #[derive(Default)]
    pub enum Doing else Absent {
        #[default]
        Absent = 0,
        /// Asleep, free for work.
        Idle = 1,
        /// Told to look for work.
        Called = 2,
        Applying = 3,
        /// Waits for a position to be committed: one that it depends on, or the one before its own.
        Waiting = 4,
    }
}

#[derive(Default)]
pub struct Worker {
    pub doing: Atomic<Doing>,
    pub process: Holds,
    /// The position that it has claimed; 0 when it has none.
    pub(crate) position: AtomicU64,
    /// The committed position it sleeps for, while it waits for a dependency.
    pub(crate) awaits: AtomicU64,
    /// A lower position than its own has nobody to apply it.
    pub(crate) let_go: AtomicBool,
}

impl Worker {
    pub fn position(&self) -> Position {
        Position(self.position.load(Ordering::SeqCst))
    }

    pub fn set_position(&self, position: Position) {
        self.position.store(position.0, Ordering::SeqCst);
    }

    /// Whether a lower position than its own has nobody to apply it. Asked once: the remote backend lets go then.
    pub fn must_let_go(&self) -> bool {
        self.let_go.swap(false, Ordering::SeqCst)
    }

    /// It goes to sleep until `position` is committed.
    pub fn awaits(&self, position: Position) {
        self.awaits.store(position.0, Ordering::SeqCst);
    }
}

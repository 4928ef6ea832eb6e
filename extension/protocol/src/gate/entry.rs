//! One entry of the gate's ring: what this node knows of one position.

use gcs_writeset::{NodeId, Position};

use crate::id::ProcNo;
use crate::numbered::{Atomic, Numbered};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};

crate::numbered! {
    /// What is known of a position; see the table in [`crate::gate`].
    #[derive(Default)]
    pub enum Kind else Unknown {
        /// Nothing; or it is passed.
        #[default]
        Unknown = 0,
        /// It will be passed over.
        Aborted = 1,
        /// Certified; its backend on this node commits it, or a forerunner.
        Local = 2,
        /// Certified, but no backend or forerunner will commit it: its writeset must be fetched from the log and applied.
        Orphan = 3,
        /// The manager has asked gcs for its writeset.
        Fetching = 4,
        /// In the apply queue; no remote backend has it yet.
        Queued = 5,
        /// A remote backend has it.
        Claimed = 6,
    }
}

impl Kind {
    /// Whether an entry may go from one to the other.
    pub fn may_become(self, next: Kind) -> bool {
        match self {
            Kind::Unknown => matches!(next, Kind::Aborted | Kind::Local | Kind::Orphan | Kind::Queued),
            Kind::Aborted => next == Kind::Unknown,
            Kind::Local => matches!(next, Kind::Orphan | Kind::Unknown),
            Kind::Orphan => next == Kind::Fetching,
            Kind::Fetching => next == Kind::Queued,
            Kind::Queued => next == Kind::Claimed,
            Kind::Claimed => matches!(next, Kind::Queued | Kind::Unknown),
        }
    }
}

/// Where a queued writeset's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In the queue's ring. `end` counts bytes ever queued, and frees everything before it once the position is committed.
    Ring { offset: usize, length: usize, end: u64 },
    /// In a file of the spool: `chunks` bytes of the body's front, then the encoded writeset.
    File { chunks: u64, length: u64 },
}

/// A writeset to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    pub position: Position,
    pub depends_on: Position,
    pub node: NodeId,
    pub storage: Storage,
}

impl Job {
    /// None for one that is in a file.
    pub(super) fn bytes_in_ring(&self) -> Option<usize> {
        match self.storage {
            Storage::Ring { length, .. } => Some(length),
            Storage::File { .. } => None,
        }
    }

    /// Whether it can be applied in a run from `first` on that begins once `waits_for` is committed. What it depends on is the last of several: where
    /// that is in the run, others may be anywhere before it, and all of that must be committed.
    pub(super) fn may_follow(&self, first: Position, waits_for: Position) -> bool {
        self.depends_on <= waits_for || waits_for.next() >= first
    }
}

/// All fields are written under the gate's lock.
#[derive(Default)]
pub struct Entry {
    position: AtomicU64,
    kind: Atomic<Kind>,
    /// Whose turn it will be, for `Local` and `Claimed`.
    owner: AtomicU32,
    depends_on: AtomicU64,
    node: AtomicU64,
    in_file: AtomicBool,
    offset: AtomicU64,
    length: AtomicU64,
    end: AtomicU64,
}

impl Entry {
    pub(super) fn clear(&self) {
        self.position.store(0, Ordering::Relaxed);
        self.kind.store(Kind::Unknown);
        self.end.store(0, Ordering::Relaxed);
    }

    /// The place in the ring is this position's from now on.
    pub(super) fn begin(&self, position: Position) {
        self.position.store(position.0, Ordering::Relaxed);
    }

    pub(super) fn is_of(&self, position: Position) -> bool {
        self.position.load(Ordering::Relaxed) == position.0
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind.load()
    }

    pub(super) fn become_kind(&self, next: Kind) {
        let now = self.kind();
        assert!(now.may_become(next), "a gate entry goes from {now:?} ({}) to {next:?}", now.number());
        self.kind.store(next);
    }

    pub(super) fn owner(&self) -> ProcNo {
        ProcNo(self.owner.load(Ordering::Relaxed))
    }

    pub(super) fn set_owner(&self, owner: ProcNo) {
        self.owner.store(owner.0, Ordering::Relaxed);
    }

    /// The node that the position is of.
    pub(super) fn node(&self) -> NodeId {
        NodeId(self.node.load(Ordering::Relaxed))
    }

    pub(super) fn set_node(&self, node: NodeId) {
        self.node.store(node.0, Ordering::Relaxed);
    }

    pub(super) fn depends_on(&self) -> Position {
        Position(self.depends_on.load(Ordering::Relaxed))
    }

    pub(super) fn set_depends_on(&self, position: Position) {
        self.depends_on.store(position.0, Ordering::Relaxed);
    }

    /// Where the queue's ring may be used again once this is committed, if it was in the ring.
    pub(super) fn take_ring_end(&self) -> Option<u64> {
        let end = self.end.swap(0, Ordering::Relaxed);
        (end != 0 && !self.in_file.load(Ordering::Relaxed)).then_some(end)
    }

    pub(super) fn store(&self, job: &Job) {
        self.set_depends_on(job.depends_on);
        self.set_node(job.node);
        let (in_file, offset, length, end) = match job.storage {
            Storage::Ring { offset, length, end } => (false, offset as u64, length as u64, end),
            Storage::File { chunks, length } => (true, chunks, length, 0),
        };
        self.in_file.store(in_file, Ordering::Relaxed);
        self.offset.store(offset, Ordering::Relaxed);
        self.length.store(length, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
    }

    pub(super) fn job(&self, position: Position) -> Job {
        let (offset, length) = (self.offset.load(Ordering::Relaxed), self.length.load(Ordering::Relaxed));
        let storage = if self.in_file.load(Ordering::Relaxed) {
            Storage::File { chunks: offset, length }
        } else {
            Storage::Ring { offset: offset as usize, length: length as usize, end: self.end.load(Ordering::Relaxed) }
        };
        let (depends_on, node) = (self.depends_on(), self.node());
        Job { position, depends_on, node, storage }
    }
}

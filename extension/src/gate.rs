//! The gate: on every node, writesets commit and become visible strictly in position order.
//!
//! Position p may commit when the committed position is p - 1. A ring holds what this node knows of every position above
//! the committed one. Whoever commits moves the committed position, passes over aborted positions behind it, and wakes the
//! owner of the next turn.
//!
//! Invariants:
//! - The committed position moves only after the transaction has left the process array, so a snapshot taken after reading
//!   it sees everything up to it.
//! - Only the owner of a turn moves it, or, over aborted positions, whoever holds the lock.
//! - An entry leaves the ring by being passed, never otherwise: certified means committed.
//!
//! Bound: [`WINDOW`] positions ahead of the committed one. At the bound the manager stops reading from gcs.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use gcs_writeset::{NodeId, Position};

use crate::pg::lock::Lock;
use crate::pg::process::ProcNo;
use crate::pg::shmem::{Arena, bytes_of};
use crate::pg::xact::Lsn;

/// Positions known ahead of the committed one.
pub const WINDOW: u64 = 8192;

/// Where the manager stops reading in the ordinary way; the rest of the window is for reaching the answer to a fetch.
pub const WINDOW_SOFT: u64 = WINDOW / 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    Unknown = 0,
    /// Passed over.
    Aborted = 1,
    /// Certified; its backend on this node commits it.
    Local = 2,
    /// Certified, but its backend can't finish: the writeset must be fetched and applied from the log.
    Orphan = 3,
    /// Asked for.
    Fetching = 4,
    /// In the apply queue; no remote backend has it yet.
    Queued = 5,
    /// A remote backend has it.
    Claimed = 6,
}

impl Kind {
    fn of(number: u32) -> Kind {
        match number {
            1 => Kind::Aborted,
            2 => Kind::Local,
            3 => Kind::Orphan,
            4 => Kind::Fetching,
            5 => Kind::Queued,
            6 => Kind::Claimed,
            _ => Kind::Unknown,
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

#[derive(Clone, Copy, Debug)]
pub struct Job {
    pub position: Position,
    pub depends_on: Position,
    pub node: NodeId,
    pub storage: Storage,
}

#[derive(Default)]
struct Entry {
    position: AtomicU64,
    kind: AtomicU32,
    /// Whose turn it is: a process's place, for `Local` and `Claimed`.
    owner: AtomicU32,
    depends_on: AtomicU64,
    node: AtomicU64,
    in_file: AtomicBool,
    offset: AtomicU64,
    length: AtomicU64,
    end: AtomicU64,
}

impl Entry {
    fn kind(&self) -> Kind {
        Kind::of(self.kind.load(Ordering::Relaxed))
    }

    fn set_kind(&self, kind: Kind) {
        self.kind.store(kind as u32, Ordering::Relaxed);
    }

    fn store(&self, job: &Job) {
        self.depends_on.store(job.depends_on.0, Ordering::Relaxed);
        self.node.store(job.node.0, Ordering::Relaxed);
        let (in_file, offset, length, end) = match job.storage {
            Storage::Ring { offset, length, end } => (false, offset as u64, length as u64, end),
            Storage::File { chunks, length } => (true, chunks, length, 0),
        };
        self.in_file.store(in_file, Ordering::Relaxed);
        self.offset.store(offset, Ordering::Relaxed);
        self.length.store(length, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
    }

    fn job(&self, position: Position) -> Job {
        let (offset, length) = (self.offset.load(Ordering::Relaxed), self.length.load(Ordering::Relaxed));
        let storage = if self.in_file.load(Ordering::Relaxed) {
            Storage::File { chunks: offset, length }
        } else {
            Storage::Ring { offset: offset as usize, length: length as usize, end: self.end.load(Ordering::Relaxed) }
        };
        Job {
            position,
            depends_on: Position(self.depends_on.load(Ordering::Relaxed)),
            node: NodeId(self.node.load(Ordering::Relaxed)),
            storage,
        }
    }
}

#[derive(Default)]
struct State {
    committed: AtomicU64,
    /// Entries are there for committed + 1 ..= known.
    known: AtomicU64,
    /// Where the commit record of the newest commit ends.
    commit_lsn: AtomicU64,
    /// Everything up to here survives a crash of this server.
    flushed: AtomicU64,
    /// No queued entry lies below it.
    claim_from: AtomicU64,
    queued: AtomicU32,
    orphans: AtomicU32,
    /// Bytes of the queue ever freed.
    ring_freed: AtomicU64,
    /// Bytes of the queue ever used; the manager's.
    ring_used: AtomicU64,
    /// The manager sleeps until there is room.
    room_wanted: AtomicBool,
    /// The oldest base that a transaction of this node may still use.
    oldest_base: AtomicU64,
}

/// A turn that was passed on: who is to be woken.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    pub committed: Position,
    pub next_owner: Option<ProcNo>,
    pub room_wanted: bool,
}

pub struct Gate {
    state: &'static State,
    ring: &'static [Entry],
    lock: Lock,
}

impl Gate {
    pub fn bytes() -> usize {
        bytes_of::<State>(1) + bytes_of::<Entry>(WINDOW as usize)
    }

    pub fn lay_out(arena: &mut Arena) -> Gate {
        Gate { state: &arena.slice::<State>(1)[0], ring: arena.slice::<Entry>(WINDOW as usize), lock: arena.lock() }
    }

    pub fn reset(&self, committed: Position) {
        self.lock.exclusive(|| {
            for entry in self.ring {
                entry.position.store(0, Ordering::Relaxed);
                entry.set_kind(Kind::Unknown);
            }
            let state = self.state;
            state.known.store(committed.0, Ordering::Relaxed);
            state.claim_from.store(committed.0 + 1, Ordering::Relaxed);
            state.queued.store(0, Ordering::Relaxed);
            state.orphans.store(0, Ordering::Relaxed);
            state.ring_freed.store(0, Ordering::Relaxed);
            state.ring_used.store(0, Ordering::Relaxed);
            state.commit_lsn.store(0, Ordering::Relaxed);
            // What the server came up with is on its disk.
            state.flushed.store(committed.0, Ordering::Relaxed);
            state.oldest_base.store(committed.0, Ordering::Relaxed);
            state.room_wanted.store(false, Ordering::Relaxed);
            state.committed.store(committed.0, Ordering::SeqCst);
        });
    }

    pub fn committed(&self) -> Position {
        Position(self.state.committed.load(Ordering::SeqCst))
    }

    pub fn known(&self) -> Position {
        Position(self.state.known.load(Ordering::SeqCst))
    }

    pub fn oldest_base(&self) -> Position {
        Position(self.state.oldest_base.load(Ordering::Relaxed))
    }

    pub fn set_oldest_base(&self, base: Position) {
        self.state.oldest_base.store(base.0, Ordering::Relaxed);
    }

    pub fn flushed(&self) -> Position {
        Position(self.state.flushed.load(Ordering::Relaxed))
    }

    pub fn set_flushed(&self, position: Position) {
        self.state.flushed.store(position.0, Ordering::Relaxed);
    }

    /// The end of the newest commit record; read it after the committed position that it is to cover.
    pub fn commit_lsn(&self) -> Lsn {
        Lsn(self.state.commit_lsn.load(Ordering::SeqCst))
    }

    pub fn is_turn(&self, position: Position) -> bool {
        self.committed().next() == position
    }

    /// The next position and its backend, where that is one of this node's own.
    pub fn next_local(&self) -> Option<(Position, ProcNo)> {
        self.lock.shared(|| {
            let next = self.committed().next();
            let entry = self.live(next).filter(|entry| entry.kind() == Kind::Local)?;
            Some((next, ProcNo(entry.owner.load(Ordering::Relaxed))))
        })
    }

    /// Positions known ahead.
    pub fn ahead(&self) -> u64 {
        self.known().0.saturating_sub(self.committed().0)
    }

    pub fn queued(&self) -> u32 {
        self.state.queued.load(Ordering::SeqCst)
    }

    pub fn orphans(&self) -> u32 {
        self.state.orphans.load(Ordering::SeqCst)
    }

    fn entry(&self, position: Position) -> &Entry {
        &self.ring[(position.0 % WINDOW) as usize]
    }

    /// Under the lock.
    fn live(&self, position: Position) -> Option<&Entry> {
        let entry = self.entry(position);
        (entry.position.load(Ordering::Relaxed) == position.0).then_some(entry)
    }

    fn append(&self, position: Position, fill: impl FnOnce(&Entry)) -> Option<Moved> {
        self.lock.exclusive(|| {
            assert_eq!(position, self.known().next(), "the order has a gap");
            assert!(self.ahead() < WINDOW, "the window is full");
            let entry = self.entry(position);
            entry.position.store(position.0, Ordering::Relaxed);
            fill(entry);
            self.state.known.store(position.0, Ordering::SeqCst);
            self.pass_aborted()
        })
    }

    /// The next position aborted. Passing it may be somebody's turn.
    pub fn add_aborted(&self, position: Position) -> Option<Moved> {
        self.append(position, |entry| entry.set_kind(Kind::Aborted))
    }

    /// The next position is certified and its backend waits.
    pub fn add_local(&self, position: Position, depends_on: Position, owner: ProcNo) {
        self.append(position, |entry| {
            entry.owner.store(owner.0, Ordering::Relaxed);
            entry.depends_on.store(depends_on.0, Ordering::Relaxed);
            entry.set_kind(Kind::Local);
        });
    }

    /// The next position is certified and ours, but nobody waits for it.
    pub fn add_orphan(&self, position: Position, depends_on: Position) {
        self.append(position, |entry| {
            entry.depends_on.store(depends_on.0, Ordering::Relaxed);
            entry.set_kind(Kind::Orphan);
            self.state.orphans.fetch_add(1, Ordering::SeqCst);
        });
    }

    /// The next position is another node's, complete in the queue.
    pub fn add_queued(&self, job: &Job) {
        self.append(job.position, |entry| {
            entry.store(job);
            entry.set_kind(Kind::Queued);
            self.state.queued.fetch_add(1, Ordering::SeqCst);
        });
    }

    /// Its backend gave up: the position is to be applied from the log. Nothing happens if it was passed already.
    pub fn hand_over(&self, position: Position) {
        self.lock.exclusive(|| {
            if let Some(entry) = self.live(position)
                && entry.kind() == Kind::Local
            {
                entry.set_kind(Kind::Orphan);
                self.state.orphans.fetch_add(1, Ordering::SeqCst);
            }
        });
    }

    /// Orphans that nobody has asked for; they count as asked for from now on. With `again`, also those asked for on a
    /// link that is gone.
    pub fn take_orphans(&self, again: bool) -> Vec<Position> {
        if self.orphans() == 0 && !again {
            return Vec::new();
        }
        self.lock.exclusive(|| {
            let range = self.committed().0 + 1..=self.known().0;
            let wanted = |kind| kind == Kind::Orphan || (again && kind == Kind::Fetching);
            let found: Vec<Position> =
                range.map(Position).filter(|&p| self.live(p).is_some_and(|entry| wanted(entry.kind()))).collect();
            for &position in &found {
                self.entry(position).set_kind(Kind::Fetching);
            }
            self.state.orphans.store(0, Ordering::SeqCst);
            found
        })
    }

    /// An orphan's writeset is here. False if nobody asked for it (any more).
    pub fn requeue(&self, position: Position, node: NodeId, storage: Storage) -> bool {
        self.lock.exclusive(|| match self.live(position) {
            Some(entry) if entry.kind() == Kind::Fetching => {
                let depends_on = Position(entry.depends_on.load(Ordering::Relaxed));
                entry.store(&Job { position, depends_on, node, storage });
                entry.set_kind(Kind::Queued);
                self.state.queued.fetch_add(1, Ordering::SeqCst);
                self.state.claim_from.fetch_min(position.0, Ordering::SeqCst);
                true
            }
            _ => false,
        })
    }

    /// Gives the lowest queued position to a remote backend.
    pub fn claim(&self, worker: ProcNo) -> Option<Job> {
        if self.queued() == 0 {
            return None;
        }
        self.lock.exclusive(|| {
            let from = self.state.claim_from.load(Ordering::Relaxed).max(self.committed().0 + 1);
            let found =
                (from..=self.known().0).map(Position).find(|&p| self.live(p).is_some_and(|e| e.kind() == Kind::Queued));
            let next = found.map_or(self.known().0 + 1, |position| position.0 + 1);
            self.state.claim_from.store(next, Ordering::Relaxed);
            let position = found?;
            let entry = self.entry(position);
            entry.owner.store(worker.0, Ordering::Relaxed);
            entry.set_kind(Kind::Claimed);
            self.state.queued.fetch_sub(1, Ordering::SeqCst);
            Some(entry.job(position))
        })
    }

    /// A remote backend puts its position back.
    pub fn unclaim(&self, position: Position) {
        self.lock.exclusive(|| {
            if let Some(entry) = self.live(position)
                && entry.kind() == Kind::Claimed
            {
                entry.set_kind(Kind::Queued);
                self.state.queued.fetch_add(1, Ordering::SeqCst);
                self.state.claim_from.fetch_min(position.0, Ordering::SeqCst);
            }
        });
    }

    /// The turn is over: `position` is committed and visible. Called past the commit record, so it raises nothing.
    pub fn advance(&self, position: Position, lsn: Lsn) -> Option<Moved> {
        self.lock.exclusive(|| {
            if !self.is_turn(position) {
                return None;
            }
            self.state.commit_lsn.store(lsn.0, Ordering::SeqCst);
            self.pass(position);
            let moved = self.pass_aborted();
            Some(moved.unwrap_or_else(|| self.moved()))
        })
    }

    fn pass(&self, position: Position) {
        if let Some(entry) = self.live(position) {
            let end = entry.end.swap(0, Ordering::Relaxed);
            if end != 0 && !entry.in_file.load(Ordering::Relaxed) {
                self.state.ring_freed.store(end, Ordering::SeqCst);
            }
            entry.set_kind(Kind::Unknown);
        }
        self.state.committed.store(position.0, Ordering::SeqCst);
    }

    /// Under the lock.
    fn pass_aborted(&self) -> Option<Moved> {
        let mut passed = false;
        loop {
            let next = self.committed().next();
            match self.live(next) {
                Some(entry) if entry.kind() == Kind::Aborted => self.pass(next),
                _ => break,
            }
            passed = true;
        }
        passed.then(|| self.moved())
    }

    fn moved(&self) -> Moved {
        let committed = self.committed();
        let next_owner = self.live(committed.next()).and_then(|entry| match entry.kind() {
            Kind::Local | Kind::Claimed => Some(ProcNo(entry.owner.load(Ordering::Relaxed))),
            _ => None,
        });
        Moved { committed, next_owner, room_wanted: self.state.room_wanted.load(Ordering::SeqCst) }
    }

    pub fn want_room(&self, wanted: bool) {
        self.state.room_wanted.store(wanted, Ordering::SeqCst);
    }

    /// Takes `length` bytes of the queue's ring of `size`, in one piece; the offset, and what `Storage::Ring::end` is to be.
    /// The manager's.
    pub fn take_ring(&self, size: usize, length: usize) -> Option<(usize, u64)> {
        let size = size as u64;
        let used = self.state.ring_used.load(Ordering::SeqCst);
        let freed = self.state.ring_freed.load(Ordering::SeqCst);
        let offset = used % size;
        let (start, offset) = if offset + length as u64 > size { (used + (size - offset), 0) } else { (used, offset) };
        let end = start + length as u64;
        if end - freed > size {
            return None;
        }
        self.state.ring_used.store(end, Ordering::SeqCst);
        Some((offset as usize, end))
    }
}

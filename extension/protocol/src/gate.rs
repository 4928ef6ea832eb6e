//! The gate: on every node, writesets commit and become visible strictly in position order.
//!
//! Position p may commit when the committed position is p - 1: then it is p's *turn*. A ring holds one entry for every position above the
//! committed one of which this node has heard. The process that commits a position moves the committed position, passes over aborted
//! positions behind it, and wakes the process whose turn is next.
//!
//! Invariants:
//! - The committed position moves only after the transaction has left PostgreSQL's process array, so a snapshot that is taken after
//!   the committed position was read sees everything up to it.
//! - The committed position is moved only by the process whose turn it is, or, over aborted positions, by whoever holds the lock.
//! - An entry leaves the ring by being passed, never otherwise: certified means committed.
//! - The committed position moves over a run ([`crate::run`]) in one step: nobody reads a position in the middle of it as the committed one.
//!
//! What an entry can turn into, by whom; every step is asserted ([`Kind::may_become`]):
//!
//! | from | to | by | through |
//! |---|---|---|---|
//! | `Unknown` | `Aborted`, `Local`, `Orphan`, `Queued` | the manager, as the position comes by | `add_*` |
//! | `Local` | `Orphan` | the backend that can't finish; the manager, for a backend that has left | [`Gate::hand_over`] |
//! | `Orphan` | `Fetching` | the manager | [`Gate::take_orphans`] |
//! | `Fetching` | `Queued` | the manager | [`Gate::requeue`] |
//! | `Queued` | `Claimed` | a remote backend | [`Gate::claim_run`] |
//! | `Claimed` | `Queued` | the same, when it rolls back or ends | [`Gate::unclaim`], [`Gate::break_up`] |
//! | `Aborted`, `Local`, `Claimed` | `Unknown` | whoever moves the committed position | [`Gate::advance`] |
//!
//! Bound: as many positions ahead of the committed one as the ring has entries ([`crate::bounds::WINDOW`]). At the bound the manager stops
//! reading from gcs.

mod entry;
mod run;
#[cfg(test)]
mod tests;

use gcs_writeset::{NodeId, Position};

use crate::bounds::RUN_PAUSE;
use crate::id::{Lsn, ProcNo};
use crate::platform::{Exclusion, Planted, Platform};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};

pub use entry::{Entry, Job, Kind, Storage};
pub use run::{Most, Run};

/// The gate's part of shared memory, but for the ring of entries.
#[derive(Default)]
pub struct Header {
    committed: AtomicU64,
    /// Entries are there for committed + 1 ..= known.
    known: AtomicU64,
    /// Where the commit record of the newest commit ends.
    commit_lsn: AtomicU64,
    /// Everything up to here survives a crash of this server.
    flushed: AtomicU64,
    /// No queued entry lies below it.
    claim_from: AtomicU64,
    /// Up to here no position is in a run with others.
    alone_until: AtomicU64,
    queued: AtomicU32,
    /// Positions ahead that a remote backend is to commit.
    to_apply: AtomicU32,
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

/// The committed position moved: who is to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    pub committed: Position,
    pub next_owner: Option<ProcNo>,
    pub room_wanted: bool,
}

pub struct Gate<P: Platform> {
    state: P::Shared<Header>,
    ring: P::Shared<[Entry]>,
    lock: P::Lock,
}

impl<P: Platform> Gate<P> {
    pub fn new(state: P::Shared<Header>, ring: P::Shared<[Entry]>, lock: P::Lock) -> Gate<P> {
        Gate { state, ring, lock }
    }

    /// Forgets everything; positions go on after `committed`.
    pub fn reset(&self, committed: Position) {
        self.lock.exclusive(|| {
            self.ring.iter().for_each(Entry::clear);
            let state = &self.state;
            state.known.store(committed.0, Ordering::SeqCst);
            state.claim_from.store(committed.0 + 1, Ordering::SeqCst);
            state.alone_until.store(0, Ordering::SeqCst);
            state.queued.store(0, Ordering::SeqCst);
            state.to_apply.store(0, Ordering::SeqCst);
            state.orphans.store(0, Ordering::SeqCst);
            state.ring_freed.store(0, Ordering::SeqCst);
            state.ring_used.store(0, Ordering::SeqCst);
            state.commit_lsn.store(0, Ordering::SeqCst);
            // What the server came up with is on its disk.
            state.flushed.store(committed.0, Ordering::SeqCst);
            state.oldest_base.store(committed.0, Ordering::SeqCst);
            state.room_wanted.store(false, Ordering::SeqCst);
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
        Position(self.state.oldest_base.load(Ordering::SeqCst))
    }

    pub fn set_oldest_base(&self, base: Position) {
        self.state.oldest_base.store(base.0, Ordering::SeqCst);
    }

    pub fn flushed(&self) -> Position {
        Position(self.state.flushed.load(Ordering::SeqCst))
    }

    pub fn set_flushed(&self, position: Position) {
        self.state.flushed.store(position.0, Ordering::SeqCst);
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
            Some((next, entry.owner()))
        })
    }

    /// Whether this position waits for that backend of this node to commit it.
    pub fn is_local_of(&self, position: Position, owner: ProcNo) -> bool {
        self.lock.shared(|| self.live(position).is_some_and(|entry| entry.kind() == Kind::Local && entry.owner() == owner))
    }

    /// The node that a position came from, while it is ahead.
    pub fn origin(&self, position: Position) -> Option<NodeId> {
        self.lock.shared(|| self.live(position).map(Entry::node))
    }

    /// Positions known ahead of the committed one.
    pub fn ahead(&self) -> u64 {
        self.known().0.saturating_sub(self.committed().0)
    }

    /// Those among them that are for remote backends to commit, and not for this node's clients.
    pub fn to_apply(&self) -> u64 {
        u64::from(self.state.to_apply.load(Ordering::SeqCst))
    }

    /// How many positions ahead there is room for.
    pub fn window(&self) -> u64 {
        self.ring.len() as u64
    }

    pub fn queued(&self) -> u32 {
        self.state.queued.load(Ordering::SeqCst)
    }

    pub fn orphans(&self) -> u32 {
        self.state.orphans.load(Ordering::SeqCst)
    }

    fn entry(&self, position: Position) -> &Entry {
        &self.ring[(position.0 % self.window()) as usize]
    }

    /// The position's entry, unless it was passed or never came. Under the lock.
    fn live(&self, position: Position) -> Option<&Entry> {
        let is_ahead = position > self.committed() && position <= self.known();
        is_ahead.then(|| self.entry(position)).filter(|entry| entry.is_of(position))
    }

    fn append(&self, position: Position, kind: Kind, fill: impl FnOnce(&Entry)) -> Option<Moved> {
        self.lock.exclusive(|| {
            assert_eq!(position, self.known().next(), "the order has a gap");
            assert!(self.ahead() < self.window(), "the window is full");
            let entry = self.entry(position);
            entry.begin(position);
            fill(entry);
            entry.become_kind(kind);
            self.state.known.store(position.0, Ordering::SeqCst);
            self.pass_aborted()
        })
    }

    /// The next position aborted. If all before it are committed, it is passed over at once, and that may be some process's turn.
    pub fn add_aborted(&self, position: Position) -> Option<Moved> {
        self.append(position, Kind::Aborted, |_| {})
    }

    /// The next position is certified, and a process that has done all of it waits for it: its backend, or a forerunner.
    pub fn add_local(&self, position: Position, depends_on: Position, (node, owner): (NodeId, ProcNo)) {
        self.append(position, Kind::Local, |entry| {
            entry.set_owner(owner);
            entry.set_node(node);
            entry.set_depends_on(depends_on);
        });
    }

    /// The same, but no process waits for it.
    pub fn add_orphan(&self, position: Position, depends_on: Position, node: NodeId) {
        self.append(position, Kind::Orphan, |entry| {
            entry.set_node(node);
            entry.set_depends_on(depends_on);
            self.state.orphans.fetch_add(1, Ordering::SeqCst);
            self.state.to_apply.fetch_add(1, Ordering::SeqCst);
        });
    }

    /// The next position is another node's, complete in the queue.
    pub fn add_queued(&self, job: &Job) {
        self.append(job.position, Kind::Queued, |entry| {
            entry.store(job);
            self.state.queued.fetch_add(1, Ordering::SeqCst);
            self.state.to_apply.fetch_add(1, Ordering::SeqCst);
        });
    }

    /// The position's backend will not commit it: it is to be applied from the log. False, and nothing happens, if it was passed or handed over
    /// already.
    pub fn hand_over(&self, position: Position) -> bool {
        self.lock.exclusive(|| match self.live(position) {
            Some(entry) if entry.kind() == Kind::Local => {
                entry.become_kind(Kind::Orphan);
                self.state.orphans.fetch_add(1, Ordering::SeqCst);
                self.state.to_apply.fetch_add(1, Ordering::SeqCst);
                true
            }
            _ => false,
        })
    }

    /// Orphans that nobody has asked for; they count as asked for from now on. With `again`, also those that were asked for on a
    /// connection that is gone.
    pub fn take_orphans(&self, again: bool) -> Vec<Position> {
        if self.orphans() == 0 && !again {
            return Vec::new();
        }
        self.lock.exclusive(|| {
            let mut found = Vec::new();
            for position in (self.committed().0 + 1..=self.known().0).map(Position) {
                match self.live(position).map(|entry| (entry, entry.kind())) {
                    Some((entry, Kind::Orphan)) => entry.become_kind(Kind::Fetching),
                    Some((_, Kind::Fetching)) if again => {}
                    _ => continue,
                }
                found.push(position);
            }
            self.state.orphans.store(0, Ordering::SeqCst);
            found
        })
    }

    /// Whether there are orphans that were asked for and have not come.
    pub fn is_fetching(&self) -> bool {
        self.lock.shared(|| {
            let ahead = (self.committed().0 + 1..=self.known().0).map(Position);
            ahead.filter_map(|position| self.live(position)).any(|entry| entry.kind() == Kind::Fetching)
        })
    }

    /// An orphan's writeset is here. False if nobody asked for it (any more).
    pub fn requeue(&self, position: Position, storage: Storage) -> bool {
        if P::planted(Planted::OrphanNotQueued) {
            return true;
        }
        self.lock.exclusive(|| match self.live(position) {
            Some(entry) if entry.kind() == Kind::Fetching => {
                let (depends_on, node) = (entry.depends_on(), entry.node());
                entry.store(&Job { position, depends_on, node, storage });
                self.queue_again(entry, position);
                true
            }
            _ => false,
        })
    }

    /// Gives the lowest queued position to a remote backend.
    pub fn claim(&self, worker: ProcNo) -> Option<Job> {
        self.claim_run(worker, Most::ONE).pop()
    }

    /// Gives the lowest queued position to a remote backend, and those behind it that may be committed together with it; in order, none if nothing
    /// is queued.
    pub fn claim_run(&self, worker: ProcNo, most: Most) -> Vec<Job> {
        if self.queued() == 0 {
            return Vec::new();
        }
        self.lock.exclusive(|| {
            let first = self.find_queued();
            let jobs = first.map_or_else(Vec::new, |first| self.run_from(first, most));
            let next = jobs.last().map_or(self.known(), |job| job.position).next();
            self.state.claim_from.store(next.0, Ordering::SeqCst);
            for job in &jobs {
                let entry = self.entry(job.position);
                entry.set_owner(worker);
                entry.become_kind(Kind::Claimed);
            }
            self.state.queued.fetch_sub(jobs.len() as u32, Ordering::SeqCst);
            jobs
        })
    }

    /// The queued positions from `first` on that may be committed together. Under the lock.
    fn run_from(&self, first: Position, most: Most) -> Vec<Job> {
        let mut jobs = vec![self.entry(first).job(first)];
        let may_have_more = first.0 > self.state.alone_until.load(Ordering::SeqCst);
        let mut room = jobs[0].bytes_in_ring().filter(|_| may_have_more).and_then(|bytes| most.bytes.checked_sub(bytes));
        let waits_for = jobs[0].depends_on.max(self.committed());
        for position in (first.0 + 1..=self.known().0).map(Position) {
            let Some(left) = room.filter(|_| jobs.len() < most.positions) else { break };
            match self.live(position).map(|entry| (entry.kind(), entry.job(position))) {
                Some((Kind::Queued, job))
                    if P::planted(Planted::RunAheadOfDependency) || job.may_follow(first, waits_for) =>
                {
                    let Some(after) = job.bytes_in_ring().and_then(|bytes| left.checked_sub(bytes)) else { break };
                    room = Some(after);
                    jobs.push(job);
                }
                // Passed over with what is around it.
                Some((Kind::Aborted, _)) => {}
                _ => break,
            }
        }
        jobs
    }

    /// The lowest position that is queued and that no remote backend has.
    pub fn lowest_queued(&self) -> Option<Position> {
        if self.queued() == 0 {
            return None;
        }
        self.lock.shared(|| self.find_queued())
    }

    /// Under the lock.
    fn find_queued(&self) -> Option<Position> {
        let from = self.state.claim_from.load(Ordering::SeqCst).max(self.committed().0 + 1);
        let is_queued = |&position: &Position| self.live(position).is_some_and(|entry| entry.kind() == Kind::Queued);
        (from..=self.known().0).map(Position).find(is_queued)
    }

    /// A remote backend will not finish what it claimed, from this position on: another may. Nothing happens if it was committed.
    pub fn unclaim(&self, first: Position) {
        self.lock.exclusive(|| self.give_back(first));
    }

    /// The same of a run that came to nothing: its positions and [`RUN_PAUSE`] behind them are given one at a time from now on.
    pub fn break_up(&self, run: Run) {
        self.lock.exclusive(|| {
            self.state.alone_until.fetch_max(run.last.0 + RUN_PAUSE, Ordering::SeqCst);
            self.give_back(run.first);
        });
    }

    /// Under the lock.
    fn give_back(&self, first: Position) {
        let Some(owner) = self.live(first).filter(|entry| entry.kind() == Kind::Claimed).map(Entry::owner) else { return };
        for position in (first.0..=self.known().0).map(Position) {
            match self.live(position) {
                Some(entry) if entry.kind() == Kind::Claimed && entry.owner() == owner => self.queue_again(entry, position),
                Some(entry) if entry.kind() == Kind::Aborted => {}
                _ => break,
            }
        }
    }

    /// Under the lock.
    fn queue_again(&self, entry: &Entry, position: Position) {
        entry.become_kind(Kind::Queued);
        self.state.queued.fetch_add(1, Ordering::SeqCst);
        self.state.claim_from.fetch_min(position.0, Ordering::SeqCst);
    }

    /// The turn is over: these positions are committed and visible. Called past the commit record, so it raises nothing.
    pub fn advance(&self, run: Run, lsn: Lsn) -> Option<Moved> {
        self.lock.exclusive(|| {
            if !self.is_turn(run.first) {
                return None;
            }
            self.state.commit_lsn.store(lsn.0, Ordering::SeqCst);
            self.pass(run);
            let moved = self.pass_aborted();
            Some(moved.unwrap_or_else(|| self.moved()))
        })
    }

    /// Under the lock.
    fn pass(&self, run: Run) {
        for position in (run.first.0..=run.last.0).map(Position) {
            if let Some(entry) = self.live(position) {
                if let Some(freed) = entry.take_ring_end() {
                    self.state.ring_freed.store(freed, Ordering::SeqCst);
                }
                if entry.kind() == Kind::Claimed {
                    self.state.to_apply.fetch_sub(1, Ordering::SeqCst);
                }
                entry.become_kind(Kind::Unknown);
            }
        }
        self.state.committed.store(run.last.0, Ordering::SeqCst);
    }

    /// Under the lock.
    fn pass_aborted(&self) -> Option<Moved> {
        let mut passed = false;
        loop {
            let next = self.committed().next();
            match self.live(next) {
                Some(entry) if entry.kind() == Kind::Aborted => self.pass(Run::of(next)),
                _ => break,
            }
            passed = true;
        }
        passed.then(|| self.moved())
    }

    /// What the last move of the committed position came to.
    pub fn moved_last(&self) -> Moved {
        self.lock.shared(|| self.moved())
    }

    /// Under the lock.
    fn moved(&self) -> Moved {
        let committed = self.committed();
        let next_owner = self.live(committed.next()).and_then(|entry| match entry.kind() {
            Kind::Local | Kind::Claimed => Some(entry.owner()),
            _ => None,
        });
        let next_owner = next_owner.filter(|_| !P::planted(Planted::TurnWakesNobody));
        Moved { committed, next_owner, room_wanted: self.state.room_wanted.load(Ordering::SeqCst) }
    }

    pub fn want_room(&self, wanted: bool) {
        self.state.room_wanted.store(wanted, Ordering::SeqCst);
    }

    /// Whether the manager has stopped reading for want of room.
    pub fn is_room_wanted(&self) -> bool {
        self.state.room_wanted.load(Ordering::SeqCst)
    }

    /// Takes `length` bytes of the queue's ring of `size`, in one piece; the offset, and what `Storage::Ring::end` is to be. None if there is
    /// no room now. The manager's.
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

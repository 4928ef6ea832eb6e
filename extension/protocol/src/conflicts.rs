//! Conflicts lost on this node: what `postgres_r.conflicts` and `postgres_r.conflict_counts` show, and what the loser is told.
//!
//! Two bounded memories a database, both until the server starts again: the last [`crate::bounds::CONFLICTS_KEPT`] conflicts, and counts for each table and
//! kind of key, of which there are [`crate::bounds::CONFLICTS_COUNTED`]; what comes when these are all taken counts under no name, so that the sum stays
//! right. Values of keys are kept as the loser was told them: without, where its role may not see them.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use gcs_writeset::Position;
use gcs_writeset::bounds::CONFLICTS_TOLD_MAX;
use gcs_writeset::link::ConflictCount;

use crate::bounds::{KEY_BYTES, NAME_BYTES, TABLE_BYTES};
use crate::id::RoleId;
use crate::numbered::{Atomic, Numbered};
use crate::platform::{Exclusion, Platform};
use crate::text::Text;

crate::numbered! {
    /// What became of the loser.
    #[derive(Default)]
    pub enum Kind else Certification {
        /// It was ordered after the winner, which had changed the same.
        #[default]
        Certification = 0,
        /// It held a lock that the winner needed, and had not been submitted.
        Victim = 1,
        /// It was certified, but held a lock that an earlier position needed: committed from the log, not by its session.
        Yielded = 2,
    }
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Certification => "certification",
            Kind::Victim => "victim",
            Kind::Yielded => "yielded",
        }
    }
}

const KINDS: usize = 3;

/// What a transaction of this process lost, to whom, and over what.
#[derive(Clone, Debug)]
pub struct Conflict {
    pub kind: Kind,
    /// Empty where it is not known.
    pub table: String,
    /// `(id)=(3)`; without the values where the role may not see them, an index where there are none; empty for a whole table.
    pub key: String,
    pub position: Position,
    pub node: String,
    pub application: Option<String>,
}

/// The transaction that lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loser {
    pub pid: i32,
    pub role: RoleId,
    pub application: String,
}

/// `(id)` of `(id)=(3)`.
fn columns(key: &str) -> &str {
    key.split_once(")=(").map_or(key, |(columns, _)| &key[..columns.len() + 1])
}

#[derive(Default)]
pub struct Entry {
    kind: Atomic<Kind>,
    /// Microseconds since 2000; 0 for an entry that was never used.
    at: AtomicI64,
    pid: AtomicU32,
    role: AtomicU32,
    position: AtomicU64,
    table: Text<TABLE_BYTES>,
    key: Text<KEY_BYTES>,
    node: Text<NAME_BYTES>,
    winner: Text<NAME_BYTES>,
    loser: Text<NAME_BYTES>,
}

#[derive(Default)]
pub struct Count {
    used: AtomicU32,
    table: Text<TABLE_BYTES>,
    key: Text<KEY_BYTES>,
    by_kind: [AtomicU64; KINDS],
    last_at: AtomicI64,
    /// Whose transaction won last, and where.
    winner: Text<NAME_BYTES>,
    position: AtomicU64,
}

#[derive(Default)]
pub struct Memory {
    noted: AtomicU64,
    /// What no counter was left for.
    other: Count,
}

pub struct Conflicts<P: Platform> {
    lock: P::Lock,
    memory: P::Shared<Memory>,
    entries: P::Shared<[Entry]>,
    counts: P::Shared<[Count]>,
}

/// One conflict as it is shown.
pub struct Shown {
    pub at: i64,
    pub kind: Kind,
    pub role: RoleId,
    pub pid: i32,
    pub table: String,
    pub key: String,
    pub node: String,
    pub position: Position,
    pub winner: String,
    pub loser: String,
}

/// One table and kind of key as it is shown; neither has a name for the rest.
pub struct Counted {
    pub table: Option<String>,
    pub key: Option<String>,
    pub by_kind: [u64; KINDS],
    pub last_at: i64,
    /// The node whose transaction won last, and the transaction's position.
    pub winner: String,
    pub position: Position,
}

impl<P: Platform> Conflicts<P> {
    pub fn new(
        lock: P::Lock,
        memory: P::Shared<Memory>,
        entries: P::Shared<[Entry]>,
        counts: P::Shared<[Count]>,
    ) -> Conflicts<P> {
        Conflicts { lock, memory, entries, counts }
    }

    pub fn clear(&self) {
        self.lock.exclusive(|| {
            self.entries.iter().for_each(|entry| entry.at.store(0, Ordering::Relaxed));
            self.counts.iter().chain([&self.memory.other]).for_each(Count::clear);
        });
    }

    /// Keeps and counts a conflict, lost `at` that time. Also called while an error is being reported: raises nothing, reads no catalog.
    pub fn note(&self, conflict: &Conflict, loser: &Loser, at: i64) {
        self.lock.exclusive(|| {
            let number = self.memory.noted.fetch_add(1, Ordering::Relaxed);
            let entry = &self.entries[number as usize % self.entries.len()];
            entry.kind.store(conflict.kind);
            entry.at.store(at, Ordering::Relaxed);
            entry.pid.store(loser.pid as u32, Ordering::Relaxed);
            entry.role.store(loser.role.0, Ordering::Relaxed);
            entry.position.store(conflict.position.0, Ordering::Relaxed);
            entry.table.set(&conflict.table);
            entry.key.set(&conflict.key);
            entry.node.set(&conflict.node);
            entry.winner.set(conflict.application.as_deref().unwrap_or_default());
            entry.loser.set(&loser.application);
            self.counter(&conflict.table, columns(&conflict.key)).add(conflict, at);
        });
    }

    /// Under the lock.
    fn counter(&self, table: &str, key: &str) -> &Count {
        for count in self.counts.iter() {
            if count.used.load(Ordering::Relaxed) == 0 {
                count.table.set(table);
                count.key.set(key);
                count.used.store(1, Ordering::Relaxed);
                return count;
            }
            if count.table.is(table) && count.key.is(key) {
                return count;
            }
        }
        &self.memory.other
    }

    /// The newest first.
    pub fn shown(&self) -> Vec<Shown> {
        let mut shown: Vec<Shown> = self.lock.shared(|| {
            let used = self.entries.iter().filter(|entry| entry.at.load(Ordering::Relaxed) != 0);
            used.map(Entry::show).collect()
        });
        shown.sort_by_key(|one| std::cmp::Reverse(one.at));
        shown
    }

    pub fn counted(&self) -> Vec<Counted> {
        self.lock.shared(|| {
            let used = self.counts.iter().filter(|count| count.used.load(Ordering::Relaxed) != 0);
            let named = used.map(|count| count.show(Some(count.table.get()), Some(count.key.get())));
            let other = self.memory.other.show(None, None);
            let is_used = other.by_kind.iter().any(|&count| count > 0);
            named.chain(is_used.then_some(other)).collect()
        })
    }
}

/// For those who look on: where most was lost first.
pub fn told(mut counted: Vec<Counted>) -> Vec<ConflictCount> {
    counted.sort_by_key(|one| std::cmp::Reverse(one.by_kind.iter().sum::<u64>()));
    counted.truncate(CONFLICTS_TOLD_MAX);
    let told = counted.into_iter().map(|one| {
        let [certification, victim, yielded] = one.by_kind;
        ConflictCount {
            table: one.table.unwrap_or_default(),
            key: one.key.unwrap_or_default(),
            certification,
            victim,
            yielded,
            winner: one.winner,
            position: one.position,
            last_at: one.last_at.unsigned_abs(),
        }
    });
    told.collect()
}

impl Entry {
    fn show(&self) -> Shown {
        Shown {
            at: self.at.load(Ordering::Relaxed),
            kind: self.kind.load(),
            role: RoleId(self.role.load(Ordering::Relaxed)),
            pid: self.pid.load(Ordering::Relaxed) as i32,
            table: self.table.get(),
            key: self.key.get(),
            node: self.node.get(),
            position: Position(self.position.load(Ordering::Relaxed)),
            winner: self.winner.get(),
            loser: self.loser.get(),
        }
    }
}

impl Count {
    fn add(&self, conflict: &Conflict, at: i64) {
        self.by_kind[conflict.kind.number() as usize].fetch_add(1, Ordering::Relaxed);
        self.last_at.store(at, Ordering::Relaxed);
        self.winner.set(&conflict.node);
        self.position.store(conflict.position.0, Ordering::Relaxed);
    }

    fn show(&self, table: Option<String>, key: Option<String>) -> Counted {
        let by_kind = std::array::from_fn(|kind| self.by_kind[kind].load(Ordering::Relaxed));
        Counted {
            table,
            key,
            by_kind,
            last_at: self.last_at.load(Ordering::Relaxed),
            winner: self.winner.get(),
            position: Position(self.position.load(Ordering::Relaxed)),
        }
    }

    fn clear(&self) {
        self.used.store(0, Ordering::Relaxed);
        self.by_kind.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }
}

//! Conflicts lost on this node: what `postgres_r.conflicts` and `postgres_r.conflict_counts` show, and what the loser is told.
//!
//! Two bounded memories a database, both until the server starts again: the last [`KEPT`] conflicts, and counts for each table and
//! kind of key, of which there are [`COUNTED`]; what comes when these are all taken counts under no name, so that the sum stays
//! right. Values of keys are kept as the loser was told them: without, where its role may not see them.

use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};

use gcs_writeset::{NodeId, Position};
use pgrx::pg_sys;

use crate::pg::lock::Lock;
use crate::pg::shmem::{Arena, Text, bytes_of};
use crate::pg::{clock, process, role, setting};
use crate::shmem::{DatabaseArea, NAME};
use crate::submit::slot::Winner;

/// Conflicts that are kept of each database.
const KEPT: usize = 256;

/// Tables and kinds of keys that are counted apart.
const COUNTED: usize = 128;

/// What became of the loser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// It was ordered after the winner, which had changed the same.
    Certification = 0,
    /// It held a lock that the winner needed, and had not been submitted.
    Victim = 1,
    /// It was certified, but held a lock that an earlier position needed: committed from the log, not by its session.
    Yielded = 2,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Certification => "certification",
            Kind::Victim => "victim",
            Kind::Yielded => "yielded",
        }
    }

    fn of(number: u32) -> Kind {
        match number {
            1 => Kind::Victim,
            2 => Kind::Yielded,
            _ => Kind::Certification,
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

impl Conflict {
    pub fn new(
        area: &DatabaseArea,
        kind: Kind,
        (table, key): (String, String),
        position: Position,
        node: NodeId,
    ) -> Conflict {
        let (node, application) = (area.state.node_name(node), area.recent.application(position));
        Conflict { kind, table, key, position, node, application }
    }

    pub fn of_winner(area: &DatabaseArea, kind: Kind, winner: Winner) -> Conflict {
        Conflict::new(area, kind, (winner.table, winner.key), winner.position, winner.node)
    }

    /// Keeps and counts it; gives it back.
    pub fn noted(self, area: &DatabaseArea) -> Conflict {
        area.conflicts.note(&self);
        self
    }
}

/// `(id)` of `(id)=(3)`.
fn columns(key: &str) -> &str {
    key.split_once(")=(").map_or(key, |(columns, _)| &key[..columns.len() + 1])
}

#[derive(Default)]
struct Entry {
    kind: AtomicU32,
    /// Microseconds since 2000; 0 for an entry that was never used.
    at: AtomicI64,
    pid: AtomicI32,
    role: AtomicU32,
    position: AtomicU64,
    table: Text<128>,
    key: Text<128>,
    node: Text<NAME>,
    winner: Text<NAME>,
    loser: Text<NAME>,
}

#[derive(Default)]
struct Count {
    used: AtomicU32,
    table: Text<128>,
    key: Text<128>,
    by_kind: [AtomicU64; KINDS],
    last_at: AtomicI64,
}

#[derive(Default)]
struct State {
    noted: AtomicU64,
    /// What no counter was left for.
    other: Count,
}

pub struct Conflicts {
    lock: Lock,
    state: &'static State,
    entries: &'static [Entry],
    counts: &'static [Count],
}

/// One conflict as it is shown.
pub struct Shown {
    pub at: i64,
    pub kind: Kind,
    pub role: pg_sys::Oid,
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
}

impl Conflicts {
    pub fn bytes() -> usize {
        bytes_of::<State>(1) + bytes_of::<Entry>(KEPT) + bytes_of::<Count>(COUNTED)
    }

    pub fn lay_out(arena: &mut Arena) -> Conflicts {
        Conflicts {
            lock: arena.lock(),
            state: &arena.slice::<State>(1)[0],
            entries: arena.slice::<Entry>(KEPT),
            counts: arena.slice::<Count>(COUNTED),
        }
    }

    pub fn clear(&self) {
        self.lock.exclusive(|| {
            self.entries.iter().for_each(|entry| entry.at.store(0, Ordering::Relaxed));
            self.counts.iter().chain([&self.state.other]).for_each(Count::clear);
        });
    }

    /// Also called while an error is being reported: raises nothing, reads no catalog.
    fn note(&self, conflict: &Conflict) {
        let (at, loser) = (clock::now(), setting::application_name());
        self.lock.exclusive(|| {
            let number = self.state.noted.fetch_add(1, Ordering::Relaxed);
            let entry = &self.entries[number as usize % KEPT];
            entry.kind.store(conflict.kind as u32, Ordering::Relaxed);
            entry.at.store(at, Ordering::Relaxed);
            entry.pid.store(process::my_pid(), Ordering::Relaxed);
            entry.role.store(role::outer().to_u32(), Ordering::Relaxed);
            entry.position.store(conflict.position.0, Ordering::Relaxed);
            entry.table.set(&conflict.table);
            entry.key.set(&conflict.key);
            entry.node.set(&conflict.node);
            entry.winner.set(conflict.application.as_deref().unwrap_or_default());
            entry.loser.set(&loser);
            self.counter(&conflict.table, columns(&conflict.key)).add(conflict.kind, at);
        });
    }

    /// Under the lock.
    fn counter(&self, table: &str, key: &str) -> &Count {
        for count in self.counts {
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
        &self.state.other
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
            let other = self.state.other.show(None, None);
            let is_used = other.by_kind.iter().any(|&count| count > 0);
            named.chain(is_used.then_some(other)).collect()
        })
    }
}

impl Entry {
    fn show(&self) -> Shown {
        Shown {
            at: self.at.load(Ordering::Relaxed),
            kind: Kind::of(self.kind.load(Ordering::Relaxed)),
            role: pg_sys::Oid::from(self.role.load(Ordering::Relaxed)),
            pid: self.pid.load(Ordering::Relaxed),
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
    fn add(&self, kind: Kind, at: i64) {
        self.by_kind[kind as usize].fetch_add(1, Ordering::Relaxed);
        self.last_at.store(at, Ordering::Relaxed);
    }

    fn show(&self, table: Option<String>, key: Option<String>) -> Counted {
        let by_kind = std::array::from_fn(|kind| self.by_kind[kind].load(Ordering::Relaxed));
        Counted { table, key, by_kind, last_at: self.last_at.load(Ordering::Relaxed) }
    }

    fn clear(&self) {
        self.used.store(0, Ordering::Relaxed);
        self.by_kind.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }
}

//! The leases of sequences that this node has, and what its processes ask the leaser for: one table for each replicated database.
//!
//! | field of an entry | written by |
//! |---|---|
//! | sequence and file, the ranges | the leaser, under the exclusive lock |
//! | what is asked for | a process that needs values, under the exclusive lock |
//! | the last value given | whoever gives one: a hint, nothing is decided by it that matters |
//!
//! Values are this node's only while the sequence still has the file that they were leased for: whatever starts a sequence again (ALTER
//! SEQUENCE, TRUNCATE ... RESTART IDENTITY, setval) gives it another. An entry that makes room for another sequence, and all of them after a
//! crash, cost the values that were left: what was once given out is never given again.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use pgrx::pg_sys;
use postgres_r_protocol::id::Holds;
use postgres_r_protocol::lease::{Range, SIZE_MIN, next_size};
use postgres_r_protocol::numbered::Atomic;
use postgres_r_protocol::platform::Exclusion;

use crate::pg::clock;
use crate::pg::lock::Lock;
use crate::pg::shmem::Condition;

/// Sequences of one database that have leases at a time; then the one makes room whose lease is the oldest.
pub const LEASES: usize = 1024;

/// Places that a sequence may have in the table.
const PLACES: usize = 8;

postgres_r_protocol::numbered! {
    #[derive(Default)]
    enum Want else Nothing {
        #[default]
        Nothing = 0,
        Lease = 1,
        /// The leaser is at it.
        Working = 2,
    }
}

postgres_r_protocol::numbered! {
    /// How the last request of an entry ended.
    #[derive(Default)]
    pub enum Outcome else Failed {
        #[default]
        Granted = 0,
        /// The group has given out all values.
        Exhausted = 1,
        NoGroup = 2,
        TimedOut = 3,
        Failed = 4,
    }
}

#[derive(Default)]
struct Span {
    is_there: AtomicBool,
    first: AtomicI64,
    last: AtomicI64,
}

impl Span {
    fn get(&self) -> Option<Range> {
        let range = Range { first: self.first.load(Ordering::Relaxed), last: self.last.load(Ordering::Relaxed) };
        self.is_there.load(Ordering::Relaxed).then_some(range)
    }

    fn set(&self, range: Option<Range>) {
        if let Some(range) = range {
            self.first.store(range.first, Ordering::Relaxed);
            self.last.store(range.last, Ordering::Relaxed);
        }
        self.is_there.store(range.is_some(), Ordering::Relaxed);
    }
}

#[derive(Default)]
pub struct Entry {
    /// 0 if it is free.
    sequence: AtomicU32,
    file: AtomicU32,
    current: Span,
    /// Leased ahead of its use.
    following: Span,
    /// What was granted last.
    latest: Span,
    increment: AtomicI64,
    given: AtomicI64,
    size: AtomicU32,
    leased_at: AtomicI64,
    want: Atomic<Want>,
    has_reach: AtomicBool,
    reach: AtomicI64,
    at_least: AtomicU32,
    /// Requests that were made, and how many of them are answered.
    asked: AtomicU64,
    answered: AtomicU64,
    outcome: Atomic<Outcome>,
}

/// A sequence as its catalog entry is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    pub oid: pg_sys::Oid,
    pub file: pg_sys::Oid,
}

/// What the leases say to a value that the sequence came up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It is this node's. `soon`: the next lease is to be asked for.
    Give { soon: bool },
    /// The sequence is to go on from here.
    SkipTo(i64),
    /// No lease has it.
    Ask,
}

/// A request, as the one who waits for it knows it.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    index: usize,
    number: u64,
}

/// A request, as the leaser knows it.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub index: usize,
    number: u64,
    pub sequence: pg_sys::Oid,
    pub size: u32,
    pub reach: Option<i64>,
}

/// What the group has given to this node.
#[derive(Clone, Copy, Debug)]
pub struct Granted {
    /// The sequence's file.
    pub file: pg_sys::Oid,
    /// The last value that the group had given out before.
    pub after: Option<i64>,
    pub range: Range,
    pub increment: i64,
}

pub struct Leases {
    entries: &'static [Entry],
    lock: Lock,
    answered: &'static Condition,
    pub leaser: &'static Holds,
}

impl Leases {
    pub fn new(entries: &'static [Entry], lock: Lock, answered: &'static Condition, leaser: &'static Holds) -> Leases {
        Leases { entries, lock, answered, leaser }
    }

    /// For a database that begins to be replicated.
    pub fn clear(&self) {
        self.lock.exclusive(|| {
            for entry in self.entries {
                entry.sequence.store(0, Ordering::Relaxed);
                entry.want.store(Want::Nothing);
                entry.answered.store(entry.asked.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        });
    }

    fn places(&self, sequence: pg_sys::Oid) -> impl Iterator<Item = usize> + '_ {
        let start = (sequence.to_u32().wrapping_mul(0x9E37_79B1) >> 16) as usize;
        (0..PLACES).map(move |step| (start + step) % self.entries.len())
    }

    fn find(&self, sequence: pg_sys::Oid) -> Option<(usize, &'static Entry)> {
        let is_it = |index: &usize| self.entries[*index].sequence.load(Ordering::Relaxed) == sequence.to_u32();
        self.places(sequence).find(is_it).map(|index| (index, &self.entries[index]))
    }

    /// Whether there are values left, as far as is known without drawing one.
    pub fn has_left(&self, of: Sequence) -> bool {
        self.lock.shared(|| {
            self.find(of.oid).is_some_and(|(_, entry)| {
                let end = entry.following.get().or(entry.current.get());
                entry.is_for(of) && end.is_some_and(|range| range.last != entry.given.load(Ordering::Relaxed))
            })
        })
    }

    /// What to do with a value that was drawn.
    pub fn judge(&self, of: Sequence, value: i64) -> Word {
        let word = self.lock.shared(|| {
            let Some((_, entry)) = self.find(of.oid).filter(|(_, entry)| entry.is_for(of)) else { return Some(Word::Ask) };
            let (current, following) = (entry.current.get(), entry.following.get());
            if current.is_some_and(|range| range.contains(value)) {
                entry.given.store(value, Ordering::Relaxed);
                return Some(Word::Give { soon: following.is_none() && entry.is_soon(value) });
            }
            if following.is_some_and(|range| range.contains(value)) {
                return None;
            }
            let increment = entry.increment.load(Ordering::Relaxed);
            let ahead = [current, following].into_iter().flatten().find(|range| range.is_ahead_of(value, increment));
            Some(ahead.map_or(Word::Ask, |range| Word::SkipTo(range.first)))
        });
        word.unwrap_or_else(|| self.go_on(of, value))
    }

    /// The value is of the lease that follows.
    fn go_on(&self, of: Sequence, value: i64) -> Word {
        self.lock.exclusive(|| {
            let Some((_, entry)) = self.find(of.oid).filter(|(_, entry)| entry.is_for(of)) else { return Word::Ask };
            if let Some(following) = entry.following.get().filter(|range| range.contains(value)) {
                entry.current.set(Some(following));
                entry.following.set(None);
            }
            if entry.current.get().is_some_and(|range| range.contains(value)) {
                entry.given.store(value, Ordering::Relaxed);
                return Word::Give { soon: entry.is_soon(value) };
            }
            Word::Ask
        })
    }

    /// Asks the leaser for values: as far as `reach`, and so many if that is possible. None if too many sequences are waiting for theirs.
    pub fn ask(&self, of: Sequence, reach: Option<i64>, at_least: u32) -> Option<Ticket> {
        self.lock.exclusive(|| {
            let (index, entry) = self.find(of.oid).or_else(|| self.make_room(of.oid))?;
            if entry.want.load() == Want::Nothing {
                entry.want.store(Want::Lease);
                entry.asked.fetch_add(1, Ordering::Relaxed);
                entry.has_reach.store(reach.is_some(), Ordering::Relaxed);
                entry.reach.store(reach.unwrap_or(0), Ordering::Relaxed);
                entry.at_least.store(at_least, Ordering::Relaxed);
            }
            Some(Ticket { index, number: entry.asked.load(Ordering::Relaxed) })
        })
    }

    /// Under the lock.
    fn make_room(&self, sequence: pg_sys::Oid) -> Option<(usize, &'static Entry)> {
        let is_idle = |index: &usize| self.entries[*index].want.load() == Want::Nothing;
        let age = |index: &usize| {
            let entry = &self.entries[*index];
            (entry.sequence.load(Ordering::Relaxed) != 0, entry.leased_at.load(Ordering::Relaxed))
        };
        let index = self.places(sequence).filter(is_idle).min_by_key(age)?;
        let entry = &self.entries[index];
        entry.sequence.store(sequence.to_u32(), Ordering::Relaxed);
        entry.file.store(0, Ordering::Relaxed);
        entry.size.store(0, Ordering::Relaxed);
        for span in [&entry.current, &entry.following, &entry.latest] {
            span.set(None);
        }
        Some((index, entry))
    }

    /// Sleeps until the request is answered; interrupts are served. None when the time was over first.
    pub fn wait(&self, ticket: Ticket, timeout: Duration) -> Option<Outcome> {
        let entry = &self.entries[ticket.index];
        let is_answered = || entry.answered.load(Ordering::SeqCst) >= ticket.number;
        self.answered.wait_until(timeout, is_answered).then(|| entry.outcome.load())
    }

    /// The lease that a value is of.
    pub fn range_of(&self, of: Sequence, value: i64) -> Option<Range> {
        self.lock.shared(|| {
            let (_, entry) = self.find(of.oid).filter(|(_, entry)| entry.is_for(of))?;
            [entry.current.get(), entry.following.get()].into_iter().flatten().find(|range| range.contains(value))
        })
    }

    /// The lease that was granted last.
    pub fn latest(&self, of: Sequence) -> Option<Range> {
        self.lock
            .shared(|| self.find(of.oid).filter(|(_, entry)| entry.is_for(of)).and_then(|(_, entry)| entry.latest.get()))
    }

    /// Whether the last lease that the group gave out is this node's: then its own sequence is as far as any.
    pub fn has_the_last(&self, of: Sequence, last: i64) -> bool {
        self.lock.shared(|| {
            self.find(of.oid).filter(|(_, entry)| entry.is_for(of)).is_some_and(|(_, entry)| {
                [entry.current.get(), entry.following.get()].into_iter().flatten().any(|range| range.last == last)
            })
        })
    }
}

/// What the leaser does.
impl Leases {
    /// What a leaser had begun that is gone.
    pub fn resume(&self) {
        self.lock.exclusive(|| {
            for entry in self.entries.iter().filter(|entry| entry.want.load() == Want::Working) {
                entry.want.store(Want::Lease);
            }
        });
    }

    /// A request that nobody has taken yet, from the entry at `from` on.
    pub fn take(&self, from: usize) -> Option<Asked> {
        self.lock.exclusive(|| {
            let mut all = (0..self.entries.len()).map(|step| (from + step) % self.entries.len());
            let index = all.find(|&index| self.entries[index].want.load() == Want::Lease)?;
            let entry = &self.entries[index];
            entry.want.store(Want::Working);
            let lasted = clock::since(entry.leased_at.load(Ordering::Relaxed));
            let size = match entry.size.load(Ordering::Relaxed) {
                0 => SIZE_MIN,
                size => next_size(size, lasted),
            };
            let size = size.max(entry.at_least.load(Ordering::Relaxed));
            let reach = entry.has_reach.load(Ordering::Relaxed).then(|| entry.reach.load(Ordering::Relaxed));
            let sequence = pg_sys::Oid::from(entry.sequence.load(Ordering::Relaxed));
            Some(Asked { index, number: entry.asked.load(Ordering::Relaxed), sequence, size, reach })
        })
    }

    /// To be taken again, later.
    pub fn put_back(&self, asked: &Asked) {
        self.lock.exclusive(|| self.entries[asked.index].want.store(Want::Lease));
    }

    /// These values are this node's from now on, for as long as the sequence has this file.
    pub fn grant(&self, asked: &Asked, granted: &Granted) {
        let entry = &self.entries[asked.index];
        let &Granted { file, after, range, increment } = granted;
        self.lock.exclusive(|| {
            if entry.file.swap(file.to_u32(), Ordering::Relaxed) != file.to_u32() {
                for span in [&entry.current, &entry.following, &entry.latest] {
                    span.set(None);
                }
            }
            let goes_on = |of: &Range| Some(of.last) == after;
            match (entry.current.get(), entry.following.get()) {
                // Nobody has leased in between: it is one lease, which has grown.
                (Some(current), None) if goes_on(&current) => entry.current.set(Some(Range { last: range.last, ..current })),
                (_, Some(following)) if goes_on(&following) => {
                    entry.following.set(Some(Range { last: range.last, ..following }));
                }
                (Some(_), None) => entry.following.set(Some(range)),
                (_, Some(following)) => {
                    entry.current.set(Some(following));
                    entry.following.set(Some(range));
                }
                (None, None) => entry.current.set(Some(range)),
            }
            entry.latest.set(Some(range));
            entry.increment.store(increment, Ordering::Relaxed);
            entry.size.store(asked.size, Ordering::Relaxed);
            entry.leased_at.store(clock::now(), Ordering::Relaxed);
        });
        self.answer(asked, Outcome::Granted);
    }

    pub fn answer(&self, asked: &Asked, outcome: Outcome) {
        let entry = &self.entries[asked.index];
        self.lock.exclusive(|| {
            entry.want.store(Want::Nothing);
            entry.outcome.store(outcome);
        });
        entry.answered.store(asked.number, Ordering::SeqCst);
        self.answered.broadcast();
    }
}

impl Entry {
    fn is_for(&self, of: Sequence) -> bool {
        self.file.load(Ordering::Relaxed) == of.file.to_u32()
    }

    /// Whether the next lease is to be asked for before this one is used up: small ones end too soon for that to be of use.
    fn is_soon(&self, value: i64) -> bool {
        self.size.load(Ordering::Relaxed) > SIZE_MIN
            && self.want.load() == Want::Nothing
            && self.latest.get().is_some_and(|range| range.is_half_used_at(value))
    }
}

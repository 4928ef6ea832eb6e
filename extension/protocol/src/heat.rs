//! Which rows are lost often: those that transactions of several nodes change all the time.
//!
//! Of two transactions that change the same row on two nodes at once one loses, at certification or before it. For most rows that is rare, and waiting for a lock
//! of the group would cost each of them a round of the order. A few rows (a counter, a branch's balance) are fought over all the time, and there most of the work
//! is lost. Here each server remembers the latter, by certification key. Whoever is about to change one of them takes its lock in the group first.
//!
//! ```text
//! lost       a transaction of this node has lost it: twice within HOT_FOR, and the key is hot
//! contended  its lock was worth having: it stays hot
//! elsewhere  sessions of other nodes have fought over it: it is hot here too
//! is_hot     until HOT_FOR after either
//! ```
//!
//! All of it is advice. Entries are written without a lock, so that two processes at once may lose one of their words, and a key makes room for a hotter one: a row that is
//! not known to be hot is decided upon by certification, like any other.

use std::time::Duration;

use gcs_writeset::{Key, Position};

use crate::platform::Platform;
use crate::sync::{AtomicU64, Ordering};

/// How long a key stays hot after it was last fought over, and within which it must be lost often to become so.
pub const HOT_FOR: Duration = Duration::from_secs(30);

/// How often it must be lost for that.
const HOT_AT: u64 = 2;

/// Entries that a key may have, next to one another.
const WAYS: usize = 4;

/// Milliseconds fill the lower bits of an entry's state, the number of times that the key was lost the upper ones.
const TIME_BITS: u32 = 48;

#[derive(Default)]
pub struct Entry {
    key: AtomicU64,
    state: AtomicU64,
    /// What it was last lost to: one transaction may hear of it more than once, and so may two that lose to the same.
    winner: AtomicU64,
}

/// How often a key was lost, and when it was last fought over.
#[derive(Clone, Copy)]
struct State {
    lost: u64,
    at: u64,
}

impl State {
    fn of(bits: u64) -> State {
        State { lost: bits >> TIME_BITS, at: bits & ((1 << TIME_BITS) - 1) }
    }

    fn bits(self) -> u64 {
        self.lost.min(u64::from(u16::MAX)) << TIME_BITS | self.at & ((1 << TIME_BITS) - 1)
    }

    fn is_over(self, now: u64) -> bool {
        now.abs_diff(self.at) > HOT_FOR.as_millis() as u64
    }

    fn is_hot(self, now: u64) -> bool {
        self.lost >= HOT_AT && !self.is_over(now)
    }
}

impl Entry {
    fn state(&self) -> State {
        State::of(self.state.load(Ordering::Relaxed))
    }

    fn is_of(&self, key: Key) -> bool {
        self.key.load(Ordering::Relaxed) == key.0
    }
}

#[derive(Default)]
pub struct Memory {
    /// No key is hot after this.
    warm_until: AtomicU64,
}

/// The hot keys of one database, as this server knows them. Times are milliseconds by a clock that all processes of the server share.
pub struct Heat<P: Platform> {
    memory: P::Shared<Memory>,
    entries: P::Shared<[Entry]>,
}

/// Of microseconds.
pub fn millis(micros: i64) -> u64 {
    u64::try_from(micros).unwrap_or_default() / 1_000
}

impl<P: Platform> Heat<P> {
    /// `entries` are a few at least; [`HOT_KEYS`](crate::bounds::HOT_KEYS) on a server.
    pub fn new(memory: P::Shared<Memory>, entries: P::Shared<[Entry]>) -> Heat<P> {
        Heat { memory, entries }
    }

    /// Where a key may be.
    fn ways(&self, key: Key) -> &[Entry] {
        let sets = (self.entries.len() / WAYS).max(1);
        let first = key.0 as usize % sets * WAYS;
        self.entries.get(first..first + WAYS).unwrap_or_default()
    }

    /// A transaction of this node has lost the key to another node's, at this position.
    pub fn lost(&self, key: Key, winner: Position, now: u64) {
        self.note(key, now, |before, entry| {
            let is_known = entry.winner.swap(winner.0, Ordering::Relaxed) == winner.0 && before > 0;
            if is_known { before } else { before + 1 }
        });
    }

    /// Sessions of other nodes fight over it. This node may win all the time, and they would lose for ever.
    pub fn contended_elsewhere(&self, key: Key, now: u64) {
        self.note(key, now, |before, _| before.max(HOT_AT));
    }

    /// `lost` makes how often it was lost of how often it was lost before.
    fn note(&self, key: Key, now: u64, lost: impl Fn(u64, &Entry) -> u64) {
        let ways = self.ways(key);
        // One that is fought over no more, or for the longest time not, makes room.
        let entry = ways.iter().find(|entry| entry.is_of(key)).or_else(|| ways.iter().min_by_key(|entry| entry.state().at));
        let Some(entry) = entry else { return };
        let before = entry.state();
        let before = if entry.is_of(key) && !before.is_over(now) { before.lost } else { 0 };
        entry.key.store(key.0, Ordering::Relaxed);
        self.set(entry, State { lost: lost(before, entry), at: now });
    }

    /// The key's lock was worth having.
    pub fn contended(&self, key: Key, now: u64) {
        if let Some(entry) = self.ways(key).iter().find(|entry| entry.is_of(key)) {
            self.set(entry, State { at: now, ..entry.state() });
        }
    }

    fn set(&self, entry: &Entry, state: State) {
        entry.state.store(state.bits(), Ordering::Relaxed);
        if state.lost >= HOT_AT {
            self.memory.warm_until.store(state.at + HOT_FOR.as_millis() as u64, Ordering::Relaxed);
        }
    }

    /// Whether any key may be hot. False nearly always: then nobody need know which key is which, or what time it is.
    pub fn is_warm(&self, now: impl Fn() -> u64) -> bool {
        let until = self.memory.warm_until.load(Ordering::Relaxed);
        if until == 0 {
            return false;
        }
        let is_warm = now() <= until;
        if !is_warm {
            let _ = self.memory.warm_until.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        is_warm
    }

    pub fn is_hot(&self, key: Key, now: u64) -> bool {
        self.ways(key).iter().any(|entry| entry.is_of(key) && entry.state().is_hot(now))
    }

    /// The keys are another database's.
    pub fn clear(&self) {
        self.memory.warm_until.store(0, Ordering::Relaxed);
        self.entries.iter().for_each(|entry| entry.state.store(0, Ordering::Relaxed));
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::bounds::HOT_KEYS;
    use crate::testing::Alone;

    fn heat() -> Heat<Alone> {
        Heat::new(std::sync::Arc::default(), (0..HOT_KEYS).map(|_| Entry::default()).collect())
    }

    const FOR: u64 = HOT_FOR.as_millis() as u64;

    #[test]
    fn a_key_that_is_lost_twice_is_hot_for_as_long_as_it_is_fought_over() {
        let (heat, key) = (heat(), Key(7));
        heat.lost(key, Position(1), 1_000);
        // The same transaction.
        heat.lost(key, Position(1), 1_000);
        assert!(!heat.is_hot(key, 1_000) && !heat.is_warm(|| 1_000));
        heat.lost(key, Position(2), 1_000 + FOR);
        assert!(heat.is_hot(key, 1_000 + FOR) && heat.is_warm(|| 1_000 + FOR));
        assert!(!heat.is_hot(Key(8), 1_000 + FOR));
        heat.contended(key, 1_000 + 2 * FOR);
        assert!(heat.is_hot(key, 1_000 + 3 * FOR) && heat.is_warm(|| 1_000 + 3 * FOR));
        assert!(!heat.is_hot(key, 1_001 + 3 * FOR) && !heat.is_warm(|| 1_001 + 3 * FOR));
    }

    #[test]
    fn a_key_that_is_lost_now_and_then_is_not() {
        let (heat, key) = (heat(), Key(7));
        for nth in 0..10 {
            heat.lost(key, Position(nth), 1_000 + nth * (FOR + 1));
            assert!(!heat.is_hot(key, 1_000 + nth * (FOR + 1)));
        }
    }

    #[test]
    fn what_was_not_lost_does_not_become_hot_by_its_lock() {
        let (heat, key) = (heat(), Key(7));
        heat.contended(key, 1_000);
        heat.contended(key, 1_000);
        assert!(!heat.is_hot(key, 1_000));
    }

    #[test]
    fn the_coldest_makes_room() {
        let heat = heat();
        let keys: Vec<Key> = (0..=WAYS as u64).map(|nth| Key(nth * (HOT_KEYS / WAYS) as u64)).collect();
        for (at, key) in (1_000..).zip(&keys) {
            heat.lost(*key, Position(1), at);
            heat.lost(*key, Position(2), at);
        }
        let hot: Vec<bool> = keys.iter().map(|key| heat.is_hot(*key, 1_010)).collect();
        assert_eq!(hot, [false, true, true, true, true]);
        heat.clear();
        assert!(!keys.iter().any(|key| heat.is_hot(*key, 1_010)) && !heat.is_warm(|| 1_010));
    }
}

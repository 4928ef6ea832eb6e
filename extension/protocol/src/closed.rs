//! Which tables are closed to writers here: somebody in the group has locked them, to change or to hold them as a whole.
//!
//! On one server a writer waits behind whoever has locked the table, or waits for that. Here that is somebody on another node, whose lock the group knows, and this server's
//! own lock manager does not. So the group asks each server to close the table (`gcs_writeset::link::Request::Clear`): whoever comes to it from then on takes its lock in the
//! group before anything else, shared, and thereby waits.
//!
//! ```text
//! n1: ALTER TABLE t         locks t in the group; asks the others to close it
//! n2: rehearser             closes t: number 7. Says so when those have ended who were in it
//! n2: UPDATE t              finds it closed, asks the group for a share, waits
//! n1: COMMIT                the lock is free: the share is granted
//! n2: UPDATE t              whoever has waited opens it, number 7, and goes on; the next does not even ask
//! ```
//!
//! A closing is found by the tables whose writers it concerns: the closed one, those above it through which it is written to, and those whose foreign keys refer to it. All of these are
//! looked up once, by who closes; a writer compares numbers. What one question closes has one number, so that a writer who has found an earlier closing to be over does not open a later one, and
//! one who is in a table of it already goes on to the others.
//!
//! All of it is advice: a closing that makes room for another, or comes too late for a writer, costs somebody a serialization failure; one that is over and that no writer has come by costs the
//! first who does a question.
//!
//! One process closes tables, the rehearser; everybody opens and looks.

use gcs_writeset::Key;

use crate::platform::Platform;
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// Whom of those who come to a table the closing concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concerns {
    /// Who changes its rows, or locks them: it is the closed table.
    ItsWriters,
    /// The same: the closed table is below it.
    WritersThroughIt,
    /// Who changes its rows: they refer to the closed table.
    ItsChanges,
}

/// A closing, as whoever comes to a table finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Of the closed table.
    pub key: Key,
    pub number: u64,
    /// Whoever has closed it lets no readers in either.
    pub alone: bool,
    /// When, in microseconds of the clock of the one who closed it.
    pub at: u64,
}

/// A table at which a closing is to be found.
#[derive(Default)]
pub struct Entry {
    /// Its OID, and behind that what [`Concerns`] says, and `alone`.
    table: AtomicU64,
    key: AtomicU64,
    at: AtomicU64,
    /// Of the closing; 0 when there is none.
    number: AtomicU64,
}

const CONCERNS_AT: u32 = 32;
const ALONE: u64 = 1 << 40;

impl Entry {
    /// What stands there, unless it changes at this moment.
    fn read(&self) -> Option<(u32, Concerns, Closing)> {
        let number = self.number.load(Ordering::SeqCst);
        if number == 0 {
            return None;
        }
        let (table, key, at) =
            (self.table.load(Ordering::SeqCst), self.key.load(Ordering::SeqCst), self.at.load(Ordering::SeqCst));
        let concerns = match table >> CONCERNS_AT & 3 {
            0 => Concerns::ItsWriters,
            1 => Concerns::WritersThroughIt,
            _ => Concerns::ItsChanges,
        };
        let closing = Closing { key: Key(key), number, alone: table & ALONE != 0, at };
        (self.number.load(Ordering::SeqCst) == number).then_some((table as u32, concerns, closing))
    }
}

#[derive(Default)]
pub struct Memory {
    last: AtomicU64,
    /// How many entries there are.
    count: AtomicU64,
    /// Somebody waits for writers to end who were there when a table was closed.
    waits: AtomicBool,
}

/// The closed tables of one database.
pub struct Closed<P: Platform> {
    memory: P::Shared<Memory>,
    entries: P::Shared<[Entry]>,
}

impl<P: Platform> Closed<P> {
    /// [`CLOSED_TABLES`](crate::bounds::CLOSED_TABLES) entries on a server.
    pub fn new(memory: P::Shared<Memory>, entries: P::Shared<[Entry]>) -> Closed<P> {
        Closed { memory, entries }
    }

    /// The number of the next closing. As [`Closed::close`], called by one process only.
    pub fn next(&self) -> u64 {
        self.memory.last.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Whoever comes to this table finds that closing, in place of an earlier one of the same table. Without room the earliest of all makes it.
    pub fn close(&self, table: u32, concerns: Concerns, closing: Closing) {
        let is_same = |entry: &&Entry| {
            entry.read().is_some_and(|(of, how, other)| of == table && how == concerns && other.key == closing.key)
        };
        let earliest = || self.entries.iter().min_by_key(|entry| entry.number.load(Ordering::SeqCst));
        let Some(entry) = self.entries.iter().find(is_same).or_else(earliest) else { return };
        if entry.number.swap(0, Ordering::SeqCst) == 0 {
            self.memory.count.fetch_add(1, Ordering::SeqCst);
        }
        let how = (concerns as u64) << CONCERNS_AT | if closing.alone { ALONE } else { 0 };
        entry.table.store(u64::from(table) | how, Ordering::SeqCst);
        entry.key.store(closing.key.0, Ordering::SeqCst);
        entry.at.store(closing.at, Ordering::SeqCst);
        entry.number.store(closing.number, Ordering::SeqCst);
    }

    /// Whether any table is closed: false nearly always.
    pub fn any(&self) -> bool {
        self.memory.count.load(Ordering::SeqCst) > 0
    }

    /// The closings that concern whoever comes to this table, and changes rows, or only locks them.
    pub fn of(&self, table: u32, changes: bool) -> impl Iterator<Item = Closing> + '_ {
        let concerns = move |how: Concerns| changes || how != Concerns::ItsChanges;
        let found = self.entries.iter().filter_map(Entry::read);
        found.filter(move |(of, how, _)| *of == table && concerns(*how)).map(|(_, _, closing)| closing)
    }

    /// The tables that were closed under this number, or those through which they are written to; of one key if that is wanted.
    pub fn tables(&self, number: u64, of: Option<Key>) -> impl Iterator<Item = (u32, Concerns)> + '_ {
        let found = self.entries.iter().filter_map(Entry::read);
        let wanted = move |closing: &Closing| closing.number == number && of.is_none_or(|key| closing.key == key);
        found
            .filter(move |(_, how, closing)| wanted(closing) && *how != Concerns::ItsChanges)
            .map(|(table, how, _)| (table, how))
    }

    /// All tables at which there is one.
    pub fn all(&self) -> impl Iterator<Item = (u32, Closing)> + '_ {
        self.entries.iter().filter_map(Entry::read).map(|(table, _, closing)| (table, closing))
    }

    /// The table with this key is closed no more, as far as that closing goes.
    pub fn open(&self, number: u64, key: Key) {
        for entry in self.entries.iter() {
            let is_it = |(_, _, closing): (u32, Concerns, Closing)| closing.number == number && closing.key == key;
            if entry.read().is_some_and(is_it)
                && entry.number.compare_exchange(number, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok()
            {
                self.memory.count.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// Whether the end of a transaction is to be told to the process that closes tables.
    pub fn waits_for_writers(&self) -> bool {
        self.memory.waits.load(Ordering::SeqCst)
    }

    pub fn set_waits_for_writers(&self, waits: bool) {
        self.memory.waits.store(waits, Ordering::SeqCst);
    }

    /// The tables are another database's.
    pub fn clear(&self) {
        for (_, closing) in self.all().collect::<Vec<_>>() {
            self.open(closing.number, closing.key);
        }
        self.set_waits_for_writers(false);
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::testing::Alone;

    const T: u32 = 70;

    fn closed(entries: usize) -> Closed<Alone> {
        Closed::new(std::sync::Arc::default(), (0..entries).map(|_| Entry::default()).collect())
    }

    fn close(closed: &Closed<Alone>, table: u32, concerns: Concerns, key: u64) -> Closing {
        let closing = Closing { key: Key(key), number: closed.next(), alone: key == 7, at: 5 };
        closed.close(table, concerns, closing);
        closing
    }

    fn found(closed: &Closed<Alone>, table: u32, changes: bool) -> Vec<Closing> {
        closed.of(table, changes).collect()
    }

    #[test]
    fn a_table_is_closed_until_its_closing_is_over() {
        let closed = closed(4);
        assert!(!closed.any() && found(&closed, T, true).is_empty());
        let closing = close(&closed, T, Concerns::ItsWriters, 7);
        assert_eq!((found(&closed, T, false), found(&closed, T + 1, true)), (vec![closing], vec![]));
        closed.open(closing.number, Key(8));
        assert!(closed.any());
        closed.open(closing.number, Key(7));
        closed.open(closing.number, Key(7));
        assert!(!closed.any() && found(&closed, T, true).is_empty());
    }

    #[test]
    fn who_has_found_one_closing_over_does_not_open_the_next() {
        let closed = closed(4);
        let first = close(&closed, T, Concerns::ItsWriters, 7);
        let second = close(&closed, T, Concerns::ItsWriters, 7);
        closed.open(first.number, Key(7));
        assert_eq!(found(&closed, T, true), [second]);
        closed.open(second.number, Key(7));
        assert!(!closed.any());
    }

    #[test]
    fn it_is_found_wherever_a_writer_comes_by() {
        let closed = closed(4);
        let closing = Closing { key: Key(1), number: closed.next(), alone: false, at: 5 };
        let at = [(T, Concerns::ItsWriters), (T + 1, Concerns::WritersThroughIt), (T + 2, Concerns::ItsChanges)];
        at.iter().for_each(|(table, concerns)| closed.close(*table, *concerns, closing));
        let locks: Vec<bool> = (0..3).map(|nth| !found(&closed, T + nth, false).is_empty()).collect();
        let changes: Vec<bool> = (0..3).map(|nth| !found(&closed, T + nth, true).is_empty()).collect();
        assert_eq!((locks, changes), (vec![true, true, false], vec![true; 3]));
        assert_eq!(closed.tables(closing.number, None).collect::<Vec<_>>(), at[..2]);
        closed.open(closing.number, Key(1));
        assert!(!closed.any());
    }

    #[test]
    fn the_first_makes_room() {
        let closed = closed(2);
        for key in 1..=3 {
            close(&closed, key, Concerns::ItsWriters, u64::from(key));
        }
        let is_closed: Vec<bool> = (1..=3).map(|table| !found(&closed, table, true).is_empty()).collect();
        assert_eq!(is_closed, [false, true, true]);
        closed.clear();
        assert!(!closed.any() && closed.all().next().is_none());
    }
}

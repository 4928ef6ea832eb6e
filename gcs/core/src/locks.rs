//! Group locks: the lock table of one database, in the order.
//!
//! What has to *wait* in the group as it does on one server, instead of losing, takes a lock here: advisory locks, whose whole use that is.
//! Nothing that PostgreSQL itself keeps consistent depends on a lock: certification decides. A request is a command of the group's order like any other, so
//! that every node has the same table, and it is answered from its place in the order.
//!
//! **Who holds.** A session ([`gcs_writeset::lock`]), of a node in its present life ([`Lives`]). It asks for one thing after the other, by number: a copy of
//! what was ordered already changes nothing, and a copy of anything of a session that is closed, or of an earlier life, neither. (Without
//! the latter, a request that was sent again would come after its session's end, be granted, and never be given back.)
//!
//! **What is promised.**
//!
//! 1. *No two sessions hold a key in modes that conflict.* Until a life ends, all of what it held is its; when it ends, by the order, all of that is free
//!    at the same place in the order, and nothing that a session of it submits from there on is certified ([`Locks::holds`]; the submission says
//!    which session holds locks, and whether anybody relies on them: rows that are only locked so that fewer transactions lose are not relied on). So also a node that the group had given up for lost, and that does not know it yet, does nothing in the database in the belief that it holds a
//!    lock that somebody else has got.
//! 2. *Whoever gets a lock sees what was done under it.* A grant says which position was the last one before it; the session goes on when its node shows
//!    that. What the holder before committed was ordered before the lock was given back, and so lies at or below.
//! 3. *First come, first served*, as PostgreSQL does it: a request waits behind those that it conflicts with, granted or waiting, and only a session
//!    that holds the key in another mode goes before those that wait for it.
//! 4. *Nobody waits for ever for himself.* Whoever waits, waits for those who hold what it wants, and for those before it in the queue. A request
//!    that closes a circle of those is answered `Deadlock`. What sessions of one node wait for *on that node* (a row, a table) the order does not know; a session that has waited here for a
//!    while says who waits there for it ([`LockOp::Blocks`]), and the circle is looked for again.
//!
//! Everything that waits, and everything that is held, is in the checkpoint; nothing here is a function of anything but the order.

use std::collections::{BTreeMap, BTreeSet};

use gcs_writeset::{Lock, LockKey, LockMode, LockOp, NodeId};

use crate::bounds::LOCKS_MAX;
use crate::certify::Rules;

mod lives;
#[cfg(test)]
mod tests;

pub use lives::{Life, Lives, Ranges};

/// A session of a node's present life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who {
    pub node: NodeId,
    pub session: u64,
}

/// What one request came to, now or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub who: Who,
    /// Of the request.
    pub number: u64,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Granted(Lock),
    /// The lock at this place of those that were named.
    Found(u32),
    NotAvailable,
    Deadlock,
    Full,
    Given,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Number of its last request.
    pub last: u64,
    pub held: BTreeSet<Lock>,
    /// What its last `Take` was for, and the number of that, until another request comes.
    pub taken: Option<(Lock, u64)>,
    /// The last `Take` waits.
    pub waits: bool,
    /// Sessions of its node that wait for it there, as it said last.
    pub blocks: BTreeSet<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Queue {
    holders: BTreeMap<Who, BTreeSet<LockMode>>,
    waiting: Vec<(Who, LockMode)>,
}

impl Queue {
    /// Others that hold the key in a mode that conflicts.
    fn against(&self, who: Who, mode: LockMode) -> impl Iterator<Item = Who> + '_ {
        let conflict = move |modes: &BTreeSet<LockMode>| modes.iter().any(|held| held.conflicts(mode));
        self.holders.iter().filter(move |(holder, modes)| **holder != who && conflict(modes)).map(|(holder, _)| *holder)
    }

    /// Those among the first `places` that wait in a mode that conflicts.
    fn ahead(&self, places: usize, mode: LockMode) -> impl Iterator<Item = Who> + '_ {
        self.waiting[..places].iter().filter(move |(_, other)| other.conflicts(mode)).map(|(other, _)| *other)
    }
}

/// The lock table of one database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locks {
    sessions: BTreeMap<Who, Session>,
    queues: BTreeMap<LockKey, Queue>,
    /// Locks that are held.
    count: usize,
}

impl Locks {
    /// The table that these sessions make, and this order of those that wait for each key.
    pub fn restore(sessions: BTreeMap<Who, Session>, waiting: &[Who]) -> Locks {
        let mut locks = Locks { sessions, ..Locks::default() };
        for (who, session) in &locks.sessions {
            for lock in &session.held {
                locks.queues.entry(lock.key).or_default().holders.entry(*who).or_default().insert(lock.mode);
                locks.count += 1;
            }
        }
        for who in waiting {
            if let Some((lock, _)) = locks.sessions.get(who).filter(|session| session.waits).and_then(|s| s.taken) {
                locks.queues.entry(lock.key).or_default().waiting.push((*who, lock.mode));
            }
        }
        locks
    }

    pub fn sessions(&self) -> &BTreeMap<Who, Session> {
        &self.sessions
    }

    /// Locks that are held.
    pub fn held(&self) -> usize {
        self.count
    }

    /// Those that wait, by key, in the order in which they do.
    pub fn waiting(&self) -> impl Iterator<Item = Who> + '_ {
        self.queues.values().flat_map(|queue| queue.waiting.iter().map(|(who, _)| *who))
    }

    /// Whether a session is there, and holds anything.
    pub fn holds(&self, who: Who) -> bool {
        self.sessions.get(&who).is_some_and(|session| !session.held.is_empty())
    }

    /// Whether others hold it in a mode that conflicts.
    pub fn excludes(&self, who: Who, lock: Lock) -> bool {
        self.queues.get(&lock.key).is_some_and(|queue| queue.against(who, lock.mode).next().is_some())
    }

    /// Whether a request is no copy of one that was ordered.
    pub fn is_new(&self, who: Who, number: u64) -> bool {
        self.sessions.get(&who).is_none_or(|session| number > session.last)
    }

    /// Whether sessions of other nodes hold it in a mode that conflicts.
    pub fn is_held_elsewhere(&self, who: Who, lock: Lock) -> bool {
        self.queues.get(&lock.key).is_some_and(|queue| queue.against(who, lock.mode).any(|holder| holder.node != who.node))
    }

    pub fn has_sessions_of(&self, node: NodeId) -> bool {
        self.of(node).next().is_some()
    }

    /// One request of a session that is not closed.
    /// `is_fresh` says whether nothing was done under a lock that the session does not know of.
    pub fn request(
        &mut self,
        rules: impl Rules,
        who: Who,
        (number, op): (u64, &LockOp),
        is_fresh: impl Fn(&Lock) -> bool,
    ) -> Vec<Told> {
        let session = self.sessions.entry(who).or_default();
        if number <= session.last {
            return Vec::new();
        }
        session.last = number;
        let mut told = Vec::new();
        match op {
            LockOp::Take { lock, waits, .. } => {
                self.stop_waiting(who, &mut told);
                told.extend(self.take(rules, who, number, *lock, *waits));
            }
            LockOp::Give { locks } => {
                self.stop_waiting(who, &mut told);
                locks.iter().for_each(|lock| self.give(who, *lock, &mut told));
                told.push(Told { who, number, what: What::Given });
            }
            LockOp::Withdraw { take } => {
                let taken = self.sessions.get(&who).and_then(|session| session.taken).filter(|(_, number)| number == take);
                if let Some((lock, _)) = taken
                    && !self.stop_waiting(who, &mut told)
                {
                    self.give(who, lock, &mut told);
                }
            }
            LockOp::Blocks { sessions } => told.extend(self.blocks(who, sessions)),
            LockOp::Close => self.close(&[who], &mut told),
            LockOp::First { locks, .. } => {
                self.stop_waiting(who, &mut told);
                told.push(self.first(rules, who, number, locks, is_fresh));
            }
        }
        told
    }

    /// What the session submitted is decided, whichever way: the locks of rows and tables that its transaction held are free.
    pub fn transaction_decided(&mut self, who: Who) -> Vec<Told> {
        let mut told = Vec::new();
        let of_transaction = |lock: &Lock| lock.key.certified().is_some();
        let held =
            self.sessions.get(&who).into_iter().flat_map(|session| session.held.iter().copied().filter(of_transaction));
        let held: Vec<Lock> = held.collect();
        held.into_iter().for_each(|lock| self.give(who, lock, &mut told));
        told
    }

    /// The life of a node's sessions is over, or its part in this database: whatever they held is free.
    pub fn release(&mut self, rules: impl Rules, node: NodeId) -> Vec<Told> {
        let mut told = Vec::new();
        if rules.locks_end_with_their_life() {
            let gone: Vec<Who> = self.of(node).collect();
            self.close(&gone, &mut told);
        }
        told
    }

    fn of(&self, node: NodeId) -> impl Iterator<Item = Who> + '_ {
        let (first, last) = (Who { node, session: 0 }, Who { node, session: u64::MAX });
        self.sessions.range(first..=last).map(|(who, _)| *who)
    }

    fn take(&mut self, rules: impl Rules, who: Who, number: u64, lock: Lock, waits: bool) -> Option<Told> {
        let told = |what| Some(Told { who, number, what });
        if let Some(session) = self.sessions.get_mut(&who) {
            session.taken = None;
        }
        let session = self.sessions.entry(who).or_default();
        // Held already: undoing it would take more away than it gave.
        session.taken = (!session.held.contains(&lock)).then_some((lock, number));
        if session.taken.is_none() {
            return told(What::Granted(lock));
        }
        // Half of the room is for what is no row: transactions can lock many of these, and can do without.
        let room = if lock.key.row().is_some() { LOCKS_MAX / 2 } else { LOCKS_MAX };
        if self.count + self.sessions.len() >= room {
            let excluded = !waits && self.excludes(who, lock);
            return self.not_taken(who, number, if excluded { What::NotAvailable } else { What::Full });
        }
        let queue = self.queues.entry(lock.key).or_default();
        let place = if queue.holders.contains_key(&who) { 0 } else { queue.waiting.len() };
        let is_free = queue.against(who, lock.mode).next().is_none() && queue.ahead(place, lock.mode).next().is_none();
        if is_free || !rules.locks_exclude() {
            self.hold(who, lock);
            return told(What::Granted(lock));
        }
        if waits {
            queue.waiting.insert(place, (who, lock.mode));
            if let Some(session) = self.sessions.get_mut(&who) {
                session.waits = true;
            }
            if !self.waits_for_itself(who) {
                return None;
            }
            self.remove_waiting(who);
        }
        self.not_taken(who, number, if waits { What::Deadlock } else { What::NotAvailable })
    }

    fn not_taken(&mut self, who: Who, number: u64, what: What) -> Option<Told> {
        if let Some(session) = self.sessions.get_mut(&who) {
            session.taken = None;
        }
        Some(Told { who, number, what })
    }

    /// The first of these that is free, and fresh.
    fn first(&mut self, rules: impl Rules, who: Who, number: u64, locks: &[Lock], is_fresh: impl Fn(&Lock) -> bool) -> Told {
        for (at, lock) in locks.iter().enumerate().filter(|(_, lock)| is_fresh(lock)) {
            match self.take(rules, who, number, *lock, false) {
                Some(Told { what: What::Granted(_), .. }) => return Told { who, number, what: What::Found(at as u32) },
                Some(told) if told.what == What::Full => return told,
                _ => {}
            }
        }
        Told { who, number, what: What::NotAvailable }
    }

    fn hold(&mut self, who: Who, lock: Lock) {
        let session = self.sessions.entry(who).or_default();
        session.waits = false;
        session.blocks.clear();
        if session.held.insert(lock) {
            self.count += 1;
            self.queues.entry(lock.key).or_default().holders.entry(who).or_default().insert(lock.mode);
        }
    }

    fn give(&mut self, who: Who, lock: Lock, told: &mut Vec<Told>) {
        let Some(session) = self.sessions.get_mut(&who) else { return };
        // What it waits for stays what it was: a transaction may be decided meanwhile.
        session.taken = session.taken.filter(|_| session.waits);
        if !session.held.remove(&lock) {
            return;
        }
        self.count -= 1;
        if let Some(queue) = self.queues.get_mut(&lock.key)
            && let Some(modes) = queue.holders.get_mut(&who)
        {
            modes.remove(&lock.mode);
            if modes.is_empty() {
                queue.holders.remove(&who);
            }
        }
        self.advance(lock.key, told);
    }

    /// Whether there was anything to stop.
    fn stop_waiting(&mut self, who: Who, told: &mut Vec<Told>) -> bool {
        let Some(key) = self.remove_waiting(who) else { return false };
        self.advance(key, told);
        true
    }

    fn remove_waiting(&mut self, who: Who) -> Option<LockKey> {
        let session = self.sessions.get_mut(&who).filter(|session| session.waits)?;
        session.waits = false;
        session.blocks.clear();
        let (lock, _) = session.taken.take()?;
        if let Some(queue) = self.queues.get_mut(&lock.key) {
            queue.waiting.retain(|(other, _)| *other != who);
        }
        Some(lock.key)
    }

    /// Something about this key has changed: who can have it now?
    fn advance(&mut self, key: LockKey, told: &mut Vec<Told>) {
        let mut place = 0;
        while let Some(queue) = self.queues.get_mut(&key)
            && let Some(&(who, mode)) = queue.waiting.get(place)
        {
            if queue.against(who, mode).next().is_some() || queue.ahead(place, mode).next().is_some() {
                place += 1;
                continue;
            }
            queue.waiting.remove(place);
            let lock = Lock { key, mode };
            self.hold(who, lock);
            let number = self.sessions.get(&who).and_then(|session| session.taken).map(|(_, number)| number);
            told.extend(number.map(|number| Told { who, number, what: What::Granted(lock) }));
        }
        if self.queues.get(&key).is_some_and(|queue| queue.holders.is_empty() && queue.waiting.is_empty()) {
            self.queues.remove(&key);
        }
    }

    /// These sessions are over, all at once: what one of them holds is not granted to another of them on the way.
    fn close(&mut self, gone: &[Who], told: &mut Vec<Told>) {
        let mut touched: BTreeSet<LockKey> = gone.iter().filter_map(|who| self.remove_waiting(*who)).collect();
        for who in gone {
            let Some(session) = self.sessions.remove(who) else { continue };
            self.count -= session.held.len();
            for key in session.held.iter().map(|lock| lock.key) {
                touched.insert(key);
                if let Some(queue) = self.queues.get_mut(&key) {
                    queue.holders.remove(who);
                }
            }
        }
        touched.into_iter().for_each(|key| self.advance(key, told));
    }

    fn blocks(&mut self, who: Who, sessions: &[u64]) -> Vec<Told> {
        let mut told = Vec::new();
        let Some(session) = self.sessions.get_mut(&who).filter(|session| session.waits) else { return told };
        session.blocks = sessions.iter().copied().collect();
        let number = session.taken.map(|(_, number)| number);
        if self.waits_for_itself(who)
            && let (Some(key), Some(number)) = (self.remove_waiting(who), number)
        {
            told.push(Told { who, number, what: What::Deadlock });
            self.advance(key, &mut told);
        }
        told
    }

    fn waits_for_itself(&self, who: Who) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = self.awaited_by(who);
        while let Some(next) = open.pop() {
            if next == who {
                return true;
            }
            if seen.insert(next) {
                open.extend(self.awaited_by(next));
            }
        }
        false
    }

    /// Whom a session waits for.
    fn awaited_by(&self, who: Who) -> Vec<Who> {
        let mut awaited: Vec<Who> = Vec::new();
        let session = self.sessions.get(&who);
        if let Some((lock, _)) = session.filter(|session| session.waits).and_then(|session| session.taken)
            && let Some(queue) = self.queues.get(&lock.key)
        {
            let place = queue.waiting.iter().position(|(other, _)| *other == who).unwrap_or(0);
            awaited.extend(queue.against(who, lock.mode).chain(queue.ahead(place, lock.mode)));
        }
        // Who waits here does not wait on its node, whatever was told of it before.
        if session.is_none_or(|session| !session.waits) {
            let on_its_node = self.of(who.node).filter(|other| self.sessions[other].blocks.contains(&who.session));
            awaited.extend(on_its_node);
        }
        awaited
    }
}

//! Backends that use group locks: two on each node, which take one of two keys, hold it for a while, and give it back, all through the trouble. A key is an advisory
//! lock's or a row's; what is held of a row ends with the transaction of its client that is decided next.
//!
//! What a backend believes it holds, it does in full: as long as it holds something, its server's transactions say so in their writesets. A backend
//! that is told that its locks are lost, or whose daemon is gone, goes on for a while as if it had not heard: what it submits
//! then is for the order to refuse.

use gcs_core::{Format, Input, Local, LocalReply};
use gcs_writeset::{Lock, LockAnswer, LockKey, LockMode, LockOp, LockSession, NodeId, Position};

use super::World;
use super::locker::{Doing, EACH, Locker};
use crate::rng::Rng;
use crate::sim::fact::{Fact, N};

const KEYS: u64 = 2;

impl World {
    /// Now and then, at a tick of the daemon.
    pub(super) fn use_locks(&mut self, n: N) {
        if !self.plan.locks {
            return;
        }
        let life = self.nodes[n.0].daemon_life;
        for i in 0..EACH {
            let is_of_another_life = self.nodes[n.0].lockers[i].connection.is_some_and(|(_, of)| of != life);
            if is_of_another_life {
                self.locks_lost(n, i);
            }
            // Drawn whatever is done with it, from a number of their own.
            let chance = self.lockers_chance.below(100);
            match self.nodes[n.0].lockers[i].doing {
                Doing::Nothing if chance < 30 && !self.ends_locks() => self.take_lock(n, i),
                Doing::Asks(_) | Doing::AsksFirst(_) if chance < 2 => {
                    let take = self.nodes[n.0].lockers[i].number;
                    self.ask_about_locks(n, i, LockOp::Withdraw { take }, Doing::Nothing);
                }
                // The backend ends, however.
                Doing::Asks(_) | Doing::AsksFirst(_) | Doing::Holds(..) if chance < 4 => self.close_locker(n, i),
                // What is held of a row is given back by a transaction, which may be under way; at the end there may be none any more.
                Doing::Holds(lock, _) if (chance < 40 && lock.key.row().is_none()) || self.ends_locks() => {
                    self.ask_about_locks(n, i, LockOp::Give { locks: vec![lock] }, Doing::GivesBack);
                }
                _ => {}
            }
        }
    }

    /// Everybody has had a lock since trouble ended: nobody takes another, so that the run can end.
    fn ends_locks(&self) -> bool {
        self.calm_since.is_some() && self.all_have_held()
    }

    /// Whether every backend that can has held a lock since trouble ended.
    pub(super) fn all_have_held(&self) -> bool {
        let mut daemons = self.nodes.iter().filter_map(|node| node.daemon.as_ref());
        // Not all may have been upgraded.
        let has_locks = daemons.all(|daemon| daemon.core.state().membership.format >= Format::LOCKS);
        let nodes = self.nodes.iter().filter(|node| !node.is_witness());
        !self.plan.locks || !has_locks || nodes.flat_map(|node| &node.lockers).all(|locker| locker.held_since)
    }

    fn take_lock(&mut self, n: N, i: usize) {
        let rng: &mut Rng = &mut self.lockers_chance;
        let space = if rng.percent(60) { LockKey::ADVISORY } else { LockKey::ROW };
        let key = LockKey { space, value: rng.below(KEYS) };
        let mode = if rng.percent(70) { LockMode::Exclusive } else { LockMode::Shared };
        let waits = self.calm_since.is_some() || rng.percent(80);
        let skips = space == LockKey::ROW && rng.percent(50);
        let second = LockKey { space, value: rng.below(KEYS) };
        // A backend does one thing at a time; here its client may be committing under what it has given back since.
        if space == LockKey::ROW && std::mem::take(&mut self.nodes[n.0].lockers[i].has_held_own) {
            self.close_locker(n, i);
        }
        let life = self.nodes[n.0].daemon_life;
        if self.nodes[n.0].lockers[i].connection.is_none() {
            self.connections += 1;
            self.nodes[n.0].lockers[i].connection = Some((self.connections, life));
        }
        let lock = Lock { key, mode };
        self.nodes[n.0].server.set_lock_session(i, None);
        let locks = vec![lock, Lock { key: second, mode }];
        let seen = self.nodes[n.0].server.committed();
        let (op, next) = match skips {
            true => (LockOp::First { locks: locks.clone(), seen }, Doing::AsksFirst([locks[0], locks[1]])),
            false => (LockOp::Take { lock, waits, seen }, Doing::Asks(lock)),
        };
        self.ask_about_locks(n, i, op, next);
    }

    /// The transaction of a client that its backend named as holding locks is decided: those of rows are free.
    pub(super) fn transaction_of_locker_decided(&mut self, n: N, node: NodeId, holder: Option<LockSession>) {
        if self.nodes[n.0].id != node || holder.is_none() {
            return;
        }
        for i in 0..EACH {
            let locker = &mut self.nodes[n.0].lockers[i];
            if let Doing::Holds(lock, session) = locker.doing
                && lock.key.row().is_some()
                && holder == Some(session)
            {
                locker.doing = Doing::Nothing;
                self.nodes[n.0].server.set_lock_session(i, None);
                *self.tally.corners.entry("a row's lock ended with its transaction").or_default() += 1;
            }
        }
    }

    fn ask_about_locks(&mut self, n: N, i: usize, op: LockOp, next: Doing) {
        let Some(database) = self.nodes[n.0].daemon.as_ref().and_then(|daemon| daemon.database) else { return };
        let locker = &mut self.nodes[n.0].lockers[i];
        let Some((connection, _)) = locker.connection else { return };
        locker.number += 1;
        let number = locker.number;
        let before = std::mem::replace(&mut locker.doing, next);
        if let Doing::Holds(..) = before {
            self.nodes[n.0].server.set_lock_session(i, None);
            self.facts.push_back(Fact::LockGiven { node: n, locker: i });
        }
        self.give(n, Input::Local(Local::Lock { connection, database, number, op }));
    }

    /// A transaction may still be decided that its backend has given up, when the backend has long taken other locks of rows for the next: so its session
    /// ends. Which of the node's it was makes no difference.
    pub(super) fn end_lockers(&mut self, n: N) {
        (0..EACH).for_each(|i| self.close_locker(n, i));
    }

    /// The backend ends, and its connection with it.
    fn close_locker(&mut self, n: N, i: usize) {
        self.ask_about_locks(n, i, LockOp::Close, Doing::Nothing);
        self.nodes[n.0].lockers[i].connection = None;
        self.nodes[n.0].lockers[i].number = 0;
    }

    /// What it believes to hold it does not hold any more, and its server's transactions do not know it yet.
    fn locks_lost(&mut self, n: N, i: usize) {
        let locker = &mut self.nodes[n.0].lockers[i];
        if let Doing::Holds(..) = locker.doing {
            self.facts.push_back(Fact::LockLost { node: n, locker: i });
            *self.tally.corners.entry("a lock was lost").or_default() += 1;
        }
        let held_since = locker.held_since;
        *locker = Locker { held_since, ..Locker::new() };
    }

    /// Everything that this node's backends hold is lost with its daemon.
    pub(super) fn lockers_daemon_died(&mut self, n: N) {
        (0..EACH).for_each(|i| self.locks_lost(n, i));
    }

    /// False if the reply is about something else.
    pub(super) fn answered_about_locks(&mut self, n: N, reply: &LocalReply) -> bool {
        let (LocalReply::Lock { connection, .. }
        | LocalReply::LockRefused { connection, .. }
        | LocalReply::LocksLost { connection }) = *reply
        else {
            return false;
        };
        let lockers = &self.nodes[n.0].lockers;
        let Some(i) = lockers.iter().position(|locker| locker.connection.is_some_and(|(of, _)| of == connection)) else {
            return true;
        };
        let locker = &mut self.nodes[n.0].lockers[i];
        match (reply, locker.doing) {
            (LocalReply::LocksLost { .. }, _) => {
                self.close_locker(n, i);
                self.locks_lost(n, i);
            }
            (LocalReply::Lock { number, .. } | LocalReply::LockRefused { number, .. }, _) if *number != locker.number => {}
            (LocalReply::Lock { answer: LockAnswer::Granted { position }, session, .. }, Doing::Asks(lock)) => {
                self.lock_granted(n, i, lock, *session, *position);
            }
            (LocalReply::Lock { answer: LockAnswer::Found { at }, session, .. }, Doing::AsksFirst(locks)) => {
                *self.tally.corners.entry("the first free lock of several was granted").or_default() += 1;
                self.lock_granted(n, i, locks[*at as usize], *session, Position::ZERO);
            }
            _ => locker.doing = Doing::Nothing,
        }
        true
    }

    fn lock_granted(&mut self, n: N, i: usize, lock: Lock, session: LockSession, position: Position) {
        let locker = &mut self.nodes[n.0].lockers[i];
        locker.doing = Doing::Holds(lock, session);
        locker.has_held_own |= lock.key.row().is_none();
        locker.held_since |= self.calm_since.is_some();
        self.nodes[n.0].server.set_lock_session(i, Some(session));
        let id = self.nodes[n.0].id;
        self.facts.push_back(Fact::LockGranted { node: n, id, locker: i, lock, session, position });
        *self.tally.corners.entry("a lock was granted").or_default() += 1;
    }
}

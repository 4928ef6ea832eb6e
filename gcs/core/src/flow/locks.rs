//! What this node's sessions ask of the lock table ([`crate::locks`]), until it is seen in the order.
//!
//! A session is a connection of a backend to this daemon. Its requests are ordered one after the other: the next one leaves when the one before
//! has come back, since a copy that is sent again could overtake it. What they come to is told whenever it does.
//!
//! **A life begins here** when the first session asks for something, or when the order still has sessions of this node that this daemon does not
//! know: those of the daemon before it. It ends here, with all sessions, whenever this daemon can no longer be sure that the order has what its backends
//! believe to hold:
//!
//! - another life was ordered: the leader had given this node up for lost;
//! - the node has not been in touch with the group for [`LOCKS_GIVEN_UP_TICKS`]. It asks its leader now and then up to where to read ([`crate::reads`]), and counts
//!   from when it asked the last question that was answered, by its own clock: whoever led when that was answered has heard of this node since, however long the
//!   answer was on its way, and was elected before. The leader waits for twice as long before it gives to others what is held here, counted from
//!   the last word that it had from this node, and its successors from their election, which comes after the question. So backends here are
//!   told before others get anything, as far as clocks run alike; if they do not, or this daemon is frozen, what they commit is refused all the same, by the order;
//! - there have been no sessions for [`LOCKS_IDLE_TICKS`], so that nothing is asked any more;
//! - a snapshot took the place of the state, and what was ordered in between was not seen.

use std::collections::VecDeque;

use gcs_writeset::link::RefusalReason;
use gcs_writeset::{DatabaseId, Key, Lock, LockAnswer, LockOp, LockSession};

use super::lockers::{Connection, Session};
use super::{Body, Flow, Subject};
use crate::api::{LocalReply, Tick};
use crate::bounds::{CONTENDED_MAX, CONTENDED_TICKS, LOCK_REQUESTS_MAX, LOCKS_GIVEN_UP_TICKS, LOCKS_IDLE_TICKS};
use crate::format::Format;
use crate::locks::Who;
use crate::state::State;

impl Flow {
    /// A request of a backend.
    pub(super) fn lock(
        &mut self,
        (connection, database): (Connection, DatabaseId),
        (number, op): (u64, LockOp),
        state: &State,
        replies: &mut Vec<LocalReply>,
    ) {
        if op.is_for_lock()
            && let Some(reason) = self.lock_refusal(database, state)
        {
            return replies.push(LocalReply::LockRefused { connection, number, reason });
        }
        self.lockers.database = Some(database);
        let is_new = !self.lockers.sessions.contains_key(&connection);
        // Nothing of it was ever ordered, or all of it was given up.
        if is_new && !op.is_for_lock() {
            if matches!(op, LockOp::Give { .. }) {
                replies.push(LocalReply::LocksLost { connection });
            }
            return;
        }
        let fresh = || Session { database, number: None, queue: VecDeque::new(), is_busy: false };
        let session = self.lockers.sessions.entry(connection).or_insert_with(fresh);
        session.queue.push_back((number, op));
        if session.queue.len() > LOCK_REQUESTS_MAX {
            replies.push(LocalReply::LocksLost { connection });
        }
        self.go_on(connection);
    }

    /// The session that asks, if nothing of what it would take could be had, as far as this node can see: whoever skips what is locked is told so without the
    /// order, and no harm is done if something has just been given back.
    pub(super) fn lock_in_vain(&self, connection: Connection, op: &LockOp, state: &State) -> Option<LockSession> {
        let LockOp::First { locks, seen } = op else { return None };
        let (life, session) = (self.lockers.life?, self.lockers.sessions.get(&connection)?);
        let (number, database) = (session.number?, state.database(session.database)?);
        let who = Who { node: self.me, session: number };
        let is_vain = |lock: &Lock| *seen < database.last_under(*lock) || database.locks.excludes(who, *lock);
        locks.iter().all(is_vain).then_some(LockSession { life, number })
    }

    fn lock_refusal(&self, database: DatabaseId, state: &State) -> Option<RefusalReason> {
        let is_attached = |database: &&crate::deliver::Database| database.attachments.incarnation(self.me).is_some();
        match state.database(database).filter(is_attached) {
            None => Some(RefusalReason::NotAttached),
            Some(_) if state.membership.format < Format::LOCKS => Some(RefusalReason::Format),
            Some(_) => self.door(),
        }
    }

    /// The session's next request, if it is its turn.
    fn go_on(&mut self, connection: Connection) {
        let Some(session) = self.lockers.sessions.get_mut(&connection).filter(|session| !session.is_busy) else { return };
        if self.lockers.life.is_none() {
            // Nothing of it has been ordered, and nothing will be.
            if matches!(session.queue.back(), Some((_, LockOp::Close))) {
                self.lockers.sessions.remove(&connection);
            } else {
                self.begin_life();
            }
            return;
        }
        let number = *session.number.get_or_insert_with(|| {
            let number = self.lockers.numbered;
            self.lockers.numbered += 1;
            self.lockers.by_number.insert(number, connection);
            number
        });
        let Some((request, op)) = session.queue.pop_front() else { return };
        session.is_busy = true;
        let database = session.database;
        let bytes = 64 + 16 * op.len();
        self.enter(Subject::Lock(number), Body::Lock { database, request, op }, bytes);
    }

    fn begin_life(&mut self) {
        if !self.by_subject.contains_key(&Subject::Life) {
            self.enter(Subject::Life, Body::Life, 0);
        }
    }

    /// Another life of this node's sessions has begun. One that this very process has not asked for is not its: the daemon before it may have, and sessions
    /// of its are known to the order under numbers that this one would give again.
    pub(super) fn life_began(&mut self, life: u64, by: u64, replies: &mut Vec<LocalReply>) {
        let asked_at = self.lockers.asked_at;
        self.end_life(replies);
        if by != self.lockers.process {
            return self.again(Subject::Life);
        }
        self.lockers.asked_at = asked_at;
        if self.remove_subject(&Subject::Life).is_some() {
            self.lockers.life = Some(life);
            let waiting: Vec<Connection> = self.lockers.sessions.keys().copied().collect();
            waiting.into_iter().for_each(|connection| self.go_on(connection));
        }
    }

    pub(super) fn lock_ordered(&mut self, session: LockSession, request: u64) {
        if Some(session.life) != self.lockers.life {
            return;
        }
        let subject = Subject::Lock(session.number);
        let pending = self.by_subject.get(&subject).and_then(|ticket| self.pending.get(ticket));
        let Some(Body::Lock { request: waiting, op, .. }) = pending.map(|pending| &pending.body) else { return };
        if *waiting != request {
            return;
        }
        let is_over = matches!(op, LockOp::Close);
        self.remove_subject(&subject);
        self.lock_request_done(session.number, is_over);
    }

    /// The request that the session was busy with is ordered, or was refused.
    pub(super) fn lock_request_done(&mut self, number: u64, is_over: bool) {
        let Some(&connection) = self.lockers.by_number.get(&number) else { return };
        if is_over {
            self.lockers.by_number.remove(&number);
            self.lockers.sessions.remove(&connection);
        } else if let Some(session) = self.lockers.sessions.get_mut(&connection) {
            session.is_busy = false;
            self.go_on(connection);
        }
    }

    pub(super) fn lock_answered(&self, session: LockSession, number: u64, answer: LockAnswer) -> Option<LocalReply> {
        let connection = *self.lockers.by_number.get(&session.number).filter(|_| self.lockers.life == Some(session.life))?;
        Some(LocalReply::Lock { connection, number, session, answer })
    }

    pub(super) fn lock_refused(&self, number: u64, request: u64, reason: RefusalReason) -> Option<LocalReply> {
        let connection = *self.lockers.by_number.get(&number)?;
        Some(LocalReply::LockRefused { connection, number: request, reason })
    }

    /// What backends hold here is not to be relied upon any more.
    pub(super) fn end_life(&mut self, replies: &mut Vec<LocalReply>) {
        let is_locks = |subject: &Subject| matches!(subject, Subject::Lock(_));
        let subjects: Vec<Subject> = self.by_subject.keys().filter(|subject| is_locks(subject)).cloned().collect();
        subjects.iter().for_each(|subject| drop(self.remove_subject(subject)));
        let gone = self.lockers.end();
        replies.extend(gone.into_iter().map(|connection| LocalReply::LocksLost { connection }));
    }

    /// This node takes no part in the database any more.
    pub(super) fn locks_detached(&self, database: DatabaseId, replies: &mut Vec<LocalReply>) {
        let of_it = self.lockers.sessions.iter().filter(|(_, session)| session.database == database);
        replies.extend(of_it.map(|(connection, _)| LocalReply::LocksLost { connection: *connection }));
    }

    /// What waits for a life to begin has never left.
    pub(super) fn refuse_waiting(&mut self, replies: &mut Vec<LocalReply>) {
        for (connection, session) in self.lockers.sessions.extract_if(.., |_, session| session.number.is_none()) {
            let takes = session.queue.iter().filter(|(_, op)| op.is_for_lock());
            replies.extend(takes.map(|(number, _)| LocalReply::LockRefused {
                connection,
                number: *number,
                reason: RefusalReason::NoQuorum,
            }));
        }
    }

    /// Sessions of other nodes fight over this row: whoever changes it here is to lock it, too. Said now and then, as long as it is so.
    pub(super) fn contended(&mut self, database: DatabaseId, key: Key, replies: &mut Vec<LocalReply>) {
        if self.lockers.contended.len() < CONTENDED_MAX && self.lockers.contended.insert((database, key)) {
            replies.push(LocalReply::Contended { database, key });
        }
    }

    /// A database in which sessions of this node use locks, or have a moment ago.
    pub fn locks_in(&self) -> Option<DatabaseId> {
        self.lockers.life.and(self.lockers.database)
    }

    /// Time has passed. `in_touch`: when this node last was, for sure.
    pub fn watch_locks(&mut self, now: Tick, in_touch: Option<Tick>, state: &State, replies: &mut Vec<LocalReply>) {
        if now.0 >= self.lockers.contended_until.0 {
            self.lockers.contended.clear();
            self.lockers.contended_until = Tick(now.0 + CONTENDED_TICKS);
        }
        let in_touch = in_touch.max(self.lockers.asked_at).unwrap_or(now);
        let since = |at: Tick| now.0.saturating_sub(at.0);
        let is_idle = self.lockers.life.is_some() && self.lockers.sessions.is_empty();
        self.lockers.idle_since = if is_idle { self.lockers.idle_since.or(Some(now)) } else { None };
        let is_over = self.lockers.idle_since.is_some_and(|idle| since(idle) >= LOCKS_IDLE_TICKS);
        if self.lockers.life.is_some() && (is_over || since(in_touch) >= LOCKS_GIVEN_UP_TICKS) {
            self.end_life(replies);
        }
        let is_of_others = self.lockers.life.is_none() && state.has_lock_sessions_of(self.me);
        if self.quorum && is_of_others && state.membership.contains(self.me) {
            self.begin_life();
        }
    }
}

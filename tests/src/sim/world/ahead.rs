//! Transactions that are applied ahead, as daemons deal with them: a client's question goes to the other nodes, each gives it to a forerunner of
//! its server, and the answers come back. Models of `gcs/src/rehearsals.rs`, `gcs/src/forerunners.rs` and `gcs/src/local/forerunner.rs`.
//!
//! Words between daemons are lost now and then, whatever they say. So a forerunner may never hear from the one who asked that all is over: then it
//! hears it from its own daemon, which looks in the ordered state whether anything is still to be expected of the tag. The real daemon has its core
//! do that (`gcs_core::Local::Follow`); here it is looked at after each step.

use bytes::Bytes;
use gcs_writeset::link::{Rehearsal, Reply, Request};
use gcs_writeset::{Position, Sequence, SlotId, Tag};

use super::{Event, World};
use crate::sim::ahead::{Errand, Question, Task, Word};
use crate::sim::daemon::Session;
use crate::sim::fact::N;
use crate::sim::time::{Span, ms};
use crate::sim::wire::{Caller, ConnId};

/// Of a thousand words between daemons, those that are lost though the network loses nothing.
const LOST_PERMILLE: u64 = 40;

/// How long a question waits for a forerunner that has nothing to do.
const WAITS_MAX: Span = ms(50);

impl World {
    /// A request of a client that asks, or of a forerunner.
    pub(super) fn about_ahead(&mut self, n: N, conn: ConnId, request: Request) {
        match request {
            Request::Ahead { slot, sequence, chunks, after, .. } => {
                self.ask_ahead(n, conn, (slot, sequence), (chunks, after))
            }
            Request::FetchAhead { number } => {
                if let Some(task) = self.task_of(n, conn, number) {
                    task.is_fetched = true;
                    self.follow_ahead(n);
                }
            }
            Request::Rehearsed { number, outcome } => {
                if let Some(task) = self.task_of(n, conn, number) {
                    task.course.answer(outcome == Rehearsal::Passed);
                    let asker = task.asker;
                    self.say(n, asker, Word::Answer { number, outcome });
                }
            }
            // Of whoever asked: nobody has to be told anything.
            Request::AheadDone { number: 0 } => {
                if let Some(session) = self.session(n, conn) {
                    session.errand = None;
                }
            }
            Request::AheadDone { number } => {
                if self.task_of(n, conn, number).is_some()
                    && let Some(task) = self.session(n, conn).and_then(|session| session.task.take())
                {
                    self.task_left(n, &task);
                    self.give_tasks(n);
                }
            }
            _ => {}
        }
    }

    fn ask_ahead(&mut self, n: N, conn: ConnId, (slot, sequence): (SlotId, Sequence), (chunks, after): (u32, Position)) {
        let node = &self.nodes[n.0];
        let Some(daemon) = &node.daemon else { return };
        let others = self.nodes.iter().filter(|other| !other.is_witness() && daemon.peers.contains(&other.id));
        let asked: Vec<N> = others.map(|other| other.n).filter(|_| daemon.database.is_some()).collect();
        let (database, id) = (daemon.database.unwrap_or_default(), node.id);
        self.errands += 1;
        let number = self.errands;
        let Some(session) = self.session(n, conn) else { return };
        let tag = Tag { database, node: id, incarnation: session.incarnation, slot, sequence };
        session.errand = Some(Errand { number, asked: asked.clone(), unanswered: asked.clone() });
        self.send_down(n, conn, (Reply::Rehearsing { nodes: asked.len() as u32 }, Bytes::new()));
        for to in asked {
            self.say(n, to, Word::Ask(Question { number, tag, chunks, after }));
        }
    }

    /// One daemon says something to another.
    fn say(&mut self, from: N, to: N, word: Word) {
        let is_lost = self.ahead_chance.permille(LOST_PERMILLE);
        let arrives = self.net.delays(&mut self.ahead_chance).first().copied();
        if let Some(span) = arrives.filter(|_| !is_lost) {
            self.later(span, Event::Ahead { from, to, word: Box::new(word) });
        }
    }

    pub(super) fn hear_ahead(&mut self, from: N, to: N, word: Word) {
        let from_id = self.nodes[from.0].id;
        let known = self.nodes[to.0].daemon.as_ref().is_some_and(|daemon| daemon.peers.contains(&from_id));
        if !known || !self.net.passes(from, to, self.now) {
            return;
        }
        self.trace.line(self.now, format_args!("{} daemon hears from {}: {word:?}", to.0, from.0));
        match word {
            Word::Ask(question) => self.asked_ahead(from, to, question),
            Word::Answer { number, outcome } => self.answered_ahead(to, from, Some(number), &outcome),
            Word::Over { number } => self.end_tasks(to, |task| task.question.number == number, false),
        }
    }

    fn asked_ahead(&mut self, from: N, n: N, question: Question) {
        let now = self.now;
        let Some(daemon) = &mut self.nodes[n.0].daemon else { return };
        daemon.waiting.push(Task::new(question, from, now));
        self.give_tasks(n);
        let is_waiting = self.nodes[n.0].daemon.as_ref().is_some_and(|daemon| !daemon.waiting.is_empty());
        for conn in self.managers(n).into_iter().filter(|_| is_waiting) {
            self.send_down(n, conn, (Reply::ForerunnerWanted, Bytes::new()));
        }
    }

    /// An answer goes to whoever still waits for it. Without a number: nothing will come of that node any more.
    fn answered_ahead(&mut self, n: N, from: N, number: Option<u64>, outcome: &Rehearsal) {
        let Some(daemon) = &mut self.nodes[n.0].daemon else { return };
        let mut told = Vec::new();
        for (conn, session) in &mut daemon.sessions {
            let Some(errand) = &mut session.errand else { continue };
            if number.is_none_or(|number| number == errand.number) && errand.unanswered.contains(&from) {
                errand.unanswered.retain(|other| *other != from);
                told.push(*conn);
            }
        }
        for conn in told {
            let reply = Reply::Rehearsed { node: format!("n{}", from.0), outcome: outcome.clone() };
            self.send_down(n, conn, (reply, Bytes::new()));
        }
    }

    /// Gives questions to forerunners that have nothing to do.
    pub(super) fn give_tasks(&mut self, n: N) {
        loop {
            let Some(daemon) = &mut self.nodes[n.0].daemon else { return };
            let is_free = |session: &Session| session.caller == Caller::Forerunner && session.task.is_none();
            let free = daemon.sessions.iter_mut().find(|(_, session)| is_free(session));
            let Some((conn, session)) = free.filter(|_| !daemon.waiting.is_empty()) else { break };
            let (conn, task) = (*conn, daemon.waiting.remove(0));
            let Question { number, tag, chunks, after } = task.question;
            session.task = Some(task);
            self.send_down(n, conn, (Reply::Ahead { number, tag, chunks, after, patience_ms: 0 }, Bytes::new()));
        }
        self.follow_ahead(n);
    }

    fn task_of(&mut self, n: N, conn: ConnId, number: u64) -> Option<&mut Task> {
        self.session(n, conn)?.task.as_mut().filter(|task| task.question.number == number)
    }

    fn busy(&self, n: N) -> Vec<ConnId> {
        let Some(daemon) = &self.nodes[n.0].daemon else { return Vec::new() };
        daemon.sessions.iter().filter(|(_, session)| session.task.is_some()).map(|(conn, _)| *conn).collect()
    }

    fn end_tasks(&mut self, n: N, is_one: impl Fn(&Task) -> bool, ordered: bool) {
        if let Some(daemon) = &mut self.nodes[n.0].daemon {
            daemon.waiting.retain(|task| !is_one(task));
        }
        for conn in self.busy(n) {
            let task = self.session(n, conn).and_then(|session| session.task.as_mut());
            if let Some(task) = task.filter(|task| is_one(task))
                && task.course.end(ordered)
            {
                let number = task.question.number;
                self.trace.line(self.now, format_args!("{} daemon says over on {}: {number}", n.0, conn.0));
                self.send_down(n, conn, (Reply::Over { number }, Bytes::new()));
            }
        }
    }

    /// This has got a position, in the step that is being handed on.
    pub(super) fn ordered_ahead(&mut self, n: N, tag: Tag) {
        self.end_tasks(n, |task| task.question.tag == tag, true);
    }

    /// Looks in the ordered state, as far as it is written down, for chunks that are wanted, and for what is over.
    pub(super) fn follow_ahead(&mut self, n: N) {
        for conn in self.busy(n) {
            let node = &mut self.nodes[n.0];
            let Some(daemon) = node.daemon.as_mut().filter(|daemon| daemon.writing.is_none()) else { return };
            let Some(task) = daemon.sessions.get_mut(&conn).and_then(|session| session.task.as_mut()) else { continue };
            let question = task.question;
            let database = daemon.core.state().database(question.tag.database);
            let Some(database) = database.filter(|database| !database.is_past(question.tag)) else {
                self.end_tasks(n, |task| task.question.number == question.number, false);
                continue;
            };
            if !task.is_fetched || task.course.is_over() {
                continue;
            }
            let Some(chunks) = database.chunks_of(question.tag, question.chunks) else { continue };
            task.is_fetched = false;
            let disk = node.disk.0.borrow();
            let chunks: Option<Vec<Bytes>> = chunks.map(|at| Some(disk.payload(at)?.1)).collect();
            drop(disk);
            self.send_chunks(n, conn, question.number, chunks);
        }
    }

    /// Unless they went with what every member had, or came with a snapshot.
    fn send_chunks(&mut self, n: N, conn: ConnId, number: u64, chunks: Option<Vec<Bytes>>) {
        let Some(chunks) = chunks else {
            return self.end_tasks(n, |task| task.question.number == number, false);
        };
        let last = chunks.len().saturating_sub(1);
        for (index, chunk) in chunks.into_iter().enumerate() {
            self.send_down(n, conn, (Reply::Body { position: Position::ZERO, more: index < last }, chunk));
        }
    }

    /// The forerunner is done with it, or gone.
    fn task_left(&mut self, n: N, task: &Task) {
        if !task.course.is_answered() {
            self.say(n, task.asker, Word::Answer { number: task.question.number, outcome: Rehearsal::Partly });
        }
    }

    /// A connection is closed: what it had asked is withdrawn, and what it was to apply is applied from the log.
    pub(super) fn ahead_closed(&mut self, n: N, session: Session) {
        if let Some(task) = session.task {
            self.task_left(n, &task);
        }
        if let Some(errand) = session.errand {
            for to in errand.asked {
                self.say(n, to, Word::Over { number: errand.number });
            }
        }
    }

    /// A peer cannot say any more that it withdraws anything, and does not answer.
    pub(super) fn ahead_lost(&mut self, n: N, peer: N) {
        self.end_tasks(n, |task| task.asker == peer, false);
        self.answered_ahead(n, peer, None, &Rehearsal::Absent);
    }

    /// At a tick: no forerunner has come for what has waited for too long.
    pub(super) fn forget_waiting(&mut self, n: N) {
        let now = self.now;
        let Some(daemon) = &mut self.nodes[n.0].daemon else { return };
        let all = std::mem::take(&mut daemon.waiting);
        let (late, waiting) = all.into_iter().partition(|task| now.since(task.since) > WAITS_MAX);
        daemon.waiting = waiting;
        let late: Vec<Task> = late;
        late.iter().for_each(|task| self.task_left(n, task));
    }
}

//! Rehearsals: a transaction with statements is tried on the other nodes before it is ordered (docs/adr/0031-rehearsal.md). By the same way goes what comes before
//! that: the tables that it is about are kept clear of writers there (docs/adr/0049-tables-in-the-group.md). And so does a large transaction that is to be applied there
//! before it is submitted: the asked node gives it to a forerunner ([`crate::forerunners`]), and the asking node can withdraw it.
//!
//! Nothing of it is ordered, and nothing depends on an answer: it passes by the core, from the connection of the one who asks to the
//! connections of the rehearsers of its database on the other nodes, and back.
//!
//! ```text
//! asks: a session here ──Rehearse──▶ peers' frames ──▶ [`Rehearsals::came`] ──▶ the session of the rehearser there
//!       a session here ◀─Rehearsed── [`Rehearsals::answered`] ◀── peers' frames ◀── the session of the rehearser there
//! ```

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gcs_proto::{Rehearse, Rehearsed};
use gcs_writeset::bounds::GROUP_MEMBERS_MAX;
use gcs_writeset::link::Rehearsal;
use gcs_writeset::{NodeId, Position};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::bounds::{CLEAR_MAX, REHEARSALS_WAITING_MAX};
use crate::forerunners::{Asked, Forerunners};

/// What a rehearser is to do.
#[derive(Debug)]
pub struct Task {
    pub from: NodeId,
    pub number: u64,
    pub what: What,
    /// Whoever asked waits no longer.
    pub over_at: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// To try this, and to roll it back.
    Try { after: Position, writeset: Bytes },
    /// To keep these tables clear of writers.
    Clear { tables: Bytes },
}

/// What a node says of what it tried.
pub type Answer = (NodeId, Rehearsal);

#[derive(Debug, Default)]
pub struct Rehearsals {
    asked: RefCell<BTreeMap<u64, Unanswered>>,
    last: Cell<u64>,
    /// By the database's name. The newest rehearser of a database is the one.
    rehearsers: RefCell<BTreeMap<String, Sender<Task>>>,
    pub forerunners: Forerunners,
}

#[derive(Debug)]
struct Unanswered {
    /// Who has yet to answer.
    by: Vec<NodeId>,
    answers: Sender<Answer>,
}

/// A question of this node, for as long as somebody waits for the answers.
pub struct Question {
    rehearsals: Rc<Rehearsals>,
    pub number: u64,
    pub answers: Receiver<Answer>,
}

impl Drop for Question {
    fn drop(&mut self) {
        self.rehearsals.asked.borrow_mut().remove(&self.number);
    }
}

impl Rehearsals {
    /// A question to these nodes. Each answers once; one that is lost has not tried it to its end.
    pub fn ask(self: &Rc<Self>, nodes: &[NodeId]) -> Question {
        let number = self.last.get() + 1;
        self.last.set(number);
        let (answer, answers) = channel(GROUP_MEMBERS_MAX);
        self.asked.borrow_mut().insert(number, Unanswered { by: nodes.to_vec(), answers: answer });
        Question { rehearsals: self.clone(), number, answers }
    }

    /// The database has a rehearser here from now on: what it is to try.
    pub fn enter(&self, database: String) -> Receiver<Task> {
        let (give, tasks) = channel(REHEARSALS_WAITING_MAX);
        self.rehearsers.borrow_mut().insert(database, give);
        tasks
    }

    /// A peer asks, or withdraws what it has asked. What can be said at once is the answer.
    pub fn came(&self, from: NodeId, asked: Rehearse) -> Option<Rehearsed> {
        let Rehearse { number, database, after, patience_ms, writeset, tables, ahead, over } = asked;
        if over {
            self.forerunners.withdraw(from, number);
            return None;
        }
        if let Some(ahead) = ahead {
            let asked = Asked { from, number, ahead, after: Position(after), patience_ms, writeset };
            return self.forerunners.give(&database, asked).err().and_then(|outcome| answer(number, &outcome));
        }
        let over_at = Instant::now() + Duration::from_millis(u64::from(patience_ms));
        let is_trial = tables.is_empty();
        let over_at = if is_trial { over_at } else { over_at.min(Instant::now() + CLEAR_MAX) };
        let what = if is_trial { What::Try { after: Position(after), writeset } } else { What::Clear { tables } };
        let task = Task { from, number, what, over_at };
        let mut rehearsers = self.rehearsers.borrow_mut();
        let at_once = match rehearsers.get(&database) {
            Some(rehearser) if rehearser.is_closed() => {
                rehearsers.remove(&database);
                Rehearsal::Absent
            }
            Some(rehearser) => match rehearser.try_send(task) {
                Ok(()) => return None,
                Err(_) => Rehearsal::Partly,
            },
            None => Rehearsal::Absent,
        };
        answer(number, &at_once)
    }

    /// The peer's connection has ended: it may have withdrawn something, and nobody would hear of it.
    pub fn lost(&self, from: NodeId) {
        self.forerunners.lost(from);
        self.unreachable(from);
    }

    /// What the peer was asked it may not have heard, and its answer may not come.
    pub fn unreachable(&self, node: NodeId) {
        self.asked.borrow_mut().values_mut().for_each(|question| question.take(node, Rehearsal::Partly));
    }

    /// A peer answers.
    pub fn answered(&self, from: NodeId, Rehearsed { number, outcome }: &Rehearsed) {
        let Ok(outcome) = Rehearsal::decode(outcome) else {
            return tracing::warn!(%from, "the outcome of a rehearsal cannot be read");
        };
        if let Some(question) = self.asked.borrow_mut().get_mut(number) {
            question.take(from, outcome);
        }
    }
}

impl Unanswered {
    /// A second answer is none.
    fn take(&mut self, from: NodeId, outcome: Rehearsal) {
        if let Some(at) = self.by.iter().position(|node| *node == from) {
            self.by.swap_remove(at);
            // There is room for one of each member; and whoever asked may have gone.
            let _ = self.answers.try_send((from, outcome));
        }
    }
}

/// An answer as it travels; none if it would be too long, which texts within their bounds are not.
pub fn answer(number: u64, outcome: &Rehearsal) -> Option<Rehearsed> {
    let mut bytes = Vec::new();
    outcome.encode(&mut bytes).ok()?;
    Some(Rehearsed { number, outcome: bytes.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId(7);

    fn question(number: u64) -> Rehearse {
        let database = "shop".to_owned();
        Rehearse { number, database, after: 3, patience_ms: 1_000, ..Rehearse::default() }
    }

    fn outcome(answer: Option<Rehearsed>) -> Option<Rehearsal> {
        answer.map(|answer| Rehearsal::decode(&answer.outcome).unwrap())
    }

    #[test]
    fn without_a_rehearser_the_answer_is_there_at_once() {
        let rehearsals = Rehearsals::default();
        assert_eq!(outcome(rehearsals.came(PEER, question(1))), Some(Rehearsal::Absent));
        drop(rehearsals.enter("shop".to_owned()));
        assert_eq!(outcome(rehearsals.came(PEER, question(2))), Some(Rehearsal::Absent), "it has gone");
    }

    #[test]
    fn only_so_many_wait() {
        let rehearsals = Rehearsals::default();
        let mut tasks = rehearsals.enter("shop".to_owned());
        for number in 0..REHEARSALS_WAITING_MAX as u64 {
            assert_eq!(rehearsals.came(PEER, question(number)), None);
        }
        assert_eq!(outcome(rehearsals.came(PEER, question(99))), Some(Rehearsal::Partly));
        assert_eq!(tasks.try_recv().map(|task| (task.from, task.number)), Ok((PEER, 0)));
    }

    #[test]
    fn what_is_to_be_applied_ahead_is_no_trial_and_neither_is_its_withdrawal() {
        let rehearsals = Rehearsals::default();
        let mut tasks = rehearsals.enter("shop".to_owned());
        let ahead = Some(gcs_proto::Ahead { chunks: 1, ..Default::default() });
        let answer = rehearsals.came(PEER, Rehearse { ahead, ..question(1) });
        assert_eq!(outcome(answer), Some(Rehearsal::Absent), "a rehearser is no forerunner");
        assert_eq!(rehearsals.came(PEER, Rehearse { number: 1, over: true, ..Rehearse::default() }), None);
        assert!(tasks.try_recv().is_err());
    }

    #[test]
    fn an_answer_goes_to_whoever_asked_and_to_nobody_afterwards() {
        let rehearsals = Rc::new(Rehearsals::default());
        let mut question = rehearsals.ask(&[PEER]);
        let passed = answer(question.number, &Rehearsal::Passed).unwrap();
        rehearsals.answered(PEER, &passed);
        assert_eq!(question.answers.try_recv(), Ok((PEER, Rehearsal::Passed)));
        drop(question);
        rehearsals.answered(PEER, &passed);
        assert!(rehearsals.asked.borrow().is_empty());
    }

    #[test]
    fn a_peer_that_is_gone_has_answered_and_what_it_says_afterwards_does_not_count() {
        let rehearsals = Rc::new(Rehearsals::default());
        let mut question = rehearsals.ask(&[PEER, NodeId(8)]);
        rehearsals.unreachable(PEER);
        rehearsals.unreachable(PEER);
        assert_eq!(question.answers.try_recv(), Ok((PEER, Rehearsal::Partly)));
        rehearsals.answered(PEER, &answer(question.number, &Rehearsal::Passed).unwrap());
        rehearsals.answered(NodeId(8), &answer(question.number, &Rehearsal::Passed).unwrap());
        assert_eq!(question.answers.try_recv(), Ok((NodeId(8), Rehearsal::Passed)));
        assert!(question.answers.try_recv().is_err());
    }
}

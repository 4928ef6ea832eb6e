//! Who shows a position: asked by whoever commits with `postgres_r.commit_level = after` (docs/adr/0035-read-levels.md).
//!
//! Nothing of it is ordered, and nothing depends on an answer: like a rehearsal it passes by the core. A node answers as soon as the position is
//! visible to its clients; one on which the database is not attached, or out of service, has no clients of it, and answers at once. Managers
//! report where they are a few times a second; one of whose node somebody waits for a position is told which ([`Shown::to_watch`]), and reports
//! the moment it is there. While nobody asks, nothing of this happens. Position 0 is shown everywhere: who asks for it hears of the peer's daemon itself, its
//! clock and its version (`gcs doctor`).
//!
//! ```text
//! asks: a reader's session here ──Show──▶ peers' frames ──▶ [`Shown::came`] ──Watch──▶ the manager there
//!       a reader's session here ◀─Shown── [`Shown::answered`] ◀── peers' frames ◀─ [`Shown::progress`] ◀─Progress── the manager there
//! ```

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use gcs_proto::{Said, Show, ShownHere};
use gcs_writeset::bounds::GROUP_MEMBERS_MAX;
use gcs_writeset::{DatabaseId, NodeId, Position};
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::bounds::SHOWN_WAITING_MAX;

#[derive(Debug, Default)]
pub struct Shown {
    asked: RefCell<BTreeMap<u64, Sender<Heard>>>,
    last: Cell<u64>,
    /// Attached here, and in service.
    databases: RefCell<BTreeMap<DatabaseId, Watched>>,
    /// A manager may have to be told of a position.
    pub news: Notify,
}

/// A database of this node, and who waits for it.
#[derive(Debug, Default)]
struct Watched {
    committed: Position,
    waiting: BTreeSet<(Position, NodeId, u64)>,
    /// What its manager was last told to report.
    told: Option<Position>,
}

/// A peer, and the number of its question, to be answered.
pub type Answer = (NodeId, u64);

/// A peer's answer, and what it said of itself, if it was asked for nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub node: NodeId,
    pub said: Option<Said>,
}

/// A question of this node, for as long as somebody waits for the answers.
pub struct Question {
    shown: Rc<Shown>,
    pub number: u64,
    pub answers: Receiver<Heard>,
}

impl Drop for Question {
    fn drop(&mut self) {
        self.shown.asked.borrow_mut().remove(&self.number);
    }
}

impl Shown {
    pub fn ask(self: &Rc<Self>) -> Question {
        let number = self.last.get() + 1;
        self.last.set(number);
        // Each node answers once.
        let (answer, answers) = channel(GROUP_MEMBERS_MAX);
        self.asked.borrow_mut().insert(number, answer);
        Question { shown: self.clone(), number, answers }
    }

    /// A peer answers.
    pub fn answered(&self, node: NodeId, ShownHere { number, said }: ShownHere) {
        if let Some(waiting) = self.asked.borrow().get(&number) {
            // A second answer finds no room, and is none.
            let _ = waiting.try_send(Heard { node, said });
        }
    }

    /// The database's manager has attached; it is here until [`Shown::leave`].
    pub fn enter(&self, database: DatabaseId) {
        self.databases.borrow_mut().entry(database).or_default();
    }

    /// The database has no clients here any more.
    pub fn leave(&self, database: DatabaseId) -> Vec<Answer> {
        let left = self.databases.borrow_mut().remove(&database).unwrap_or_default();
        left.waiting.into_iter().map(|(_, node, number)| (node, number)).collect()
    }

    /// What the database's clients see here, as its manager said last; none where it has none.
    pub fn committed(&self, database: DatabaseId) -> Option<Position> {
        self.databases.borrow().get(&database).map(|watched| watched.committed)
    }

    /// Nobody waits any more for the answer to this question of this node itself.
    pub fn withdraw(&self, database: DatabaseId, question: (Position, NodeId, u64)) {
        if let Some(watched) = self.databases.borrow_mut().get_mut(&database) {
            watched.waiting.remove(&question);
        }
    }

    /// A peer asks. Whether the answer is there at once.
    pub fn came(&self, from: NodeId, asked: &Show) -> bool {
        let (database, position) = (DatabaseId(asked.database), Position(asked.position));
        let mut databases = self.databases.borrow_mut();
        let Some(watched) = databases.get_mut(&database).filter(|watched| watched.committed < position) else { return true };
        // One that finds no room is not answered: whoever asks gives it up in time.
        if watched.waiting.len() < SHOWN_WAITING_MAX {
            watched.waiting.insert((position, from, asked.number));
            self.news.notify_waiters();
        }
        false
    }

    /// The position that the database's manager is to report the moment that it is there, if it was not told.
    pub fn to_watch(&self, database: DatabaseId) -> Option<Position> {
        let mut databases = self.databases.borrow_mut();
        let watched = databases.get_mut(&database)?;
        let (lowest, ..) = *watched.waiting.first()?;
        let is_news = watched.told.is_none_or(|told| lowest < told);
        is_news.then(|| *watched.told.insert(lowest))
    }

    /// The database's manager says what its clients see: who is to be told.
    pub fn progress(&self, database: DatabaseId, committed: Position) -> Vec<Answer> {
        let mut databases = self.databases.borrow_mut();
        let watched = databases.entry(database).or_default();
        watched.committed = watched.committed.max(committed);
        if watched.told.is_some_and(|told| told <= committed) {
            watched.told = None;
        }
        let mut answers = Vec::new();
        while let Some(&(position, node, number)) = watched.waiting.first()
            && position <= committed
        {
            watched.waiting.pop_first();
            answers.push((node, number));
        }
        if !watched.waiting.is_empty() {
            self.news.notify_waiters();
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId(7);
    const SHOP: DatabaseId = DatabaseId(1);

    fn show(number: u64, position: u64) -> Show {
        Show { number, database: SHOP.0, position }
    }

    #[test]
    fn where_nobody_reads_the_answer_is_there_at_once() {
        let shown = Shown::default();
        assert!(shown.came(PEER, &show(1, 5)));
        shown.enter(SHOP);
        assert!(!shown.came(PEER, &show(2, 5)));
        assert_eq!(shown.leave(SHOP), [(PEER, 2)], "it has left");
    }

    #[test]
    fn a_manager_is_told_the_lowest_position_once() {
        let shown = Shown::default();
        shown.enter(SHOP);
        shown.came(PEER, &show(1, 5));
        assert_eq!(shown.to_watch(SHOP), Some(Position(5)));
        assert_eq!(shown.to_watch(SHOP), None);
        shown.came(PEER, &show(2, 7));
        assert_eq!(shown.to_watch(SHOP), None);
        shown.came(PEER, &show(3, 4));
        assert_eq!(shown.to_watch(SHOP), Some(Position(4)));
        assert_eq!(shown.progress(SHOP, Position(5)), [(PEER, 3), (PEER, 1)]);
        assert_eq!(shown.to_watch(SHOP), Some(Position(7)));
        assert!(shown.came(PEER, &show(4, 5)), "it is there");
    }

    #[test]
    fn a_question_of_this_node_that_was_given_up_takes_no_room() {
        let shown = Shown::default();
        shown.enter(SHOP);
        assert!(!shown.came(PEER, &show(1, 5)) && !shown.came(PEER, &show(2, 9)));
        assert_eq!(shown.to_watch(SHOP), Some(Position(5)));
        shown.withdraw(SHOP, (Position(5), PEER, 1));
        assert_eq!(shown.to_watch(SHOP), None, "the manager has yet to report that");
        assert_eq!(shown.progress(SHOP, Position(5)), []);
        assert_eq!(shown.to_watch(SHOP), Some(Position(9)));
        assert_eq!(shown.progress(SHOP, Position(9)), [(PEER, 2)]);
    }

    #[test]
    fn an_answer_goes_to_whoever_asked_and_to_nobody_afterwards() {
        let shown = Rc::new(Shown::default());
        let mut question = shown.ask();
        let answer = ShownHere { number: question.number, said: None };
        shown.answered(PEER, answer.clone());
        assert_eq!(question.answers.try_recv(), Ok(Heard { node: PEER, said: None }));
        drop(question);
        shown.answered(PEER, answer.clone());
        assert!(shown.asked.borrow().is_empty());
    }
}

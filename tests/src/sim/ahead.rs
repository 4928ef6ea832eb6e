//! What a daemon knows of transactions that are applied ahead: those that a client of its own server has asked other nodes to apply
//! ([`Errand`]), and those that a forerunner of its server is busy with ([`Task`]). Models of `gcs/src/rehearsals.rs` and
//! `gcs/src/forerunners/task.rs`; who says what to whom stands in [`super::world`]`/ahead`.
//!
//! ```text
//!           the forerunner answers Passed           its position is ordered
//! Expected ───────────────────────────▶ Withheld ─────────────────────────▶ Ordered
//!     │                                    │
//!     └── ordered, withdrawn, never to be ──┴── withdrawn, never to be ──▶ Over: the forerunner is told
//! ```

use gcs_writeset::link::Rehearsal;
use gcs_writeset::{Position, Tag};

use super::fact::N;
use super::time::Time;

/// What one node asks others: to apply the transaction with this tag, whose body is in so many chunks, once they have committed `after`.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// No other question of any node has it.
    pub number: u64,
    pub tag: Tag,
    pub chunks: u32,
    pub after: Position,
}

/// What one daemon says to another about that.
#[derive(Clone, Debug)]
pub enum Word {
    Ask(Question),
    Answer {
        number: u64,
        outcome: Rehearsal,
    },
    /// The question is withdrawn.
    Over {
        number: u64,
    },
}

/// A question of this node, for as long as the connection is open that it came on.
#[derive(Debug)]
pub struct Errand {
    pub number: u64,
    pub asked: Vec<N>,
    pub unanswered: Vec<N>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    Expected,
    Withheld,
    Ordered,
    Over,
}

/// A question of another node, which a forerunner is busy with, or is to be.
#[derive(Debug)]
pub struct Task {
    pub question: Question,
    pub asker: N,
    pub since: Time,
    /// The forerunner has asked for the chunks, and was not sent them yet.
    pub is_fetched: bool,
    is_answered: bool,
    course: Course,
}

impl Task {
    pub fn new(question: Question, asker: N, since: Time) -> Task {
        Task { question, asker, since, is_fetched: false, is_answered: false, course: Course::Expected }
    }

    pub fn is_answered(&self) -> bool {
        self.is_answered
    }

    pub fn is_over(&self) -> bool {
        self.course == Course::Over
    }

    /// Whether the manager is not sent the writeset of this tag.
    pub fn withholds(&self, tag: Tag) -> bool {
        matches!(self.course, Course::Withheld | Course::Ordered) && self.question.tag == tag
    }

    /// The forerunner says what became of it. An answer that comes when all is over changes nothing but that there was one.
    pub fn answer(&mut self, has_passed: bool) {
        if has_passed && !self.is_answered && self.course == Course::Expected {
            self.course = Course::Withheld;
        }
        self.is_answered = true;
    }

    /// The submission has got a position, or never will. Whether the forerunner is to be told that it is over.
    pub fn end(&mut self, ordered: bool) -> bool {
        let next = match self.course {
            Course::Withheld if ordered => Course::Ordered,
            Course::Ordered => Course::Ordered,
            _ => Course::Over,
        };
        let was = std::mem::replace(&mut self.course, next);
        next == Course::Over && was != Course::Over
    }
}

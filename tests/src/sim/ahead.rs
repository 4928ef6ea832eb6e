//! What a daemon knows of transactions that are applied ahead: those that a client of its own server has asked other nodes to apply
//! ([`Errand`]), and those that a forerunner of its server is busy with ([`Task`]; how each fares is the real daemon's [`Course`]). Who says what to whom stands in
//! [`super::world`]`/ahead`.

use gcs::forerunners::Course;
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

/// A question of another node, which a forerunner is busy with, or is to be.
#[derive(Debug)]
pub struct Task {
    pub question: Question,
    pub asker: N,
    pub since: Time,
    /// The forerunner has asked for the chunks, and was not sent them yet.
    pub is_fetched: bool,
    pub course: Course,
}

impl Task {
    pub fn new(question: Question, asker: N, since: Time) -> Task {
        Task { question, asker, since, is_fetched: false, course: Course::default() }
    }

    /// Whether the manager is not sent the writeset of this tag.
    pub fn withholds(&self, tag: Tag) -> bool {
        self.course.is_withheld() && self.question.tag == tag
    }
}

//! Questions of those who look on, on their way to the driver, which answers them between two steps.

use tokio::sync::{mpsc, oneshot};

use super::snapshot::Snapshot;
use crate::bounds::QUESTIONS_MAX;

/// What is to be known beside what is at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wants {
    Look,
    /// The same, and what only the page shows.
    Page,
    /// How far the group is, of this database or of all that are here, and whether this node gets within so many positions of that in time.
    Lag {
        database: Option<String>,
        lag: u64,
    },
}

#[derive(Debug)]
pub struct Question {
    pub wants: Wants,
    pub answer: oneshot::Sender<Snapshot>,
}

/// The driver's end: of questions that come over HTTP, if anybody listens there, and of those that come from the local socket.
#[derive(Debug, Default)]
pub struct Questions {
    of_http: Option<mpsc::Receiver<Question>>,
    of_people: Option<mpsc::Receiver<Question>>,
}

impl Questions {
    /// Both ends, for the listener of HTTP.
    pub fn new() -> (mpsc::Sender<Question>, Questions) {
        let (sender, receiver) = mpsc::channel(QUESTIONS_MAX);
        (sender, Questions { of_http: Some(receiver), of_people: None })
    }

    /// One more end, for the local socket.
    pub fn of_people(&mut self) -> mpsc::Sender<Question> {
        let (sender, receiver) = mpsc::channel(QUESTIONS_MAX);
        self.of_people = Some(receiver);
        sender
    }

    pub async fn next(&mut self) -> Question {
        tokio::select! {
            question = next_of(&mut self.of_http) => question,
            question = next_of(&mut self.of_people) => question,
        }
    }
}

/// Where there is no other end, or none any more, nobody ever asks.
async fn next_of(questions: &mut Option<mpsc::Receiver<Question>>) -> Question {
    match questions {
        Some(questions) => match questions.recv().await {
            Some(question) => question,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

//! The listener's end of the questions: those that only look share an answer for a moment, so that however many come the driver is asked
//! ten times a second at most.

use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::questions::{Question, Wants};
use super::snapshot::Snapshot;
use crate::bounds::{ANSWER_WITHIN, CATCH_UP_WAIT, SNAPSHOT_AGE_MAX};

#[derive(Debug)]
pub struct Asker {
    questions: mpsc::Sender<Question>,
    /// The last answer to those who look, or that there was none. Held while the next is waited for.
    last: Last,
    /// The same of those who look at the page.
    last_page: Last,
}

type Last = Mutex<Option<(Instant, Option<Snapshot>)>>;

impl Asker {
    pub fn new(questions: mpsc::Sender<Question>) -> Asker {
        Asker { questions, last: Last::default(), last_page: Last::default() }
    }

    /// None if the driver does not answer in time.
    pub async fn look(&self) -> Option<Snapshot> {
        self.share(&self.last, Wants::Look).await
    }

    /// The same, with what only the page shows.
    pub async fn page(&self) -> Option<Snapshot> {
        self.share(&self.last_page, Wants::Page).await
    }

    async fn share(&self, last: &Last, wants: Wants) -> Option<Snapshot> {
        let mut last = last.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() <= SNAPSHOT_AGE_MAX
        {
            return answer.clone();
        }
        let answer = self.ask(wants, ANSWER_WITHIN).await;
        *last = Some((Instant::now(), answer.clone()));
        answer
    }

    /// As of after the question.
    pub async fn now(&self) -> Option<Snapshot> {
        self.ask(Wants::Look, ANSWER_WITHIN).await
    }

    /// How far the group is, and this node.
    pub async fn lag(&self, database: Option<String>, lag: u64) -> Option<Snapshot> {
        self.ask(Wants::Lag { database, lag }, ANSWER_WITHIN + CATCH_UP_WAIT).await
    }

    async fn ask(&self, wants: Wants, within: Duration) -> Option<Snapshot> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.questions.send(Question { wants, answer }).await.ok()?;
            answered.await.ok()
        };
        timeout(within, asked).await.ok().flatten()
    }
}

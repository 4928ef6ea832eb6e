//! Wishes about the membership that wait for the group: each by its number, with whoever waits for what becomes of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use gcs_core::{Input, Local, Objection, Wish};
use tokio::sync::oneshot::{Sender, channel};

use crate::inbox::Inbox;

#[derive(Debug, Default)]
pub struct Pending {
    waiting: RefCell<BTreeMap<u64, Sender<Result<(), Objection>>>>,
    last: Cell<u64>,
}

impl Pending {
    /// Until the membership is so, or why it will not be. The core gives every wish an answer within a bound.
    ///
    /// With `force`, also what takes a database away from the group.
    pub async fn wish(&self, inbox: &Inbox, wish: Wish, force: bool) -> Result<(), Objection> {
        self.ask(inbox, |number| Local::Wish { number, wish, force }).await
    }

    /// Whether that could be, as far as is known here now; nothing is changed.
    pub async fn consider(&self, inbox: &Inbox, wish: Wish, force: bool) -> Result<(), Objection> {
        self.ask(inbox, |number| Local::Consider { number, wish, force }).await
    }

    async fn ask(&self, inbox: &Inbox, of: impl FnOnce(u64) -> Local) -> Result<(), Objection> {
        let number = self.last.get() + 1;
        self.last.set(number);
        let (answer, answered) = channel();
        self.waiting.borrow_mut().insert(number, answer);
        inbox.push(Input::Local(of(number)));
        answered.await.unwrap_or(Err(Objection::TooLate))
    }

    pub fn answer(&self, number: u64, outcome: Result<(), Objection>) {
        if let Some(waiting) = self.waiting.borrow_mut().remove(&number) {
            // Whoever asked may have gone.
            let _ = waiting.send(outcome);
        }
    }
}

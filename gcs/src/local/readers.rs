//! Questions of readers on their way through the core.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use gcs_core::LocalReply;
use gcs_writeset::Position;
use gcs_writeset::link::{self, RefusalReason, Reply};

use tokio::sync::oneshot;

use super::error::SessionError;
use crate::bounds::LOOKS_MAX;
use crate::outbox::Outbox;

/// Questions that the core has yet to answer. The core bounds them.
#[derive(Default)]
pub struct Readers {
    last: Cell<u64>,
    /// The connection of each, and its number there.
    waiting: RefCell<BTreeMap<u64, (Rc<Outbox>, u64)>>,
    /// Those of whoever looks on (`crate::observe`).
    looking: RefCell<BTreeMap<u64, oneshot::Sender<Position>>>,
}

impl Readers {
    fn next(&self) -> u64 {
        self.last.set(self.last.get() + 1);
        self.last.get()
    }

    /// A question of nobody's connection. None at the bound: those that were given up stay until the core answers them, and may be many where it
    /// cannot.
    pub fn look(&self) -> Option<(u64, oneshot::Receiver<Position>)> {
        let mut looking = self.looking.borrow_mut();
        if looking.len() >= LOOKS_MAX {
            return None;
        }
        let (asked, (answer, answered)) = (self.next(), oneshot::channel());
        looking.insert(asked, answer);
        Some((asked, answered))
    }

    pub fn ask(&self, outbox: &Rc<Outbox>, number: u64) -> u64 {
        let asked = self.next();
        self.waiting.borrow_mut().insert(asked, (outbox.clone(), number));
        asked
    }

    /// What the core says; nothing happens if it is not about reads.
    pub fn answered(&self, reply: &LocalReply) {
        let (asked, position) = match *reply {
            LocalReply::ReadFrom { number, position } => (number, Ok(position)),
            LocalReply::ReadRefused { number, reason } => (number, Err(reason)),
            _ => return,
        };
        if let Some(answer) = self.looking.borrow_mut().remove(&asked) {
            // Whoever asked may have given up. Of a refusal it hears by the end of its channel.
            let _ = position.map(|position| answer.send(position));
        } else if let Some((outbox, number)) = self.waiting.borrow_mut().remove(&asked) {
            // If it can't be written, the connection's own task ends it.
            let _ = put(&outbox, &answer(number, position));
        }
    }
}

fn answer(number: u64, position: Result<Position, RefusalReason>) -> Reply {
    match position {
        Ok(position) => Reply::ReadFrom { number, position },
        Err(reason) => Reply::ReadRefused { number, reason },
    }
}

pub fn put(outbox: &Outbox, reply: &Reply) -> Result<(), SessionError> {
    outbox.put(|out| link::put_frame(out, reply, &[]))?;
    outbox.flush();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_look_on_hear_a_position_or_the_end_and_are_a_bounded_number() {
        let readers = Readers::default();
        let (first, mut answer) = readers.look().unwrap();
        let (second, mut refused) = readers.look().unwrap();
        readers.answered(&LocalReply::ReadFrom { number: first, position: Position(7) });
        readers.answered(&LocalReply::ReadRefused { number: second, reason: RefusalReason::NoQuorum });
        assert_eq!(answer.try_recv(), Ok(Position(7)));
        assert_eq!(refused.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        // Those that were given up count until the core has answered them.
        let given_up: Vec<u64> = (0..LOOKS_MAX).map(|_| readers.look().unwrap().0).collect();
        assert!(readers.look().is_none());
        readers.answered(&LocalReply::ReadFrom { number: given_up[0], position: Position(7) });
        assert!(readers.look().is_some());
    }
}

//! Questions of readers on their way through the core.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use gcs_core::LocalReply;
use gcs_writeset::Position;
use gcs_writeset::link::{self, RefusalReason, Reply};

use super::error::SessionError;
use crate::outbox::Outbox;

/// Questions that the core has yet to answer: the connection of each, and its number there. The core bounds them.
#[derive(Default)]
pub struct Readers {
    last: Cell<u64>,
    waiting: RefCell<BTreeMap<u64, (Rc<Outbox>, u64)>>,
}

impl Readers {
    pub fn ask(&self, outbox: &Rc<Outbox>, number: u64) -> u64 {
        let asked = self.last.get() + 1;
        self.last.set(asked);
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
        if let Some((outbox, number)) = self.waiting.borrow_mut().remove(&asked) {
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

//! Backends that use group locks, and are connected: where what the core says to them goes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use gcs_core::LocalReply;
use gcs_writeset::link::{Failure, FailureKind, Reply};
use tokio::sync::Notify;

use super::readers::put;
use crate::outbox::Outbox;

/// Those that are connected.
#[derive(Default)]
pub struct Lockers {
    last: Cell<u64>,
    connected: RefCell<BTreeMap<u64, Connected>>,
}

struct Connected {
    outbox: Rc<Outbox>,
    lost: Rc<Notify>,
}

impl Lockers {
    /// The connection's number, and what says that its locks are lost.
    pub fn enter(&self, outbox: &Rc<Outbox>) -> (u64, Rc<Notify>) {
        let connection = self.last.get() + 1;
        self.last.set(connection);
        let lost = Rc::new(Notify::new());
        self.connected.borrow_mut().insert(connection, Connected { outbox: outbox.clone(), lost: lost.clone() });
        (connection, lost)
    }

    /// What the core says; nothing happens if it is not about locks. If it can't be written, the connection's own task ends it.
    pub fn answered(&self, reply: &LocalReply) {
        let (connection, reply) = match *reply {
            LocalReply::Lock { connection, number, session, answer } => {
                (connection, Reply::Lock { number, session, answer })
            }
            LocalReply::LockRefused { connection, number, reason } => (connection, Reply::LockRefused { number, reason }),
            LocalReply::LocksLost { connection } => (connection, Reply::Failed(lost())),
            _ => return,
        };
        if let Some(Connected { outbox, lost }) = self.connected.borrow().get(&connection) {
            let _ = put(outbox, &reply);
            if let Reply::Failed(_) = reply {
                lost.notify_one();
            }
        }
    }

    pub fn leave(&self, connection: u64) {
        self.connected.borrow_mut().remove(&connection);
    }
}

fn lost() -> Failure {
    Failure {
        kind: FailureKind::LocksLost,
        message: "the locks of this session may be held by others".to_owned(),
        hint: String::new(),
    }
}

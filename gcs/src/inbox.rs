//! What waits for the next step of the core. Sockets put in, the driver takes everything at once.

use std::cell::{Cell, RefCell};

use gcs_core::{Input, Local, PeerMessage};
use tokio::sync::Notify;

use crate::bounds::INBOX_BYTES_MAX;

#[derive(Debug, Default)]
pub struct Inbox {
    inputs: RefCell<Vec<Input>>,
    bytes: Cell<usize>,
    filled: Notify,
    emptied: Notify,
}

impl Inbox {
    pub fn push(&self, input: Input) {
        self.bytes.set(self.bytes.get() + cost(&input));
        self.inputs.borrow_mut().push(input);
        self.filled.notify_one();
    }

    /// Inputs that wait, and their bytes.
    pub fn waiting(&self) -> (usize, usize) {
        (self.inputs.borrow().len(), self.bytes.get())
    }

    /// To be awaited by whoever reads from a socket, before it reads more.
    pub async fn room(&self) {
        while self.bytes.get() > INBOX_BYTES_MAX {
            self.emptied.notified().await;
        }
    }

    /// Everything that waits; waits for something first.
    pub async fn take(&self) -> Vec<Input> {
        while self.inputs.borrow().is_empty() {
            self.filled.notified().await;
        }
        self.take_now()
    }

    /// What waits now, if anything.
    pub fn take_now(&self) -> Vec<Input> {
        self.bytes.set(0);
        self.emptied.notify_waiters();
        self.inputs.take()
    }
}

fn cost(input: &Input) -> usize {
    const OVERHEAD: usize = 64;
    let payload = match input {
        Input::Peer { message: PeerMessage::Forward(commands), .. } => commands.iter().map(|c| c.length() + OVERHEAD).sum(),
        Input::Peer { message: PeerMessage::Raft(message), .. } => {
            message.entries.iter().map(|entry| entry.data.len() + OVERHEAD).sum::<usize>()
                + message.snapshot.as_ref().map_or(0, |snapshot| snapshot.data.len())
        }
        Input::Local(Local::Submit { writeset, .. }) => writeset.len(),
        Input::Local(Local::Chunk { bytes, .. }) => bytes.len(),
        _ => 0,
    };
    OVERHEAD + payload
}

//! The front of a long body on its way, chunk by chunk.
//!
//! Chunks that nobody has confirmed are kept: what was on its way when a connection was lost is sent again, and so is what was refused,
//! for `postgres_r.commit_timeout`. A leader that died, a daemon that has much to do: no reason yet to throw hours of work away.

use std::collections::VecDeque;

use gcs_writeset::Sequence;
use gcs_writeset::bounds::CHUNKS_IN_FLIGHT_MAX;

use super::Backend;
use crate::id::Moment;
use crate::platform::Platform;
use crate::replica::At;
use crate::slot::{Slot, State};

/// Chunks on their way.
pub struct Window {
    /// How many chunks there are.
    count: u32,
    /// The index of the first that is kept: all before are ordered.
    first: u32,
    chunks: VecDeque<Vec<u8>>,
    /// How many of those kept were sent on the present connection.
    sent: usize,
    /// The node's attach, by number, that they were sent under.
    attaches: u64,
    refused_since: Option<Moment>,
}

pub enum Next {
    /// All so many are ordered.
    Done(u32),
    /// Send the chunk of this index.
    Send(u32),
    Wait,
}

impl Window {
    pub fn new(count: u32, attaches: u64) -> Window {
        Window { count, first: 0, chunks: VecDeque::new(), sent: 0, attaches, refused_since: None }
    }

    /// Whether a chunk was refused, and it is too early to give up: after a pause, all that is kept is sent again.
    pub fn is_to_be_tried_again(&mut self, slot: &Slot, sequence: Sequence, backend: &impl Backend) -> bool {
        let now = backend.now();
        let is_patient = self.refused_since.is_none_or(|since| now.since(since) < backend.commit_timeout());
        let again = is_patient && slot.state() == State::Refused && slot.reopen(sequence);
        if again {
            self.refused_since.get_or_insert(now);
            self.sent = 0;
        }
        again
    }

    /// Looks what was confirmed, and whether the connection was lost. True if there was progress.
    pub fn look<P: Platform>(&mut self, at: At<'_, P>, slot: &Slot, backend: &mut impl Backend) -> bool {
        let attaches = at.database.replica.attaches();
        if attaches != self.attaches || !backend.is_connected() {
            self.attaches = attaches;
            self.sent = 0;
        }
        let ordered = slot.chunks.count();
        let news = ordered.saturating_sub(self.first) as usize;
        self.chunks.drain(..news.min(self.chunks.len()));
        self.sent = self.sent.saturating_sub(news);
        self.first += news as u32;
        if news > 0 {
            self.refused_since = None;
            slot.progress.done(u64::from(self.first) * backend.chunk_bytes() as u64);
        }
        news > 0
    }

    pub fn next<P: Platform>(&mut self, at: At<'_, P>, backend: &mut impl Backend) -> Next {
        if self.first >= self.count {
            return Next::Done(self.count);
        }
        let kept = self.chunks.len();
        let is_room = kept < CHUNKS_IN_FLIGHT_MAX as usize && self.first + (kept as u32) < self.count;
        if self.sent == kept && is_room {
            let mut chunk = Vec::new();
            let bytes = backend.chunk_bytes();
            backend.read_body(&mut chunk, bytes);
            self.chunks.push_back(chunk);
        }
        let is_sendable = self.sent < self.chunks.len() && at.database.replica.is_attached();
        if is_sendable { Next::Send(self.first + self.sent as u32) } else { Next::Wait }
    }

    pub fn chunk(&self, index: u32) -> &[u8] {
        index.checked_sub(self.first).and_then(|at| self.chunks.get(at as usize)).map_or(&[], Vec::as_slice)
    }

    /// The chunk that [`Window::next`] named was sent.
    pub fn sent(&mut self) {
        self.sent += 1;
    }
}

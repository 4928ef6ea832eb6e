//! The front of a long body on its way, chunk by chunk.
//!
//! Chunks that nobody has confirmed are kept: what was on its way when a connection was lost is sent again, and so is what was refused,
//! for `postgres_r.commit_timeout`. A leader that died, a daemon that has much to do: no reason yet to throw hours of work away.

use std::collections::VecDeque;

use gcs_writeset::Sequence;
use gcs_writeset::bounds::CHUNKS_IN_FLIGHT_MAX;

use super::backend::{Backend, Sent};
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
    /// Of this index and all above, nothing was ever sent.
    never_sent: u32,
    /// How many chunks were sent again, counted each time.
    again: u32,
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
        Window { count, first: 0, chunks: VecDeque::new(), sent: 0, never_sent: 0, again: 0, attaches, refused_since: None }
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

    /// How far the chunk got that [`Window::next`] named.
    pub fn sent(&mut self, index: u32, sent: Sent) {
        if sent == Sent::Nothing {
            return;
        }
        if index < self.never_sent {
            self.again += 1;
        }
        self.never_sent = self.never_sent.max(index + 1);
        if sent == Sent::Whole {
            self.sent += 1;
        }
    }

    /// How many chunks more than there are were sent. One refusal may still come for each of them, after the others were ordered.
    pub fn again(&self) -> u32 {
        self.again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_that_was_sent_again_is_counted() {
        let mut window = Window::new(3, 1);
        window.sent(0, Sent::Whole);
        window.sent(1, Sent::Nothing);
        window.sent(1, Sent::Perhaps);
        assert_eq!(window.again(), 0);
        // The connection was lost, and all of it is sent anew.
        window.sent(0, Sent::Whole);
        window.sent(1, Sent::Whole);
        window.sent(2, Sent::Whole);
        assert_eq!(window.again(), 2);
    }
}

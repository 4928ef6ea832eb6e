//! A connection to gcs that comes and goes. A manager has two: the stream, and the fetcher while there is something to fetch.

use std::time::{Duration, Instant};

use crate::link::Link;
use crate::pg::latch::Interest;

/// Between attempts to reach gcs.
pub(super) const RECONNECT_MIN: Duration = Duration::from_millis(50);
pub(super) const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// What is read before other duties get their turn.
pub(super) const READ_BYTES_A_ROUND: usize = 4 << 20;

/// A connection to gcs that comes and goes.
pub(super) struct Connection {
    pub(super) link: Option<Link>,
    pub(super) retry_at: Instant,
    pub(super) pause: Duration,
    /// There may be more to read at once.
    pub(super) unread: bool,
    /// There was no room for the frame at the front of the input.
    pub(super) stalled: bool,
}

impl Connection {
    pub(super) fn new() -> Connection {
        Connection { link: None, retry_at: Instant::now(), pause: RECONNECT_MIN, unread: false, stalled: false }
    }

    pub(super) fn opened(&mut self, link: Link) {
        *self = Connection { link: Some(link), unread: true, stalled: false, ..*self };
    }

    /// The connection is lost; it is tried again after a pause that grows, unless it `was_good`.
    pub(super) fn lost(&mut self, was_good: bool) {
        self.pause = if was_good { RECONNECT_MIN } else { (self.pause * 2).min(RECONNECT_MAX) };
        *self = Connection {
            link: None,
            retry_at: Instant::now() + self.pause,
            unread: false,
            stalled: false,
            pause: self.pause,
        };
    }

    pub(super) fn interest(&self) -> Interest {
        self.link
            .as_ref()
            .map_or(Interest::NOTHING, |link| Interest { readable: !self.stalled, writable: link.wants_to_write() })
    }
}

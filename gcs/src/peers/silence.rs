//! When a peer is taken for dead: it has said nothing for as long as `[detector]` allows, or has been in the middle of one frame for that long
//! without getting on with it.
//!
//! The second is for a length that was changed on the way. The reader would wait for bytes that were never sent, and take all that the peer
//! says meanwhile for them; who speaks so little that it would go on for long is found out here. (TLS notices a changed byte by itself.)
//!
//! At half of the time there is a warning, once until the peer is heard again: whoever reads the log sees a link or a machine that is at its limits
//! before it costs anything.

use std::io;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use thiserror::Error;
use tokio::time::timeout;

use crate::bounds::PEER_PROGRESS_BYTES_MIN;
use crate::outbox::Stream;

#[derive(Debug, Error)]
pub enum SilenceError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("connection closed")]
    Closed,
    #[error("nothing heard for {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("a frame that has not become complete for {} ms, with {bytes} bytes of it in that time", time.as_millis())]
    Stuck { time: Duration, bytes: u64 },
}

/// Of one connection.
#[derive(Debug)]
pub struct Silence<'a> {
    peer: &'a str,
    max: Duration,
    /// How long has been waited for the rest of a frame, and what has come of it meanwhile.
    waited: Duration,
    bytes: u64,
}

impl Silence<'_> {
    pub fn of(peer: &str, max: Duration) -> Silence<'_> {
        Silence { peer, max, waited: Duration::ZERO, bytes: 0 }
    }

    /// A frame has become complete.
    pub fn complete(&mut self) {
        self.waited = Duration::ZERO;
        self.bytes = 0;
    }

    /// Reads what comes next.
    pub async fn read(&mut self, stream: &Stream, buffer: &mut BytesMut) -> Result<(), SilenceError> {
        // Between two frames nothing is waited for.
        let (in_frame, began) = (!buffer.is_empty(), Instant::now());
        let bytes = self.hear(stream.read(buffer)).await?;
        if bytes == 0 {
            return Err(SilenceError::Closed);
        }
        if in_frame { self.note(bytes as u64, began.elapsed()) } else { Ok(()) }
    }

    async fn hear(&self, read: impl Future<Output = io::Result<usize>>) -> Result<usize, SilenceError> {
        let (mut read, began, half) = (std::pin::pin!(read), Instant::now(), self.max / 2);
        if let Ok(read) = timeout(half, read.as_mut()).await {
            return Ok(read?);
        }
        let (silent_ms, limit_ms) = (began.elapsed().as_millis(), self.max.as_millis());
        tracing::warn!(peer = %self.peer, silent_ms, limit_ms, "peer is silent, and will soon be taken for dead");
        let bytes = timeout(self.max - half, read).await.map_err(|_| SilenceError::Silent(self.max))??;
        if bytes > 0 {
            let silent_ms = began.elapsed().as_millis();
            tracing::info!(peer = %self.peer, silent_ms, "peer is heard again");
        }
        Ok(bytes)
    }

    fn note(&mut self, bytes: u64, waited: Duration) -> Result<(), SilenceError> {
        self.bytes += bytes;
        self.waited += waited;
        if self.waited < self.max {
            return Ok(());
        }
        if self.bytes < PEER_PROGRESS_BYTES_MIN {
            return Err(SilenceError::Stuck { time: self.waited, bytes: self.bytes });
        }
        self.complete();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_millis(200);

    #[test]
    fn a_frame_that_gets_on_may_take_its_time_and_one_that_does_not_ends() {
        let mut silence = Silence::of("n2", MAX);
        for _ in 0..100 {
            silence.note(PEER_PROGRESS_BYTES_MIN / 3, MAX / 4).unwrap();
        }
        silence.complete();
        for _ in 0..3 {
            silence.note(10, MAX / 4).unwrap();
        }
        assert!(matches!(silence.note(10, MAX / 4), Err(SilenceError::Stuck { bytes: 40, .. })));
        silence.complete();
        silence.note(10, MAX / 2).unwrap();
    }

    #[test]
    fn who_says_nothing_is_dead_and_who_closes_is_not_silent() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let silence = Silence::of("n2", MAX);
            assert!(matches!(silence.hear(std::future::ready(Ok(7))).await, Ok(7)));
            assert!(matches!(silence.hear(std::future::pending()).await, Err(SilenceError::Silent(max)) if max == MAX));
        });
    }
}

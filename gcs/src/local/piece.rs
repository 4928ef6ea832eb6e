//! Pieces of the log on their way to a connection: read on a thread that may wait for the disk, and sent as one.
//!
//! Whoever sends a piece first waits until the one before has been written ([`Outbox::drained`]), so a connection that does not read
//! costs one piece, however much there is for it.

use gcs_writeset::wire::WireError;
use thiserror::Error;

use crate::log::LogError;
use crate::outbox::Outbox;

#[derive(Debug, Error)]
pub enum BacklogError {
    #[error("position is no longer in the log")]
    Truncated,
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("entry cannot be decoded: {0}")]
    Wire(#[from] WireError),
    #[error("the thread that read it has panicked")]
    Panicked,
}

/// What a reader has read: itself, the frames, and what kept it from reading more.
pub struct Piece<T> {
    pub reader: T,
    pub frames: Vec<u8>,
    pub result: Result<(), BacklogError>,
}

/// Has `fill` append frames.
pub async fn read<T: Send + 'static>(
    mut reader: T,
    fill: impl FnOnce(&mut T, &mut Vec<u8>) -> Result<(), BacklogError> + Send + 'static,
) -> Result<Piece<T>, BacklogError> {
    let reading = tokio::task::spawn_blocking(move || {
        let mut frames = Vec::new();
        let result = fill(&mut reader, &mut frames);
        Piece { reader, frames, result }
    });
    reading.await.map_err(|_| BacklogError::Panicked)
}

/// The queue has drained before the piece was read: the piece itself becomes the queue, unless something came in between.
pub fn send(outbox: &Outbox, frames: Vec<u8>) {
    outbox.put(|out| if out.is_empty() { *out = frames } else { out.extend_from_slice(&frames) });
    outbox.flush();
}

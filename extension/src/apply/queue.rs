//! Where a writeset waits to be applied: a ring in shared memory, or a file when it is large or the ring is full.
//!
//! The ring is used in position order and freed in position order, as positions are committed. A writeset that was fetched
//! comes out of order and always goes to a file.

use std::io;

use gcs_writeset::wire::WireError;
use gcs_writeset::writeset::Envelope;

use crate::apply::spool;
use crate::gate::{Job, Storage};
use crate::shmem::DatabaseArea;

/// The share of the ring that one writeset may take.
const RING_SHARE: usize = 4;

/// Whether a writeset of that length may ever go into the ring.
pub fn fits_ring(area: &DatabaseArea, length: usize) -> bool {
    length <= area.queue.size() / RING_SHARE
}

/// Copies a whole writeset into the ring. `None` if it does not fit (now).
pub fn place_in_ring(area: &DatabaseArea, writeset: &[u8]) -> Option<Storage> {
    if !fits_ring(area, writeset.len()) {
        return None;
    }
    let (offset, end) = area.gate.take_ring(area.queue.size(), writeset.len())?;
    area.queue.write(offset, writeset);
    Some(Storage::Ring { offset, length: writeset.len(), end })
}

/// Why a writeset can't be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read its file: {0}")]
    File(#[from] io::Error),
    #[error("it is damaged: {0}")]
    Damaged(#[from] WireError),
}

/// The envelope and the whole body of a queued writeset. `bytes` is reused from job to job.
pub fn read(area: &DatabaseArea, job: &Job, bytes: &mut Vec<u8>) -> Result<(Envelope, std::ops::Range<usize>), ReadError> {
    bytes.clear();
    match job.storage {
        Storage::Ring { offset, length, .. } => {
            area.queue.read(offset, length, bytes);
            let (envelope, body) = Envelope::decode(bytes)?;
            let end = bytes.len() - 4;
            Ok((envelope, end - body.len()..end))
        }
        Storage::File { chunks, length } => {
            spool::read(area.state.oid(), job.position, bytes, length)?;
            let chunks = usize::try_from(chunks).unwrap_or(usize::MAX).min(bytes.len());
            let (envelope, rest) = Envelope::decode(&bytes[chunks..])?;
            // Chunks first, then what came with the envelope: made contiguous in place.
            let (start, rest) = (bytes.len() - 4 - rest.len(), rest.len());
            bytes.copy_within(start..start + rest, chunks);
            bytes.truncate(chunks + rest);
            Ok((envelope, 0..chunks + rest))
        }
    }
}

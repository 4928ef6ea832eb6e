//! Where a writeset waits to be applied: a ring in shared memory, or a file when it is large or the ring is full.
//!
//! The ring is used in position order and freed in position order, as positions are committed. A writeset that was fetched
//! comes out of order and always goes to a file.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::PathBuf;

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

/// A queued writeset: its envelope, and where the body is.
pub struct Queued {
    pub envelope: Envelope,
    /// As encoded; the end of the body is in it.
    bytes: Vec<u8>,
    rest: Range<usize>,
    /// The file with the front of the body, and how much of it that is.
    front: Option<(PathBuf, u64)>,
}

impl Queued {
    /// `bytes` is memory to be used, from job to job.
    pub fn read(area: &DatabaseArea, job: &Job, mut bytes: Vec<u8>) -> Result<Queued, ReadError> {
        bytes.clear();
        let front = match job.storage {
            Storage::Ring { offset, length, .. } => {
                area.queue.read(offset, length, &mut bytes);
                None
            }
            Storage::File { chunks, length } => {
                let path = spool::path(area.state.oid(), job.position);
                spool::read(&path, chunks..length, &mut bytes)?;
                (chunks > 0).then_some((path, chunks))
            }
        };
        let (envelope, rest) = Envelope::decode(&bytes)?;
        let end = bytes.len() - 4;
        let rest = end - rest.len()..end;
        Ok(Queued { envelope, bytes, rest, front })
    }

    /// Bytes of the body.
    pub fn length(&self) -> u64 {
        self.front.as_ref().map_or(0, |(_, chunks)| *chunks) + self.rest.len() as u64
    }

    /// Whether it came in chunks.
    pub fn is_large(&self) -> bool {
        self.front.is_some()
    }

    /// The body from its beginning.
    pub fn body(&self) -> io::Result<Box<dyn Read + '_>> {
        let rest = &self.bytes[self.rest.clone()];
        Ok(match &self.front {
            Some((path, chunks)) => Box::new(File::open(path)?.take(*chunks).chain(rest)),
            None => Box::new(rest),
        })
    }

    /// Its memory, for the next one.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

//! A queued writeset, read back from where the manager put it.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::PathBuf;

use gcs_writeset::body::Item;
use gcs_writeset::wire::WireError;
use gcs_writeset::writeset::{Envelope, Head, Peeked};
use postgres_r_protocol::gate::{Job, Storage};
use postgres_r_protocol::items::{self, StreamError};
use postgres_r_protocol::platform::Ring;

use crate::node::DatabaseArea;
use crate::spool;

/// Why a writeset can't be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read its file: {0}")]
    File(#[from] io::Error),
    #[error("it is damaged: {0}")]
    Damaged(#[from] WireError),
}

/// The front of the envelope, and where the body is. The keys are the certifier's, and are not decoded here.
pub struct Queued {
    pub head: Head,
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
                let path = spool::path(area.oid(), job.position);
                spool::read(&path, chunks..length, &mut bytes)?;
                (chunks > 0).then_some((path, chunks))
            }
        };
        let Peeked { head, body: rest, .. } = Envelope::peek(&bytes)?;
        Ok(Queued { head, bytes, rest, front })
    }

    /// One that was never queued.
    pub fn whole(bytes: Vec<u8>) -> Result<Queued, WireError> {
        let Peeked { head, body: rest, .. } = Envelope::peek(&bytes)?;
        Ok(Queued { head, bytes, rest, front: None })
    }

    /// Bytes of the body.
    pub fn length(&self) -> u64 {
        self.front.as_ref().map_or(0, |(_, chunks)| *chunks) + self.rest.len() as u64
    }

    /// Whether it came in chunks.
    pub fn is_large(&self) -> bool {
        self.front.is_some()
    }

    /// Calls `visit` with each item of the body and the number of bytes up to its end, until one fails. What did not come in chunks is read
    /// where it is.
    pub fn for_each_item<E: From<StreamError>>(&self, visit: impl FnMut(Item<'_>, u64) -> Result<(), E>) -> Result<(), E> {
        let rest = &self.bytes[self.rest.clone()];
        match &self.front {
            Some((path, chunks)) => {
                let front = File::open(path).map_err(StreamError::File)?;
                items::for_each(front.take(*chunks).chain(rest), visit)
            }
            None => items::for_each_in(rest, visit),
        }
    }

    /// Its memory, for the next one.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

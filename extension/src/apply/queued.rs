//! A writeset to be applied, read back from where the manager put it; or, ahead of its position, from gcs as it is applied.

use std::cell::{Cell, RefCell};
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
    front: Option<Front>,
    /// The item at hand is a statement, or was when it failed.
    is_at_statement: Cell<bool>,
}

/// Where the front of a body is that came in chunks.
enum Front {
    /// A file, and how much of it that is.
    File(PathBuf, u64),
    /// It can be read once.
    Stream(RefCell<Box<dyn Read>>),
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
                (chunks > 0).then_some(Front::File(path, chunks))
            }
        };
        let Peeked { head, body: rest, .. } = Envelope::peek(&bytes)?;
        Ok(Queued { head, bytes, rest, front, is_at_statement: Cell::new(false) })
    }

    /// One that was never queued.
    pub fn whole(bytes: Vec<u8>) -> Result<Queued, WireError> {
        let Peeked { head, body: rest, .. } = Envelope::peek(&bytes)?;
        Ok(Queued { head, bytes, rest, front: None, is_at_statement: Cell::new(false) })
    }

    /// The same of one whose chunks come from somewhere else, once.
    pub fn with_chunks(bytes: Vec<u8>, chunks: impl Read + 'static) -> Result<Queued, WireError> {
        let front = Some(Front::Stream(RefCell::new(Box::new(chunks))));
        Ok(Queued { front, ..Queued::whole(bytes)? })
    }

    /// Whether the last item that was looked at is a statement.
    pub fn is_at_statement(&self) -> bool {
        self.is_at_statement.get()
    }

    /// Bytes of the body, as far as is known.
    pub fn length(&self) -> u64 {
        let in_file = if let Some(Front::File(_, chunks)) = &self.front { *chunks } else { 0 };
        in_file + self.rest.len() as u64
    }

    /// Whether it came in chunks.
    pub fn is_large(&self) -> bool {
        self.front.is_some()
    }

    /// Calls `visit` with each item of the body and the number of bytes up to its end, until one fails. What did not come in chunks is read
    /// where it is.
    pub fn for_each_item<E: From<StreamError>>(
        &self,
        mut visit: impl FnMut(Item<'_>, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let rest = &self.bytes[self.rest.clone()];
        let visit = |item: Item<'_>, bytes| {
            self.is_at_statement.set(matches!(item, Item::Statement { .. }));
            visit(item, bytes)
        };
        let visited = match &self.front {
            Some(Front::File(path, chunks)) => {
                let front = File::open(path).map_err(StreamError::File)?;
                items::for_each(front.take(*chunks).chain(rest), visit)
            }
            Some(Front::Stream(chunks)) => items::for_each((&mut *chunks.borrow_mut()).chain(rest), visit),
            None => items::for_each_in(rest, visit),
        };
        if visited.is_ok() {
            self.is_at_statement.set(false);
        }
        visited
    }

    /// Its memory, for the next one.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

//! Writesets that arrive in several frames: the encoded writeset first, then the chunks of its body's front. Chunks go to
//! the spool as they come; the writeset, whose envelope comes last on disk, waits in memory.

use std::io;

use gcs_writeset::{NodeId, Position};
use pgrx::pg_sys;

use crate::apply::spool::Writer;
use crate::gate::Storage;
use crate::progress;

pub struct Assembly {
    pub depends_on: Position,
    pub node: NodeId,
    /// Fetched for an orphan, not part of the stream.
    pub fetched: bool,
    writeset: Option<Vec<u8>>,
    file: Option<Writer>,
}

impl Assembly {
    /// Of the stream: the first part has come with the verdict.
    pub fn streamed(depends_on: Position, node: NodeId, writeset: &[u8]) -> Assembly {
        Assembly { depends_on, node, fetched: false, writeset: Some(writeset.to_vec()), file: None }
    }

    pub fn fetched(node: NodeId) -> Assembly {
        Assembly { depends_on: Position::ZERO, node, fetched: true, writeset: None, file: None }
    }

    pub fn add(&mut self, database: pg_sys::Oid, position: Position, part: &[u8]) -> io::Result<()> {
        if self.writeset.is_none() {
            self.writeset = Some(part.to_vec());
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(Writer::create(database, position)?),
        };
        file.append(part)?;
        progress::mine().done(file.length);
        Ok(())
    }

    /// Everything is there: where it can be read.
    pub fn finish(self, database: pg_sys::Oid, position: Position) -> io::Result<Storage> {
        let mut file = match self.file {
            Some(file) => file,
            None => Writer::create(database, position)?,
        };
        let chunks = file.length;
        file.append(self.writeset.as_deref().unwrap_or(&[]))?;
        Ok(Storage::File { chunks, length: file.length })
    }

    pub fn discard(self) {
        if let Some(file) = self.file {
            file.discard();
        }
    }
}

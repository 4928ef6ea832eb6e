//! Writesets that arrive in several frames: the encoded writeset first, then the chunks of its body's front. Chunks go to
//! a file of the spool as they come; the writeset, whose envelope comes last on disk, waits in memory.

use std::io;

use gcs_writeset::Position;

use crate::gate::Storage;
use crate::progress::Progress;

/// Files for writesets that don't fit the apply queue. They hold nothing that is not in the group's log, so they need not survive anything.
pub trait Spool {
    type File: SpoolFile;

    fn create(&self, position: Position) -> io::Result<Self::File>;
}

/// A file that is being written.
pub trait SpoolFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn length(&self) -> u64;
    /// The writeset will not be completed this time.
    fn discard(self);
}

/// One writeset of which parts are missing.
pub struct Assembly<F> {
    position: Position,
    writeset: Option<Vec<u8>>,
    file: Option<F>,
}

impl<F: SpoolFile> Assembly<F> {
    pub fn new(position: Position) -> Assembly<F> {
        Assembly { position, writeset: None, file: None }
    }

    pub fn position(&self) -> Position {
        self.position
    }

    /// The next part: the writeset, or a chunk.
    pub fn add(&mut self, spool: &impl Spool<File = F>, part: &[u8], progress: &Progress) -> io::Result<()> {
        if self.writeset.is_none() {
            self.writeset = Some(part.to_vec());
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(spool.create(self.position)?),
        };
        file.append(part)?;
        progress.done(file.length());
        Ok(())
    }

    /// Everything is there: where it can be read.
    pub fn finish(self, spool: &impl Spool<File = F>) -> io::Result<Storage> {
        let mut file = match self.file {
            Some(file) => file,
            None => spool.create(self.position)?,
        };
        let chunks = file.length();
        file.append(self.writeset.as_deref().unwrap_or_default())?;
        Ok(Storage::File { chunks, length: file.length() })
    }

    pub fn discard(self) {
        if let Some(file) = self.file {
            file.discard();
        }
    }
}

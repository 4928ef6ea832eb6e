//! Files for writesets that don't fit the apply queue: `postgres_r/<database>.<position>` in the data directory.
//!
//! They hold nothing that is not in the group's log, so they are never flushed, and whatever a crash leaves is swept away when
//! the server starts.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use gcs_writeset::Position;
use pgrx::pg_sys;
use postgres_r_protocol::assembly::{Spool, SpoolFile};

/// Relative to the data directory, where every PostgreSQL process runs.
const DIRECTORY: &str = "postgres_r";

pub fn path(database: pg_sys::Oid, position: Position) -> PathBuf {
    PathBuf::from(DIRECTORY).join(format!("{}.{position}", database.to_u32()))
}

/// The spool of one database, as its manager fills it.
pub struct Files {
    pub database: pg_sys::Oid,
}

impl Spool for Files {
    type File = Writer;

    fn create(&self, position: Position) -> io::Result<Writer> {
        fs::create_dir_all(DIRECTORY)?;
        let path = path(self.database, position);
        Ok(Writer { file: File::create(&path)?, path, length: 0 })
    }
}

/// A file being written.
pub struct Writer {
    file: File,
    path: PathBuf,
    length: u64,
}

impl SpoolFile for Writer {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn discard(self) {
        let _ = fs::remove_file(self.path);
    }
}

/// Appends that part of a file to `bytes`; nothing may follow it.
pub fn read(path: &Path, part: Range<u64>, bytes: &mut Vec<u8>) -> io::Result<()> {
    let length = part.end.saturating_sub(part.start);
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(part.start))?;
    let read = file.take(length + 1).read_to_end(bytes)?;
    if read as u64 == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

pub fn remove(database: pg_sys::Oid, position: Position) {
    // What stays behind is swept away at the next start.
    let _ = fs::remove_file(path(database, position));
}

/// Removes everything. Once a server start, before anything is queued.
pub fn sweep() {
    if let Ok(entries) = fs::read_dir(DIRECTORY) {
        for entry in entries.flatten() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

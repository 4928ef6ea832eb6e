//! One segment file: a header, then records until its end.
//!
//! ```text
//! magic           8 bytes  "gcs log1"
//! number          u64      as in the file's name
//! previous_end    u64      where the records of the segment before end
//! first_sequence  u64      of the first record here
//! crc32c          u32      of all before; then zeros up to HEADER_BYTES
//! ```

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use gcs_writeset::wire::{Put, Reader};

use super::LogError;
use super::record::{self, ALIGNMENT, Head};

/// Small in tests, which open many.
pub const SEGMENT_BYTES: u64 = if cfg!(test) { 1 << 20 } else { 32 << 20 };
pub const HEADER_BYTES: u64 = 64;
const MAGIC: &[u8; 8] = b"gcs log1";
const FILL_PIECE_BYTES: usize = if cfg!(test) { 1 << 20 } else { 4 << 20 };

#[derive(Debug)]
pub struct Segment {
    pub number: u32,
    pub path: PathBuf,
    file: File,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub previous_end: u64,
    pub first_sequence: u64,
}

pub fn path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:08x}.log"))
}

/// Numbers of the segments in `directory`, ascending.
pub fn list(directory: &Path) -> Result<Vec<u32>, LogError> {
    let entries = std::fs::read_dir(directory).map_err(LogError::io("read directory", directory))?;
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(LogError::io("read directory", directory))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|n| u32::from_str_radix(n, 16).ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

impl Segment {
    /// The file must be there, or is made.
    pub fn open(directory: &Path, number: u32) -> Result<Segment, LogError> {
        Segment::open_file(path(directory, number), number)
    }

    /// The file must be there, and stays as it is.
    pub fn open_to_read(directory: &Path, number: u32) -> Result<Segment, LogError> {
        let path = path(directory, number);
        let file = File::open(&path).map_err(LogError::io("open", &path))?;
        Ok(Segment { number, path, file })
    }

    /// A file that is going to be some segment.
    pub fn spare(path: &Path) -> Result<Segment, LogError> {
        Segment::open_file(path.to_owned(), 0)
    }

    fn open_file(path: PathBuf, number: u32) -> Result<Segment, LogError> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(LogError::io("open", &path))?;
        Ok(Segment { number, path, file })
    }

    /// Fills the file with zeros to its full size, so that flushing what is written over them is cheap. Piece by piece: much at
    /// once would stand in the way of other flushes to the same disk.
    pub fn fill(&self) -> Result<(), LogError> {
        let zeros = vec![0; FILL_PIECE_BYTES];
        for offset in (0..SEGMENT_BYTES).step_by(FILL_PIECE_BYTES) {
            self.write(offset, &zeros)?;
            self.flush()?;
        }
        self.file.sync_all().map_err(LogError::io("flush", &self.path))
    }

    pub fn write_header(&self, header: &Header) -> Result<(), LogError> {
        let mut bytes = MAGIC.to_vec();
        for value in [u64::from(self.number), header.previous_end, header.first_sequence] {
            bytes.put_u64(value);
        }
        bytes.put_u32(crc32c::crc32c(&bytes));
        bytes.resize(HEADER_BYTES as usize, 0);
        self.write(0, &bytes)
    }

    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), LogError> {
        self.file.write_all_at(bytes, offset).map_err(LogError::io("write", &self.path))
    }

    pub fn flush(&self) -> Result<(), LogError> {
        self.file.sync_data().map_err(LogError::io("flush", &self.path))
    }

    /// Cuts the file off.
    pub fn truncate(&self, length: u64) -> Result<(), LogError> {
        let cut = || {
            self.file.set_len(length)?;
            self.file.sync_all()
        };
        cut().map_err(LogError::io("truncate", &self.path))
    }

    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, LogError> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset).map_err(LogError::io("read", &self.path))?;
        Ok(bytes)
    }

    /// Also if it has been deleted since it was opened.
    pub fn read_all(&self) -> Result<Vec<u8>, LogError> {
        let length = self.file.metadata().map_err(LogError::io("look at", &self.path))?.len();
        self.read(0, usize::try_from(length).unwrap_or(usize::MAX))
    }
}

/// The header at the front of a segment's bytes, if it is whole.
pub fn read_header(number: u32, bytes: &[u8]) -> Option<Header> {
    let content = bytes.get(..32)?;
    let mut reader = Reader::new(&bytes[8..]);
    let found = reader.u64().ok()?;
    let header = Header { previous_end: reader.u64().ok()?, first_sequence: reader.u64().ok()? };
    let good = content.starts_with(MAGIC) && found == u64::from(number) && reader.u32().ok()? == crc32c::crc32c(content);
    good.then_some(header)
}

/// A valid record behind `from` that proves that the record `expected` had been flushed.
pub fn find_witness(number: u32, bytes: &[u8], from: usize, expected: u64) -> Option<Head> {
    let from = from.next_multiple_of(ALIGNMENT);
    (from..bytes.len()).step_by(ALIGNMENT).find_map(|at| {
        let rest = &bytes[at..];
        // Cheap tests first: nearly everything here is zeros or the middle of something.
        let sequence = u64::from_le_bytes(*rest.get(8..16)?.first_chunk()?);
        let synced = u64::from_le_bytes(*rest.get(16..24)?.first_chunk()?);
        if sequence <= expected || synced < expected || synced >= sequence {
            return None;
        }
        record::read_head(u64::from(number), rest)
    })
}

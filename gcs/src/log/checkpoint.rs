//! Checkpoints: the ordered state as of an index, one file each.
//!
//! ```text
//! magic    8 bytes  "gcs ckp1"
//! index    u64
//! term     u64
//! length   u64      of the state
//! crc32c   u32      of magic, index, term, length and state
//! state
//! ```

use std::path::{Path, PathBuf};

use bytes::Bytes;
use gcs_core::{Checkpoint, LogIndex};
use gcs_writeset::wire::{Put, Reader};

use super::record::Base;
use super::{LogError, write_atomically};

const MAGIC: &[u8; 8] = b"gcs ckp1";

fn path(directory: &Path, index: u64) -> PathBuf {
    directory.join(format!("{index:016x}"))
}

/// Returns when the checkpoint is durable.
pub fn save(directory: &Path, checkpoint: &Checkpoint) -> Result<(), LogError> {
    let mut bytes = Vec::with_capacity(checkpoint.state.len() + 36);
    bytes.extend_from_slice(MAGIC);
    for value in [checkpoint.index.0, checkpoint.term, checkpoint.state.len() as u64] {
        bytes.put_u64(value);
    }
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes), &checkpoint.state);
    bytes.put_u32(checksum);
    bytes.extend_from_slice(&checkpoint.state);
    write_atomically(&path(directory, checkpoint.index.0), &bytes)
}

/// `None` if it is not there or not whole.
pub fn load(directory: &Path, index: u64) -> Result<Option<Checkpoint>, LogError> {
    let path = path(directory, index);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(decode(&bytes).filter(|checkpoint| checkpoint.index.0 == index)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LogError::Io { action: "read", path, source }),
    }
}

fn decode(bytes: &[u8]) -> Option<Checkpoint> {
    let mut reader = Reader::new(bytes);
    if reader.take(8).ok()? != MAGIC {
        return None;
    }
    let (index, term, length) = (reader.u64().ok()?, reader.u64().ok()?, reader.u64().ok()?);
    let expected = reader.u32().ok()?;
    let state = reader.rest();
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..32]), state);
    let whole = state.len() as u64 == length && checksum == expected;
    whole.then(|| Checkpoint { index: LogIndex(index), term, state: Bytes::copy_from_slice(state) })
}

/// The newest whole checkpoint whose index lies in what the log can go on from.
pub fn newest(directory: &Path, from: u64, to: u64) -> Result<Option<Checkpoint>, LogError> {
    let mut indexes = list(directory)?;
    indexes.retain(|index| (from..=to).contains(index));
    for index in indexes.into_iter().rev() {
        if let Some(checkpoint) = load(directory, index)? {
            return Ok(Some(checkpoint));
        }
    }
    Ok(None)
}

/// Deletes all but the one at `keep`.
pub fn delete_others(directory: &Path, keep: Option<Base>) -> Result<(), LogError> {
    for index in list(directory)? {
        if Some(index) != keep.map(|base| base.index) {
            let path = path(directory, index);
            std::fs::remove_file(&path).map_err(LogError::io("delete", &path))?;
        }
    }
    Ok(())
}

fn list(directory: &Path) -> Result<Vec<u64>, LogError> {
    let mut indexes = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(LogError::io("read directory", directory))? {
        let name = entry.map_err(LogError::io("read directory", directory))?.file_name();
        indexes.extend(name.to_str().and_then(|name| u64::from_str_radix(name, 16).ok()));
    }
    indexes.sort_unstable();
    Ok(indexes)
}

//! The reserve: a file that holds nothing but room, `<data_directory>/reserve`.
//!
//! A daemon whose disk is full ends, and cannot start again either: it needs a little room before it can give any back. Whoever operates it can delete this
//! file then (`gcs reserve release`), which nothing else depends on.
//!
//! It is made when the daemon starts, and only where as much again is free behind it: else it would take up at once what was given up a moment ago.
//! Where there is no room for it the daemon does without, and says so.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;

use super::{LogError, is_full};

fn path(data_directory: &Path) -> PathBuf {
    data_directory.join("reserve")
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// There is none to be.
    Unwanted,
    There,
    /// So much is free, which is too little.
    NoRoom {
        free: u64,
    },
}

/// Its bytes; none if there is no reserve.
pub fn kept(data_directory: &Path) -> Result<Option<u64>, LogError> {
    size(&path(data_directory))
}

/// Makes the file, or as much of it as is missing; one that is larger than it is to be goes first.
pub fn make(data_directory: &Path, bytes: u64) -> Result<Reserve, LogError> {
    let path = path(data_directory);
    let found = size(&path)?;
    if bytes == 0 {
        release(data_directory)?;
        return Ok(Reserve::Unwanted);
    }
    if found == Some(bytes) {
        return Ok(Reserve::There);
    }
    release(data_directory)?;
    let free = free(data_directory)?;
    if free < bytes.saturating_mul(2) {
        return Ok(Reserve::NoRoom { free });
    }
    match fill(&path, bytes) {
        Ok(()) => Ok(Reserve::There),
        // Somebody else took the room meanwhile.
        Err(error) if is_full(&error) => {
            release(data_directory)?;
            Ok(Reserve::NoRoom { free })
        }
        Err(error) => Err(LogError::io("write", &path)(error)),
    }
}

/// Gives it up: how much that was; `None` if there was none.
pub fn release(data_directory: &Path) -> Result<Option<u64>, LogError> {
    let path = path(data_directory);
    let Some(bytes) = size(&path)? else { return Ok(None) };
    fs::remove_file(&path).map_err(LogError::io("delete", &path))?;
    Ok(Some(bytes))
}

fn size(path: &Path) -> Result<Option<u64>, LogError> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LogError::io("look at", path)(error)),
    }
}

/// Bytes that are free on the disk of a directory.
pub fn free(directory: &Path) -> Result<u64, LogError> {
    let found = statvfs(directory).map_err(io::Error::from).map_err(LogError::io("look at the disk of", directory))?;
    Ok(found.blocks_available().saturating_mul(found.fragment_size()))
}

/// A file that is only as long would take up no room.
fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    let file = File::create(path)?;
    let length = bytes.try_into().map_err(|_| io::Error::from(io::ErrorKind::StorageFull))?;
    posix_fallocate(&file, 0, length)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_made_once_and_given_up_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path());
        assert_eq!(make(directory.path(), 5_000_000).unwrap(), Reserve::There);
        assert_eq!(fs::metadata(&path).unwrap().len(), 5_000_000);
        assert_eq!(make(directory.path(), 3_000_000).unwrap(), Reserve::There);
        assert_eq!(release(directory.path()).unwrap(), Some(3_000_000));
        assert_eq!(release(directory.path()).unwrap(), None);
        assert_eq!(make(directory.path(), 0).unwrap(), Reserve::Unwanted);
    }

    #[test]
    fn where_it_would_take_most_of_what_is_left_there_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let found = make(directory.path(), u64::MAX / 2).unwrap();
        assert!(matches!(found, Reserve::NoRoom { free } if free > 0), "{found:?}");
        assert_eq!(release(directory.path()).unwrap(), None);
    }
}

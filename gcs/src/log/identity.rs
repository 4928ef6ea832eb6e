//! Whose data directory this is. A directory of another node, group or member set must never be opened: it holds other
//! promises.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{LogError, write_atomically};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub node: String,
    pub group: String,
    /// Names of all members, sorted; addresses may change.
    pub members: Vec<String>,
}

const FORMAT: &str = "gcs data directory, format 1";

impl Identity {
    fn encode(&self) -> String {
        format!("{FORMAT}\nnode {}\ngroup {}\nmembers {}\n", self.node, self.group, self.members.join(" "))
    }

    /// Claims a new directory, or checks that it is this node's.
    pub(super) fn claim(&self, directory: &Path) -> Result<(), LogError> {
        let path = directory.join("identity");
        let found = match std::fs::read_to_string(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if directory.join("log").exists() {
                    return Err(not_ours(directory, "has a log but no identity file".to_owned()));
                }
                return write_atomically(&path, self.encode().as_bytes());
            }
            Err(source) => return Err(LogError::Io { action: "read", path, source }),
        };
        let ours = self.encode();
        if found == ours {
            return Ok(());
        }
        let difference = found.lines().zip(ours.lines()).find(|(theirs, ours)| theirs != ours);
        let message = match difference {
            Some((theirs, ours)) => format!("belongs to \"{theirs}\", but the configuration says \"{ours}\""),
            None => "has a damaged identity file".to_owned(),
        };
        Err(not_ours(directory, message))
    }
}

fn not_ours(path: &Path, message: String) -> LogError {
    LogError::NotOurs { path: path.to_owned(), message }
}

/// Keeps a second daemon out of the directory while it lives.
#[derive(Debug)]
pub struct DirectoryLock {
    _lock: Flock<File>,
}

impl DirectoryLock {
    /// Creates the directory if need be, and locks it.
    pub fn take(directory: &Path) -> Result<DirectoryLock, LogError> {
        std::fs::create_dir_all(directory).map_err(LogError::io("create directory", directory))?;
        let path: PathBuf = directory.join("lock");
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(LogError::io("open", &path))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(DirectoryLock { _lock: lock }),
            Err((_, Errno::EWOULDBLOCK)) => Err(LogError::InUse(directory.to_owned())),
            Err((_, errno)) => Err(LogError::Io { action: "lock", path, source: errno.into() }),
        }
    }
}

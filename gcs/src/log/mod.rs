//! The log store: what this node has promised the group, on disk.
//!
//! ```text
//! <data_directory>/identity            whose directory this is
//! <data_directory>/lock                held by the running daemon
//! <data_directory>/reserve             room, and nothing else ([`reserve`])
//! <data_directory>/removed             there if the node was told that it is no member any more
//! <data_directory>/log/<number>.log    segments: entries, hard states, outcomes, in the order they were written
//! <data_directory>/log/spare           the next segment, already filled with zeros
//! <data_directory>/checkpoints/<index> ordered states to recover from
//! ```
//!
//! One [`gcs_core::DurableWrite`] becomes one checksummed record, so it is there as a whole or not at all, and costs one write and
//! (if asked for) one flush. Segments are filled with zeros beforehand by a helper thread (the *keeper*): a flush
//! that only overwrites need not journal metadata. What is found by Raft index (entries, outcomes) is located by an index in
//! memory, 24 bytes a Raft entry, rebuilt when the log is opened.
//!
//! **What may be missing.** A write that was not flushed may be lost or torn by a crash, and nobody relied on it. So a
//! broken end of the log is cut. But each record also says up to which record everything had been flushed before it, so a broken
//! record *in front of* a valid one that vouches for it is a hole: somebody was told that it is safe. Then the log refuses
//! to open, because a node that forgets its votes and acknowledgements must not take part again.
//!
//! **Truncation** moves the *base*, the entry up to which nothing is kept. It never passes the last durable checkpoint, and a
//! segment is deleted only when the record that moved the base past it has been flushed.
//!
//! The formats are in docs/formats.md, the reasons for not using raft-engine in docs/adr/0011-log-store.md.

mod checkpoint;
mod identity;
mod index;
mod keeper;
mod look;
mod reader;
mod record;
pub mod removal;
pub mod reserve;
mod segment;
mod store;
mod usage;

use std::path::{Path, PathBuf};

use gcs_writeset::wire::WireError;
use thiserror::Error;

pub use identity::{DirectoryLock, Identity};
pub use look::Found;
pub use reader::LogReader;
pub use store::Log;
pub use usage::Usage;

#[derive(Debug, Error)]
pub enum LogError {
    #[error("could not {action} \"{}\": {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("data directory \"{}\" is in use by another daemon", .0.display())]
    InUse(PathBuf),
    #[error("data directory \"{}\" {message}", path.display())]
    NotOurs { path: PathBuf, message: String },
    #[error("the log in \"{}\" has a hole: {message}; this node must not take part again with this directory", path.display())]
    Hole { path: PathBuf, message: String },
    #[error("\"{}\" is damaged at byte {offset}: {source}", path.display())]
    Damaged { path: PathBuf, offset: u64, source: WireError },
    #[error("the core asked for an impossible write: {0}")]
    Contract(String),
}

impl LogError {
    /// Whether it is for want of room.
    pub fn is_full(&self) -> bool {
        matches!(self, LogError::Io { source, .. } if is_full(source))
    }

    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> LogError + 'a {
        move |source| LogError::Io { action, path: path.to_owned(), source }
    }
}

/// Whether an error says that there is no room.
fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// Makes a rename or a new file in `directory` durable.
fn sync_directory(directory: &Path) -> Result<(), LogError> {
    let flush = || std::fs::File::open(directory)?.sync_all();
    flush().map_err(LogError::io("flush directory", directory))
}

/// Writes a small file so that it is there as a whole or not at all.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<(), LogError> {
    use std::io::Write;
    let unfinished = path.with_extension("unfinished");
    let write = || {
        let mut file = std::fs::File::create(&unfinished)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&unfinished, path)
    };
    write().map_err(LogError::io("write", path))?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

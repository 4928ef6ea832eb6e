//! What ends the process: a broken invariant, a log that cannot be read, a configuration that cannot be run.

use gcs_writeset::wire::WireError;
use thiserror::Error;

use crate::api::LogIndex;
use crate::format::Format;

#[derive(Debug, Error)]
pub enum CoreError {
    #[error("invalid configuration: {0}")]
    Config(String),
    #[error("recovered state cannot be used: {0}")]
    Recovery(String),
    #[error("log entry {} cannot be read: {cause}", index.0)]
    Entry { index: LogIndex, cause: WireError },
    #[error("checkpoint cannot be read: {0}")]
    Checkpoint(#[from] WireError),
    #[error("raft: {0}")]
    Raft(#[from] raft::Error),
    #[error("votes are counted by another membership than the ordered one")]
    Votes,
    /// A newer release was here, or this one reads less than it said.
    #[error(
        "group \"{group}\" writes format {written}, this node reads up to {read}: run the release that the other nodes run"
    )]
    Format { group: String, written: Format, read: Format },
    #[error("driver broke the contract: {0}")]
    Contract(&'static str),
}

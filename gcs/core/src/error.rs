//! What ends the process: a broken invariant, a log that cannot be read, a configuration that cannot be run.

use gcs_writeset::wire::WireError;
use thiserror::Error;

use crate::api::LogIndex;

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
    #[error("driver broke the contract: {0}")]
    Contract(&'static str),
}

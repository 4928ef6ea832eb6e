//! What ends a connection on the local socket, as the daemon sees it.

use std::io;

use gcs_writeset::link::{Failure, FailureKind};
use gcs_writeset::wire::WireError;
use thiserror::Error;

use super::piece::BacklogError;
use crate::bounds::HANDSHAKE_TIMEOUT;

#[derive(Debug, Error)]
pub enum SessionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("garbage received: {0}")]
    Wire(#[from] WireError),
    #[error("no greeting within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Silent,
    /// The caller made a request that it must not make.
    #[error("{0}")]
    Misuse(&'static str),
    /// What the caller wants is understood and cannot be had; the caller is told why in these words.
    #[error("{}", .0.message)]
    Refused(Failure),
    #[error("the log of this node cannot be read: {0}")]
    Log(#[from] BacklogError),
}

impl SessionError {
    pub fn refused(kind: FailureKind, message: String, hint: &str) -> SessionError {
        SessionError::Refused(Failure { kind, message, hint: hint.to_owned() })
    }
}

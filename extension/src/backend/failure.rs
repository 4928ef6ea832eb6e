//! How a COMMIT comes to nothing: what is known of the transaction afterwards, and the error that says so.

use gcs_writeset::Position;

use crate::error::{self, Error};

/// Why there is no position to commit at.
pub enum Failure {
    /// Nothing of the transaction remains.
    Definite(Error),
    /// As `Definite`: the transaction lost to this position.
    Lost { winner: Position, error: Error },
    /// As `Definite`: it was to decide on a prepared transaction, and there is none of that name.
    NotPrepared,
    /// As `Definite`: it was to be prepared, and another one is under that name.
    AlreadyPrepared,
    /// The log may yet commit it.
    Unknown(Error),
    /// The server wants this process to end; as `Unknown`.
    Terminated(Error),
}

impl Failure {
    pub fn raise(self) -> ! {
        match self {
            Failure::Definite(error) | Failure::Lost { error, .. } | Failure::Unknown(error) => error.raise(),
            Failure::NotPrepared => error::not_prepared(None).raise(),
            Failure::AlreadyPrepared => error::already_prepared(None).raise(),
            Failure::Terminated(error) => error.raise_fatal(),
        }
    }
}

//! A model of PostgreSQL itself, as far as one database of one server is concerned: rows with versions, row locks, commit records that become visible
//! a moment after they are written and durable a while later.
//!
//! A version is made by the position that wrote it. A snapshot is a position: what was visible when it was taken. Whatever concerns
//! replication is not here: the processes ([`super::process`]) run the extension's own code.
//!
//! - [`rows`]: rows, values, bodies, keys
//! - [`locks`]: row locks, and who waits for them
//! - [`store`]: commit records, flushes, crashes

pub mod locks;
pub mod rows;
pub mod store;

pub use rows::{Body, Change, ChangeKind, Row, TxnId, Value};

/// Deliberate mistakes of the server, to be found like those of the certifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// What was read is compared with what was ordered after COMMIT was asked for, not after the snapshot.
    ReadBaseAtSubmit,
    /// A SERIALIZABLE transaction is treated as a REPEATABLE READ one.
    ReadsNotChecked,
}

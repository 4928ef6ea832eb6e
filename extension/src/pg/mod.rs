//! The fence: everything that touches PostgreSQL's C side, as safe types. The only place with `unsafe`.

pub mod datum;
pub mod error;
pub mod execution;
pub mod index;
pub mod invalidation;
mod list;
pub mod memory;
pub mod relation;
pub mod snapshot;
pub mod subtransaction;
pub mod trigger;

//! The fence: everything that touches PostgreSQL's C side, as safe types. The only place with `unsafe`.

pub mod access;
pub mod datum;
pub mod error;
pub mod execution;
pub mod heap;
pub mod index;
pub mod invalidation;
mod list;
pub mod memory;
pub mod relation;
pub mod role;
mod rowlock;
pub mod sequence;
pub mod setting;
pub mod snapshot;
pub mod statement;
pub mod subtransaction;
#[cfg(feature = "testing")]
pub mod testing;
pub mod trigger;
pub mod utility;

//! Writesets of other nodes, and of ours that their backend could not finish: queued by the manager, applied by remote
//! backends, committed through the gate.
//!
//! Nothing here can lose a writeset: it is in the group's log, and an application may be rolled back and done again at any
//! time. Nothing is skipped either: what can't be applied is divergence, and the database goes out of service.

pub mod pool;
pub mod queue;
pub mod rows;
pub mod spool;
pub mod statement;
pub mod stream;
pub mod victim;
pub mod worker;

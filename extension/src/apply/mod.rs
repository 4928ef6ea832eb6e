//! Remote backends: writesets of other nodes, and of this node that their backend could not finish, are applied and committed in their turn.
//!
//! Nothing here can lose a writeset: it is in the group's log, and an application may be rolled back and done again at any
//! time. Nothing is skipped either: what can't be applied is divergence, and the database goes out of service.
//!
//! The [`rehearser`] tries the statements of other nodes before they are ordered. A [`forerunner`] applies what is large before it is ordered, and commits it in its turn. A [`builder`] builds an index that a session of another node makes CONCURRENTLY.

pub mod builder;
mod building;
pub mod clearing;
mod divergence;
mod failure;
pub mod forerunner;
mod indexed;
mod large_object;
pub mod precedence;
pub mod queued;
pub mod rehearser;
mod repair;
pub mod rows;
pub mod statement;
mod two_phase;
pub mod worker;

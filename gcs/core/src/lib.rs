//! The pure core of `gcs`: order, certification, membership and delivery as one state machine.
//!
//! No I/O, clocks, threads or randomness (invariant 11): time comes in as [`Tick`]s, randomness as a seed, the log through
//! [`raft::Storage`], and everything the core wants done comes out as [`Effects`]. The daemon and the simulator
//! (`tests/sim`) drive the same code through one entry point, [`Core::step`].
//!
//! [`api`] holds the whole boundary and its contract; read it first. Behind it, in the direction a command takes:
//!
//! | room | keeps |
//! |---|---|
//! | [`flow`] | this node's commands until they are seen in the order |
//! | [`command`] | what commands are, and how they stand in log entries |
//! | [`order`] | Raft: one sequence of entries, durable on a majority |
//! | [`state`] | the ordered state: a function of those entries |
//! | [`deliver`] | per database: positions, each submission once, chunks |
//! | [`certify`] | per database: verdicts |
//! | [`tokens`] | per database: what became of commit tokens |
//! | [`locks`] | per database: who holds and awaits group locks |
//! | [`membership`] | who the members are, and how that changes |
//! | [`wishes`] | what is wanted of the membership, until it is so |
//! | [`member`], [`retention`] | who takes part in a database, how far each is, what of the log is still needed |
//! | [`format`](crate::format) | what all members must be able to read |
//! | [`checkpoint`] | the ordered state as bytes |
//! | [`quorum`], [`status`] | what to tell clients meanwhile |
//! | [`detector`] | how soon who is silent is suspected |
//! | [`reads`] | up to where a reader must wait |
//! | [`followed`] | whose chunks somebody waits for, to apply them ahead |
//! | [`recovery`] | what a core begins with |
//! | [`remains`] | what is left when a majority is lost for good |
//!
//! [`core`](crate::core) leads through them, [`bounds`] lists what limits them.

#![forbid(unsafe_code)]

pub mod api;
pub mod bounds;
pub mod certify;
pub mod checkpoint;
pub mod command;
pub mod core;
pub mod deliver;
pub mod detector;
pub mod error;
pub mod flow;
pub mod followed;
pub mod format;
pub mod locks;
pub mod member;
pub mod membership;
pub mod order;
pub mod quorum;
pub mod reads;
pub mod recovery;
pub mod remains;
pub mod retention;
pub mod state;
pub mod status;
pub mod tokens;
pub mod wishes;
pub mod writers;

pub use crate::core::{Core, Limits};
pub use api::*;
pub use detector::Detector;
pub use error::CoreError;
pub use format::Format;
pub use membership::wish::{Founder, Wish};

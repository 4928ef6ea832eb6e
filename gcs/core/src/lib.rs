//! The pure core of `gcs`: order, certification, membership and delivery as one state machine.
//!
//! No I/O, clocks, threads or randomness (invariant 11): time comes in as [`Tick`]s, randomness as a seed, the log through
//! [`raft::Storage`], and everything the core wants done comes out as [`Effects`]. The daemon and the simulator
//! (`tests/sim`) drive the same code through one entry point, `Core::step`.
//!
//! [`api`] holds the whole boundary and its contract; read it first.

#![forbid(unsafe_code)]

pub mod api;

pub use api::*;

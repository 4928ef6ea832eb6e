//! Real groups for tests: real PostgreSQL, real daemons, on this machine.
//!
//! A [`Group`] runs `gcs playground start --until-eof` as a child and keeps the write end of its standard input: however this
//! process ends, also by kill -9, the pipe closes and everything the child started ends with it. Tests that may share a group
//! take [`shared`], which hands it to one at a time, healthy.
//!
//! Nothing here sleeps to let things happen: [`wait::until`] waits for a condition against a deadline, and
//! [`Group::settle`] waits for a marker that is ordered after everything acknowledged before.

pub mod browser;
pub mod catalog;
pub mod damage;
pub mod database;
pub mod early;
pub mod fingerprint;
mod group;
pub mod http;
pub mod libpq;
pub mod machines;
pub mod memory;
pub mod ports;
pub mod programs;
pub mod race;
pub mod schema;
pub mod stopped;
pub mod wait;
pub mod writers;

pub use fingerprint::assert_equal;
pub use group::{Group, Shared, everywhere, node, shared, shared_without_table_locks, step};
pub use programs::{gcs, workload_seconds};

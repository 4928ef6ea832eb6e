//! The daemon `gcs`: a thin shell of sockets and files around the pure core.
//!
//! - [`cli`]: the commands of the program `gcs`.
//! - [`playground`]: a whole group of PostgreSQL servers and daemons on one machine.

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod log;
pub mod playground;

//! What tests across many nodes share.
//!
//! - [`append`]: the checker for list-append histories.

pub mod append;

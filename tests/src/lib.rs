//! Harness for tests across many nodes.

pub mod sim;

//! What tests across many nodes share.
//!
//! - [`sim`]: whole groups in one thread, from a seed.
//! - [`harness`]: real groups on this machine.
//! - [`faults`]: what networks, processes and clocks do to them.
//! - [`generator`]: random definitions and rows, from a seed, compared on all nodes.
//! - [`instructions`]: how many instructions a step takes, against committed figures.
//! - [`isolation`]: specs of interleaved steps in sessions on different nodes.
//! - [`workload`]: what clients do in them.
//! - [`append`]: the checker for list-append histories.
//! - [`pgbench`]: runs it and reads its report.
//! - [`rng`]: randomness with a seed.
//! - [`source`]: the project's own source, for the checks of style.
//! - [`sim`]: whole groups in one thread, with everything that can go wrong.
//!
//! A failing assertion is how a test speaks, so the harness panics where a program would return an error.

pub mod append;
pub mod faults;
pub mod generator;
pub mod harness;
pub mod instructions;
pub mod isolation;
pub mod pgbench;
pub mod rng;
pub mod sim;
pub mod source;
pub mod workload;

//! How many instructions a step takes, as a check.
//!
//! Time on a shared machine differs by half from run to run; the number of instructions hardly does. Valgrind's tool callgrind runs a
//! program on a simulated processor and writes down, for each function, how often it was called from where and how many instructions
//! that took, with everything that it called. So a change that makes a step dearer by a few percent shows as a failed check.
//!
//! - [`callgrind`]: runs a program under it.
//! - [`profile`]: reads what it wrote.
//! - [`server`]: runs the PostgreSQL server of a group's node under it.
//! - [`figures`]: the committed figures, and the comparison with them.
//!
//! `tests/tests/core_instructions.rs` counts the codec and the certifier, `tests/tests/e2e_instructions.rs` a client's backend and a remote backend.
//!
//! What is left out on purpose: the kernel's instructions, waiting, caches. A step that costs as many instructions as before may still
//! be slower; that is what `make bench` is for.

pub mod callgrind;
pub mod figures;
pub mod profile;
pub mod server;

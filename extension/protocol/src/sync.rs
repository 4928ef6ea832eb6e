//! The atomics that shared memory is made of: the standard library's, or loom's when tests/loom.rs tries all interleavings.

#[cfg(feature = "loom")]
pub use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(not(feature = "loom"))]
pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

//! Reading a body as a stream is pure: its tests run here, without a PostgreSQL to link against.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]
#![allow(dead_code, reason = "the extension uses all of it")]

#[path = "../../extension/src/apply/stream.rs"]
mod stream;

//! The extension's account of which chunks are ordered is pure: its tests run here, without a PostgreSQL to link against.

#![allow(dead_code, reason = "the extension uses all of it")]

#[path = "../../extension/src/submit/chunks.rs"]
mod chunks;

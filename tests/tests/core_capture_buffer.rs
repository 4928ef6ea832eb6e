//! The transaction's buffer of the extension is pure: its tests run here, without a PostgreSQL to link against.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]
#![allow(dead_code, reason = "the extension uses all of it")]

#[path = "../../extension/src/capture/body.rs"]
mod body;
#[path = "../../extension/src/capture/buffer.rs"]
mod buffer;
#[path = "../../extension/src/capture/order.rs"]
mod order;
#[path = "../../extension/src/capture/spill.rs"]
mod spill;

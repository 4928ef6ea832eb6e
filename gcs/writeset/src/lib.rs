//! The writeset: what a transaction changed, and the words that everything else here is written in.
//!
//! This crate is the contract between the extension `postgres_r` and the daemon `gcs`, and between nodes. Both sides link it
//! and nothing else of ours: it knows neither PostgreSQL nor Raft.
//!
//! - [`id`]: newtypes for every number that crosses a module: positions, nodes, incarnations, tags.
//! - [`key`]: certification keys (docs/certification.md): 64-bit hashes in namespaces, shared or exclusive.
//! - [`kind`]: what a node is for: full, query-only, witness.
//! - [`token`]: commit tokens, by which an application asks what became of a transaction.
//! - [`lock`]: what sessions ask of the group's lock table.
//! - [`tables`]: names of tables.
//! - [`wire`]: little-endian readers and writers that never panic on input.
//! - [`writeset`]: the envelope that the daemon reads (bases, keys) around a body that it does not.
//! - [`body`]: row images and ordered statements, as the extension writes and applies them.
//! - [`indexed`]: a step of an index that is made or dropped CONCURRENTLY; [`building`]: asking a node to build it.
//! - [`decided`]: what a statement has made out of rows.
//! - [`large_object`]: changes of large objects.
//! - [`two_phase`]: writesets that prepare a transaction, and those that decide on it.
//! - [`link`]: messages on the Unix socket between the extension and its daemon.
//! - [`bounds`]: every size that any of the above may reach, and what happens there.
//!
//! Formats are written down in docs/formats.md first; the property tests beside each module hold the code to it.

#![forbid(unsafe_code)]

pub mod body;
pub mod bounds;
pub mod building;
pub mod decided;
pub mod id;
pub mod indexed;
pub mod key;
pub mod kind;
pub mod large_object;
pub mod link;
pub mod lock;
pub mod tables;
pub mod token;
pub mod two_phase;
pub mod wire;
pub mod writeset;

pub use id::{DatabaseId, Incarnation, NodeId, Position, Sequence, SlotId, Tag};
pub use key::{Key, KeyGroup, Mode, Namespace};
pub use kind::NodeKind;
pub use lock::{Lock, LockAnswer, LockKey, LockMode, LockOp, LockSession};
pub use tables::TableName;
pub use token::{CommitToken, Token, TokenOutcome};
pub use two_phase::{Phase, TwoPhase};

//! Proof of equality: whether the nodes hold the same, at one and the same position, while everybody goes on (docs/adr/0034).
//!
//! ```text
//! session      asks (backend::verify), and waits
//! coordinator  one a verification, on the node that was asked: orders marks, compares what the nodes say, has a node repaired
//! mark         an ordered row. Who commits it holds the gate still while the node's verifier takes its snapshot
//! verifier     one a node while a verification is under way: computes fingerprints by that snapshot, and orders them as rows
//! ```
//!
//! Everything that is said between nodes is rows of tables in schema postgres_r, replicated like any others: what a node says arrives
//! everywhere, in order, or not at all. One verification is under way at a time in a database of the group; when it ends, nothing but its
//! result stays.
//!
//! A verifier is a reader like any other: what needs a lock that it holds ends its look at that table after `postgres_r.reader_grace`. Then it
//! is not known whether the table is equal, until a later look.

mod catalogs;
pub mod coordinator;
pub mod look;
pub mod mark;
pub mod row;
mod sql;
mod store;
pub mod verifier;

/// The object that stands for everything in the catalogs. Names of tables have a dot.
pub const CATALOGS: &str = "catalogs";

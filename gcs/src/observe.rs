//! Metrics and health over HTTP, for those who look on: Prometheus, balancers, whatever restarts processes. Off unless `http_address` is set.
//!
//! ```text
//! a thread of its own: [`listener`] ──▶ [`routes`] ──▶ [`asker`] ──Question──▶ the driver, between two steps: [`look`] ──Snapshot──▶ back
//!                                         │  [`verdicts`]: ready, writable, synced? a function of a snapshot
//!                                         │  [`metrics`]: the same snapshot, and what was counted, as text
//!                                         └─ [`pulse`]: does the driver still step? read without asking anybody
//! ```
//!
//! Invariants:
//!
//! - Whoever connects costs the daemon's thread nothing. It answers a question between two steps, at most one every [`SNAPSHOT_AGE_MAX`] for all that
//!   only look; those that want to know how far the group is share the rounds of readers ([`gcs_core::Question`]).
//! - Nothing is computed where transactions pass: what happens there is counted ([`counted`]), everything else is read when somebody asks.
//! - The listener holds a bounded number of connections, each for a bounded time and with a bounded number of bytes ([`crate::bounds`]).
//! - `/healthz` is about the process only. Nothing that happens to the group, or to PostgreSQL, makes it fail.
//! - Labels are names of members and databases and words of fixed lists: their number is bounded by the group's.
//!
//! Left out on purpose: TLS and passwords (docs/monitoring.md says how to put a proxy before it), anything that changes anything.
//! (docs/adr/0067-metrics-and-health.md argues for all this.)
//!
//! [`SNAPSHOT_AGE_MAX`]: crate::bounds::SNAPSHOT_AGE_MAX

pub mod asker;
pub mod caught_up;
pub mod counted;
pub mod followed;
pub mod follower;
pub mod listener;
pub mod look;
pub mod lost;
pub mod metrics;
pub mod page;
pub mod process;
pub mod pulse;
pub mod questions;
pub mod routes;
pub mod snapshot;
pub mod verdicts;
pub mod view;

//! Subscriptions of a replicated database: one node carries each, and another takes it over (docs/adr/0069-subscriptions.md).
//!
//! ```text
//! statements             the row in postgres_r.subscriptions says whether anybody is to subscribe, and who carries the subscription
//! PostgreSQL's workers   run on the carrier only; each transaction says how far it brings the subscription, in a row that travels with it
//! watch                  the leaser of each node looks whether carriers are there, and takes over from one that is not
//! ```
//!
//! What keeps a transaction of the publisher from being lost or applied twice: it commits together with the row that says how far the subscription is, which it moves
//! forward from below. Whoever takes over changes the same row, so that of the two one loses; and begins where the row is.
//!
//! Left out on purpose: `two_phase` and `disable_on_error`, which are refused by name.

pub mod group;
pub mod here;
mod sql;
pub mod watch;

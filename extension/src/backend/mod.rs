//! A client's process: what its transaction changes, how that goes out, what comes back, and what the client is told.
//!
//! In the direction of a commit: [`capture`] collects, [`writable`] asks whether the node may write, [`rehearsal`] has
//! statements tried elsewhere, [`submit`] sends on a [`connection`] of the process's own, [`commit`] waits for the turn. [`retry`] runs a single statement again that lost; [`lost`] says what errors mean.
//! [`levels`] makes whoever reads wait for what it is to see, with [`session_token`] and the answers that [`reader`] brings; [`shown`] makes a commit
//! wait until others show it.
//! [`advisory`] makes advisory locks the group's, [`row_locks`] those of rows that are skipped when they are locked, [`hot_rows`] those of rows that are fought over, [`table_locks`] those of tables that a
//! statement is about to change as a whole, of which it clears the [`others`]; [`held`] keeps what the session holds, and asks for it by a
//! [`locker`].
//! [`subscriber`] is for the workers of subscriptions, whose transactions end as a client's do.
//! [`two_phase`] prepares transactions, and decides on them. [`token`] and [`ask`] are for clients that did not hear the outcome. [`databases`] guards
//! replicated databases as a whole; [`verify`] asks for a verification, and [`repair`] carries what one node lacks; [`read_only`] tells clients beforehand whether the node takes writes.

pub mod advisory;
pub mod ahead;
pub mod ask;
pub mod capture;
pub mod commit;
pub mod connection;
pub mod databases;
pub mod failure;
pub mod held;
pub mod hot_rows;
pub mod levels;
pub mod locker;
pub mod lost;
pub mod others;
pub mod read_only;
pub mod reader;
pub mod rehearsal;
pub mod repair;
pub mod retry;
pub mod row_locks;
pub mod session_token;
pub mod shown;
pub mod submit;
pub mod subscriber;
pub mod table_locks;
pub mod token;
pub mod two_phase;
pub mod verify;
pub mod writable;

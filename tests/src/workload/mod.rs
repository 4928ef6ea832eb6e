//! What clients do in a group under test, and what they remember of it.

pub mod beside;
pub mod client;
pub mod customers;
pub mod fan;
pub mod ledger;
pub mod lists;
pub mod mutex;
pub mod pessoas;
pub mod queue;

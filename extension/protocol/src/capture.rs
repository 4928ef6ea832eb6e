//! A transaction's writeset while it is being captured: items in the order of execution, keys, and the disk that both spill to.
//!
//! [`buffer`] takes them as they come, [`order`] sorts what came out of order, [`spill`] keeps memory bounded, and [`body`] reads
//! everything once, from front to end, when the transaction commits. [`words`] tells whether two statements mention the same names.

pub mod body;
pub mod buffer;
pub mod order;
pub mod spill;
pub mod words;

//! The processes that keep replication going, beside clients' backends and remote backends.
//!
//! One [`launcher`] a server keeps a manager running for each replicated database and sends a [`scout`] for what only a process with a database can
//! read. One manager a database ([`process`]) owns the link to gcs, over a [`connection`] or, while there is something to catch up
//! with, two ([`fetching`]). [`ask`] is how a session asks for START and STOP REPLICATION,
//! [`statement`] how it types that, [`start`] and [`stop`] what the manager does about it; [`overwriting`] and [`past`] are what stays
//! of it in the database. [`maker`] makes and drops databases for the group, and [`plain`] says whether one holds nothing.

pub mod ask;
mod connection;
pub mod entry;
mod fetching;
mod forerunners;
pub mod launcher;
pub mod maker;
pub mod overwriting;
pub mod past;
mod plain;
pub mod process;
pub mod scout;
pub mod start;
pub mod statement;
pub mod stop;

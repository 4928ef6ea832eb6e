//! The daemon `gcs`: a thin shell of sockets and files around the pure core.
//!
//! - [`cli`]: the commands of the program `gcs`; [`config`]: the configuration file; [`logging`].
//! - [`daemon`]: `gcs run`, from start to end; [`status`]: `gcs status`.
//! - [`driver`]: feeds the core and carries out its effects; [`inbox`]: what waits for the next step.
//! - [`log`]: the log store.
//! - [`peers`]: the other daemons; [`local`]: PostgreSQL; [`outbox`]: sockets and what waits for them.
//! - [`rehearsals`], [`shown`]: what passes by the core: transactions that are tried before they are ordered, and who shows a position.
//! - [`bounds`]: every limit of all this.
//! - [`playground`]: a whole group of PostgreSQL servers and daemons on one machine.

#![forbid(unsafe_code)]

pub mod bounds;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod driver;
pub mod inbox;
pub mod local;
pub mod log;
pub mod logging;
pub mod outbox;
pub mod peers;
pub mod playground;
pub mod rehearsals;
pub mod shown;
pub mod status;

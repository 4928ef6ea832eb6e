//! The daemon `gcs`: a thin shell of sockets and files around the pure core.
//!
//! - [`cli`]: the command line; [`commands`]: what makes a group and lets nodes in; [`config`]: the configuration file; [`logging`].
//! - [`daemon`]: `gcs run`, from start to end; [`status`]: `gcs status`; [`members`]: the commands that change the membership;
//!   [`control`]: how they ask the daemon.
//! - [`driver`]: feeds the core and carries out its effects; [`inbox`]: what waits for the next step.
//! - [`log`]: the log store.
//! - [`peers`]: the other daemons; [`local`]: PostgreSQL; [`outbox`]: sockets and what waits for them.
//! - [`copy`]: a database of another node takes the place of one that the log does not reach.
//! - [`tls`]: what makes the link between daemons safe; [`enrolment`]: how a node gets its certificate; [`complaints`]: strangers in the log.
//! - [`rehearsals`], [`shown`]: what passes by the core: transactions that are tried before they are ordered, and who shows a position.
//! - [`forerunners`]: whoever applies a transaction before it is submitted; [`withheld`]: what a manager is not sent therefore.
//! - [`roster`]: who this node and the members are; [`wishes`]: what waits for the membership to change.
//! - [`bounds`]: every limit of all this.
//! - [`playground`]: a whole group of PostgreSQL servers and daemons on one machine.

#![forbid(unsafe_code)]

pub mod bounds;
pub mod cli;
pub mod commands;
pub mod complaints;
pub mod config;
pub mod control;
pub mod copy;
pub mod daemon;
pub mod draining;
pub mod driver;
pub mod enrolment;
pub mod equality;
pub mod forerunners;
pub mod inbox;
pub mod local;
pub mod log;
pub mod log_status;
pub mod logging;
pub mod members;
pub mod outbox;
pub mod peers;
pub mod playground;
pub mod rehearsals;
pub mod roster;
pub mod shown;
pub mod standings;
pub mod status;
pub mod tls;
pub mod wishes;
pub mod withheld;

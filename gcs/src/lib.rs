//! The daemon `gcs`: a thin shell of sockets and files around the pure core.
//!
//! - [`cli`]: the command line; [`commands`]: what makes a group and lets nodes in; [`config`]: the configuration file; [`config_check`]: what is wrong with one; [`logging`].
//! - [`daemon`]: `gcs run`, from start to end; [`looks`], [`status`]: `gcs status`; [`waits`]: `gcs wait`; [`members`]: the commands that change the membership;
//!   [`control`]: how they ask the daemon.
//! - [`driver`]: feeds the core and carries out its effects; [`inbox`]: what waits for the next step.
//! - [`log`]: the log store.
//! - [`peers`]: the other daemons; [`local`]: PostgreSQL; [`outbox`]: sockets and what waits for them.
//! - [`copy`]: a database of another node takes the place of one that the log does not reach.
//! - [`tls`]: what makes the link between daemons safe; [`enrolment`]: how a node gets its certificate; [`complaints`]: strangers in the log.
//! - [`rehearsals`], [`shown`]: what passes by the core: transactions that are tried before they are ordered, and who shows a position.
//! - [`forerunners`]: whoever applies a transaction before it is submitted; [`withheld`]: what a manager is not sent therefore.
//! - [`observe`]: metrics and health over HTTP, for those who look on.
//! - [`doctor`]: what is wrong, and what to do; [`examined`], [`introduction`]: what daemons say of themselves for that; [`verified`]: what the last comparison found.
//! - [`history`]: what has happened to the group, and who is told; [`events`]: `gcs events`.
//! - [`logged`]: `gcs log`; [`rates`]: `gcs stat`, `gcs top`.
//! - [`bundle`]: what somebody who is to help needs to see, without secrets.
//! - [`losses`]: `gcs conflicts`, `gcs failures`; [`own_server`]: the PostgreSQL that people's commands ask.
//! - [`roster`]: who this node and the members are; [`wishes`]: what waits for the membership to change.
//! - [`bounds`]: every limit of all this.
//! - [`playground`]: a whole group of PostgreSQL servers and daemons on one machine.

#![forbid(unsafe_code)]

pub mod bounds;
pub mod bundle;
pub mod cli;
pub mod commands;
pub mod complaints;
pub mod config;
pub mod config_check;
pub mod control;
pub mod copy;
pub mod daemon;
pub mod doctor;
pub mod draining;
pub mod driver;
pub mod durations;
pub mod enrolment;
pub mod equality;
pub mod events;
pub mod examined;
pub mod forerunners;
pub mod generate;
pub mod history;
pub mod inbox;
pub mod introduction;
pub mod local;
pub mod log;
pub mod log_status;
pub mod logged;
pub mod logging;
pub mod looks;
pub mod losses;
pub mod members;
pub mod observe;
pub mod outbox;
pub mod own_server;
pub mod peers;
pub mod playground;
pub mod rates;
pub mod rehearsals;
pub mod roster;
pub mod shown;
pub mod standings;
pub mod status;
pub mod tls;
pub mod verified;
pub mod waits;
pub mod wishes;
pub mod withheld;

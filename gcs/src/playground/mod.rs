//! `gcs playground`: a whole group on one machine, for trying things out, for tests, and for programs that embed it.
//!
//! Under one directory stand n nodes, each a PostgreSQL cluster and a daemon:
//!
//! ```text
//! DIR/playground.json       what was made: names, ports, group, database, programs
//! DIR/playground.lock       held while a command changes something
//! DIR/bin/gcs               the daemon's program, copied when we run as root (its own place may be closed to others)
//! DIR/node1/data            the PostgreSQL cluster; its socket, log and the daemon's files stand beside it
//! DIR/node1/gcs.toml …
//! DIR/relay                 of a playground made with --faults: the relay's socket, log and pid
//! DIR/node1.disk            of a playground made with --disk-size: the file system that is mounted at DIR/node1
//! ```
//!
//! Invariants:
//! - Loopback only. Servers and daemons run as an unprivileged user, also when we run as root.
//! - A signal goes to a process only after its working directory said that it is ours ([`process`]): a recycled pid is safe.
//! - A command returns when the thing is done, or says why not; every wait has a bound ([`Playground`]).
//! - After `stop` no process works in DIR any more, and nothing is mounted there. The data stay.
//!
//! Left out on purpose: anything a real installation would need (several machines, passwords, backups).
//!
//! - [`account`]: the user that servers run as.  - [`process`]: finding, signalling and awaiting processes.
//! - [`cluster`]: one PostgreSQL cluster.        - [`daemon`]: one daemon.
//! - [`manifest`]: playground.json and paths.    - [`group`]: the commands themselves.
//! - [`fault`]: a node that hangs.               - [`relayed`]: links that are cut or slow.
//! - [`relay`], [`links`], [`relay_process`]: what makes them so.
//! - [`disk`]: one node's own disk.              - [`disks`]: disks that are full.
//! - [`status`]: what `status` and the live table show.  - [`args`], [`watch`]: the command line.

pub mod account;
pub mod args;
pub mod cluster;
pub mod daemon;
pub mod disk;
mod disks;
pub mod error;
pub mod fault;
pub mod group;
pub mod links;
pub mod manifest;
pub mod process;
pub mod relay;
mod relay_process;
mod relayed;
pub mod status;
mod watch;

pub use args::{Args, run};
pub use error::{Error, Result};
pub use group::{NewGroup, Part, Playground};
pub use manifest::{NodeNumber, Place};

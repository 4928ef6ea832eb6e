//! What the processes of one PostgreSQL server agree on about replication, without PostgreSQL.
//!
//! A server's part in the group is played by many processes on shared memory: client backends that submit what they changed, one manager a
//! database that owns the link to gcs, remote backends that apply what other nodes committed. This crate holds every rule by which
//! they act on one another. It knows neither PostgreSQL nor sockets nor clocks: those come in through [`platform::Platform`],
//! [`submission::Backend`] and [`assembly::Spool`]. So the extension runs it in processes, the simulator (`tests/src/sim`) runs the same code
//! in one thread under every kind of trouble, and loom (`tests/loom`) tries every interleaving of its shared memory.
//!
//! In the direction of a commit:
//!
//! | module | what it decides |
//! |---|---|
//! | [`capture`] | the order of what a transaction did, and which keys it has |
//! | [`slot`], [`submission`], [`ask`] | how a writeset goes out, and what may become of it |
//! | [`manager`], [`dispatch`], [`assembly`], [`fetcher`], [`report`] | what each frame of gcs means for this node |
//! | [`gate`], [`turn`], [`ending`] | who commits when, and who does it when the backend can't |
//! | [`queue`], [`worker`], [`pool`], [`run`], [`items`] | what remote backends apply, which of them, and what together |
//! | [`forerunner`], [`offer`] | when a large position is somebody's who applied it before it was ordered |
//! | [`victim`], [`precedence`] | who gives way, and how hard it is pressed |
//! | [`replica`], [`progress`], [`recent`], [`conflicts`], [`counters`] | what is known and shown |
//! | [`watch`], [`sighting`] | whom a position that becomes visible wakes, and how old what is read may be |
//! | [`heat`], [`closed`] | which rows are fought over so often that they are locked in the group first; which tables others have locked there |
//! | [`lease`] | which values of a sequence are a node's |
//! | [`statement`] | START and STOP REPLICATION as typed |
//! | [`tablespaces`] | where a node puts what another node put into a tablespace |
//!
//! Waits are machines: `step` says what to do now, and how long to sleep at most; the process sleeps, and steps again when it was woken. A
//! process that changes what another may be waiting for wakes it after the change; a process looks at everything it waits for
//! after it was woken and before it sleeps again. That is all that keeps wake-ups from being lost.

#![forbid(unsafe_code)]

pub mod ask;
pub mod assembly;
pub mod bounds;
pub mod capture;
pub mod closed;
pub mod conflicts;
pub mod counters;
pub mod dispatch;
pub mod ending;
pub mod failure;
pub mod fetcher;
pub mod forerunner;
pub mod gate;
pub mod heat;
pub mod id;
pub mod items;
pub mod lease;
pub mod manager;
pub mod numbered;
pub mod offer;
pub mod platform;
pub mod pool;
pub mod precedence;
pub mod progress;
pub mod queue;
pub mod recent;
pub mod replica;
pub mod report;
pub mod run;
pub mod sighting;
pub mod slot;
pub mod statement;
pub mod submission;
pub mod sync;
pub mod tablespaces;
#[cfg(test)]
mod testing;
pub mod text;
pub mod turn;
pub mod verification;
pub mod victim;
pub mod watch;
pub mod worker;

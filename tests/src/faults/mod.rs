//! Faults of processes, networks and clocks, one after another, while clients keep a ledger.
//!
//! A [`Testbed`] is a group of three whose daemons run in network namespaces of their own, with an address each, on one bridge of this machine
//! ([`network`]). A namespace's own packet filter cuts what a [`Fault`] wants cut: silently, as a network would, so that nobody gets an error
//! from the kernel. What happens to bytes rather than to packets (held back and released at once, changed, said twice) is done by a
//! [`relay`], the playground's, that the daemons of a second kind of testbed reach each other by. PostgreSQL stays in the machine's own network: it talks to
//! its daemon through a socket in the file system, and its clients are never cut off from it.
//!
//! A [`round`](round::run) inflicts a fault, waits until the nodes that should go on have each acknowledged a write that was asked for after
//! it, checks that those that should not write refuse (25006) and say so, heals, and waits until every node writes and all are equal. The
//! [`campaign`] does so many times for each fault and compares the ledger with what the nodes hold. Times are judged by [`report`], and
//! only where they are the requirement: the short test looks at the ledger alone.
//!
//! Making namespaces needs root. Without it everything here fails and says so; nothing is skipped.
//!
//! Left out on purpose: full disks, and the loss of everything at once (`e2e_ledger`).

pub mod campaign;
pub mod fault;
pub mod network;
pub mod relay;
pub mod report;
pub mod round;
pub mod testbed;

pub use fault::Fault;
pub use testbed::Testbed;

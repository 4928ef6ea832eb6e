//! `gcs wait`: returns when this node is synced, or takes writes. The daemon is asked once, and answers when it is so.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use gcs_writeset::link::{Awaited, Reply, Request};

use crate::config::Config;
use crate::control::{self, ControlError};
use crate::durations;
use crate::members::{Daemon, failed};

#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Until all that anybody had been told before is visible on this node, in every database that is replicated here.
    #[arg(long, required_unless_present = "writable")]
    synced: bool,
    /// Until a COMMIT can be had on this node.
    #[arg(long)]
    writable: bool,
    /// After so long it is given up: a number and s, m, h or d.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = durations::parse)]
    timeout: Duration,
    #[command(flatten)]
    daemon: Daemon,
}

/// Exit status 0 when it is so, 1 if not in time or if the daemon cannot be asked, 2 for a bad configuration.
pub fn run(args: &WaitArgs) -> ExitCode {
    match wait(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn wait(args: &WaitArgs) -> Result<(), ControlError> {
    let config = Config::load(args.daemon.config())?;
    let deadline = Instant::now() + args.timeout;
    let wanted = [(args.writable, Awaited::Writable), (args.synced, Awaited::Synced)];
    for (_, awaited) in wanted.into_iter().filter(|(is_wanted, _)| *is_wanted) {
        let is_so = |reply| matches!(reply, Reply::Done).then_some(());
        control::ask_until(&config.local_socket, &Request::Await(awaited), deadline, is_so)?;
    }
    Ok(())
}

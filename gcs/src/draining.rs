//! `gcs drain`: makes a node ready to be shut down. What that means, and who does it, is in `crate::local`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use gcs_writeset::link::{Reply, Request};

use crate::config::Config;
use crate::control::{self, ControlError};
use crate::members::{Daemon, failed};

/// Hours, days: nobody drains for longer.
const GRACE_SECONDS_MAX: u32 = 86_400;

#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The member that is to be drained: by default this node.
    name: Option<String>,
    /// Seconds that sessions have to go by themselves; then none begins another transaction.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(..=i64::from(GRACE_SECONDS_MAX)))]
    grace: u32,
    /// Seconds after which to give up waiting. The node goes on being drained.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u32,
    /// It is to work again.
    #[arg(long, conflicts_with_all = ["grace", "timeout"])]
    cancel: bool,
    #[command(flatten)]
    daemon: Daemon,
}

pub fn run(args: &DrainArgs) -> ExitCode {
    match carry_out(args) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

fn carry_out(args: &DrainArgs) -> Result<String, ControlError> {
    let config = Config::load(args.daemon.config())?;
    let node = args.name.clone().unwrap_or(config.name);
    let request = Request::Drain { node: node.clone(), grace: (!args.cancel).then_some(args.grace) };
    let patience = Duration::from_secs(u64::from(args.timeout));
    let deadline = Instant::now() + patience;
    let is_done = |reply| match reply {
        Reply::Done => Some(()),
        Reply::Draining { leads, sessions } => {
            eprintln!("{}", progress(&node, leads, sessions));
            None
        }
        _ => None,
    };
    control::ask_until(&config.local_socket, &request, deadline, is_done)?;
    let done = if args.cancel { "works again" } else { "is drained: it can be shut down" };
    Ok(format!("node \"{node}\" {done}"))
}

fn progress(node: &str, leads: bool, sessions: Option<u32>) -> String {
    let sessions = match sessions {
        None => "its sessions are being counted".to_owned(),
        Some(1) => "1 session is left".to_owned(),
        Some(sessions) => format!("{sessions} sessions are left"),
    };
    let leads = if leads { ", it leads the group" } else { "" };
    format!("node \"{node}\": {sessions}{leads}")
}

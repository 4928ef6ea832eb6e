//! The command line. Every command ends with status 0 when the thing is done, 2 when what it was given cannot work (a bad
//! option, a bad configuration, a taken port), and 1 when it failed otherwise; an error is one line on stderr. `gcs recover` ends with 3 when it
//! has only said what it would do, `gcs verify` and `gcs repair` when something is not equal.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::{commands, daemon, draining, equality, members, playground, status};

/// The group communication daemon of postgres_r.
#[derive(Debug, Parser)]
#[command(name = "gcs", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the daemon of one node, in the foreground, until SIGTERM or SIGINT.
    Run(RunArgs),
    /// Asks the daemon of this node how the group is.
    Status(StatusArgs),
    /// Makes the authority of a new group, and the certificate and configuration of its first node.
    Init(commands::InitArgs),
    /// Lets one node join the group of this node: prints a token for gcs join.
    Token(commands::TokenArgs),
    /// Gets the certificate and configuration of this node from a group that is there.
    Join(commands::JoinArgs),
    /// Gets this node another certificate before the one that it has expires.
    Renew(commands::RenewArgs),
    /// Lists the members of the group.
    Members(members::MembersArgs),
    /// Takes a member out of the group for good, for one that is lost or not wanted any more.
    Evict(members::EvictArgs),
    /// Takes this node out of the group.
    Leave(members::LeaveArgs),
    /// Gives the vote of a member to a new one, in one step; the old one goes.
    Replace(members::ReplaceArgs),
    /// Has a member lead the group.
    Lead(members::LeadArgs),
    /// Sends clients elsewhere and leadership too, and waits until the node can be shut down without anybody's noticing.
    ///
    /// New sessions are refused (57P03), idle ones end, transactions end as they would. Ends with status 0 when nobody is left, and with 1 when
    /// somebody is after --timeout. The node works again with --cancel, or when its PostgreSQL or its daemon has been started again.
    Drain(draining::DrainArgs),
    /// Goes on with this node alone when a majority of the members is lost for good.
    ///
    /// For a node whose daemon is not running. Says what there is, and what may be lost; with --accept-loss it makes this node the only member of
    /// the group, to which others join with empty directories. Ends with status 0 when that is done, 3 when it has only said what it would do, 2
    /// when there is nothing to recover here (the daemon runs, the directory is empty or another node's, the node is a majority by itself or no
    /// member), and 1 when it failed.
    Recover(commands::RecoverArgs),
    /// Compares what the members hold of a database, while everybody goes on. Ends with status 0 if all is equal, 3 if not.
    Verify(equality::VerifyArgs),
    /// Gives a member the rows of this node in a table that it holds otherwise. Ends with status 0 if the table is equal then, 3 if not.
    Repair(equality::RepairArgs),
    /// Gives up the room that is kept for the day on which the disk of the log is full.
    Reserve(commands::ReserveArgs),
    /// Makes and drives a group of PostgreSQL servers and daemons on this machine.
    Playground(playground::Args),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The configuration file (TOML), see docs/operations.md.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// The configuration file of the daemon.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// One line of JSON instead of a table.
    #[arg(long)]
    json: bool,
}

pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => Ok(daemon::run(&args.config)),
        Command::Status(args) => Ok(status::run(&args.config, args.json)),
        Command::Init(args) => Ok(commands::init(&args)),
        Command::Token(args) => Ok(commands::token(&args)),
        Command::Join(args) => Ok(commands::join(&args)),
        Command::Renew(args) => Ok(commands::renew(&args)),
        Command::Members(args) => Ok(members::members(&args)),
        Command::Evict(args) => Ok(members::evict(args)),
        Command::Leave(args) => Ok(members::leave(&args)),
        Command::Replace(args) => Ok(members::replace(args)),
        Command::Lead(args) => Ok(members::lead(args)),
        Command::Drain(args) => Ok(draining::run(&args)),
        Command::Recover(args) => Ok(commands::recover(&args)),
        Command::Verify(args) => Ok(equality::verify(&args)),
        Command::Repair(args) => Ok(equality::repair(&args)),
        Command::Reserve(args) => Ok(commands::reserve(&args)),
        Command::Playground(args) => playground::run(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("gcs: error: {error:#}");
        ExitCode::from(1)
    })
}

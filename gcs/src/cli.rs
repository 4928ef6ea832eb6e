//! The command line. Every command ends with status 0 when the thing is done, 2 when what it was given cannot work (a bad
//! option, a bad configuration, a taken port), and 1 when it failed otherwise; an error is one line on stderr.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::playground;

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
    /// Makes and drives a group of PostgreSQL servers and daemons on this machine.
    Playground(playground::Args),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The configuration file (TOML), see docs/operations.md.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Playground(args) => playground::run(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("gcs: error: {error:#}");
        ExitCode::from(1)
    })
}

fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("{}: the daemon is not built in", args.config.display())
}

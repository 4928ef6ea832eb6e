//! `gcs reserve release`: gives up the room that was kept for the day on which the disk of the log is full.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::error::CommandError;
use crate::config::Config;
use crate::log::reserve;

#[derive(Debug, Args)]
pub struct ReserveArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Deletes the reserve of this node's log, so that its daemon can start on a disk that is full.
    Release {
        /// The configuration file of the daemon, which need not run.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Only says how much would be given up. Changes nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

pub fn run(args: &ReserveArgs) -> Result<(), CommandError> {
    let Command::Release { config, dry_run } = &args.command;
    let config_file = Config::load(config)?;
    if *dry_run {
        match reserve::kept(&config_file.data_directory)? {
            Some(bytes) => println!("{} MB would be given up", bytes / 1_000_000),
            None => println!("there is no reserve to be given up"),
        }
        println!("nothing was done: this was a dry run");
        return Ok(());
    }
    match reserve::release(&config_file.data_directory)? {
        Some(bytes) => println!("{} MB were given up", bytes / 1_000_000),
        None => println!("there was no reserve to be given up"),
    }
    println!("now run: gcs run --config {}", config.display());
    Ok(())
}

//! `gcs recover`: a majority is lost for good, and this node goes on with what it has.
//!
//! What is done is one write to the log (`gcs_core::remains`); the rest only reads it as the daemon would. Whoever is interrupted types it again.

use std::path::PathBuf;

use clap::Args;
use gcs_core::remains::{self, Remains};
use gcs_core::{Core, Objection};

use super::error::CommandError;
use super::report::Report;
use crate::config::Config;
use crate::daemon::core_config;
use crate::log::{DirectoryLock, Identity, Log, removal};
use crate::tls::Moment;

#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// The configuration file of the daemon.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Do it: what the lost members had without this node is lost.
    #[arg(long)]
    accept_loss: bool,
}

pub enum Done {
    /// What it would do.
    OnlySaid,
    Recovered,
}

pub fn run(args: &RecoverArgs) -> Result<Done, CommandError> {
    let config = Config::load(&args.config)?;
    let directory = &config.data_directory;
    // A lock would make the directory.
    if Identity::is_missing(directory)? {
        return Err(CommandError::NothingLeft(directory.clone()));
    }
    let _lock = DirectoryLock::take(directory)?;
    let identity = claim(&config)?;
    if let Some(why) = removal::noted(directory)? {
        return Err(CommandError::Removed(why));
    }
    let written = Log::last_written(directory)?.map(Moment::of);
    let (mut log, mut recovered) = Log::open(directory)?;
    let found = Remains::of(core_config(&config, &identity), log.reader(), recovered.clone())?;
    if found.last.0 == 0 {
        return Err(CommandError::NothingLeft(directory.clone()));
    }
    let epoch = found.epoch().map_err(|objection| match objection {
        Objection::LastVoter => CommandError::NothingLost(config.name.clone()),
        objection => CommandError::NotAlone { node: config.name.clone(), objection },
    })?;
    print!("{}", Report { config: &config, found: &found, written, now: Moment::now() });
    if !args.accept_loss {
        println!("\nNothing was done. To do it: gcs recover --config {} --accept-loss", args.config.display());
        return Ok(Done::OnlySaid);
    }
    recovered.hard_state.clone_from(&epoch.hard_state);
    log.write(epoch)?;
    // It is done. What follows the daemon would do when it starts; but it would hear the others meanwhile.
    let mut core = Core::new(core_config(&config, &identity), log.reader(), recovered)?;
    remains::replay(&mut core, |effects| {
        effects.write.map_or(Ok(()), |write| log.write(write)).map_err(CommandError::from)
    })?;
    log.flush()?;
    println!("\nNode \"{}\" is the only member of group \"{}\" now.", config.name, config.group);
    println!("Start it: gcs run --config {}", args.config.display());
    Ok(Done::Recovered)
}

/// Whose directory it is, which must be this node's, and have been in a group.
fn claim(config: &Config) -> Result<Identity, CommandError> {
    let (node, group, founders) = (config.name.clone(), config.group.clone(), config.members.clone());
    let identity = Identity { node, group, directory: 0, generation: 0, founders }.claim(&config.data_directory)?;
    if identity.founders.is_empty() {
        return Err(CommandError::NothingLeft(config.data_directory.clone()));
    }
    Ok(identity)
}

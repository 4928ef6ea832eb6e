//! `gcs playground`: a whole group on one machine.

use std::process::ExitCode;

/// Arguments of `gcs playground`.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("the playground is not built in")
}

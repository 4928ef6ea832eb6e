//! `gcs doctor`: what is wrong on this node and in its group, and what to do about it.
//!
//! ```text
//! configuration, files, disks ─┐
//! the daemon (Inquire)        ─┼─▶ [`gather`] ──▶ [`facts`] ──▶ [`rules`] ──▶ [`finding`]s, the worst first ──▶ text or JSON, exit status
//! PostgreSQL (SQL)            ─┘
//! ```
//!
//! Invariants:
//!
//! - A rule is a function of the facts and of nothing else; gathering judges nothing. So each rule is tested without a group.
//! - Nothing is changed, neither here nor elsewhere, and nothing is ordered. What peers are asked is answered beside the order (`crate::local`).
//! - Whatever cannot be found out is said to be unknown, never to be good. Each question has an end in time.
//! - Names of findings are a fixed list (docs/operations.md), for scripts.
//!
//! (docs/adr/0070-what-is-wrong.md argues for this.)

mod facts;
mod finding;
mod gather;
mod rules;
mod server;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::config::Config;
use finding::{Finding, to_json, to_text, worst};
use server::Where;

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The configuration file of the daemon.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// One line of JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

/// What it says of this node, as text.
pub fn text(config: &Config, config_file: &Path) -> String {
    to_text(&rules::all(&gather::gather(config, config_file, &Where::default())))
}

/// Exit status 0 if all is well, 1 for a warning, 2 for something critical, 3 if something could not be found out.
pub fn run(args: &DoctorArgs) -> ExitCode {
    let findings = match Config::load(&args.config) {
        Ok(config) => rules::all(&gather::gather(&config, &args.config, &args.place)),
        Err(error) => {
            let (file, remedy) = (args.config.display().to_string(), "mend what it says: gcs run would say the same");
            vec![Finding::critical("config", file, error.to_string(), remedy)]
        }
    };
    print!("{}", if args.json { to_json(&findings) } else { to_text(&findings) });
    ExitCode::from(worst(&findings).exit_status())
}

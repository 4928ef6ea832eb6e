//! `gcs events`: what has happened to the group, as the daemon of this node saw it.
//!
//! Asked of the daemon; where that does not run, read from its files. With `--follow` the daemon sends each event when it happens.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use gcs_writeset::link::Request;

use crate::config::Config;
use crate::control::{self, ControlError};
use crate::durations;
use crate::history::event::{Event, parse_lines};
use crate::history::file;
use crate::members::{Daemon, failed};
use crate::tls::moment::Moment;

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only what has happened since then: a time, as in "2026-11-30 21:05" (UTC), or so long ago: a number and s, m, h or d.
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Moment>,
    /// Goes on, with each event when it happens, until it is interrupted or the daemon ends.
    #[arg(long, short)]
    follow: bool,
    /// A line of JSON for each.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

fn since(text: &str) -> Result<Moment, String> {
    if let Ok(ago) = durations::parse(text) {
        return Ok(Moment::now().before(ago));
    }
    Moment::parse(text)
        .ok_or_else(|| "a time as in \"2026-11-30 21:05\" (UTC) is wanted, or how long ago, as in 2h".to_owned())
}

/// Exit status 0; 1 if the daemon cannot be asked, or ends while it is followed; 2 for a bad configuration.
pub fn run(args: &EventsArgs) -> ExitCode {
    match tell(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn tell(args: &EventsArgs) -> Result<(), ControlError> {
    let config = Config::load(args.daemon.config())?;
    let mut telling = Telling { args, told: 0 };
    let request = Request::Events { follows: args.follow };
    let deadline = (!args.follow).then(|| Instant::now() + PATIENCE);
    match control::follow(&config.local_socket, &request, deadline, |text| telling.tell(text)) {
        Err(ControlError::Connect { .. }) if !args.follow => {
            eprintln!("gcs: note: the daemon does not run: this is what its files say");
            telling.tell(&file::text(&config.data_directory));
            Ok(())
        }
        told => told,
    }
}

/// For the daemon to read its files.
const PATIENCE: Duration = Duration::from_secs(10);

struct Telling<'a> {
    args: &'a EventsArgs,
    /// The last one's number.
    told: u64,
}

impl Telling<'_> {
    fn tell(&mut self, text: &[u8]) {
        let mut out = std::io::stdout().lock();
        for event in parse_lines(text) {
            // Told twice where the daemon read its files while it happened.
            if event.number <= self.told {
                continue;
            }
            self.told = event.number;
            if !is_wanted(&event, self.args.since) {
                continue;
            }
            let line = if self.args.json { event.to_json() } else { event.line() };
            if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
                // The pipe that this is written to is closed: nobody is there to be told any more.
                std::process::exit(0);
            }
        }
    }
}

fn is_wanted(event: &Event, since: Option<Moment>) -> bool {
    since.is_none_or(|since| event.at_ms >= since.unix_seconds.saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_moment_or_so_long_ago() {
        assert_eq!(since("1970-01-01 00:01").map(|at| at.unix_seconds), Ok(60));
        assert!(since("2h").unwrap().unix_seconds < Moment::now().unix_seconds - 7_000);
        assert!(since("yesterday").is_err());
        let event = Event { at_ms: 60_000, ..Event::default() };
        assert!(is_wanted(&event, None) && is_wanted(&event, Some(Moment::new(60))));
        assert!(!is_wanted(&event, Some(Moment::new(61))));
    }
}

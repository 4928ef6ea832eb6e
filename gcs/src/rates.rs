//! `gcs stat` and `gcs top`: how much goes through this node and its group, from the daemon's own counters.
//!
//! The daemon is asked for its metrics at each interval; a rate is what a counter has grown by since the last answer. A daemon that was started again in between has begun to count anew:
//! that interval is left out.

mod sample;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use gcs_writeset::link::Inquiry;

use crate::config::Config;
use crate::control::{self, ControlError};
use crate::durations;
use crate::members::{Daemon, failed};
use crate::tls::Moment;
use sample::Sample;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Lines between two headings, for people.
const HEADING_EVERY: u32 = 20;

#[derive(Debug, Args)]
pub struct StatArgs {
    /// With commas between the columns, times in seconds of Unix time, and one heading.
    #[arg(long)]
    csv: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub struct TopArgs {
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
struct How {
    /// Between two looks: a number and s, m, h or d.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = durations::parse)]
    interval: Duration,
    /// How many times; by default until it is interrupted.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    #[command(flatten)]
    daemon: Daemon,
}

/// Exit status 0 after `--count` lines; 1 if the daemon cannot be asked (any more); 2 for a bad configuration.
pub fn stat(args: &StatArgs) -> ExitCode {
    let mut shown = 0;
    look_on(&args.how, |_, now, rates| {
        let heading = if args.csv { shown == 0 } else { shown % HEADING_EVERY == 0 };
        shown += 1;
        let columns = rates.columns(now);
        let names = columns.iter().map(|(name, _)| *name);
        let values = columns.iter().map(|(_, value)| *value);
        let mut text = String::new();
        if args.csv {
            if heading {
                text += &format!("time,{}\n", names.collect::<Vec<_>>().join(","));
            }
            let values: Vec<String> = values.map(number).collect();
            text + &format!("{},{}\n", Moment::now().unix_seconds, values.join(","))
        } else {
            if heading {
                text += &format!("{:<20}{}\n", "time", names.map(|name| format!(" {name:>10}")).collect::<String>());
            }
            let now = Moment::now().to_string();
            let values: String = values.map(|value| format!(" {:>10}", number(value))).collect();
            text + &format!("{:<20}{values}\n", now.trim_end_matches(" UTC"))
        }
    })
}

/// Likewise, repainted.
pub fn top(args: &TopArgs) -> ExitCode {
    // From the first place of the screen, and nothing behind what is written.
    let repaint = if std::io::stdout().is_terminal() { "\x1b[H\x1b[J" } else { "" };
    look_on(&args.how, |config, now, rates| format!("{repaint}{}\n", screen(config, now, rates)))
}

fn look_on(how: &How, show: impl FnMut(&Config, &Sample, &Rates) -> String) -> ExitCode {
    match carry_out(how, show) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn carry_out(how: &How, mut show: impl FnMut(&Config, &Sample, &Rates) -> String) -> Result<(), ControlError> {
    let config = Config::load(how.daemon.config())?;
    let (mut before, mut shown) = (ask(&config.local_socket)?, 0);
    while how.count.is_none_or(|count| shown < count) {
        // An interval is what is between two looks; what the looking takes is part of it.
        let next = before.at + how.interval;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let now = ask(&config.local_socket)?;
        match Rates::between(&before, &now) {
            None => eprintln!("gcs: note: the daemon has been started again"),
            Some(rates) => {
                let text = show(&config, &now, &rates);
                let mut out = std::io::stdout().lock();
                if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
                    // Whoever read it has gone.
                    return Ok(());
                }
                shown += 1;
            }
        }
        before = now;
    }
    Ok(())
}

fn ask(socket: &Path) -> Result<Sample, ControlError> {
    let text = control::inquire(socket, Inquiry::Metrics, ANSWER_TIMEOUT)?;
    Ok(Sample::of(&text, Instant::now()))
}

/// What has grown between two looks, a second.
#[derive(Clone, Debug, PartialEq)]
struct Rates {
    certified: f64,
    conflicts: f64,
    /// Bases that are too old.
    horizon: f64,
    /// Of prepared transactions.
    prepared: f64,
    /// Malformed, tokens, locks.
    other: f64,
    refused: f64,
    log_bytes: f64,
    /// Mean time of a flush of the log.
    flush_ms: Option<f64>,
}

impl Rates {
    /// None if the daemon was started in between.
    fn between(before: &Sample, now: &Sample) -> Option<Rates> {
        let seconds = now.at.duration_since(before.at).as_secs_f64().max(0.001);
        if now.value("gcs_uptime_seconds") < before.value("gcs_uptime_seconds") {
            return None;
        }
        let grown = |sum: &dyn Fn(&Sample) -> f64| (sum(now) - sum(before)).max(0.0);
        let rate = |sum: &dyn Fn(&Sample) -> f64| grown(sum) / seconds;
        let of = |names: &'static [&'static str]| {
            rate(&|sample| names.iter().map(|name| sample.labelled("gcs_ordered_total", "outcome", name)).sum())
        };
        let flushes = grown(&|sample| sample.sum("gcs_log_flush_seconds_count"));
        let flushing = grown(&|sample| sample.sum("gcs_log_flush_seconds_sum"));
        Some(Rates {
            certified: of(&["certified"]),
            conflicts: of(&["conflict"]),
            horizon: of(&["below_horizon"]),
            prepared: of(&["prepared", "not_prepared", "already_prepared", "too_many_prepared"]),
            other: of(&["malformed", "token", "locks_lost"]),
            refused: rate(&|sample| sample.sum("gcs_refused_total")),
            log_bytes: rate(&|sample| sample.sum("gcs_log_written_bytes_total")),
            flush_ms: (flushes > 0.0).then(|| flushing / flushes * 1_000.0),
        })
    }

    /// Names and values; no value where nothing was measured.
    fn columns(&self, now: &Sample) -> Vec<(&'static str, Option<f64>)> {
        vec![
            ("certified", Some(self.certified)),
            ("conflict", Some(self.conflicts)),
            ("horizon", Some(self.horizon)),
            ("prepared", Some(self.prepared)),
            ("other", Some(self.other)),
            ("refused", Some(self.refused)),
            ("lag", now.max("gcs_database_lag_positions")),
            ("queue", now.max("gcs_unordered_commands")),
            ("log_kB", Some(self.log_bytes / 1_000.0)),
            ("flush_ms", self.flush_ms),
        ]
    }
}

/// Whole where it is large, and short.
fn number(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value >= 100.0 || value.fract().abs() < 0.005 => format!("{value:.0}"),
        Some(value) => format!("{value:.2}"),
    }
}

fn screen(config: &Config, now: &Sample, rates: &Rates) -> String {
    let state = |name| if now.value(name) > 0.0 { "yes" } else { "no" };
    let mut text = format!(
        "{}  node {} of group {}, up {} s\nmajority {}, writable {}, leads {}, term {}\n\n",
        Moment::now(),
        config.name,
        config.group,
        now.value("gcs_uptime_seconds") as u64,
        state("gcs_quorum"),
        state("gcs_writable"),
        state("gcs_leads"),
        now.value("gcs_term") as u64
    );
    for (name, _) in rates.columns(now) {
        text += &format!("{name:>10}");
    }
    text.push('\n');
    for (_, value) in rates.columns(now) {
        text += &format!("{:>10}", number(value));
    }
    text += &format!("\n\n{:<20} {:<16} {:>12} {:>14}\n", "member", "state", "lag", "queue bytes");
    for member in now.labels("gcs_member_state", "member") {
        let state = now.state_of(&member);
        let value = |name| now.get(name, "member", &member).map_or_else(|| "-".to_owned(), |value| number(Some(value)));
        let (lag, queue) = (value("gcs_member_lag_positions"), value("gcs_member_queue_bytes"));
        text += &format!("{member:<20} {state:<16} {lag:>12} {queue:>14}\n");
    }
    text += &format!("\n{:<20} {:<16} {:>12} {:>12} {:>10}\n", "database", "service", "ordered", "visible", "lag");
    for database in now.labels("gcs_database_ordered_position", "database") {
        let value = |name| now.get(name, "database", &database).unwrap_or(0.0);
        let service = match (value("gcs_database_serving") > 0.0, value("gcs_database_out_of_service") > 0.0) {
            (_, true) => "out of service",
            (true, false) => "serving",
            (false, false) => "not serving",
        };
        let [ordered, visible, lag] =
            ["gcs_database_ordered_position", "gcs_database_applied_position", "gcs_database_lag_positions"]
                .map(|name| number(Some(value(name))));
        text += &format!("{database:<20} {service:<16} {ordered:>12} {visible:>12} {lag:>10}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(text: &str, at: Instant) -> Sample {
        Sample::of(text, at)
    }

    #[test]
    fn a_rate_is_what_a_counter_has_grown_by_and_a_daemon_that_was_started_again_has_none() {
        let at = Instant::now();
        let text = |uptime: u32, certified: u32, conflicts: u32| {
            format!(
                "# HELP x y\ngcs_uptime_seconds {uptime}\ngcs_ordered_total{{outcome=\"certified\"}} {certified}\n\
                 gcs_ordered_total{{outcome=\"conflict\"}} {conflicts}\ngcs_log_flush_seconds_sum {}\n\
                 gcs_log_flush_seconds_count {certified}\n",
                f64::from(certified) * 0.002
            )
        };
        let before = sample(&text(10, 100, 0), at);
        let now = sample(&text(12, 300, 5), at + Duration::from_secs(2));
        let rates = Rates::between(&before, &now).unwrap();
        assert_eq!((rates.certified, rates.conflicts, rates.refused), (100.0, 2.5, 0.0));
        assert_eq!(number(rates.flush_ms), "2");
        assert_eq!(Rates::between(&now, &before.clone_at(at + Duration::from_secs(3))), None);
        assert_eq!([number(Some(0.0)), number(Some(2.5)), number(Some(1234.5)), number(None)], ["0", "2.50", "1234", ""]);
    }
}

//! `gcs status`: the state of the group, once or again and again, in a table, in more detail, as JSON, or as a plugin of Nagios says it.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Args;
use gcs_writeset::link::{GroupStatus, Inquiry};

use crate::config::Config;
use crate::control::{self, ControlError};
use crate::durations;
use crate::examined::{Examination, Member};
use crate::members::failed;
use crate::status::{self, state_name};

/// A daemon that does not answer within this time is as good as down.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The configuration file of the daemon.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// One line of JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Goes on, and paints over what it said before, until it is interrupted.
    #[arg(short, long, conflicts_with_all = ["json", "check"])]
    watch: bool,
    /// Between two looks: a number and s, m, h or d.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = durations::parse, requires = "watch")]
    interval: Duration,
    /// Also how far each member is behind in each database, and how libpq gets to a node that takes writes; twice: versions and clocks too.
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with_all = ["json", "check"])]
    verbose: u8,
    /// One line and an exit status, as plugins of Nagios have them: 0 all are online, 1 one is not, 2 no majority or this node is not online, 3 not known.
    #[arg(long, conflicts_with = "json")]
    check: bool,
}

pub fn run(args: &StatusArgs) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) if args.check => return plugin(&Plugin::unknown(&error.to_string())),
        Err(error) => return failed(&error.into()),
    };
    if args.check {
        return plugin(&check(&config));
    }
    loop {
        let text = text(&config, args);
        match (args.watch, text) {
            (false, Ok(text)) => {
                print!("{text}");
                return ExitCode::SUCCESS;
            }
            (false, Err(error)) => return failed(&error),
            // A daemon that is down may come back.
            (true, text) => {
                if paint(&text.unwrap_or_else(|error| format!("{error}\n"))).is_err() {
                    // Nobody reads any more.
                    return ExitCode::SUCCESS;
                }
                thread::sleep(args.interval);
            }
        }
    }
}

/// Over what stands there: without emptying the screen first, which flickers.
fn paint(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    write!(out, "\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))?;
    out.flush()
}

fn text(config: &Config, args: &StatusArgs) -> Result<String, ControlError> {
    let mut text = status::text(&config.local_socket, args.json)?;
    if args.verbose > 0 {
        let found = control::inquire(&config.local_socket, Inquiry::Examination, ANSWER_TIMEOUT)?;
        // What is not understood is of another version: then there is no more to be said.
        let found: Examination = serde_json::from_str(&found).unwrap_or_default();
        text += &behind(&found);
        if args.verbose > 1 {
            text += &introductions(&found);
        }
        text += &format!("connect with: {}\n", connection(&found));
    }
    Ok(text)
}

/// In positions. Of other members what they have received is not known.
fn behind(found: &Examination) -> String {
    let mut text = format!("{:<20} {:<20} {:>12} {:>12}\n", "member", "database", "to receive", "to apply");
    for member in &found.members {
        for database in &member.databases {
            let receive = database.receive_lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string());
            let (name, of, apply) = (&member.name, &database.name, database.apply_lag);
            text += &format!("{name:<20} {of:<20} {receive:>12} {apply:>12}\n");
        }
    }
    text
}

fn introductions(found: &Examination) -> String {
    let mut text = format!("{:<20} {:<10} {:>14} {:>16}\n", "member", "version", "clock ahead", "log to receive");
    for Member { name, version, clock_ahead_ms, log_behind, .. } in &found.members {
        let version = version.as_deref().unwrap_or("-");
        let clock = clock_ahead_ms.map_or_else(|| "-".to_owned(), |ahead| format!("{ahead} ms"));
        let log = log_behind.map_or_else(|| "-".to_owned(), |entries| entries.to_string());
        text += &format!("{name:<20} {version:<10} {clock:>14} {log:>16}\n");
    }
    text
}

/// For libpq: all nodes whose PostgreSQL is known, of which it takes one that takes writes.
fn connection(found: &Examination) -> String {
    let known = found.members.iter().filter_map(|member| Some((host_of(&member.address), member.port?)));
    let (hosts, ports): (Vec<&str>, Vec<String>) = known.map(|(host, port)| (host, port.to_string())).unzip();
    if hosts.is_empty() {
        return "no PostgreSQL is attached".to_owned();
    }
    format!("host={} port={} target_session_attrs=read-write", hosts.join(","), ports.join(","))
}

/// libpq has addresses of IPv6 without brackets.
fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host).trim_start_matches('[').trim_end_matches(']')
}

/// What a plugin says.
#[derive(Debug, PartialEq, Eq)]
struct Plugin {
    status: u8,
    line: String,
}

impl Plugin {
    fn unknown(why: &str) -> Plugin {
        Plugin { status: 3, line: format!("GCS UNKNOWN - {why}") }
    }
}

fn plugin(said: &Plugin) -> ExitCode {
    println!("{}", said.line.replace('\n', " "));
    ExitCode::from(said.status)
}

fn check(config: &Config) -> Plugin {
    match status::ask(&config.local_socket) {
        Ok(status) => verdict(&status, &config.name),
        Err(error @ ControlError::Refused(_)) => Plugin::unknown(&error.to_string()),
        Err(error) => Plugin { status: 2, line: format!("GCS CRITICAL - {error}") },
    }
}

fn verdict(status: &GroupStatus, me: &str) -> Plugin {
    let (all, not_online): (usize, Vec<String>) = {
        let off = status.members.iter().filter(|member| state_name(member) != "online");
        (status.members.len(), off.map(|member| format!("{} {}", member.name, state_name(member))).collect())
    };
    let own = status.members.iter().find(|member| member.name == me);
    let is_here = own.is_some_and(|member| state_name(member) == "online");
    let leader = status.members.iter().find(|member| Some(member.node) == status.leader);
    let leads = leader.map_or_else(|| "nobody leads".to_owned(), |member| format!("{} leads", member.name));
    let lag = own.map_or(0, |member| member.ordered.0.saturating_sub(member.committed.0));
    let (status, word) = match (status.quorum && is_here, not_online.is_empty() && leader.is_some()) {
        (false, _) => (2, "CRITICAL"),
        (true, false) => (1, "WARNING"),
        (true, true) => (0, "OK"),
    };
    let (online, majority) = (all - not_online.len(), if status == 2 && is_here { "no majority, " } else { "" });
    let others = if not_online.is_empty() { String::new() } else { format!(": {}", not_online.join(", ")) };
    let line =
        format!("GCS {word} - {majority}{online} of {all} online, {leads}{others} | online={online};;;0;{all} lag={lag}");
    Plugin { status, line }
}

#[cfg(test)]
mod tests {
    use gcs_writeset::link::{MemberRole, MemberState, MemberStatus};
    use gcs_writeset::{NodeId, NodeKind, Position};

    use super::*;
    use crate::examined::MemberDatabase;

    fn group(states: [MemberState; 2]) -> GroupStatus {
        let member = |(at, state)| MemberStatus {
            node: NodeId(at as u64),
            name: format!("n{at}"),
            address: String::new(),
            ordinal: 0,
            role: MemberRole::Voter,
            state,
            committed: Position(3),
            ordered: Position(5),
            copy: None,
            kind: NodeKind::Full,
        };
        let members = states.into_iter().enumerate().map(member).collect();
        GroupStatus { quorum: true, leader: Some(NodeId(1)), term: 1, members }
    }

    #[test]
    fn a_plugin_says_in_one_line_whether_all_are_online() {
        let good = group([MemberState::Online; 2]);
        let said = verdict(&good, "n0");
        assert_eq!((said.status, said.line.as_str()), (0, "GCS OK - 2 of 2 online, n1 leads | online=2;;;0;2 lag=2"));
        let other = verdict(&group([MemberState::Online, MemberState::Unreachable]), "n0");
        assert_eq!(
            (other.status, other.line.contains("WARNING - 1 of 2 online, n1 leads: n1 unreachable")),
            (1, true),
            "{other:?}"
        );
        assert_eq!(verdict(&group([MemberState::Detached, MemberState::Online]), "n0").status, 2);
        assert_eq!(verdict(&GroupStatus { leader: None, ..good.clone() }, "n0").status, 1);
        let lost = verdict(&GroupStatus { quorum: false, ..good }, "n0");
        assert_eq!((lost.status, lost.line.contains("CRITICAL - no majority")), (2, true), "{lost:?}");
    }

    #[test]
    fn whoever_connects_is_given_every_server_that_is_known() {
        let member = |address: &str, port| Member { address: address.to_owned(), port, ..Member::default() };
        let members =
            vec![member("10.0.0.1:7001", Some(5432)), member("n2:7001", None), member("[fd00::3]:7001", Some(5433))];
        let mut found = Examination { members, ..Examination::default() };
        assert_eq!(connection(&found), "host=10.0.0.1,fd00::3 port=5432,5433 target_session_attrs=read-write");
        let lag = |receive_lag, apply_lag| MemberDatabase { name: "shop".to_owned(), receive_lag, apply_lag };
        found.members[0].databases = vec![lag(Some(2), 3)];
        found.members[1].databases = vec![lag(None, 5)];
        let words: Vec<Vec<String>> =
            behind(&found).lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
        assert_eq!(words[1], ["shop", "2", "3"]);
        assert_eq!(words[2], ["shop", "-", "5"]);
    }
}

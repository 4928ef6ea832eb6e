//! `gcs members`, `evict`, `leave`, `replace`, `lead`: who the members are, and how a person changes that. Asked of the daemon of this node,
//! which has the group do it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use gcs_writeset::link::{Change, GroupStatus, MemberStatus, Reply, Request};
use serde::Serialize;

use crate::config::Config;
use crate::control::{self, ControlError};
use crate::status::{self, CopyJson, state_name};

/// The daemon gives up after 10 s by itself.
const CHANGE_PATIENCE: Duration = Duration::from_secs(30);

/// A replacement waits for a learner to catch up: an hour, and some.
const REPLACE_PATIENCE: Duration = Duration::from_secs(3_700);

#[derive(Debug, Args)]
pub struct Daemon {
    /// The configuration file of the daemon.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Daemon {
    pub fn config(&self) -> &Path {
        &self.config
    }
}

/// Of a command that changes something.
#[derive(Debug, Args)]
struct How {
    /// Only says what would be done, and whether it could be, as far as this node knows. Changes nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Debug, Args)]
pub struct MembersArgs {
    #[command(flatten)]
    daemon: Daemon,
    /// One line of JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct EvictArgs {
    /// The member that is to go.
    name: String,
    /// Also if its daemon is running, and if no other member has a database that it has.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub struct LeaveArgs {
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub struct ReplaceArgs {
    /// The voter that is to go.
    name: String,
    /// The learner that is to have its vote, once it has caught up.
    #[arg(long, value_name = "NAME")]
    with: String,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub struct LeadArgs {
    /// The voter that is to lead.
    name: String,
    #[command(flatten)]
    how: How,
}

pub fn members(args: &MembersArgs) -> ExitCode {
    let asked = socket(&args.daemon.config).and_then(|socket| status::ask(&socket));
    match asked {
        Ok(status) => {
            let text = if args.json { to_json(&status) } else { to_table(&status) };
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

pub fn evict(args: EvictArgs) -> ExitCode {
    let done = format!("member \"{}\" was removed", args.name);
    change(&args.how, Change::Evict { name: args.name, force: args.force }, CHANGE_PATIENCE, &done)
}

pub fn leave(args: &LeaveArgs) -> ExitCode {
    change(&args.how, Change::Leave, CHANGE_PATIENCE, "this node has left the group")
}

pub fn replace(args: ReplaceArgs) -> ExitCode {
    let done = format!("member \"{}\" was replaced with \"{}\"", args.name, args.with);
    change(&args.how, Change::Replace { old: args.name, new: args.with }, REPLACE_PATIENCE, &done)
}

pub fn lead(args: LeadArgs) -> ExitCode {
    let done = format!("member \"{}\" leads", args.name);
    change(&args.how, Change::Lead { name: args.name }, CHANGE_PATIENCE, &done)
}

fn change(how: &How, change: Change, patience: Duration, done: &str) -> ExitCode {
    let is_done = |reply| matches!(reply, Reply::Done).then_some(());
    let socket = socket(&how.daemon.config);
    if how.dry_run {
        let considered = socket.and_then(|socket| control::report(&socket, &Request::Consider(change), CHANGE_PATIENCE));
        return said(considered);
    }
    let asked = socket.and_then(|socket| control::ask(&socket, &Request::Change(change), patience, is_done));
    match asked {
        Ok(()) => {
            println!("{done}");
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

/// What would be done. Exit status 0 if it could be, else as if it had been tried.
pub fn said(considered: Result<String, ControlError>) -> ExitCode {
    match considered {
        Ok(words) => {
            println!("{words}\nnothing was done: this was a dry run");
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

fn socket(config_file: &Path) -> Result<PathBuf, ControlError> {
    Ok(Config::load(config_file)?.local_socket)
}

/// 2 for a bad configuration, 1 if the daemon cannot be asked or does not do it.
pub fn failed(error: &ControlError) -> ExitCode {
    eprintln!("gcs: error: {error}");
    if matches!(error, ControlError::Config(_)) { ExitCode::from(2) } else { ExitCode::FAILURE }
}

#[derive(Debug, Serialize)]
struct MemberJson<'a> {
    name: &'a str,
    address: &'a str,
    role: &'static str,
    state: &'static str,
    leader: bool,
    ordinal: u16,
    id: String,
    copy: Option<CopyJson<'a>>,
}

fn to_json(status: &GroupStatus) -> String {
    let member = |member: &MemberStatus| {
        let MemberStatus { node, ordinal, .. } = *member;
        serde_json::to_value(MemberJson {
            name: &member.name,
            address: &member.address,
            role: member.role.name(member.kind),
            state: state_name(member),
            leader: Some(node) == status.leader,
            ordinal,
            id: format!("{:016x}", node.0),
            copy: member.copy.as_ref().map(CopyJson::of),
        })
    };
    let members: Result<Vec<_>, _> = status.members.iter().map(member).collect();
    // Strings, numbers and booleans always have a JSON form.
    serde_json::to_string(&members.unwrap_or_default()).unwrap_or_default() + "\n"
}

fn to_table(status: &GroupStatus) -> String {
    let mut text = format!("{:<20} {:<24} {:<16} {:<14} {}\n", "member", "address", "role", "state", "leads");
    for member in &status.members {
        let leads = if Some(member.node) == status.leader { "yes" } else { "" };
        let (role, state) = (member.role.name(member.kind), state_name(member));
        text += format!("{:<20} {:<24} {role:<16} {state:<14} {leads}", member.name, member.address).trim_end();
        text.push('\n');
    }
    text + &status::copies(status)
}

//! `gcs drain`: makes a node ready to be shut down. What that means, and who does it, is in `crate::local`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use gcs_writeset::link::{Failure, FailureKind, GroupStatus, MemberRole, MemberState, MemberStatus, Reply, Request};

use crate::config::Config;
use crate::control::{self, ControlError};
use crate::members::{Daemon, failed, said};
use crate::status;

/// Hours, days: nobody drains for longer.
const GRACE_SECONDS_MAX: u32 = 86_400;

#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The member that is to be drained: by default this node.
    name: Option<String>,
    /// Seconds that sessions have to go by themselves; then none begins another transaction.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(..=i64::from(GRACE_SECONDS_MAX)))]
    grace: u32,
    /// Seconds after which to give up waiting. The node goes on being drained.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u32,
    /// It is to work again.
    #[arg(long, conflicts_with_all = ["grace", "timeout"])]
    cancel: bool,
    /// Only says what would be done, and whether it could be, as far as this node knows. Changes nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    daemon: Daemon,
}

pub fn run(args: &DrainArgs) -> ExitCode {
    if args.dry_run {
        return said(consider(args));
    }
    match carry_out(args) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

fn carry_out(args: &DrainArgs) -> Result<String, ControlError> {
    let config = Config::load(args.daemon.config())?;
    let node = args.name.clone().unwrap_or(config.name);
    let request = Request::Drain { node: node.clone(), grace: (!args.cancel).then_some(args.grace) };
    let patience = Duration::from_secs(u64::from(args.timeout));
    let deadline = Instant::now() + patience;
    let is_done = |reply| match reply {
        Reply::Done => Some(()),
        Reply::Draining { leads, sessions } => {
            eprintln!("{}", progress(&node, leads, sessions));
            None
        }
        _ => None,
    };
    control::ask_until(&config.local_socket, &request, deadline, is_done)?;
    let done = if args.cancel { "works again" } else { "is drained: it can be shut down" };
    Ok(format!("node \"{node}\" {done}"))
}

fn consider(args: &DrainArgs) -> Result<String, ControlError> {
    let config = Config::load(args.daemon.config())?;
    let status = status::ask(&config.local_socket)?;
    let node = args.name.as_deref().unwrap_or(&config.name);
    what_drains(&status, node, (!args.cancel).then_some(args.grace)).map_err(ControlError::Refused)
}

/// What draining this member would do, or putting it back to work where no grace is given; or why it could not be done.
fn what_drains(status: &GroupStatus, name: &str, grace: Option<u32>) -> Result<String, Failure> {
    let refused = |message: String, hint: &str| Failure { kind: FailureKind::Membership, message, hint: hint.to_owned() };
    let Some(member) = status.members.iter().find(|member| member.name == name) else {
        return Err(refused(format!("the group has no member \"{name}\""), "See gcs members."));
    };
    if member.state == MemberState::Unreachable {
        let hint = "What cannot be reached need not be drained.";
        return Err(refused(format!("member \"{name}\" cannot be reached"), hint));
    }
    let Some(grace) = grace else {
        let is_so = if member.state == MemberState::Draining { "would work again" } else { "works already" };
        return Ok(format!("node \"{name}\" {is_so}"));
    };
    let could_lead = |other: &MemberStatus| {
        other.node != member.node
            && matches!(other.role, MemberRole::Voter | MemberRole::Joining)
            && !matches!(other.state, MemberState::Unreachable | MemberState::Draining)
    };
    let leads = status.leader == Some(member.node);
    if leads && !status.members.iter().any(could_lead) {
        let message = format!("node \"{name}\" leads, and nobody is there that leadership could be handed to");
        return Err(refused(message, "It would be drained of sessions only. See gcs members."));
    }
    let handed = if leads { "leadership would go to another voter, " } else { "" };
    Ok(format!(
        "node \"{name}\" would be drained: {handed}new sessions would be refused, idle ones ended, and after {grace} s none would begin another transaction"
    ))
}

fn progress(node: &str, leads: bool, sessions: Option<u32>) -> String {
    let sessions = match sessions {
        None => "its sessions are being counted".to_owned(),
        Some(1) => "1 session is left".to_owned(),
        Some(sessions) => format!("{sessions} sessions are left"),
    };
    let leads = if leads { ", it leads the group" } else { "" };
    format!("node \"{node}\": {sessions}{leads}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gcs_writeset::{NodeId, NodeKind, Position};

    fn group(states: &[MemberState]) -> GroupStatus {
        let member = |(number, state): (u64, &MemberState)| MemberStatus {
            node: NodeId(number),
            name: format!("n{number}"),
            address: String::new(),
            ordinal: 0,
            role: MemberRole::Voter,
            state: *state,
            committed: Position::ZERO,
            ordered: Position::ZERO,
            copy: None,
            kind: NodeKind::Full,
        };
        GroupStatus { quorum: true, leader: Some(NodeId(1)), term: 1, members: (1..).zip(states).map(member).collect() }
    }

    #[test]
    fn a_dry_run_says_what_would_become_of_leadership_and_why_it_could_not_be_done() {
        use MemberState::{Draining, Online, Unreachable};
        let all = group(&[Online, Draining, Online]);
        assert!(what_drains(&all, "n1", Some(30)).unwrap().contains("leadership would go"));
        assert!(!what_drains(&all, "n3", Some(30)).unwrap().contains("leadership"));
        assert!(what_drains(&all, "n2", None).unwrap().ends_with("would work again"));
        assert!(what_drains(&all, "n9", Some(30)).unwrap_err().message.contains("no member"));
        let lonely = group(&[Online, Draining, Unreachable]);
        assert!(what_drains(&lonely, "n1", Some(30)).unwrap_err().message.contains("nobody is there"));
        assert!(what_drains(&lonely, "n3", Some(30)).unwrap_err().message.contains("cannot be reached"));
    }
}

//! How the group looks from this node's daemon: what `gcs status` says ([`crate::looks`]).

use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use gcs_writeset::link::{CertificateStatus, CopyStatus, GroupStatus, LogStatus, MemberState, MemberStatus, Reply, Request};
use serde::Serialize;

use crate::control::{self, ControlError};
use crate::log_status::{self, FormatJson, LogJson};
use crate::tls::Moment;

/// A daemon that does not answer within this time is as good as down.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize)]
struct StatusJson<'a> {
    quorum: bool,
    term: u64,
    leader: Option<&'a str>,
    members: Vec<MemberJson<'a>>,
    log: LogJson,
    format: FormatJson<'a>,
    /// Whether the connections to the other daemons are encrypted.
    encrypted: bool,
    certificates: Vec<CertificateJson<'a>>,
}

#[derive(Debug, Serialize)]
struct CertificateJson<'a> {
    name: &'a str,
    authority: bool,
    serial: &'a str,
    expires: String,
    days_left: i64,
}

#[derive(Debug, Serialize)]
struct MemberJson<'a> {
    name: &'a str,
    address: &'a str,
    role: &'static str,
    state: &'static str,
    leader: bool,
    committed: u64,
    ordered: u64,
    copy: Option<CopyJson<'a>>,
}

/// What is being copied to a member.
#[derive(Debug, Serialize)]
pub struct CopyJson<'a> {
    /// None for a whole server.
    database: Option<&'a str>,
    from: &'a str,
    bytes_done: u64,
    bytes_total: u64,
    seconds: u64,
    seconds_left: Option<u64>,
}

impl CopyJson<'_> {
    pub fn of(copy: &CopyStatus) -> CopyJson<'_> {
        CopyJson {
            database: Some(copy.database.as_str()).filter(|database| !database.is_empty()),
            from: &copy.from,
            bytes_done: copy.bytes_done,
            bytes_total: copy.bytes_total,
            seconds: copy.seconds,
            seconds_left: copy.seconds_left(),
        }
    }
}

/// The status, as a table or as one line of JSON.
///
/// # Errors
/// Where the daemon cannot be asked.
pub fn text(socket: &Path, json: bool) -> Result<String, ControlError> {
    let (status, certificates, log) = ask_all(socket)?;
    Ok(if json { to_json(&status, &certificates, &log) } else { to_table(&status, &certificates, &log) })
}

/// Asks the daemon that listens on `socket`.
pub fn ask(socket: &Path) -> Result<GroupStatus, ControlError> {
    control::ask(socket, &Request::Status, ANSWER_TIMEOUT, |reply| match reply {
        Reply::Group(status) => Some(status),
        _ => None,
    })
}

fn ask_all(socket: &Path) -> Result<(GroupStatus, Vec<CertificateStatus>, LogStatus), ControlError> {
    let certificates = control::ask(socket, &Request::Certificates, ANSWER_TIMEOUT, |reply| match reply {
        Reply::Certificates(certificates) => Some(certificates),
        _ => None,
    })?;
    let log = control::ask(socket, &Request::AskLog, ANSWER_TIMEOUT, |reply| match reply {
        Reply::Log(log) => Some(log),
        _ => None,
    })?;
    Ok((ask(socket)?, certificates, log))
}

/// A witness is all there when its daemon is.
pub fn state_name(member: &MemberStatus) -> &'static str {
    match member.state {
        MemberState::Detached if !member.kind.has_databases() => "online",
        MemberState::Online => "online",
        MemberState::Detached => "detached",
        MemberState::Unreachable => "unreachable",
        MemberState::OutOfService => "out of service",
        MemberState::Draining => "draining",
        MemberState::Copying => "copying",
    }
}

fn leader(status: &GroupStatus) -> Option<&MemberStatus> {
    status.members.iter().find(|member| Some(member.node) == status.leader)
}

fn to_json(status: &GroupStatus, certificates: &[CertificateStatus], log: &LogStatus) -> String {
    let members = status.members.iter().map(|member| MemberJson {
        name: &member.name,
        address: &member.address,
        role: member.role.name(member.kind),
        state: state_name(member),
        leader: Some(member.node) == status.leader,
        committed: member.committed.0,
        ordered: member.ordered.0,
        copy: member.copy.as_ref().map(CopyJson::of),
    });
    let now = Moment::now();
    let json = StatusJson {
        quorum: status.quorum,
        term: status.term,
        leader: leader(status).map(|member| member.name.as_str()),
        members: members.collect(),
        log: LogJson::of(log),
        format: FormatJson::of(log),
        encrypted: !certificates.is_empty(),
        certificates: certificates.iter().map(|certificate| certificate_json(certificate, now)).collect(),
    };
    // Strings, numbers and booleans always have a JSON form.
    serde_json::to_string(&json).unwrap_or_default() + "\n"
}

fn expiry(certificate: &CertificateStatus) -> Moment {
    Moment::new(i64::try_from(certificate.not_after).unwrap_or(i64::MAX))
}

fn certificate_json(certificate: &CertificateStatus, now: Moment) -> CertificateJson<'_> {
    let expires = expiry(certificate);
    CertificateJson {
        name: &certificate.name,
        authority: certificate.is_authority,
        serial: &certificate.serial,
        expires: expires.to_string(),
        days_left: expires.days_since(now),
    }
}

/// A line for each copy that is under way.
pub fn copies(status: &GroupStatus) -> String {
    let mut text = String::new();
    for (member, copy) in status.members.iter().filter_map(|member| member.copy.as_ref().map(|copy| (member, copy))) {
        let what = if copy.database.is_empty() { "a server".to_owned() } else { format!("database {}", copy.database) };
        text += &format!("{} copies {what} from {}: ", member.name, copy.from);
        let (done, total) = (ByteSize(copy.bytes_done).display().si(), ByteSize(copy.bytes_total).display().si());
        text += &match (copy.bytes_total, copy.seconds_left()) {
            (0, _) => format!("{} s", copy.seconds),
            (_, None) => format!("{done} of {total}"),
            (_, Some(left)) => format!("{done} of {total}, about {left} s left"),
        };
        text.push('\n');
    }
    text
}

fn to_table(status: &GroupStatus, certificates: &[CertificateStatus], log: &LogStatus) -> String {
    let quorum = if status.quorum { "yes" } else { "no" };
    let leader_name = leader(status).map_or("none", |member| member.name.as_str());
    let mut text = format!("quorum {quorum}, leader {leader_name}, term {}\n", status.term);
    text += &format!(
        "{:<20} {:<24} {:<16} {:<14} {:>12} {:>12}\n",
        "member", "address", "role", "state", "committed", "ordered"
    );
    for member in &status.members {
        let (role, state) = (member.role.name(member.kind), state_name(member));
        let (name, address, committed, ordered) = (&member.name, &member.address, member.committed.0, member.ordered.0);
        text += &format!("{name:<20} {address:<24} {role:<16} {state:<14} {committed:>12} {ordered:>12}\n");
    }
    text += &copies(status);
    text += &log_status::line(log);
    text += &log_status::format_line(log);
    let now = Moment::now();
    if certificates.is_empty() {
        text += "link not encrypted\n";
    }
    for certificate in certificates {
        let what = if certificate.is_authority { "authority" } else { "certificate" };
        let (name, expires, days) = (&certificate.name, expiry(certificate), expiry(certificate).days_since(now));
        let when = if expires < now { "expired on" } else { "expires on" };
        text += &format!("{what} {name}, {when} {expires} ({days} days)\n");
    }
    text
}

//! The daemon of this node: whether it runs, whether it and PostgreSQL find each other, its version, its disk, its certificates.

use std::path::Path;

use bytesize::ByteSize;

use crate::doctor::facts::{Asked, Certificate, Daemon, Disk, Facts, Room};
use crate::doctor::finding::{Finding, Severity, not_known};
use crate::tls::Moment;

/// A program of another protocol that came longer ago has gone.
const STRANGER_SECONDS_MAX: u64 = 600;

/// Days before the end of a certificate from which on it is in the way.
const EXPIRY_DAYS: i64 = 14;

/// So little of a disk, in percent, is worth a warning, or somebody's getting up; beyond so many bytes it is not.
const FREE_PERCENT_WARNING: u64 = 10;
const FREE_PERCENT_CRITICAL: u64 = 3;
const FREE_BYTES_ENOUGH: u64 = 100_000_000_000;

pub fn daemon(facts: &Facts) -> Vec<Finding> {
    let here = &facts.here;
    let run = format!("systemctl start gcs (gcs run --config {})", here.config_file);
    vec![match &facts.daemon {
        Daemon::Answers(found) => match &found.removed {
            None => Finding::ok("daemon", &here.node, format!("runs, version {}", found.version)),
            Some(why) => {
                let remedy = "empty its data directory and let it join again: gcs join";
                Finding::critical("daemon", &here.node, format!("is no member any more: {why}"), remedy)
            }
        },
        Daemon::Silent { process: Some(process), .. } => {
            let message = format!("runs as process {process}, but not at the socket of the configuration");
            Finding::unknown("daemon", &here.node, message)
        }
        Daemon::Silent { why, process: None } => Finding::critical("daemon", &here.node, format!("is down: {why}"), run),
        Daemon::Hangs { why } => {
            let remedy = "look at its log and at the disk of its data directory; if it hangs: systemctl restart gcs";
            Finding::critical("daemon", &here.node, format!("does not answer: {why}"), remedy)
        }
        Daemon::Foreign { .. } => {
            Finding::unknown("daemon", &here.node, "runs, and is of another version than this program")
        }
        Daemon::Refuses { why } => {
            let remedy = "run it as the daemon's user: runuser -u postgres -- gcs doctor ...";
            Finding::new(Severity::Unknown, "daemon", &here.node, why, Some(remedy.to_owned()))
        }
    }]
}

/// Whether everybody means the same socket.
pub fn socket(facts: &Facts) -> Vec<Finding> {
    let (here, socket) = (&facts.here, facts.here.socket.display().to_string());
    let mut found = Vec::new();
    match &facts.daemon {
        Daemon::Silent { process: Some(process), why } => {
            let message = format!("process {process} has the data directory, but is not to be found there: {why}");
            let remedy = format!("restart it, so that it listens where {} says: systemctl restart gcs", here.config_file);
            found.push(Finding::critical("socket", &socket, message, remedy));
        }
        Daemon::Answers(other) if (&other.group, &other.node) != (&here.group, &here.node) => {
            let (group, node) = (&other.group, &other.node);
            let message =
                format!("the daemon of node \"{node}\" of group \"{group}\" answers there, not that of \"{}\"", here.node);
            let remedy =
                format!("give each daemon of this machine a local_socket of its own, this one in {}", here.config_file);
            found.push(Finding::critical("socket", &socket, message, remedy));
        }
        _ => {}
    }
    if let Some(asked) = facts.asked()
        && let Some(theirs) = &asked.gcs_socket
        && !is_same(theirs, &here.socket)
    {
        let message = format!("PostgreSQL looks for gcs at \"{}\" (postgres_r.gcs_socket)", theirs.display());
        found.push(Finding::critical("socket", &socket, message, set_socket(asked, &socket)));
    }
    match (found.is_empty(), &facts.daemon) {
        (true, Daemon::Answers(_)) => vec![Finding::ok("socket", socket, "the daemon listens there")],
        (true, _) => vec![Finding::unknown("socket", socket, "nobody answers there")],
        (false, _) => found,
    }
}

fn set_socket(asked: &Asked, socket: &str) -> String {
    let port = asked.at.port;
    format!("psql -p {port} -c \"ALTER SYSTEM SET postgres_r.gcs_socket = '{socket}'\" -c \"SELECT pg_reload_conf()\"")
}

/// Two names can be of one file.
fn is_same(one: &Path, other: &Path) -> bool {
    one == other || one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

pub fn version(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let install = "install the same release of gcs and postgres_r on all nodes, and restart what runs of the older one";
    if let Daemon::Foreign { why } = &facts.daemon {
        let message = format!("this program, {}, and the daemon are of different versions: {why}", facts.here.version);
        found.push(Finding::critical("version", &facts.here.node, message, "systemctl restart gcs"));
    }
    let Some(examination) = facts.examination() else {
        return if found.is_empty() { not_known("version", &facts.here.node) } else { found };
    };
    let (node, ours) = (&facts.here.node, &examination.version);
    if *ours != facts.here.version {
        let message =
            format!("the daemon that runs is version {ours}, the program that is installed {}", facts.here.version);
        found.push(Finding::warning("version", node, message, "systemctl restart gcs"));
    }
    for member in examination.members.iter().filter(|member| !member.is_self) {
        if let Some(theirs) = member.version.as_ref().filter(|theirs| *theirs != ours) {
            let message = format!("its daemon is version {theirs}, this node's {ours}");
            found.push(Finding::warning("version", &member.name, message, install));
        }
    }
    if let Some(strangers) = examination.strangers.as_ref().filter(|it| it.seconds_ago <= STRANGER_SECONDS_MAX) {
        let (theirs, own, ago) = (strangers.protocol, strangers.own, strangers.seconds_ago);
        let message =
            format!("a program that speaks link protocol {theirs} was refused {ago} s ago, the daemon speaks {own}");
        found.push(Finding::critical("version", node, message, install));
    }
    if let Some(asked) = facts.asked() {
        let installed = asked.extension.iter().map(|version| ("the extension that is installed".to_owned(), version));
        let of = |(database, version)| (format!("the extension of database \"{database}\""), version);
        let made = asked.extensions.iter().map(|(database, version)| of((database, version)));
        for (what, theirs) in installed.chain(made).filter(|(_, theirs)| *theirs != ours) {
            found.push(Finding::warning("version", node, format!("{what} is version {theirs}, the daemon {ours}"), install));
        }
    }
    if found.is_empty() {
        found.push(Finding::ok("version", node, format!("{ours}, like everything else that could be asked")));
    }
    found
}

pub fn disk(facts: &Facts) -> Vec<Finding> {
    facts.disks.iter().map(|disk| of_disk(disk, &facts.here.config_file)).collect()
}

fn of_disk(Disk { what, path, room }: &Disk, config_file: &str) -> Finding {
    let subject = path.display().to_string();
    let Room { bytes_free, bytes_total } = match room {
        Ok(room) => *room,
        Err(why) => return Finding::unknown("disk", subject, format!("the disk of {what} cannot be looked at: {why}")),
    };
    let percent = if bytes_total == 0 { 0 } else { u128::from(bytes_free) * 100 / u128::from(bytes_total) } as u64;
    let (free, total) = (ByteSize(bytes_free).display().si(), ByteSize(bytes_total).display().si());
    let message = format!("{percent} % of the disk of {what} are free: {free} of {total}");
    let remedy = match *what {
        "the log of gcs" => {
            format!(
                "make room; evict members that are away for good (gcs evict); lower log_retention; gcs reserve release --config {config_file}"
            )
        }
        _ => "make room: move other files away, look for replication slots that keep WAL (pg_replication_slots)".to_owned(),
    };
    match percent {
        _ if bytes_free >= FREE_BYTES_ENOUGH => Finding::ok("disk", subject, message),
        percent if percent < FREE_PERCENT_CRITICAL => Finding::critical("disk", subject, message, remedy),
        percent if percent < FREE_PERCENT_WARNING => Finding::warning("disk", subject, message, remedy),
        _ => Finding::ok("disk", subject, message),
    }
}

pub fn certificate(facts: &Facts) -> Vec<Finding> {
    let certificates = match &facts.certificates {
        Ok(certificates) => certificates,
        Err(why) => {
            let remedy = format!("mend the [tls] of {}", facts.here.config_file);
            return vec![Finding::critical("certificate", &facts.here.node, why, remedy)];
        }
    };
    let mut found: Vec<Finding> = certificates.iter().map(|certificate| of_certificate(certificate, facts)).collect();
    // One that was renewed counts when the daemon has taken it up.
    for used in facts.examination().map(|it| it.certificates.as_slice()).unwrap_or_default() {
        let expires = Moment::new(used.expires);
        let certificate = Certificate { name: used.name.clone(), is_authority: used.is_authority, expires };
        if !certificates.contains(&certificate) {
            let mut finding = of_certificate(&certificate, facts);
            finding.message = format!("in use by the daemon, {}", finding.message);
            found.push(finding);
        }
    }
    if found.is_empty() {
        found.push(Finding::ok("certificate", &facts.here.node, "there is no [tls]: no certificates, and no encryption"));
    }
    found
}

fn of_certificate(Certificate { name, is_authority, expires }: &Certificate, facts: &Facts) -> Finding {
    let what = if *is_authority { "authority" } else { "certificate" };
    let subject = format!("{what} {name}");
    let remedy = if *is_authority {
        "make another authority, see docs/security.md".to_owned()
    } else {
        format!("gcs renew --config {}", facts.here.config_file)
    };
    let (days, over) = (expires.days_since(facts.now), expires.seconds_since(facts.now) <= 0);
    match days {
        _ if over => Finding::critical("certificate", subject, format!("expired on {expires}"), remedy),
        days if days < EXPIRY_DAYS => {
            Finding::warning("certificate", subject, format!("expires on {expires}, in {days} days"), remedy)
        }
        days => Finding::ok("certificate", subject, format!("expires on {expires}, in {days} days")),
    }
}

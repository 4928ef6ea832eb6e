//! The state of the group as the page gets it: one JSON object, made from a snapshot. Its form is the page's own affair, and changes with it; programs
//! take `/metrics` or `gcs status --json`.
//!
//! Members are given by name. Times are in the unit that the field's name ends with.

use std::collections::BTreeMap;
use std::time::SystemTime;

use gcs_writeset::NodeId;
use gcs_writeset::link::{ConflictCount, CopyStatus, MemberStatus};
use serde::Serialize;

use super::followed::Course;
use super::pulse::Pulse;
use super::snapshot::{Database, Log, Service, Snapshot};
use super::verdicts;
use crate::history::event::Event;
use crate::status::state_name;

#[derive(Debug, Serialize)]
pub struct View {
    version: &'static str,
    node: String,
    group: String,
    now_ms: u64,
    uptime_s: u64,
    term: u64,
    quorum: bool,
    leader: Option<String>,
    /// Why this node is no member any more.
    removed: Option<String>,
    /// Why no commit could be had here; null if it could.
    not_writable: Option<String>,
    members: Vec<MemberView>,
    databases: Vec<DatabaseView>,
    outcomes: BTreeMap<&'static str, u64>,
    refused: BTreeMap<&'static str, u64>,
    log: LogView,
    certificates: Vec<CertificateView>,
    conflicts: Vec<ConflictView>,
    courses: Vec<CourseView>,
    events: Vec<Event>,
}

#[derive(Debug, Serialize)]
struct MemberView {
    name: String,
    address: String,
    role: &'static str,
    state: &'static str,
    is_leader: bool,
    is_me: bool,
    /// Whether its daemon is connected with this one.
    is_up: bool,
    /// Positions that it has not made visible, where it lacks most.
    lag: Option<u64>,
    /// Entries of the log that it has yet to get, as its leader knows.
    log_behind: Option<u64>,
    copy: Option<CopyView>,
}

#[derive(Debug, Serialize)]
struct CopyView {
    database: String,
    from: String,
    bytes_done: u64,
    bytes_total: u64,
    seconds_left: Option<u64>,
}

#[derive(Debug, Serialize)]
struct DatabaseView {
    name: String,
    state: &'static str,
    ordered: u64,
    received: u64,
    applied: u64,
    locks_held: usize,
    locks_waiting: usize,
    standings: Vec<StandingView>,
}

#[derive(Debug, Serialize)]
struct StandingView {
    member: String,
    committed: u64,
    flushed: u64,
    is_out_of_service: bool,
}

#[derive(Debug, Serialize)]
struct LogView {
    committed: u64,
    applied: u64,
    bytes_kept: u64,
    bytes_max: u64,
    bytes_written: u64,
    bytes_free: Option<u64>,
    segments: u64,
}

#[derive(Debug, Serialize)]
struct CertificateView {
    name: String,
    is_authority: bool,
    expires_s: i64,
}

#[derive(Debug, Serialize)]
struct ConflictView {
    database: String,
    table: String,
    key: String,
    certification: u64,
    victim: u64,
    yielded: u64,
    winner: String,
    position: u64,
}

#[derive(Debug, Serialize)]
struct CourseView {
    database: String,
    position: u64,
    began_ms: u64,
    bytes: usize,
    is_certified: bool,
    ordered_us: u64,
    shown: Vec<ShownView>,
    missing: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ShownView {
    member: String,
    at_us: u64,
}

type Counts = BTreeMap<&'static str, u64>;

impl View {
    pub fn new(seen: Snapshot, pulse: &Pulse, (outcomes, refused): (Counts, Counts)) -> View {
        let name_of = |node: NodeId| {
            let member = seen.status.members.iter().find(|member| member.node == node);
            member.map_or_else(|| node.to_string(), |member| member.name.clone())
        };
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let here = seen.databases.iter().filter(|it| it.service != Service::Absent || !it.standings.is_empty());
        let certificates = seen.certificates.iter().map(|it| CertificateView {
            name: it.name.clone(),
            is_authority: it.is_authority,
            expires_s: it.expires,
        });
        let conflicts =
            seen.lost.iter().flat_map(|(database, counts)| counts.iter().map(move |it| of_conflict(database, it)));
        View {
            version: env!("CARGO_PKG_VERSION"),
            node: seen.node.clone(),
            group: seen.group.clone(),
            now_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            uptime_s: pulse.uptime().as_secs(),
            term: seen.status.term,
            quorum: seen.status.quorum,
            leader: seen.status.leader.map(name_of),
            removed: seen.removed.clone(),
            not_writable: verdicts::writable(&seen, None).err(),
            members: seen.status.members.iter().map(|member| of_member(member, &seen)).collect(),
            databases: here.map(|it| of_database(it, name_of)).collect(),
            outcomes,
            refused,
            log: of_log(&seen.log),
            certificates: certificates.collect(),
            conflicts: conflicts.collect(),
            courses: seen.courses.iter().map(|course| of_course(course, &seen.databases, name_of)).collect(),
            events: seen.events.clone(),
        }
    }
}

fn of_member(member: &MemberStatus, seen: &Snapshot) -> MemberView {
    let is_me = member.node == seen.me;
    let peer = seen.peers.iter().find(|peer| peer.name == member.name);
    // Its own is known better than the group knows it.
    let own = seen.databases.iter().filter(|it| it.service != Service::Absent);
    let own = own.map(|it| it.ordered.0.saturating_sub(it.applied.0)).max();
    MemberView {
        name: member.name.clone(),
        address: member.address.clone(),
        role: member.role.name(member.kind),
        state: state_name(member),
        is_leader: seen.status.leader == Some(member.node),
        is_me,
        is_up: is_me || peer.is_some_and(|peer| peer.is_up),
        lag: if is_me { own } else { peer.map(|peer| peer.lag) },
        log_behind: peer.and_then(|peer| peer.log_behind),
        copy: member.copy.as_ref().map(of_copy),
    }
}

fn of_copy(copy: &CopyStatus) -> CopyView {
    CopyView {
        database: copy.database.clone(),
        from: copy.from.clone(),
        bytes_done: copy.bytes_done,
        bytes_total: copy.bytes_total,
        seconds_left: copy.seconds_left(),
    }
}

fn of_database(it: &Database, name_of: impl Fn(NodeId) -> String) -> DatabaseView {
    let standings = it.standings.iter().map(|standing| StandingView {
        member: name_of(standing.member),
        committed: standing.committed.0,
        flushed: standing.flushed.0,
        is_out_of_service: standing.is_out_of_service,
    });
    DatabaseView {
        name: it.name.clone(),
        state: it.service.name(),
        ordered: it.ordered.0,
        received: it.received.0,
        applied: it.applied.0,
        locks_held: it.locks_held,
        locks_waiting: it.locks_waiting,
        standings: standings.collect(),
    }
}

fn of_log(log: &Log) -> LogView {
    let Log { committed, applied, bytes_kept, bytes_max, bytes_written, segments, bytes_free } = *log;
    LogView { committed, applied, bytes_kept, bytes_max, bytes_written, bytes_free, segments }
}

fn of_conflict(database: &str, it: &ConflictCount) -> ConflictView {
    ConflictView {
        database: database.to_owned(),
        table: it.table.clone(),
        key: it.key.clone(),
        certification: it.certification,
        victim: it.victim,
        yielded: it.yielded,
        winner: it.winner.clone(),
        position: it.position.0,
    }
}

fn of_course(course: &Course, databases: &[Database], name_of: impl Fn(NodeId) -> String) -> CourseView {
    let micros = |span: std::time::Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    let database = databases.iter().find(|it| it.id == course.database);
    CourseView {
        database: database.map_or_else(String::new, |it| it.name.clone()),
        position: course.position.0,
        began_ms: course.began_at,
        bytes: course.bytes,
        is_certified: course.is_certified,
        ordered_us: micros(course.ordered),
        shown: course.shown.iter().map(|(member, at)| ShownView { member: name_of(*member), at_us: micros(*at) }).collect(),
        missing: course.missing.iter().map(|member| name_of(*member)).collect(),
    }
}

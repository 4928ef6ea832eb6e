//! How this daemon finds itself and the group, for a person who asks (`gcs doctor`): the snapshot that those who look on are given, and what only
//! the peers know: what their clocks say, which version they are of, and whether they show what had been ordered before the question.
//!
//! Nothing of it passes by the order, and nothing is done while nobody asks. An answer takes two seconds at the most, as long as somebody does not answer.

use std::collections::BTreeMap;
use std::time::Duration;

use gcs_proto::{Frame, Said, Show};
use gcs_writeset::NodeId;
use gcs_writeset::link::{MemberStatus, PROTOCOL};
use tokio::time::{Instant, timeout_at};

use super::hub::Hub;
use crate::examined::{Certificate, Database, Examination, Log, Member, MemberDatabase, Strangers};
use crate::introduction::{clock_ms, version};
use crate::observe::snapshot::{self, Service, Snapshot};
use crate::shown::Question;
use crate::status::state_name;

/// Peers have so long to say where they are.
const PEERS_WITHIN: Duration = Duration::from_secs(1);

/// What a peer said of itself, and how far its clock is from this one's.
struct Acquaintance {
    version: String,
    clock_ahead_ms: i64,
    clock_error_ms: i64,
    port: Option<u16>,
}

/// None if the driver does not answer.
pub async fn examine(hub: &Hub) -> Option<Examination> {
    let snapshot = hub.node.looking.asker.lag(None, 0).await?;
    let deadline = Instant::now() + PEERS_WITHIN;
    let acquainted = acquaint(hub, deadline);
    let not_shown = not_shown(hub, &snapshot, deadline);
    let (acquainted, not_shown) = tokio::join!(acquainted, not_shown);
    Some(told(hub, snapshot, acquainted, not_shown))
}

/// Asks all peers for nothing in particular, and hears of themselves.
async fn acquaint(hub: &Hub, deadline: Instant) -> BTreeMap<NodeId, Acquaintance> {
    let node = &hub.node;
    let mut question = node.shown.ask();
    let mut asked = node.peers.up();
    let (asked_at_ms, asked_at) = (clock_ms(), Instant::now());
    node.peers.send_to_each(&asked, &Frame::Show(Show { number: question.number, database: 0, position: 0 }));
    node.peers.flush();
    let mut acquainted = BTreeMap::new();
    while !asked.is_empty() {
        let Ok(Some(heard)) = timeout_at(deadline, question.answers.recv()).await else { break };
        asked.retain(|peer| *peer != heard.node);
        let took_ms = i64::try_from(asked_at.elapsed().as_millis()).unwrap_or(i64::MAX);
        if let Some(Said { clock_ms, version, postgresql_port }) = heard.said {
            let port = u16::try_from(postgresql_port).ok().filter(|port| *port > 0);
            // It looked at its clock some time in between.
            let clock_error_ms = took_ms / 2 + 1;
            let clock_ahead_ms = clock_ms.saturating_sub(asked_at_ms).saturating_sub(took_ms / 2);
            acquainted.insert(heard.node, Acquaintance { version, clock_ahead_ms, clock_error_ms, port });
        }
    }
    acquainted
}

/// For each peer the databases of which it has not shown in time what had been ordered.
async fn not_shown(hub: &Hub, snapshot: &Snapshot, deadline: Instant) -> BTreeMap<NodeId, Vec<String>> {
    let node = &hub.node;
    let peers = node.up_with_databases();
    let ask = |seen: &snapshot::Database| -> Option<(String, Question)> {
        let (id, question) = (node.databases.id(&seen.name)?, node.shown.ask());
        let show = Show { number: question.number, database: id.0, position: seen.ordered.0 };
        if show.position == 0 {
            return None;
        }
        node.peers.send_to_each(&peers, &Frame::Show(show));
        Some((seen.name.clone(), question))
    };
    // All ask before the first is waited for.
    let asked: Vec<_> = snapshot.databases.iter().filter_map(ask).collect();
    node.peers.flush();
    let mut not_shown: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
    for (name, mut question) in asked {
        let mut missing = peers.clone();
        while !missing.is_empty() {
            let Ok(Some(heard)) = timeout_at(deadline, question.answers.recv()).await else { break };
            missing.retain(|peer| *peer != heard.node);
        }
        for peer in missing {
            not_shown.entry(peer).or_default().push(name.clone());
        }
    }
    not_shown
}

fn told(
    hub: &Hub,
    snapshot: Snapshot,
    acquainted: BTreeMap<NodeId, Acquaintance>,
    not_shown: BTreeMap<NodeId, Vec<String>>,
) -> Examination {
    let node = &hub.node;
    let log = node.log_status();
    let status = &snapshot.status;
    let leader = status.members.iter().find(|member| Some(member.node) == status.leader);
    let databases: Vec<Database> = snapshot.databases.iter().map(|seen| database(hub, seen)).collect();
    let members = status.members.iter().map(|member| {
        let mut told = told_of(&snapshot, member, acquainted.get(&member.node));
        told.not_shown = not_shown.get(&member.node).cloned().unwrap_or_default();
        if told.is_self {
            let behind =
                |database: &&Database| database.service == Service::Serving.name() && database.applied < database.ordered;
            told.not_shown = databases.iter().filter(behind).map(|database| database.name.clone()).collect();
            told.port = node.peers.places.any().map(|place| place.port);
            told.databases = databases.iter().filter(|it| it.service != Service::Absent.name()).map(own_lag).collect();
            told.lag = databases.iter().map(|database| database.ordered.saturating_sub(database.applied)).max().unwrap_or(0);
        }
        told
    });
    Examination {
        version: version().to_owned(),
        role: snapshot.kind.name().to_owned(),
        removed: snapshot.removed.clone(),
        is_draining: snapshot.is_draining,
        quorum: status.quorum,
        leader: leader.map(|member| member.name.clone()),
        term: status.term,
        members: members.collect(),
        log: Log { bytes_kept: log.bytes_kept, bytes_max: log.bytes_max, bytes_a_second: log.bytes_a_second },
        certificates: snapshot.certificates.iter().map(certificate).collect(),
        strangers: node.looking.strangers.get().map(|(protocol, at)| Strangers {
            protocol,
            own: PROTOCOL,
            seconds_ago: at.elapsed().as_secs(),
        }),
        server: node.looking.server(),
        databases,
        group: snapshot.group.clone(),
        node: snapshot.node.clone(),
    }
}

fn told_of(snapshot: &Snapshot, member: &MemberStatus, acquaintance: Option<&Acquaintance>) -> Member {
    let is_self = member.node == snapshot.me;
    let peer = snapshot.peers.iter().find(|peer| peer.name == member.name);
    Member {
        name: member.name.clone(),
        address: member.address.clone(),
        role: member.role.name(member.kind).to_owned(),
        state: state_name(member).to_owned(),
        is_self,
        is_connected: is_self || peer.is_some_and(|peer| peer.is_up),
        lag: peer.map_or(0, |peer| peer.lag),
        not_shown: Vec::new(),
        log_behind: peer.and_then(|peer| peer.log_behind),
        version: if is_self { Some(version().to_owned()) } else { acquaintance.map(|it| it.version.clone()) },
        clock_ahead_ms: if is_self { Some(0) } else { acquaintance.map(|it| it.clock_ahead_ms) },
        clock_error_ms: acquaintance.map_or(0, |it| it.clock_error_ms),
        port: acquaintance.and_then(|it| it.port),
        databases: peer.map(|peer| peer.lags.iter().map(lag_of).collect()).unwrap_or_default(),
    }
}

fn database(hub: &Hub, seen: &snapshot::Database) -> Database {
    Database {
        name: seen.name.clone(),
        service: seen.service.name().to_owned(),
        ordered: seen.ordered.0,
        received: seen.received.0,
        applied: seen.applied.0,
        cannot_apply: hub.node.looking.cannot_apply(&seen.name).map(|position| position.0),
    }
}

fn certificate(certificate: &snapshot::Certificate) -> Certificate {
    let snapshot::Certificate { name, is_authority, expires } = certificate.clone();
    Certificate { name, is_authority, expires }
}

/// Of another member nobody here knows what it has received: only what it shows.
fn lag_of((name, lag): &(String, u64)) -> MemberDatabase {
    MemberDatabase { name: name.clone(), receive_lag: None, apply_lag: *lag }
}

fn own_lag(database: &Database) -> MemberDatabase {
    MemberDatabase {
        name: database.name.clone(),
        receive_lag: Some(database.ordered.saturating_sub(database.received)),
        apply_lag: database.received.max(database.applied).saturating_sub(database.applied),
    }
}

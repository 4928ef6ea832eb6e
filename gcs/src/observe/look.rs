//! A look at everything, on the daemon's own thread: what the core, the hub and the log know becomes a [`Snapshot`].

use std::collections::BTreeMap;

use gcs_core::member::Attachment;
use gcs_core::{Core, deliver};
use gcs_writeset::link::Reply;
use gcs_writeset::{DatabaseId, NodeId, Position};
use tokio::time::Instant;

use super::snapshot::{Certificate, Database, Log, Peer, Queues, Service, Snapshot, Standing};
use crate::local::Hub;
use crate::log::LogReader;

pub fn look(core: &Core<LogReader>, hub: &Hub) -> Snapshot {
    let node = &hub.node;
    let certificates = node.certificates().into_iter().map(|certificate| Certificate {
        name: certificate.name,
        is_authority: certificate.is_authority,
        expires: i64::try_from(certificate.not_after).unwrap_or(i64::MAX),
    });
    Snapshot {
        me: node.id(),
        node: node.name().to_owned(),
        group: node.group().to_owned(),
        kind: node.roster.kind(),
        removed: node.roster.removed(),
        is_draining: node.sessions.is_draining(),
        status: hub.status(),
        databases: core.state().databases.iter().map(|(id, database)| of_database(node.id(), *id, database, hub)).collect(),
        peers: peers(core, hub),
        log: log(core, hub),
        queues: queues(core, hub),
        certificates: certificates.collect(),
        courses: Vec::new(),
        lost: BTreeMap::new(),
        events: Vec::new(),
    }
}

/// For the page. The managers are asked for the conflicts, which are there when somebody looks again.
pub fn look_closely(core: &Core<LogReader>, hub: &Hub) -> Snapshot {
    hub.node.followed.looked_at(Instant::now());
    hub.tell_managers(&Reply::AskConflicts);
    let (courses, lost, events) = (hub.node.followed.courses(), hub.node.lost.all(), hub.node.looking.history.behind(0));
    Snapshot { courses, lost, events, ..look(core, hub) }
}

/// Of those that have the database attached.
fn standings(database: &deliver::Database) -> Vec<Standing> {
    let attached = database.attachments.by_node.iter().filter(|(_, attachment)| attachment.incarnation.is_some());
    let standing = |(member, attachment): (&NodeId, &Attachment)| Standing {
        member: *member,
        committed: attachment.report.committed,
        flushed: attachment.report.flushed,
        is_out_of_service: attachment.report.out_of_service,
    };
    attached.map(standing).collect()
}

fn of_database(me: NodeId, id: DatabaseId, database: &deliver::Database, hub: &Hub) -> Database {
    let attachment = database.attachments.by_node.get(&me).filter(|attachment| attachment.incarnation.is_some());
    let report = attachment.map(|attachment| attachment.report).unwrap_or_default();
    let mut seen = Database {
        id,
        name: database.name.clone(),
        service: if report.out_of_service { Service::OutOfService } else { Service::Detached },
        ordered: database.head,
        of_group: None,
        received: Position::ZERO,
        applied: report.committed,
        acknowledged: report.committed,
        flushed: report.flushed,
        oldest_base: database.attachments.oldest_base(database.head),
        horizon: database.certifier.horizon(),
        queue_bytes: 0,
        standings: standings(database),
        locks_held: database.locks.held(),
        locks_waiting: database.locks.waiting().count(),
    };
    match attachment {
        Some(_) => hub.look_again(id, &mut seen),
        None => seen.service = Service::Absent,
    }
    seen
}

fn peers(core: &Core<LogReader>, hub: &Hub) -> Vec<Peer> {
    let node = &hub.node;
    let others = node.roster.others().into_iter().map(|member| {
        let lags = core.state().databases.values().filter_map(|database| {
            let attachment = database.attachments.by_node.get(&member.node)?;
            attachment.incarnation?;
            Some((database.name.clone(), database.head.0.saturating_sub(attachment.report.committed.0)))
        });
        let lags: Vec<(String, u64)> = lags.collect();
        Peer {
            lag: lags.iter().map(|(_, lag)| *lag).max().unwrap_or(0),
            lags,
            is_up: node.peers.is_up(member.node),
            queue_bytes: node.peers.get(member.node).map_or(0, |peer| peer.queue_bytes()),
            log_behind: core.behind(member.node),
            name: member.name,
        }
    });
    others.collect()
}

fn log(core: &Core<LogReader>, hub: &Hub) -> Log {
    let node = &hub.node;
    let (bytes_kept, bytes_max, _) = node.usage.bytes();
    Log {
        committed: core.committed().0,
        applied: core.applied().0,
        bytes_kept,
        bytes_max,
        bytes_written: node.log.written(),
        segments: node.log.segments() as u64,
        bytes_free: node.log.bytes_free(),
    }
}

fn queues(core: &Core<LogReader>, hub: &Hub) -> Queues {
    let (inbox_inputs, inbox_bytes) = hub.node.inbox.waiting();
    let (unordered_commands, unordered_bytes) = core.unordered();
    let local_connections = hub.node.connections();
    Queues { inbox_inputs, inbox_bytes, unordered_commands, unordered_bytes, local_connections }
}

//! A snapshot, and what was counted, in the text format of OpenMetrics, which Prometheus reads. docs/metrics.md lists every metric; a test
//! compares the two.

use std::fmt;
use std::time::UNIX_EPOCH;

use gcs_writeset::link::{GroupStatus, MemberState};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::counted::Counted;
use super::process::Usage;
use super::pulse::Pulse;
use super::snapshot::{Database, Peer, Service, Snapshot};
use super::verdicts;

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;

/// The text; without a snapshot, what can be told without the driver.
pub fn text(counted: &Counted, pulse: &Pulse, snapshot: Option<Snapshot>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let (uptime, silence) = (pulse.uptime().as_secs_f64(), pulse.silence().map(|silence| silence.as_secs_f64()));
    let began_at = pulse.began_at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    registry.register_collector(Box::new(OfProcess { uptime, silence, began_at, is_known: snapshot.is_some() }));
    registry.register_collector(Box::new(OfGroup(snapshot.unwrap_or_default())));
    let mut text = String::new();
    encode_registry(&mut text, &counted.registry)?;
    encode_registry(&mut text, &registry)?;
    encode_eof(&mut text)?;
    Ok(text)
}

/// Writes one metric after the other.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauges(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) -> fmt::Result {
        each(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?, values)
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Into<Option<u64>>) -> fmt::Result {
        self.gauges(name, help, value.into().map(|value| (Labels::new(), value)))
    }

    fn seconds(&mut self, name: &str, help: &str, value: impl Into<Option<f64>>) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        value.into().map_or(Ok(()), |value| ConstGauge::new(value).encode(metric))
    }

    fn bytes(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) -> fmt::Result {
        each(self.0.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?, values)
    }

    fn counter(&mut self, name: &str, help: &str, unit: Unit, value: Option<f64>) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, Some(&unit), MetricType::Counter)?;
        value.map_or(Ok(()), |value| ConstCounter::new(value).encode(metric))
    }

    fn info(&mut self, name: &str, help: &str, labels: Labels) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Info)?;
        metric.encode_info(&escaped(labels))
    }
}

fn each(mut metric: MetricEncoder<'_>, values: impl IntoIterator<Item = (Labels, u64)>) -> fmt::Result {
    for (labels, value) in values {
        if labels.is_empty() {
            return ConstGauge::new(value).encode(metric);
        }
        ConstGauge::new(value).encode(metric.encode_family(&escaped(labels))?)?;
    }
    Ok(())
}

/// What is written between quotes stands there as it is: the format's own signs have a backslash before them.
fn escaped(labels: Labels) -> Labels {
    let escape = |value: String| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    labels.into_iter().map(|(name, value)| (name, escape(value))).collect()
}

fn one(value: u64) -> [(Labels, u64); 1] {
    [(Labels::new(), value)]
}

#[derive(Debug)]
struct OfProcess {
    uptime: f64,
    silence: Option<f64>,
    began_at: f64,
    is_known: bool,
}

impl Collector for OfProcess {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        let usage = Usage::now();
        page.info("gcs_build", "The release", vec![("version", env!("CARGO_PKG_VERSION").to_owned())])?;
        page.seconds("gcs_uptime", "Since the process began", self.uptime)?;
        page.seconds(
            "gcs_event_loop_silence",
            "Since the driver last stepped; not there while it starts or stops",
            self.silence,
        )?;
        page.gauge(
            "gcs_state_known",
            "Whether the driver answered: without it the metrics of the group are not there",
            u64::from(self.is_known),
        )?;
        page.seconds("process_start_time", "When the process began, as Unix time", self.began_at)?;
        page.counter(
            "process_cpu",
            "Time on processors, in the program and in the kernel",
            Unit::Seconds,
            usage.cpu_seconds,
        )?;
        page.bytes("process_resident_memory", "Memory in use", usage.resident_bytes.map(|bytes| (Labels::new(), bytes)))?;
        page.gauge("process_open_fds", "Open files and sockets", usage.open_files)?;
        page.gauge("process_max_fds", "How many there may be", usage.open_files_max)
    }
}

/// Nothing but the names of the metrics is told of a group without a node.
#[derive(Debug)]
struct OfGroup(Snapshot);

impl Collector for OfGroup {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let (mut page, seen) = (Page(encoder), &self.0);
        let is_known = !seen.node.is_empty();
        let known = |value: u64| is_known.then_some(value);
        let yes = |value: bool| known(u64::from(value));
        node(&mut page, seen, is_known)?;
        page.gauge("gcs_quorum", "Whether a majority of the group is in touch", yes(seen.status.quorum))?;
        page.gauge("gcs_leads", "Whether this node leads the group", yes(seen.leads()))?;
        page.gauge(
            "gcs_leader_known",
            "Whether the group has a leader, as far as is known here",
            yes(seen.status.leader.is_some()),
        )?;
        page.gauge("gcs_term", "Raft's term: changes with each election", known(seen.status.term))?;
        page.gauge("gcs_draining", "Whether clients are sent elsewhere", yes(seen.is_draining))?;
        page.gauge("gcs_removed", "Whether this node is no member any more", yes(seen.removed.is_some()))?;
        page.gauge("gcs_ready", "Whether /readyz says yes", yes(verdicts::ready(seen, None, None).is_ok()))?;
        page.gauge("gcs_writable", "Whether /writable says yes", yes(verdicts::writable(seen, None).is_ok()))?;
        members(&mut page, &seen.status)?;
        peers(&mut page, &seen.peers)?;
        databases(&mut page, &seen.databases)?;
        log(&mut page, seen, is_known)?;
        queues(&mut page, seen, is_known)?;
        let expiries = seen.certificates.iter().map(|it| {
            let kind = if it.is_authority { "authority" } else { "node" };
            (vec![("certificate", it.name.clone()), ("kind", kind.to_owned())], u64::try_from(it.expires).unwrap_or(0))
        });
        page.gauges("gcs_certificate_expiry_timestamp_seconds", "When the certificate ends, as Unix time", expiries)
    }
}

fn node(page: &mut Page<'_>, seen: &Snapshot, is_known: bool) -> fmt::Result {
    let own = seen.status.members.iter().find(|member| member.node == seen.me);
    let role = own.map_or("none", |member| member.role.name(member.kind)).to_owned();
    let (node, group) = (seen.node.clone(), seen.group.clone());
    let labels = is_known.then(|| vec![("node", node), ("group", group), ("role", role)]);
    page.gauges("gcs_node_info", "Which node this is", labels.map(|labels| (labels, 1)))
}

const STATES: [MemberState; 6] = [
    MemberState::Online,
    MemberState::Detached,
    MemberState::Unreachable,
    MemberState::OutOfService,
    MemberState::Draining,
    MemberState::Copying,
];

fn members(page: &mut Page<'_>, status: &GroupStatus) -> fmt::Result {
    page.gauge("gcs_members", "Members of the group", Some(status.members.len() as u64).filter(|count| *count > 0))?;
    let states = status.members.iter().flat_map(|member| {
        STATES.iter().map(|state| {
            // A witness is all there when its daemon is.
            let is_witness_there = member.state == MemberState::Detached && !member.kind.has_databases();
            let is_so = *state == if is_witness_there { MemberState::Online } else { member.state };
            (vec![("member", member.name.clone()), ("state", word(*state).to_owned())], u64::from(is_so))
        })
    });
    page.gauges("gcs_member_state", "1 at the state that the member is in", states)?;
    let copies = || status.members.iter().filter_map(|member| Some((member, member.copy.as_ref()?)));
    let of = |name: &str| vec![("member", name.to_owned())];
    page.bytes(
        "gcs_member_copied",
        "Of the copy that the member gets",
        copies().map(|(member, copy)| (of(&member.name), copy.bytes_done)),
    )?;
    page.bytes(
        "gcs_member_copy_size",
        "Of the original",
        copies().map(|(member, copy)| (of(&member.name), copy.bytes_total)),
    )
}

/// A label's form of it.
fn word(state: MemberState) -> &'static str {
    match state {
        MemberState::Online => "online",
        MemberState::Detached => "detached",
        MemberState::Unreachable => "unreachable",
        MemberState::OutOfService => "out_of_service",
        MemberState::Draining => "draining",
        MemberState::Copying => "copying",
    }
}

fn peers(page: &mut Page<'_>, peers: &[Peer]) -> fmt::Result {
    let each = |value: fn(&Peer) -> u64| peers.iter().map(move |peer| (vec![("member", peer.name.clone())], value(peer)));
    page.gauges(
        "gcs_member_connected",
        "Whether both connections to the member's daemon are up",
        each(|peer| u64::from(peer.is_up)),
    )?;
    let help = "Positions that the member does not show yet, in the database where it lacks most";
    page.gauges("gcs_member_lag_positions", help, each(|peer| peer.lag))?;
    let behind = peers.iter().filter_map(|peer| Some((vec![("member", peer.name.clone())], peer.log_behind?)));
    page.gauges("gcs_member_log_lag_entries", "On the leader: entries of the log that the member has yet to get", behind)?;
    page.bytes("gcs_member_queue", "What waits for the member's socket", each(|peer| peer.queue_bytes as u64))
}

/// A metric of each database that this node takes part in; none where it is not known.
type OfDatabase = (&'static str, &'static str, fn(&Database) -> Option<u64>);

const OF_DATABASES: [OfDatabase; 15] = [
    ("gcs_database_attached", "Whether its PostgreSQL is connected, and positions flow", |it| Some(u64::from(flows(it)))),
    ("gcs_database_serving", "Whether clients are let in", |it| Some(u64::from(it.service == Service::Serving))),
    ("gcs_database_out_of_service", "Whether it cannot apply what was ordered, or gets a copy", |it| {
        Some(u64::from(it.service == Service::OutOfService))
    }),
    ("gcs_database_ordered_position", "The last position ordered, as known here", |it| Some(it.ordered.0)),
    ("gcs_database_received_position", "The last one handed to PostgreSQL", |it| flows(it).then_some(it.received.0)),
    ("gcs_database_applied_position", "The last one that has passed the gate: clients see it", |it| Some(it.applied.0)),
    ("gcs_database_acknowledged_position", "The last one that the group knows to be visible here", |it| {
        Some(it.acknowledged.0)
    }),
    ("gcs_database_flushed_position", "The last one that the group knows to be on this node's disk", |it| {
        Some(it.flushed.0)
    }),
    ("gcs_database_receive_lag_positions", "Ordered, and not handed to PostgreSQL", |it| {
        flows(it).then(|| it.ordered.0.saturating_sub(it.received.0))
    }),
    ("gcs_database_apply_lag_positions", "Handed to PostgreSQL, and not visible", |it| {
        flows(it).then(|| it.received.0.saturating_sub(it.applied.0))
    }),
    ("gcs_database_lag_positions", "Ordered, and not visible", |it| Some(it.ordered.0.saturating_sub(it.applied.0))),
    ("gcs_database_oldest_base_position", "The oldest that a transaction anywhere may rest on", |it| Some(it.oldest_base.0)),
    ("gcs_database_horizon_position", "Up to where certification has forgotten", |it| Some(it.horizon.0)),
    ("gcs_database_locks_held", "Group locks that sessions of any node hold", |it| Some(it.locks_held as u64)),
    ("gcs_database_locks_waiting", "Sessions that wait for one", |it| Some(it.locks_waiting as u64)),
];

fn flows(it: &Database) -> bool {
    matches!(it.service, Service::CatchingUp | Service::Serving)
}

fn databases(page: &mut Page<'_>, databases: &[Database]) -> fmt::Result {
    let here = || databases.iter().filter(|it| it.service != Service::Absent);
    let of = |it: &Database| vec![("database", it.name.clone())];
    for (name, help, value) in OF_DATABASES {
        page.gauges(name, help, here().filter_map(|it| Some((of(it), value(it)?))))?;
    }
    page.bytes(
        "gcs_database_queue",
        "What waits for its PostgreSQL's socket",
        here().map(|it| (of(it), it.queue_bytes as u64)),
    )
}

fn log(page: &mut Page<'_>, seen: &Snapshot, is_known: bool) -> fmt::Result {
    let known = |value: u64| is_known.then_some(value);
    let bytes = |value: u64| one(value).into_iter().filter(move |_| is_known);
    let log = &seen.log;
    page.gauge(
        "gcs_log_committed_index",
        "The last entry of the log that is committed, as known here",
        known(log.committed),
    )?;
    page.gauge("gcs_log_applied_index", "The last one that is certified and handed on", known(log.applied))?;
    page.gauge("gcs_log_segments", "Files of the log", known(log.segments))?;
    page.bytes("gcs_log_kept", "Of these files", bytes(log.bytes_kept))?;
    page.bytes("gcs_log_retention", "How much is kept (log_retention)", bytes(log.bytes_max))?;
    page.bytes("gcs_log_disk_free", "Room on the disk of the log", log.bytes_free.map(|free| (Labels::new(), free)))?;
    page.counter("gcs_log_written", "What was written to the log", Unit::Bytes, is_known.then_some(log.bytes_written as f64))
}

fn queues(page: &mut Page<'_>, seen: &Snapshot, is_known: bool) -> fmt::Result {
    let known = |value: usize| is_known.then_some(value as u64);
    let bytes = |value: usize| one(value as u64).into_iter().filter(move |_| is_known);
    let queues = &seen.queues;
    page.gauge("gcs_inbox_inputs", "Messages that wait for the next step", known(queues.inbox_inputs))?;
    page.bytes("gcs_inbox", "Of these", bytes(queues.inbox_bytes))?;
    page.gauge("gcs_unordered_commands", "What PostgreSQL wants ordered, and is not yet", known(queues.unordered_commands))?;
    page.bytes("gcs_unordered", "Of these", bytes(queues.unordered_bytes))?;
    page.gauge("gcs_local_connections", "Connections of PostgreSQL on the local socket", known(queues.local_connections))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_break_out_of_its_quotes() {
        let database = Database { name: "a\"} 1\nb\\".to_owned(), service: Service::Serving, ..Database::default() };
        let snapshot = Snapshot { node: "n1".to_owned(), databases: vec![database], ..Snapshot::default() };
        let text = text(&Counted::default(), &Pulse::default(), Some(snapshot)).unwrap();
        assert!(text.contains(r#"gcs_database_serving{database="a\"} 1\nb\\"} 1"#), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn without_an_answer_of_the_driver_the_names_are_there_and_nothing_is_claimed() {
        let text = text(&Counted::default(), &Pulse::default(), None).unwrap();
        assert!(text.contains("# TYPE gcs_quorum gauge") && !text.contains("\ngcs_quorum "), "{text}");
        assert!(text.contains("\ngcs_state_known 0\n"));
    }
}

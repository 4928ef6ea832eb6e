//! A node: its disk, its daemon, its PostgreSQL, and the connections between the two.

use std::collections::BTreeMap;

use gcs_core::Format;
use gcs_writeset::{NodeId, NodeKind};

use super::locker::{EACH, Locker};
use crate::rng::Rng;
use crate::sim::daemon::Daemon;
use crate::sim::disk::SimLog;
use crate::sim::fact::N;
use crate::sim::plan::Plan;
use crate::sim::process::ground::Settings;
use crate::sim::server::Server;
use crate::sim::time::{Span, Time, ms};
use crate::sim::wire::ConnId;

/// When the last message in each direction of a connection arrives.
#[derive(Clone, Copy, Default)]
pub struct Pipe {
    pub up_until: Time,
    pub down_until: Time,
}

pub struct Node {
    pub n: N,
    pub id: NodeId,
    pub kind: NodeKind,
    /// Up to which format its release reads.
    pub reads: Format,
    /// How often the node was taken out of the group.
    pub generation: u32,
    /// Of its data directory.
    pub directory: u64,
    pub disk: SimLog,
    pub daemon: Option<Daemon>,
    /// Counts lives, so that what was meant for an earlier one is dropped.
    pub daemon_life: u64,
    pub server: Server,
    pub server_life: u64,
    /// Connections between the two.
    pub(super) pipes: BTreeMap<ConnId, Pipe>,
    pub slow_until: Time,
    pub(super) tick_span: Span,
    pub(super) lockers: [Locker; EACH],
}

impl Node {
    pub(super) fn new(plan: &Plan, n: N, rng: &mut Rng) -> Node {
        let id = NodeId::of_name(&format!("n{}", n.0));
        let kind = plan.kind(n);
        // Nobody writes on a query-only node.
        let clients = if kind.takes_writes() { plan.settings.clients } else { 0 };
        Node {
            n,
            id,
            kind,
            reads: if plan.locks && !plan.upgrades { Format::NEWEST } else { Format::FIRST },
            generation: 0,
            directory: 0,
            disk: SimLog::default(),
            daemon: None,
            daemon_life: 0,
            server: Server::new(n, Settings { clients, ..plan.settings.clone() }),
            server_life: 0,
            pipes: BTreeMap::new(),
            slow_until: Time(0),
            tick_span: ms(rng.between(95, 105)),
            lockers: [Locker::new(), Locker::new()],
        }
    }

    pub fn is_witness(&self) -> bool {
        self.kind == NodeKind::Witness
    }
}

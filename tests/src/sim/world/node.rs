//! A node: its disk, its daemon, its PostgreSQL, and the connections between the two.

use std::collections::BTreeMap;

use gcs_writeset::{Incarnation, NodeId};

use crate::rng::Rng;
use crate::sim::daemon::Daemon;
use crate::sim::disk::SimLog;
use crate::sim::fact::N;
use crate::sim::plan::Plan;
use crate::sim::server::Server;
use crate::sim::time::{Span, Time, ms};
use crate::sim::wire::ConnId;

/// When the last message in each direction of a connection arrives.
#[derive(Clone, Copy, Default)]
pub struct Pipe {
    pub up_until: Time,
    pub down_until: Time,
}

/// A node without a database: its PostgreSQL says once that it takes no part.
#[derive(Clone, Copy, Debug)]
pub struct Witness {
    pub incarnation: Incarnation,
    /// It has said so and was heard.
    pub is_retired: bool,
}

impl Witness {
    pub fn new(incarnation: Incarnation) -> Witness {
        Witness { incarnation, is_retired: false }
    }
}

pub struct Node {
    pub n: N,
    pub id: NodeId,
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
    pub(super) witness: Option<Witness>,
    pub slow_until: Time,
    pub(super) tick_span: Span,
}

impl Node {
    pub(super) fn new(plan: &Plan, n: N, rng: &mut Rng) -> Node {
        let id = NodeId::of_name(&format!("n{}", n.0));
        let is_witness = plan.witness && n.0 + 1 == plan.nodes;
        Node {
            n,
            id,
            generation: 0,
            directory: 0,
            disk: SimLog::default(),
            daemon: None,
            daemon_life: 0,
            server: Server::new(n, plan.settings.clone()),
            server_life: 0,
            pipes: BTreeMap::new(),
            witness: is_witness.then(|| Witness::new(Incarnation(rng.draw()))),
            slow_until: Time(0),
            tick_span: ms(rng.between(95, 105)),
        }
    }

    pub fn is_witness(&self) -> bool {
        self.witness.is_some()
    }
}

//! What a seed decides before anything happens: how large the group, how bad the network, how much goes wrong.

use gcs_core::Limits;
use gcs_core::certify::{PlantedBug, WindowBounds};
use gcs_core::writers::Following;

use gcs_writeset::NodeKind;
use postgres_r_protocol::platform::Planted;

use super::fact::N;
use super::postgres::Mistake;
use super::process::ground::Settings;
use super::time::{Span, ms};
use crate::rng::Rng;

/// Where anything is applied ahead: of a thousand transactions that travel in small chunks, those that others are to apply.
const AHEAD_PERMILLE: u64 = 500;

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub nodes: usize,
    /// What each node is for.
    pub kinds: Vec<NodeKind>,
    /// Somebody changes the membership all the while.
    pub operator: bool,
    /// The nodes begin with an older release, and are upgraded one by one, when their daemons are started again.
    pub upgrades: bool,
    /// Backends use group locks.
    pub locks: bool,
    pub settings: Settings,
    /// Of a thousand messages between daemons.
    pub drop_permille: u64,
    pub duplicate_permille: u64,
    /// Of a thousand messages, those that take long; the others take up to `delay_usual`.
    pub slow_permille: u64,
    pub delay_usual: Span,
    pub delay_slow: Span,
    /// The mean span between two faults.
    pub fault_every: Span,
    /// The mean span between two small troubles of one server: a session that is ended, a connection that breaks.
    pub nuisance_every: Span,
    /// How long things go wrong; afterwards everything must heal.
    pub trouble: Span,
    pub limits: Limits,
    /// Leaders go where most is written.
    pub follows_writers: bool,
    pub bug: Option<PlantedBug>,
    /// A deliberate mistake of the extension's protocol.
    pub planted: Option<Planted>,
    /// A deliberate mistake of the operator: a daemon whose disk was lost comes back as what it was, and votes.
    pub amnesia: bool,
    /// Whether verdicts are compared with those of a certifier that keeps all of history.
    pub reference_certifier: bool,
}

const FOLLOWS: u64 = 0x666f_6c6c_6f77;
const UPGRADES: u64 = 0x666f_730c_0000;
const LOCKS: u64 = 0x6c6f_636b_0000;
const AHEAD: u64 = 0x6168_6561_0000;

impl Plan {
    pub fn of_seed(seed: u64) -> Plan {
        let mut rng = Rng::new(seed);
        let nodes = *rng.pick(&[3, 3, 3, 5]);
        let bad_network = rng.permille(500);
        let small_window = rng.permille(300);
        let window = if small_window {
            WindowBounds { keys_max: rng.between(30, 400), positions_max: rng.between(10, 200) }
        } else {
            WindowBounds::default()
        };
        Plan {
            seed,
            nodes,
            kinds: kinds(seed, nodes, nodes == 5 && rng.permille(700)),
            operator: Rng::new(seed ^ 0x006d_656d_6265).permille(350),
            // By a number of its own, with which the seeds in which something was found go as they went.
            upgrades: Rng::new(seed ^ UPGRADES).permille(250),
            locks: Rng::new(seed ^ LOCKS).permille(400),
            settings: settings(&mut rng, Rng::new(seed ^ AHEAD).permille(500)),
            drop_permille: if bad_network { rng.between(1, 80) } else { 0 },
            duplicate_permille: if bad_network { rng.between(1, 80) } else { 0 },
            slow_permille: rng.between(0, 50),
            delay_usual: ms(rng.between(1, 6)),
            delay_slow: ms(rng.between(20, 400)),
            fault_every: ms(rng.between(600, 4_000)),
            nuisance_every: ms(rng.between(60, 1_000)),
            trouble: ms(rng.between(8_000, 20_000)),
            limits: Limits {
                window,
                checkpoint_entries_max: rng.between(15, 150),
                checkpoint_bytes_max: 1 << 20,
                following: following(seed),
            },
            follows_writers: Rng::new(seed ^ FOLLOWS).permille(500),
            bug: None,
            planted: None,
            amnesia: false,
            reference_certifier: true,
        }
    }
}

/// Windows so short that few transactions are most of one.
fn following(seed: u64) -> Following {
    let mut rng = Rng::new(seed ^ FOLLOWS ^ 1);
    Following { window_ticks: rng.between(2, 12), least: rng.between(1, 6) }
}

/// A witness is the last node, a query-only one stands before it.
fn kinds(seed: u64, nodes: usize, has_witness: bool) -> Vec<NodeKind> {
    let mut rng = Rng::new(seed ^ 0x006b_696e_6473);
    let mut kinds = vec![NodeKind::Full; nodes];
    let (witness, query_only) = match nodes {
        3 => (rng.permille(250), rng.permille(150)),
        _ => (has_witness, rng.permille(400)),
    };
    match (witness, query_only && !(witness && nodes == 3)) {
        (true, true) => (kinds[nodes - 1], kinds[nodes - 2]) = (NodeKind::Witness, NodeKind::QueryOnly),
        (true, false) => kinds[nodes - 1] = NodeKind::Witness,
        (false, true) => kinds[nodes - 1] = NodeKind::QueryOnly,
        (false, false) => {}
    }
    kinds
}

fn settings(rng: &mut Rng, ahead: bool) -> Settings {
    Settings {
        clients: rng.between(2, 5) as u32,
        rows: rng.between(4, 24) as u32,
        things: rng.below(4) as u32,
        window: *rng.pick(&[8, 8, 16, 64, 256]),
        ring_bytes: *rng.pick(&[600, 1_500, 6_000]),
        commit_timeout: ms(*rng.pick(&[1_000, 3_000, 10_000])),
        reader_grace: ms(200),
        mistake: None,
        ambush_permille: rng.between(5, 40),
        ahead_permille: if ahead { AHEAD_PERMILLE } else { 0 },
    }
}

impl Plan {
    pub fn kind(&self, n: N) -> NodeKind {
        self.kinds[n.0]
    }

    pub fn has(&self, kind: NodeKind) -> bool {
        self.kinds.contains(&kind)
    }

    /// How many voters may be gone at once and leave a majority.
    pub fn may_be_lost(&self) -> usize {
        let voters = self.kinds.iter().filter(|kind| kind.may_vote()).count();
        voters.saturating_sub(1) / 2
    }

    /// The same, with some transactions applied ahead, or with none.
    pub fn with_ahead(self, ahead: bool) -> Plan {
        let ahead_permille = if ahead { AHEAD_PERMILLE } else { 0 };
        Plan { settings: Settings { ahead_permille, ..self.settings }, ..self }
    }

    /// The same with this mistake of the server.
    pub fn with_mistake(self, mistake: Mistake) -> Plan {
        Plan { settings: Settings { mistake: Some(mistake), ..self.settings }, ..self }
    }
}

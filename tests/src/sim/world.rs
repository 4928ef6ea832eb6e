//! The world: nodes, the network, time, and one event after another.
//!
//! - [`ahead`]: what is applied before it is submitted
//! - [`daemons`]: lives, clocks, writes and messages of daemons
//! - [`link`]: what goes on between a daemon and its PostgreSQL
//! - [`lockers`]: backends that use group locks
//! - [`membership`]: an operator, who takes members out and brings them back
//! - [`node`]: a node's disk, daemon and server
//! - [`reads`]: who asks up to where to read
//! - [`trouble`]: what goes wrong
//! - [`ending`]: when a run is over, and how it was

mod ahead;
mod daemons;
mod ending;
mod link;
mod locker;
mod lockers;
mod membership;
mod node;
mod operation;
mod reads;
mod trouble;

use std::cell::RefCell;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use gcs_core::{LogIndex, PeerMessage};
use gcs_writeset::NodeId;
use gcs_writeset::link::{AbortCause, Verdict};

use super::ahead::Word;
use super::check::{self, Invariant};
use super::disk::SimLog;
use super::fact::{Fact, N, View};
use super::net::Net;
use super::plan::Plan;
use super::platform;
use super::process::ground::ServerEvent;
use super::time::{Span, Time, ms};
use super::trace::Trace;
use super::wire::{ConnId, Down, Up};
use crate::rng::Rng;
use node::Node;
use operation::Operation;

/// After trouble ends, everything must be well within this span.
pub const HEALED_WITHIN: Span = ms(60_000);

pub enum Event {
    Tick(N, u64),
    Run(N, u64),
    Written(N, u64),
    Message {
        from: N,
        to: N,
        message: PeerMessage,
    },
    /// About what is to be applied ahead.
    Ahead {
        from: N,
        to: N,
        word: Box<Word>,
    },
    /// Daemons try to connect.
    Connect(N, N),
    /// A daemon notices that a peer is gone.
    Disconnect {
        at: N,
        life: u64,
        peer: N,
    },
    Down(N, u64, ConnId, Box<Down>),
    Up(N, u64, ConnId, Box<Up>),
    /// There may be room for more on a connection.
    Feed(N, u64, ConnId),
    AttachAgain(N, u64, ConnId),
    Server(N, u64, ServerEvent),
    StartDaemon(N),
    StartServer(N),
    Fault,
    Nuisance(N),
    /// The operator begins something.
    Operation,
    /// The operator looks how it goes.
    Operator,
}

struct Planned {
    at: Time,
    order: u64,
    event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Planned) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Planned) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    /// The earliest is the greatest, for the heap.
    fn cmp(&self, other: &Planned) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// Why a run failed.
#[derive(Clone, Debug)]
pub struct Failure {
    pub at: Time,
    pub invariant: &'static str,
    pub what: String,
}

/// What a run achieved.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub acknowledged: u64,
    pub failed: u64,
    pub unknown: u64,
    pub elsewhere: u64,
    pub faults: u64,
    pub events: u64,
    pub why_failed: BTreeMap<&'static str, u64>,
    /// How often each corner was reached that seeds must reach.
    pub corners: BTreeMap<&'static str, u64>,
}

pub struct World {
    pub plan: Plan,
    pub now: Time,
    pub rng: Rng,
    pub net: Net,
    pub nodes: Vec<Node>,
    pub trace: Trace,
    pub tally: Tally,
    calm_since: Option<Time>,
    events: BinaryHeap<Planned>,
    planned: u64,
    txns: u64,
    /// Questions of readers.
    questions: u64,
    /// Questions of those who want something applied ahead.
    errands: u64,
    /// What these, and the troubles of forerunners, draw from.
    ahead_chance: Rng,
    /// Connections of backends with locks.
    connections: u64,
    /// What they draw from.
    lockers_chance: Rng,
    facts: VecDeque<Fact>,
    checks: Vec<Box<dyn Invariant>>,
    failure: Option<Failure>,
    /// What the operator draws from: without one, a seed is the run that it was before there were any.
    operator: Rng,
    operations: BTreeMap<N, Operation>,
    wishes: u64,
    /// Who votes and, while two change, who did: by the version of the membership.
    votes: BTreeMap<u64, [Vec<NodeId>; 2]>,
    /// Entries, by their checksums, that a majority had flushed at some time.
    flushed: RefCell<BTreeMap<LogIndex, u32>>,
    /// Disks that were lost, and whose they were.
    lost: Vec<(NodeId, SimLog)>,
    /// Nodes that acknowledged a write since trouble ended.
    wrote_since: Vec<bool>,
}

impl World {
    pub fn new(plan: Plan, trace: Trace) -> World {
        platform::plant(plan.planted);
        let mut rng = Rng::new(plan.seed ^ 0x0077_6f72_6c64);
        let nodes = (0..plan.nodes).map(|i| Node::new(&plan, N(i), &mut rng)).collect();
        let mut world = World {
            net: Net::new(&plan),
            now: Time(0),
            nodes,
            trace,
            tally: Tally::default(),
            calm_since: None,
            events: BinaryHeap::new(),
            planned: 0,
            txns: 0,
            questions: 0,
            errands: 0,
            ahead_chance: Rng::new(plan.seed ^ 0x0061_6865_6164),
            connections: 0,
            lockers_chance: Rng::new(plan.seed ^ 0x006c_6f63_6b65),
            facts: VecDeque::new(),
            checks: check::all(plan.reference_certifier),
            failure: None,
            operator: Rng::new(plan.seed ^ 0x006f_7065_7261),
            operations: BTreeMap::new(),
            wishes: 0,
            votes: BTreeMap::new(),
            flushed: RefCell::default(),
            lost: Vec::new(),
            wrote_since: vec![false; plan.nodes],
            rng,
            plan,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for n in (0..self.plan.nodes).map(N) {
            let (daemon, postgres) = (ms(self.rng.below(500)), ms(self.rng.below(500)));
            self.later(daemon, Event::StartDaemon(n));
            self.later(postgres, Event::StartServer(n));
            self.later(ms(3_000), Event::Nuisance(n));
            for other in (0..n.0).map(N) {
                self.later(ms(100), Event::Connect(other, n));
            }
        }
        self.later(ms(3_000), Event::Fault);
        if self.plan.operator {
            self.later(ms(4_000), Event::Operation);
        }
    }

    /// Lives through trouble, then heals, and stops when all is well or something is broken.
    pub fn run(mut self) -> Result<Tally, Failure> {
        let healed = Time(0) + self.plan.trouble;
        let limit = healed + HEALED_WITHIN;
        while self.failure.is_none() {
            let Some(planned) = self.events.pop() else { break };
            self.now = planned.at;
            if self.calm_since.is_none() && self.now >= healed {
                self.heal();
            }
            if self.is_well() {
                self.finish();
                break;
            }
            if self.now > limit {
                self.fail("liveness", self.what_is_not_well());
                break;
            }
            self.tally.events += 1;
            self.handle(planned.event);
            self.check_facts();
        }
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(self.tally),
        }
    }

    pub fn later(&mut self, span: Span, event: Event) {
        self.at(self.now + span, event);
    }

    fn at(&mut self, at: Time, event: Event) {
        self.planned += 1;
        self.events.push(Planned { at, order: self.planned, event });
    }

    fn fail(&mut self, invariant: &'static str, what: String) {
        for node in self.nodes.iter().filter(|node| !node.is_witness() && self.failure.is_none()) {
            self.trace.line(self.now, format_args!("{}: {}", node.n.0, node.server.describe()));
        }
        self.trace.line(self.now, format_args!("FAILED {invariant}: {what}"));
        self.failure.get_or_insert(Failure { at: self.now, invariant, what });
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Tick(n, life) => self.tick(n, life),
            Event::Run(n, life) => self.run_daemon(n, life),
            Event::Written(n, life) => self.written(n, life),
            Event::Message { from, to, message } => self.message(from, to, message),
            Event::Ahead { from, to, word } => self.hear_ahead(from, to, *word),
            Event::Connect(a, b) => self.connect(a, b),
            Event::Disconnect { at, life, peer } => self.disconnect(at, life, peer),
            Event::Down(n, life, conn, down) => self.down(n, life, conn, *down),
            Event::Up(n, life, conn, up) => self.up(n, life, conn, *up),
            Event::Feed(n, life, conn) => self.feed_some(n, life, conn),
            Event::AttachAgain(n, life, conn) => {
                if self.nodes[n.0].daemon_life == life {
                    self.ask_to_attach(n, conn);
                }
            }
            Event::Server(n, life, event) => {
                if self.nodes[n.0].server_life == life && self.nodes[n.0].server.is_up {
                    self.with_server(n, |server, hand| server.handle(hand, event));
                }
            }
            Event::StartDaemon(n) => self.start_daemon(n),
            Event::StartServer(n) => self.start_server(n),
            Event::Fault => self.fault(),
            Event::Nuisance(n) => self.nuisance(n),
            Event::Operation => self.operation(),
            Event::Operator => self.operate(),
        }
    }

    fn heal(&mut self) {
        self.trace.line(self.now, format_args!("trouble ends"));
        self.calm_since = Some(self.now);
        self.net.heal();
        for n in (0..self.plan.nodes).map(N) {
            let now = self.now;
            self.nodes[n.0].slow_until = now;
            self.nodes[n.0].server.continue_all(now);
            self.nodes[n.0].server.be_calm();
            self.later(ms(10), Event::StartDaemon(n));
            self.later(ms(20), Event::StartServer(n));
        }
    }

    fn check_facts(&mut self) {
        while let Some(fact) = self.facts.pop_front() {
            self.note(&fact);
            let mut checks = std::mem::take(&mut self.checks);
            let by_majority = |index: LogIndex, on: N| self.flushed_by_majority(index, on);
            let (now, calm_since) = (self.now, self.calm_since);
            let commit_timeout = self.plan.settings.commit_timeout;
            let view = View { now, calm_since, commit_timeout, flushed_by_majority: &by_majority };
            let broken =
                checks.iter_mut().find_map(|check| check.observe(&fact, &view).err().map(|what| (check.name(), what)));
            if let Some((name, what)) = broken {
                self.fail(name, what);
            }
            self.checks = checks;
        }
    }

    /// Whether an entry is flushed at a majority of those who vote, or of those who did under some earlier membership: it is committed by
    /// whoever votes then. Once it was, it may be on fewer disks later.
    fn flushed_by_majority(&self, index: LogIndex, on: N) -> bool {
        let Some(data) = self.nodes[on.0].disk.0.borrow().data(index) else { return true };
        let checksum = crc32c::crc32c(&data);
        if self.flushed.borrow().get(&index) == Some(&checksum) {
            return true;
        }
        let holds = |id: &NodeId| {
            let node = self.nodes.iter().find(|node| node.id == *id);
            // What it said of a disk that is lost was true, and may only be heard now.
            let lost = self.lost.iter().find(|(of, _)| of == id).map(|(_, disk)| disk);
            let mut disks = node.map(|node| &node.disk).into_iter().chain(lost);
            disks.any(|disk| disk.0.borrow().flushed().holds(index, &data))
        };
        let majority = |half: &Vec<NodeId>| half.iter().filter(|id| holds(id)).count() > half.len() / 2;
        let is_flushed = self.votes.values().rev().any(|halves| halves.iter().filter(|half| !half.is_empty()).all(majority));
        if is_flushed {
            self.flushed.borrow_mut().insert(index, checksum);
        }
        is_flushed
    }

    fn note(&mut self, fact: &Fact) {
        match fact {
            Fact::Ticked { .. } | Fact::Ordered { .. } | Fact::Checkpointed { .. } | Fact::Gate { .. } => return,
            Fact::Acknowledged { node, .. } => {
                self.tally.acknowledged += 1;
                self.wrote_since[node.0] |= self.calm_since.is_some();
            }
            Fact::Failed { why, .. } => {
                self.tally.failed += 1;
                *self.tally.why_failed.entry(why).or_default() += 1;
            }
            Fact::Unknown { node, .. } => {
                self.tally.unknown += 1;
                self.end_lockers(*node);
            }
            Fact::CommittedElsewhere { .. } => self.tally.elsewhere += 1,
            Fact::Corner { what, .. } => *self.tally.corners.entry(what).or_default() += 1,
            Fact::SentAgain { .. } => *self.tally.corners.entry("a submission was sent again").or_default() += 1,
            Fact::RefusedWrite { .. } => *self.tally.corners.entry("a minority refused a write").or_default() += 1,
            Fact::Delivered { node, delivery } => {
                let (position, verdict) = (delivery.outcome.position, delivery.outcome.verdict);
                let tag = delivery.tag;
                let corners = &mut self.tally.corners;
                *corners.entry("a writeset came in chunks").or_default() += u64::from(!delivery.outcome.chunks.is_empty());
                let corner = match verdict {
                    Verdict::Certified { .. } => "a writeset was certified",
                    Verdict::Aborted(AbortCause::Conflict { .. }) => "a writeset lost",
                    Verdict::Aborted(AbortCause::BelowHorizon { .. }) => "a base was below the horizon",
                    Verdict::Aborted(AbortCause::Malformed) => "a writeset was malformed",
                    Verdict::Aborted(
                        AbortCause::Prepared { .. }
                        | AbortCause::NotPrepared
                        | AbortCause::AlreadyPrepared
                        | AbortCause::TooManyPrepared,
                    ) => "a writeset met a prepared transaction",
                    Verdict::Aborted(AbortCause::LocksLost) => "a session that had lost its locks was refused",
                    Verdict::Aborted(_) => "a token was refused",
                };
                *corners.entry(corner).or_default() += 1;
                return self.trace.line(self.now, format_args!("{} delivered {position} {tag} {verdict:?}", node.0));
            }
            _ => {}
        }
        self.trace.line(self.now, format_args!("{fact:?}"));
    }
}

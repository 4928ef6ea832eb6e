//! The world: nodes, the network, time, and one event after another.
//!
//! - [`daemons`]: lives, clocks, writes and messages of daemons
//! - [`link`]: what goes on between a daemon and its PostgreSQL
//! - [`ending`]: when a run is over, and how it was

mod daemons;
mod ending;
mod link;

use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use gcs_core::{LogIndex, PeerMessage};
use gcs_writeset::NodeId;
use gcs_writeset::link::{AbortCause, Verdict};

use super::check::{self, Invariant};
use super::daemon::Daemon;
use super::disk::SimLog;
use super::fact::{Fact, N, View};
use super::faults::{self, Fault};
use super::net::Net;
use super::plan::Plan;
use super::postgres::{Down, PgEvent, Postgres, Up};
use super::time::{Span, Time, ms, us};
use super::trace::Trace;
use crate::rng::Rng;

/// After trouble ends, everything must be well within this span.
pub const HEALED_WITHIN: Span = ms(60_000);

pub struct Node {
    pub n: N,
    pub id: NodeId,
    pub disk: SimLog,
    pub daemon: Option<Daemon>,
    /// Counts lives, so that what was meant for an earlier one is dropped.
    pub daemon_life: u64,
    pub postgres: Postgres,
    pub postgres_life: u64,
    /// Counts connections between the two.
    pub link: u64,
    /// A witness has no PostgreSQL once it has said so: then it is retired.
    pub witness: bool,
    retired: bool,
    /// It has said so and waits for the answer.
    leaving: bool,
    pub slow_until: Time,
    tick_span: Span,
    /// When the last message on the link arrives: the link keeps order.
    down_until: Time,
    up_until: Time,
}

pub enum Event {
    Tick(N, u64),
    Run(N, u64),
    Written(N, u64),
    Message {
        from: N,
        to: N,
        message: PeerMessage,
    },
    /// Daemons try to connect.
    Connect(N, N),
    /// A daemon notices that a peer is gone.
    Disconnect {
        at: N,
        life: u64,
        peer: N,
    },
    Down(N, u64, Box<Down>),
    Up(N, u64, Box<Up>),
    Postgres(N, u64, PgEvent),
    LinkUp(N, u64),
    StartDaemon(N),
    StartPostgres(N),
    Fault,
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
    calm: bool,
    events: BinaryHeap<Planned>,
    planned: u64,
    txns: u64,
    facts: VecDeque<Fact>,
    checks: Vec<Box<dyn Invariant>>,
    failure: Option<Failure>,
    /// Nodes that acknowledged a write since trouble ended.
    wrote_since: Vec<bool>,
}

impl World {
    pub fn new(plan: Plan, keep_trace: bool) -> World {
        let mut rng = Rng::new(plan.seed ^ 0x0077_6f72_6c64);
        let nodes = (0..plan.nodes).map(|i| new_node(&plan, N(i), &mut rng)).collect();
        let mut world = World {
            net: Net::new(&plan),
            now: Time(0),
            nodes,
            trace: Trace::new(keep_trace),
            tally: Tally::default(),
            calm: false,
            events: BinaryHeap::new(),
            planned: 0,
            txns: 0,
            facts: VecDeque::new(),
            checks: check::all(plan.reference_certifier),
            failure: None,
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
            self.later(postgres, Event::StartPostgres(n));
            for other in (0..n.0).map(N) {
                self.later(ms(100), Event::Connect(other, n));
            }
        }
        self.later(ms(3_000), Event::Fault);
    }

    /// Lives through trouble, then heals, and stops when all is well or something is broken.
    pub fn run(mut self) -> (Result<Tally, Failure>, Trace) {
        let healed = Time(0) + self.plan.trouble;
        let limit = healed + HEALED_WITHIN;
        while self.failure.is_none() {
            let Some(planned) = self.events.pop() else { break };
            self.now = planned.at;
            if !self.calm && self.now >= healed {
                self.heal();
            }
            if self.calm && self.is_well() {
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
        let result = match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(self.tally),
        };
        (result, self.trace)
    }

    pub fn later(&mut self, span: Span, event: Event) {
        self.at(self.now + span, event);
    }

    fn at(&mut self, at: Time, event: Event) {
        self.planned += 1;
        self.events.push(Planned { at, order: self.planned, event });
    }

    fn fail(&mut self, invariant: &'static str, what: String) {
        self.trace.line(self.now, format_args!("FAILED {invariant}: {what}"));
        self.failure.get_or_insert(Failure { at: self.now, invariant, what });
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Tick(n, life) => self.tick(n, life),
            Event::Run(n, life) => self.run_daemon(n, life),
            Event::Written(n, life) => self.written(n, life),
            Event::Message { from, to, message } => self.message(from, to, message),
            Event::Connect(a, b) => self.connect(a, b),
            Event::Disconnect { at, life, peer } => self.disconnect(at, life, peer),
            Event::Down(n, link, down) => self.down(n, link, *down),
            Event::Up(n, link, up) => self.up(n, link, *up),
            Event::Postgres(n, life, event) => {
                if self.nodes[n.0].postgres_life == life && self.nodes[n.0].postgres.up {
                    self.with_postgres(n, |postgres, ctx| postgres.handle(ctx, event));
                }
            }
            Event::LinkUp(n, link) => self.link_up(n, link),
            Event::StartDaemon(n) => self.start_daemon(n),
            Event::StartPostgres(n) => self.start_postgres(n),
            Event::Fault => self.fault(),
        }
    }

    pub fn crash_daemon(&mut self, n: N) {
        if self.nodes[n.0].daemon.take().is_none() {
            return;
        }
        self.trace.line(self.now, format_args!("{} daemon dies", n.0));
        let node = &mut self.nodes[n.0];
        node.daemon_life += 1;
        node.leaving = false;
        node.link += 1;
        node.disk.0.borrow_mut().crash(&mut self.rng);
        node.postgres.link_down();
        for other in (0..self.plan.nodes).map(N).filter(|other| *other != n) {
            self.break_connection(n, other, ms(60));
        }
    }

    pub fn crash_postgres(&mut self, n: N) {
        if !self.nodes[n.0].postgres.up {
            return;
        }
        self.trace.line(self.now, format_args!("{} postgres dies", n.0));
        self.with_postgres(n, |postgres, ctx| postgres.crash(ctx));
        let node = &mut self.nodes[n.0];
        node.postgres_life += 1;
        node.link += 1;
        if let Some(daemon) = &mut node.daemon {
            daemon.stream = None;
            daemon.asked = None;
        }
    }

    fn fault(&mut self) {
        if self.calm {
            return;
        }
        self.net.forget_old(self.now);
        self.tally.faults += 1;
        let fault = Fault::random(&mut self.rng, self.plan.nodes, self.plan.witness);
        self.trace.line(self.now, format_args!("fault {fault:?}"));
        faults::inflict(self, fault);
        let span = us(self.rng.between(self.plan.fault_every.0 / 3, self.plan.fault_every.0 * 2));
        self.later(span, Event::Fault);
    }

    fn heal(&mut self) {
        self.trace.line(self.now, format_args!("trouble ends"));
        self.calm = true;
        self.net.heal();
        for n in (0..self.plan.nodes).map(N) {
            self.nodes[n.0].slow_until = self.now;
            self.later(ms(10), Event::StartDaemon(n));
            self.later(ms(20), Event::StartPostgres(n));
        }
    }

    fn check_facts(&mut self) {
        while let Some(fact) = self.facts.pop_front() {
            self.note(&fact);
            let mut checks = std::mem::take(&mut self.checks);
            let nodes = &self.nodes;
            let flushed = |at: N, index: LogIndex, on: N| {
                let data = nodes[on.0].disk.0.borrow().data(index);
                data.is_none_or(|data| nodes[at.0].disk.0.borrow().flushed().holds(index, &data))
            };
            let view = View { now: self.now, nodes: self.plan.nodes, flushed: &flushed };
            let broken =
                checks.iter_mut().find_map(|check| check.observe(&fact, &view).err().map(|what| (check.name(), what)));
            if let Some((name, what)) = broken {
                self.fail(name, what);
            }
            self.checks = checks;
        }
    }

    fn note(&mut self, fact: &Fact) {
        match fact {
            Fact::Ticked { .. } | Fact::Ordered { .. } | Fact::Checkpointed { .. } => return,
            Fact::Acknowledged { node, .. } => {
                self.tally.acknowledged += 1;
                self.wrote_since[node.0] |= self.calm;
            }
            Fact::Failed { why, .. } => {
                self.tally.failed += 1;
                *self.tally.why_failed.entry(why).or_default() += 1;
            }
            Fact::Unknown { .. } => self.tally.unknown += 1,
            Fact::GaveWay { .. } => *self.tally.corners.entry("a certified backend gave way").or_default() += 1,
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

fn new_node(plan: &Plan, n: N, rng: &mut Rng) -> Node {
    let id = NodeId::of_name(&format!("n{}", n.0));
    Node {
        n,
        id,
        disk: SimLog::default(),
        daemon: None,
        daemon_life: 0,
        postgres: Postgres::new(n, id, plan.clients_per_node, plan.rows, plan.mistake),
        postgres_life: 0,
        link: 0,
        witness: plan.witness && n.0 + 1 == plan.nodes,
        retired: false,
        leaving: false,
        slow_until: Time(0),
        tick_span: ms(rng.between(95, 105)),
        down_until: Time(0),
        up_until: Time(0),
    }
}

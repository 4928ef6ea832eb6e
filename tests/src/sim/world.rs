//! The world: nodes, the network, time, and one event after another.

use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use gcs_core::{Core, CoreConfig, Effects, Input, Local, LocalReply, LogIndex, Member, PeerMessage};
use gcs_writeset::link::{AbortCause, Verdict};
use gcs_writeset::{NodeId, Position};

use super::check::{self, Invariant};
use super::daemon::{Daemon, read_delivery};
use super::disk::SimLog;
use super::fact::{Fact, N, View};
use super::faults::{self, Fault};
use super::net::Net;
use super::plan::Plan;
use super::postgres::{Action, Ctx, Down, PgEvent, Postgres, Up};
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

    // Daemons.

    fn start_daemon(&mut self, n: N) {
        if self.nodes[n.0].daemon.is_some() {
            return;
        }
        let config = self.config(n);
        let node = &self.nodes[n.0];
        let recovered = node.disk.0.borrow().recovered();
        match Core::with_limits(config, node.disk.clone(), recovered, self.plan.limits) {
            Ok(mut core) => {
                if let Some(bug) = self.plan.bug {
                    core.plant(bug);
                }
                self.trace.line(self.now, format_args!("{} daemon starts, applied {}", n.0, core.applied().0));
                self.nodes[n.0].daemon = Some(Daemon::new(core));
            }
            Err(error) => return self.fail("recovery", format!("node {}: {error}", n.0)),
        }
        let node = &mut self.nodes[n.0];
        node.daemon_life += 1;
        let (life, span) = (node.daemon_life, node.tick_span);
        self.later(span, Event::Tick(n, life));
        self.open_link(n);
    }

    fn config(&self, n: N) -> CoreConfig {
        let members = self.nodes.iter().map(|node| Member {
            node: node.id,
            name: format!("n{}", node.n.0),
            address: format!("n{}:1", node.n.0),
        });
        CoreConfig {
            group: "postgresr".into(),
            node: self.nodes[n.0].id,
            members: members.collect(),
            seed: self.plan.seed ^ self.nodes[n.0].daemon_life,
        }
    }

    fn tick(&mut self, n: N, life: u64) {
        let node = &mut self.nodes[n.0];
        let Some(daemon) = node.daemon.as_mut().filter(|_| node.daemon_life == life) else { return };
        daemon.now.0 += 1;
        let span = node.tick_span;
        let quorum = daemon.core.status(None).quorum;
        self.later(span, Event::Tick(n, life));
        self.give(n, Input::Tick);
        let in_touch = self.in_touch(n);
        self.facts.push_back(Fact::Ticked { node: n, quorum, in_touch });
    }

    /// Whether a node could, since its last tick, exchange messages with one (maybe itself) that can do so with enough others to make a majority.
    fn in_touch(&self, n: N) -> bool {
        let since = Time(self.now.0.saturating_sub(self.nodes[n.0].tick_span.0));
        let touches = |a: N, b: N| {
            self.nodes[b.0].daemon.is_some()
                && (a == b || self.net.passed(a, b, since, self.now) && self.net.passed(b, a, since, self.now))
        };
        let all = || (0..self.plan.nodes).map(N);
        all().any(|m| touches(n, m) && all().filter(|other| touches(m, *other)).count() > self.plan.nodes / 2)
    }

    pub fn give(&mut self, n: N, input: Input) {
        let node = &mut self.nodes[n.0];
        let Some(daemon) = &mut node.daemon else { return };
        daemon.inbox.push(input);
        if !daemon.awake && daemon.writing.is_none() {
            daemon.awake = true;
            let (life, span) = (node.daemon_life, us(self.rng.between(0, 200)));
            self.later(span, Event::Run(n, life));
        }
    }

    fn run_daemon(&mut self, n: N, life: u64) {
        let node = &mut self.nodes[n.0];
        let Some(daemon) = node.daemon.as_mut().filter(|_| node.daemon_life == life) else { return };
        daemon.awake = false;
        if daemon.writing.is_some() {
            return;
        }
        let inputs = std::mem::take(&mut daemon.inbox);
        self.step(n, inputs);
    }

    fn step(&mut self, n: N, inputs: Vec<Input>) {
        let node = &mut self.nodes[n.0];
        let Some(daemon) = &mut node.daemon else { return };
        let mut effects = match daemon.core.step(daemon.now, inputs) {
            Ok(effects) => effects,
            Err(error) => return self.fail("core", format!("node {}: {error}", n.0)),
        };
        let sends = std::mem::take(&mut effects.send_now);
        if let Some(status) = effects.status.take()
            && daemon.quorum != status.quorum
        {
            daemon.quorum = status.quorum;
            self.send_down(n, Down::Quorum(status.quorum));
        }
        self.send(n, sends);
        match &effects.write {
            Some(write) => {
                let span = self.write_span(n, write.sync);
                let node = &mut self.nodes[n.0];
                let life = node.daemon_life;
                if let Some(daemon) = &mut node.daemon {
                    daemon.writing = Some(effects);
                }
                self.later(span, Event::Written(n, life));
            }
            None => self.after_write(n, effects),
        }
    }

    fn write_span(&mut self, n: N, sync: bool) -> Span {
        let slow = self.now < self.nodes[n.0].slow_until;
        match (sync, slow) {
            (false, _) => us(self.rng.between(1, 30)),
            (true, false) => us(self.rng.between(50, 2_000)),
            (true, true) => ms(self.rng.between(20, 400)),
        }
    }

    fn written(&mut self, n: N, life: u64) {
        let node = &mut self.nodes[n.0];
        let Some(daemon) = node.daemon.as_mut().filter(|_| node.daemon_life == life) else { return };
        let Some(mut effects) = daemon.writing.take() else { return };
        let Some(write) = effects.write.take() else { return };
        let number = write.number;
        let corners = &mut self.tally.corners;
        if let Some(checkpoint) = &write.checkpoint {
            let (index, checksum) = (checkpoint.index, crc32c::crc32c(&checkpoint.state));
            self.facts.push_back(Fact::Checkpointed { node: n, index, checksum });
        }
        if let (Some(checkpoint), Some(cut)) = (&write.checkpoint, write.truncate_to) {
            let (upto, cut) = (checkpoint.index.0, cut.0);
            self.trace.line(self.now, format_args!("{} checkpoint {upto}, cuts the log to {cut}", n.0));
        }
        for (corner, reached) in [
            ("a snapshot was installed", write.install.is_some()),
            ("a checkpoint was written", write.checkpoint.is_some()),
            ("the log was cut", write.truncate_to.is_some()),
        ] {
            *corners.entry(corner).or_default() += u64::from(reached);
        }
        node.disk.0.borrow_mut().write(write);
        self.after_write(n, effects);
        self.step(n, vec![Input::Written(number)]);
        let node = &mut self.nodes[n.0];
        if let Some(daemon) = &mut node.daemon
            && daemon.writing.is_none()
            && !daemon.inbox.is_empty()
            && !daemon.awake
        {
            daemon.awake = true;
            self.later(us(0), Event::Run(n, life));
        }
    }

    /// What a step wants done once its write is done.
    fn after_write(&mut self, n: N, effects: Effects) {
        self.send(n, effects.send_after_write);
        for ordered in effects.ordered {
            let (tag, outcome) = (ordered.tag, ordered.outcome);
            self.facts.push_back(Fact::Ordered { node: n, tag, outcome });
        }
        self.hand_on(n, effects.replies);
    }

    fn send(&mut self, n: N, messages: Vec<(NodeId, PeerMessage)>) {
        for (to, message) in messages {
            let Some(to) = self.nodes.iter().find(|node| node.id == to).map(|node| node.n) else { continue };
            for span in self.net.delays(&mut self.rng) {
                self.later(span, Event::Message { from: n, to, message: message.clone() });
            }
        }
    }

    fn message(&mut self, from: N, to: N, message: PeerMessage) {
        let from_id = self.nodes[from.0].id;
        let known = self.nodes[to.0].daemon.as_ref().is_some_and(|daemon| daemon.peers.contains(&from_id));
        if known && self.net.passes(from, to, self.now) {
            self.give(to, Input::Peer { from: from_id, message });
        }
    }

    fn connect(&mut self, a: N, b: N) {
        let span = ms(self.rng.between(50, 250));
        self.later(span, Event::Connect(a, b));
        let possible = self.nodes[a.0].daemon.is_some()
            && self.nodes[b.0].daemon.is_some()
            && self.net.passes(a, b, self.now)
            && self.net.passes(b, a, self.now);
        if possible {
            self.peer_up(a, b);
            self.peer_up(b, a);
        }
    }

    fn peer_up(&mut self, at: N, peer: N) {
        let peer_id = self.nodes[peer.0].id;
        if let Some(daemon) = &mut self.nodes[at.0].daemon
            && !daemon.peers.contains(&peer_id)
        {
            daemon.peers.push(peer_id);
            self.give(at, Input::PeerUp(peer_id));
        }
    }

    fn disconnect(&mut self, at: N, life: u64, peer: N) {
        let peer_id = self.nodes[peer.0].id;
        let node = &mut self.nodes[at.0];
        let Some(daemon) = node.daemon.as_mut().filter(|_| node.daemon_life == life) else { return };
        if daemon.peers.contains(&peer_id) {
            daemon.peers.retain(|id| *id != peer_id);
            self.give(at, Input::PeerDown(peer_id));
        }
    }

    /// Both ends of a connection learn, some time soon, that it is gone.
    pub fn break_connection(&mut self, a: N, b: N, within: Span) {
        for (at, peer) in [(a, b), (b, a)] {
            let (life, span) = (self.nodes[at.0].daemon_life, us(self.rng.below(within.0.max(1))));
            self.later(span, Event::Disconnect { at, life, peer });
        }
    }

    // The link between a daemon and its PostgreSQL.

    fn open_link(&mut self, n: N) {
        let node = &mut self.nodes[n.0];
        node.link += 1;
        let link = node.link;
        node.down_until = self.now;
        node.up_until = self.now;
        if node.daemon.is_some() && node.postgres.up {
            self.later(ms(self.rng.clone().between(1, 30)), Event::LinkUp(n, link));
        }
    }

    fn link_up(&mut self, n: N, link: u64) {
        let node = &self.nodes[n.0];
        if node.link != link || node.daemon.is_none() || !node.postgres.up {
            return;
        }
        let quorum = node.daemon.as_ref().is_some_and(|daemon| daemon.quorum);
        self.send_down(n, Down::Quorum(quorum));
        self.with_postgres(n, |postgres, ctx| postgres.link_up(ctx));
    }

    fn send_down(&mut self, n: N, down: Down) {
        let span = us(self.rng.between(5, 100));
        let node = &mut self.nodes[n.0];
        node.down_until = node.down_until.max(self.now + span);
        let (at, link) = (node.down_until, node.link);
        self.at(at, Event::Down(n, link, Box::new(down)));
    }

    fn down(&mut self, n: N, link: u64, down: Down) {
        if self.nodes[n.0].link == link && self.nodes[n.0].postgres.up {
            if self.nodes[n.0].witness {
                return self.witness(n, &down);
            }
            self.with_postgres(n, |postgres, ctx| postgres.receive(ctx, down));
        }
    }

    /// A witness attaches once, to say that it takes no part.
    fn witness(&mut self, n: N, down: &Down) {
        match down {
            Down::Reply(LocalReply::Attached { database, .. }) => {
                let database = *database;
                self.nodes[n.0].leaving = true;
                self.give(n, Input::Local(Local::Detach { database }));
            }
            Down::Reply(LocalReply::Detached { .. }) => {
                self.trace.line(self.now, format_args!("{} is a witness", n.0));
                let node = &mut self.nodes[n.0];
                node.postgres.up = false;
                node.retired = true;
                node.postgres_life += 1;
                node.link += 1;
                if let Some(daemon) = &mut node.daemon {
                    daemon.stream = None;
                }
            }
            Down::Reply(LocalReply::AttachRefused { .. }) => {
                self.nodes[n.0].leaving = false;
                self.with_postgres(n, |postgres, ctx| postgres.link_up(ctx));
            }
            _ => {}
        }
    }

    fn up(&mut self, n: N, link: u64, up: Up) {
        if self.nodes[n.0].link != link {
            return;
        }
        match up {
            Up::Attach { .. } if self.nodes[n.0].leaving => {}
            Up::Attach { incarnation, resume_after } => {
                if let Some(daemon) = &mut self.nodes[n.0].daemon {
                    daemon.stream = None;
                    daemon.asked = Some((incarnation, resume_after));
                }
                self.give(n, Input::Local(Local::Attach { database: "shop".into(), incarnation }));
            }
            Up::Local(local) => self.give(n, Input::Local(local)),
        }
    }

    /// Answers and newly ordered positions go to PostgreSQL.
    fn hand_on(&mut self, n: N, replies: Vec<LocalReply>) {
        for reply in replies {
            if let Some(daemon) = &mut self.nodes[n.0].daemon {
                daemon.attached(&reply);
            }
            self.send_down(n, Down::Reply(reply));
        }
        self.pump(n);
    }

    /// Gives PostgreSQL every position that it has not been given.
    fn pump(&mut self, n: N) {
        loop {
            let node = &mut self.nodes[n.0];
            let Some(daemon) = &mut node.daemon else { return };
            let Some(stream) = &mut daemon.stream else { return };
            let head = daemon.core.state().database(stream.database).map_or(Position::ZERO, |db| db.head);
            if stream.next > head {
                return;
            }
            let Some(delivery) = read_delivery(&node.disk.0.borrow(), stream.database, stream.next) else {
                let after = stream.next.previous();
                self.facts.push_back(Fact::LogTooShort { node: n, after });
                return;
            };
            stream.next = stream.next.next();
            self.send_down(n, Down::Delivery(delivery));
        }
    }

    // PostgreSQL.

    pub fn with_postgres(&mut self, n: N, act: impl FnOnce(&mut Postgres, &mut Ctx<'_>)) {
        let mut out = Vec::new();
        let mut ctx = Ctx { now: self.now, rng: &mut self.rng, txns: &mut self.txns, out: &mut out };
        act(&mut self.nodes[n.0].postgres, &mut ctx);
        let life = self.nodes[n.0].postgres_life;
        for action in out {
            match action {
                Action::Later(span, event) => self.later(span, Event::Postgres(n, life, event)),
                Action::Fact(fact) => self.facts.push_back(fact),
                Action::Up(up) => {
                    let span = us(self.rng.between(5, 100));
                    let node = &mut self.nodes[n.0];
                    node.up_until = node.up_until.max(self.now + span);
                    let (at, link) = (node.up_until, node.link);
                    self.at(at, Event::Up(n, link, Box::new(up)));
                }
            }
        }
    }

    fn start_postgres(&mut self, n: N) {
        if !self.nodes[n.0].postgres.up && !self.nodes[n.0].retired {
            self.trace.line(self.now, format_args!("{} postgres starts", n.0));
            self.nodes[n.0].postgres_life += 1;
            self.with_postgres(n, |postgres, ctx| postgres.start(ctx));
            self.open_link(n);
        }
    }

    // Trouble.

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

    // The end.

    fn is_well(&mut self) -> bool {
        let members: Vec<usize> = (0..self.plan.nodes).filter(|i| !self.nodes[*i].witness).collect();
        if !members.iter().all(|i| self.wrote_since[*i]) {
            return false;
        }
        for i in &members {
            self.nodes[*i].postgres.quiet = true;
        }
        let heads: Vec<Option<Position>> = self.nodes.iter().map(|node| self.head(node)).collect();
        members.iter().all(|i| {
            let postgres = &self.nodes[*i].postgres;
            postgres.up && postgres.is_idle() && heads.iter().all(|head| *head == Some(postgres.committed()))
        })
    }

    fn head(&self, node: &Node) -> Option<Position> {
        let state = node.daemon.as_ref()?.core.state();
        state.databases.values().map(|database| database.head).max()
    }

    fn what_is_not_well(&self) -> String {
        let mut what = format!("not well {} s after trouble ended:", HEALED_WITHIN.0 / 1_000_000);
        for node in &self.nodes {
            let status = node.daemon.as_ref().map(|daemon| daemon.core.status(None));
            what += &format!(
                " [node {}: wrote {}, committed {}, received {}, idle {}, head {:?}, leader {:?}, quorum {:?}]",
                node.n.0,
                self.wrote_since[node.n.0],
                node.postgres.committed(),
                node.postgres.received(),
                node.postgres.is_idle(),
                self.head(node),
                status.as_ref().and_then(|status| status.leader),
                status.as_ref().map(|status| status.quorum),
            );
        }
        what
    }

    fn finish(&mut self) {
        for i in 0..self.plan.nodes {
            if !self.nodes[i].witness {
                let postgres = &self.nodes[i].postgres;
                let (committed, rows) = (postgres.committed(), postgres.snapshot());
                self.facts.push_back(Fact::Final { node: N(i), committed, rows });
            }
        }
        self.check_facts();
        let mut checks = std::mem::take(&mut self.checks);
        for check in &mut checks {
            if let Err(what) = check.end() {
                self.fail(check.name(), what);
            }
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
        postgres: Postgres::new(n, id, plan.clients_per_node, plan.rows),
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

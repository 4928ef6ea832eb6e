//! Daemons: their lives, their clocks, their writes, the messages between them.

use gcs_core::{Core, CoreConfig, Detector, Effects, Format, Founder, Input, PeerMessage};
use gcs_writeset::NodeId;
use gcs_writeset::writeset::Envelope;

use super::{Event, World};
use crate::rng::Rng;
use crate::sim::daemon::Daemon;
use crate::sim::fact::{Fact, N};
use crate::sim::time::{Span, Time, ms, us};

impl World {
    pub(super) fn start_daemon(&mut self, n: N) {
        if self.nodes[n.0].daemon.is_some() || !self.has_machine(n) {
            return;
        }
        self.upgrade(n);
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
        self.nodes[n.0].server.daemon_is_there(true);
    }

    /// Whoever starts a daemon may have installed a newer release. The first ones are older, and an older one never comes back.
    fn upgrade(&mut self, n: N) {
        let node = &mut self.nodes[n.0];
        let mut chance = Rng::new(self.plan.seed ^ (n.0 as u64) << 32 ^ node.daemon_life);
        if self.plan.upgrades && node.daemon_life > 0 && chance.permille(500) {
            node.reads = Format::NEWEST;
        }
    }

    pub(super) fn config(&self, n: N) -> CoreConfig {
        let founders = (0..self.plan.nodes).map(|i| {
            let name = format!("n{i}");
            Founder { node: NodeId::of_name(&name), address: format!("{name}:1"), name, kind: self.plan.kind(N(i)) }
        });
        let node = &self.nodes[n.0];
        CoreConfig {
            group: "postgresr".into(),
            node: node.id,
            address: format!("n{}:1", n.0),
            directory: node.directory,
            founders: founders.collect(),
            reads: node.reads,
            seed: self.plan.seed ^ node.daemon_life,
            detector: Detector::LAN,
            follows_writers: self.plan.follows_writers,
        }
    }

    pub(super) fn tick(&mut self, n: N, life: u64) {
        let node = &mut self.nodes[n.0];
        let Some(daemon) = node.daemon.as_mut().filter(|_| node.daemon_life == life) else { return };
        daemon.now.0 += 1;
        let span = node.tick_span;
        let status = daemon.core.status(None);
        let (quorum, leads) = (status.quorum, status.leader == Some(node.id));
        self.later(span, Event::Tick(n, life));
        if leads && self.nodes[n.0].is_witness() {
            self.corner("a witness led");
        }
        self.give(n, Input::Tick);
        self.ask_where_to_read(n);
        self.use_locks(n);
        self.forget_waiting(n);
        let in_touch = self.in_touch(n);
        let touched = (0..self.plan.nodes).map(N).filter(|other| *other != n && self.touches(n, *other)).collect();
        self.facts.push_back(Fact::Ticked { node: n, quorum, in_touch, touched });
        if !self.nodes[n.0].is_witness() {
            let gate = self.nodes[n.0].server.gate(self.now);
            self.facts.push_back(gate);
        }
    }

    /// Whether two nodes, or a node and itself, could exchange messages since the last tick of the first.
    fn touches(&self, a: N, b: N) -> bool {
        self.touches_since(self.last_tick(a), a, b)
    }

    fn touches_since(&self, since: Time, a: N, b: N) -> bool {
        let passed = |from, to| self.net.passed(from, to, since, self.now);
        self.nodes[b.0].daemon.is_some() && (a == b || passed(a, b) && passed(b, a))
    }

    fn last_tick(&self, n: N) -> Time {
        Time(self.now.0.saturating_sub(self.nodes[n.0].tick_span.0))
    }

    /// Whether a node could, since its last tick, exchange messages with one (maybe itself) that can do so with enough others to make a majority.
    pub(super) fn in_touch(&self, n: N) -> bool {
        let since = self.last_tick(n);
        let node_of = |id: &NodeId| self.nodes.iter().find(|node| node.id == *id).map(|node| node.n);
        let touched = |m: N, half: &Vec<NodeId>| {
            half.iter().filter(|id| node_of(id).is_some_and(|other| self.touches_since(since, m, other))).count()
                > half.len() / 2
        };
        // By the votes as they are now, or as the node knows them.
        let known = self.nodes[n.0].daemon.as_ref().map(|daemon| daemon.core.state().membership.voters().into());
        let newest = self.votes.last_key_value().map(|(_, votes)| votes.clone());
        known.into_iter().chain(newest).any(|votes: [Vec<NodeId>; 2]| {
            let mut leaders = (0..self.plan.nodes).map(N).filter(|m| self.touches(n, *m));
            leaders.any(|m| votes.iter().filter(|half| !half.is_empty()).all(|half| touched(m, half)))
        })
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

    pub(super) fn run_daemon(&mut self, n: N, life: u64) {
        let node = &mut self.nodes[n.0];
        let Some(daemon) = node.daemon.as_mut().filter(|_| node.daemon_life == life) else { return };
        daemon.awake = false;
        if daemon.writing.is_some() {
            return;
        }
        let inputs = std::mem::take(&mut daemon.inbox);
        self.step(n, inputs);
    }

    pub(super) fn step(&mut self, n: N, inputs: Vec<Input>) {
        let node = &mut self.nodes[n.0];
        let Some(daemon) = &mut node.daemon else { return };
        let mut effects = match daemon.core.step(daemon.now, inputs) {
            Ok(effects) => effects,
            Err(error) => return self.fail("core", format!("node {}: {error}", n.0)),
        };
        let sends = std::mem::take(&mut effects.send_now);
        let membership = effects.membership.take();
        let has_news = effects.status.take().is_some_and(|status| {
            let before = std::mem::replace(&mut daemon.quorum, status.quorum);
            before != status.quorum
        });
        if effects.goes_to_writers.is_some() {
            self.corner("the leader went where most is written");
        }
        if has_news {
            self.tell_status(n);
        }
        if let Some(membership) = membership {
            self.follow_membership(n, &membership);
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

    pub(super) fn write_span(&mut self, n: N, sync: bool) -> Span {
        let slow = self.now < self.nodes[n.0].slow_until;
        match (sync, slow) {
            (false, _) => us(self.rng.between(1, 30)),
            (true, false) => us(self.rng.between(50, 2_000)),
            (true, true) => ms(self.rng.between(20, 400)),
        }
    }

    pub(super) fn written(&mut self, n: N, life: u64) {
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
    pub(super) fn after_write(&mut self, n: N, effects: Effects) {
        self.send(n, effects.send_after_write);
        for ordered in effects.ordered {
            let (tag, outcome) = (ordered.tag, ordered.outcome);
            let holder = Envelope::decode(&ordered.writeset).ok().and_then(|(envelope, _)| envelope.holder);
            if let Some(daemon) = &mut self.nodes[n.0].daemon {
                daemon.head = daemon.head.max(outcome.position);
            }
            self.facts.push_back(Fact::Ordered { node: n, tag, outcome, holder });
            self.transaction_of_locker_decided(n, tag.node, holder);
            self.ordered_ahead(n, tag);
        }
        self.follow_ahead(n);
        self.hand_on(n, effects.replies);
    }

    pub(super) fn send(&mut self, n: N, messages: Vec<(NodeId, PeerMessage)>) {
        for (to, message) in messages {
            let Some(to) = self.nodes.iter().find(|node| node.id == to).map(|node| node.n) else { continue };
            for span in self.net.delays(&mut self.rng) {
                self.later(span, Event::Message { from: n, to, message: message.clone() });
            }
        }
    }

    pub(super) fn message(&mut self, from: N, to: N, message: PeerMessage) {
        let from_id = self.nodes[from.0].id;
        let known = self.nodes[to.0].daemon.as_ref().is_some_and(|daemon| daemon.peers.contains(&from_id));
        if known && self.net.passes(from, to, self.now) {
            self.give(to, Input::Peer { from: from_id, message });
        }
    }

    pub(super) fn connect(&mut self, a: N, b: N) {
        let span = ms(self.rng.between(50, 250));
        self.later(span, Event::Connect(a, b));
        let possible = self.nodes[a.0].daemon.is_some()
            && self.nodes[b.0].daemon.is_some()
            && self.net.passes(a, b, self.now)
            && self.net.passes(b, a, self.now)
            && self.admits(a, b)
            && self.admits(b, a);
        if possible {
            // One end may not have noticed yet that the connection before is gone: with the new one it does, as with any loss.
            let ends = [(a, b), (b, a)].map(|(at, peer)| (at, peer, self.has_peer(at, peer)));
            if ends[0].2 != ends[1].2 {
                for (at, peer, _) in ends {
                    self.disconnect(at, self.nodes[at.0].daemon_life, peer);
                }
            }
            self.peer_up(a, b);
            self.peer_up(b, a);
        }
    }

    pub(super) fn peer_up(&mut self, at: N, peer: N) {
        let (peer_id, reads) = (self.nodes[peer.0].id, self.nodes[peer.0].reads);
        if let Some(daemon) = &mut self.nodes[at.0].daemon
            && !daemon.peers.contains(&peer_id)
        {
            daemon.peers.push(peer_id);
            self.give(at, Input::PeerUp { node: peer_id, reads });
        }
    }

    fn has_peer(&self, at: N, peer: N) -> bool {
        let id = self.nodes[peer.0].id;
        self.nodes[at.0].daemon.as_ref().is_some_and(|daemon| daemon.peers.contains(&id))
    }

    pub(super) fn disconnect(&mut self, at: N, life: u64, peer: N) {
        let peer_id = self.nodes[peer.0].id;
        let node = &mut self.nodes[at.0];
        let Some(daemon) = node.daemon.as_mut().filter(|_| node.daemon_life == life) else { return };
        if daemon.peers.contains(&peer_id) {
            daemon.peers.retain(|id| *id != peer_id);
            self.give(at, Input::PeerDown(peer_id));
            self.ahead_lost(at, peer);
        }
    }

    /// Both ends of a connection learn, some time soon, that it is gone.
    pub fn break_connection(&mut self, a: N, b: N, within: Span) {
        for (at, peer) in [(a, b), (b, a)] {
            let (life, span) = (self.nodes[at.0].daemon_life, us(self.rng.below(within.0.max(1))));
            self.later(span, Event::Disconnect { at, life, peer });
        }
    }
}

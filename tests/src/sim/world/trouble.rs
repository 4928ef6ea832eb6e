//! What goes wrong, and how: daemons and servers die and come back, the network splits, disks are slow, processes are stopped; and all along, sessions
//! are ended, connections break, processes die by themselves.

use gcs_writeset::NodeKind;

use super::{Event, World};
use crate::sim::fact::N;
use crate::sim::faults::{Fault, Nuisance};
use crate::sim::process::ground::{Kind, Signal};
use crate::sim::time::{Span, ms, us};

impl World {
    pub(super) fn fault(&mut self) {
        if self.calm_since.is_some() {
            return;
        }
        self.net.forget_old(self.now);
        self.tally.faults += 1;
        let fault = Fault::random(&mut self.rng, self.plan.nodes, self.plan.has(NodeKind::Witness));
        self.trace.line(self.now, format_args!("fault {fault:?}"));
        self.inflict(fault);
        let span = us(self.rng.between(self.plan.fault_every.0 / 3, self.plan.fault_every.0 * 2));
        self.later(span, Event::Fault);
    }

    fn inflict(&mut self, fault: Fault) {
        let all = self.plan.nodes;
        match fault {
            Fault::Daemon(n, span) => {
                self.crash_daemon(n);
                self.later(span, Event::StartDaemon(n));
            }
            Fault::Postgres(n, span) => {
                self.crash_server(n);
                self.later(span, Event::StartServer(n));
            }
            Fault::Machine(n, span) => {
                self.inflict(Fault::Daemon(n, span));
                self.inflict(Fault::Postgres(n, span));
            }
            Fault::Everything(span) => {
                *self.tally.corners.entry("everything died at once").or_default() += 1;
                for n in (0..all).map(N) {
                    let span = Span(span.0 / 2 + self.rng.below(span.0));
                    self.inflict(Fault::Machine(n, span));
                }
            }
            Fault::Split(side, span, noticed) => {
                let until = self.now + span;
                self.net.split(&side, all, self.now, until);
                if let Some(within) = noticed {
                    for a in side {
                        for b in (0..all).map(N).filter(|b| *b != a) {
                            self.break_connection(a, b, within);
                        }
                    }
                }
            }
            Fault::OneWay(from, to, span) => {
                let until = self.now + span;
                self.net.cut(from, to, self.now, until);
            }
            Fault::Reset(n) => {
                for other in (0..all).map(N).filter(|other| *other != n) {
                    self.break_connection(n, other, ms(5));
                }
            }
            Fault::SlowDisk(n, span) => self.nodes[n.0].slow_until = self.now + span,
            Fault::Pause(n, kind, span) => self.pause(n, kind, span),
        }
    }

    /// All remote backends, the manager, or one session.
    fn pause(&mut self, n: N, kind: Kind, span: Span) {
        let mut places = self.nodes[n.0].server.places(kind);
        if kind == Kind::Client && !places.is_empty() {
            places = vec![*self.rng.pick(&places)];
        }
        let until = self.now + span;
        for place in places {
            self.nodes[n.0].server.stop(place, until);
        }
        if kind == Kind::Manager && span > self.plan.settings.commit_timeout {
            *self.tally.corners.entry("a manager was stopped for longer than a commit may take").or_default() += 1;
        }
    }

    pub(super) fn nuisance(&mut self, n: N) {
        if self.calm_since.is_some() {
            return;
        }
        let span = us(self.rng.between(self.plan.nuisance_every.0 / 3, self.plan.nuisance_every.0 * 2));
        self.later(span, Event::Nuisance(n));
        if self.plan.settings.ahead_permille > 0 && self.ahead_chance.permille(500) {
            let nuisance = Nuisance::of_forerunner(&mut self.ahead_chance);
            self.annoy(n, nuisance);
        }
        let nuisance = Nuisance::random(&mut self.rng);
        if self.nodes[n.0].server.is_up {
            self.trace.line(self.now, format_args!("{} {nuisance:?}", n.0));
            self.annoy(n, nuisance);
        }
    }

    fn annoy(&mut self, n: N, nuisance: Nuisance) {
        let kind = match nuisance {
            Nuisance::Session(_) => Kind::Client,
            Nuisance::Dies(kind) | Nuisance::Hangup(kind) | Nuisance::Slow(kind, _) => kind,
        };
        let places = self.nodes[n.0].server.places(kind);
        if places.is_empty() {
            return;
        }
        let place = *self.rng.pick(&places);
        match nuisance {
            Nuisance::Session(signal) => self.with_server(n, |server, hand| server.send_signal(hand, place, signal)),
            Nuisance::Dies(_) => self.with_server(n, |server, hand| server.send_signal(hand, place, Signal::Terminate)),
            Nuisance::Slow(_, span) => {
                let until = self.now + span;
                self.nodes[n.0].server.stop(place, until);
            }
            Nuisance::Hangup(_) => {
                let conns = self.nodes[n.0].server.connections_of(place);
                if !conns.is_empty() {
                    let conn = *self.rng.pick(&conns);
                    self.break_link(n, conn);
                }
            }
        }
    }

    pub(super) fn crash_daemon(&mut self, n: N) {
        self.lockers_daemon_died(n);
        if self.nodes[n.0].daemon.take().is_none() {
            return;
        }
        self.trace.line(self.now, format_args!("{} daemon dies", n.0));
        let node = &mut self.nodes[n.0];
        node.daemon_life += 1;
        node.disk.0.borrow_mut().crash(&mut self.rng);
        self.daemon_hung_up(n);
        for other in (0..self.plan.nodes).map(N).filter(|other| *other != n) {
            self.break_connection(n, other, ms(60));
        }
    }

    pub(super) fn crash_server(&mut self, n: N) {
        if !self.nodes[n.0].server.is_up {
            return;
        }
        self.trace.line(self.now, format_args!("{} postgres dies", n.0));
        let mut conns = Vec::new();
        self.with_server(n, |server, hand| conns = server.crash(hand));
        self.nodes[n.0].server_life += 1;
        for conn in conns {
            self.send_up(n, conn, crate::sim::wire::Up::Closed);
        }
    }

    pub(super) fn start_server(&mut self, n: N) {
        if !self.nodes[n.0].server.is_up && !self.nodes[n.0].is_witness() && self.has_rows(n) {
            self.trace.line(self.now, format_args!("{} postgres starts", n.0));
            self.nodes[n.0].server_life += 1;
            self.with_server(n, |server, hand| server.start(hand));
        }
    }
}

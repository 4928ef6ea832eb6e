//! The link between a daemon and its PostgreSQL, and the servers' own events. It keeps order, and breaks when either end dies.

use gcs_core::{Input, Local, LocalReply};
use gcs_writeset::Position;

use super::{Event, World};
use crate::sim::daemon::read_delivery;
use crate::sim::fact::{Fact, N};
use crate::sim::postgres::{Action, Ctx, Down, Postgres, Up};
use crate::sim::time::{ms, us};

impl World {
    pub(super) fn open_link(&mut self, n: N) {
        let node = &mut self.nodes[n.0];
        node.link += 1;
        let link = node.link;
        node.down_until = self.now;
        node.up_until = self.now;
        if node.daemon.is_some() && node.postgres.up {
            self.later(ms(self.rng.clone().between(1, 30)), Event::LinkUp(n, link));
        }
    }

    pub(super) fn link_up(&mut self, n: N, link: u64) {
        let node = &self.nodes[n.0];
        if node.link != link || node.daemon.is_none() || !node.postgres.up {
            return;
        }
        let quorum = node.daemon.as_ref().is_some_and(|daemon| daemon.quorum);
        self.send_down(n, Down::Quorum(quorum));
        self.with_postgres(n, |postgres, ctx| postgres.link_up(ctx));
    }

    pub(super) fn send_down(&mut self, n: N, down: Down) {
        let span = us(self.rng.between(5, 100));
        let node = &mut self.nodes[n.0];
        node.down_until = node.down_until.max(self.now + span);
        let (at, link) = (node.down_until, node.link);
        self.at(at, Event::Down(n, link, Box::new(down)));
    }

    pub(super) fn down(&mut self, n: N, link: u64, down: Down) {
        if self.nodes[n.0].link == link && self.nodes[n.0].postgres.up {
            if self.nodes[n.0].witness {
                return self.witness(n, &down);
            }
            self.with_postgres(n, |postgres, ctx| postgres.receive(ctx, down));
        }
    }

    /// A witness attaches once, to say that it takes no part.
    pub(super) fn witness(&mut self, n: N, down: &Down) {
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

    pub(super) fn up(&mut self, n: N, link: u64, up: Up) {
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
    pub(super) fn hand_on(&mut self, n: N, replies: Vec<LocalReply>) {
        for reply in replies {
            if let Some(daemon) = &mut self.nodes[n.0].daemon {
                daemon.attached(&reply);
            }
            self.send_down(n, Down::Reply(reply));
        }
        self.pump(n);
    }

    /// Gives PostgreSQL every position that it has not been given.
    pub(super) fn pump(&mut self, n: N) {
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

    pub(super) fn start_postgres(&mut self, n: N) {
        if !self.nodes[n.0].postgres.up && !self.nodes[n.0].retired {
            self.trace.line(self.now, format_args!("{} postgres starts", n.0));
            self.nodes[n.0].postgres_life += 1;
            self.with_postgres(n, |postgres, ctx| postgres.start(ctx));
            self.open_link(n);
        }
    }
}

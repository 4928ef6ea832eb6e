//! The link between a daemon and its PostgreSQL: connections, the stream, answers. Each connection keeps order, and breaks when either end
//! dies.

use bytes::Bytes;
use gcs_core::{Input, Local, LocalReply};
use gcs_writeset::link::{Failure, FailureKind, PROTOCOL, Reply, Request, decode_frame};
use gcs_writeset::{Incarnation, Tag};

use super::{Event, World};
use crate::sim::daemon::{Daemon, Frame, Phase, Session, UNREAD_MAX, fetched_frames, read_delivery, stream_frames};
use crate::sim::fact::{Fact, N};
use crate::sim::process::ground::{Action, Hand};
use crate::sim::server::Server;
use crate::sim::time::{ms, us};
use crate::sim::wire::{Caller, ConnId, Down, Up};

/// Before an attach that was refused is tried again.
const ATTACH_AGAIN: crate::sim::time::Span = ms(500);

impl World {
    /// Lets a server do something, and carries out what it wants.
    pub fn with_server(&mut self, n: N, act: impl FnOnce(&mut Server, &mut Hand<'_>)) {
        let mut out = Vec::new();
        let mut hand = Hand { now: self.now, rng: &mut self.rng, txns: &mut self.txns, out: &mut out };
        act(&mut self.nodes[n.0].server, &mut hand);
        let life = self.nodes[n.0].server_life;
        for action in out {
            match action {
                Action::Later(span, event) => self.later(span, Event::Server(n, life, event)),
                Action::Fact(fact) => self.facts.push_back(fact),
                Action::Up(conn, up) => self.send_up(n, conn, up),
                Action::Read(conn) => {
                    if let Some(session) = self.session(n, conn) {
                        session.unread = session.unread.saturating_sub(1);
                        self.feed(n, conn);
                    }
                }
            }
        }
    }

    pub(super) fn session(&mut self, n: N, conn: ConnId) -> Option<&mut Session> {
        self.nodes[n.0].daemon.as_mut()?.sessions.get_mut(&conn)
    }

    pub(super) fn send_up(&mut self, n: N, conn: ConnId, up: Up) {
        let span = us(self.rng.between(5, 100));
        let node = &mut self.nodes[n.0];
        let pipe = node.pipes.entry(conn).or_default();
        pipe.up_until = pipe.up_until.max(self.now + span);
        let (at, life) = (pipe.up_until, node.daemon_life);
        self.at(at, Event::Up(n, life, conn, Box::new(up)));
    }

    pub(super) fn send_down(&mut self, n: N, conn: ConnId, (reply, payload): Frame) {
        if let Some(session) = self.session(n, conn) {
            session.unread += 1;
        }
        self.down_soon(n, conn, Down::Frame(reply, payload));
    }

    fn down_soon(&mut self, n: N, conn: ConnId, down: Down) {
        let span = us(self.rng.between(5, 100));
        let node = &mut self.nodes[n.0];
        let pipe = node.pipes.entry(conn).or_default();
        pipe.down_until = pipe.down_until.max(self.now + span);
        let (at, life) = (pipe.down_until, node.server_life);
        self.at(at, Event::Down(n, life, conn, Box::new(down)));
    }

    pub(super) fn down(&mut self, n: N, life: u64, conn: ConnId, down: Down) {
        if self.nodes[n.0].server_life == life && self.nodes[n.0].server.is_up {
            self.with_server(n, |server, hand| server.receive(hand, conn, down));
        }
    }

    /// The daemon has died: what it had written may still be read, some of it.
    pub(super) fn daemon_hung_up(&mut self, n: N) {
        self.nodes[n.0].server.daemon_is_there(false);
        let life = self.nodes[n.0].server_life;
        for conn in self.nodes[n.0].server.connections() {
            let span = us(self.rng.between(1, 200));
            self.later(span, Event::Down(n, life, conn, Box::new(Down::Closed)));
        }
    }

    /// The daemon closes a connection.
    fn hang_up(&mut self, n: N, conn: ConnId) {
        if let Some(daemon) = &mut self.nodes[n.0].daemon
            && let Some(session) = daemon.sessions.remove(&conn)
        {
            self.trace.line(self.now, format_args!("{} daemon hangs up {}", n.0, conn.0));
            self.down_soon(n, conn, Down::Closed);
            self.ahead_closed(n, session);
        }
    }

    /// A connection breaks, for whatever reason; both ends notice.
    pub(super) fn break_link(&mut self, n: N, conn: ConnId) {
        self.hang_up(n, conn);
    }

    fn refuse(&mut self, n: N, conn: ConnId, kind: FailureKind, message: &str) {
        let failure = Failure { kind, message: message.into(), hint: String::new() };
        self.send_down(n, conn, (Reply::Failed(failure), Bytes::new()));
        self.hang_up(n, conn);
    }

    pub(super) fn up(&mut self, n: N, life: u64, conn: ConnId, up: Up) {
        if self.nodes[n.0].daemon_life != life || self.nodes[n.0].daemon.is_none() {
            return;
        }
        if !matches!(up, Up::Frame(_) | Up::Request(Request::Progress { .. })) {
            self.trace.line(self.now, format_args!("{} daemon hears on {}: {up:?}", n.0, conn.0));
        }
        match up {
            Up::Hello { caller, incarnation } => self.greet(n, conn, caller, incarnation),
            Up::Request(request) => self.request(n, conn, request),
            Up::Frame(frame) => self.submit(n, conn, &frame),
            Up::Closed => {
                let session = self.nodes[n.0].daemon.as_mut().and_then(|daemon| daemon.sessions.remove(&conn));
                if let Some(session) = session {
                    self.ahead_closed(n, session);
                }
            }
        }
    }

    fn greet(&mut self, n: N, conn: ConnId, caller: Caller, incarnation: Incarnation) {
        let node = &mut self.nodes[n.0];
        let Some(daemon) = &mut node.daemon else { return };
        // A manager that has a predecessor waits until that one's connection is seen to be closed.
        let is_the_one = matches!(caller, Caller::Manager | Caller::Fetcher);
        daemon.sessions.retain(|_, old| !is_the_one || old.caller != caller);
        daemon.sessions.insert(conn, Session::new(caller, incarnation));
        let member = daemon.core.state().membership.member(node.id);
        let ordinal = member.map_or(0, |member| member.ordinal);
        let welcome = Reply::Welcome {
            protocol: PROTOCOL,
            group: "postgresr".into(),
            node: node.id,
            name: format!("n{}", n.0),
            ordinal,
        };
        if is_the_one {
            self.send_down(n, conn, (welcome, Bytes::new()));
        }
        if caller == Caller::Manager {
            self.send_status(n, conn);
        }
        if caller == Caller::Forerunner {
            self.give_tasks(n);
        }
    }

    fn send_status(&mut self, n: N, conn: ConnId) {
        let Some(daemon) = &self.nodes[n.0].daemon else { return };
        let status = daemon.core.status(daemon.database);
        self.send_down(n, conn, (Reply::Group(status), Bytes::new()));
    }

    /// The group's state has changed: all managers hear of it.
    pub(super) fn tell_status(&mut self, n: N) {
        for conn in self.managers(n) {
            self.send_status(n, conn);
        }
    }

    pub(super) fn managers(&self, n: N) -> Vec<ConnId> {
        let Some(daemon) = &self.nodes[n.0].daemon else { return Vec::new() };
        let managers = daemon.sessions.iter().filter(|(_, session)| session.caller == Caller::Manager);
        managers.map(|(conn, _)| *conn).collect()
    }

    fn request(&mut self, n: N, conn: ConnId, request: Request) {
        let Some(session) = self.session(n, conn) else { return };
        match request {
            Request::Attach { resume_after, .. } => {
                session.phase = Phase::Attaching(resume_after);
                self.ask_to_attach(n, conn);
            }
            Request::Progress { committed, flushed, oldest_base, out_of_service } => {
                let is_attached = matches!(session.phase, Phase::Streaming(_));
                let database = self.nodes[n.0].daemon.as_ref().and_then(|daemon| daemon.database);
                if let Some(database) = database.filter(|_| is_attached) {
                    let progress = Local::Progress { database, committed, flushed, oldest_base, out_of_service };
                    self.give(n, Input::Local(progress));
                }
            }
            Request::Fetch { position } => {
                session.fetches.push_back(position);
                self.feed(n, conn);
            }
            other => self.about_ahead(n, conn, other),
        }
    }

    /// If the attach of this connection has yet to be ordered.
    pub(super) fn ask_to_attach(&mut self, n: N, conn: ConnId) {
        if let Some(session) = self.session(n, conn)
            && let Phase::Attaching(_) = session.phase
        {
            let incarnation = session.incarnation;
            self.give(n, Input::Local(Local::Attach { database: "shop".into(), incarnation, founds: false }));
        }
    }

    /// What a backend writes. A database that is not attached has no manager to hear a refusal.
    fn submit(&mut self, n: N, conn: ConnId, frame: &Bytes) {
        let Some(session) = self.session(n, conn) else { return };
        let incarnation = session.incarnation;
        let node = &self.nodes[n.0];
        let Some(database) = node.daemon.as_ref().and_then(|daemon| daemon.database) else { return };
        let (request, payload) = match decode_frame::<Request>(frame) {
            Ok(decoded) => decoded,
            Err(error) => {
                return self.facts.push_back(Fact::Misunderstood { node: n, what: format!("a frame: {error}") });
            }
        };
        self.trace.line(self.now, format_args!("{} daemon hears on {}: {request:?}", n.0, conn.0));
        let bytes = frame.slice_ref(payload);
        let tag = |slot, sequence| Tag { database, node: node.id, incarnation, slot, sequence };
        let local = match request {
            Request::Submit { slot, sequence } => Local::Submit { tag: tag(slot, sequence), writeset: bytes },
            Request::Chunk { slot, sequence, index } => Local::Chunk { tag: tag(slot, sequence), index, bytes },
            Request::Abandon { slot, sequence } => Local::Abandon { tag: tag(slot, sequence) },
            _ => return,
        };
        self.give(n, Input::Local(local));
    }

    /// Answers and newly ordered positions go to PostgreSQL.
    pub(super) fn hand_on(&mut self, n: N, replies: Vec<LocalReply>) {
        for reply in replies {
            if self.answered_where_to_read(n, &reply) || self.answered_about_locks(n, &reply) {
                continue;
            }
            self.answer(n, reply);
        }
        for conn in self.managers(n) {
            self.feed(n, conn);
        }
    }

    fn answer(&mut self, n: N, reply: LocalReply) {
        let (tag, reply) = match reply {
            LocalReply::Attached { database, incarnation, serve_from, .. } => {
                let Some(daemon) = &mut self.nodes[n.0].daemon else { return };
                daemon.database = Some(database);
                daemon.head = daemon.head.max(serve_from);
                let found = attaching(daemon, incarnation);
                let Some((conn, resume_after)) = found else { return };
                if resume_after > serve_from {
                    return self.refuse(n, conn, FailureKind::AheadOfGroup, "ahead of the group");
                }
                self.send_down(n, conn, (Reply::Attached { database, serve_from }, Bytes::new()));
                if let Some(session) = self.session(n, conn) {
                    session.phase = Phase::Streaming(resume_after.next());
                }
                return;
            }
            LocalReply::AttachRefused { incarnation, .. } => {
                let found = self.nodes[n.0].daemon.as_mut().and_then(|daemon| attaching(daemon, incarnation));
                let life = self.nodes[n.0].daemon_life;
                if let Some((conn, _)) = found {
                    self.later(ATTACH_AGAIN, Event::AttachAgain(n, life, conn));
                }
                return;
            }
            LocalReply::Contended { key, .. } => {
                for conn in self.managers(n) {
                    self.send_down(n, conn, (Reply::Contended { key }, Bytes::new()));
                }
                return;
            }
            LocalReply::ChunkOrdered { tag, index } => {
                (tag, Reply::ChunkOrdered { slot: tag.slot, sequence: tag.sequence, index })
            }
            LocalReply::Token { tag, outcome } => {
                (tag, Reply::TokenOutcome { slot: tag.slot, sequence: tag.sequence, outcome })
            }
            LocalReply::Refused { tag, reason } => (tag, Reply::Refused { slot: tag.slot, sequence: tag.sequence, reason }),
            LocalReply::Detached { .. }
            | LocalReply::Wish { .. }
            | LocalReply::Lock { .. }
            | LocalReply::LockRefused { .. }
            | LocalReply::LocksLost { .. }
            | LocalReply::ReadFrom { .. }
            | LocalReply::ReadRefused { .. }
            | LocalReply::Followed { .. }
            | LocalReply::FollowedOver { .. } => return,
        };
        let manager = self.nodes[n.0].daemon.as_ref().and_then(|daemon| daemon.manager_of(tag));
        self.trace.line(self.now, format_args!("{} daemon answers {reply:?} on {manager:?}", n.0));
        if let Some(conn) = manager {
            self.send_down(n, conn, (reply, Bytes::new()));
        }
    }

    /// Something can be sent on this connection, perhaps.
    pub(super) fn feed(&mut self, n: N, conn: ConnId) {
        let Some(session) = self.session(n, conn) else { return };
        if !session.is_fed {
            session.is_fed = true;
            let (span, life) = (us(self.rng.between(1, 40)), self.nodes[n.0].daemon_life);
            self.later(span, Event::Feed(n, life, conn));
        }
    }

    /// Sends the next frames of the stream, or of what was asked for, as far as there is room. Answers may come between any two frames.
    pub(super) fn feed_some(&mut self, n: N, life: u64, conn: ConnId) {
        if self.nodes[n.0].daemon_life != life {
            return;
        }
        for _ in 0..4 {
            let Some(session) = self.session(n, conn) else { return };
            session.is_fed = false;
            if session.unread >= UNREAD_MAX {
                return;
            }
            if let Some(frame) = session.parts.pop_front() {
                self.send_down(n, conn, frame);
            } else if !self.open_next(n, conn) {
                return;
            }
        }
        self.feed(n, conn);
    }

    /// Reads the next position that is to be sent from the log. False if there is none.
    fn open_next(&mut self, n: N, conn: ConnId) -> bool {
        let node = &mut self.nodes[n.0];
        let Some(daemon) = &mut node.daemon else { return false };
        let (database, head) = (daemon.database, daemon.head);
        let Some(session) = daemon.sessions.get(&conn) else { return false };
        let is_fetch = session.caller == Caller::Fetcher;
        let next = match (session.phase, session.fetches.front()) {
            (Phase::Streaming(next), _) => Some(next).filter(|next| *next <= head),
            (_, Some(asked)) if is_fetch => Some(*asked),
            _ => None,
        };
        let Some(position) = next else { return false };
        let Some(database) = database.filter(|_| position <= head) else {
            // The daemon has started since, and does not know the database yet.
            self.hang_up(n, conn);
            return false;
        };
        let delivery = read_delivery(&node.disk.0.borrow(), database, position);
        let is_withheld = delivery.as_ref().is_some_and(|delivery| daemon.withholds(delivery.tag));
        let (Some(delivery), Some(session)) = (delivery, daemon.sessions.get_mut(&conn)) else {
            // One that is no member any more is told so by its daemon, whatever it asks for. And a server that has just been taken down for this asks for nothing.
            let is_member = daemon.core.state().membership.contains(node.id);
            if is_member && node.server.is_up && !self.copy_again(n) {
                self.facts.push_back(Fact::LogTooShort { node: n, after: position.previous() });
                self.hang_up(n, conn);
            }
            return false;
        };
        if is_fetch {
            session.fetches.pop_front();
            session.parts = fetched_frames(&delivery);
            return true;
        }
        session.phase = Phase::Streaming(position.next());
        session.parts = stream_frames(&delivery, node.id, session.incarnation, is_withheld);
        self.facts.push_back(Fact::Delivered { node: n, delivery });
        true
    }
}

/// The manager of this incarnation whose attach has yet to be ordered.
fn attaching(daemon: &mut Daemon, incarnation: Incarnation) -> Option<(ConnId, gcs_writeset::Position)> {
    daemon.sessions.iter().find_map(|(conn, session)| match session.phase {
        Phase::Attaching(resume_after) if session.incarnation == incarnation => Some((*conn, resume_after)),
        _ => None,
    })
}

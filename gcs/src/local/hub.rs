//! The hub: where what a step of the core ordered or answered meets the managers that wait for it.
//!
//! The hub knows the feed of each database whose manager is connected. The driver hands everything on before the step is over;
//! the hub puts it into the feeds, and [`Hub::flush`] writes it to the managers' sockets.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use gcs_core::{LocalReply, Ordered};
use gcs_writeset::link::{Drain, Failure, FailureKind, GroupStatus, MemberState, Reply};
use gcs_writeset::{DatabaseId, Incarnation, Tag};
use tokio::time::timeout;

use super::feed::Feed;
use super::this_node::ThisNode;
use crate::history::changes::Seen;
use crate::observe::snapshot::{self, Service};

pub struct Hub {
    pub node: Rc<ThisNode>,
    feeds: RefCell<BTreeMap<String, Rc<Feed>>>,
    /// As the core has it.
    status: RefCell<GroupStatus>,
    /// Likewise, as each database sees it.
    status_of: RefCell<BTreeMap<DatabaseId, GroupStatus>>,
}

impl Hub {
    pub fn new(node: Rc<ThisNode>) -> Hub {
        Hub { node, feeds: RefCell::default(), status: RefCell::default(), status_of: RefCell::default() }
    }

    /// Hands on what a step ordered, in order. [`Hub::flush`] writes it.
    pub fn ordered(&self, ordered: &[Ordered]) {
        for one in ordered {
            let (database, position) = (one.outcome.database, one.outcome.position);
            self.node.databases.ordered(database, position);
            self.node.peers.counted.ordered(one.outcome.verdict);
            self.node.followed.ordered(&one.tag, position, one.outcome.verdict);
            if let Some(feed) = self.attached_feed(database) {
                feed.ordered(one);
            }
        }
    }

    pub fn replies(&self, replies: Vec<LocalReply>) {
        for reply in replies {
            self.reply(reply);
        }
    }

    fn reply(&self, reply: LocalReply) {
        match reply {
            LocalReply::Attached { database, name, incarnation, serve_from } => {
                self.node.databases.attached(name.clone(), database, serve_from);
                if let Some(feed) = self.feed_of_life(&name, incarnation) {
                    feed.attached(database, serve_from);
                    self.show_standing();
                    // It has been told that there is no PostgreSQL here, and nothing may change for long.
                    feed.status(self.status());
                    self.node.shown.enter(database);
                    self.node.looking.news.notify_waiters();
                    self.note_service(&name, database);
                }
            }
            LocalReply::AttachRefused { database, incarnation, reason } => {
                if let Some(feed) = self.feed_of_life(&database, incarnation) {
                    feed.attach_refused(reason);
                }
            }
            LocalReply::Wish { number, outcome } => self.node.peers.wishes.answer(number, outcome),
            LocalReply::Detached { database } => {
                if let Some(feed) = self.attached_feed(database) {
                    feed.detached();
                }
            }
            LocalReply::ChunkOrdered { tag, index } => {
                let (slot, sequence) = (tag.slot, tag.sequence);
                self.answer(tag, &Reply::ChunkOrdered { slot, sequence, index });
            }
            LocalReply::Token { tag, outcome } => {
                let (slot, sequence) = (tag.slot, tag.sequence);
                self.answer(tag, &Reply::TokenOutcome { slot, sequence, outcome });
            }
            LocalReply::Contended { database, key } => {
                if let Some(feed) = self.attached_feed(database) {
                    feed.send(&Reply::Contended { key }, &[]);
                }
            }
            LocalReply::ReadFrom { .. } | LocalReply::ReadRefused { .. } => self.node.readers.answered(&reply),
            LocalReply::Lock { .. } | LocalReply::LockRefused { .. } | LocalReply::LocksLost { .. } => {
                self.node.lockers.answered(&reply);
            }
            LocalReply::Followed { number, chunks } => self.node.rehearsals.forerunners.followed(number, chunks),
            LocalReply::FollowedOver { number, ordered } => self.node.rehearsals.forerunners.over(number, ordered),
            LocalReply::Refused { tag, reason } => {
                self.node.peers.counted.refused(reason);
                let (slot, sequence) = (tag.slot, tag.sequence);
                self.answer(tag, &Reply::Refused { slot, sequence, reason });
            }
        }
    }

    /// Answers to submissions go to the manager, whoever submitted.
    fn answer(&self, tag: Tag, reply: &Reply) {
        if let Some(feed) = self.attached_feed(tag.database)
            && feed.incarnation == tag.incarnation
            && tag.node == self.node.id()
        {
            feed.send(reply, &[]);
        }
    }

    /// The group's state changed; all managers hear of it, each as its database sees it. Without a database, the status is
    /// that of all.
    pub fn publish_status(&self, status_of: impl Fn(Option<DatabaseId>) -> GroupStatus) {
        let overall = status_of(None);
        for (name, database) in self.node.databases.all() {
            let status = status_of(Some(database));
            self.node.copies.status_of(&name, &status);
            self.status_of.borrow_mut().insert(database, status);
        }
        tell(&self.status.replace(overall.clone()), &overall);
        self.show_standing();
        self.show();
    }

    /// The same as it was last published, with what the daemons say of themselves now.
    pub fn show_again(&self) {
        self.show();
        self.flush();
    }

    fn show(&self) {
        let amended = |status: &GroupStatus| {
            let mut status = status.clone();
            self.node.peers.standings.amend(self.node.id(), &mut status);
            status
        };
        let (overall, of) = (amended(&self.status.borrow()), self.status_of.borrow());
        for feed in self.feeds.borrow().values() {
            match feed.database_id().and_then(|database| of.get(&database)) {
                None => feed.status(overall.clone()),
                Some(status) => feed.status(amended(status)),
            }
        }
        self.node.copies.status(&overall);
        self.node.looking.news.notify_waiters();
        let is_up = |member| member == self.node.id() || self.node.peers.is_up(member);
        self.node.looking.history.see(Seen::of(&overall, self.services(), is_up));
        self.node.looking.history.see_cut(self.node.log.cut_to());
    }

    /// What each database of the group is on this node.
    fn services(&self) -> BTreeMap<String, &'static str> {
        let service = |(name, database): (String, DatabaseId)| {
            let service = self.service(&name, database);
            (name, service)
        };
        self.node.databases.all().into_iter().map(service).collect()
    }

    fn service(&self, name: &str, database: DatabaseId) -> &'static str {
        let (of, me) = (self.status_of.borrow(), self.node.id());
        let own = of.get(&database).and_then(|status| status.members.iter().find(|member| member.node == me));
        let is_out = own.is_some_and(|member| member.state == MemberState::OutOfService);
        let service = if is_out { Service::OutOfService } else { Service::Detached };
        let mut seen = snapshot::Database { name: name.to_owned(), service, ..snapshot::Database::default() };
        self.look_again(database, &mut seen);
        seen.service.name()
    }

    /// What only this node knows of the database: it changes without anything's being ordered.
    pub fn look_again(&self, id: DatabaseId, seen: &mut snapshot::Database) {
        let out = seen.service == Service::OutOfService;
        let Some(feed) = self.feed(&seen.name).filter(|feed| feed.is_in_group()) else {
            seen.service = if out { Service::OutOfService } else { Service::Detached };
            return;
        };
        seen.queue_bytes = feed.queue_bytes();
        let Some(reached) = feed.reached() else {
            seen.service = if out { Service::OutOfService } else { Service::Attaching };
            return;
        };
        // Where it attached it had been before.
        let shown = self.node.shown.committed(id).map(|shown| shown.max(reached.resumed_after));
        seen.received = reached.received;
        seen.applied = shown.unwrap_or(seen.applied);
        seen.service = match shown {
            _ if out => Service::OutOfService,
            None => Service::OutOfService,
            Some(shown) if shown < reached.serve_from => Service::CatchingUp,
            Some(_) => Service::Serving,
        };
    }

    /// What the database is here may be another.
    pub fn note_service(&self, name: &str, database: DatabaseId) {
        self.node.looking.history.see_service(name, self.service(name, database));
    }

    /// Tells the other daemons what is to be known of this one.
    pub fn show_standing(&self) {
        let sessions = &self.node.sessions;
        let (is_draining, leads) = (sessions.stage() != Drain::No, self.status.borrow().leader == Some(self.node.id()));
        let total = is_draining.then(|| sessions.total()).flatten();
        let is_detached = !self.feeds.borrow().values().any(|feed| feed.was_attached());
        self.node.peers.change_standing(|own| {
            own.is_detached = is_detached;
            (own.is_draining, own.leads, own.sessions) = (is_draining, is_draining && leads, total);
        });
    }

    /// All managers that are connected hear this.
    pub fn tell_managers(&self, reply: &Reply) {
        for feed in self.feeds.borrow().values() {
            feed.send(reply, &[]);
            feed.flush();
        }
    }

    /// The databases whose managers are connected, and in which life of their server.
    pub fn lives(&self) -> Vec<(String, Incarnation)> {
        self.feeds.borrow().values().map(|feed| (feed.database.clone(), feed.incarnation)).collect()
    }

    /// The group's state as it was last published, for all databases together.
    pub fn status(&self) -> GroupStatus {
        let mut status = self.status.borrow().clone();
        self.node.peers.standings.amend(self.node.id(), &mut status);
        status
    }

    /// Writes what the managers' sockets take.
    pub fn flush(&self) {
        for feed in self.feeds.borrow().values() {
            feed.flush();
        }
    }

    /// Says goodbye to all managers, and waits until they have heard it, but not for ever.
    pub async fn shut_down(&self, wait: Duration) {
        let feeds: Vec<_> = self.feeds.borrow().values().cloned().collect();
        let failure = Failure {
            kind: FailureKind::ShuttingDown,
            message: format!("gcs of node \"{}\" is shutting down", self.node.name()),
            hint: String::new(),
        };
        for feed in &feeds {
            feed.send(&Reply::Failed(failure.clone()), &[]);
            feed.flush();
        }
        let all = async {
            for feed in &feeds {
                feed.drained().await;
            }
        };
        let _ = timeout(wait, all).await;
    }

    /// The feed of the database of this name, attached or not.
    pub fn feed(&self, database: &str) -> Option<Rc<Feed>> {
        self.feeds.borrow().get(database).cloned()
    }

    /// From now on this is the feed of its database, which has no other.
    pub fn enter(&self, feed: Rc<Feed>) {
        self.feeds.borrow_mut().insert(feed.database.clone(), feed);
    }

    pub fn leave(&self, feed: &Rc<Feed>) {
        if let Some(database) = feed.database_id() {
            self.node.peers.send_shown(self.node.shown.leave(database));
        }
        self.node.lost.forget(&feed.database);
        self.feeds.borrow_mut().retain(|_, other| !Rc::ptr_eq(other, feed));
        if feed.is_in_group() {
            self.node.sessions.lost(&feed.database);
        } else {
            self.node.sessions.forget(&feed.database);
            self.node.peers.places.forget(&feed.database);
        }
        self.show_standing();
        if let Some(database) = self.node.databases.id(&feed.database) {
            self.note_service(&feed.database, database);
        }
    }

    fn attached_feed(&self, database: DatabaseId) -> Option<Rc<Feed>> {
        self.feeds.borrow().values().find(|feed| feed.database_id() == Some(database)).cloned()
    }

    fn feed_of_life(&self, database: &str, incarnation: Incarnation) -> Option<Rc<Feed>> {
        self.feed(database).filter(|feed| feed.incarnation == incarnation)
    }
}

/// Who leads, and whether a majority is there, is what an operator looks for first.
fn tell(old: &GroupStatus, new: &GroupStatus) {
    let name = |leader| new.members.iter().find(|member| Some(member.node) == leader).map(|member| member.name.as_str());
    if (old.leader, old.term) != (new.leader, new.term) {
        match new.leader {
            Some(_) => tracing::info!(term = new.term, leader = name(new.leader), "the group has a leader"),
            None => tracing::info!(term = new.term, "the group has no leader, as far as is known here"),
        }
    }
    match (old.quorum, new.quorum) {
        (false, true) => tracing::info!("a majority is in touch"),
        (true, false) => tracing::warn!("no majority is in touch, writes are refused here"),
        _ => {}
    }
}

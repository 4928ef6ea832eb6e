//! The local side: PostgreSQL on a Unix socket (`gcs_writeset::link`).
//!
//! - [`session`]: one connection: who calls, what it asks ([`requests`]), and what ends it ([`error`]).
//! - [`manager`]: the stream of positions to the replication manager of a database, live or from disk.
//! - [`fetcher`]: single writesets, on a connection of their own.
//! - [`backlog`]: positions read back from the log.
//!
//! The [`Hub`] knows all of them. Requests go into the [`Inbox`]; what a step orders or answers comes back through the hub,
//! which writes it to the managers' sockets before the step is over.

mod backlog;
mod error;
mod fetcher;
mod manager;
mod requests;
mod session;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use gcs_core::{LocalReply, Ordered};
use gcs_writeset::link::{Failure, FailureKind, GroupStatus, Reply};
use gcs_writeset::{DatabaseId, Incarnation, NodeId, Position, Tag};
use tokio::net::UnixListener;
use tokio::time::sleep;

use crate::bounds::LOCAL_SESSIONS_MAX;
use crate::config::Config;
use crate::inbox::Inbox;
use crate::log::LogReader;
use manager::Manager;

pub struct Hub {
    config: Rc<Config>,
    ordinal: u16,
    inbox: Rc<Inbox>,
    log: LogReader,
    /// Users that may connect.
    uids: Vec<u32>,
    sessions: Cell<usize>,
    /// Attached databases by name, since this daemon started.
    databases: RefCell<BTreeMap<String, DatabaseId>>,
    /// The last position of each database that was handed on; its outcome and entry are in the log.
    heads: RefCell<BTreeMap<DatabaseId, Position>>,
    managers: RefCell<BTreeMap<String, Rc<Manager>>>,
    status: RefCell<GroupStatus>,
}

impl Hub {
    /// Starts to accept connections.
    pub fn start(config: Rc<Config>, inbox: Rc<Inbox>, log: LogReader, uids: Vec<u32>, listener: UnixListener) -> Rc<Hub> {
        let ordinal = config.members.iter().position(|member| member.node == config.node).unwrap_or_default() as u16;
        let hub = Rc::new(Hub {
            config,
            ordinal,
            inbox,
            log,
            uids,
            sessions: Cell::new(0),
            databases: RefCell::default(),
            heads: RefCell::default(),
            managers: RefCell::default(),
            status: RefCell::default(),
        });
        tokio::task::spawn_local(accept(hub.clone(), listener));
        hub
    }

    /// Hands on what a step ordered, in order. [`Hub::flush`] writes it.
    pub fn ordered(&self, ordered: &[Ordered]) {
        let managers = self.managers.borrow();
        for one in ordered {
            let (database, position) = (one.outcome.database, one.outcome.position);
            let mut heads = self.heads.borrow_mut();
            let head = heads.entry(database).or_default();
            // Entries behind the last checkpoint are ordered once more after a restart; nobody is attached then.
            *head = (*head).max(position);
            if let Some(manager) = managers.values().find(|manager| manager.database_id() == Some(database)) {
                manager.ordered(one);
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
                self.databases.borrow_mut().insert(name.clone(), database);
                let head = {
                    let mut heads = self.heads.borrow_mut();
                    let head = heads.entry(database).or_default();
                    *head = (*head).max(serve_from);
                    *head
                };
                if let Some(manager) = self.manager_of(&name, incarnation) {
                    manager.attached(database, serve_from, head);
                }
            }
            LocalReply::AttachRefused { database, incarnation, reason } => {
                if let Some(manager) = self.manager_of(&database, incarnation) {
                    manager.attach_refused(reason);
                }
            }
            LocalReply::Detached { database } => {
                let managers = self.managers.borrow();
                if let Some(manager) = managers.values().find(|manager| manager.database_id() == Some(database)) {
                    manager.detached();
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
            LocalReply::Refused { tag, reason } => {
                let (slot, sequence) = (tag.slot, tag.sequence);
                self.answer(tag, &Reply::Refused { slot, sequence, reason });
            }
        }
    }

    /// Answers to submissions go to the manager, whoever submitted.
    fn answer(&self, tag: Tag, reply: &Reply) {
        let managers = self.managers.borrow();
        let by_tag = |manager: &&Rc<Manager>| {
            manager.database_id() == Some(tag.database)
                && manager.incarnation == tag.incarnation
                && tag.node == self.config.node
        };
        if let Some(manager) = managers.values().find(by_tag) {
            manager.send(reply, &[]);
        }
    }

    /// The group's state changed; all managers hear of it, each as its database sees it. Without a database, the status is
    /// that of all.
    pub fn status(&self, status_of: impl Fn(Option<DatabaseId>) -> GroupStatus) {
        let overall = status_of(None);
        for manager in self.managers.borrow().values() {
            match manager.database_id() {
                None => manager.status(overall.clone()),
                database => manager.status(status_of(database)),
            }
        }
        *self.status.borrow_mut() = overall;
    }

    /// Writes what the managers' sockets take.
    pub fn flush(&self) {
        for manager in self.managers.borrow().values() {
            manager.flush();
        }
    }

    /// Says goodbye to all managers, and waits until they have heard it, but not for ever.
    pub async fn shut_down(&self, wait: Duration) {
        let managers: Vec<_> = self.managers.borrow().values().cloned().collect();
        let failure = Failure {
            kind: FailureKind::ShuttingDown,
            message: format!("gcs of node \"{}\" is shutting down", self.config.name),
            hint: String::new(),
        };
        for manager in &managers {
            manager.send(&Reply::Failed(failure.clone()), &[]);
            manager.flush();
        }
        let all = async {
            for manager in &managers {
                manager.drained().await;
            }
        };
        let _ = tokio::time::timeout(wait, all).await;
    }

    fn head(&self, database: DatabaseId) -> Position {
        self.heads.borrow().get(&database).copied().unwrap_or_default()
    }

    fn node(&self) -> NodeId {
        self.config.node
    }

    fn manager_of(&self, database: &str, incarnation: Incarnation) -> Option<Rc<Manager>> {
        self.managers.borrow().get(database).filter(|manager| manager.incarnation == incarnation).cloned()
    }
}

async fn accept(hub: Rc<Hub>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok(_) if hub.sessions.get() >= LOCAL_SESSIONS_MAX => {
                tracing::warn!(limit = LOCAL_SESSIONS_MAX, "too many connections on the local socket, the newest is closed");
            }
            Ok((stream, _)) => {
                hub.sessions.set(hub.sessions.get() + 1);
                let hub = hub.clone();
                tokio::task::spawn_local(async move {
                    session::run(&hub, stream).await;
                    hub.sessions.set(hub.sessions.get() - 1);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: the pause keeps this from spinning.
                tracing::error!(%error, "could not accept a connection on the local socket");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

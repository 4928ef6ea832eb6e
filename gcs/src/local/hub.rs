//! The hub: where what a step of the core ordered or answered meets the managers that wait for it.
//!
//! The hub knows the manager of each database that has one. The driver hands everything on before the step is over; the hub puts
//! it into the managers' queues, and [`Hub::flush`] writes them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use gcs_core::{LocalReply, Ordered};
use gcs_writeset::link::{Failure, FailureKind, GroupStatus, Reply};
use gcs_writeset::{DatabaseId, Incarnation, Tag};
use tokio::time::timeout;

use super::manager::Manager;
use super::this_node::ThisNode;

pub struct Hub {
    pub node: Rc<ThisNode>,
    managers: RefCell<BTreeMap<String, Rc<Manager>>>,
    status: RefCell<GroupStatus>,
}

impl Hub {
    pub fn new(node: Rc<ThisNode>) -> Hub {
        Hub { node, managers: RefCell::default(), status: RefCell::default() }
    }

    /// Hands on what a step ordered, in order. [`Hub::flush`] writes it.
    pub fn ordered(&self, ordered: &[Ordered]) {
        for one in ordered {
            let (database, position) = (one.outcome.database, one.outcome.position);
            self.node.databases.ordered(database, position);
            if let Some(manager) = self.attached_manager(database) {
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
                self.node.databases.attached(name.clone(), database, serve_from);
                if let Some(manager) = self.manager_of_life(&name, incarnation) {
                    manager.attached(database, serve_from);
                }
            }
            LocalReply::AttachRefused { database, incarnation, reason } => {
                if let Some(manager) = self.manager_of_life(&database, incarnation) {
                    manager.attach_refused(reason);
                }
            }
            LocalReply::Detached { database } => {
                if let Some(manager) = self.attached_manager(database) {
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
        if let Some(manager) = self.attached_manager(tag.database)
            && manager.incarnation == tag.incarnation
            && tag.node == self.node.id()
        {
            manager.send(reply, &[]);
        }
    }

    /// The group's state changed; all managers hear of it, each as its database sees it. Without a database, the status is
    /// that of all.
    pub fn publish_status(&self, status_of: impl Fn(Option<DatabaseId>) -> GroupStatus) {
        let overall = status_of(None);
        for manager in self.managers.borrow().values() {
            match manager.database_id() {
                None => manager.status(overall.clone()),
                database => manager.status(status_of(database)),
            }
        }
        *self.status.borrow_mut() = overall;
    }

    /// The group's state as it was last published, for all databases together.
    pub fn status(&self) -> GroupStatus {
        self.status.borrow().clone()
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
            message: format!("gcs of node \"{}\" is shutting down", self.node.name()),
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
        let _ = timeout(wait, all).await;
    }

    /// The manager of the database of this name, attached or not.
    pub fn manager(&self, database: &str) -> Option<Rc<Manager>> {
        self.managers.borrow().get(database).cloned()
    }

    /// From now on this is the manager of its database, which has no other.
    pub fn enter(&self, manager: Rc<Manager>) {
        self.managers.borrow_mut().insert(manager.database.clone(), manager);
    }

    pub fn leave(&self, manager: &Rc<Manager>) {
        self.managers.borrow_mut().retain(|_, other| !Rc::ptr_eq(other, manager));
    }

    fn attached_manager(&self, database: DatabaseId) -> Option<Rc<Manager>> {
        self.managers.borrow().values().find(|manager| manager.database_id() == Some(database)).cloned()
    }

    fn manager_of_life(&self, database: &str, incarnation: Incarnation) -> Option<Rc<Manager>> {
        self.manager(database).filter(|manager| manager.incarnation == incarnation)
    }
}

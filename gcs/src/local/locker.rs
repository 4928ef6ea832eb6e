//! The connections of lockers: a backend's session that uses group locks (`gcs_core::locks`).
//!
//! The session is the connection. When that ends, whichever end it came from, what the session holds is given back by the order; so a
//! backend that is killed holds nothing a moment later, and needs nobody to clean up after it.

use std::rc::Rc;

use gcs_core::{Input, Local};
use gcs_writeset::link::{RefusalReason, Reply, Request};
use gcs_writeset::{DatabaseId, LockOp};

use super::error::SessionError;
use super::readers::put;
use super::requests::Requests;
use super::this_node::ThisNode;
use crate::outbox::Outbox;

/// In which database the session is, from its first request on.
struct Session<'a> {
    node: &'a ThisNode,
    connection: u64,
    database: Option<DatabaseId>,
}

impl Drop for Session<'_> {
    /// Also when the task is dropped with everything else, where nobody listens any more.
    fn drop(&mut self) {
        self.node.lockers.leave(self.connection);
        self.ask(u64::MAX, LockOp::Close);
    }
}

impl Session<'_> {
    fn ask(&self, number: u64, op: LockOp) {
        let Some(database) = self.database else { return };
        self.node.inbox.push(Input::Local(Local::Lock { connection: self.connection, database, number, op }));
    }
}

pub async fn serve(
    node: &ThisNode,
    outbox: &Rc<Outbox>,
    database: &str,
    requests: &mut Requests,
) -> Result<(), SessionError> {
    let (connection, lost) = node.lockers.enter(outbox);
    let mut session = Session { node, connection, database: None };
    loop {
        let request = tokio::select! {
            request = requests.next() => request?,
            // It has been told, and this connection has nothing more to say.
            () = lost.notified() => None,
        };
        let Some((request, _)) = request else { return Ok(()) };
        let Request::Lock { number, op } = request else {
            return Err(SessionError::Misuse("a request that a locker cannot make"));
        };
        if number == u64::MAX || matches!(op, LockOp::Close) {
            return Err(SessionError::Misuse("a request that only the end of a connection makes"));
        }
        session.database = session.database.or_else(|| node.databases.id(database));
        if session.database.is_none() {
            put(outbox, &Reply::LockRefused { number, reason: RefusalReason::NotAttached })?;
            continue;
        }
        session.ask(number, op);
        node.inbox.room().await;
    }
}

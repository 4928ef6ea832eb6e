//! The seat of a database's manager, which only one connection at a time can take.

use std::rc::Rc;

use gcs_writeset::Incarnation;
use gcs_writeset::link::FailureKind;
use tokio::time::timeout;

use super::error::SessionError;
use super::feed::Feed;
use super::hub::Hub;
use crate::bounds::MANAGER_TAKEOVER_WAIT;
use crate::outbox::Outbox;

/// Becomes free however the connection ends, also when an error of its writer drops the reader in the middle of a wait.
pub struct Seat<'a> {
    hub: &'a Hub,
    pub feed: Rc<Feed>,
}

impl<'a> Seat<'a> {
    /// Becomes the manager of the database, unless it has one. One whose connection is closed may still be there for an instant.
    pub async fn take(
        hub: &'a Hub,
        database: String,
        incarnation: Incarnation,
        outbox: Rc<Outbox>,
    ) -> Result<Seat<'a>, SessionError> {
        let wait = async {
            while let Some(old) = hub.feed(&database) {
                old.ended().await;
            }
        };
        if timeout(MANAGER_TAKEOVER_WAIT, wait).await.is_err() {
            let message = format!("database \"{database}\" is already attached on node \"{}\"", hub.node.name());
            let hint = "Another server may be using the same gcs.";
            return Err(SessionError::refused(FailureKind::AlreadyAttached, message, hint));
        }
        let feed = Rc::new(Feed::new(hub.node.clone(), database, incarnation, outbox));
        hub.enter(feed.clone());
        Ok(Seat { hub, feed })
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.hub.leave(&self.feed);
        self.feed.end();
        if self.feed.was_attached() {
            tracing::info!(database = %self.feed.database, "the manager of a database has gone");
        }
    }
}

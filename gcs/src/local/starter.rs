//! The manager's part in [`crate::forerunners`]: it is told when one is wanted, and starts it; and what is over, since a forerunner that is busy with a statement hears nothing. What waits for one that does not come is applied in its turn.

use std::rc::Rc;

use gcs_writeset::link::{Rehearsal, Reply};
use tokio::sync::Notify;
use tokio::time::sleep_until;

use super::feed::Feed;
use super::this_node::ThisNode;
use crate::forerunners::Asked;

struct Starter<'a> {
    node: &'a ThisNode,
    database: &'a str,
    news: Rc<Notify>,
}

impl Drop for Starter<'_> {
    fn drop(&mut self) {
        self.refuse(self.node.rehearsals.forerunners.cannot_start(self.database, &self.news));
    }
}

impl Starter<'_> {
    fn refuse(&self, asked: Vec<Asked>) {
        let has_some = self.node.rehearsals.forerunners.has_some(self.database);
        let outcome = if has_some { Rehearsal::Partly } else { Rehearsal::Absent };
        asked.into_iter().for_each(|one| self.node.tell_rehearsed((one.from, one.number), &outcome));
    }
}

/// For as long as the manager is connected.
pub async fn run(node: &ThisNode, feed: &Feed) {
    let forerunners = &node.rehearsals.forerunners;
    let starter = Starter { node, database: &feed.database, news: forerunners.can_start(&feed.database) };
    loop {
        for _ in 0..forerunners.called(starter.database) {
            feed.send(&Reply::ForerunnerWanted, &[]);
        }
        for tag in forerunners.over_for(starter.database) {
            feed.send(&Reply::AheadOver { tag }, &[]);
        }
        feed.flush();
        match forerunners.waits_until(starter.database) {
            None => starter.news.notified().await,
            Some(until) => tokio::select! {
                () = starter.news.notified() => {}
                () = sleep_until(until.into()) => starter.refuse(forerunners.not_come(starter.database)),
            },
        }
    }
}

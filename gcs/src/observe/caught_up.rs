//! How far the group is, and whether this node gets there: for `/synced` and `/readyz?lag=`.
//!
//! What this node knows to be ordered is not what the group has ordered: a node that has just come back learns of it entry by entry, and would take
//! itself for caught up all the way. So the group is asked, as a reader with `read_level = strong` asks it (`gcs_core::reads`): the answer is a
//! position that nothing lies behind of what anybody had been told before the question, and it comes when this node's log is there. Then
//! PostgreSQL is waited for, which says a few times a second where it is; while somebody waits, at once ([`crate::shown`]).
//!
//! The wait has a bound ([`CATCH_UP_WAIT`]). What is not known by then is not claimed: `of_group` stays empty, or `applied` too low.

use std::rc::Rc;

use gcs_core::{Input, Question as Read};
use gcs_proto::Show;
use gcs_writeset::{DatabaseId, NodeId, Position};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::snapshot::{Database, Service, Snapshot};
use crate::bounds::CATCH_UP_WAIT;
use crate::local::Hub;

/// The snapshot with what was found out, within the bound.
pub async fn caught_up(hub: &Rc<Hub>, mut snapshot: Snapshot, database: Option<&str>, lag: u64) -> Snapshot {
    let deadline = Instant::now() + CATCH_UP_WAIT;
    let wanted =
        |seen: &&mut Database| seen.service != Service::Absent && database.is_none_or(|database| database == seen.name);
    // All ask before the first is waited for: one round answers them.
    let ask = |seen| ask(hub, seen);
    let asked: Vec<_> = snapshot.databases.iter_mut().filter(wanted).filter_map(ask).collect();
    for (id, seen, answer) in asked {
        let Ok(Ok(of_group)) = timeout_at(deadline, answer).await else { continue };
        seen.of_group = Some(of_group);
        seen.ordered = seen.ordered.max(of_group);
        let target = Position(of_group.0.saturating_sub(lag));
        if seen.applied < target {
            // In vain after the deadline: what is known then is told.
            let _ = timeout_at(deadline, shows(hub, id, target)).await;
            hub.look_again(id, seen);
        }
    }
    snapshot
}

/// The question of how far the group is, on its way; none if it cannot be asked.
fn ask<'a>(hub: &Hub, seen: &'a mut Database) -> Option<(DatabaseId, &'a mut Database, oneshot::Receiver<Position>)> {
    let id = hub.node.databases.id(&seen.name)?;
    let (number, answer) = hub.node.readers.look()?;
    hub.node.inbox.push(Input::Read(Read { number, database: id }));
    Some((id, seen, answer))
}

/// Until clients see the position here, or the database has none.
async fn shows(hub: &Hub, database: DatabaseId, position: Position) {
    let node = &hub.node;
    let mut question = node.shown.ask();
    let show = Show { number: question.number, database: database.0, position: position.0 };
    if node.shown.came(node.id(), &show) {
        return;
    }
    let _waiting = Waiting { hub, database, question: (position, node.id(), question.number) };
    question.answers.recv().await;
}

/// Among those whom the database's manager is to tell, until it is given up.
struct Waiting<'a> {
    hub: &'a Hub,
    database: DatabaseId,
    question: (Position, NodeId, u64),
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.hub.node.shown.withdraw(self.database, self.question);
    }
}

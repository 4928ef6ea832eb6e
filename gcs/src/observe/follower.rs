//! Asks where a followed commit is visible: the members' daemons by the question of `commit_level = after` ([`crate::shown`]), this node's manager by
//! the same. Whoever has not answered after [`FOLLOW_WITHIN`] is told as missing.

use std::collections::BTreeSet;
use std::rc::Rc;

use gcs_proto::{Frame, Show};
use gcs_writeset::NodeId;
use gcs_writeset::link::MemberState;
use tokio::time::{Instant, timeout_at};

use super::followed::Course;
use crate::bounds::FOLLOW_WITHIN;
use crate::local::Hub;

/// For as long as the daemon runs.
pub async fn run(hub: Rc<Hub>) {
    loop {
        let (began, mut course) = hub.node.followed.next().await;
        find_out(&hub, began, &mut course).await;
        hub.node.followed.keep(course);
    }
}

async fn find_out(hub: &Hub, began: Instant, course: &mut Course) {
    let node = &hub.node;
    // Where it is not served the answer would come at once, and say nothing.
    let serves = |member: NodeId| {
        let members = hub.status().members;
        members.iter().any(|it| it.node == member && matches!(it.state, MemberState::Online | MemberState::Draining))
    };
    let peers: BTreeSet<NodeId> = node.up_with_databases().into_iter().filter(|peer| serves(*peer)).collect();
    let mut question = node.shown.ask();
    let show = Show { number: question.number, database: course.database.0, position: course.position.0 };
    node.peers.send_to_each(&peers, &Frame::Show(show.clone()));
    node.peers.flush();
    let mut missing = peers;
    if node.shown.came(node.id(), &show) {
        course.shown.push((node.id(), began.elapsed()));
    } else {
        missing.insert(node.id());
    }
    let deadline = began + FOLLOW_WITHIN;
    while !missing.is_empty() {
        let Ok(Some(heard)) = timeout_at(deadline, question.answers.recv()).await else { break };
        let member = heard.node;
        if missing.remove(&member) {
            course.shown.push((member, began.elapsed()));
        }
    }
    if missing.contains(&node.id()) {
        node.shown.withdraw(course.database, (course.position, node.id(), question.number));
    }
    course.missing = missing.into_iter().collect();
}

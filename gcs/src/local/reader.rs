//! The connections of readers: up to where must they wait, and who shows what they wrote (`crate::shown`).

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use gcs_core::{Input, Question};
use gcs_proto::{Frame, Show};
use gcs_writeset::link::{RefusalReason, Reply, Request};
use gcs_writeset::{NodeId, Position};
use tokio::time::sleep;

use super::error::SessionError;
use super::readers::put;
use super::requests::Requests;
use super::this_node::ThisNode;
use crate::outbox::Outbox;
use crate::shown;

/// How often a question's addressees are looked at: one that has gone is waited for no longer.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Who shows a position: asked of the peers, and not answered by all.
struct Asked {
    number: u64,
    question: shown::Question,
    missing: BTreeSet<NodeId>,
}

/// A question about a position that comes before the last one was answered by all takes its place.
pub async fn serve(
    node: &ThisNode,
    outbox: &Rc<Outbox>,
    database: &str,
    requests: &mut Requests,
) -> Result<(), SessionError> {
    let mut asked: Option<Asked> = None;
    loop {
        tokio::select! {
            request = requests.next() => match request? {
                None => return Ok(()),
                Some((Request::ReadFrom { number }, _)) => read_from(node, outbox, database, number).await?,
                Some((Request::AskShown { number, position }, _)) => {
                    asked = ask_shown(node, outbox, database, number, position)?;
                }
                Some(_) => return Err(SessionError::Misuse("a request that a reader cannot make")),
            },
            found = next_shown(node, &mut asked) => {
                for (number, node_id) in found {
                    put(outbox, &Reply::Shown { number, node: node.name_of(node_id) })?;
                }
            }
        }
    }
}

/// A database that is not attached has no order that could be read.
async fn read_from(node: &ThisNode, outbox: &Rc<Outbox>, database: &str, number: u64) -> Result<(), SessionError> {
    let Some(database) = node.databases.id(database) else {
        return put(outbox, &Reply::ReadRefused { number, reason: RefusalReason::NotAttached });
    };
    let number = node.readers.ask(outbox, number);
    node.inbox.push(Input::Read(Question { number, database }));
    node.inbox.room().await;
    Ok(())
}

fn ask_shown(
    node: &ThisNode,
    outbox: &Outbox,
    database: &str,
    number: u64,
    position: Position,
) -> Result<Option<Asked>, SessionError> {
    let database = node.databases.id(database);
    let missing: BTreeSet<NodeId> =
        if database.is_some() { node.up_with_databases().into_iter().collect() } else { BTreeSet::new() };
    let nodes = missing.iter().map(|peer| node.name_of(*peer)).collect();
    put(outbox, &Reply::Showing { number, nodes })?;
    let Some(database) = database else { return Ok(None) };
    let question = node.shown.ask();
    let frame = Frame::Show(Show { number: question.number, database: database.0, position: position.0 });
    node.peers.send_to_each(&missing, &frame);
    node.peers.flush();
    Ok(Some(Asked { number, question, missing }))
}

/// Peers that have answered, or have gone.
async fn next_shown(node: &ThisNode, asked: &mut Option<Asked>) -> Vec<(u64, NodeId)> {
    let Some(Asked { number, question, missing }) = asked.as_mut().filter(|asked| !asked.missing.is_empty()) else {
        return std::future::pending().await;
    };
    let found: Vec<NodeId> = tokio::select! {
        Some(peer) = question.answers.recv() => vec![peer.node],
        () = sleep(LOOK_EVERY) => {
            let up = node.peers.up();
            missing.iter().copied().filter(|peer| !up.contains(peer)).collect()
        }
    };
    found.into_iter().filter(|peer| missing.remove(peer)).map(|peer| (*number, peer)).collect()
}

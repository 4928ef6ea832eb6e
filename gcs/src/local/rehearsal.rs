//! The connections of rehearsals: of those who ask, and of the rehearsers (`crate::rehearsals`).

use std::time::Instant;

use bytes::Bytes;
use gcs_proto::{Frame, Rehearse};
use gcs_writeset::link::{self, Rehearsal, Reply, Request};
use gcs_writeset::{NodeId, Position};

use super::error::SessionError;
use super::requests::Requests;
use super::this_node::ThisNode;
use crate::bounds::REHEARSAL_BYTES_MAX;
use crate::outbox::Outbox;
use crate::rehearsals::{Question, Task, answer};

/// Asks the other nodes, one question after the other. A question that comes before the last one was answered by all takes its place.
pub async fn serve_asking(
    node: &ThisNode,
    outbox: &Outbox,
    database: &str,
    requests: &mut Requests,
) -> Result<(), SessionError> {
    let mut question: Option<Question> = None;
    loop {
        tokio::select! {
            request = requests.next() => match request? {
                None => return Ok(()),
                Some((Request::Rehearse { after, patience_ms }, writeset)) => {
                    question = Some(ask(node, outbox, database, after, patience_ms, writeset)?);
                }
                Some(_) => return Err(SessionError::Misuse("a request that whoever rehearses cannot make")),
            },
            Some((from, outcome)) = next_answer(&mut question) => {
                put(outbox, &Reply::Rehearsed { node: node.name_of(from), outcome }, &[])?;
            }
        }
    }
}

async fn next_answer(question: &mut Option<Question>) -> Option<(NodeId, Rehearsal)> {
    match question {
        Some(question) => question.answers.recv().await,
        None => std::future::pending().await,
    }
}

fn ask(
    node: &ThisNode,
    outbox: &Outbox,
    database: &str,
    after: Position,
    patience_ms: u32,
    writeset: Bytes,
) -> Result<Question, SessionError> {
    if writeset.len() > REHEARSAL_BYTES_MAX {
        return Err(SessionError::Misuse("a rehearsal that is too long"));
    }
    let question = node.rehearsals.ask();
    let number = question.number;
    let frame = Frame::Rehearse(Rehearse { number, database: database.to_owned(), after: after.0, patience_ms, writeset });
    let asked = node.up_with_databases();
    node.peers.send_to_each(&asked, &frame);
    let nodes = asked.len() as u32;
    node.peers.flush();
    put(outbox, &Reply::Rehearsing { nodes }, &[])?;
    Ok(question)
}

/// Gives a rehearser what peers want tried, one after the other, and takes back what became of it.
pub async fn serve_rehearser(
    node: &ThisNode,
    outbox: &Outbox,
    database: &str,
    requests: &mut Requests,
) -> Result<(), SessionError> {
    let mut tasks = node.rehearsals.enter(database.to_owned());
    loop {
        let task = tokio::select! {
            task = tasks.recv() => task,
            request = requests.next() => match request? {
                None => return Ok(()),
                Some(_) => return Err(SessionError::Misuse("an outcome of nothing")),
            },
        };
        // Another rehearser has taken the place.
        let Some(task) = task else { return Ok(()) };
        if task.over_at > Instant::now() && !give(node, outbox, requests, &task).await? {
            return Ok(());
        }
    }
}

/// False when the rehearser has gone.
async fn give(node: &ThisNode, outbox: &Outbox, requests: &mut Requests, task: &Task) -> Result<bool, SessionError> {
    put(outbox, &Reply::Rehearse { number: task.number, after: task.after }, &task.writeset)?;
    let outcome = match requests.next().await? {
        Some((Request::Rehearsed { number, outcome }, _)) if number == task.number => outcome,
        Some(_) => return Err(SessionError::Misuse("an outcome of another rehearsal")),
        None => return Ok(false),
    };
    if let Some(rehearsed) = answer(task.number, &outcome) {
        node.peers.send_frame(task.from, &Frame::Rehearsed(rehearsed));
        node.peers.flush();
    }
    Ok(true)
}

fn put(outbox: &Outbox, reply: &Reply, payload: &[u8]) -> Result<(), SessionError> {
    outbox.put(|out| link::put_frame(out, reply, payload))?;
    outbox.flush();
    Ok(())
}

//! The connections of rehearsals: of those who ask, and of the rehearsers (`crate::rehearsals`).

use std::collections::BTreeMap;
use std::time::Instant;

use gcs_proto::{Frame, Rehearse};
use gcs_writeset::link::{self, Rehearsal, Reply, Request};
use gcs_writeset::{NodeId, tables};

use super::error::SessionError;
use super::requests::Requests;
use super::this_node::ThisNode;
use crate::bounds::{CLEAR_MAX, REHEARSAL_BYTES_MAX, REHEARSALS_WAITING_MAX};
use crate::outbox::Outbox;
use crate::rehearsals::{Question, Task, What, answer};

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
                    let asked = Rehearse { after: after.0, patience_ms, writeset, ..Rehearse::default() };
                    question = Some(ask(node, outbox, database, asked)?);
                }
                Some((Request::Clear { patience_ms }, tables)) => {
                    tables::decode(&tables)?;
                    let patience_ms = patience_ms.min(CLEAR_MAX.as_millis() as u32);
                    let asked = Rehearse { patience_ms, tables, ..Rehearse::default() };
                    question = Some(ask(node, outbox, database, asked)?);
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

fn ask(node: &ThisNode, outbox: &Outbox, database: &str, asked: Rehearse) -> Result<Question, SessionError> {
    if asked.writeset.len() > REHEARSAL_BYTES_MAX {
        return Err(SessionError::Misuse("a rehearsal that is too long"));
    }
    let question = node.rehearsals.ask();
    let number = question.number;
    let frame = Frame::Rehearse(Rehearse { number, database: database.to_owned(), ..asked });
    let asked = node.up_with_databases();
    node.peers.send_to_each(&asked, &frame);
    let nodes = asked.len() as u32;
    node.peers.flush();
    put(outbox, &Reply::Rehearsing { nodes }, &[])?;
    Ok(question)
}

/// Gives a rehearser what peers ask, and takes back what became of it: one trial after the other, and beside them tables that are to be clear.
pub async fn serve_rehearser(
    node: &ThisNode,
    outbox: &Outbox,
    database: &str,
    requests: &mut Requests,
) -> Result<(), SessionError> {
    let mut tasks = node.rehearsals.enter(database.to_owned());
    let mut given = Given::default();
    loop {
        tokio::select! {
            task = tasks.recv(), if given.has_room() => match task {
                Some(task) if task.over_at > Instant::now() => put_task(outbox, given.next(&task), task)?,
                Some(_) => {}
                // Another rehearser has taken the place.
                None => return Ok(()),
            },
            request = requests.next() => match request? {
                None => return Ok(()),
                Some((Request::Rehearsed { number, outcome }, _)) => {
                    let Some((asker, asked)) = given.take(number) else {
                        return Err(SessionError::Misuse("an outcome of nothing"));
                    };
                    if let Some(rehearsed) = answer(asked, &outcome) {
                        node.peers.send_frame(asker, &Frame::Rehearsed(rehearsed));
                        node.peers.flush();
                    }
                }
                Some(_) => return Err(SessionError::Misuse("a request that a rehearser cannot make")),
            },
        }
    }
}

/// What the rehearser has not answered yet, by the number that it was given: who asked, and under which number.
#[derive(Default)]
struct Given {
    last: u64,
    open: BTreeMap<u64, (NodeId, u64)>,
    trial: Option<u64>,
}

impl Given {
    /// A trial keeps it from looking at anything else.
    fn has_room(&self) -> bool {
        self.trial.is_none() && self.open.len() < REHEARSALS_WAITING_MAX
    }

    fn next(&mut self, task: &Task) -> u64 {
        self.last += 1;
        self.open.insert(self.last, (task.from, task.number));
        if matches!(task.what, What::Try { .. }) {
            self.trial = Some(self.last);
        }
        self.last
    }

    fn take(&mut self, number: u64) -> Option<(NodeId, u64)> {
        self.trial.take_if(|trial| *trial == number);
        self.open.remove(&number)
    }
}

fn put_task(outbox: &Outbox, number: u64, task: Task) -> Result<(), SessionError> {
    match task.what {
        What::Try { after, writeset } => put(outbox, &Reply::Rehearse { number, after }, &writeset),
        What::Clear { tables } => {
            let patience = task.over_at.saturating_duration_since(Instant::now());
            let patience_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
            put(outbox, &Reply::Clear { number, patience_ms }, &tables)
        }
    }
}

fn put(outbox: &Outbox, reply: &Reply, payload: &[u8]) -> Result<(), SessionError> {
    outbox.put(|out| link::put_frame(out, reply, payload))?;
    outbox.flush();
    Ok(())
}

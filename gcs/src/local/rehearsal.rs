//! The connections of rehearsals: of those who ask, and of the rehearsers (`crate::rehearsals`). Whoever asks can also ask for a transaction to be applied ahead, which
//! is the only question that goes on when all have answered, and must be withdrawn if it comes to nothing (`local::forerunner` is its other end).

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use gcs_proto::{Ahead, Frame, Rehearse};
use gcs_writeset::building::{Building, is_building};
use gcs_writeset::link::{self, Rehearsal, Reply, Request};
use gcs_writeset::{Incarnation, NodeId, tables};

use super::error::SessionError;
use super::requests::Requests;
use super::this_node::ThisNode;
use crate::bounds::{CLEAR_MAX, REHEARSAL_BYTES_MAX, REHEARSALS_WAITING_MAX};
use crate::outbox::Outbox;
use crate::rehearsals::{Question, Task, What, answer};

/// A question under way.
struct Open<'a> {
    question: Question,
    /// Of a transaction that is to be applied ahead.
    withdrawal: Option<Withdrawal<'a>>,
}

/// Tells those that were asked that the question is withdrawn, unless that was called off.
struct Withdrawal<'a> {
    node: &'a ThisNode,
    number: u64,
    asked: Vec<NodeId>,
}

impl Withdrawal<'_> {
    fn call_off(mut self) {
        self.asked.clear();
    }
}

impl Drop for Withdrawal<'_> {
    /// Also when the task is dropped with everything else, where nobody listens any more.
    fn drop(&mut self) {
        let over = Rehearse { number: self.number, over: true, ..Rehearse::default() };
        self.node.peers.send_to_each(&self.asked, &Frame::Rehearse(over));
        self.node.peers.flush();
    }
}

/// Asks the other nodes, one question after the other. A question that comes before the last one was answered by all takes its place.
pub async fn serve_asking(
    node: &ThisNode,
    outbox: &Outbox,
    (database, incarnation): (&str, Incarnation),
    requests: &mut Requests,
) -> Result<(), SessionError> {
    let mut open: Option<Open<'_>> = None;
    loop {
        tokio::select! {
            request = requests.next() => {
                let Some((request, payload)) = request? else { return Ok(()) };
                // The last one is over before the next one begins: whoever is busy with it is done with it sooner.
                let last = open.take();
                if let Request::AheadDone { .. } = request {
                    open = decided(last);
                    continue;
                }
                drop(last);
                open = Some(ask(node, outbox, database, asked(request, payload, incarnation)?)?);
            },
            Some((from, outcome)) = next_answer(&mut open) => {
                put(outbox, &Reply::Rehearsed { node: node.name_of(from), outcome }, &[])?;
            }
        }
    }
}

async fn next_answer(open: &mut Option<Open<'_>>) -> Option<(NodeId, Rehearsal)> {
    match open {
        Some(open) => open.question.answers.recv().await,
        None => std::future::pending().await,
    }
}

/// What was to be applied ahead is submitted, or about to be, or was abandoned: the order says the rest. Any other question goes on.
fn decided(open: Option<Open<'_>>) -> Option<Open<'_>> {
    let Open { question, withdrawal } = open?;
    match withdrawal {
        Some(withdrawal) => {
            withdrawal.call_off();
            None
        }
        None => Some(Open { question, withdrawal }),
    }
}

/// What peers are to be asked.
fn asked(request: Request, payload: Bytes, incarnation: Incarnation) -> Result<Rehearse, SessionError> {
    match request {
        Request::Rehearse { after, patience_ms } => {
            Ok(Rehearse { after: after.0, patience_ms, writeset: payload, ..Rehearse::default() })
        }
        Request::Clear { patience_ms } => {
            if is_building(&payload) {
                Building::decode(&payload)?;
            } else {
                tables::decode(&payload)?;
            }
            let patience_ms = patience_ms.min(CLEAR_MAX.as_millis() as u32);
            Ok(Rehearse { patience_ms, tables: payload, ..Rehearse::default() })
        }
        Request::Ahead { slot, sequence, chunks, after, patience_ms } => {
            if chunks == 0 {
                return Err(SessionError::Misuse("nothing that could be applied ahead"));
            }
            let ahead = Some(Ahead { incarnation: incarnation.0, slot: slot.0, sequence: sequence.0, chunks });
            Ok(Rehearse { after: after.0, patience_ms, writeset: payload, ahead, ..Rehearse::default() })
        }
        _ => Err(SessionError::Misuse("a request that whoever rehearses cannot make")),
    }
}

fn ask<'a>(node: &'a ThisNode, outbox: &Outbox, database: &str, asked: Rehearse) -> Result<Open<'a>, SessionError> {
    if asked.writeset.len() > REHEARSAL_BYTES_MAX {
        return Err(SessionError::Misuse("a rehearsal that is too long"));
    }
    let nodes = node.up_with_databases();
    let question = node.rehearsals.ask(&nodes);
    let (number, is_ahead) = (question.number, asked.ahead.is_some());
    let frame = Frame::Rehearse(Rehearse { number, database: database.to_owned(), ..asked });
    node.peers.send_to_each(&nodes, &frame);
    let count = nodes.len() as u32;
    node.peers.flush();
    let withdrawal = is_ahead.then_some(Withdrawal { node, number, asked: nodes });
    put(outbox, &Reply::Rehearsing { nodes: count }, &[])?;
    Ok(Open { question, withdrawal })
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

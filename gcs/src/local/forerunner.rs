//! The connections of forerunners: what each is to apply ahead, its chunks, and what became of it (`crate::forerunners`).
//!
//! Three things happen side by side on such a connection: it is sent what peers ask, it is sent chunks from the log, and it is heard. None of them
//! may wait for another: a transaction of any length can be over while its chunks are on the way, and its forerunner may have given up.

use std::rc::Rc;

use gcs_core::{Input, Local};
use gcs_proto::Ahead;
use gcs_writeset::link::{Rehearsal, Request};
use gcs_writeset::{Incarnation, NodeId, Position, Sequence, SlotId, Tag};

use super::chunk_reader::ChunkReader;
use super::error::SessionError;
use super::piece::{self, BacklogError, Piece};
use super::requests::Requests;
use super::this_node::ThisNode;
use crate::bounds::BACKLOG_PIECE_BYTES;
use crate::forerunners::{Forerunner, Task, Wanted};
use crate::outbox::Outbox;

struct Session<'a> {
    node: &'a ThisNode,
    outbox: &'a Outbox,
    database: &'a str,
    forerunner: Rc<Forerunner>,
}

impl Drop for Session<'_> {
    /// What the forerunner was to apply is applied from the log.
    fn drop(&mut self) {
        if let Some(task) = self.node.rehearsals.forerunners.leave(&self.forerunner) {
            self.finish(&task);
        }
    }
}

pub async fn serve(
    node: &ThisNode,
    outbox: &Rc<Outbox>,
    database: &str,
    requests: &mut Requests,
) -> Result<(), SessionError> {
    let forerunner = node.rehearsals.forerunners.enter(database, outbox);
    let session = Session { node, outbox, database, forerunner };
    tokio::select! {
        result = session.hear(requests) => result,
        result = session.give() => result,
        result = session.send_chunks() => result,
    }
}

impl Session<'_> {
    async fn hear(&self, requests: &mut Requests) -> Result<(), SessionError> {
        while let Some((request, _)) = requests.next().await? {
            match request {
                Request::FetchAhead { number } => {
                    if !self.forerunner.fetch(number) {
                        return Err(SessionError::Misuse("a fetch of nothing, or of what is on its way"));
                    }
                }
                Request::Rehearsed { number, outcome } => match self.forerunner.answer(number, &outcome) {
                    Some(asker) => self.node.tell_rehearsed(asker, &outcome),
                    None => return Err(SessionError::Misuse("an outcome of nothing, or a second one")),
                },
                Request::AheadDone { number } => match self.forerunner.done(number) {
                    Some(task) => {
                        self.finish(&task);
                        self.node.rehearsals.forerunners.give_next(&self.forerunner);
                    }
                    None => return Err(SessionError::Misuse("the end of nothing")),
                },
                _ => return Err(SessionError::Misuse("a request that a forerunner cannot make")),
            }
            self.node.inbox.room().await;
        }
        Ok(())
    }

    /// Sends the forerunner one question after the other, and has the core follow what it is about.
    async fn give(&self) -> Result<(), SessionError> {
        loop {
            let (from, ahead) = self.forerunner.given().await;
            let Some(tag) = self.tag(from, &ahead) else {
                // Nothing of the database has been ordered as far as is known here: there is nothing to begin with.
                if let Some(task) = self.forerunner.take() {
                    self.finish(&task);
                }
                continue;
            };
            if let Some(number) = self.forerunner.begin(tag)? {
                self.node.inbox.push(Input::Local(Local::Follow { number, tag, chunks: ahead.chunks }));
            }
        }
    }

    fn tag(&self, node: NodeId, ahead: &Ahead) -> Option<Tag> {
        let database = self.node.databases.id(self.database)?;
        let (incarnation, slot) = (Incarnation(ahead.incarnation), SlotId(ahead.slot));
        Some(Tag { database, node, incarnation, slot, sequence: Sequence(ahead.sequence) })
    }

    async fn send_chunks(&self) -> Result<(), SessionError> {
        loop {
            let wanted = self.forerunner.wanted().await;
            let number = wanted.number;
            match self.send_chunks_of(wanted).await {
                Ok(()) => self.forerunner.fetched(number),
                // They went with what every member had, or came with a snapshot.
                Err(BacklogError::Truncated) => self.forerunner.give_up(number),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A piece at a time, each when the one before has been taken, for as long as the forerunner wants them.
    async fn send_chunks_of(&self, Wanted { number, tag, chunks }: Wanted) -> Result<(), BacklogError> {
        let mut rest = ChunkReader::new(self.node.log.clone(), Position::ZERO, tag, chunks);
        while !rest.is_at_end() {
            self.outbox.drained().await;
            let fill = |reader: &mut ChunkReader, out: &mut Vec<u8>| reader.fill(out, BACKLOG_PIECE_BYTES);
            let Piece { reader, frames, result } = piece::read(rest, fill).await?;
            if !self.forerunner.wants(number) {
                return Ok(());
            }
            piece::send(self.outbox, frames);
            result?;
            rest = reader;
        }
        Ok(())
    }

    /// The forerunner has nothing more to do with it.
    fn finish(&self, task: &Task) {
        if task.has_begun() {
            self.node.inbox.push(Input::Local(Local::Unfollow { number: task.number }));
        }
        if !task.is_answered() {
            self.node.tell_rehearsed((task.asked.from, task.asked.number), &Rehearsal::Partly);
        }
    }
}

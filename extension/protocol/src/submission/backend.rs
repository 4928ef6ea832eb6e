//! What a submission needs of the process that makes it: a connection to gcs, its interrupts, and a writeset.

use std::time::Duration;

use gcs_writeset::bounds::CHUNK_BYTES_MAX;
use gcs_writeset::link::Request;
use gcs_writeset::wire::WireError;
use gcs_writeset::{Position, Sequence};

use crate::id::{LocalXid, Moment};

/// How far a frame got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Whole,
    /// None of it left this process.
    Nothing,
    /// Some of it may have arrived.
    Perhaps,
}

/// What may cut a frame short that waits for room in the socket, as long as none of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Any interrupt.
    UntilInterrupted,
    /// The end of the session.
    UntilEnding,
    /// Nothing but the deadline.
    Whole,
    /// It is not worth a wait.
    None,
}

/// How far other nodes are with what they are to apply ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ahead {
    /// The process is woken when there is news.
    Wait,
    /// As far as they will come, all of them.
    Over,
    /// One of them says that it can't be applied there.
    Unappliable,
}

/// A process that talks to gcs: its connection and its interrupts.
pub trait Process {
    fn now(&self) -> Moment;
    /// A cancel or the end of the session was asked for.
    fn is_interrupted(&self) -> bool;
    /// The end of the session was asked for.
    fn is_ending(&self) -> bool;
    /// Whether the connection, which only writes, is still there.
    fn is_connected(&mut self) -> bool;
    /// Makes sure that there is a connection. False if there can be none now.
    fn connect(&mut self) -> bool;
    fn send(&mut self, frame: &[u8], deadline: Moment, patience: Patience) -> Sent;
}

/// The process that submits, with its writeset.
pub trait Backend: Process {
    /// The transaction that is submitted.
    fn transaction(&self) -> LocalXid;
    /// `postgres_r.commit_timeout`.
    fn commit_timeout(&self) -> Duration;
    /// Bytes of a chunk, at most [`CHUNK_BYTES_MAX`]. Only the simulator sends smaller ones.
    fn chunk_bytes(&self) -> usize {
        CHUNK_BYTES_MAX
    }
    /// Bytes and rows of the body.
    fn body_length(&self) -> u64;
    fn rows(&self) -> u64;
    /// Appends the next `bytes` of the body, or what is left.
    fn read_body(&mut self, out: &mut Vec<u8>, bytes: usize);
    /// Appends the frame of this request with the writeset around what is left of the body. `base` is that of guarded keys.
    fn put_writeset(
        &mut self,
        frame: &mut Vec<u8>,
        request: &Request,
        chunks: u32,
        base: Position,
        oldest_base: Position,
    ) -> Result<(), WireError>;
    /// Something large begins to be sent.
    fn sending(&mut self, total: u64);
    /// Whether other nodes are to apply it before it is submitted. The same whenever it is asked.
    fn is_to_go_ahead(&self) -> bool;
    /// Has them do so, once `after` is committed there. To be called until it has come to an end.
    fn go_ahead(&mut self, sequence: Sequence, chunks: u32, after: Position) -> Ahead;
}

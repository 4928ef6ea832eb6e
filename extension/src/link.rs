//! A connection to gcs on which answers come too: frames in, frames out, nothing blocks.
//!
//! Bounds: the input buffer holds one frame (at most `LINK_FRAME_BYTES_MAX`) and what came with it; the output buffer holds
//! the requests that are being written, of which there are few.

use std::io;
use std::time::Duration;

use gcs_writeset::link::{Reply, Request, decode_frame, frame_len, put_frame};
use gcs_writeset::wire::WireError;
use postgres_r_protocol::dispatch::Trouble;

use crate::pg::latch::{self, GroupLock, WaitSet};
use crate::pg::socket::Socket;

/// What one system call reads at most.
const READ_BYTES: usize = 256 << 10;

/// Input memory kept after a large frame.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("the connection was closed")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("unreadable message: {0}")]
    Wire(#[from] WireError),
    #[error("{0}")]
    Trouble(#[from] Trouble),
    #[error("{0}")]
    Failed(String),
}

pub struct Link {
    socket: Socket,
    input: Vec<u8>,
    /// Bytes of `input` that were dealt with.
    consumed: usize,
    output: Vec<u8>,
    scratch: Box<[u8]>,
}

/// A frame at the front of the input, not dealt with yet.
pub struct Frame<'a> {
    pub reply: Reply,
    pub payload: &'a [u8],
    pub length: usize,
}

impl Link {
    pub fn connect(path: &str) -> Result<Link, LinkError> {
        let socket = Socket::connect(path)?;
        let scratch = vec![0; READ_BYTES].into_boxed_slice();
        Ok(Link { socket, input: Vec::new(), consumed: 0, output: Vec::new(), scratch })
    }

    /// As the socket of that number.
    pub fn watch_by(&self, set: &mut WaitSet, index: usize) {
        set.watch(index, Some(&self.socket));
    }

    pub fn wants_to_write(&self) -> bool {
        !self.output.is_empty()
    }

    /// For the next [`Link::send`] to take along.
    pub fn put(&mut self, request: &Request) -> Result<(), LinkError> {
        Ok(put_frame(&mut self.output, request, &[])?)
    }

    pub fn send(&mut self, request: &Request) -> Result<(), LinkError> {
        self.send_with(request, &[])
    }

    pub fn send_with(&mut self, request: &Request, payload: &[u8]) -> Result<(), LinkError> {
        put_frame(&mut self.output, request, payload)?;
        self.flush()
    }

    /// Sleeps until this process's latch is set, the socket is ready, or the time is over. Interrupts are not served.
    pub fn wait(&self, timeout: Duration) {
        latch::wait_socket(&self.socket, self.wants_to_write(), timeout);
    }

    /// The same, as a wait for an advisory lock.
    pub fn wait_for_lock(&self, timeout: Duration, of: GroupLock) {
        latch::wait_for_lock(&self.socket, self.wants_to_write(), timeout, of);
    }

    /// Itself, unless the other end has hung up.
    pub fn if_open(mut self) -> Option<Link> {
        self.read().is_ok().then_some(self)
    }

    pub fn flush(&mut self) -> Result<(), LinkError> {
        while !self.output.is_empty() {
            match self.socket.send(&self.output) {
                Ok(sent) => drop(self.output.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads once. Returns how many bytes came, 0 when there are none for now.
    pub fn read(&mut self) -> Result<usize, LinkError> {
        match self.socket.recv(&mut self.scratch) {
            Ok(0) => Err(LinkError::Closed),
            Ok(read) => {
                self.make_room();
                self.input.extend_from_slice(&self.scratch[..read]);
                Ok(read)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    fn make_room(&mut self) {
        if self.consumed == self.input.len() {
            self.input.clear();
            self.input.shrink_to(BUFFER_BYTES_KEPT);
        } else if self.consumed > 0 {
            self.input.drain(..self.consumed);
        }
        self.consumed = 0;
    }

    /// The frame at the front of the input, if all of it is there. It stays there until [`Link::consume`].
    pub fn front(&self) -> Result<Option<Frame<'_>>, LinkError> {
        let input = &self.input[self.consumed..];
        match frame_len(input)? {
            Some(length) if length <= input.len() => {
                let (reply, payload) = decode_frame::<Reply>(&input[..length])?;
                Ok(Some(Frame { reply, payload, length }))
            }
            _ => Ok(None),
        }
    }

    pub fn consume(&mut self, length: usize) {
        self.consumed += length;
    }
}

//! A backend's own connection to gcs: it only writes. Answers come through the manager.
//!
//! Opened at the first commit and kept. When gcs went away it is opened again; what was written to the old one may or
//! may not have arrived, which the tag makes harmless.

use std::io;
use std::time::{Duration, Instant};

use gcs_writeset::link::{PROTOCOL, Request, Role, put_frame};
use gcs_writeset::wire::WireError;

use crate::guc;
use crate::pg::latch;
use crate::pg::socket::Socket;
use crate::shmem::{DatabaseArea, Shared};

#[derive(Default)]
pub struct Connection {
    socket: Option<Socket>,
}

/// How far a frame got.
#[derive(Debug)]
pub enum Sent {
    /// The kernel has all of it.
    Whole,
    /// None of it left this process.
    Nothing(io::Error),
    /// Some of it may have arrived.
    Perhaps(io::Error),
}

impl Connection {
    /// Makes sure that there is a connection that was alive a moment ago.
    pub fn open(&mut self, shared: &Shared, database: &DatabaseArea) -> io::Result<()> {
        if self.is_alive() {
            return Ok(());
        }
        self.socket = None;
        let socket = Socket::connect(&guc::gcs_socket())?;
        let hello = Request::Hello {
            protocol: PROTOCOL,
            role: Role::Backend,
            database: database.state.name.get(),
            group: Some(database.state.group.get()),
            incarnation: shared.incarnation(),
        };
        let mut frame = Vec::with_capacity(128);
        put_frame(&mut frame, &hello, &[]).map_err(too_large)?;
        // A fresh socket's buffer has room for a greeting.
        match socket.send(&frame) {
            Ok(sent) if sent == frame.len() => {}
            Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) => return Err(error),
        }
        self.socket = Some(socket);
        Ok(())
    }

    pub fn close(&mut self) {
        self.socket = None;
    }

    /// Drains what gcs said (a welcome, nothing else) and finds out whether it hung up.
    pub fn is_alive(&mut self) -> bool {
        let Some(socket) = &self.socket else { return false };
        let mut buffer = [0u8; 512];
        loop {
            match socket.recv(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.socket = None;
        false
    }

    /// Writes a whole frame, waiting for room until `deadline`. `must_stop` is asked whenever the wait is interrupted, and only
    /// while nothing was written.
    pub fn send(&mut self, frame: &[u8], deadline: Instant, must_stop: impl Fn() -> bool) -> Sent {
        let Some(socket) = &self.socket else { return Sent::Nothing(io::ErrorKind::NotConnected.into()) };
        let mut written = 0;
        let error = loop {
            match socket.send(&frame[written..]) {
                Ok(sent) => written += sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() || (written == 0 && must_stop()) {
                        break io::ErrorKind::TimedOut.into();
                    }
                    latch::wait_writable(socket, left.min(Duration::from_secs(1)));
                }
                Err(error) => break error,
            }
            if written == frame.len() {
                return Sent::Whole;
            }
        };
        // Half a frame can't be continued by another one.
        self.socket = None;
        if written == 0 { Sent::Nothing(error) } else { Sent::Perhaps(error) }
    }
}

fn too_large(error: WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

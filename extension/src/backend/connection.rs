//! A backend's own connection to gcs: it only writes. Answers come through the manager.
//!
//! Opened at the first commit and kept. When gcs went away it is opened again; what was written to the old one may or
//! may not have arrived, which the tag makes harmless.

use std::cell::RefCell;
use std::io;
use std::time::Duration;

use gcs_writeset::link::{PROTOCOL, Request, Role, put_frame};
use gcs_writeset::wire::WireError;
use postgres_r_protocol::id::Moment;
use postgres_r_protocol::submission::{Patience, Sent};

use crate::guc;
use crate::node::DatabaseArea;
use crate::pg::socket::Socket;
use crate::pg::{clock, interrupt, latch};

#[derive(Default)]
pub struct Connection {
    socket: Option<Socket>,
}

thread_local! {
    static CONNECTION: RefCell<Connection> = RefCell::default();
}

/// Uses this process's connection.
pub fn with<R>(act: impl FnOnce(&mut Connection) -> R) -> R {
    CONNECTION.with_borrow_mut(act)
}

impl Connection {
    /// Makes sure that there is a connection that was alive a moment ago.
    pub fn open(&mut self, area: &DatabaseArea) -> io::Result<()> {
        if self.is_alive() {
            return Ok(());
        }
        self.socket = None;
        let socket = Socket::connect(&guc::gcs_socket())?;
        let hello = Request::Hello {
            protocol: PROTOCOL,
            role: Role::Backend,
            database: area.replica.name.get(),
            group: Some(area.replica.group.get()),
            incarnation: area.at().server.incarnation,
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

    /// Writes a whole frame, waiting for room in the socket until `deadline`. `patience` says what else ends the wait as long as nothing was
    /// written; interrupts are not served.
    pub fn send(&mut self, frame: &[u8], deadline: Moment, patience: Patience) -> Sent {
        let Some(socket) = &self.socket else { return Sent::Nothing };
        let mut written = 0;
        while written < frame.len() {
            match socket.send(&frame[written..]) {
                Ok(sent) => written += sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = deadline.since(clock::moment());
                    if left.is_zero() || (written == 0 && is_over(patience)) {
                        break;
                    }
                    latch::wait_writable(socket, left.min(Duration::from_secs(1)));
                }
                Err(_) => break,
            }
        }
        if written == frame.len() {
            return Sent::Whole;
        }
        // Half a frame can't be continued by another one.
        self.socket = None;
        if written == 0 { Sent::Nothing } else { Sent::Perhaps }
    }
}

fn is_over(patience: Patience) -> bool {
    match patience {
        Patience::UntilInterrupted => interrupt::pending(),
        Patience::UntilEnding => interrupt::die_pending(),
        Patience::Whole => false,
        Patience::None => true,
    }
}

fn too_large(error: WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

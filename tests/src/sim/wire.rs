//! Connections between the processes of a server and its daemon, as their server's end sees them.
//!
//! Each keeps the order of what is sent. Whoever writes does so into a buffer that outlives it: what a process has sent arrives though the process is
//! gone, and what a daemon has sent can still be read when the daemon is gone; then the end is read.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use gcs_writeset::Incarnation;
use gcs_writeset::link::{Reply, Request};
use postgres_r_protocol::id::ProcNo;

/// A connection, ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// Who is at the server's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    Manager,
    /// A manager too, on the connection on which it fetches single writesets.
    Fetcher,
    Backend,
    /// A backend too, which asks other nodes to apply its transaction ahead.
    Asker,
    Forerunner,
}

/// From the server to its daemon.
#[derive(Clone, Debug)]
pub enum Up {
    Hello {
        caller: Caller,
        incarnation: Incarnation,
    },
    Request(Request),
    /// One frame, as a backend has written it.
    Frame(Bytes),
    Closed,
}

/// From the daemon to its server.
#[derive(Clone, Debug)]
pub enum Down {
    Frame(Reply, Bytes),
    Closed,
}

#[derive(Debug)]
struct End {
    owner: ProcNo,
    /// What has come and was not read.
    input: VecDeque<(Reply, Bytes)>,
    /// The daemon's end is closed.
    is_closed: bool,
}

/// All ends of one server.
#[derive(Debug, Default)]
pub struct Ends {
    ends: BTreeMap<ConnId, End>,
    /// Counts connections of all lives of the server.
    opened: u64,
    /// Whether the daemon can be reached.
    pub daemon_is_there: bool,
}

impl Ends {
    pub fn open(&mut self, owner: ProcNo) -> Option<ConnId> {
        if !self.daemon_is_there {
            return None;
        }
        self.opened += 1;
        let conn = ConnId(self.opened);
        self.ends.insert(conn, End { owner, input: VecDeque::new(), is_closed: false });
        Some(conn)
    }

    /// The server's end is closed. False if it was before.
    pub fn close(&mut self, conn: ConnId) -> bool {
        self.ends.remove(&conn).is_some()
    }

    pub fn close_all(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.ends).into_keys().collect()
    }

    pub fn all(&self) -> Vec<ConnId> {
        self.ends.keys().copied().collect()
    }

    pub fn of(&self, owner: ProcNo) -> Vec<ConnId> {
        self.ends.iter().filter(|(_, end)| end.owner == owner).map(|(conn, _)| *conn).collect()
    }

    pub fn is_open(&self, conn: ConnId) -> bool {
        self.ends.get(&conn).is_some_and(|end| !end.is_closed)
    }

    /// Takes in what has come; whom to wake. What comes after the end is lost.
    pub fn receive(&mut self, conn: ConnId, down: Down) -> Option<ProcNo> {
        let end = self.ends.get_mut(&conn).filter(|end| !end.is_closed)?;
        match down {
            Down::Frame(reply, payload) => end.input.push_back((reply, payload)),
            Down::Closed => end.is_closed = true,
        }
        Some(end.owner)
    }

    /// The frame that is to be read next, which stays.
    pub fn front(&self, conn: ConnId) -> Option<(Reply, Bytes)> {
        self.ends.get(&conn)?.input.front().cloned()
    }

    pub fn consume(&mut self, conn: ConnId) {
        if let Some(end) = self.ends.get_mut(&conn) {
            end.input.pop_front();
        }
    }

    /// Everything was read, and no more will come.
    pub fn is_over(&self, conn: ConnId) -> bool {
        self.ends.get(&conn).is_none_or(|end| end.is_closed && end.input.is_empty())
    }
}

//! What those who look on are told of a moment: plain values, taken between two steps, that can go to another thread.

use std::collections::BTreeMap;

use gcs_writeset::link::{ConflictCount, GroupStatus};
use gcs_writeset::{DatabaseId, NodeId, NodeKind, Position};

use super::followed::Course;
use crate::history::event::Event;

#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub me: NodeId,
    pub node: String,
    pub group: String,
    pub kind: NodeKind,
    /// Why this node is no member any more.
    pub removed: Option<String>,
    /// Clients are sent elsewhere.
    pub is_draining: bool,
    pub status: GroupStatus,
    pub databases: Vec<Database>,
    pub peers: Vec<Peer>,
    pub log: Log,
    pub queues: Queues,
    pub certificates: Vec<Certificate>,
    /// For the page only: commits that were followed, the newest last, and conflicts lost here, by database.
    pub courses: Vec<Course>,
    pub lost: BTreeMap<String, Vec<ConflictCount>>,
    /// For the page only: what has happened lately, the newest last.
    pub events: Vec<Event>,
}

impl Snapshot {
    pub fn leads(&self) -> bool {
        self.status.leader == Some(self.me)
    }
}

/// What a database of the group is on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Service {
    /// It never was, or has been taken out of replication here.
    #[default]
    Absent,
    /// Its PostgreSQL is not connected.
    Detached,
    /// Its PostgreSQL is connected, and no position flows yet.
    Attaching,
    /// It gets a copy, or cannot apply what was ordered.
    OutOfService,
    /// Positions flow; clients are not let in before it is where the group was when it attached.
    CatchingUp,
    Serving,
}

impl Service {
    pub fn name(self) -> &'static str {
        match self {
            Service::Absent => "absent",
            Service::Detached => "detached",
            Service::Attaching => "attaching",
            Service::OutOfService => "out of service",
            Service::CatchingUp => "catching up",
            Service::Serving => "serving",
        }
    }
}

/// Positions are those of this database; 0 stands for none.
#[derive(Clone, Debug, Default)]
pub struct Database {
    pub id: DatabaseId,
    pub name: String,
    pub service: Service,
    /// The last one ordered, as known here.
    pub ordered: Position,
    /// What whoever asked found to be the last one of the group, when it asked; none if nobody has, or there was no answer.
    pub of_group: Option<Position>,
    /// The last one handed to PostgreSQL.
    pub received: Position,
    /// The last one that clients see here, as PostgreSQL said.
    pub applied: Position,
    /// The last one that the group knows to be visible here, and to be on this node's disk.
    pub acknowledged: Position,
    pub flushed: Position,
    /// The oldest one that a transaction anywhere may still rest on, and the one up to which certification has forgotten.
    pub oldest_base: Position,
    pub horizon: Position,
    /// Bytes that wait for PostgreSQL's socket.
    pub queue_bytes: usize,
    pub standings: Vec<Standing>,
    pub locks_held: usize,
    pub locks_waiting: usize,
}

/// How far a member is with a database, as the group knows.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    pub member: NodeId,
    /// Visible to its clients, and on its disk.
    pub committed: Position,
    pub flushed: Position,
    pub is_out_of_service: bool,
}

/// Another member's daemon.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    pub name: String,
    pub is_up: bool,
    /// Bytes that wait for its socket.
    pub queue_bytes: usize,
    /// On the leader: entries of the log that it has yet to get.
    pub log_behind: Option<u64>,
    /// How many positions it has not made visible, in the database where it lacks most.
    pub lag: u64,
    /// The same, by database.
    pub lags: Vec<(String, u64)>,
}

#[derive(Clone, Debug, Default)]
pub struct Log {
    pub committed: u64,
    pub applied: u64,
    pub bytes_kept: u64,
    pub bytes_max: u64,
    pub bytes_written: u64,
    pub segments: u64,
    /// Of the file system.
    pub bytes_free: Option<u64>,
}

/// What waits inside of the daemon.
#[derive(Clone, Debug, Default)]
pub struct Queues {
    pub inbox_inputs: usize,
    pub inbox_bytes: usize,
    pub unordered_commands: usize,
    pub unordered_bytes: usize,
    pub local_connections: usize,
}

#[derive(Clone, Debug, Default)]
pub struct Certificate {
    pub name: String,
    pub is_authority: bool,
    /// Unix time.
    pub expires: i64,
}

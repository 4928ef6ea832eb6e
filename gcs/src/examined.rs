//! What a daemon answers to whoever wants to know how it finds itself, its peers and the group: plain values, as JSON on the local socket.
//!
//! Asked by a person's commands (`gcs doctor`, `gcs status -v`), of the daemon of this node. A command may be newer than the daemon, or older: what one of them does not know is
//! left out, or passed over. The daemon says what it found; what is good or bad of it is for whoever asked.

use gcs_writeset::link::ServerPlace;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Examination {
    pub version: String,
    pub group: String,
    pub node: String,
    pub role: String,
    /// Why this node is no member any more.
    pub removed: Option<String>,
    pub is_draining: bool,
    pub quorum: bool,
    pub leader: Option<String>,
    pub term: u64,
    pub members: Vec<Member>,
    pub databases: Vec<Database>,
    pub log: Log,
    /// Those in force; none without TLS.
    pub certificates: Vec<Certificate>,
    pub strangers: Option<Strangers>,
    /// Where this node's PostgreSQL is, or was when it was last attached.
    pub server: Option<Server>,
}

/// One of the group, this node included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Member {
    pub name: String,
    pub address: String,
    pub role: String,
    /// As `gcs status` has it.
    pub state: String,
    pub is_self: bool,
    pub is_connected: bool,
    /// Positions that it does not show yet, by its last report in the order, in the database where it lacks most.
    pub lag: u64,
    /// Databases of which it has not shown within a second what had been ordered before the question.
    pub not_shown: Vec<String>,
    /// On the leader: entries of the log that it has yet to get.
    pub log_behind: Option<u64>,
    /// Of its daemon; none if it has not answered.
    pub version: Option<String>,
    /// By how much its clock is ahead of this node's, in milliseconds, and how wrong that can be; none if it has not answered.
    pub clock_ahead_ms: Option<i64>,
    pub clock_error_ms: i64,
    /// Where its PostgreSQL listens; none if none has attached, or it has not answered.
    pub port: Option<u16>,
    pub databases: Vec<MemberDatabase>,
}

/// How far a member is behind in a database, in positions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemberDatabase {
    pub name: String,
    /// Ordered, and not handed to its PostgreSQL; known of this node only.
    pub receive_lag: Option<u64>,
    /// Handed to PostgreSQL (of another member: ordered), and not visible.
    pub apply_lag: u64,
}

/// What a database of the group is on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Database {
    pub name: String,
    /// `absent`, `detached`, `attaching`, `out of service`, `catching up`, `serving`.
    pub service: String,
    /// Positions: ordered, of the group if it could be asked; handed to PostgreSQL; visible.
    pub ordered: u64,
    pub received: u64,
    pub applied: u64,
    /// The position that could not be applied in its turn, time and again: what the database holds is not what the group holds.
    pub cannot_apply: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    pub bytes_kept: u64,
    pub bytes_max: u64,
    pub bytes_a_second: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Certificate {
    pub name: String,
    pub is_authority: bool,
    /// Unix time.
    pub expires: i64,
}

/// Programs of another protocol that have come to the local socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Strangers {
    /// What the last one spoke, and what this daemon speaks.
    pub protocol: u32,
    pub own: u32,
    pub seconds_ago: u64,
}

/// Where a PostgreSQL server is, for programs on its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Server {
    pub socket_directory: String,
    pub port: u16,
    pub user: String,
}

impl Server {
    pub fn of(place: &ServerPlace) -> Server {
        Server { socket_directory: place.socket_directory.clone(), port: place.port, user: place.user.clone() }
    }
}

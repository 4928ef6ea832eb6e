//! What `gcs doctor` has gathered, before anybody judges it.

use std::path::PathBuf;

use crate::examined::{Examination, Server};
use crate::tls::Moment;
use crate::verified::Verification;

#[derive(Clone, Debug)]
pub struct Facts {
    pub now: Moment,
    pub here: Here,
    pub daemon: Daemon,
    pub certificates: Result<Vec<Certificate>, String>,
    pub disks: Vec<Disk>,
    pub postgresql: Postgresql,
    pub verifications: Vec<Verification>,
}

/// This node, as its configuration has it.
#[derive(Clone, Debug, Default)]
pub struct Here {
    pub config_file: String,
    pub node: String,
    pub group: String,
    pub socket: PathBuf,
    /// A witness has none.
    pub has_databases: bool,
    /// Of this program.
    pub version: String,
}

/// What the daemon of this node said, if it did.
#[derive(Clone, Debug)]
pub enum Daemon {
    Answers(Box<Examination>),
    /// Nobody listens on the socket; the process that holds the data directory, if one does.
    Silent {
        why: String,
        process: Option<u32>,
    },
    /// Somebody listens, and has not answered.
    Hangs {
        why: String,
    },
    /// It speaks another protocol.
    Foreign {
        why: String,
    },
    /// It has refused.
    Refuses {
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub name: String,
    pub is_authority: bool,
    pub expires: Moment,
}

#[derive(Clone, Debug)]
pub struct Disk {
    /// What lies there, and where.
    pub what: &'static str,
    pub path: PathBuf,
    pub room: Result<Room, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// For those who are not root.
    pub bytes_free: u64,
    pub bytes_total: u64,
}

#[derive(Clone, Debug)]
pub enum Postgresql {
    /// Nobody has said where it is.
    Nowhere,
    /// It was looked for there in vain.
    Silent {
        at: Server,
        why: String,
    },
    /// It is there, and lets nobody in who asks like this.
    Refuses {
        at: Server,
        why: String,
    },
    Answers(Box<Asked>),
}

/// What PostgreSQL said.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub at: Server,
    pub shared_preload_libraries: String,
    /// Where the extension looks for the daemon; none if it is not loaded.
    pub gcs_socket: Option<PathBuf>,
    /// The version of the extension that is installed on this machine.
    pub extension: Option<String>,
    /// By database, the version of the extension that it has.
    pub extensions: Vec<(String, String)>,
    pub connections: i64,
    pub max_connections: i64,
    pub holders: Vec<Holder>,
    /// The transaction that has been open for longest.
    pub oldest: Option<Open>,
    pub slots: Vec<Slot>,
    pub failures: Vec<Failure>,
}

/// A session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Open {
    pub pid: i32,
    pub database: String,
    pub user: String,
    /// As in pg_stat_activity.
    pub state: String,
    /// Of its transaction.
    pub seconds: i64,
}

/// A session that others wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    pub session: Open,
    pub waiting: i64,
    pub longest_seconds: i64,
}

/// A replication slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    pub name: String,
    pub is_active: bool,
    /// As in pg_replication_slots.
    pub wal_status: String,
    pub wal_bytes: i64,
}

/// What a database cannot apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    pub database: String,
    pub position: i64,
    pub sqlstate: String,
    pub reason: String,
}

impl Facts {
    /// The daemon's own words, if it has said any, and is the one that was meant.
    pub fn examination(&self) -> Option<&Examination> {
        match &self.daemon {
            Daemon::Answers(found) if found.group == self.here.group && found.node == self.here.node => Some(found),
            _ => None,
        }
    }

    pub fn asked(&self) -> Option<&Asked> {
        match &self.postgresql {
            Postgresql::Answers(asked) => Some(asked),
            _ => None,
        }
    }
}

//! This node's sessions that use group locks, and what they wait for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gcs_writeset::{DatabaseId, Key, LockOp};

use crate::api::Tick;

/// A connection of a backend, by the driver's number.
pub type Connection = u64;

#[derive(Debug)]
pub(super) struct Session {
    pub database: DatabaseId,
    /// In the present life; none before that has begun.
    pub number: Option<u64>,
    /// What waits for the request before it.
    pub queue: VecDeque<(u64, LockOp)>,
    pub is_busy: bool,
}

#[derive(Debug, Default)]
pub(super) struct Lockers {
    /// Another number in every life of this daemon.
    pub process: u64,
    /// In which locks were last asked for.
    pub database: Option<DatabaseId>,
    /// Since when there have been no sessions.
    pub idle_since: Option<Tick>,
    /// When the present life, or the one that is about to begin, was first asked for.
    pub asked_at: Option<Tick>,
    /// The present life, if it was begun here.
    pub life: Option<u64>,
    /// Sessions ever numbered in it.
    pub numbered: u64,
    pub sessions: BTreeMap<Connection, Session>,
    pub by_number: BTreeMap<u64, Connection>,
    /// Rows that the server was told of lately, since other nodes fight over them; and when it is to be told again.
    pub contended: BTreeSet<(DatabaseId, Key)>,
    pub contended_until: Tick,
}

impl Lockers {
    /// All sessions that have asked for anything in the present life are over; it too.
    pub(super) fn end(&mut self) -> Vec<Connection> {
        self.life = None;
        self.asked_at = None;
        self.idle_since = None;
        self.numbered = 0;
        self.by_number.clear();
        let gone = self.sessions.extract_if(.., |_, session| session.number.is_some());
        gone.map(|(connection, _)| connection).collect()
    }
}

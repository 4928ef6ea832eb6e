//! The daemon around a core: what the real one does, in simulated time.
//!
//! Inputs gather while a write is being made. The stream to PostgreSQL is served from what is written down, like the real
//! one's: from wherever PostgreSQL says it is, as far as it reads.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use gcs_core::certify::Planted;
use gcs_core::{Core, Effects, Input, Tick};
use gcs_writeset::link::{Reply, Verdict};
use gcs_writeset::{DatabaseId, Incarnation, NodeId, Position, Tag};

use super::ahead::{Errand, Task};
use super::disk::{Disk, SimLog};
use super::fact::Delivery;
use super::wire::{Caller, ConnId};

/// Frames of the stream that wait to be read. At the bound it stops.
pub const UNREAD_MAX: usize = 24;

pub struct Daemon {
    pub core: Core<SimLog, Planted>,
    pub now: Tick,
    pub inbox: Vec<Input>,
    /// Whether a run is planned.
    pub awake: bool,
    /// Effects whose write is under way.
    pub writing: Option<Effects>,
    pub quorum: bool,
    /// Up peers as the daemon knows.
    pub peers: Vec<NodeId>,
    /// Known once it has been attached since this daemon started.
    pub database: Option<DatabaseId>,
    /// The last position that was handed on: everything up to it is written down.
    pub head: Position,
    pub sessions: BTreeMap<ConnId, Session>,
    /// What no forerunner has been given yet.
    pub waiting: Vec<Task>,
}

/// A connection of PostgreSQL's.
#[derive(Debug)]
pub struct Session {
    pub caller: Caller,
    pub incarnation: Incarnation,
    pub phase: Phase,
    /// The rest of a writeset, which goes before anything else of the stream.
    pub parts: VecDeque<Frame>,
    /// What it has asked for.
    pub fetches: VecDeque<Position>,
    /// Frames that were not read yet.
    pub unread: usize,
    /// Whether its next frames are planned.
    pub is_fed: bool,
    /// What its client has asked other nodes.
    pub errand: Option<Errand>,
    /// What its forerunner is busy with.
    pub task: Option<Task>,
}

pub type Frame = (Reply, Bytes);

/// Where a manager's connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Greeted,
    /// The attach has yet to be ordered.
    Attaching(Position),
    /// The next position of the stream.
    Streaming(Position),
}

impl Session {
    pub fn new(caller: Caller, incarnation: Incarnation) -> Session {
        Session {
            caller,
            incarnation,
            phase: Phase::Greeted,
            parts: VecDeque::new(),
            fetches: VecDeque::new(),
            unread: 0,
            is_fed: false,
            errand: None,
            task: None,
        }
    }
}

impl Daemon {
    pub fn new(core: Core<SimLog, Planted>) -> Daemon {
        Daemon {
            core,
            now: Tick(0),
            inbox: Vec::new(),
            awake: false,
            writing: None,
            quorum: false,
            peers: Vec::new(),
            database: None,
            head: Position::ZERO,
            sessions: BTreeMap::new(),
            waiting: Vec::new(),
        }
    }

    /// The connection on which answers to this tag go.
    pub fn manager_of(&self, tag: Tag) -> Option<ConnId> {
        let is_it = |session: &Session| {
            session.caller == Caller::Manager
                && session.incarnation == tag.incarnation
                && matches!(session.phase, Phase::Streaming(_))
        };
        self.sessions.iter().find(|(_, session)| is_it(session)).map(|(conn, _)| *conn)
    }

    /// Whether a forerunner has applied the transaction with this tag, and keeps it open.
    pub fn withholds(&self, tag: Tag) -> bool {
        self.sessions.values().filter_map(|session| session.task.as_ref()).any(|task| task.withholds(tag))
    }
}

/// A position as a frame of the stream, and the parts that follow. `to`: its own writesets are not sent back to it. Nor are those sent that are withheld, if they
/// came in chunks.
pub fn stream_frames(delivery: &Delivery, node: NodeId, to: Incarnation, is_withheld: bool) -> VecDeque<Frame> {
    let (position, tag, verdict) = (delivery.outcome.position, delivery.tag, delivery.outcome.verdict);
    let is_own = tag.node == node && tag.incarnation == to;
    let is_withheld = is_withheld && !delivery.chunks.is_empty();
    let is_carried = matches!(verdict, Verdict::Certified { .. }) && !is_own && !is_withheld;
    let payload = if is_carried { delivery.writeset.clone() } else { Bytes::new() };
    let chunks: &[Bytes] = if is_carried { &delivery.chunks } else { &[] };
    let first = Reply::Ordered { position, tag, verdict, more: !chunks.is_empty() };
    with_chunks(position, (first, payload), chunks)
}

/// What answers a fetch.
pub fn fetched_frames(delivery: &Delivery) -> VecDeque<Frame> {
    let position = delivery.outcome.position;
    let first = Reply::Body { position, more: !delivery.chunks.is_empty() };
    with_chunks(position, (first, delivery.writeset.clone()), &delivery.chunks)
}

fn with_chunks(position: Position, first: Frame, chunks: &[Bytes]) -> VecDeque<Frame> {
    let part = |(index, chunk): (usize, &Bytes)| (Reply::Body { position, more: index + 1 < chunks.len() }, chunk.clone());
    std::iter::once(first).chain(chunks.iter().enumerate().map(part)).collect()
}

/// Puts a delivery together from what is on disk. `None`: the log no longer has it.
pub fn read_delivery(disk: &Disk, database: DatabaseId, position: Position) -> Option<Rc<Delivery>> {
    let (index, outcome) = disk.outcome(database, position)?.clone();
    let at = gcs_core::LogRef { index, ordinal: outcome.ordinal };
    let (tag, writeset) = disk.payload(at)?;
    let mut chunks = Vec::new();
    // Of aborted positions nobody needs the chunks, and the log may have lost them.
    if let Verdict::Certified { .. } = outcome.verdict {
        for chunk in &outcome.chunks {
            chunks.push(disk.payload(*chunk)?.1);
        }
    }
    let mut body = chunks.concat();
    if let Ok((_, rest)) = gcs_writeset::writeset::Envelope::decode(&writeset) {
        body.extend_from_slice(rest);
    }
    Some(Rc::new(Delivery { index, outcome, tag, writeset, chunks, body: body.into() }))
}

//! The daemon around a core: what the real one does, in simulated time.
//!
//! Inputs gather while a write is being made. The stream to PostgreSQL is served from what is written down, like the real
//! one's: from wherever PostgreSQL says it is.

use std::rc::Rc;

use gcs_core::certify::Planted;
use gcs_core::{Core, Effects, Input, LocalReply, Tick};
use gcs_writeset::link::Verdict;
use gcs_writeset::{DatabaseId, Incarnation, NodeId, Position};

use super::disk::{Disk, SimLog};
use super::fact::Delivery;

pub struct Daemon {
    pub core: Core<SimLog, Planted>,
    pub now: Tick,
    pub inbox: Vec<Input>,
    /// Whether a run is planned.
    pub awake: bool,
    /// Effects whose write is under way.
    pub writing: Option<Effects>,
    /// What PostgreSQL asked for and is not yet attached for.
    pub asked: Option<(Incarnation, Position)>,
    pub stream: Option<Stream>,
    pub quorum: bool,
    /// Up peers as the daemon knows.
    pub peers: Vec<NodeId>,
}

/// What PostgreSQL has been given.
#[derive(Debug)]
pub struct Stream {
    pub database: DatabaseId,
    pub next: Position,
}

impl Daemon {
    pub fn new(core: Core<SimLog, Planted>) -> Daemon {
        Daemon {
            core,
            now: Tick(0),
            inbox: Vec::new(),
            awake: false,
            writing: None,
            asked: None,
            stream: None,
            quorum: false,
            peers: Vec::new(),
        }
    }

    /// PostgreSQL is attached: the stream begins where it asked for.
    pub fn attached(&mut self, reply: &LocalReply) {
        if let LocalReply::Attached { database, incarnation, .. } = reply
            && let Some((_, resume_after)) = self.asked.take_if(|(asked, _)| asked == incarnation)
        {
            self.stream = Some(Stream { database: *database, next: resume_after.next() });
        }
    }
}

/// Puts a delivery together from what is on disk. `None`: the log no longer has it.
pub fn read_delivery(disk: &Disk, database: DatabaseId, position: Position) -> Option<Rc<Delivery>> {
    let (index, outcome) = disk.outcome(database, position)?.clone();
    let at = gcs_core::LogRef { index, ordinal: outcome.ordinal };
    let (tag, writeset) = disk.payload(at)?;
    let mut body = Vec::new();
    // Of aborted positions nobody needs the chunks, and the log may have lost them.
    if let Verdict::Certified { .. } = outcome.verdict {
        for chunk in &outcome.chunks {
            body.extend_from_slice(&disk.payload(*chunk)?.1);
        }
    }
    if let Ok((_, rest)) = gcs_writeset::writeset::Envelope::decode(&writeset) {
        body.extend_from_slice(rest);
    }
    Some(Rc::new(Delivery { index, outcome, tag, writeset, body: body.into() }))
}

//! What becomes of each frame of the manager's stream from gcs: verdicts go to slots and into the gate, writesets of other nodes into the apply
//! queue, everything else into the replica's record.
//!
//! Every position is taken exactly once: what is at or below the gate's known position came before and is passed over, a gap is an error of
//! the protocol. What there is no room for stays with the caller ([`Taken::Stalled`]).

use std::io;

use gcs_writeset::link::{AbortCause, Failure, GroupStatus, Reply, Verdict};
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{NodeId, Position, Sequence, SlotId, Tag};

use crate::assembly::{Assembly, Spool};
use crate::ending::free;
use crate::gate::Job;
use crate::heat::millis;
use crate::id::ProcNo;
use crate::platform::{Exclusion, Platform, Wake};
use crate::progress::{Progress, Stage, Whose};
use crate::replica::At;
use crate::slot::{Slot, State, Told};
use crate::{forerunner, pool, queue, turn};

/// What a frame meant for the manager itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    Done,
    /// There is no room for it now; it must be given again.
    Stalled,
    Welcome,
    Attached,
    Detached,
    /// Something is to be applied ahead, and no forerunner is free.
    ForerunnerWanted,
    /// Somebody looks at the conflicts.
    Conflicts,
    /// The group's state changed. Whether it has a majority.
    Quorum(bool),
    Failed(Failure),
}

/// Why a connection to gcs cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("{0}")]
    Protocol(String),
    #[error("cannot write to the spool: {0}")]
    Spool(#[from] io::Error),
}

/// Of the manager's own process.
#[derive(Clone, Copy)]
pub struct Me<'a> {
    pub pid: i32,
    pub progress: &'a Progress,
    /// Microseconds since 2000: now.
    pub at: i64,
}

pub struct Dispatch<S: Spool> {
    pub spool: S,
    /// The writeset that is coming in, and where it belongs.
    half: Option<(Assembly<S::File>, Position, NodeId)>,
}

impl<S: Spool> Dispatch<S> {
    pub fn new(spool: S) -> Dispatch<S> {
        Dispatch { spool, half: None }
    }

    /// The link is gone; what was half here will come again.
    pub fn link_lost(&mut self, progress: &Progress) {
        progress.clear();
        if let Some((half, ..)) = self.half.take() {
            half.discard();
        }
    }

    pub fn take<P: Platform>(
        &mut self,
        at: At<'_, P>,
        me: Me<'_>,
        members: &P::Lock,
        reply: &Reply,
        payload: &[u8],
    ) -> Result<Taken, Trouble> {
        match reply {
            Reply::Ordered { position, tag, verdict, more } => {
                return self.ordered(at, me, *position, tag, *verdict, payload, *more);
            }
            Reply::Body { position, more } => self.body(at, me, *position, *more, payload)?,
            Reply::ChunkOrdered { slot, sequence, index } => {
                tell(at, *slot, |slot| slot.chunk_ordered(*sequence, *index));
            }
            Reply::Refused { slot, sequence, reason } => {
                tell(at, *slot, |slot| slot.refuse(*sequence, *reason));
            }
            Reply::TokenOutcome { slot, sequence, outcome } => {
                tell(at, *slot, |slot| slot.answer_question(*sequence, *outcome));
            }
            Reply::Group(status) => return Ok(group(at, members, status)),
            Reply::Welcome { node, ordinal, .. } => {
                at.database.replica.welcomed(*node, *ordinal);
                return Ok(Taken::Welcome);
            }
            Reply::Attached { database, serve_from } => {
                at.database.replica.attached_as(*database, *serve_from);
                return Ok(Taken::Attached);
            }
            Reply::AskConflicts => return Ok(Taken::Conflicts),
            Reply::ForerunnerWanted => return Ok(Taken::ForerunnerWanted),
            Reply::Detached => return Ok(Taken::Detached),
            Reply::Failed(failure) => return Ok(Taken::Failed(failure.clone())),
            Reply::Drain(drain) => at.database.replica.turnaway.store((*drain).into()),
            Reply::Contended { key } => at.database.heat.contended_elsewhere(*key, millis(me.at)),
            Reply::AheadOver { tag } => forerunner::over(at, tag),
            Reply::Watch { position } => at.database.replica.asked.wait_for(*position),
            Reply::Rehearsing { .. }
            | Reply::Rehearsed { .. }
            | Reply::Rehearse { .. }
            | Reply::Clear { .. }
            | Reply::Ahead { .. }
            | Reply::Over { .. }
            | Reply::ReadFrom { .. }
            | Reply::ReadRefused { .. }
            | Reply::Showing { .. }
            | Reply::Shown { .. }
            | Reply::Lock { .. }
            | Reply::LockRefused { .. }
            | Reply::Certificates(_)
            | Reply::Place(_)
            | Reply::Log(_)
            | Reply::Report
            | Reply::Draining { .. }
            | Reply::Done => {
                return Err(Trouble::Protocol("a frame on the wrong connection".into()));
            }
        }
        Ok(Taken::Done)
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one frame")]
    fn ordered<P: Platform>(
        &mut self,
        at: At<'_, P>,
        me: Me<'_>,
        position: Position,
        tag: &Tag,
        verdict: Verdict,
        payload: &[u8],
        more: bool,
    ) -> Result<Taken, Trouble> {
        let gate = &at.database.gate;
        if position <= gate.known() {
            return Ok(Taken::Done);
        }
        if position != gate.known().next() {
            return Err(Trouble::Protocol(format!("position {position} came after {}", gate.known())));
        }
        if gate.ahead() >= gate.window() {
            return Ok(Taken::Stalled);
        }
        match verdict {
            Verdict::Aborted(cause) => {
                if is_ours(at, tag) {
                    tell(at, tag.slot, |slot| slot.refute(tag.sequence, position, cause));
                } else {
                    forerunner::aborted(at, position, tag, cause);
                }
                if let Some(moved) = gate.add_aborted(position) {
                    turn::announce(at, moved);
                }
                Ok(Taken::Done)
            }
            Verdict::Certified { depends_on } if is_ours(at, tag) => {
                certified_here(at, position, tag.slot, tag.sequence, depends_on);
                Ok(Taken::Done)
            }
            Verdict::Certified { depends_on } if payload.is_empty() => {
                forerunner::certified(at, position, tag, depends_on);
                Ok(Taken::Done)
            }
            Verdict::Certified { depends_on } => self.certified_elsewhere(at, me, position, tag, depends_on, payload, more),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one frame")]
    fn certified_elsewhere<P: Platform>(
        &mut self,
        at: At<'_, P>,
        me: Me<'_>,
        position: Position,
        tag: &Tag,
        depends_on: Position,
        payload: &[u8],
        more: bool,
    ) -> Result<Taken, Trouble> {
        let node = tag.node;
        // One that has applied it came too late.
        forerunner::aborted(at, position, tag, AbortCause::Malformed);
        at.database.recent.note(position, node, Envelope::peek_application(payload).unwrap_or_default());
        if !more {
            if let Some(storage) = queue::place_in_ring(at.database, payload) {
                add_queued(at, Job { position, depends_on, node, storage });
                return Ok(Taken::Done);
            }
            // A small one waits for room, unless it would keep from somebody the verdict that stands behind it: the room may be made only
            // when that transaction has let go of its locks. (Fetched writesets come on a connection of their own.)
            if queue::fits_ring(at.database, payload.len()) && !awaits_verdict(at) {
                return Ok(Taken::Stalled);
            }
        }
        let mut half = Assembly::new(position);
        half.add(&self.spool, payload, me.progress)?;
        if more {
            let whose = Whose { pid: me.pid, database: at.database.index, node, started_at: me.at };
            me.progress.start(whose, position, Stage::Receiving);
            self.half = Some((half, depends_on, node));
        } else {
            at.database.replica.counters.spooled.one();
            add_queued(at, Job { position, depends_on, node, storage: half.finish(&self.spool)? });
        }
        Ok(Taken::Done)
    }

    /// The next part of the writeset that is coming in.
    fn body<P: Platform>(
        &mut self,
        at: At<'_, P>,
        me: Me<'_>,
        position: Position,
        more: bool,
        part: &[u8],
    ) -> Result<(), Trouble> {
        let Some((half, ..)) = self.half.as_mut().filter(|(half, ..)| half.position() == position) else {
            return Err(Trouble::Protocol(format!("a part of position {position} came out of place")));
        };
        half.add(&self.spool, part, me.progress)?;
        if more {
            return Ok(());
        }
        if let Some((half, depends_on, node)) = self.half.take() {
            me.progress.clear();
            at.database.replica.counters.spooled.one();
            add_queued(at, Job { position, depends_on, node, storage: half.finish(&self.spool)? });
        }
        Ok(())
    }
}

fn add_queued<P: Platform>(at: At<'_, P>, job: Job) {
    at.database.gate.add_queued(&job);
    pool::queued(at);
}

/// Whoever wins the slot's word decides who commits: the backend, or the remote backends.
fn certified_here<P: Platform>(at: At<'_, P>, position: Position, slot: SlotId, sequence: Sequence, depends_on: Position) {
    let (gate, process) = (&at.database.gate, ProcNo(slot.0));
    let told = at.server.slot_of(process).map_or(Told::NobodyWaits, |slot| {
        at.database.recent.note(position, at.database.replica.node(), &slot.application());
        let owner = (at.database.replica.node(), process);
        slot.certify::<P>(sequence, position, || gate.add_local(position, depends_on, owner))
    });
    match told {
        // Whoever passes the turn on to it will wake it; what it would do until then is to wait. Looked at after the verdict is written: who passes the
        // turn before that wakes a backend that has no verdict yet.
        Told::Told if gate.is_turn(position) => at.server.wake(process),
        Told::Told => {}
        Told::NobodyWaits => {
            at.database.replica.counters.handed_over.one();
            gate.add_orphan(position, depends_on, at.database.replica.node());
        }
        Told::JustLeft => {
            at.database.replica.counters.handed_over.one();
            gate.hand_over(position);
            free(at, process);
        }
    }
}

fn tell<P: Platform>(at: At<'_, P>, slot: SlotId, say: impl FnOnce(&Slot) -> Told) {
    let process = ProcNo(slot.0);
    match at.server.slot_of(process).map_or(Told::NobodyWaits, say) {
        Told::Told => at.server.wake(process),
        Told::NobodyWaits => {}
        Told::JustLeft => free(at, process),
    }
}

fn is_ours<P: Platform>(at: At<'_, P>, tag: &Tag) -> bool {
    tag.node == at.database.replica.node() && tag.incarnation == at.server.incarnation
}

fn group<P: Platform>(at: At<'_, P>, members: &P::Lock, status: &GroupStatus) -> Taken {
    members.exclusive(|| at.database.replica.set_group(status));
    at.server.waker.members_moved(at.database.index);
    Taken::Quorum(status.quorum)
}

/// Whether a submission of this database waits for its verdict.
fn awaits_verdict<P: Platform>(at: At<'_, P>) -> bool {
    let waits = |slot: &&Slot| matches!(slot.state(), State::Sent | State::Deciding | State::Refused);
    at.server.slots.iter().filter(waits).any(|slot| slot.is_in(at.database.index))
}

/// Backends that were waiting when the link went down submit again.
pub(crate) fn wake_waiting<P: Platform>(at: At<'_, P>) {
    for (index, slot) in at.server.slots.iter().enumerate() {
        if matches!(slot.state(), State::Open | State::Sent | State::Refused) && slot.is_in(at.database.index) {
            at.server.wake(ProcNo(index as u32));
        }
    }
}

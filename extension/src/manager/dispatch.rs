//! What gcs says, and what becomes of it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use gcs_writeset::link::{Failure, FailureKind, GroupStatus, Reply, Verdict};
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{NodeId, Position, Sequence, SlotId, Tag};

use crate::apply::{pool, queue};
use crate::commit;
use crate::gate::{self, Job};
use crate::manager::assembly::Assembly;
use crate::manager::link::{Frame, LinkError};
use crate::pg::latch;
use crate::pg::process::ProcNo;
use crate::progress;
use crate::shmem::{DatabaseArea, Shared};
use crate::submit::slot::{Slot, State};

/// What a frame meant for the manager itself.
pub enum Outcome {
    Done,
    /// There is no room for it now; it stays at the front of the input.
    Stalled,
    Welcome,
    Attached,
    Detached,
    Failed(Failure),
}

pub struct Dispatch {
    shared: &'static Shared,
    area: &'static DatabaseArea,
    /// Writesets of which parts are missing.
    assemblies: BTreeMap<Position, Assembly>,
    /// Orphans that were asked for.
    pub fetching: usize,
}

impl Dispatch {
    pub fn new(shared: &'static Shared, area: &'static DatabaseArea) -> Dispatch {
        Dispatch { shared, area, assemblies: BTreeMap::new(), fetching: 0 }
    }

    /// The link is gone; what was half here will come again.
    pub fn link_lost(&mut self) {
        progress::mine().clear();
        for (_, assembly) in std::mem::take(&mut self.assemblies) {
            assembly.discard();
        }
        self.fetching = 0;
    }

    pub fn fetch_sent(&mut self, position: Position) {
        self.assemblies.insert(position, Assembly::fetched(self.area.state.node()));
        self.fetching += 1;
    }

    pub fn handle(&mut self, frame: &Frame<'_>) -> Result<Outcome, LinkError> {
        match &frame.reply {
            Reply::Ordered { position, tag, verdict, more } => {
                return self.ordered(*position, tag, *verdict, *more, frame.payload);
            }
            Reply::Body { position, more } => self.body(*position, *more, frame.payload)?,
            Reply::ChunkOrdered { slot, sequence, index } => self.chunk_ordered(*slot, *sequence, *index),
            Reply::Refused { slot, sequence, reason } => {
                if let Some((slot, place)) = self.slot(*slot)
                    && slot.refuse(*sequence, *reason)
                {
                    latch::wake(place);
                }
            }
            Reply::TokenOutcome { slot, sequence, outcome } => {
                if let Some((slot, place)) = self.slot(*slot)
                    && slot.answer_question(*sequence, *outcome)
                {
                    latch::wake(place);
                }
            }
            Reply::Group(status) => self.group(status),
            Reply::Welcome { node, ordinal, .. } => {
                self.area.state.set_node(*node);
                self.area.state.ordinal.store(u32::from(*ordinal), Ordering::Relaxed);
                return Ok(Outcome::Welcome);
            }
            Reply::Attached { database, serve_from } => {
                self.area.state.set_number(*database);
                // Only the first attach of a server's life can be behind what its predecessor showed.
                let first = self.area.state.serve_from.load(Ordering::SeqCst) == u64::MAX;
                if first {
                    self.area.state.serve_from.store(serve_from.0, Ordering::SeqCst);
                }
                return Ok(Outcome::Attached);
            }
            Reply::Detached => return Ok(Outcome::Detached),
            Reply::Failed(failure) => return Ok(Outcome::Failed(failure.clone())),
        }
        Ok(Outcome::Done)
    }

    fn slot(&self, slot: SlotId) -> Option<(&'static Slot, ProcNo)> {
        let place = ProcNo(slot.0);
        self.shared.slot_of(place).map(|slot| (slot, place))
    }

    fn is_ours(&self, tag: &Tag) -> bool {
        tag.node == self.area.state.node() && tag.incarnation == self.shared.incarnation()
    }

    fn ordered(
        &mut self,
        position: Position,
        tag: &Tag,
        verdict: Verdict,
        more: bool,
        payload: &[u8],
    ) -> Result<Outcome, LinkError> {
        let gate = &self.area.gate;
        if position <= gate.known() {
            return Ok(Outcome::Done);
        }
        if position != gate.known().next() {
            return Err(LinkError::Protocol(format!("position {position} came after {}", gate.known())));
        }
        let room = if self.fetching > 0 { gate::WINDOW } else { gate::WINDOW_SOFT };
        if gate.ahead() >= room {
            return Ok(Outcome::Stalled);
        }
        match verdict {
            Verdict::Aborted(cause) => {
                if self.is_ours(tag)
                    && let Some((slot, place)) = self.slot(tag.slot)
                    && slot.refute(tag.sequence, position, cause)
                {
                    latch::wake(place);
                }
                if let Some(moved) = gate.add_aborted(position) {
                    commit::announce(self.area, moved);
                }
                Ok(Outcome::Done)
            }
            Verdict::Certified { depends_on } if self.is_ours(tag) => {
                self.certified_here(position, tag, depends_on);
                Ok(Outcome::Done)
            }
            Verdict::Certified { depends_on } => self.certified_elsewhere(position, tag.node, depends_on, more, payload),
        }
    }

    /// Whoever wins the slot's word decides who commits: the backend, or the remote backends.
    fn certified_here(&self, position: Position, tag: &Tag, depends_on: Position) {
        let gate = &self.area.gate;
        let waiting = self.slot(tag.slot).is_some_and(|(slot, place)| {
            self.area.recent.note(position, &slot.application());
            let won = slot.certify(tag.sequence, position, || gate.add_local(position, depends_on, place));
            if won {
                latch::wake(place);
            }
            won
        });
        if !waiting {
            self.area.state.counters.handed_over.one();
            gate.add_orphan(position, depends_on);
        }
    }

    fn certified_elsewhere(
        &mut self,
        position: Position,
        node: NodeId,
        depends_on: Position,
        more: bool,
        payload: &[u8],
    ) -> Result<Outcome, LinkError> {
        if let Some(application) = Envelope::peek_application(payload) {
            self.area.recent.note(position, application);
        }
        if more {
            progress::mine().receiving(self.area, node, position);
            self.assemblies.insert(position, Assembly::streamed(depends_on, node, payload));
            return Ok(Outcome::Done);
        }
        let storage = match queue::place_in_ring(self.area, payload) {
            Some(storage) => storage,
            // A small one waits for room, unless that would keep an orphan's writeset from us.
            None if queue::fits_ring(self.area, payload.len()) && self.fetching == 0 => return Ok(Outcome::Stalled),
            None => {
                self.area.state.counters.spooled.one();
                Assembly::streamed(depends_on, node, payload).finish(self.area.state.oid(), position)?
            }
        };
        self.queue(&Job { position, depends_on, node, storage });
        Ok(Outcome::Done)
    }

    fn queue(&self, job: &Job) {
        self.area.gate.add_queued(job);
        pool::queued(self.area);
    }

    fn body(&mut self, position: Position, more: bool, part: &[u8]) -> Result<(), LinkError> {
        let oid = self.area.state.oid();
        let Some(assembly) = self.assemblies.get_mut(&position) else { return Ok(()) };
        assembly.add(oid, position, part)?;
        if more {
            return Ok(());
        }
        let Some(assembly) = self.assemblies.remove(&position) else { return Ok(()) };
        progress::mine().clear();
        let (depends_on, node, fetched) = (assembly.depends_on, assembly.node, assembly.fetched);
        let storage = assembly.finish(oid, position)?;
        self.area.state.counters.spooled.one();
        if fetched {
            self.fetching = self.fetching.saturating_sub(1);
            if self.area.gate.requeue(position, node, storage) {
                pool::queued_below(self.area, position);
            }
        } else if position == self.area.gate.known().next() {
            self.queue(&Job { position, depends_on, node, storage });
        } else {
            return Err(LinkError::Protocol(format!(
                "a body for position {position} came after {}",
                self.area.gate.known()
            )));
        }
        Ok(())
    }

    fn chunk_ordered(&self, slot: SlotId, sequence: Sequence, index: u32) {
        if let Some((slot, place)) = self.slot(slot)
            && slot.chunk_ordered(sequence, index)
        {
            latch::wake(place);
        }
    }

    fn group(&self, status: &GroupStatus) {
        let state = self.area.state;
        self.shared.table.exclusive(|| {
            state.leader.store(status.leader.map_or(0, |leader| leader.0), Ordering::Relaxed);
            state.term.store(status.term, Ordering::Relaxed);
            let count = status.members.len().min(state.members.len());
            for (entry, member) in state.members.iter().zip(&status.members) {
                entry.node.store(member.node.0, Ordering::Relaxed);
                entry.set_state(member.state);
                entry.ordinal.store(u32::from(member.ordinal), Ordering::Relaxed);
                entry.committed.store(member.committed.0, Ordering::Relaxed);
                entry.ordered.store(member.ordered.0, Ordering::Relaxed);
                if !entry.name.is(&member.name) {
                    entry.name.set(&member.name);
                }
                if !entry.address.is(&member.address) {
                    entry.address.set(&member.address);
                }
            }
            state.member_count.store(count as u32, Ordering::Relaxed);
        });
        state.set_writable(state.attached.load(Ordering::SeqCst), status.quorum);
    }

    /// Backends that were waiting when the link went down submit again.
    pub fn wake_waiting(&self) {
        for (index, slot) in self.shared.slots.iter().enumerate() {
            if matches!(slot.state(), State::Open | State::Sent | State::Refused) && slot.is_in(self.area.index) {
                latch::wake(ProcNo(index as u32));
            }
        }
    }
}

/// Failures that trying again does not mend.
pub fn is_final(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::LogTruncated | FailureKind::AheadOfGroup)
}

//! A forerunner's record in shared memory: which transaction of another node it applies, and, once it has, offers to commit ([`crate::forerunner`]).
//!
//! The forerunner writes the record, the manager reads it. The word of the forerunner's slot decides whether the record still holds: a slot uses a sequence once, so a manager that
//! has read a record of which the forerunner has just let go finds another word.

use gcs_writeset::{Incarnation, NodeId, Position, Sequence, SlotId, Tag};

use crate::id::{Holds, ProcNo};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// A forerunner's record in shared memory.
#[derive(Default)]
pub struct Forerunner {
    pub process: Holds,
    /// The sequence of its slot under which it is busy with a transaction, or 0; written after everything else.
    begun: AtomicU64,
    /// It has applied all of it.
    is_done: AtomicBool,
    /// The tag that the transaction will be submitted under.
    node: AtomicU64,
    incarnation: AtomicU64,
    slot: AtomicU32,
    sequence: AtomicU64,
    /// Everything up to here was committed before it began.
    seen: AtomicU64,
}

/// What a forerunner is busy with: the sequence of its slot, what it had seen, and whether it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    pub process: ProcNo,
    pub sequence: Sequence,
    pub seen: Position,
    pub is_done: bool,
}

impl Forerunner {
    /// A process that becomes a forerunner. False if the place is taken.
    pub fn enter(&self, process: ProcNo) -> bool {
        let entered = self.process.claim(process);
        if entered {
            self.take_back();
        }
        entered
    }

    /// The process ends.
    pub fn leave(&self) {
        self.take_back();
        self.process.set(None);
    }

    /// The transaction with this tag is being applied, by one that has seen everything up to `seen`; its slot is open under `sequence`.
    pub fn begin(&self, tag: &Tag, seen: Position, sequence: Sequence) {
        self.take_back();
        self.node.store(tag.node.0, Ordering::SeqCst);
        self.incarnation.store(tag.incarnation.0, Ordering::SeqCst);
        self.slot.store(tag.slot.0, Ordering::SeqCst);
        self.sequence.store(tag.sequence.0, Ordering::SeqCst);
        self.seen.store(seen.0, Ordering::SeqCst);
        self.begun.store(sequence.0, Ordering::SeqCst);
    }

    /// All of it is applied.
    pub fn done(&self) {
        self.is_done.store(true, Ordering::SeqCst);
    }

    /// It is over.
    pub fn take_back(&self) {
        self.begun.store(0, Ordering::SeqCst);
        self.is_done.store(false, Ordering::SeqCst);
    }

    /// What it is busy with, whatever that is.
    pub fn any(&self) -> Option<Offer> {
        let sequence = self.begun.load(Ordering::SeqCst);
        let process = self.process.get().filter(|_| sequence != 0)?;
        let (seen, is_done) = (Position(self.seen.load(Ordering::SeqCst)), self.is_done.load(Ordering::SeqCst));
        let stands = self.begun.load(Ordering::SeqCst) == sequence && self.process.get() == Some(process);
        stands.then_some(Offer { process, sequence: Sequence(sequence), seen, is_done })
    }

    /// The same, if it is this tag. What is read between the two looks is of one transaction, or it has another sequence.
    pub fn of(&self, tag: &Tag) -> Option<Offer> {
        let before = self.any()?;
        let is_of_tag = NodeId(self.node.load(Ordering::SeqCst)) == tag.node
            && Incarnation(self.incarnation.load(Ordering::SeqCst)) == tag.incarnation
            && SlotId(self.slot.load(Ordering::SeqCst)) == tag.slot
            && Sequence(self.sequence.load(Ordering::SeqCst)) == tag.sequence;
        let after = self.any()?;
        (is_of_tag && (before.process, before.sequence) == (after.process, after.sequence)).then_some(after)
    }
}

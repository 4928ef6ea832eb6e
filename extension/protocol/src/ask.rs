//! A question out, an answer in: what a commit token came to.
//!
//! The question is ordered like a writeset, and answered from its place in the order: whatever had been ordered when it was asked
//! counts, however far behind this node is. It takes no position. Asking changes nothing that could not be asked again, so
//! interrupts are served all along, and what is lost with a link is sent again.

use std::time::Duration;

use gcs_writeset::link::{RefusalReason, Request, put_frame};
use gcs_writeset::{Position, Sequence, SlotId, Token, TokenOutcome};

use crate::bounds::{LOOK_AROUND, REFUSED_PAUSE};
use crate::id::{Moment, ProcNo};
use crate::platform::Platform;
use crate::replica::At;
use crate::slot::{Slot, State};
use crate::submission::{Patience, Process, Sent};

/// How a question ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Answered(TokenOutcome),
    Refused(RefusalReason),
    /// Interrupts are to be served.
    Interrupted,
    /// Nothing was heard in time.
    NoAnswer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sleep until woken, no longer than this, and step again.
    Sleep(Duration),
    Ended(Ended),
}

pub struct Question {
    process: ProcNo,
    sequence: Option<Sequence>,
    token: Token,
    fence_after: Option<Position>,
    deadline: Moment,
    /// The node's attach, by number, under which it was sent; none if it is to be sent again.
    sent_under: Option<u64>,
}

impl Question {
    /// `fence_after`: see [`Request::AskToken`].
    pub fn new(process: ProcNo, token: Token, fence_after: Option<Position>, deadline: Moment) -> Question {
        Question { process, sequence: None, token, fence_after, deadline, sent_under: None }
    }

    /// Goes on as far as it can. To be called again after each sleep, until it has ended; the slot is free then.
    pub fn step<P: Platform>(&mut self, at: At<'_, P>, slot: &Slot, backend: &mut impl Process) -> Step {
        let step = self.look(at, slot, backend);
        if matches!(step, Step::Ended(_)) && self.sequence.is_some() {
            slot.finish();
        }
        step
    }

    fn look<P: Platform>(&mut self, at: At<'_, P>, slot: &Slot, backend: &mut impl Process) -> Step {
        let left = self.deadline.since(backend.now());
        if backend.is_interrupted() {
            return Step::Ended(Ended::Interrupted);
        }
        let sequence = match self.sequence.or_else(|| slot.open(at.database.index)) {
            Some(sequence) => sequence,
            None if left.is_zero() => return Step::Ended(Ended::NoAnswer),
            None => return Step::Sleep(left.min(LOOK_AROUND)),
        };
        self.sequence = Some(sequence);
        if let Some(outcome) = slot.answer(sequence) {
            return Step::Ended(Ended::Answered(outcome));
        }
        if slot.state() == State::Refused {
            if slot.refusal() != RefusalReason::NotAttached {
                return Step::Ended(Ended::Refused(slot.refusal()));
            }
            slot.reopen(sequence);
            self.sent_under = None;
            return Step::Sleep(REFUSED_PAUSE);
        }
        if left.is_zero() {
            return Step::Ended(Ended::NoAnswer);
        }
        let attaches = at.database.replica.attaches();
        let is_due = self.sent_under != Some(attaches) || !backend.is_connected();
        if is_due && at.database.replica.is_attached() && self.send(sequence, backend) {
            self.sent_under = Some(attaches);
        }
        Step::Sleep(left.min(LOOK_AROUND))
    }

    fn send(&self, sequence: Sequence, backend: &mut impl Process) -> bool {
        let (slot, token, fence_after) = (SlotId(self.process.0), self.token, self.fence_after);
        let mut frame = Vec::with_capacity(64);
        put_frame(&mut frame, &Request::AskToken { slot, sequence, token, fence_after }, &[]).is_ok()
            && backend.connect()
            && backend.send(&frame, self.deadline, Patience::UntilInterrupted) == Sent::Whole
    }
}

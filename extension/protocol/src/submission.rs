//! A writeset out, a verdict in: the backend's side, as a machine that is stepped until it has come to an end.
//!
//! The backend writes its frames on its own connection to gcs and sleeps; the manager's stream brings the answer into the backend's slot and
//! wakes it. The line that matters is the first byte of the `Submit` frame. Before it the transaction is this backend's to take back,
//! and a cancel or an error simply aborts it. From it on the log decides, and the only truthful answers are the verdict, or that the
//! outcome is unknown (08007).
//!
//! | stage | waits for | a cancel | then |
//! |---|---|---|---|
//! | `Slot` | the manager to notice that the last submission was left | ends it | `Room` |
//! | `Room` | this node not to be far behind | ends it | `Chunks` |
//! | `Chunks` | the front of a long body to be ordered, chunk by chunk | ends it | `Ahead` |
//! | `Ahead` | other nodes to have applied what is so long that others would wait for it ([`crate::forerunner`]) | ends it | `Submit` |
//! | `Submit` | nothing: the line is crossed | ends it, before the line | `Verdict` |
//! | `Verdict` | the verdict | is ignored; the end of the session gives up, and so does a remote backend's word that no verdict can come | the end |
//!
//! When the link is lost, the manager attaches again and the backend submits the same bytes under the same tag: the group
//! drops whatever it had already ordered. A refusal says that *one copy* was never sent; while another may have been, it is
//! no answer.

mod backend;
mod chunks;

use std::time::Duration;

use gcs_writeset::link::{AbortCause, RefusalReason, Request, decode_frame, put_frame};
use gcs_writeset::{Position, Sequence, SlotId};

use crate::bounds::{BEHIND_PAUSE, BEHIND_SHARE, CHUNK_TIMEOUT, LOOK_AROUND, REFUSED_PAUSE};
use crate::id::{Moment, ProcNo};
use crate::platform::{Planted, Platform};
use crate::progress;
use crate::replica::At;
use crate::slot::{Slot, State};
use chunks::{Next, Window};

pub use backend::{Ahead, Backend, Patience, Process, Sent};

/// How a submission ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The group has committed the transaction: it commits here at this position.
    Certified(Position),
    /// The group has aborted it.
    Aborted(AbortCause),
    /// The group was not asked, or has refused to be: nothing of the transaction remains.
    Refused(RefusalReason),
    /// There is no link to gcs: as `Refused`.
    NoLink,
    /// This node is too many positions behind: as `Refused`.
    Behind(u64),
    /// The writeset does not fit a frame, so it has too many keys: as `Refused`.
    TooManyKeys,
    /// The writeset is longer than all chunks together: as `Refused`.
    TooLarge,
    /// It cannot be applied on another node: as `Refused`.
    Unappliable,
    /// Interrupts are to be served. Nothing was submitted.
    Interrupted,
    /// The log may yet commit it: the group did not answer in time.
    Unknown,
    /// The same, since the session is being ended.
    UnknownAtEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sleep until woken, no longer than this, and step again.
    Sleep(Duration),
    Ended(Ended),
}

enum Stage {
    Slot,
    Room,
    Chunks(Window),
    /// As `Submit`: all of the body is in chunks. Others are to apply it once `after` is committed there.
    Ahead {
        chunks: u32,
        again: u32,
        after: Position,
    },
    /// So many chunks are ordered; so many more were sent.
    Submit {
        chunks: u32,
        again: u32,
    },
    Verdict(Waiting),
}

/// A submission that crossed the line.
struct Waiting {
    frame: Vec<u8>,
    /// Copies that were sent, and chunks that were sent again. A refusal does not say which frame it is about, and may come late: before
    /// there are as many refusals, perhaps none was about the latest copy.
    copies: u32,
    latest: Latest,
    /// The latest copy was sent a moment ago: it is too early to ask whether its connection is lost.
    is_fresh: bool,
    /// What goes first, when it was last looked at.
    progress: (Position, u64),
}

/// The latest copy of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Latest {
    /// Sent while the node was attached for the so-and-so-manieth time. If the node attaches again, another must be sent.
    SentUnder(u64),
    /// Lost on its way, or refused: another is to be sent as soon as the node is attached.
    SendAgain,
}

pub struct Submission {
    process: ProcNo,
    sequence: Sequence,
    deadline: Moment,
    /// Chunks may have been sent.
    has_chunks: bool,
    stage: Stage,
}

impl Submission {
    pub fn new(process: ProcNo, backend: &impl Backend) -> Submission {
        let deadline = backend.now() + backend.commit_timeout();
        Submission { process, sequence: Sequence(0), deadline, has_chunks: false, stage: Stage::Slot }
    }

    /// Goes on as far as it can. To be called again after each sleep, until it has ended.
    pub fn step<P: Platform>(&mut self, at: At<'_, P>, slot: &Slot, backend: &mut impl Backend) -> Step {
        loop {
            let step = match &mut self.stage {
                Stage::Slot => self.take_slot(at, slot, backend),
                Stage::Room => self.wait_for_room(at, slot, backend),
                Stage::Chunks(_) => self.send_chunks(at, slot, backend),
                Stage::Ahead { chunks, again, after } => {
                    let (sent, after) = ((*chunks, *again), *after);
                    self.go_ahead(at, slot, backend, sent, after)
                }
                Stage::Submit { chunks, again } => {
                    let sent = (*chunks, *again);
                    self.submit(at, slot, backend, sent)
                }
                Stage::Verdict(_) => self.wait_for_verdict(at, slot, backend),
            };
            if let Some(step) = step {
                if let Step::Ended(ended) = step {
                    if self.has_chunks && !is_submitted(ended) {
                        self.abandon(backend);
                    }
                    settle(slot, ended);
                }
                return step;
            }
        }
    }

    fn take_slot<P: Platform>(&mut self, at: At<'_, P>, slot: &Slot, backend: &impl Backend) -> Option<Step> {
        slot.in_transaction(backend.transaction());
        match slot.open(at.database.index) {
            Some(sequence) => {
                self.sequence = sequence;
                self.stage = Stage::Room;
                None
            }
            None if backend.is_interrupted() => ended(Ended::Interrupted),
            None => match self.left(backend) {
                Some(left) => sleep(left.min(LOOK_AROUND)),
                None => ended(Ended::Refused(RefusalReason::Overloaded)),
            },
        }
    }

    /// While this node is far behind the group, its transactions wait before they are sent: their verdicts would come late, and
    /// their bases be old. This can be taken back, so interrupts are served.
    fn wait_for_room<P: Platform>(&mut self, at: At<'_, P>, slot: &Slot, backend: &mut impl Backend) -> Option<Step> {
        let ahead = at.database.gate.ahead();
        if ahead > at.database.gate.window() / BEHIND_SHARE {
            if self.left(backend).is_none() {
                return ended(Ended::Behind(ahead));
            }
            // Nobody is told of room: whoever moves the gate has no time for it.
            return self.check_while_open(at, slot, backend).or_else(|| sleep(BEHIND_PAUSE));
        }
        let total = backend.body_length();
        // What others apply before it is submitted has to be there as a whole by then.
        let ahead = if backend.is_to_go_ahead() { total } else { total.saturating_sub(backend.chunk_bytes() as u64) };
        let Ok(count) = u32::try_from(ahead.div_ceil(backend.chunk_bytes() as u64)) else {
            return ended(Ended::TooLarge);
        };
        self.stage = Stage::Submit { chunks: 0, again: 0 };
        if count > 0 {
            backend.sending(total);
            slot.progress.sending(total, backend.rows());
            self.deadline = backend.now() + CHUNK_TIMEOUT;
            self.has_chunks = true;
            self.stage = Stage::Chunks(Window::new(count, at.database.replica.attaches()));
        }
        None
    }

    /// Sends the front of a long body ahead. Nothing is submitted yet.
    fn send_chunks<P: Platform>(&mut self, at: At<'_, P>, slot: &Slot, backend: &mut impl Backend) -> Option<Step> {
        let (sequence, process) = (self.sequence, self.process);
        if let Stage::Chunks(window) = &mut self.stage
            && window.is_to_be_tried_again(slot, sequence, backend)
        {
            return sleep(REFUSED_PAUSE);
        }
        if let Some(step) = self.check_while_open(at, slot, backend) {
            return Some(step);
        }
        let Stage::Chunks(window) = &mut self.stage else { return None };
        if window.look(at, slot, backend) {
            self.deadline = backend.now() + CHUNK_TIMEOUT;
        }
        match window.next(at, backend) {
            Next::Done(chunks) => {
                let again = window.again();
                self.stage = Stage::Submit { chunks, again };
                if backend.is_to_go_ahead() {
                    let after = at.database.gate.committed();
                    slot.announce_base(at.database.index, after);
                    slot.progress.stage(progress::Stage::Ahead);
                    self.stage = Stage::Ahead { chunks, again, after };
                }
                None
            }
            Next::Wait => sleep(LOOK_AROUND),
            Next::Send(index) => {
                let request = Request::Chunk { slot: SlotId(process.0), sequence, index };
                let chunk = window.chunk(index);
                let mut frame = Vec::with_capacity(chunk.len() + 64);
                if put_frame(&mut frame, &request, chunk).is_err() {
                    return ended(Ended::TooManyKeys);
                }
                let sent = match backend.connect() {
                    true => backend.send(&frame, self.deadline, Patience::UntilEnding),
                    false => Sent::Nothing,
                };
                at.database.replica.counters.bytes_sent.add(frame.len() as u64);
                window.sent(index, sent);
                if sent == Sent::Whole { None } else { sleep(REFUSED_PAUSE) }
            }
        }
    }

    /// Has other nodes apply it. What they must have seen is what is committed here, since that is all that it can have seen itself; and the group's history must
    /// not be cut behind that, or what it depends on would seem to come later (`crate::forerunner`).
    fn go_ahead<P: Platform>(
        &mut self,
        at: At<'_, P>,
        slot: &Slot,
        backend: &mut impl Backend,
        (chunks, again): (u32, u32),
        after: Position,
    ) -> Option<Step> {
        let ahead = backend.go_ahead(self.sequence, chunks, after);
        // All chunks are ordered: what is refused now is a copy of one that was sent again.
        slot.reopen(self.sequence);
        // How long that may take, the backend knows.
        self.deadline = backend.now() + backend.commit_timeout();
        if let Some(step) = self.check_while_open(at, slot, backend) {
            return Some(step);
        }
        match ahead {
            Ahead::Wait => sleep(LOOK_AROUND),
            Ahead::Over => {
                self.stage = Stage::Submit { chunks, again };
                None
            }
            Ahead::Unappliable => ended(Ended::Unappliable),
        }
    }

    /// Whatever ends a transaction that can still be taken back.
    fn check_while_open<P: Platform>(&self, at: At<'_, P>, slot: &Slot, backend: &mut impl Backend) -> Option<Step> {
        if slot.state() == State::Refused {
            return ended(Ended::Refused(slot.refusal()));
        }
        let why = if self.left(backend).is_none() {
            let is_attached = at.database.replica.is_attached();
            if is_attached { Ended::Refused(RefusalReason::Overloaded) } else { Ended::NoLink }
        } else if backend.is_interrupted() {
            Ended::Interrupted
        } else {
            return None;
        };
        ended(why)
    }

    /// Tells gcs to drop the chunks. It would do so by itself when the incarnation ends.
    fn abandon(&self, backend: &mut impl Backend) {
        let mut frame = Vec::new();
        let request = Request::Abandon { slot: SlotId(self.process.0), sequence: self.sequence };
        if put_frame(&mut frame, &request, &[]).is_ok() && backend.is_connected() {
            backend.send(&frame, backend.now(), Patience::None);
        }
    }

    /// Crosses the line.
    fn submit<P: Platform>(
        &mut self,
        at: At<'_, P>,
        slot: &Slot,
        backend: &mut impl Backend,
        (chunks, again): (u32, u32),
    ) -> Option<Step> {
        // Guarded keys have the committed position of now as their base: whoever else had them was blocked by our locks.
        slot.announce_base(at.database.index, at.database.gate.committed());
        let base = at.database.gate.committed();
        let oldest_base = at.database.gate.oldest_base().min(base);
        let request = Request::Submit { slot: SlotId(self.process.0), sequence: self.sequence };
        let mut frame = Vec::new();
        // A chunk has its bound; all that can make a writeset longer than a frame is keys.
        if backend.put_writeset(&mut frame, &request, chunks, base, oldest_base).is_err() {
            return ended(Ended::TooManyKeys);
        }
        slot.progress.stage(progress::Stage::Ordering);
        // The time that it takes to send a large body is not the group's.
        self.deadline = backend.now() + backend.commit_timeout();
        let attaches = at.database.replica.attaches();
        if !at.database.replica.is_attached() || !backend.connect() {
            return ended(Ended::NoLink);
        }
        if backend.is_interrupted() {
            return ended(Ended::Interrupted);
        }
        if !slot.send(self.sequence) {
            return ended(Ended::Refused(slot.refusal()));
        }
        let sent = backend.send(&frame, self.deadline, Patience::UntilInterrupted);
        if sent == Sent::Nothing && slot.take_back(self.sequence) {
            return ended(if backend.is_interrupted() { Ended::Interrupted } else { Ended::NoLink });
        }
        at.database.replica.counters.bytes_sent.add(frame.len() as u64);
        // What is known to be cut need not be looked for.
        let latest = if sent == Sent::Whole { Latest::SentUnder(attaches) } else { Latest::SendAgain };
        self.stage = Stage::Verdict(Waiting { frame, copies: 1 + again, latest, is_fresh: true, progress: at.progress() });
        None
    }

    fn wait_for_verdict<P: Platform>(&mut self, at: At<'_, P>, slot: &Slot, backend: &mut impl Backend) -> Option<Step> {
        let Stage::Verdict(waiting) = &mut self.stage else { return None };
        match slot.state() {
            // Told to yield at once, it is certified all the same; the wait for its turn finds out.
            State::Certified | State::Yielded => return ended(Ended::Certified(slot.position())),
            State::Aborted => return ended(Ended::Aborted(slot.abort())),
            State::Refused => {
                let is_definite = slot.refusals() >= waiting.copies && slot.refusal() != RefusalReason::NotAttached;
                if is_definite {
                    let refusal = slot.refusal();
                    return if slot.finish() { ended(Ended::Refused(refusal)) } else { None };
                }
                if slot.send_again(self.sequence) {
                    waiting.latest = Latest::SendAgain;
                    return sleep(REFUSED_PAUSE);
                }
                return None;
            }
            _ => {}
        }
        let made = at.progress();
        if made != waiting.progress {
            // While a large writeset comes in, our verdict stands behind it: the wait counts from the last word of that.
            waiting.progress = made;
            self.deadline = self.deadline.max(backend.now() + backend.commit_timeout());
        }
        let left = self.deadline.since(backend.now());
        // With its locks it keeps the stream from moving, in which its verdict would come.
        let is_in_the_way = slot.is_asked_to_leave(self.sequence);
        if left.is_zero() || backend.is_ending() || is_in_the_way {
            let are_all_refused = slot.refusals() >= waiting.copies;
            if !slot.leave(self.sequence) {
                return None;
            }
            return ended(match (are_all_refused, backend.is_ending() && !left.is_zero()) {
                (true, _) => Ended::Refused(RefusalReason::NotAttached),
                (false, false) => Ended::Unknown,
                (false, true) => Ended::UnknownAtEnd,
            });
        }
        let attaches = at.database.replica.attaches();
        // Only this connection may be lost, or the manager has yet to notice that all are.
        let is_fresh = std::mem::take(&mut waiting.is_fresh);
        let is_lost = waiting.latest == Latest::SendAgain || (!is_fresh && !backend.is_connected());
        let is_due = is_lost || waiting.latest != Latest::SentUnder(attaches);
        if is_due && at.database.replica.is_attached() {
            waiting.latest = Latest::SentUnder(attaches);
            waiting.is_fresh = true;
            waiting.copies += 1;
            at.database.replica.counters.resubmissions.one();
            waiting.resubmit::<P>(self.sequence, self.process, backend, self.deadline);
        }
        sleep(left.min(LOOK_AROUND))
    }

    /// What is left until the deadline; none if that is over.
    fn left(&self, backend: &impl Backend) -> Option<Duration> {
        Some(self.deadline.since(backend.now())).filter(|left| !left.is_zero())
    }
}

impl Waiting {
    /// The same bytes under the same tag. If it fails, the next look finds the connection lost.
    fn resubmit<P: Platform>(&self, sequence: Sequence, process: ProcNo, backend: &mut impl Backend, deadline: Moment) {
        if !backend.connect() {
            return;
        }
        if P::planted(Planted::ResubmittedUnderNewTag) {
            let request = Request::Submit { slot: SlotId(process.0), sequence: Sequence(sequence.0 + (1 << 40)) };
            let mut frame = Vec::new();
            let payload = decode_frame::<Request>(&self.frame).map_or(&[][..], |(_, payload)| payload);
            if put_frame(&mut frame, &request, payload).is_ok() {
                backend.send(&frame, deadline, Patience::Whole);
            }
            return;
        }
        backend.send(&self.frame, deadline, Patience::Whole);
    }
}

/// Whether the log has decided, or may.
fn is_submitted(ended: Ended) -> bool {
    matches!(ended, Ended::Certified(_) | Ended::Aborted(_) | Ended::Unknown | Ended::UnknownAtEnd)
}

/// A submission without a position to commit at leaves the slot. One that was left is seen to by the end of the transaction.
fn settle(slot: &Slot, ended: Ended) {
    if !matches!(ended, Ended::Certified(_) | Ended::Unknown | Ended::UnknownAtEnd) {
        slot.finish();
    }
}

fn ended(ended: Ended) -> Option<Step> {
    Some(Step::Ended(ended))
}

fn sleep(span: Duration) -> Option<Step> {
    Some(Step::Sleep(span))
}

//! A writeset out, a verdict in.
//!
//! The backend writes its frames on its own connection and sleeps on its own latch; the manager's stream brings the answer
//! into this process's slot. The line that matters is the first byte of the `Submit` frame. Before it the transaction is this
//! backend's to take back, and a cancel or an error simply aborts it. From it on the log decides, and the only truthful
//! answers are the verdict, or that the outcome is unknown (08007).
//!
//! When the link is lost, the manager attaches again and the backend submits the same bytes under the same tag: the group
//! drops whatever it had already ordered. A refusal says that *this* copy was never sent; after a resubmission it is
//! therefore no answer.

pub mod ask;
pub mod chunks;
pub mod connection;
pub mod slot;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use gcs_writeset::bounds::{CHUNK_BYTES_MAX, CHUNKS_IN_FLIGHT_MAX, KEYS_MAX};
use gcs_writeset::link::{AbortCause, RefusalReason, Request, put_frame};
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{KeyGroup, Position, Sequence, SlotId};

use crate::capture::Captured;
use crate::conflicts::{Conflict, Kind};
use crate::error::{self, Error};
use crate::pg::process::ProcNo;
use crate::pg::{interrupt, latch, role, setting, xact};
use crate::progress::Phase;
use crate::shmem::{DatabaseArea, Shared};
use crate::{guc, retry, token};

use connection::{Connection, Sent};
use slot::{Slot, State};

thread_local! {
    static CONNECTION: RefCell<Connection> = RefCell::default();
}

/// How long chunks may wait for room before the transaction is rolled back.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a sleeper looks whether its connection still lives, should nobody tell it otherwise.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// Positions this node may be behind before its own transactions wait.
const BEHIND_MAX: u64 = 1024;
const BEHIND_PAUSE: Duration = Duration::from_millis(10);

/// Between a refusal for want of an attach and the next copy.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);

/// Why there is no position to commit at.
pub enum Failure {
    /// Nothing of the transaction remains.
    Definite(Error),
    /// The log may yet commit it; the slot is given up.
    Unknown(Error),
    /// The server wants this process to end; as `Unknown`.
    Terminated(Error),
}

pub struct Submission<'a> {
    shared: &'a Shared,
    database: &'a DatabaseArea,
    slot: &'static Slot,
    place: ProcNo,
    sequence: Sequence,
    deadline: Instant,
}

/// Sends what the transaction changed and waits for the verdict: the position to commit at.
pub fn submit(
    shared: &Shared,
    database: &DatabaseArea,
    slot: &'static Slot,
    place: ProcNo,
    captured: &mut Captured,
) -> Result<(Position, i64), Failure> {
    check_keys(captured)?;
    let sequence = slot.open(database.index);
    let mut submission =
        Submission { shared, database, slot, place, sequence, deadline: Instant::now() + guc::commit_timeout() };
    let started = Instant::now();
    let result = submission.run(captured);
    database.state.counters.verdict_wait_us.time(started.elapsed());
    result
}

fn check_keys(captured: &Captured) -> Result<(), Failure> {
    let groups = captured.unguarded.iter().map(KeyGroup::len);
    let keys = captured.exclusive.len() + captured.shared.len() + groups.sum::<usize>();
    if keys > KEYS_MAX { Err(Failure::Definite(error::too_many_keys(KEYS_MAX))) } else { Ok(()) }
}

/// Chunks on their way.
struct Window {
    /// The index of the first of them: all before are ordered.
    first: u32,
    chunks: VecDeque<Vec<u8>>,
    /// How many of them were sent on the present connection.
    sent: usize,
}

impl Window {
    /// Lets go of the chunks below `count`. False if there is none.
    fn confirmed(&mut self, count: u32) -> bool {
        let news = count.saturating_sub(self.first) as usize;
        self.chunks.drain(..news.min(self.chunks.len()));
        self.sent = self.sent.saturating_sub(news);
        self.first += news as u32;
        news > 0
    }

    fn has_room(&self, count: u32) -> bool {
        self.chunks.len() < CHUNKS_IN_FLIGHT_MAX as usize && self.first + (self.chunks.len() as u32) < count
    }
}

impl Submission<'_> {
    fn run(&mut self, captured: &mut Captured) -> Result<(Position, i64), Failure> {
        self.wait_for_room()?;
        let chunks = self.send_chunks(captured)?;
        let mut rest = Vec::new();
        captured.body.read(&mut rest, CHUNK_BYTES_MAX);
        let (envelope, committed_at) = self.envelope(captured, chunks);
        let frame =
            self.frame(&Request::Submit { slot: self.slot_id(), sequence: self.sequence }, &envelope.encode(&rest))?;
        drop((envelope, rest));
        self.slot.progress.phase(Phase::Ordering);
        // The time it takes to send a large body is not the group's.
        self.deadline = Instant::now() + guc::commit_timeout();
        let attach = self.send_submit(&frame)?;
        let position = self.wait_for_verdict(&frame, attach, captured)?;
        Ok((position, committed_at))
    }

    fn slot_id(&self) -> SlotId {
        SlotId(self.place.0)
    }

    fn attaches(&self) -> u64 {
        self.database.state.attaches.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn is_attached(&self) -> bool {
        self.database.state.attached.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// While this node is far behind the group, its transactions wait before they are sent: their verdicts would come late, and
    /// their bases be old. This can be taken back, so interrupts are served.
    fn wait_for_room(&self) -> Result<(), Failure> {
        while self.database.gate.ahead() > BEHIND_MAX {
            if Instant::now() >= self.deadline {
                self.slot.finish();
                self.database.state.counters.refused_overload.one();
                return Err(Failure::Definite(error::behind(self.database.gate.ahead())));
            }
            self.check_while_open()?;
            // Nobody is told of this: whoever moves the gate has no time for it.
            latch::wait(Some(BEHIND_PAUSE));
        }
        Ok(())
    }

    /// Guarded keys have the committed position of now as their base: whoever else had them was blocked by our locks.
    fn envelope(&self, captured: &mut Captured, chunks: u32) -> (Envelope, i64) {
        self.slot.announce_base(self.database.index, self.database.gate.committed());
        let base = self.database.gate.committed();
        let (started_at, committed_at) = xact::times();
        let mut groups = vec![KeyGroup {
            base,
            exclusive: std::mem::take(&mut captured.exclusive),
            shared: std::mem::take(&mut captured.shared),
            ..KeyGroup::default()
        }];
        groups.append(&mut captured.unguarded);
        let oldest_base = self.database.gate.oldest_base().min(base);
        let has_statements = captured.has_statements;
        let (token, application) = (token::current(), setting::application_name());
        self.slot.set_application(&application);
        let envelope =
            Envelope { has_statements, chunks, oldest_base, started_at, committed_at, token, application, groups };
        (envelope, committed_at)
    }

    fn frame(&self, request: &Request, payload: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut frame = Vec::with_capacity(payload.len() + 64);
        match put_frame(&mut frame, request, payload) {
            Ok(()) => Ok(frame),
            // A chunk has its bound; all that can make a writeset longer than a frame is keys.
            Err(_) => Err(Failure::Definite(error::too_many_keys(KEYS_MAX))),
        }
    }

    /// Sends the front of a long body ahead, and returns how many chunks that were. Nothing is submitted yet. Chunks that nobody has
    /// confirmed are kept: what was on its way when a connection was lost is sent again, and so is what was refused, for
    /// `postgres_r.commit_timeout`.
    fn send_chunks(&mut self, captured: &mut Captured) -> Result<u32, Failure> {
        let total = captured.body.length();
        let count = total.saturating_sub(1) / CHUNK_BYTES_MAX as u64;
        let count =
            u32::try_from(count).map_err(|_| Failure::Definite(error::too_large(total, guc::max_writeset_bytes())))?;
        if count == 0 {
            return Ok(0);
        }
        let progress = &self.slot.progress;
        progress.sending(self.database, total, captured.rows);
        self.deadline = Instant::now() + CHUNK_TIMEOUT;
        let mut window = Window { first: 0, chunks: VecDeque::new(), sent: 0 };
        let mut attach = self.attaches();
        let mut refused_since = None;
        while self.slot.chunks.count() < count {
            // A leader that died, a daemon that has much to do: no reason yet to throw hours of work away.
            let patient = refused_since.is_none_or(|since: Instant| since.elapsed() < guc::commit_timeout());
            if patient && self.slot.reopen(self.sequence) {
                refused_since.get_or_insert_with(Instant::now);
                window.sent = 0;
                latch::wait(Some(REFUSED_PAUSE));
            }
            self.check_while_open()?;
            let attached = self.attaches();
            if attached != attach || !CONNECTION.with_borrow_mut(Connection::is_alive) {
                attach = attached;
                window.sent = 0;
            }
            if window.confirmed(self.slot.chunks.count()) {
                self.deadline = Instant::now() + CHUNK_TIMEOUT;
                refused_since = None;
                progress.done(u64::from(window.first) * CHUNK_BYTES_MAX as u64);
            }
            if window.sent == window.chunks.len() && window.has_room(count) {
                let mut chunk = Vec::new();
                captured.body.read(&mut chunk, CHUNK_BYTES_MAX);
                window.chunks.push_back(chunk);
            }
            let next = window.chunks.get(window.sent).filter(|_| self.is_attached());
            match next {
                Some(chunk) if self.send_chunk(window.first + window.sent as u32, chunk)? => window.sent += 1,
                Some(_) => latch::wait(Some(REFUSED_PAUSE)),
                None => latch::wait(Some(LOOK_AROUND)),
            }
        }
        progress.done(u64::from(count) * CHUNK_BYTES_MAX as u64);
        Ok(count)
    }

    /// False if it did not get away as a whole.
    fn send_chunk(&self, index: u32, bytes: &[u8]) -> Result<bool, Failure> {
        let frame = self.frame(&Request::Chunk { slot: self.slot_id(), sequence: self.sequence, index }, bytes)?;
        let sent = CONNECTION.with_borrow_mut(|connection| {
            connection.open(self.shared, self.database).map_err(Sent::Nothing).map(|()| {
                let stop = || interrupt::die_pending();
                connection.send(&frame, self.deadline, stop)
            })
        });
        self.database.state.counters.bytes_sent.add(frame.len() as u64);
        Ok(matches!(sent, Ok(Sent::Whole)))
    }

    /// Chunks can be dropped at any time: serves interrupts, and looks at everything else that ends the transaction.
    fn check_while_open(&self) -> Result<(), Failure> {
        if self.slot.state() == State::Refused {
            return Err(self.refused());
        }
        if Instant::now() >= self.deadline {
            self.abandon();
            let error = if self.is_attached() { error::overloaded() } else { error::no_link() };
            return Err(Failure::Definite(error));
        }
        if interrupt::pending() {
            self.abandon();
            interrupt::check();
        }
        Ok(())
    }

    /// Tells gcs to drop the chunks. It would do so by itself when the incarnation ends.
    fn abandon(&self) {
        let request = Request::Abandon { slot: self.slot_id(), sequence: self.sequence };
        if let Ok(frame) = self.frame(&request, &[]) {
            CONNECTION.with_borrow_mut(|connection| {
                if connection.is_alive() {
                    connection.send(&frame, Instant::now(), || true);
                }
            });
        }
        self.slot.finish();
    }

    /// Crosses the line. Returns the attach that the frame was sent under.
    fn send_submit(&self, frame: &[u8]) -> Result<u64, Failure> {
        let attach = self.attaches();
        if !self.is_attached() {
            self.slot.finish();
            return Err(Failure::Definite(error::no_link()));
        }
        let opened = CONNECTION.with_borrow_mut(|connection| connection.open(self.shared, self.database));
        if opened.is_err() {
            self.slot.finish();
            return Err(Failure::Definite(error::no_link()));
        }
        interrupt::check();
        if !self.slot.send(self.sequence) {
            return Err(self.refused());
        }
        let sent = CONNECTION.with_borrow_mut(|c| c.send(frame, self.deadline, interrupt::pending));
        if let Sent::Nothing(_) = sent
            && self.slot.take_back(self.sequence)
        {
            self.slot.finish();
            interrupt::check();
            return Err(Failure::Definite(error::no_link()));
        }
        self.database.state.counters.bytes_sent.add(frame.len() as u64);
        Ok(attach)
    }

    fn wait_for_verdict(&self, frame: &[u8], mut attach: u64, captured: &Captured) -> Result<Position, Failure> {
        // Copies of the submission that may yet be ordered. A refusal takes one back.
        let mut copies = 1u32;
        // While a large writeset comes in, our verdict stands behind it: the wait counts from the last word of that.
        let mut deadline = self.deadline;
        let mut progress = self.database.progress();
        loop {
            let state = self.slot.state();
            match state {
                // Yielded at once, it is certified all the same; the wait for its turn finds out.
                State::Certified | State::Yielded => return Ok(self.slot.position()),
                State::Aborted => return Err(self.aborted(captured)),
                State::Refused => {
                    copies = copies.saturating_sub(1);
                    if copies == 0 && self.slot.refusal() != RefusalReason::NotAttached {
                        return Err(self.refused());
                    }
                    self.slot.send_again(self.sequence);
                    // To be sent again, but not at once.
                    attach = attach.wrapping_sub(1);
                    latch::wait(Some(REFUSED_PAUSE));
                }
                _ => {}
            }
            let made = self.database.progress();
            if made != progress {
                progress = made;
                deadline = deadline.max(Instant::now() + guc::commit_timeout());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if (left.is_zero() || interrupt::die_pending()) && self.slot.give_up(self.sequence) {
                return Err(if copies == 0 { self.never_sent() } else { self.gave_up(left) });
            }
            interrupt::serve_barrier();
            if self.slot.state() != State::Sent {
                continue;
            }
            if self.is_attached() && self.attaches() != attach {
                attach = self.attaches();
                copies += 1;
                self.resubmit(frame);
            }
            latch::wait(Some(left.min(LOOK_AROUND)));
            if self.slot.state() == State::Sent && !CONNECTION.with_borrow_mut(Connection::is_alive) {
                // Only this connection was lost, or the manager has yet to notice.
                attach = attach.wrapping_sub(1);
            }
        }
    }

    fn never_sent(&self) -> Failure {
        self.slot.finish();
        Failure::Definite(error::not_attached())
    }

    /// The same bytes under the same tag. If it fails, the next attach tries again.
    fn resubmit(&self, frame: &[u8]) {
        self.database.state.counters.resubmissions.one();
        CONNECTION.with_borrow_mut(|connection| {
            if connection.open(self.shared, self.database).is_ok() {
                connection.send(frame, self.deadline, || false);
            }
        });
    }

    fn gave_up(&self, left: Duration) -> Failure {
        self.database.state.counters.outcomes_unknown.one();
        if left.is_zero() {
            let why = format!("The group did not answer within {} ms.", guc::commit_timeout().as_millis());
            Failure::Unknown(error::outcome_unknown(&why, token::current()))
        } else {
            let why = "The session was ended while the transaction was being committed.";
            Failure::Terminated(error::outcome_unknown(why, token::current()))
        }
    }

    fn refused(&self) -> Failure {
        let counters = &self.database.state.counters;
        let error = match self.slot.refusal() {
            RefusalReason::NoQuorum => {
                counters.refused_quorum.one();
                error::no_quorum()
            }
            RefusalReason::Overloaded => {
                counters.refused_overload.one();
                error::overloaded()
            }
            RefusalReason::NotAttached => error::not_attached(),
        };
        self.slot.finish();
        Failure::Definite(error)
    }

    fn aborted(&self, captured: &Captured) -> Failure {
        let counters = &self.database.state.counters;
        let (_, cause) = self.slot.abort();
        self.slot.finish();
        Failure::Definite(match cause {
            AbortCause::Conflict { winner, winner_node, key_index } => {
                counters.aborts_conflict.one();
                retry::lost_to(winner);
                let found = captured.describe(key_index).unwrap_or_default();
                let key = found.key_for(Some(role::outer()));
                let what = (found.table, key);
                let conflict = Conflict::new(self.database, Kind::Certification, what, winner, winner_node);
                error::conflict(&conflict.noted(self.database))
            }
            AbortCause::BelowHorizon { horizon } => {
                counters.aborts_horizon.one();
                error::below_horizon(horizon)
            }
            AbortCause::Malformed => {
                counters.aborts_malformed.one();
                error::malformed()
            }
            AbortCause::TokenUsed { first } => {
                counters.refused_token.one();
                error::token_used(first)
            }
            AbortCause::TokenFenced => {
                counters.refused_token.one();
                error::token_fenced()
            }
            AbortCause::TokenTooOld { floor } => {
                counters.aborts_horizon.one();
                error::token_too_old(floor)
            }
        })
    }
}

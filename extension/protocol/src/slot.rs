//! A process's slot in shared memory: one submission at a time, and what makes its transaction give way.
//!
//! The submission's sequence, state and reason of refusal share one word, so that "the manager says certified" and "the backend leaves"
//! have exactly one winner. The fields of a verdict are written only by the manager that moved the word to `Deciding`, and read only
//! after the word says what was decided.
//!
//! What a state can turn into, by whom; every step is asserted ([`State::may_become`]):
//!
//! | from | to | by | through |
//! |---|---|---|---|
//! | `Idle` | `Open` | backend | [`Slot::open`]: a sequence of its own, chunks may follow |
//! | `Open` | `Sent` | backend | [`Slot::send`]: from here on the log decides |
//! | `Sent` | `Open` | backend | [`Slot::take_back`]: nothing had left the process |
//! | `Open`, `Sent`, `Refused` | `Refused` | manager | [`Slot::refuse`]: one more copy |
//! | `Refused` | `Open` | backend | [`Slot::reopen`] |
//! | `Refused` | `Sent` | backend | [`Slot::send_again`] |
//! | `Sent`, `Refused` | `Deciding` | manager | [`Slot::certify`], [`Slot::refute`]: it writes the verdict down |
//! | `Open` | `Deciding` | manager | the same for a forerunner ([`crate::forerunner`]): [`Slot::certify_ahead`], [`Slot::refute_ahead`] |
//! | `Deciding` | `Certified`, `Aborted` | manager | the same |
//! | `Deciding` | `Sent` | the next manager | [`Slot::resolve`]: the verdict comes again |
//! | `Certified` | `Yielded` | remote backend | [`Slot::yield_to`] |
//! | `Sent` | `GivenUp` | backend | [`Slot::leave`] |
//! | `Deciding` | `Left` | backend | [`Slot::leave`]: the slot is the manager's until it notices |
//! | `Left` | `Idle` | manager | [`Slot::free`]: the position, if it is certified, has been handed over |
//! | `Open`, `Refused`, `Aborted`, `GivenUp` | `Idle` | backend | [`Slot::finish`] |
//! | `Certified`, `Yielded` | `Idle` | backend | [`Slot::finish_certified`]: the position is committed, or has been handed over |
//!
//! When the backend ends, whatever the state ([`crate::ending::release`], called at the end of every transaction, also by FATAL):
//!
//! | state | what becomes of the transaction |
//! |---|---|
//! | `Idle`, `Open`, `Aborted` | nothing of it is in the group, or the group has aborted it |
//! | `Refused` | as `Sent`: another copy of it may be on its way |
//! | `Sent` | the manager finds nobody waiting when the verdict comes: an orphan, if it is certified |
//! | `Deciding` | the slot becomes `Left`; the manager, about to write the last word, sees it and hands the position over |
//! | `Certified`, `Yielded` | the position is handed over, unless it is committed already |
//! | `GivenUp`, `Left` | it has been seen to |
//!
//! When the manager ends, its successor, or its own exit, goes through the slots of its database ([`Slot::resolve`]): a verdict whose gate entry
//! is there is completed; one whose entry is not there will come again with the stream, and the submission waits for it as if nothing had
//! happened. A server that is killed starts with new shared memory; everything is in the group's log.

pub mod chunks;
#[cfg(test)]
mod tests;

use gcs_writeset::link::{AbortCause, RefusalReason};
use gcs_writeset::{NodeId, Position, Sequence, TokenOutcome};

use crate::bounds::NAME_BYTES;
use crate::id::LocalXid;
use crate::numbered::Numbered;
use crate::platform::{Planted, Platform};
use crate::progress::Progress;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::text::Text;
use crate::victim::{Victim, Winner};
use chunks::Chunks;

crate::numbered! {
    /// Where a submission is; see the table in [`crate::slot`].
    #[derive(Default)]
    pub enum State else Idle {
        #[default]
        Idle = 0,
        /// Chunks are on their way; the transaction can still be taken back.
        Open = 1,
        /// The frame of the submission may have been written: the log decides.
        Sent = 2,
        /// The manager is writing the verdict down.
        Deciding = 3,
        Certified = 4,
        Aborted = 5,
        /// This copy of the submission was never sent to the group, and never will be.
        Refused = 6,
        /// Certified, but told to let an earlier position through; applied from the log.
        Yielded = 7,
        /// The backend has left without a verdict.
        GivenUp = 8,
        /// The backend has left while the manager was writing the verdict down; the manager sees to the rest.
        Left = 9,
    }
}

impl State {
    pub fn may_become(self, next: State) -> bool {
        match self {
            State::Idle => next == State::Open,
            State::Open => matches!(next, State::Sent | State::Refused | State::Deciding | State::Idle),
            State::Sent => matches!(next, State::Open | State::Refused | State::Deciding | State::GivenUp),
            State::Deciding => matches!(next, State::Certified | State::Aborted | State::Sent | State::Left),
            State::Certified => matches!(next, State::Yielded | State::Idle),
            State::Refused => {
                matches!(next, State::Refused | State::Open | State::Sent | State::Deciding | State::Idle)
            }
            State::Aborted | State::Yielded | State::GivenUp | State::Left => next == State::Idle,
        }
    }
}

/// Sequence << 16 | refusals << 8 | reason << 4 | state. The sequence only grows, whoever has the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word(u64);

impl Word {
    fn new(sequence: Sequence, state: State) -> Word {
        Word(sequence.0 << 16 | u64::from(state.number()))
    }

    fn sequence(self) -> Sequence {
        Sequence(self.0 >> 16)
    }

    fn state(self) -> State {
        State::of(self.0 as u32 & 0xf)
    }

    /// How many copies of the submission were refused; counted up to 255.
    fn refusals(self) -> u32 {
        self.0 as u32 >> 8 & 0xff
    }

    fn reason(self) -> RefusalReason {
        match self.0 >> 4 & 0xf {
            0 => RefusalReason::NoQuorum,
            1 => RefusalReason::Overloaded,
            _ => RefusalReason::NotAttached,
        }
    }

    fn with_state(self, state: State) -> Word {
        Word(self.0 & !0xf | u64::from(state.number()))
    }

    fn refused(self, reason: RefusalReason) -> Word {
        let reason: u64 = match reason {
            RefusalReason::NoQuorum => 0,
            RefusalReason::Overloaded => 1,
            // For its contents only an attach is refused, and no submission.
            // For its format only a request for a lock, which goes another way.
            RefusalReason::NotAttached | RefusalReason::HasContents | RefusalReason::Format => 2,
        };
        let refusals = u64::from(self.refusals() + 1).min(0xff);
        Word(self.sequence().0 << 16 | refusals << 8 | reason << 4 | u64::from(State::Refused.number()))
    }
}

/// What a manager's word came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The backend will see it; it is to be woken.
    Told,
    /// No backend waited for it.
    NobodyWaits,
    /// The backend left while the verdict was written down. The manager sees to the position, and then frees the slot ([`Slot::free`]).
    JustLeft,
}

/// What a dead manager has left in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// Nobody has ever submitted anything here.
    Nothing,
    /// The backend may wait for a word, or for the slot: it is to be woken, since the manager may have died before it did so.
    Waits,
    /// The backend has left. The position, if there is one, is to be handed over; then the slot is to be freed, and its process woken.
    Left(Option<Position>),
}

#[derive(Default)]
pub struct Slot {
    word: AtomicU64,
    /// Index of the database that the submission was made in: that one's manager sees to it, even after the process has ended and the next
    /// one in its place works for another database.
    database: AtomicU32,
    /// The oldest base that the transaction may submit with, plus one; 0 when it has not written.
    base: AtomicU64,
    /// Index of the database that the base belongs to.
    base_database: AtomicU32,
    pub chunks: Chunks,
    /// The backend has come as far as waiting for its turn.
    at_gate: AtomicBool,
    /// The sequence of the submission that is to be left, since its verdict can't come.
    leave_asked: AtomicU64,
    verdict: Verdict,
    pub victim: Victim,
    /// The transaction that the submission is of, by the process's own number.
    transaction: AtomicU32,
    /// The position that a remote backend in this place works on; 0 for every other process.
    remote: AtomicU64,
    /// The position that the process waits to see committed; 0 if none.
    awaited: AtomicU64,
    /// Of a large transaction that the process is busy with.
    pub progress: Progress,
    /// What the submission's session calls itself.
    application: Text<NAME_BYTES>,
    /// By which the group knows what the process holds in its lock table, plus one; 0 for nothing.
    lock_session: AtomicU64,
    /// The life of that session, plus one, while it holds locks of its own, and not of a transaction; else 0.
    lock_life: AtomicU64,
    answer: Answer,
}

/// What was decided on the submission.
#[derive(Default)]
struct Verdict {
    position: AtomicU64,
    winner: AtomicU64,
    winner_node: AtomicU64,
    key_index: AtomicU32,
    cause: AtomicU32,
}

/// The answer to a question about a commit token.
#[derive(Default)]
struct Answer {
    outcome: AtomicU32,
    position: AtomicU64,
    /// The sequence of the question.
    answered: AtomicU64,
}

impl Slot {
    fn word(&self) -> Word {
        Word(self.word.load(Ordering::SeqCst))
    }

    pub fn state(&self) -> State {
        self.word().state()
    }

    pub fn sequence(&self) -> Sequence {
        self.word().sequence()
    }

    /// Changes the state of this submission if it is one of `from`; false if it is not (any more).
    fn step(&self, sequence: Sequence, from: &[State], to: impl Fn(Word) -> Word) -> bool {
        loop {
            let word = self.word();
            if word.sequence() != sequence || !from.contains(&word.state()) {
                return false;
            }
            let next = to(word);
            assert!(word.state().may_become(next.state()), "a slot goes from {:?} to {:?}", word.state(), next.state());
            if self.word.compare_exchange(word.0, next.0, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                return true;
            }
        }
    }

    fn swap(&self, sequence: Sequence, from: State, to: State) -> bool {
        self.step(sequence, &[from], |word| word.with_state(to))
    }
}

/// What the slot's own process does.
impl Slot {
    /// The next submission is of this transaction. To be said before [`Slot::open`].
    pub fn in_transaction(&self, transaction: LocalXid) {
        self.transaction.store(transaction.0, Ordering::SeqCst);
    }

    /// Takes the next sequence. None while a manager has yet to notice that the last submission's backend has left; it wakes this
    /// process then.
    pub fn open(&self, database: usize) -> Option<Sequence> {
        let word = self.word();
        if word.state() == State::Left {
            return None;
        }
        let sequence = Sequence(word.sequence().0 + 1);
        self.database.store(database as u32, Ordering::SeqCst);
        self.chunks.start(sequence);
        self.at_gate.store(false, Ordering::SeqCst);
        self.step(word.sequence(), &[State::Idle], |_| Word::new(sequence, State::Open)).then_some(sequence)
    }

    /// From here on the log decides. False when the submission was refused meanwhile.
    pub fn send(&self, sequence: Sequence) -> bool {
        self.swap(sequence, State::Open, State::Sent)
    }

    /// Nothing of the submission left this process: as if it had never been sent. False when it was refused meanwhile.
    pub fn take_back(&self, sequence: Sequence) -> bool {
        self.swap(sequence, State::Sent, State::Open)
    }

    /// Sends again what was refused.
    pub fn send_again(&self, sequence: Sequence) -> bool {
        self.swap(sequence, State::Refused, State::Sent)
    }

    /// A chunk or a question was refused, and may be sent again. False if none was.
    pub fn reopen(&self, sequence: Sequence) -> bool {
        self.swap(sequence, State::Refused, State::Open)
    }

    /// Leaves a submission without a verdict. False when there is one.
    pub fn leave(&self, sequence: Sequence) -> bool {
        self.swap(sequence, State::Sent, State::GivenUp) || self.swap(sequence, State::Deciding, State::Left)
    }

    /// Whether the submission is in an earlier position's way, and its verdict can't come before that position is committed.
    pub fn is_asked_to_leave(&self, sequence: Sequence) -> bool {
        self.leave_asked.load(Ordering::SeqCst) == sequence.0
    }

    /// The backend is through with a submission that the group has not committed, as far as is known. False, and nothing happens, if there
    /// is none, or if a verdict came meanwhile: another copy of a refused submission may have one.
    pub fn finish(&self) -> bool {
        const FINISHED: [State; 4] = [State::Open, State::Refused, State::Aborted, State::GivenUp];
        self.step(self.sequence(), &FINISHED, |word| word.with_state(State::Idle))
    }

    /// The backend is through with a certified submission, whose position is committed or was handed over.
    pub(crate) fn finish_certified(&self) -> bool {
        self.step(self.sequence(), &[State::Certified, State::Yielded], |word| word.with_state(State::Idle))
    }

    /// The certified submission's backend waits for its turn, or commits.
    pub fn arrive_at_gate(&self) {
        self.at_gate.store(true, Ordering::SeqCst);
    }

    pub fn set_application(&self, application: &str) {
        self.application.set(application);
    }

    /// Announces a base that this transaction may submit with, so that the horizon does not pass it. An older one that was
    /// announced before stays.
    pub fn announce_base(&self, database: usize, base: Position) {
        self.base_database.store(database as u32, Ordering::SeqCst);
        if self.base.load(Ordering::SeqCst) == 0 {
            self.base.store(base.0 + 1, Ordering::SeqCst);
        }
    }

    pub fn clear_base(&self) {
        self.base.store(0, Ordering::SeqCst);
    }

    /// Of a certified submission.
    pub fn position(&self) -> Position {
        Position(self.verdict.position.load(Ordering::SeqCst))
    }

    /// Of an aborted submission: why.
    pub fn abort(&self) -> AbortCause {
        let verdict = &self.verdict;
        let winner = Position(verdict.winner.load(Ordering::SeqCst));
        match verdict.cause.load(Ordering::SeqCst) {
            0 => AbortCause::Conflict {
                winner,
                winner_node: NodeId(verdict.winner_node.load(Ordering::SeqCst)),
                key_index: verdict.key_index.load(Ordering::SeqCst),
            },
            1 => AbortCause::BelowHorizon { horizon: winner },
            3 => AbortCause::TokenUsed { first: winner },
            4 => AbortCause::TokenFenced,
            5 => AbortCause::TokenTooOld { floor: winner },
            6 => AbortCause::LocksLost,
            7 => AbortCause::Prepared {
                winner,
                winner_node: NodeId(verdict.winner_node.load(Ordering::SeqCst)),
                key_index: verdict.key_index.load(Ordering::SeqCst),
            },
            8 => AbortCause::NotPrepared,
            9 => AbortCause::AlreadyPrepared,
            10 => AbortCause::TooManyPrepared,
            _ => AbortCause::Malformed,
        }
    }

    /// Of a refused submission: why.
    pub fn refusal(&self) -> RefusalReason {
        self.word().reason()
    }

    /// How many copies of the submission were refused so far.
    pub fn refusals(&self) -> u32 {
        self.word().refusals()
    }

    /// The answer to the question of this sequence, if it is there.
    pub fn answer(&self, sequence: Sequence) -> Option<TokenOutcome> {
        if self.answer.answered.load(Ordering::SeqCst) != sequence.0 {
            return None;
        }
        let position = Position(self.answer.position.load(Ordering::SeqCst));
        Some(match self.answer.outcome.load(Ordering::SeqCst) {
            0 => TokenOutcome::Unknown,
            1 => TokenOutcome::Committed { position },
            2 => TokenOutcome::Aborted { position },
            _ => TokenOutcome::Fenced,
        })
    }

    pub fn set_lock_session(&self, session: Option<u64>) {
        self.lock_session.store(session.map_or(0, |number| number.saturating_add(1)), Ordering::SeqCst);
    }

    pub fn set_lock_life(&self, life: Option<u64>) {
        self.lock_life.store(life.map_or(0, |life| life.saturating_add(1)), Ordering::SeqCst);
    }

    /// Waits to see this position committed, or for none any more.
    pub fn await_position(&self, position: Position) {
        self.awaited.store(position.0, Ordering::SeqCst);
    }

    /// Told by a remote backend about itself.
    pub fn set_remote(&self, position: Position) {
        self.remote.store(position.0, Ordering::SeqCst);
    }
}

/// What the manager does.
impl Slot {
    /// The base that a transaction of this database, under way in this slot, has announced.
    pub fn base_in(&self, database: usize) -> Option<Position> {
        let base = self.base.load(Ordering::SeqCst);
        let is_of_it = self.base_database.load(Ordering::SeqCst) == database as u32;
        (base != 0 && is_of_it).then(|| Position(base - 1))
    }

    /// Whether the submission certified at `position` has a backend that does something else than to commit it.
    pub fn is_overdue(&self, position: Position) -> bool {
        !self.is_at_gate() && self.state() == State::Certified && self.position() == position
    }

    /// Whether the submission in this slot was made in that database.
    pub fn is_in(&self, database: usize) -> bool {
        self.database.load(Ordering::SeqCst) == database as u32
    }

    /// Writes the verdict down if the submission still waits for one. Before anybody sees it, `settle` runs: it puts the position into the
    /// gate.
    pub fn certify<P: Platform>(&self, sequence: Sequence, position: Position, settle: impl FnOnce()) -> Told {
        if !self.decide(sequence) {
            return Told::NobodyWaits;
        }
        self.settle_certified(position, settle);
        if P::planted(Planted::VerdictDropped) {
            return Told::Told;
        }
        self.decided(sequence, State::Certified)
    }

    /// As [`Slot::certify`], for a forerunner: it has submitted nothing, and its slot is open.
    pub fn certify_ahead(&self, sequence: Sequence, position: Position, settle: impl FnOnce()) -> Told {
        if !self.decide_ahead(sequence) {
            return Told::NobodyWaits;
        }
        self.settle_certified(position, settle);
        self.decided(sequence, State::Certified)
    }

    fn settle_certified(&self, position: Position, settle: impl FnOnce()) {
        self.verdict.position.store(position.0, Ordering::SeqCst);
        settle();
    }

    pub fn refute(&self, sequence: Sequence, position: Position, cause: AbortCause) -> Told {
        if self.decide(sequence) { self.aborted(sequence, position, cause) } else { Told::NobodyWaits }
    }

    /// As [`Slot::refute`], for a forerunner.
    pub fn refute_ahead(&self, sequence: Sequence, position: Position, cause: AbortCause) -> Told {
        if self.decide_ahead(sequence) { self.aborted(sequence, position, cause) } else { Told::NobodyWaits }
    }

    fn aborted(&self, sequence: Sequence, position: Position, cause: AbortCause) -> Told {
        let (number, winner, node, key) = match cause {
            AbortCause::Conflict { winner, winner_node, key_index } => (0, winner, winner_node, key_index),
            AbortCause::BelowHorizon { horizon } => (1, horizon, NodeId(0), 0),
            AbortCause::Malformed => (2, Position::ZERO, NodeId(0), 0),
            AbortCause::TokenUsed { first } => (3, first, NodeId(0), 0),
            AbortCause::TokenFenced => (4, Position::ZERO, NodeId(0), 0),
            AbortCause::TokenTooOld { floor } => (5, floor, NodeId(0), 0),
            AbortCause::LocksLost => (6, Position::ZERO, NodeId(0), 0),
            AbortCause::Prepared { winner, winner_node, key_index } => (7, winner, winner_node, key_index),
            AbortCause::NotPrepared => (8, Position::ZERO, NodeId(0), 0),
            AbortCause::AlreadyPrepared => (9, Position::ZERO, NodeId(0), 0),
            AbortCause::TooManyPrepared => (10, Position::ZERO, NodeId(0), 0),
        };
        let verdict = &self.verdict;
        verdict.position.store(position.0, Ordering::SeqCst);
        verdict.cause.store(number, Ordering::SeqCst);
        verdict.winner.store(winner.0, Ordering::SeqCst);
        verdict.winner_node.store(node.0, Ordering::SeqCst);
        verdict.key_index.store(key, Ordering::SeqCst);
        self.decided(sequence, State::Aborted)
    }

    /// A verdict is no less one because another copy of the submission was refused a moment ago.
    fn decide(&self, sequence: Sequence) -> bool {
        self.step(sequence, &[State::Sent, State::Refused], |word| word.with_state(State::Deciding))
    }

    /// A forerunner's slot is `Sent` after a manager has died in the middle of the verdict.
    fn decide_ahead(&self, sequence: Sequence) -> bool {
        self.step(sequence, &[State::Open, State::Sent], |word| word.with_state(State::Deciding))
    }

    fn decided(&self, sequence: Sequence, verdict: State) -> Told {
        if self.swap(sequence, State::Deciding, verdict) { Told::Told } else { Told::JustLeft }
    }

    /// The backend had left while the verdict was written down, and the position has been seen to: the slot can be used again. Not before, since
    /// a manager that died in between would leave a position behind that no slot says anything about.
    pub fn free(&self) {
        self.swap(self.sequence(), State::Left, State::Idle);
    }

    /// A copy of the submission (or a chunk of it, or a question) was not sent and never will be.
    pub fn refuse(&self, sequence: Sequence, reason: RefusalReason) -> Told {
        const REFUSED: [State; 3] = [State::Sent, State::Open, State::Refused];
        if self.step(sequence, &REFUSED, |word| word.refused(reason)) { Told::Told } else { Told::NobodyWaits }
    }

    /// A manager of this database has died, perhaps between a verdict's first word and its last. `is_settled` says whether a position
    /// is in the gate as this slot's own: then the verdict is completed, else it will come again with the stream.
    pub fn resolve(&self, is_settled: impl Fn(Position) -> bool) -> Resolved {
        let sequence = self.sequence();
        let settled = Some(self.position()).filter(|&position| is_settled(position));
        let next = if settled.is_some() { State::Certified } else { State::Sent };
        self.swap(sequence, State::Deciding, next);
        match self.state() {
            State::Left => Resolved::Left(settled),
            State::Idle if sequence == Sequence(0) => Resolved::Nothing,
            _ => Resolved::Waits,
        }
    }

    /// What the session of the submission under way calls itself.
    pub fn application(&self) -> String {
        self.application.get()
    }

    /// Answers a question, if somebody still waits for it.
    pub fn answer_question(&self, sequence: Sequence, outcome: TokenOutcome) -> Told {
        if self.sequence() != sequence || self.state() != State::Open {
            return Told::NobodyWaits;
        }
        let (number, position) = match outcome {
            TokenOutcome::Unknown => (0, Position::ZERO),
            TokenOutcome::Committed { position } => (1, position),
            TokenOutcome::Aborted { position } => (2, position),
            TokenOutcome::Fenced => (3, Position::ZERO),
        };
        self.answer.outcome.store(number, Ordering::SeqCst);
        self.answer.position.store(position.0, Ordering::SeqCst);
        self.answer.answered.store(sequence.0, Ordering::SeqCst);
        Told::Told
    }

    pub fn chunk_ordered(&self, sequence: Sequence, index: u32) -> Told {
        if self.sequence() != sequence || self.state() != State::Open {
            return Told::NobodyWaits;
        }
        self.chunks.ordered(sequence, index);
        Told::Told
    }
}

/// What a remote backend does to a process that stands in its way.
impl Slot {
    /// The certified submission in this slot, if it is of this transaction and its position is later than the winner's, is told to let that one
    /// through.
    ///
    /// Whoever holds a lock is found first and told afterwards. Meanwhile the holder may have ended, and the process be in its next transaction, which may
    /// be certified by now, and would leave its client without an ordinary answer for nothing:
    ///
    /// ```text
    /// remote backend of 5: waits for T's row, finds T in this slot
    /// backend:             T is rolled back; U, which has nothing to do with it, is certified at 6
    /// remote backend of 5: the slot is certified, at a later position: tells it to yield
    /// ```
    ///
    /// A transaction's number is in the slot before its submission's sequence is, so what is read between the two looks at the word is of this submission,
    /// or the word is another.
    pub fn yield_to(&self, holder: LocalXid, winner: &Winner) -> bool {
        let word = self.word();
        let is_of_holder = self.transaction.load(Ordering::SeqCst) == holder.0;
        if word.state() != State::Certified || !is_of_holder || self.position() <= winner.position {
            return false;
        }
        self.victim.set_winner(winner);
        self.swap(word.sequence(), State::Certified, State::Yielded)
    }

    /// Whether the certified submission's backend waits for its turn, or commits.
    pub fn is_at_gate(&self) -> bool {
        self.at_gate.load(Ordering::SeqCst)
    }

    /// The submission in this slot, if it waits for its verdict, is told to be left.
    pub fn ask_to_leave(&self) -> bool {
        let word = self.word();
        let waits = matches!(word.state(), State::Sent | State::Refused);
        if waits {
            self.leave_asked.store(word.sequence().0, Ordering::SeqCst);
        }
        waits
    }

    pub fn lock_life(&self) -> Option<u64> {
        self.lock_life.load(Ordering::SeqCst).checked_sub(1)
    }

    pub fn lock_session(&self) -> Option<u64> {
        self.lock_session.load(Ordering::SeqCst).checked_sub(1)
    }

    /// Whether the process waits for this position, or for a later one.
    pub fn awaits(&self, position: Position) -> bool {
        self.awaited.load(Ordering::SeqCst) >= position.0
    }

    pub fn remote(&self) -> Option<Position> {
        let position = self.remote.load(Ordering::SeqCst);
        (position != 0).then_some(Position(position))
    }
}

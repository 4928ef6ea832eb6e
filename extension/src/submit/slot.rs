//! A process's slot in shared memory: one submission at a time, and the flag that makes a transaction give way.
//!
//! The submission's sequence and state share one word, so that "the manager says certified" and "the backend gives up" have
//! exactly one winner. Fields that a verdict fills in are written only by the manager that moved the word to `Deciding`,
//! and read only after the word says what was decided.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use gcs_writeset::link::{AbortCause, RefusalReason};
use gcs_writeset::{NodeId, Position, Sequence, TokenOutcome};
use pgrx::pg_sys;

use crate::pg::process::LocalXid;
use crate::pg::shmem::Text;
use crate::progress::Progress;
use crate::shmem::NAME;
use crate::submit::chunks::Chunks;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    Idle = 0,
    /// Chunks are on their way; the transaction can still be taken back.
    Open = 1,
    /// The frame of the submission may have been written: the log decides.
    Sent = 2,
    /// The manager is writing the verdict down.
    Deciding = 3,
    Certified = 4,
    Aborted = 5,
    Refused = 6,
    /// Certified, but told to let an earlier position through; applied from the log.
    Yielded = 7,
    /// The backend has left without a verdict.
    GivenUp = 8,
}

impl State {
    fn of(number: u8) -> State {
        match number {
            1 => State::Open,
            2 => State::Sent,
            3 => State::Deciding,
            4 => State::Certified,
            5 => State::Aborted,
            6 => State::Refused,
            7 => State::Yielded,
            8 => State::GivenUp,
            _ => State::Idle,
        }
    }
}

#[derive(Default)]
pub struct Slot {
    /// Sequence << 8 | state. The sequence only grows, whoever has the place.
    word: AtomicU64,
    /// Index of the database, for the manager that looks for bases.
    database: AtomicU32,
    /// The oldest base that the transaction may submit with plus one; 0 when it has not written.
    base: AtomicU64,
    pub chunks: Chunks,
    /// The backend has come as far as waiting for its turn.
    at_gate: AtomicBool,
    /// The verdict.
    position: AtomicU64,
    winner: AtomicU64,
    winner_node: AtomicU64,
    key_index: AtomicU32,
    cause: AtomicU32,
    /// The transaction that must give way (its local number), for which position of which node.
    victim: AtomicU32,
    /// The same number, when its session may be ended if it is idle.
    pressed: AtomicU32,
    /// The process in this place hears a summons.
    hears: AtomicBool,
    victim_position: AtomicU64,
    victim_node: AtomicU64,
    victim_table: Text<128>,
    victim_key: Text<128>,
    /// The position that a remote backend in this place works on; 0 for everybody else.
    remote: AtomicU64,
    /// Of a large transaction that the process is busy with.
    pub progress: Progress,
    /// The session's role as of its last statement, whose error must not show more than it may see.
    role: AtomicU32,
    /// What the submission's session calls itself.
    application: Text<NAME>,
    /// The answer to a question about a token, and the sequence of the question.
    token_outcome: AtomicU32,
    token_position: AtomicU64,
    answered: AtomicU64,
}

/// The writeset that a victim gives way to, and over what, as far as that is known.
pub struct Winner {
    pub position: Position,
    pub node: NodeId,
    pub table: String,
    pub key: String,
}

fn word(sequence: Sequence, state: State) -> u64 {
    sequence.0 << 8 | state as u64
}

/// What the slot's owner does.
impl Slot {
    /// Takes the next sequence; chunks may follow.
    pub fn open(&self, database: usize) -> Sequence {
        let sequence = Sequence((self.word.load(Ordering::SeqCst) >> 8) + 1);
        self.database.store(database as u32, Ordering::SeqCst);
        self.chunks.start(sequence);
        self.at_gate.store(false, Ordering::SeqCst);
        self.word.store(word(sequence, State::Open), Ordering::SeqCst);
        sequence
    }

    /// From here on the log decides. False when the submission was refused meanwhile.
    pub fn send(&self, sequence: Sequence) -> bool {
        self.swap(sequence, State::Open, State::Sent)
    }

    /// Nothing of the submission left this process: as if it had never been sent. False when there is a verdict, which
    /// can't be.
    pub fn take_back(&self, sequence: Sequence) -> bool {
        self.swap(sequence, State::Sent, State::Open)
    }

    /// Sends again what was refused.
    pub fn send_again(&self, sequence: Sequence) -> bool {
        self.swap(sequence, State::Refused, State::Sent)
    }

    /// A chunk was refused, to be sent again. False if none was.
    pub fn reopen(&self, sequence: Sequence) -> bool {
        self.swap(sequence, State::Refused, State::Open)
    }

    /// Leaves without a verdict. False when there is one, or is about to be.
    pub fn give_up(&self, sequence: Sequence) -> bool {
        self.swap(sequence, State::Sent, State::GivenUp)
    }

    /// A question that was refused, to be asked again.
    pub fn open_again(&self, sequence: Sequence) -> bool {
        self.swap(sequence, State::Refused, State::Open)
    }

    /// The answer to the question of this sequence, if it is there.
    pub fn answer(&self, sequence: Sequence) -> Option<TokenOutcome> {
        if self.answered.load(Ordering::SeqCst) != sequence.0 {
            return None;
        }
        let position = Position(self.token_position.load(Ordering::SeqCst));
        Some(match self.token_outcome.load(Ordering::SeqCst) {
            0 => TokenOutcome::Unknown,
            1 => TokenOutcome::Committed { position },
            2 => TokenOutcome::Aborted { position },
            _ => TokenOutcome::Fenced,
        })
    }

    /// The certified submission's backend waits for its turn, or commits.
    pub fn arrive_at_gate(&self) {
        self.at_gate.store(true, Ordering::SeqCst);
    }

    pub fn set_application(&self, application: &str) {
        self.application.set(application);
    }

    pub fn set_role(&self, role: pg_sys::Oid) {
        self.role.store(role.to_u32(), Ordering::Relaxed);
    }

    pub fn finish(&self) {
        let sequence = Sequence(self.word.load(Ordering::SeqCst) >> 8);
        self.word.store(word(sequence, State::Idle), Ordering::SeqCst);
    }

    pub fn state(&self) -> State {
        State::of(self.word.load(Ordering::SeqCst) as u8)
    }

    pub fn sequence(&self) -> Sequence {
        Sequence(self.word.load(Ordering::SeqCst) >> 8)
    }

    /// Announces a base that this transaction may submit with, so that the horizon does not pass it. An older one that was
    /// announced before stays.
    pub fn announce_base(&self, database: usize, base: Position) {
        self.database.store(database as u32, Ordering::SeqCst);
        if self.base.load(Ordering::SeqCst) == 0 {
            self.base.store(base.0 + 1, Ordering::SeqCst);
        }
    }

    pub fn clear_base(&self) {
        self.base.store(0, Ordering::SeqCst);
    }

    /// Of a certified submission.
    pub fn position(&self) -> Position {
        Position(self.position.load(Ordering::SeqCst))
    }

    /// Of an aborted submission: its position and why.
    pub fn abort(&self) -> (Position, AbortCause) {
        let winner = Position(self.winner.load(Ordering::SeqCst));
        let cause = match self.cause.load(Ordering::SeqCst) {
            0 => AbortCause::Conflict {
                winner,
                winner_node: NodeId(self.winner_node.load(Ordering::SeqCst)),
                key_index: self.key_index.load(Ordering::SeqCst),
            },
            1 => AbortCause::BelowHorizon { horizon: winner },
            3 => AbortCause::TokenUsed { first: winner },
            4 => AbortCause::TokenFenced,
            5 => AbortCause::TokenTooOld { floor: winner },
            _ => AbortCause::Malformed,
        };
        (self.position(), cause)
    }

    /// Of a refused submission.
    pub fn refusal(&self) -> RefusalReason {
        match self.cause.load(Ordering::SeqCst) {
            0 => RefusalReason::NoQuorum,
            1 => RefusalReason::Overloaded,
            _ => RefusalReason::NotAttached,
        }
    }

    fn swap(&self, sequence: Sequence, from: State, to: State) -> bool {
        self.word.compare_exchange(word(sequence, from), word(sequence, to), Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// What a manager does.
impl Slot {
    /// The base that a submission of this database, under way in this slot, was made with.
    pub fn base_in(&self, database: usize) -> Option<Position> {
        let base = self.base.load(Ordering::SeqCst);
        (base != 0 && self.database.load(Ordering::SeqCst) == database as u32).then(|| Position(base - 1))
    }

    /// Whether the submission certified at `position` has a backend that does something else than to commit it.
    pub fn is_overdue(&self, position: Position) -> bool {
        !self.at_gate.load(Ordering::SeqCst) && self.state() == State::Certified && self.position() == position
    }

    /// Whether what is under way in this slot concerns that database.
    pub fn is_in(&self, database: usize) -> bool {
        self.database.load(Ordering::SeqCst) == database as u32
    }

    /// Writes the verdict down if the submission still waits for one: `settle` runs between, before anybody sees it.
    pub fn certify(&self, sequence: Sequence, position: Position, settle: impl FnOnce()) -> bool {
        if !self.swap(sequence, State::Sent, State::Deciding) {
            return false;
        }
        self.position.store(position.0, Ordering::SeqCst);
        settle();
        self.word.store(word(sequence, State::Certified), Ordering::SeqCst);
        true
    }

    pub fn refute(&self, sequence: Sequence, position: Position, cause: AbortCause) -> bool {
        if !self.swap(sequence, State::Sent, State::Deciding) {
            return false;
        }
        self.position.store(position.0, Ordering::SeqCst);
        let (number, winner, node, key) = match cause {
            AbortCause::Conflict { winner, winner_node, key_index } => (0, winner, winner_node, key_index),
            AbortCause::BelowHorizon { horizon } => (1, horizon, NodeId(0), 0),
            AbortCause::Malformed => (2, Position::ZERO, NodeId(0), 0),
            AbortCause::TokenUsed { first } => (3, first, NodeId(0), 0),
            AbortCause::TokenFenced => (4, Position::ZERO, NodeId(0), 0),
            AbortCause::TokenTooOld { floor } => (5, floor, NodeId(0), 0),
        };
        self.cause.store(number, Ordering::SeqCst);
        self.winner.store(winner.0, Ordering::SeqCst);
        self.winner_node.store(node.0, Ordering::SeqCst);
        self.key_index.store(key, Ordering::SeqCst);
        self.word.store(word(sequence, State::Aborted), Ordering::SeqCst);
        true
    }

    pub fn refuse(&self, sequence: Sequence, reason: RefusalReason) -> bool {
        let deciding =
            self.swap(sequence, State::Sent, State::Deciding) || self.swap(sequence, State::Open, State::Deciding);
        if !deciding {
            return false;
        }
        let number = match reason {
            RefusalReason::NoQuorum => 0,
            RefusalReason::Overloaded => 1,
            RefusalReason::NotAttached => 2,
        };
        self.cause.store(number, Ordering::SeqCst);
        self.word.store(word(sequence, State::Refused), Ordering::SeqCst);
        true
    }

    /// What the session of the submission under way calls itself.
    pub fn application(&self) -> String {
        self.application.get()
    }

    /// Answers a question, if somebody still waits for it.
    pub fn answer_question(&self, sequence: Sequence, outcome: TokenOutcome) -> bool {
        if self.word.load(Ordering::SeqCst) != word(sequence, State::Open) {
            return false;
        }
        let (number, position) = match outcome {
            TokenOutcome::Unknown => (0, Position::ZERO),
            TokenOutcome::Committed { position } => (1, position),
            TokenOutcome::Aborted { position } => (2, position),
            TokenOutcome::Fenced => (3, Position::ZERO),
        };
        self.token_outcome.store(number, Ordering::SeqCst);
        self.token_position.store(position.0, Ordering::SeqCst);
        self.answered.store(sequence.0, Ordering::SeqCst);
        true
    }

    pub fn chunk_ordered(&self, sequence: Sequence, index: u32) -> bool {
        let current = self.sequence() == sequence && self.state() == State::Open;
        if current {
            self.chunks.ordered(sequence, index);
        }
        current
    }
}

/// What a remote backend does to whoever stands in its way.
impl Slot {
    /// The certified submission in this slot, if its position is later than `position`, is told to let it through.
    pub fn yield_to(&self, position: Position, node: NodeId, what: Option<&(String, String)>) -> bool {
        let word_now = self.word.load(Ordering::SeqCst);
        let sequence = Sequence(word_now >> 8);
        if State::of(word_now as u8) != State::Certified || self.position() <= position {
            return false;
        }
        self.set_winner(position, node, what);
        self.swap(sequence, State::Certified, State::Yielded)
    }

    fn set_winner(&self, position: Position, node: NodeId, what: Option<&(String, String)>) {
        let (table, key) = what.map_or(("", ""), |(table, key)| (table, key));
        self.victim_table.set(table);
        self.victim_key.set(key);
        self.victim_position.store(position.0, Ordering::SeqCst);
        self.victim_node.store(node.0, Ordering::SeqCst);
    }

    /// The role of the session in this place, if it has run a statement.
    pub fn role(&self) -> Option<pg_sys::Oid> {
        let role = pg_sys::Oid::from(self.role.load(Ordering::Relaxed));
        (role != pg_sys::InvalidOid).then_some(role)
    }

    pub fn mark_victim(&self, transaction: LocalXid, position: Position, node: NodeId, what: Option<&(String, String)>) {
        // Told again, it is still for what it was told first.
        let told = self.is_victim(transaction) && self.victim_position.load(Ordering::SeqCst) == position.0;
        if what.is_some() || !told {
            self.set_winner(position, node, what);
        }
        self.victim.store(transaction.0, Ordering::SeqCst);
    }

    /// Whether this transaction must give way. Atomics only: a signal handler asks.
    pub fn is_victim(&self, transaction: LocalXid) -> bool {
        self.victim.load(Ordering::SeqCst) == transaction.0
    }

    /// Being told was not enough.
    pub fn press(&self, transaction: LocalXid) {
        self.pressed.store(transaction.0, Ordering::SeqCst);
    }

    pub fn is_pressed(&self, transaction: LocalXid) -> bool {
        self.pressed.load(Ordering::SeqCst) == transaction.0
    }

    pub fn hears(&self) -> bool {
        self.hears.load(Ordering::SeqCst)
    }

    /// Told by the process itself when it starts and when it ends.
    pub fn set_hears(&self, hears: bool) {
        self.hears.store(hears, Ordering::SeqCst);
    }

    /// What this transaction must give way to.
    pub fn victim_of(&self, transaction: LocalXid) -> Option<Winner> {
        self.is_victim(transaction).then(|| self.winner())
    }

    /// Whom the last mark was for, whichever transaction it was put on.
    pub fn winner(&self) -> Winner {
        Winner {
            position: Position(self.victim_position.load(Ordering::SeqCst)),
            node: NodeId(self.victim_node.load(Ordering::SeqCst)),
            table: self.victim_table.get(),
            key: self.victim_key.get(),
        }
    }

    pub fn clear_victim(&self) {
        self.victim.store(0, Ordering::SeqCst);
    }

    /// Told by a remote backend about itself.
    pub fn set_remote(&self, position: Position) {
        self.remote.store(position.0, Ordering::SeqCst);
    }

    pub fn remote(&self) -> Option<Position> {
        let position = self.remote.load(Ordering::SeqCst);
        (position != 0).then_some(Position(position))
    }
}

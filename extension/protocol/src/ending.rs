//! The end of a transaction, as far as its slot is concerned: nothing that the group has committed may be forgotten with its backend.
//!
//! [`release`] is called at the end of every transaction, committed or not, also when the process is ending. Whatever state the slot is
//! in, it says what becomes of the submission; the table stands in [`crate::slot`].

#[cfg(test)]
mod tests;

use gcs_writeset::Position;

use crate::id::ProcNo;
use crate::platform::Platform;
use crate::replica::At;
use crate::slot::{Slot, State};

/// What became of the submission in the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// There was none, or it had come to its end.
    Nothing,
    /// It was left without a verdict.
    Undecided,
    /// It is certified and not committed here: remote backends will do it.
    HandedOver(Position),
}

/// The slot's own process is through with its transaction. `at` is the database that the submission was made in.
pub fn release<P: Platform>(at: At<'_, P>, slot: &Slot) -> Released {
    loop {
        match slot.state() {
            State::Idle | State::Left => return Released::Nothing,
            State::Open | State::Refused | State::Aborted if slot.finish() => return Released::Nothing,
            State::GivenUp if slot.finish() => return Released::Undecided,
            State::Sent | State::Deciding if slot.leave(slot.sequence()) => {
                // Unless it is the manager's now.
                slot.finish();
                return Released::Undecided;
            }
            State::Certified | State::Yielded => {
                let released = hand_over(at, slot.position());
                slot.finish_certified();
                return released;
            }
            // The manager was faster, also with the verdict on another copy of what is refused: then that counts.
            _ => continue,
        }
    }
}

/// The position's backend will not commit it. Nothing happens if it has.
pub fn hand_over<P: Platform>(at: At<'_, P>, position: Position) -> Released {
    if !at.database.gate.hand_over(position) {
        return Released::Nothing;
    }
    at.database.replica.counters.handed_over.one();
    at.wake_manager();
    Released::HandedOver(position)
}

/// A slot was left that has been seen to. Its process's next submission may be waiting for it.
pub(crate) fn free<P: Platform>(at: At<'_, P>, process: ProcNo) {
    if let Some(slot) = at.server.slot_of(process) {
        slot.free();
        at.server.wake(process);
    }
}

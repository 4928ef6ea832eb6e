//! Who gives way: the mark on a transaction that holds what an earlier position needs, and how hard its process is pressed.
//!
//! Nobody makes an earlier position wait. A remote backend that would have to wait for a lock looks up who holds it, and deals with each holder
//! by what the holder's slot says ([`Pressing::deal_with`]; docs/architecture.md, "Who gives way", is the table for people). An open
//! transaction gets a *mark* in its slot, which names the transaction, and then a *summons*: a signal that makes the process compare the mark
//! with the transaction it is in ([`summons`]), so that the signal cannot hit the next one. The mark stays: a transaction that caught
//! the error fails at its next statement, and cannot commit. When being told was not enough, the mark is *pressed*: an idle session is ended.

use std::time::Duration;

use crate::bounds::{IDLE_GRACE, OVERDUE};
use crate::id::{LocalXid, Moment};
use crate::platform::Platform;
use crate::replica::At;
use crate::slot::{Slot, State};
use crate::victim::{Holder, Summons, Winner};

/// What a summons means for the transaction that the process of this slot is in. Asked by a signal handler: atomics only.
pub fn summons(slot: &Slot, transaction: Option<LocalXid>) -> Summons {
    // Once submitted, the log decides.
    if !matches!(slot.state(), State::Idle | State::Open) {
        return Summons::Nothing;
    }
    match transaction {
        Some(transaction) if slot.victim.is_marked(transaction) && slot.victim.is_pressed(transaction) => Summons::End,
        Some(transaction) if slot.victim.is_marked(transaction) => Summons::Cancel,
        _ => Summons::Nothing,
    }
}

/// What a remote backend must do about a holder of a lock that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// Wait: the holder goes first, or its end is under way.
    Wait,
    /// Wake it: it was told to let us through, or not to wait for its verdict any longer.
    Wake,
    /// Summon it: its transaction is marked.
    Summon,
    /// The same, and end its session by PostgreSQL's own means, since it does not hear a summons.
    Dislodge,
    /// End its session: it is certified, and does not come to hear that it must let us through.
    End,
}

/// A transaction that stands in the way, and since when.
struct Standing {
    holder: Holder,
    since: Moment,
}

/// One application of one position by a remote backend: which holders it has met so far.
#[derive(Default)]
pub struct Pressing {
    standing: Vec<Standing>,
}

impl Pressing {
    /// Another application begins: whoever stood in the way of the last one is forgotten.
    pub fn begin(&mut self) {
        self.standing.clear();
    }

    /// Decides about one holder, by the state of its slot, and marks it. A transaction that only reads has `reader_grace` before it is told.
    pub fn deal_with<P: Platform>(
        &mut self,
        at: At<'_, P>,
        slot: &Slot,
        holder: &Holder,
        winner: &Winner,
        reader_grace: Duration,
        now: Moment,
    ) -> Pressure {
        if let Some(theirs) = slot.remote() {
            if theirs <= winner.position {
                return Pressure::Wait;
            }
            slot.victim.mark(holder.transaction, winner);
            return Pressure::Summon;
        }
        match slot.state() {
            State::Certified if slot.yield_to(holder.transaction, winner) => Pressure::Wake,
            // It was told, and is busy with something else: its client does not read the rows of a statement that was decided early.
            State::Yielded if !slot.is_at_gate() && self.waited(holder, now) >= OVERDUE => Pressure::End,
            // An earlier position goes first; or the transaction is on its way out.
            State::Certified | State::Aborted | State::Yielded | State::GivenUp | State::Left => Pressure::Wait,
            // A verdict comes, an abort if keys conflict; unless it stands in the stream behind what there is no room for.
            State::Sent | State::Deciding | State::Refused => {
                let is_late = self.waited(holder, now) >= IDLE_GRACE && at.database.gate.is_room_wanted();
                if is_late && slot.ask_to_leave() { Pressure::Wake } else { Pressure::Wait }
            }
            State::Idle | State::Open => self.press(slot, holder, winner, reader_grace, now),
        }
    }

    /// For how long this holder has been standing in the way.
    fn waited(&mut self, holder: &Holder, now: Moment) -> Duration {
        let is_known = |s: &&Standing| (s.holder.process, s.holder.transaction) == (holder.process, holder.transaction);
        if let Some(standing) = self.standing.iter().find(is_known) {
            return now.since(standing.since);
        }
        self.standing.push(Standing { holder: *holder, since: now });
        Duration::ZERO
    }

    /// An open transaction: told at once if it writes or waits for this, after a grace if it reads; its session is ended when telling was not enough.
    fn press(&mut self, slot: &Slot, holder: &Holder, winner: &Winner, reader_grace: Duration, now: Moment) -> Pressure {
        // A reader that waits for this very position would wait for itself.
        let has_grace = !holder.writes && !slot.awaits(winner.position);
        let grace = if has_grace { reader_grace } else { Duration::ZERO };
        let waited = self.waited(holder, now);
        if waited < grace {
            return Pressure::Wait;
        }
        // Every time again: it may have caught the error and gone on.
        slot.victim.mark(holder.transaction, winner);
        if waited < grace + IDLE_GRACE {
            return Pressure::Summon;
        }
        slot.victim.press(holder.transaction);
        if slot.victim.hears() { Pressure::Summon } else { Pressure::Dislodge }
    }
}

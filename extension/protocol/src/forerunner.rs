//! Forerunners: a large transaction of another node is applied here before it is submitted, in a transaction that stays open until the group has decided
//! (docs/adr/0050-applied-ahead.md). At its position only the commit is left to do, so nobody behind it waits for as long as it takes to apply it.
//!
//! ```text
//! node 1: T has changed three million rows, COMMIT: its chunks are ordered ──▶ asks node 2 to apply T ahead
//! node 2: a forerunner has committed all that node 1 had when it asked; applies T; offers it under T's tag; answers
//! node 1: submits T ──▶ position 9, certified
//! node 2: the manager hears of 9 without a writeset, finds the offer: 9 is the forerunner's. It waits for its turn and commits
//! ```
//!
//! A forerunner is to the gate what a backend is that has submitted: it waits in its slot for a verdict, and then for its turn; when it cannot finish, the position is an
//! orphan, and is fetched and applied like any other. Only before the verdict it differs: T may never be submitted, so nobody waits for the forerunner's
//! locks as for those of a transaction that has a place in the order. Its slot is `Open`: an earlier position that needs its locks rolls it back.
//!
//! **What it must have seen.** T was made from what node 1 had committed, 4 say, and the forerunner begins once node 2 has committed that ([`begin`]). But a position may be applied only once
//! the position that it depends on is committed (`depends_on`, of the verdict), and that may have come later:
//!
//! ```text
//! node 1: T changes a row of table t ──▶ asks, having committed 4
//! node 2: the forerunner has seen 4, applies T
//! the order: 5 holds a key that T does not exclude, and that T's rows must come after; T is 6, certified, depends on 5
//! ```
//!
//! So the offer counts only if what was seen covers what T depends on. Else the forerunner is told to roll back, and the position is fetched. (Planted in the simulator, both rules
//! off: `AheadOfDependency`.)
//!
//! What a forerunner has applied, its record in shared memory says ([`crate::offer`]).

use gcs_writeset::link::AbortCause;
use gcs_writeset::{Position, Tag};

use crate::ending::free;
use crate::offer::{Forerunner, Offer};
use crate::platform::{Planted, Platform};
use crate::replica::At;
use crate::slot::Told;

/// Whether what is to be applied once `after` is committed here can be; then everything up to the position that this gives is seen by whatever snapshot is taken
/// afterwards.
pub fn begin<P: Platform>(at: At<'_, P>, after: Position) -> Option<Position> {
    let committed = at.database.gate.committed();
    (committed >= after || P::planted(Planted::AheadOfDependency)).then_some(committed)
}

/// A position of another node that came without its writeset, since a forerunner has applied it: it is the forerunner's, or else to be fetched.
pub fn certified<P: Platform>(at: At<'_, P>, position: Position, tag: &Tag, depends_on: Position) {
    let gate = &at.database.gate;
    let fetch = || {
        at.database.replica.counters.ahead_lost.one();
        at.database.recent.note(position, tag.node, "");
        gate.add_orphan(position, depends_on, tag.node);
    };
    let Some(offer) = offer(at, tag) else { return fetch() };
    let has_seen_enough = offer.seen >= depends_on || P::planted(Planted::AheadOfDependency);
    let Some(slot) = at.server.slot_of(offer.process).filter(|_| offer.is_done && has_seen_enough) else {
        refute(at, offer, position, AbortCause::Malformed);
        return fetch();
    };
    let application = slot.application();
    let settle = || gate.add_local(position, depends_on, (tag.node, offer.process));
    match slot.certify_ahead(offer.sequence, position, settle) {
        Told::NobodyWaits => return fetch(),
        // As with a backend: whoever passes the turn on to it will wake it.
        Told::Told if gate.is_turn(position) => at.server.wake(offer.process),
        Told::Told => {}
        Told::JustLeft => {
            at.database.replica.counters.ahead_lost.one();
            gate.hand_over(position);
            free(at, offer.process);
        }
    }
    at.database.recent.note(position, tag.node, &application);
}

/// A position of another node has aborted, or is not to be a forerunner's: one that applies it rolls back.
pub fn aborted<P: Platform>(at: At<'_, P>, position: Position, tag: &Tag, cause: AbortCause) {
    if let Some(offer) = offer(at, tag) {
        refute(at, offer, position, cause);
    }
}

/// What this forerunner applies, it is to roll back: no position is to come.
pub fn over<P: Platform>(at: At<'_, P>, tag: &Tag) {
    aborted(at, Position::ZERO, tag, AbortCause::Malformed);
}

/// The daemon is gone, and with it whatever it knew of forerunners: those that have no position roll back.
pub fn all_over<P: Platform>(at: At<'_, P>) {
    let offers = at.database.forerunners.iter().filter_map(Forerunner::any);
    offers.for_each(|offer| refute(at, offer, Position::ZERO, AbortCause::Malformed));
}

fn offer<P: Platform>(at: At<'_, P>, tag: &Tag) -> Option<Offer> {
    at.database.forerunners.iter().find_map(|forerunner| forerunner.of(tag))
}

fn refute<P: Platform>(at: At<'_, P>, offer: Offer, position: Position, cause: AbortCause) {
    let told = at.server.slot_of(offer.process).map(|slot| slot.refute_ahead(offer.sequence, position, cause));
    match told {
        Some(Told::Told) => at.server.wake(offer.process),
        Some(Told::JustLeft) => free(at, offer.process),
        Some(Told::NobodyWaits) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use gcs_writeset::{DatabaseId, Incarnation, NodeId, Sequence, SlotId};

    use super::*;
    use crate::ending::{self, Released};
    use crate::id::ProcNo;
    use crate::slot::State;
    use crate::testing::{BACKEND, Room};

    const RUNNER: ProcNo = BACKEND;
    const THERE: NodeId = NodeId(2);

    fn tag(sequence: u64) -> Tag {
        let (incarnation, slot) = (Incarnation(3), SlotId(4));
        Tag { database: DatabaseId(1), node: THERE, incarnation, slot, sequence: Sequence(sequence) }
    }

    /// A forerunner that has applied the transaction with tag 1, having seen position `seen`.
    fn applied(room: &Room, seen: u64) {
        let forerunner = &room.at().database.forerunners[0];
        assert!(forerunner.enter(RUNNER));
        let sequence = room.slot().open(0).unwrap();
        forerunner.begin(&tag(1), Position(seen), sequence);
        forerunner.done();
    }

    fn orphans(room: &Room) -> Vec<Position> {
        room.gate().take_orphans(false)
    }

    #[test]
    fn the_position_is_the_forerunners_that_has_seen_enough() {
        let room = Room::new();
        applied(&room, 0);
        certified(room.at(), Position(1), &tag(1), Position::ZERO);
        let slot = room.slot();
        assert_eq!((slot.state(), slot.position()), (State::Certified, Position(1)));
        assert!(room.gate().is_local_of(Position(1), RUNNER));
        assert_eq!(orphans(&room), []);
    }

    #[test]
    fn what_it_has_not_seen_is_fetched_and_it_rolls_back() {
        let room = Room::new();
        applied(&room, 0);
        room.gate().add_aborted(Position(1));
        certified(room.at(), Position(2), &tag(1), Position(1));
        assert_eq!(room.slot().state(), State::Aborted);
        assert_eq!(orphans(&room), [Position(2)]);
    }

    #[test]
    fn another_tag_is_not_offered() {
        let room = Room::new();
        applied(&room, 0);
        certified(room.at(), Position(1), &tag(2), Position::ZERO);
        assert_eq!(room.slot().state(), State::Open);
        assert_eq!(orphans(&room), [Position(1)]);
    }

    #[test]
    fn one_that_has_rolled_back_leaves_the_position_to_be_fetched_whenever_it_does_so() {
        let room = Room::new();
        applied(&room, 0);
        let slot = room.slot();
        assert_eq!(ending::release(room.at(), slot), Released::Nothing);
        certified(room.at(), Position(1), &tag(1), Position::ZERO);
        assert_eq!(orphans(&room), [Position(1)], "before the verdict");
        let sequence = slot.open(0).unwrap();
        room.at().database.forerunners[0].begin(&tag(2), Position::ZERO, sequence);
        room.at().database.forerunners[0].done();
        certified(room.at(), Position(2), &tag(2), Position::ZERO);
        assert_eq!(ending::release(room.at(), slot), Released::HandedOver(Position(2)));
        assert_eq!(orphans(&room), [Position(2)], "after it");
    }

    #[test]
    fn the_position_of_one_that_is_not_done_is_fetched_and_it_rolls_back() {
        let room = Room::new();
        let forerunner = &room.at().database.forerunners[0];
        assert!(forerunner.enter(RUNNER));
        forerunner.begin(&tag(1), Position::ZERO, room.slot().open(0).unwrap());
        certified(room.at(), Position(1), &tag(1), Position::ZERO);
        assert_eq!(room.slot().state(), State::Aborted);
        assert_eq!(orphans(&room), [Position(1)]);
    }

    #[test]
    fn without_its_daemon_one_rolls_back_that_has_no_position() {
        let room = Room::new();
        applied(&room, 0);
        certified(room.at(), Position(1), &tag(1), Position::ZERO);
        all_over(room.at());
        assert_eq!(room.slot().state(), State::Certified);
        let room = Room::new();
        applied(&room, 0);
        all_over(room.at());
        assert_eq!(room.slot().state(), State::Aborted);
    }

    #[test]
    fn an_abort_is_heard() {
        let room = Room::new();
        applied(&room, 0);
        aborted(room.at(), Position(1), &tag(1), AbortCause::Malformed);
        assert_eq!(room.slot().state(), State::Aborted);
    }
}

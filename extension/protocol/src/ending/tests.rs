//! A process ends, its slot in each of the states.

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

use gcs_writeset::link::{AbortCause, RefusalReason};
use gcs_writeset::{NodeId, Sequence};

use super::*;
use crate::gate::Storage;
use crate::id::{LocalXid, Lsn};
use crate::slot::Told;
use crate::testing::{Alone, BACKEND, MANAGER, Room, TRANSACTION};
use crate::turn;
use crate::victim::Winner;

const POSITION: Position = Position(1);

fn release_in(room: &Room, state: State) -> Released {
    assert_eq!(room.slot().state(), state);
    release(room.at(), room.slot())
}

/// The manager finds the position certified.
fn certify(room: &Room, sequence: Sequence) -> Told {
    let settle = || room.gate().add_local(POSITION, Position::ZERO, (NodeId(1), BACKEND));
    room.slot().certify::<Alone>(sequence, POSITION, settle)
}

fn assert_free(room: &Room) {
    assert_eq!(room.slot().state(), State::Idle);
    assert!(room.slot().open(0).is_some());
}

/// The position waits to be fetched, and will be applied like another node's.
fn assert_handed_over(room: &Room) {
    let gate = room.gate();
    assert_eq!((gate.committed(), gate.orphans()), (Position::ZERO, 1));
    assert!(!gate.is_local_of(POSITION, BACKEND));
    assert_eq!(gate.take_orphans(false), [POSITION]);
    assert!(gate.requeue(POSITION, Storage::File { chunks: 0, length: 1 }));
    assert!(gate.claim(MANAGER).is_some_and(|job| job.position == POSITION));
}

/// The manager finds nobody waiting when the verdict comes.
fn assert_nobody_waits(room: &Room, sequence: Sequence) {
    assert_eq!(certify(room, sequence), Told::NobodyWaits);
    room.gate().add_orphan(POSITION, Position::ZERO, NodeId(1));
    assert_handed_over(room);
}

#[test]
fn idle_nothing_was_submitted() {
    let room = Room::new();
    assert_eq!(release_in(&room, State::Idle), Released::Nothing);
    assert_free(&room);
}

#[test]
fn open_nothing_was_submitted() {
    let room = Room::new();
    room.slot().open(0).unwrap();
    assert_eq!(release_in(&room, State::Open), Released::Nothing);
    assert_eq!(room.gate().known(), Position::ZERO);
    assert_free(&room);
}

#[test]
fn sent_the_verdict_finds_nobody_waiting() {
    let room = Room::new();
    let sequence = room.submit();
    assert_eq!(release_in(&room, State::Sent), Released::Undecided);
    assert_nobody_waits(&room, sequence);
    assert_free(&room);
}

#[test]
fn deciding_the_manager_hands_over() {
    let room = Room::new();
    let sequence = room.submit();
    let told = room.slot().certify::<Alone>(sequence, POSITION, || {
        room.gate().add_local(POSITION, Position::ZERO, (NodeId(1), BACKEND));
        assert_eq!(release_in(&room, State::Deciding), Released::Undecided);
    });
    assert_eq!(told, Told::JustLeft);
    assert_eq!(room.slot().open(0), None, "the slot is the manager's");
    assert!(room.gate().hand_over(POSITION));
    room.slot().free();
    assert_handed_over(&room);
    assert_free(&room);
}

#[test]
fn certified_the_position_is_handed_over() {
    let room = Room::new();
    assert_eq!(certify(&room, room.submit()), Told::Told);
    assert_eq!(release_in(&room, State::Certified), Released::HandedOver(POSITION));
    assert_eq!(room.woken(), [MANAGER]);
    assert_handed_over(&room);
    assert_free(&room);
}

#[test]
fn certified_and_committed_nothing_is_left_to_do() {
    let room = Room::new();
    assert_eq!(certify(&room, room.submit()), Told::Told);
    turn::pass(room.at(), POSITION, Lsn(1));
    assert_eq!(release_in(&room, State::Certified), Released::Nothing);
    assert_eq!((room.gate().committed(), room.gate().orphans()), (POSITION, 0));
    assert_free(&room);
}

#[test]
fn aborted_the_position_is_passed_over() {
    let room = Room::new();
    let sequence = room.submit();
    assert_eq!(room.slot().refute(sequence, POSITION, AbortCause::Malformed), Told::Told);
    room.gate().add_aborted(POSITION);
    assert_eq!(release_in(&room, State::Aborted), Released::Nothing);
    assert_eq!((room.gate().committed(), room.gate().orphans()), (POSITION, 0));
    assert_free(&room);
}

#[test]
fn refused_a_verdict_on_another_copy_finds_nobody_waiting() {
    let room = Room::new();
    let sequence = room.submit();
    assert_eq!(room.slot().refuse(sequence, RefusalReason::NoQuorum), Told::Told);
    assert_eq!(release_in(&room, State::Refused), Released::Nothing);
    assert_nobody_waits(&room, sequence);
    assert_free(&room);
}

#[test]
fn yielded_the_position_is_handed_over() {
    let room = Room::new();
    assert_eq!(certify(&room, room.submit()), Told::Told);
    assert!(room.slot().yield_to(TRANSACTION, &Winner::default()));
    assert_eq!(release_in(&room, State::Yielded), Released::HandedOver(POSITION));
    assert_handed_over(&room);
    assert_free(&room);
}

/// The look at who holds a lock was of the transaction before.
#[test]
fn a_certified_transaction_does_not_yield_in_place_of_the_one_before_it() {
    let room = Room::new();
    assert_eq!(certify(&room, room.submit()), Told::Told);
    assert!(!room.slot().yield_to(LocalXid(TRANSACTION.0 - 1), &Winner::default()));
    assert_eq!(room.slot().state(), State::Certified);
}

#[test]
fn given_up_the_verdict_finds_nobody_waiting() {
    let room = Room::new();
    let sequence = room.submit();
    assert!(room.slot().leave(sequence));
    assert_eq!(release_in(&room, State::GivenUp), Released::Undecided);
    assert_nobody_waits(&room, sequence);
    assert_free(&room);
}

#[test]
fn left_the_slot_is_the_managers_until_it_notices() {
    let room = Room::new();
    let sequence = room.submit();
    room.slot().certify::<Alone>(sequence, POSITION, || {
        room.gate().add_local(POSITION, Position::ZERO, (NodeId(1), BACKEND));
        assert!(room.slot().leave(sequence));
    });
    assert_eq!(release_in(&room, State::Left), Released::Nothing);
    assert_eq!(room.slot().state(), State::Left);
    // The manager dies here; its successor finds the slot.
    crate::manager::resolve(room.at());
    assert!(room.woken().contains(&BACKEND), "it may be waiting for its slot");
    assert_handed_over(&room);
    assert_free(&room);
}

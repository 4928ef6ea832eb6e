//! Who commits next: turns passed on, and later positions that let earlier ones through.

use gcs_writeset::Position;
use loom::thread;
use postgres_r_protocol::id::{Lsn, ProcNo};
use postgres_r_protocol::precedence::{Pressing, Pressure};
use postgres_r_protocol::slot::State;
use postgres_r_protocol::sync::{AtomicBool, Ordering};
use postgres_r_protocol::turn::{self, Unfinished};
use postgres_r_protocol::victim::{Holder, Winner};

use crate::room::{ABORTED, CERTIFIED, NO_FAULT, Room, TRANSACTION, TURN_WAKES_NOBODY, YIELD_UNHEARD, job};
use crate::{explore, explore_at_most};

const FIRST: ProcNo = ProcNo(0);
const LATER: ProcNo = ProcNo(1);

/// Position 1 commits while the manager brings 2, which aborted, and 3, whose backend waits.
fn turns_are_passed_on<const FAULT: u8>() {
    let room = Room::<FAULT>::with_fault(2, 0);
    let (first, later) = (room.submit(FIRST), room.submit(LATER));
    room.take_own(1, FIRST, first, CERTIFIED);
    let commits = |process| {
        let room = room.clone();
        thread::spawn(move || {
            assert_eq!(room.wait_for_verdict(process), State::Certified);
            assert!(room.commit_in_turn(process));
        })
    };
    let backends = [commits(FIRST), commits(LATER)];
    room.take_aborted(2);
    room.take_own(3, LATER, later, CERTIFIED);
    for backend in backends {
        backend.join().unwrap();
    }
    assert_eq!(room.gate().committed(), Position(3));
    room.assert_free(FIRST);
    room.assert_free(LATER);
}

#[test]
fn no_turn_is_lost_between_who_commits_and_who_passes_aborted_positions() {
    explore_at_most(4, "advance, aborted positions, the next turn", turns_are_passed_on::<NO_FAULT>);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_turn_that_wakes_nobody_is_found() {
    explore("a turn that wakes nobody", turns_are_passed_on::<TURN_WAKES_NOBODY>);
}

#[test]
fn a_verdict_and_a_turn_come_in_either_order() {
    explore("two backends whose verdicts and turns come", || {
        let room = Room::new(2, 0);
        let (first, later) = (room.submit(FIRST), room.submit(LATER));
        let ends = |process, verdict| {
            let room = room.clone();
            thread::spawn(move || {
                assert_eq!(room.wait_for_verdict(process), verdict);
                if verdict == State::Certified {
                    assert!(room.commit_in_turn(process));
                } else {
                    room.slot(process).finish();
                }
            })
        };
        let backends = [ends(FIRST, State::Aborted), ends(LATER, State::Certified)];
        room.take_own(1, FIRST, first, ABORTED);
        room.take_own(2, LATER, later, CERTIFIED);
        for backend in backends {
            backend.join().unwrap();
        }
        assert_eq!(room.gate().committed(), Position(2));
    });
}

/// A remote backend that applies position 1 needs a row lock that the backend of position 2 holds.
fn an_earlier_position_is_let_through<const FAULT: u8>() {
    let room = Room::<FAULT>::with_fault(2, 0);
    let later = room.submit(LATER);
    room.gate().add_queued(&job(1, 0));
    room.gate().claim(FIRST).unwrap();
    room.take_own(2, LATER, later, CERTIFIED);
    let is_locked = std::sync::Arc::new(AtomicBool::new(true));
    let backend = {
        let (room, is_locked) = (room.clone(), is_locked.clone());
        thread::spawn(move || {
            let ended = room.commit_after(LATER, || {
                is_locked.store(false, Ordering::SeqCst);
                room.server.wake(FIRST);
            });
            assert_eq!(ended, Err(Unfinished::Yielded), "its turn cannot have come");
        })
    };
    let holder = Holder { process: LATER, transaction: TRANSACTION, writes: true };
    let winner = Winner { position: Position(1), ..Winner::default() };
    let mut pressing = Pressing::default();
    while is_locked.load(Ordering::SeqCst) {
        let slot = room.slot(LATER);
        match pressing.deal_with(room.at(), slot, &holder, &winner, Default::default(), Default::default()) {
            Pressure::Wake => room.server.wake(LATER),
            Pressure::Wait => {}
            other => assert!(!is_locked.load(Ordering::SeqCst), "{other:?} for a certified transaction"),
        }
        room.sleep(FIRST);
    }
    turn::pass(room.at(), Position(1), Lsn(1));
    backend.join().unwrap();
    room.assert_committed_once(2, false);
    room.assert_free(LATER);
}

#[test]
fn a_later_position_that_holds_a_lock_lets_an_earlier_one_through() {
    explore("yield, with a lock", an_earlier_position_is_let_through::<NO_FAULT>);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_backend_that_does_not_hear_that_it_must_yield_is_found() {
    explore("a yield that is not heard", an_earlier_position_is_let_through::<YIELD_UNHEARD>);
}

#[test]
fn a_backend_told_to_yield_when_its_turn_comes_commits_once_or_is_committed_once() {
    explore("yield, and the turn", || {
        let room = Room::new(2, 0);
        let later = room.submit(LATER);
        room.gate().add_queued(&job(1, 0));
        room.gate().claim(FIRST).unwrap();
        room.take_own(2, LATER, later, CERTIFIED);
        let backend = {
            let room = room.clone();
            thread::spawn(move || {
                let committed = room.commit_in_turn(LATER);
                let next = room.slot(LATER).open(0).expect("no stale state is left");
                (committed, next)
            })
        };
        // The lock is free before the other has heard anything: it may or may not.
        let winner = Winner { position: Position(1), ..Winner::default() };
        if room.slot(LATER).yield_to(TRANSACTION, &winner) {
            room.server.wake(LATER);
        }
        turn::pass(room.at(), Position(1), Lsn(1));
        let (committed, next) = backend.join().unwrap();
        room.assert_committed_once(2, committed);
        assert_eq!((room.slot(LATER).state(), room.slot(LATER).sequence()), (State::Open, next));
    });
}

//! A forerunner, which has applied another node's transaction and has submitted nothing, and the manager that brings its position.

use gcs_writeset::{Position, Sequence};
use loom::thread;
use postgres_r_protocol::ending;
use postgres_r_protocol::id::ProcNo;
use postgres_r_protocol::slot::State;

use crate::explore;
use crate::manager::{explore_deaths, take_and_die};
use crate::room::{ABORTED, CERTIFIED, Room, TRANSACTION, ahead};

const RUNNER: ProcNo = ProcNo(0);
const FIRST: Sequence = Sequence(1);
const SECOND: Sequence = Sequence(2);

/// It has applied the transaction, and offers it.
fn offer(room: &Room, sequence: Sequence) {
    let (slot, forerunner) = (room.slot(RUNNER), &room.database.forerunners[0]);
    forerunner.process.set(Some(RUNNER));
    slot.in_transaction(TRANSACTION);
    let own = room.open_next(RUNNER);
    forerunner.begin(&ahead(sequence), Position(0), own);
    forerunner.done();
}

/// What the end of its transaction does.
fn end(room: &Room) {
    room.database.forerunners[0].take_back();
    ending::release(room.at(), room.slot(RUNNER));
}

#[test]
fn a_forerunner_that_waits_commits_its_position() {
    explore("a forerunner that waits", || {
        let room = Room::new(1, 0);
        offer(&room, FIRST);
        let runner = {
            let room = room.clone();
            thread::spawn(move || {
                assert_eq!(room.wait_for_verdict(RUNNER), State::Certified);
                room.commit_in_turn(RUNNER)
            })
        };
        room.take_ahead(1, FIRST, CERTIFIED);
        assert!(runner.join().unwrap());
        room.assert_committed_once(1, true);
        room.assert_free(RUNNER);
    });
}

#[test]
fn a_forerunner_that_rolls_back_leaves_its_position_to_be_fetched() {
    explore("a forerunner that rolls back", || {
        let room = Room::new(1, 0);
        offer(&room, FIRST);
        let runner = {
            let room = room.clone();
            thread::spawn(move || end(&room))
        };
        room.take_ahead(1, FIRST, CERTIFIED);
        runner.join().unwrap();
        room.assert_committed_once(1, false);
        room.assert_free(RUNNER);
    });
}

#[test]
fn the_next_offer_is_not_taken_for_the_last_one() {
    explore("a forerunner that rolls back, and offers another transaction", || {
        let room = Room::new(1, 0);
        offer(&room, FIRST);
        let runner = {
            let room = room.clone();
            thread::spawn(move || {
                end(&room);
                offer(&room, SECOND);
            })
        };
        room.take_ahead(1, FIRST, CERTIFIED);
        runner.join().unwrap();
        assert_eq!(room.slot(RUNNER).state(), State::Open, "the second transaction has no position");
        room.assert_committed_once(1, false);
        end(&room);
        room.assert_free(RUNNER);
    });
}

#[test]
fn an_abort_is_heard_by_a_forerunner_that_waits() {
    explore("a forerunner whose transaction is aborted", || {
        let room = Room::new(1, 0);
        offer(&room, FIRST);
        let runner = {
            let room = room.clone();
            thread::spawn(move || {
                assert_eq!(room.wait_for_verdict(RUNNER), State::Aborted);
                end(&room);
            })
        };
        room.take_ahead(1, FIRST, ABORTED);
        runner.join().unwrap();
        assert_eq!(room.gate().committed(), Position(1));
        room.assert_free(RUNNER);
    });
}

#[test]
fn a_verdict_left_half_written_reaches_a_forerunner_that_waits() {
    explore_deaths("a manager dies over a forerunner's position", None, |deaths| {
        let room = Room::new(1, 0);
        offer(&room, FIRST);
        let runner = {
            let room = room.clone();
            thread::spawn(move || {
                assert_eq!(room.wait_for_verdict(RUNNER), State::Certified);
                room.commit_in_turn(RUNNER)
            })
        };
        let died = take_and_die(&room, || room.take_ahead(1, FIRST, CERTIFIED), deaths);
        assert!(runner.join().unwrap());
        room.assert_committed_once(1, true);
        room.assert_free(RUNNER);
        died
    });
}

#[test]
fn a_verdict_left_half_written_loses_no_position_of_a_forerunner_that_rolls_back() {
    explore_deaths("a manager dies over the position of a forerunner that rolls back", Some(3), |deaths| {
        let room = Room::new(1, 0);
        offer(&room, FIRST);
        let runner = {
            let room = room.clone();
            thread::spawn(move || {
                end(&room);
                // Its place must be free some day.
                room.open_next(RUNNER);
                end(&room);
            })
        };
        let died = take_and_die(&room, || room.take_ahead(1, FIRST, CERTIFIED), deaths);
        runner.join().unwrap();
        room.assert_committed_once(1, false);
        room.assert_free(RUNNER);
        died
    });
}

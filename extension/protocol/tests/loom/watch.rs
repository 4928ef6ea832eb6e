//! Readers that wait for a position, and the manager that is to report one, against whoever moves the gate past it.

use gcs_writeset::Position;
use loom::thread;
use postgres_r_protocol::id::ProcNo;
use postgres_r_protocol::sighting::{Sighting, Uptime};

use std::sync::Arc;
use std::time::Duration;

use crate::room::Room;
use crate::{explore, explore_at_most};

const READER: ProcNo = ProcNo(1);
const OTHER: ProcNo = ProcNo(2);

/// As a backend does: says what it waits for, looks, sleeps.
fn waits(room: &Room, process: ProcNo, position: Position) {
    let watch = &room.database.replica.readers;
    loop {
        watch.wait_for(position);
        if room.gate().committed() >= position {
            return;
        }
        room.sleep(process);
    }
}

#[test]
fn a_reader_is_woken_by_whoever_commits_what_it_waits_for() {
    explore("one reader and two positions", || {
        let room = Room::new(2, 0);
        let reader = {
            let room = room.clone();
            thread::spawn(move || waits(&room, READER, Position(2)))
        };
        room.take_aborted(1);
        room.take_aborted(2);
        reader.join().unwrap();
    });
}

#[test]
fn of_two_readers_neither_is_forgotten_when_the_other_is_woken() {
    explore_at_most(3, "two readers of different positions", || {
        let room = Room::new(3, 0);
        let readers = [(READER, 1), (OTHER, 2)].map(|(process, position)| {
            let room = room.clone();
            thread::spawn(move || waits(&room, process, Position(position)))
        });
        room.take_aborted(1);
        room.take_aborted(2);
        let _ = readers.map(|reader| reader.join().unwrap());
    });
}

#[test]
fn a_manager_that_is_to_report_a_position_does() {
    explore("a manager that watches", || {
        let room = Room::new(2, 0);
        room.database.replica.manager.set(Some(READER));
        let manager = {
            let room = room.clone();
            thread::spawn(move || {
                room.database.replica.asked.wait_for(Position(1));
                while !room.database.replica.asked.take(room.gate().committed()) {
                    room.sleep(READER);
                }
            })
        };
        room.take_aborted(1);
        manager.join().unwrap();
    });
}

#[test]
fn a_moment_is_never_seen_without_its_position() {
    explore("two sessions with answers, and one that reads them", || {
        let sighting = Arc::new(Sighting::default());
        let at = |second| Uptime(Duration::from_secs(second));
        let writers = [(1, 5), (2, 7)].map(|(second, position)| {
            let sighting = sighting.clone();
            thread::spawn(move || sighting.note(at(second), Position(position)))
        });
        if let Some((seen, position)) = sighting.last() {
            assert!(position >= if seen == at(2) { Position(7) } else { Position(5) });
        }
        let _ = writers.map(|writer| writer.join().unwrap());
        assert_eq!(sighting.last(), Some((at(2), Position(7))));
    });
}

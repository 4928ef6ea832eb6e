//! What an entry of the gate can turn into, against the table.

use super::*;
use crate::testing::{BACKEND, Room, assert_table};

#[test]
fn an_entry_goes_from_kind_to_kind_as_the_table_says_and_no_other_way() {
    assert_table::<Kind>(include_str!("../gate.rs"), 7, Kind::may_become);
}

#[test]
#[should_panic(expected = "a gate entry goes from Orphan (3) to Unknown")]
fn another_way_is_asserted() {
    let room = Room::new();
    room.gate().add_orphan(Position(1), Position::ZERO, NodeId(1));
    room.gate().advance(Run::of(Position(1)), Lsn(1));
}

#[test]
fn the_lowest_queued_position_is_found_also_when_it_comes_back() {
    let room = Room::new();
    let gate = room.gate();
    assert_eq!(gate.lowest_queued(), None);
    for position in [1, 2].map(Position) {
        let storage = Storage::File { chunks: 0, length: 1 };
        gate.add_queued(&Job { position, depends_on: Position::ZERO, node: NodeId(2), storage });
    }
    assert_eq!(gate.lowest_queued(), Some(Position(1)));
    gate.claim(BACKEND);
    assert_eq!(gate.lowest_queued(), Some(Position(2)));
    gate.claim(BACKEND);
    assert_eq!(gate.lowest_queued(), None);
    gate.unclaim(Position(1));
    assert_eq!(gate.lowest_queued(), Some(Position(1)));
}

/// In the ring, dependent on `depends_on`.
fn queue(room: &Room, position: u64, depends_on: u64) {
    let storage = Storage::Ring { offset: 0, length: 100, end: position * 100 };
    room.gate().add_queued(&Job {
        position: Position(position),
        depends_on: Position(depends_on),
        node: NodeId(2),
        storage,
    });
}

fn claim(room: &Room, most: Most) -> Vec<u64> {
    room.gate().claim_run(BACKEND, most).iter().map(|job| job.position.0).collect()
}

const PLENTY: Most = Most { positions: 8, bytes: 10_000 };

#[test]
fn a_run_goes_over_aborted_positions_and_ends_before_anything_that_is_not_queued() {
    let room = Room::new();
    queue(&room, 1, 0);
    room.gate().add_aborted(Position(2));
    queue(&room, 3, 1);
    room.gate().add_orphan(Position(4), Position::ZERO, NodeId(1));
    queue(&room, 5, 0);
    assert_eq!(claim(&room, PLENTY), [1, 3]);
    assert_eq!(claim(&room, PLENTY), [5]);
    assert_eq!(room.gate().queued(), 0);
    let moved = room.gate().advance(Run { first: Position(1), last: Position(3) }, Lsn(1)).unwrap();
    assert_eq!((moved.committed, room.gate().committed()), (Position(3), Position(3)));
}

#[test]
fn a_run_takes_no_more_than_it_may() {
    let room = Room::new();
    (1..=8).for_each(|position| queue(&room, position, 0));
    assert_eq!(claim(&room, Most { positions: 3, bytes: 10_000 }), [1, 2, 3]);
    assert_eq!(claim(&room, Most { positions: 9, bytes: 250 }), [4, 5]);
    assert_eq!(claim(&room, Most::ONE), [6]);
    assert_eq!(claim(&room, PLENTY), [7, 8]);
}

#[test]
fn who_depends_on_something_before_a_run_is_in_it_only_if_the_run_waits_for_that() {
    let room = Room::new();
    for (position, depends_on) in [(1, 0), (2, 0), (3, 2), (4, 3), (5, 1), (6, 2), (7, 0)] {
        queue(&room, position, depends_on);
    }
    assert_eq!(claim(&room, Most::ONE), [1]);
    assert_eq!(claim(&room, Most::ONE), [2]);
    // 3 waits for 2: so 5 and 6 may come along, which wait for 1 and 2.
    assert_eq!(claim(&room, PLENTY), [3, 4, 5, 6, 7]);
    let room = Room::new();
    for (position, depends_on) in [(1, 0), (2, 0), (3, 1), (4, 3)] {
        queue(&room, position, depends_on);
    }
    assert_eq!(claim(&room, Most::ONE), [1]);
    // 1 is not committed, and 2 does not wait for it.
    assert_eq!(claim(&room, PLENTY), [2]);
    // 4 may depend on 2 as well as on 3, which does not wait for 2.
    assert_eq!(claim(&room, PLENTY), [3]);
    assert_eq!(claim(&room, PLENTY), [4]);
}

#[test]
fn a_run_is_given_back_as_a_whole_and_taken_position_by_position_if_it_came_to_nothing() {
    let room = Room::new();
    queue(&room, 1, 0);
    room.gate().add_aborted(Position(2));
    (3..=6).for_each(|position| queue(&room, position, 0));
    let run = Run { first: Position(1), last: Position(4) };
    assert_eq!(claim(&room, Most { positions: 3, ..PLENTY }), [1, 3, 4]);
    room.gate().unclaim(Position(1));
    assert_eq!((room.gate().queued(), room.gate().lowest_queued()), (5, Some(Position(1))));
    assert_eq!(claim(&room, Most { positions: 3, ..PLENTY }), [1, 3, 4]);
    room.gate().break_up(run);
    for position in [1, 3, 4, 5, 6] {
        assert_eq!(claim(&room, PLENTY), [position]);
    }
    room.gate().advance(run, Lsn(1));
    room.gate().unclaim(Position(1));
    assert_eq!(room.gate().queued(), 0, "committed");
}

#[test]
fn what_remote_backends_are_to_commit_counts_until_it_is_passed_and_what_clients_commit_does_not() {
    let room = Room::new();
    let gate = room.gate();
    gate.add_local(Position(1), Position::ZERO, (NodeId(1), BACKEND));
    queue(&room, 2, 0);
    gate.add_aborted(Position(3));
    gate.add_local(Position(4), Position::ZERO, (NodeId(1), BACKEND));
    assert_eq!((gate.ahead(), gate.to_apply()), (4, 1));
    // Its backend has left.
    assert!(gate.hand_over(Position(4)));
    gate.add_orphan(Position(5), Position::ZERO, NodeId(1));
    assert_eq!(gate.to_apply(), 3);
    gate.advance(Run::of(Position(1)), Lsn(1));
    assert_eq!(claim(&room, PLENTY), [2]);
    gate.unclaim(Position(2));
    assert_eq!(claim(&room, PLENTY), [2]);
    gate.advance(Run::of(Position(2)), Lsn(2));
    assert_eq!((gate.ahead(), gate.to_apply()), (2, 2));
    gate.reset(Position(9));
    assert_eq!(gate.to_apply(), 0);
}

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
    room.gate().add_orphan(Position(1), Position::ZERO);
    room.gate().advance(Position(1), Lsn(1));
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

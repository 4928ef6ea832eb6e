//! What a slot can turn into, against the table.

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

use super::*;
use crate::testing::assert_table;

#[test]
fn a_slot_goes_from_state_to_state_as_the_table_says_and_no_other_way() {
    assert_table::<State>(include_str!("../slot.rs"), 10, State::may_become);
}

#[test]
#[should_panic(expected = "a slot goes from Open to Certified")]
fn another_way_is_asserted() {
    let slot = Slot::default();
    let sequence = slot.open(0).unwrap();
    slot.swap(sequence, State::Open, State::Certified);
}

#[test]
fn a_base_belongs_to_the_database_that_it_was_announced_for() {
    let slot = Slot::default();
    slot.open(0).unwrap();
    slot.announce_base(1, Position(7));
    slot.announce_base(1, Position(9));
    assert_eq!((slot.base_in(0), slot.base_in(1)), (None, Some(Position(7))));
    assert!(slot.is_in(0), "the submission is where it was");
    slot.clear_base();
    assert_eq!(slot.base_in(1), None);
}

#[test]
fn a_certified_submission_is_not_over_before_its_position_was_seen_to() {
    let slot = Slot::default();
    let sequence = slot.open(0).unwrap();
    assert!(slot.send(sequence));
    assert_eq!(slot.certify::<crate::testing::Alone>(sequence, Position(1), || ()), Told::Told);
    assert!(!slot.finish());
    assert_eq!(slot.state(), State::Certified);
    assert!(slot.finish_certified());
    assert_eq!(slot.state(), State::Idle);
}

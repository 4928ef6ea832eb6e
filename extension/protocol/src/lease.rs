//! Leases of a sequence: ranges of its values that the group's order has given to one node (docs/adr/0025).
//!
//! The group keeps, for each sequence, what a sequence keeps on one server: the last value that was given out, and whether it was. Here
//! "given out" means to a node: a lease moves that state forward by some values, in an ordered transaction, and so no two leases have a value
//! in common. This module is the arithmetic: which values come next, how many a lease has, and what a node does with a value that its own
//! sequence has come up with.

use std::time::Duration;

/// Values of the first lease, as many as PostgreSQL itself loses with a crash.
pub const SIZE_MIN: u32 = 32;

/// Values of a lease at most, unless a session's CACHE is larger.
pub const SIZE_MAX: u32 = 1 << 16;

/// A lease takes no more than this part of the values that are left, so that the end of a small sequence is shared between nodes.
const SHARE: i128 = 16;

/// A lease that is used up sooner is followed by one of twice the size.
const SHORT: Duration = Duration::from_secs(1);

/// One that has lasted longer by one of half the size.
const LONG: Duration = Duration::from_secs(30);

/// Which values a sequence can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    /// Never zero.
    pub increment: i64,
    pub min: i64,
    pub max: i64,
    pub cycles: bool,
}

/// How far a sequence is: what its row holds on one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub last: i64,
    /// Whether `last` was given out; else it is the next to be.
    pub is_called: bool,
}

/// Values from `first` to `last`, which is the smaller one in a descending sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub first: i64,
    pub last: i64,
}

/// The sequence has given its last value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl Range {
    pub fn contains(self, value: i64) -> bool {
        (self.first.min(self.last)..=self.first.max(self.last)).contains(&value)
    }

    /// Whether `value` comes before all of these, in a sequence with this increment.
    pub fn is_ahead_of(self, value: i64, increment: i64) -> bool {
        if increment > 0 { value < self.first } else { value > self.first }
    }

    /// How many values there are, at most.
    fn span(self) -> u64 {
        self.first.abs_diff(self.last)
    }

    /// Whether half of these values, or more, come before `value`.
    pub fn is_half_used_at(self, value: i64) -> bool {
        self.contains(value) && self.first.abs_diff(value) >= self.span() / 2
    }
}

impl Series {
    /// The value that comes next.
    pub fn next(&self, state: State) -> Result<i64, Exhausted> {
        if !state.is_called {
            return Ok(state.last);
        }
        let (wrapped, next) = (if self.increment > 0 { self.min } else { self.max }, state.last.checked_add(self.increment));
        match next.filter(|next| (self.min..=self.max).contains(next)) {
            Some(next) => Ok(next),
            None if self.cycles => Ok(wrapped),
            None => Err(Exhausted),
        }
    }

    /// A lease of about `size` values, and the state of the group's sequence after it. It goes as far as `reach`, a value that the node's own
    /// sequence has come up with, if that lies ahead.
    pub fn lease(&self, state: State, size: u32, reach: Option<i64>) -> Result<(Range, State), Exhausted> {
        let first = self.next(state)?;
        let (start, step) = (i128::from(first), i128::from(self.increment));
        let end = i128::from(if self.increment > 0 { self.max } else { self.min });
        // How many steps there are from the first value to the last that is left.
        let left = ((end - start) / step).max(0);
        let wanted = i128::from(size.max(1) - 1).min(left / SHARE);
        let ahead = reach.map_or(0, |reach| ((i128::from(reach) - start) / step).max(0));
        let steps = (wanted + ahead).min(left);
        let last = i64::try_from(start + steps * step).unwrap_or(first);
        Ok((Range { first, last }, State { last, is_called: true }))
    }

    /// Whether a sequence that is at `here` would give a value before `there`.
    pub fn is_behind(&self, here: State, there: i64) -> bool {
        let Ok(next) = self.next(here) else { return false };
        if self.increment > 0 { next < there } else { next > there }
    }
}

/// The size of the lease after one of `size` values that has lasted for so long.
pub fn next_size(size: u32, lasted: Duration) -> u32 {
    let size = size.max(SIZE_MIN);
    if lasted < SHORT {
        (size * 2).min(SIZE_MAX)
    } else if lasted > LONG {
        (size / 2).max(SIZE_MIN)
    } else {
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Series = Series { increment: 1, min: 1, max: i64::MAX, cycles: false };
    const START: State = State { last: 1, is_called: false };

    fn called(last: i64) -> State {
        State { last, is_called: true }
    }

    #[test]
    fn leases_follow_one_another_without_a_gap() {
        let (first, state) = PLAIN.lease(START, 32, None).unwrap();
        assert_eq!((first, state), (Range { first: 1, last: 32 }, called(32)));
        let (second, _) = PLAIN.lease(state, 64, None).unwrap();
        assert_eq!(second, Range { first: 33, last: 96 });
    }

    #[test]
    fn a_lease_goes_as_far_as_the_value_that_is_asked_for() {
        assert_eq!(PLAIN.lease(called(32), 10, Some(40)).unwrap().0, Range { first: 33, last: 49 });
        assert_eq!(PLAIN.lease(called(32), 10, Some(5)).unwrap().0, Range { first: 33, last: 42 });
    }

    #[test]
    fn the_last_values_are_shared_and_then_exhausted() {
        let small = Series { max: 5, ..PLAIN };
        let mut state = START;
        let mut given = Vec::new();
        while let Ok((range, next)) = small.lease(state, 32, None) {
            given.extend(range.first..=range.last);
            state = next;
        }
        assert_eq!(given, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn the_ends_of_the_type_are_given_and_not_passed() {
        let up = Series { min: i64::MIN, ..PLAIN };
        assert_eq!(up.lease(called(i64::MAX - 1), 32, None).unwrap().0, Range { first: i64::MAX, last: i64::MAX });
        assert_eq!(up.lease(called(i64::MAX), 32, None), Err(Exhausted));
        let down = Series { increment: -1, ..up };
        assert_eq!(
            down.lease(called(i64::MIN + 1), 32, Some(i64::MIN)).unwrap().0,
            Range { first: i64::MIN, last: i64::MIN }
        );
        assert_eq!(down.lease(called(i64::MIN), 1, None), Err(Exhausted));
        let far = Series { increment: i64::MAX, ..up };
        assert_eq!(far.lease(called(i64::MIN), 9, Some(i64::MAX)).unwrap().0, Range { first: -1, last: i64::MAX - 1 });
    }

    #[test]
    fn a_cycling_sequence_starts_over() {
        let round = Series { min: 3, max: 9, increment: 2, cycles: true };
        assert_eq!(round.lease(called(9), 1, None).unwrap().0, Range { first: 3, last: 3 });
        let back = Series { increment: -2, ..round };
        assert_eq!(back.next(called(3)), Ok(9));
    }

    #[test]
    fn a_descending_sequence_counts_down() {
        let down = Series { increment: -3, min: -100, max: -1, cycles: false };
        let (range, state) = down.lease(State { last: -1, is_called: false }, 3, None).unwrap();
        assert_eq!((range, state), (Range { first: -1, last: -7 }, called(-7)));
        assert!(range.contains(-4) && !range.contains(-10));
        assert!(range.is_ahead_of(2, -3) && !range.is_ahead_of(-4, -3));
        assert!(down.is_behind(called(-1), -7) && !down.is_behind(called(-4), -7));
    }

    #[test]
    fn leases_grow_while_they_are_used_up_fast() {
        let fast = (0..20).fold(0, |size, _| next_size(size, Duration::from_millis(3)));
        assert_eq!(fast, SIZE_MAX);
        assert_eq!((0..20).fold(fast, |size, _| next_size(size, Duration::from_secs(60))), SIZE_MIN);
    }
}

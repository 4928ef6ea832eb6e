//! Where each entry and outcome is: dense lists in memory over the range of Raft indexes that is kept.

use std::collections::VecDeque;
use std::ops::Range;

/// Bytes within a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub segment: u32,
    pub offset: u32,
    pub length: u32,
}

/// Places by Raft index, without gaps.
#[derive(Clone, Debug, Default)]
pub struct Places {
    first: u64,
    places: VecDeque<Place>,
}

impl Places {
    /// The indexes that are here.
    pub fn range(&self) -> Range<u64> {
        self.first..self.first + self.places.len() as u64
    }

    pub fn get(&self, index: u64) -> Option<Place> {
        let at = index.checked_sub(self.first)?;
        self.places.get(usize::try_from(at).ok()?).copied()
    }

    /// Places from `first` on replace whatever is at or behind `first`. Where that leaves a gap, everything before goes.
    pub fn append(&mut self, first: u64, places: impl Iterator<Item = Place>) {
        let range = self.range();
        if range.is_empty() || first > range.end || first < range.start {
            self.places.clear();
            self.first = first;
        } else {
            self.places.truncate((first - range.start) as usize);
        }
        self.places.extend(places);
    }

    /// Drops everything at or below `index`.
    pub fn drop_to(&mut self, index: u64) {
        let range = self.range();
        let count = (index + 1).clamp(range.start, range.end.max(range.start)) - range.start;
        self.places.drain(..count as usize);
        self.first = range.start + count;
        if self.places.is_empty() {
            self.first = self.first.max(index + 1);
        }
    }

    /// Empty, to go on behind `index`.
    pub fn reset(&mut self, index: u64) {
        self.places.clear();
        self.first = index + 1;
    }

    /// The first index that is in this segment or a later one.
    pub fn first_in(&self, segment: u32) -> Option<u64> {
        let before = self.places.partition_point(|place| place.segment < segment);
        (before < self.places.len()).then(|| self.first + before as u64)
    }

    /// The lowest segment that something kept is in; only the first place need be asked, they are in order of writing.
    pub fn oldest_segment(&self) -> Option<u32> {
        self.places.front().map(|place| place.segment)
    }
}

/// Terms by Raft index, as runs.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// First index of each run and its term; indexes ascend.
    runs: VecDeque<(u64, u64)>,
}

impl Terms {
    pub fn append(&mut self, first: u64, terms: impl Iterator<Item = u64>) {
        while self.runs.back().is_some_and(|(start, _)| *start >= first) {
            self.runs.pop_back();
        }
        for (index, term) in (first..).zip(terms) {
            if self.runs.back().is_none_or(|(_, last)| *last != term) {
                self.runs.push_back((index, term));
            }
        }
    }

    pub fn get(&self, index: u64) -> Option<u64> {
        let after = self.runs.partition_point(|(start, _)| *start <= index);
        self.runs.get(after.checked_sub(1)?).map(|(_, term)| *term)
    }

    pub fn drop_to(&mut self, index: u64) {
        // The run that `index` is in may go on behind it.
        while self.runs.len() > 1 && self.runs[1].0 <= index + 1 {
            self.runs.pop_front();
        }
    }

    pub fn clear(&mut self) {
        self.runs.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(offset: u32) -> Place {
        Place { segment: 1, offset, length: 1 }
    }

    #[test]
    fn what_is_appended_at_an_index_replaces_it_and_everything_behind() {
        let mut places = Places::default();
        places.append(1, (0..5).map(place));
        places.append(3, [place(100)].into_iter());
        assert_eq!(places.range(), 1..4);
        assert_eq!((places.get(2), places.get(3), places.get(4)), (Some(place(1)), Some(place(100)), None));
    }

    #[test]
    fn dropping_reaches_beyond_the_end_and_below_the_start() {
        let mut places = Places::default();
        places.append(5, (0..3).map(place));
        places.drop_to(3);
        assert_eq!(places.range(), 5..8);
        places.drop_to(5);
        assert_eq!(places.range(), 6..8);
        places.drop_to(20);
        assert_eq!(places.range(), 21..21);
        places.append(21, [place(1)].into_iter());
        assert_eq!(places.range(), 21..22);
    }

    #[test]
    fn terms_are_found_within_their_runs() {
        let mut terms = Terms::default();
        terms.append(1, [1, 1, 2, 2, 2].into_iter());
        terms.append(4, [3].into_iter());
        assert_eq!((1..5).map(|index| terms.get(index)).collect::<Vec<_>>(), [Some(1), Some(1), Some(2), Some(3)]);
        terms.drop_to(2);
        assert_eq!((terms.get(2), terms.get(3), terms.get(4)), (None, Some(2), Some(3)));
    }
}

//! Retention: which end of the log nobody needs any more.
//!
//! The group is the durability point: what PostgreSQL loses in a crash it gets again from the log, so entries stay until every
//! member has flushed what is in them. Positions are translated to entries by *marks*, one every so many entries; when there
//! are too many, every other one goes, and the log is kept a little longer than it must be.

use std::collections::BTreeMap;

use gcs_writeset::Position;

use crate::api::LogIndex;
use crate::bounds::{MARK_EVERY_ENTRIES, MARKS_MAX};

/// As of entry `index`, the database's head was `head`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub index: LogIndex,
    pub head: Position,
}

/// What one database needs of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    pub marks: Vec<Mark>,
    /// Positions whose bodies began in earlier entries: the first of those.
    pub chunked: BTreeMap<Position, LogIndex>,
}

impl Retention {
    /// Notes where `position` begins, if that is before its own entry.
    pub fn chunked(&mut self, position: Position, first_chunk: LogIndex) {
        self.chunked.insert(position, first_chunk);
    }

    /// Entry `index` has been applied, and the head is now `head`.
    pub fn applied(&mut self, index: LogIndex, head: Position) {
        let due = self.marks.last().is_none_or(|mark| index.0 >= mark.index.0 + MARK_EVERY_ENTRIES);
        if !due {
            return;
        }
        if self.marks.len() == MARKS_MAX {
            let mut nth = 0;
            self.marks.retain(|_| {
                nth += 1;
                nth % 2 == 0
            });
        }
        self.marks.push(Mark { index, head });
    }

    /// Everybody has flushed up to `flushed`: forgets what only served the positions before.
    pub fn flushed(&mut self, flushed: Position) {
        self.chunked = self.chunked.split_off(&flushed.next());
        let useless = self.marks.partition_point(|mark| mark.head <= flushed).saturating_sub(1);
        self.marks.drain(..useless);
    }

    /// The last entry that nobody needs when all have flushed up to `flushed`, `head` was the last position, and `applied`
    /// the last entry.
    pub fn releasable(&self, flushed: Position, head: Position, applied: LogIndex) -> LogIndex {
        let by_position = if flushed >= head {
            applied
        } else {
            let at = self.marks.partition_point(|mark| mark.head <= flushed);
            at.checked_sub(1).map_or(LogIndex(0), |at| self.marks[at].index)
        };
        let first_chunk = self.chunked.range(flushed.next()..).map(|(_, first)| *first).min();
        first_chunk.map_or(by_position, |first| by_position.min(LogIndex(first.0.saturating_sub(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(entries: u64) -> Retention {
        let mut retention = Retention::default();
        for index in 1..=entries {
            retention.applied(LogIndex(index), Position(index * 10));
        }
        retention
    }

    #[test]
    fn an_entry_is_released_only_when_all_its_positions_are_flushed() {
        let retention = marked(1_000);
        let head = Position(10_000);
        assert_eq!(retention.releasable(Position(9), head, LogIndex(1_000)), LogIndex(0));
        let released = retention.releasable(Position(5_000), head, LogIndex(1_000));
        assert!(released.0 > 0 && released.0 * 10 <= 5_000, "{released:?}");
        assert_eq!(retention.releasable(head, head, LogIndex(1_000)), LogIndex(1_000));
    }

    #[test]
    fn chunks_of_an_unflushed_writeset_hold_their_entries() {
        let mut retention = marked(1_000);
        retention.chunked(Position(9_000), LogIndex(3));
        assert_eq!(retention.releasable(Position(8_999), Position(10_000), LogIndex(1_000)), LogIndex(2));
        retention.flushed(Position(9_000));
        assert!(retention.releasable(Position(9_000), Position(10_000), LogIndex(1_000)) > LogIndex(2));
    }

    #[test]
    fn marks_are_bounded_however_long_a_member_is_away() {
        let retention = marked(MARKS_MAX as u64 * MARK_EVERY_ENTRIES * 3);
        assert!(retention.marks.len() <= MARKS_MAX);
        assert!(retention.marks.is_sorted_by_key(|mark| mark.index));
    }
}

//! Retention: which end of the log nobody needs any more.
//!
//! The group is the durability point: what PostgreSQL loses in a crash it gets again from the log, so entries stay until every
//! member has flushed what is in them. Positions are translated to entries by *marks*, one every so many entries; when there
//! are too many, every other one goes, and the log is kept a little longer than it must be.
//!
//! An end of the log goes only up to an entry whose last position is certified and flushed by all:
//!
//! - not past it, over entries without positions. A member that flushed the position has its entry, since positions come to a
//!   PostgreSQL from its own daemon's log. So the log is never cut ahead of a member that needs what follows, and such a member
//!   is never sent a snapshot, which would skip it;
//! - not past it, over aborted positions. They leave no commit record: a PostgreSQL that crashes comes back as of the last
//!   certified one, and has to be told again of those after it.

use std::collections::BTreeMap;

use gcs_writeset::Position;

use crate::api::LogIndex;
use crate::bounds::{MARK_EVERY_ENTRIES, MARKS_MAX};

/// Entry `index` ordered position `head`, which is certified, and none after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub index: LogIndex,
    pub head: Position,
}

/// What one database needs of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    pub marks: Vec<Mark>,
    /// The last of all, whether it is among the marks or not.
    pub last: Mark,
    /// Positions whose bodies began in earlier entries: the first of those.
    pub chunked: BTreeMap<Position, LogIndex>,
}

impl Retention {
    /// Notes where `position` begins, if that is before its own entry.
    pub fn chunked(&mut self, position: Position, first_chunk: LogIndex) {
        self.chunked.insert(position, first_chunk);
    }

    /// Entry `index` has been applied; the last position it ordered is `head`, which is certified.
    pub fn certified(&mut self, index: LogIndex, head: Position) {
        self.last = Mark { index, head };
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
        self.marks.push(self.last);
    }

    /// Everybody has flushed up to `flushed`: forgets what only served the positions before.
    pub fn flushed(&mut self, flushed: Position) {
        self.chunked = self.chunked.split_off(&flushed.next());
        let useless = self.marks.partition_point(|mark| mark.head <= flushed).saturating_sub(1);
        self.marks.drain(..useless);
    }

    /// The last entry that nobody needs when all have flushed up to `flushed`.
    pub fn releasable(&self, flushed: Position) -> LogIndex {
        let by_position = if flushed >= self.last.head {
            self.last.index
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
            retention.certified(LogIndex(index), Position(index * 10));
        }
        retention
    }

    #[test]
    fn an_entry_is_released_only_when_all_its_positions_are_flushed() {
        let retention = marked(1_000);
        assert_eq!(retention.releasable(Position(9)), LogIndex(0));
        let released = retention.releasable(Position(5_000));
        assert!(released.0 > 0 && released.0 * 10 <= 5_000, "{released:?}");
        assert_eq!(retention.releasable(Position(10_000)), LogIndex(1_000));
    }

    #[test]
    fn chunks_of_an_unflushed_writeset_hold_their_entries() {
        let mut retention = marked(1_000);
        retention.chunked(Position(9_000), LogIndex(3));
        assert_eq!(retention.releasable(Position(8_999)), LogIndex(2));
        retention.flushed(Position(9_000));
        assert!(retention.releasable(Position(9_000)) > LogIndex(2));
    }

    /// Found by the simulator (seeds 1104, 1194, 1282, 1512): a member that had flushed everything, but whose daemon had not
    /// yet seen some later entries without positions, was sent a snapshot, and with it skipped positions it still needed.
    #[test]
    fn entries_after_the_last_position_are_kept_for_a_member_that_lags() {
        let mut retention = Retention::default();
        assert_eq!(retention.releasable(Position(0)), LogIndex(0));
        retention.certified(LogIndex(101), Position(1));
        assert_eq!(retention.releasable(Position(1)), LogIndex(101));
    }

    #[test]
    fn marks_are_bounded_however_long_a_member_is_away() {
        let retention = marked(MARKS_MAX as u64 * MARK_EVERY_ENTRIES * 3);
        assert!(retention.marks.len() <= MARKS_MAX);
        assert!(retention.marks.is_sorted_by_key(|mark| mark.index));
    }
}

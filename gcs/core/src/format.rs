//! Formats: what all members of a group must be able to read, and when a newer one is written.
//!
//! A group runs two neighbouring releases while it is upgraded, one node after the other. What one member writes the others read: entries of the
//! log, and checkpoints, which are sent as snapshots. So a release that can write something new does not do so before every member can read it. What
//! is written is a number, the group's *format*:
//!
//! | format | has |
//! |---|---|
//! | 1 | entries of version 1, commands 1 to 8, changes of the membership 1 to 8, checkpoints of version 3 |
//! | 2 | also the change 9, by which the format is raised, and checkpoints of version 4, which say the group's format |
//! | 3 | also the commands 9 and 10, by which locks are asked for ([`crate::locks`]), writesets that say which session holds some or that are of two phases ([`gcs_writeset::two_phase`]), and checkpoints of version 5 |
//!
//! The format is ordered state, a part of the membership: a function of the log. A member says in its greeting up to which format it *reads*. The
//! leader has the format raised ([`Step::Format`](crate::membership::Step::Format)) when every member is connected and reads a newer one. Three things could
//! go wrong:
//!
//! - *A member that has not been asked comes later.* It was away, or is added in the same moment. Whoever is away is a member, so the leader waits
//!   for it, however long (`gcs evict` ends that). A change counts only for the membership that it was made for, and raising the format is one:
//!   of an addition and a raise that are made at once, one does nothing, and is judged anew.
//! - *A node of an older release comes, or comes back.* It is refused by the greeting, and by the order if it wants to be added: it could read neither
//!   what is in the log nor what will be.
//! - *A member says that it reads a format, and is then restarted with an older release*, before the raise reaches it. It stops where the raise is
//!   applied ([`CoreError::Format`](crate::CoreError::Format)), with everything before it applied. (It is no use not to take the raise into the log: one that
//!   came to nothing stands there as well, and whoever does not take that gets nothing of what is behind it.) With the newer release it goes on. Nothing is lost, but the node is out until then; a release that has once
//!   been everywhere is not to be taken back.
//!
//! The format never goes back. An operator who wants to be able to go back for a while has one node say that it reads no newer format
//! (`hold_format`).
//!
//! What a daemon keeps for itself (segments, indexes, identity) has versions of its own: a release reads what the release before it wrote.
//! PostgreSQL and the daemon of one node are upgraded together: the protocol between them is a single number. Whatever writesets gain
//! counts as a format too: a member whose daemon reads it has a PostgreSQL that does, or none.

use std::collections::BTreeMap;
use std::fmt;

use gcs_writeset::NodeId;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Format(pub u16);

impl Format {
    /// What a group begins with, and what whoever says nothing reads.
    pub const FIRST: Format = Format(1);
    /// What this release reads, and writes when it may.
    pub const NEWEST: Format = Format(3);
    /// From which on there are group locks.
    pub const LOCKS: Format = Format(3);
    /// From which on there are prepared transactions.
    pub const TWO_PHASE: Format = Format(3);

    /// As a peer says it, which says nothing (0) if its release is from before there were formats.
    pub fn of_peer(number: u32) -> Format {
        u16::try_from(number).map_or(Format::NEWEST, Format).max(Format::FIRST)
    }
}

impl Default for Format {
    fn default() -> Format {
        Format::FIRST
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the peers that are connected read.
#[derive(Debug, Default)]
pub struct Readers {
    by_node: BTreeMap<NodeId, Format>,
}

impl Readers {
    pub fn up(&mut self, node: NodeId, reads: Format) {
        self.by_node.insert(node, reads);
    }

    pub fn down(&mut self, node: NodeId) {
        self.by_node.remove(&node);
    }

    /// The newest format that all of these members read, `me` among them with what it reads; `None` while one is not there to say.
    pub fn all_read(&self, members: impl Iterator<Item = NodeId>, (me, reads): (NodeId, Format)) -> Option<Format> {
        let read = members.map(|member| if member == me { Some(reads) } else { self.by_node.get(&member).copied() });
        read.min().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_read_by_all_when_every_member_has_said_so() {
        let [a, b, c] = ["a", "b", "c"].map(NodeId::of_name);
        let mut readers = Readers::default();
        let all = |readers: &Readers| readers.all_read([a, b, c].into_iter(), (a, Format(3)));
        assert_eq!(all(&readers), None);
        readers.up(b, Format(2));
        // Somebody else is not a member.
        readers.up(NodeId(9), Format(2));
        assert_eq!(all(&readers), None);
        readers.up(c, Format(3));
        assert_eq!(all(&readers), Some(Format(2)));
        readers.down(b);
        assert_eq!(all(&readers), None);
    }

    #[test]
    fn whoever_says_nothing_reads_the_first_and_whoever_says_more_than_is_known_reads_all_that_is() {
        assert_eq!([0, 1, 2, 3].map(Format::of_peer), [Format(1), Format(1), Format(2), Format(3)]);
        assert!(Format::of_peer(70_000) >= Format::NEWEST);
    }
}

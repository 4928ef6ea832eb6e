//! Withheld writesets: those that a manager is not sent with their position, because a forerunner of its server has applied them ahead and
//! keeps its transaction open ([`crate::forerunners`]). The manager hears of the position and its verdict all the same, and has the forerunner
//! commit.
//!
//! A stream is read on threads that may wait for the disk, while forerunners come and go on the daemon's own: both look at the same list.
//! It holds at most one submission for each forerunner that is connected, and is looked at for positions whose writesets came in chunks only.

use std::sync::Arc;

use gcs_writeset::Tag;
use parking_lot::Mutex;

/// A clone is the same list.
#[derive(Clone, Debug, Default)]
pub struct Withheld(Arc<Mutex<Vec<Tag>>>);

impl Withheld {
    pub fn contains(&self, tag: Tag) -> bool {
        self.0.lock().contains(&tag)
    }

    /// As often as it was added, it has to be removed: two forerunners may have applied the same.
    pub fn add(&self, tag: Tag) {
        self.0.lock().push(tag);
    }

    pub fn remove(&self, tag: Tag) {
        let mut tags = self.0.lock();
        if let Some(at) = tags.iter().position(|it| *it == tag) {
            tags.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use gcs_writeset::{DatabaseId, Incarnation, NodeId, Sequence, SlotId};

    use super::*;

    #[test]
    fn a_writeset_is_withheld_until_the_last_who_has_applied_it_is_done() {
        let (slot, sequence) = (SlotId(4), Sequence(5));
        let tag = Tag { database: DatabaseId(1), node: NodeId(2), incarnation: Incarnation(3), slot, sequence };
        let withheld = Withheld::default();
        let seen = withheld.clone();
        withheld.add(tag);
        withheld.add(tag);
        withheld.remove(tag);
        assert!(seen.contains(tag));
        withheld.remove(tag);
        withheld.remove(tag);
        assert!(!seen.contains(tag));
    }
}

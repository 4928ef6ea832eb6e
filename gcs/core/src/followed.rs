//! Followed submissions: large transactions of other nodes that somebody here wants to apply before their position is ordered.
//!
//! A large transaction sends its body ahead in chunks, which are ordered, and is submitted afterwards. Whoever is asked to apply it ahead
//! ([`Local::Follow`]) has to know two things that only the order tells: that all of its chunks are there, and where in the log they stand
//! ([`LocalReply::Followed`]); and that nothing further is to be expected of it ([`LocalReply::FollowedOver`]), because its submission has
//! got a position, or because it never will.
//!
//! Nothing of this is ordered, and nothing that is ordered depends on it: it only looks at the ordered state, after each entry. The word that a
//! submission has a position comes out of the very step that orders the position, so the driver can go by it when it hands the position on.
//!
//! Left out on purpose: what a followed submission contains, and whose it is. After a snapshot every followed submission is over, since the
//! chunks that the snapshot covers are not in this node's log; those of one that is followed afterwards may not be there either, and
//! whoever reads them finds out.
//!
//! Bound: [`FOLLOWED_MAX`] at a time. The next one is over at once, and so is one without chunks or with more than anybody may have.

use std::collections::BTreeMap;

use gcs_writeset::Tag;

use crate::api::{LocalReply, LogRef};
use crate::bounds::{CHUNKS_MAX, FOLLOWED_MAX};
use crate::state::{Event, State};

#[derive(Debug, Default)]
pub struct Followed {
    open: BTreeMap<u64, One>,
}

#[derive(Debug)]
struct One {
    tag: Tag,
    chunks: u32,
    /// Its chunks were all there, and that has been said.
    is_told: bool,
}

impl Followed {
    /// From now on this submission, which goes ahead in so many chunks, is followed. The driver gives each number once.
    pub fn follow(&mut self, number: u64, (tag, chunks): (Tag, u32), state: &State, replies: &mut Vec<LocalReply>) {
        if chunks == 0 || chunks > CHUNKS_MAX || self.open.len() >= FOLLOWED_MAX {
            replies.push(LocalReply::FollowedOver { number, ordered: false });
            return;
        }
        let mut one = One { tag, chunks, is_told: false };
        if one.look(number, state, replies) {
            self.open.insert(number, one);
        }
    }

    pub fn unfollow(&mut self, number: u64) {
        self.open.remove(&number);
    }

    /// An entry has been applied, and these events have come of it.
    pub fn applied(&mut self, events: &[Event], state: &State, replies: &mut Vec<LocalReply>) {
        if self.open.is_empty() {
            return;
        }
        let is_ordered = |tag: Tag| events.iter().any(|event| matches!(event, Event::Ordered(it) if it.tag == tag));
        self.open.retain(|&number, one| {
            if is_ordered(one.tag) {
                replies.push(LocalReply::FollowedOver { number, ordered: true });
                return false;
            }
            one.look(number, state, replies)
        });
    }

    /// The state was replaced by a later one, and the log before it is gone.
    pub fn skipped(&mut self, replies: &mut Vec<LocalReply>) {
        let open = std::mem::take(&mut self.open);
        replies.extend(open.into_keys().map(|number| LocalReply::FollowedOver { number, ordered: false }));
    }
}

impl One {
    /// Says what is to be said. False if that was the last.
    fn look(&mut self, number: u64, state: &State, replies: &mut Vec<LocalReply>) -> bool {
        let database = state.database(self.tag.database);
        let Some(database) = database.filter(|database| !database.is_past(self.tag)) else {
            replies.push(LocalReply::FollowedOver { number, ordered: false });
            return false;
        };
        if !self.is_told
            && let Some(chunks) = database.chunks_of(self.tag, self.chunks)
        {
            self.is_told = true;
            let chunks: Vec<LogRef> = chunks.collect();
            replies.push(LocalReply::Followed { number, chunks });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gcs_writeset::{DatabaseId, Incarnation, NodeId, NodeKind, Sequence, SlotId};

    use super::*;
    use crate::api::{LogIndex, Membership};
    use crate::certify::{Exact, WindowBounds};
    use crate::command::{Command, Generation};
    use crate::membership::wish::Founder;

    const NODE: NodeId = NodeId(1);

    fn tag(sequence: u64) -> Tag {
        let (database, incarnation) = (DatabaseId(1), Incarnation(1));
        Tag { database, node: NODE, incarnation, slot: SlotId(0), sequence: Sequence(sequence) }
    }

    fn over(number: u64) -> LocalReply {
        LocalReply::FollowedOver { number, ordered: false }
    }

    /// Node 1 is attached, and has sent the first chunk of its first submission ahead, in entry 2.
    fn state() -> State {
        let founder = Founder { node: NODE, name: "a".into(), address: "a:1".into(), kind: NodeKind::Full };
        let mut state = State::new("g".into(), Membership::new(vec![founder]), WindowBounds::default());
        let (generation, database) = (Generation::default(), "shop".to_owned());
        let attach = Command::Attach { node: NODE, incarnation: Incarnation(1), generation, database, founds: false };
        let chunk = Command::Chunk { tag: tag(1), index: 0, bytes: Bytes::new() };
        state.apply(Exact, LogIndex(1), 1, vec![attach]);
        state.apply(Exact, LogIndex(2), 1, vec![chunk]);
        state
    }

    #[test]
    fn only_so_many_are_followed_and_a_place_is_free_again_when_one_is_given_up() {
        let (state, mut followed, mut replies) = (state(), Followed::default(), Vec::new());
        for number in 0..=FOLLOWED_MAX as u64 {
            followed.follow(number, (tag(1), 2), &state, &mut replies);
        }
        assert_eq!(std::mem::take(&mut replies), [over(FOLLOWED_MAX as u64)]);
        followed.unfollow(0);
        followed.follow(100, (tag(1), 2), &state, &mut replies);
        assert_eq!(replies, []);
    }

    #[test]
    fn what_cannot_have_such_chunks_is_over_at_once() {
        let (state, mut followed, mut replies) = (state(), Followed::default(), Vec::new());
        followed.follow(1, (tag(1), 0), &state, &mut replies);
        followed.follow(2, (tag(1), CHUNKS_MAX + 1), &state, &mut replies);
        followed.follow(3, (Tag { database: DatabaseId(2), ..tag(1) }, 1), &state, &mut replies);
        followed.follow(4, (Tag { incarnation: Incarnation(2), ..tag(1) }, 1), &state, &mut replies);
        assert_eq!(replies, [over(1), over(2), over(3), over(4)]);
        assert!(followed.open.is_empty());
    }

    #[test]
    fn the_chunks_are_told_once() {
        let (state, mut followed, mut replies) = (state(), Followed::default(), Vec::new());
        followed.follow(1, (tag(1), 1), &state, &mut replies);
        let chunks = vec![LogRef { index: LogIndex(2), ordinal: 0 }];
        assert_eq!(std::mem::take(&mut replies), [LocalReply::Followed { number: 1, chunks }]);
        followed.applied(&[], &state, &mut replies);
        assert_eq!(replies, []);
    }

    #[test]
    fn with_a_snapshot_everything_is_over() {
        let (state, mut followed, mut replies) = (state(), Followed::default(), Vec::new());
        followed.follow(1, (tag(1), 2), &state, &mut replies);
        followed.follow(2, (tag(2), 1), &state, &mut replies);
        followed.skipped(&mut replies);
        assert_eq!(replies, [over(1), over(2)]);
        followed.skipped(&mut replies);
        assert_eq!(replies.len(), 2, "they are forgotten");
    }
}

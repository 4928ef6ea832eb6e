//! One commit of this node, followed from its submission until it is visible everywhere: for the page that shows how long each step takes.
//!
//! One at a time, a new one every [`FOLLOW_EVERY`] at the most, and only while somebody looks at the page: a commit that is not followed costs a look at
//! two fields. The moments are this daemon's own: when it read the submission, when the verdict was there, when each member's word had come
//! that the position is visible there. ([`super::follower`] asks the members, as for `commit_level = after`.)
//!
//! ```text
//! submitted ──the order──▶ ordered, with its verdict ──▶ visible here, visible at each member ──▶ kept, the last [`COURSES_KEPT`]
//! ```

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gcs_writeset::link::Verdict;
use gcs_writeset::{DatabaseId, NodeId, Position, Tag};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::bounds::{COURSES_KEPT, FOLLOW_EVERY, FOLLOW_WITHIN, LOOKED_AT_WITHIN};

/// What became of one commit. Times are since its submission was read.
#[derive(Clone, Debug)]
pub struct Course {
    pub database: DatabaseId,
    /// Unix time in milliseconds.
    pub began_at: u64,
    /// Of the writeset.
    pub bytes: usize,
    pub position: Position,
    /// Whether it commits.
    pub is_certified: bool,
    pub ordered: Duration,
    pub shown: Vec<(NodeId, Duration)>,
    /// Members that were asked, and whose word did not come in time.
    pub missing: Vec<NodeId>,
}

#[derive(Debug)]
struct Submission {
    tag: Tag,
    bytes: usize,
    began: Instant,
    began_at: SystemTime,
}

#[derive(Debug, Default)]
pub struct Followed {
    looked_at: Cell<Option<Instant>>,
    /// When the last one was begun that is, or was, followed.
    last: Cell<Option<Instant>>,
    /// Submitted, and not decided.
    submitted: RefCell<Option<Submission>>,
    /// Decided, and not asked about.
    decided: RefCell<Option<(Instant, Course)>>,
    news: Notify,
    kept: RefCell<VecDeque<Course>>,
}

impl Followed {
    /// Somebody looks at the page.
    pub fn looked_at(&self, now: Instant) {
        self.looked_at.set(Some(now));
    }

    /// The newest last.
    pub fn courses(&self) -> Vec<Course> {
        self.kept.borrow().iter().cloned().collect()
    }

    /// A writeset of this node goes to the order.
    pub fn submitted(&self, tag: &Tag, bytes: usize) {
        if self.looked_at.get().is_some() {
            self.submitted_at(tag, bytes, Instant::now());
        }
    }

    fn submitted_at(&self, tag: &Tag, bytes: usize, now: Instant) {
        let Some(looked_at) = self.looked_at.get() else { return };
        if now - looked_at > LOOKED_AT_WITHIN {
            return self.looked_at.set(None);
        }
        let is_due = self.last.get().is_none_or(|last| now - last >= FOLLOW_EVERY);
        let is_free = self.decided.borrow().is_none();
        // One that has been refused is never decided: the next takes its place.
        let mut submitted = self.submitted.borrow_mut();
        let is_forgotten = submitted.as_ref().is_none_or(|other| now - other.began >= FOLLOW_WITHIN);
        if is_due && is_free && is_forgotten {
            self.last.set(Some(now));
            *submitted = Some(Submission { tag: *tag, bytes, began: now, began_at: SystemTime::now() });
        }
    }

    /// A position has been decided.
    pub fn ordered(&self, tag: &Tag, position: Position, verdict: Verdict) {
        let mut submitted = self.submitted.borrow_mut();
        if submitted.as_ref().is_none_or(|followed| followed.tag != *tag) {
            return;
        }
        let Some(Submission { bytes, began, began_at, .. }) = submitted.take() else { return };
        let since = began_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let course = Course {
            database: tag.database,
            began_at: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            bytes,
            position,
            is_certified: matches!(verdict, Verdict::Certified { .. }),
            ordered: began.elapsed(),
            shown: Vec::new(),
            missing: Vec::new(),
        };
        if course.is_certified {
            *self.decided.borrow_mut() = Some((began, course));
            self.news.notify_one();
        } else {
            self.keep(course);
        }
    }

    /// The next commit of which it is to be found out where it is visible.
    pub async fn next(&self) -> (Instant, Course) {
        loop {
            if let Some(decided) = self.decided.borrow_mut().take() {
                return decided;
            }
            self.news.notified().await;
        }
    }

    pub fn keep(&self, course: Course) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() == COURSES_KEPT {
            kept.pop_front();
        }
        kept.push_back(course);
    }
}

#[cfg(test)]
mod tests {
    use gcs_writeset::link::AbortCause;
    use gcs_writeset::{Incarnation, Sequence, SlotId};

    use super::*;

    fn tag(sequence: u64) -> Tag {
        let (database, node, incarnation) = (DatabaseId(1), NodeId(7), Incarnation(1));
        Tag { database, node, incarnation, slot: SlotId(3), sequence: Sequence(sequence) }
    }

    const ABORTED: Verdict = Verdict::Aborted(AbortCause::Malformed);

    #[test]
    fn nothing_is_followed_while_nobody_looks() {
        let (followed, now) = (Followed::default(), Instant::now());
        followed.submitted_at(&tag(1), 10, now);
        followed.ordered(&tag(1), Position(1), ABORTED);
        assert!(followed.courses().is_empty());
        followed.looked_at(now);
        followed.submitted_at(&tag(2), 10, now + LOOKED_AT_WITHIN * 2);
        followed.ordered(&tag(2), Position(2), ABORTED);
        assert!(followed.courses().is_empty(), "whoever looked has gone");
    }

    #[test]
    fn one_is_followed_at_a_time_and_others_pass() {
        let (followed, now) = (Followed::default(), Instant::now());
        followed.looked_at(now);
        followed.submitted_at(&tag(1), 10, now);
        followed.submitted_at(&tag(2), 10, now + FOLLOW_EVERY);
        followed.ordered(&tag(2), Position(1), ABORTED);
        assert!(followed.courses().is_empty());
        followed.ordered(&tag(1), Position(2), ABORTED);
        assert_eq!(followed.courses().len(), 1);
        followed.submitted_at(&tag(3), 10, now);
        followed.ordered(&tag(3), Position(3), ABORTED);
        assert_eq!(followed.courses().len(), 1, "too soon");
        followed.submitted_at(&tag(4), 10, now + FOLLOW_EVERY);
        followed.ordered(&tag(4), Position(4), ABORTED);
        assert_eq!(followed.courses().last().map(|course| course.position), Some(Position(4)));
    }

    #[test]
    fn one_that_is_never_decided_makes_room() {
        let (followed, now) = (Followed::default(), Instant::now());
        followed.looked_at(now);
        followed.submitted_at(&tag(1), 10, now);
        followed.looked_at(now + FOLLOW_WITHIN);
        followed.submitted_at(&tag(2), 10, now + FOLLOW_WITHIN);
        followed.ordered(&tag(2), Position(5), ABORTED);
        assert_eq!(followed.courses().len(), 1);
    }
}

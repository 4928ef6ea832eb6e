//! What one forerunner is to apply ahead, and how far that is: a state machine without sockets.
//! Its [`Course`] is the simulator's, too.

use bytes::Bytes;
use gcs_core::LogRef;
use gcs_proto::Ahead;
use gcs_writeset::{NodeId, Position, Tag};

use super::course::Course;

/// What a peer asks, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub from: NodeId,
    /// The peer's number.
    pub number: u64,
    pub ahead: Ahead,
    pub after: Position,
    pub patience_ms: u32,
    pub writeset: Bytes,
}

#[derive(Debug)]
pub struct Task {
    pub asked: Asked,
    /// By which the forerunner and the core know it; no other task of this daemon has it.
    pub number: u64,
    /// The submission's, from when the forerunner has been sent it.
    tag: Option<Tag>,
    /// Where its chunks stand, once all of them are ordered.
    chunks: Option<Vec<LogRef>>,
    /// The forerunner has asked for the chunks, and has not got all of them.
    is_fetched: bool,
    course: Course,
}

impl Task {
    pub fn new(number: u64, asked: Asked) -> Task {
        let (tag, chunks, course) = (None, None, Course::default());
        Task { asked, number, tag, chunks, is_fetched: false, course }
    }

    /// The forerunner is sent it.
    pub fn begin(&mut self, tag: Tag) {
        self.tag = Some(tag);
    }

    pub fn has_begun(&self) -> bool {
        self.tag.is_some()
    }

    /// None before it has begun.
    pub fn tag(&self) -> Option<Tag> {
        self.tag
    }

    pub fn is_answered(&self) -> bool {
        self.course.is_answered()
    }

    /// The submission whose writeset the manager is not to be sent, if so.
    pub fn withheld(&self) -> Option<Tag> {
        self.tag.filter(|_| self.course.is_withheld())
    }

    /// The forerunner says what became of it; false if it has done that before.
    pub fn answer(&mut self, has_passed: bool) -> bool {
        self.course.answer(has_passed)
    }

    /// The submission has got a position, or never will. Whether the forerunner is to be told that it is over.
    pub fn end(&mut self, ordered: bool) -> bool {
        self.course.end(ordered)
    }

    /// Nothing more is to be done for it.
    pub fn is_over(&self) -> bool {
        self.course.is_over()
    }

    /// Its chunks are all ordered.
    pub fn followed(&mut self, chunks: Vec<LogRef>) {
        self.chunks = Some(chunks);
    }

    /// The forerunner asks for the chunks; false if it is being sent them.
    pub fn fetch(&mut self) -> bool {
        !std::mem::replace(&mut self.is_fetched, true)
    }

    /// The forerunner has all of them.
    pub fn fetched(&mut self) {
        self.is_fetched = false;
    }

    /// Whether the forerunner is to be sent chunks, as soon as they are there.
    pub fn is_fetched(&self) -> bool {
        self.is_fetched && !self.is_over()
    }

    /// The tag of the chunks that the forerunner is to be sent now, and where they stand.
    pub fn to_send(&self) -> Option<(Tag, Vec<LogRef>)> {
        self.tag.zip(self.chunks.clone()).filter(|_| self.is_fetched())
    }
}

#[cfg(test)]
mod tests {
    use gcs_core::LogIndex;
    use gcs_writeset::{DatabaseId, Incarnation, Sequence, SlotId};

    use super::*;

    const TAG: Tag = Tag {
        database: DatabaseId(1),
        node: NodeId(2),
        incarnation: Incarnation(3),
        slot: SlotId(4),
        sequence: Sequence(5),
    };

    fn begun() -> Task {
        let ahead = Ahead { incarnation: 3, slot: 4, sequence: 5, chunks: 1 };
        let (after, writeset) = (Position::ZERO, Bytes::new());
        let mut task = Task::new(1, Asked { from: TAG.node, number: 9, ahead, after, patience_ms: 100, writeset });
        task.begin(TAG);
        task
    }

    #[test]
    fn what_has_passed_is_withheld_until_it_is_over() {
        let mut task = begun();
        assert_eq!(task.withheld(), None);
        assert!(task.answer(true));
        assert_eq!(task.withheld(), Some(TAG));
        assert!(task.end(false), "abandoned: the forerunner is told");
        assert_eq!(task.withheld(), None);
        assert!(!task.end(true) && !task.end(false), "it is told once");
    }

    #[test]
    fn what_has_passed_and_has_a_position_stays_withheld_whoever_goes() {
        let mut task = begun();
        task.answer(true);
        assert!(!task.end(true) && !task.end(false));
        assert_eq!(task.withheld(), Some(TAG));
    }

    #[test]
    fn what_passes_after_its_position_was_ordered_is_over() {
        let mut task = begun();
        assert!(task.end(true));
        assert!(task.answer(true), "the answer counts as one");
        assert!(task.withheld().is_none() && task.is_over());
    }

    #[test]
    fn what_has_not_passed_is_over_with_its_position_and_is_answered_once() {
        let mut task = begun();
        assert!(task.answer(false) && !task.answer(true));
        assert_eq!(task.withheld(), None);
        assert!(task.end(true));
    }

    #[test]
    fn chunks_are_sent_when_they_are_asked_for_and_there_and_until_it_is_over() {
        let chunks = vec![LogRef { index: LogIndex(7), ordinal: 0 }];
        let mut task = begun();
        assert!(task.fetch() && !task.fetch());
        assert_eq!(task.to_send(), None);
        task.followed(chunks.clone());
        assert_eq!(task.to_send(), Some((TAG, chunks)));
        task.fetched();
        assert_eq!(task.to_send(), None);
        assert!(task.fetch(), "once more");
        task.end(false);
        assert!(task.to_send().is_none() && !task.is_fetched());
    }
}

//! Forerunners on sockets that nobody serves: what each is sent, and whose writesets are withheld meanwhile.

use std::io::Read;

use bytes::Bytes;
use gcs_writeset::{DatabaseId, Incarnation, Position, Sequence, SlotId};
use tokio::net::UnixStream;

use super::*;
use crate::outbox::Stream;

const PEER: NodeId = NodeId(7);
const OTHER: NodeId = NodeId(8);

/// A forerunner, and what it hears.
struct Connection {
    forerunner: Rc<Forerunner>,
    outbox: Rc<Outbox>,
    other_end: std::os::unix::net::UnixStream,
}

impl Connection {
    fn of(forerunners: &Forerunners) -> Connection {
        let (stream, other_end) = UnixStream::pair().unwrap();
        let other_end = other_end.into_std().unwrap();
        let outbox = Rc::new(Outbox::new(Rc::new(Stream::Unix(stream)), 1 << 20));
        Connection { forerunner: forerunners.enter("shop", &outbox), outbox, other_end }
    }

    /// What it has been sent since this was last asked.
    async fn heard(&mut self) -> Vec<Reply> {
        tokio::select! {
            error = self.outbox.run() => panic!("{error}"),
            () = self.outbox.drained() => {}
        }
        let mut bytes = Vec::new();
        let _ = self.other_end.read_to_end(&mut bytes);
        let mut frames = &bytes[..];
        let mut replies = Vec::new();
        while let Some(length) = link::frame_len(frames).unwrap() {
            replies.push(link::decode_frame::<Reply>(&frames[..length]).unwrap().0);
            frames = &frames[length..];
        }
        replies
    }

    /// It is sent what it has been given, under the tag of this sequence.
    async fn begin(&mut self, sequence: u64) -> u64 {
        let (from, ahead) = self.forerunner.given().await;
        assert_eq!((from, ahead.sequence), (PEER, sequence));
        let number = self.forerunner.begin(tag(sequence)).unwrap().unwrap();
        assert!(matches!(self.heard().await[..], [Reply::Ahead { number: told, .. }] if told == number));
        number
    }
}

fn tag(sequence: u64) -> Tag {
    let (database, incarnation) = (DatabaseId(1), Incarnation(3));
    Tag { database, node: PEER, incarnation, slot: SlotId(4), sequence: Sequence(sequence) }
}

/// The peer asks under this number about its submission of this sequence.
fn asked(number: u64, sequence: u64) -> Asked {
    let ahead = Ahead { incarnation: 3, slot: 4, sequence, chunks: 1 };
    let (after, writeset) = (Position(9), Bytes::from_static(b"writeset"));
    Asked { from: PEER, number, ahead, after, patience_ms: 100, writeset }
}

#[tokio::test]
async fn a_question_goes_to_one_that_is_free() {
    let forerunners = Forerunners::default();
    assert_eq!(forerunners.give("shop", asked(1, 1)), Err(Rehearsal::Absent));
    let mut one = Connection::of(&forerunners);
    let mut other = Connection::of(&forerunners);
    assert_eq!(forerunners.give("market", asked(1, 1)), Err(Rehearsal::Absent));
    assert_eq!(forerunners.give("shop", asked(1, 1)), Ok(()));
    assert_eq!(forerunners.give("shop", asked(2, 2)), Ok(()), "the other is free before the first has begun");
    assert_eq!(forerunners.give("shop", asked(3, 3)), Err(Rehearsal::Partly));
    let (first, second) = (one.begin(1).await, other.begin(2).await);
    assert_ne!(first, second);
    assert!(other.forerunner.done(first).is_none(), "it is not its own");
    assert!(other.forerunner.done(second).is_some());
    assert_eq!(forerunners.give("shop", asked(3, 3)), Ok(()), "it is free again");
    forerunners.leave(&one.forerunner);
    forerunners.leave(&other.forerunner);
    assert_eq!(forerunners.give("shop", asked(4, 4)), Err(Rehearsal::Absent));
}

#[tokio::test]
async fn nobody_is_given_what_has_no_chunks() {
    let forerunners = Forerunners::default();
    let _one = Connection::of(&forerunners);
    for chunks in [0, CHUNKS_MAX + 1] {
        let mut asked = asked(1, 1);
        asked.ahead.chunks = chunks;
        assert_eq!(forerunners.give("shop", asked), Err(Rehearsal::Partly));
    }
}

#[tokio::test]
async fn what_was_applied_is_withheld_until_the_forerunner_is_done_or_gone() {
    let forerunners = Forerunners::default();
    let mut one = Connection::of(&forerunners);
    for sequence in [1, 2] {
        forerunners.give("shop", asked(sequence, sequence)).unwrap();
        let number = one.begin(sequence).await;
        assert!(!forerunners.withheld.contains(tag(sequence)));
        assert_eq!(one.forerunner.answer(number, &Rehearsal::Passed), Some((PEER, sequence)));
        assert_eq!(one.forerunner.answer(number, &Rehearsal::Passed), None, "it has said so");
        forerunners.over(number, true);
        forerunners.withdraw(PEER, sequence);
        forerunners.lost(PEER);
        assert!(forerunners.withheld.contains(tag(sequence)), "it has its position, and is to be committed");
        assert_eq!(one.heard().await, []);
        let task = if sequence == 1 { one.forerunner.done(number) } else { forerunners.leave(&one.forerunner) };
        assert!(task.unwrap().is_answered());
        assert!(!forerunners.withheld.contains(tag(sequence)));
    }
}

#[tokio::test]
async fn what_has_its_position_before_it_was_applied_is_over() {
    let forerunners = Forerunners::default();
    let mut one = Connection::of(&forerunners);
    forerunners.give("shop", asked(1, 1)).unwrap();
    let number = one.begin(1).await;
    forerunners.over(number, true);
    assert_eq!(one.heard().await, [Reply::Over { number }]);
    assert_eq!(one.forerunner.answer(number, &Rehearsal::Passed), Some((PEER, 1)), "whoever asks is told all the same");
    assert!(!forerunners.withheld.contains(tag(1)));
    forerunners.over(number, false);
    assert_eq!(one.heard().await, [], "it has been told");
}

#[tokio::test]
async fn what_is_withdrawn_is_over_and_is_not_withheld_any_more() {
    let forerunners = Forerunners::default();
    let mut one = Connection::of(&forerunners);
    forerunners.give("shop", asked(1, 1)).unwrap();
    let number = one.begin(1).await;
    one.forerunner.answer(number, &Rehearsal::Passed);
    forerunners.withdraw(OTHER, 1);
    forerunners.withdraw(PEER, 2);
    forerunners.lost(OTHER);
    assert!(forerunners.withheld.contains(tag(1)), "that was somebody or something else");
    forerunners.withdraw(PEER, 1);
    assert_eq!(one.heard().await, [Reply::Over { number }]);
    assert!(!forerunners.withheld.contains(tag(1)));
    assert_eq!(forerunners.give("shop", asked(2, 2)), Err(Rehearsal::Partly), "it is busy until it says that it is done");
}

#[tokio::test]
async fn what_is_withdrawn_before_it_has_begun_is_forgotten() {
    let forerunners = Forerunners::default();
    let mut one = Connection::of(&forerunners);
    forerunners.give("shop", asked(1, 1)).unwrap();
    forerunners.lost(PEER);
    forerunners.give("shop", asked(2, 2)).unwrap();
    let number = one.begin(2).await;
    assert_eq!(one.forerunner.begin(tag(3)).unwrap(), None, "it has begun");
    assert_eq!(one.forerunner.answer(number, &Rehearsal::Partly), Some((PEER, 2)));
    assert!(!forerunners.withheld.contains(tag(2)), "it was not applied");
}

#[tokio::test]
async fn chunks_are_wanted_when_they_are_there_and_asked_for() {
    let forerunners = Forerunners::default();
    let mut one = Connection::of(&forerunners);
    forerunners.give("shop", asked(1, 1)).unwrap();
    let number = one.begin(1).await;
    assert!(!one.forerunner.fetch(number + 1), "there is no such task");
    assert!(one.forerunner.fetch(number));
    assert!(!one.forerunner.fetch(number), "it is waiting for them");
    forerunners.followed(number, Vec::new());
    let wanted = one.forerunner.wanted().await;
    assert_eq!((wanted.number, wanted.tag), (number, tag(1)));
    assert!(one.forerunner.wants(number));
    one.forerunner.give_up(number);
    assert!(!one.forerunner.wants(number));
    assert_eq!(one.heard().await, [Reply::Over { number }]);
}

#[tokio::test]
async fn what_finds_nobody_free_waits_where_forerunners_can_be_started() {
    let forerunners = Forerunners::default();
    let news = forerunners.can_start("shop");
    assert_eq!(forerunners.give("shop", asked(1, 1)), Ok(()));
    assert_eq!(forerunners.give("shop", asked(2, 2)), Ok(()));
    assert_eq!((forerunners.called("shop"), forerunners.called("shop")), (2, 0));
    let mut one = Connection::of(&forerunners);
    let first = one.begin(1).await;
    assert!(forerunners.waits_until("shop").is_some(), "the second waits on");
    one.forerunner.done(first).unwrap();
    forerunners.give_next(&one.forerunner);
    one.begin(2).await;
    assert_eq!(forerunners.waits_until("shop"), None);
    assert_eq!(forerunners.give("shop", asked(3, 3)), Ok(()));
    forerunners.withdraw(PEER, 3);
    assert_eq!(forerunners.give("shop", asked(4, 4)), Ok(()));
    assert_eq!(forerunners.not_come("shop"), [], "it is too early");
    assert_eq!(forerunners.cannot_start("shop", &Rc::default()), [], "another's word");
    assert_eq!(forerunners.cannot_start("shop", &news), [asked(4, 4)]);
    assert_eq!(forerunners.give("shop", asked(5, 5)), Err(Rehearsal::Partly));
}

#[tokio::test]
async fn only_so_much_waits() {
    let forerunners = Forerunners::default();
    forerunners.can_start("shop");
    for number in 0..FORERUNNERS_AWAITED_MAX as u64 {
        assert_eq!(forerunners.give("shop", asked(number, number)), Ok(()));
    }
    assert_eq!(forerunners.give("shop", asked(99, 99)), Err(Rehearsal::Absent));
}

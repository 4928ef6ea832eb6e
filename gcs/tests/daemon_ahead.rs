//! Transactions that are applied ahead: three real daemons, and forerunners that only speak the link.

mod support;

use gcs_writeset::link::{FailureKind, MemberState, Rehearsal, Reply, Request, Role, Verdict};
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{Incarnation, Position, Sequence, SlotId, Tag};

use support::{Delivered, Fetcher, Group, Link, Manager, writeset, writeset_with};

const SLOT: SlotId = SlotId(9);
const SEQUENCE: Sequence = Sequence(1);

/// Three nodes that see each other, the first of which has a backend with a large transaction.
struct Scene {
    group: Group,
    managers: Vec<Manager>,
    backend: Link,
    chunks: Vec<Vec<u8>>,
}

/// What a forerunner was given.
#[derive(Debug, PartialEq)]
struct Given {
    number: u64,
    tag: Tag,
    chunks: u32,
    after: Position,
    payload: Vec<u8>,
}

impl Scene {
    fn new() -> Scene {
        let group = Group::start(3);
        let mut managers = group.attach_all();
        for manager in &mut managers {
            manager.link.send(&Request::Status, &[]);
            manager.wait_for_status(|status| {
                status.members.len() == 3 && status.members.iter().all(|member| member.state == MemberState::Online)
            });
        }
        let backend = greet(&group, 0, Role::Backend);
        // The middle one alone is longer than what is read at once.
        let chunks = vec![vec![1; 700 << 10], vec![2; 3 << 20], vec![3; 10]];
        Scene { group, managers, backend, chunks }
    }

    /// With all of its chunks in the order.
    fn with_chunks() -> Scene {
        let mut scene = Scene::new();
        scene.send_chunks(0..3);
        scene
    }

    fn send_chunks(&mut self, indexes: std::ops::Range<usize>) {
        for index in indexes {
            let chunk = Request::Chunk { slot: SLOT, sequence: SEQUENCE, index: index as u32 };
            self.backend.send(&chunk, &self.chunks[index]);
            self.managers[0].wait_for(|reply| match reply {
                Reply::ChunkOrdered { index: ordered, .. } if *ordered as usize == index => Some(()),
                _ => None,
            });
        }
    }

    fn forerunner(&self, node: usize) -> Link {
        greet(&self.group, node, Role::Forerunner)
    }

    /// A connection of the first node that asks the others to apply the transaction ahead.
    fn ask(&self, sequence: Sequence) -> Link {
        let mut asking = greet(&self.group, 0, Role::Rehearsing);
        let ahead = Request::Ahead { slot: SLOT, sequence, chunks: 3, after: Position::ZERO, patience_ms: 60_000 };
        asking.send(&ahead, &without_keys());
        assert!(matches!(asking.receive(), Some((Reply::Rehearsing { nodes: 2 }, _))));
        asking
    }

    /// The encoded writeset that is submitted.
    fn end(&self) -> Vec<u8> {
        writeset_with(1, Position::ZERO, 3, b"the end")
    }

    fn submit(&mut self) {
        let end = self.end();
        self.backend.send(&Request::Submit { slot: SLOT, sequence: SEQUENCE }, &end);
    }

    fn is_whole(&self, delivered: &Delivered) -> bool {
        assert!(matches!(delivered.verdict, Verdict::Certified { .. }), "{:?}", delivered.verdict);
        let is_whole = delivered.payload == self.end() && delivered.bodies == self.chunks;
        assert!(is_whole || (delivered.payload.is_empty() && delivered.bodies.is_empty()));
        is_whole
    }

    /// Until nobody is there to apply anything ahead: of a connection that has ended, the daemon hears some time.
    fn wait_until_no_forerunner_is_left(&self) {
        let is_absent = |(_, outcome): (String, Rehearsal)| outcome == Rehearsal::Absent;
        while !answers(&mut self.ask(Sequence(99))).into_iter().all(is_absent) {}
    }
}

fn greet(group: &Group, node: usize, role: Role) -> Link {
    let mut link = Link::hello(&group.daemons[node].socket, role, Incarnation(node as u64 + 1), Some("g"));
    assert!(matches!(link.receive(), Some((Reply::Welcome { .. }, _))));
    link
}

fn without_keys() -> Vec<u8> {
    Envelope { chunks: 3, ..Envelope::default() }.encode(b"")
}

fn given(forerunner: &mut Link) -> Given {
    match forerunner.receive() {
        Some((Reply::Ahead { number, tag, chunks, after, .. }, payload)) => Given { number, tag, chunks, after, payload },
        other => panic!("nothing to be applied ahead: {other:?}"),
    }
}

fn fetched(forerunner: &mut Link, number: u64) -> Vec<Vec<u8>> {
    forerunner.send(&Request::FetchAhead { number }, &[]);
    let mut parts = Vec::new();
    loop {
        match forerunner.receive() {
            Some((Reply::Body { position: Position::ZERO, more }, part)) => {
                parts.push(part);
                if !more {
                    return parts;
                }
            }
            other => panic!("no chunk: {other:?}"),
        }
    }
}

fn says(forerunner: &mut Link, number: u64, outcome: Rehearsal) {
    forerunner.send(&Request::Rehearsed { number, outcome }, &[]);
}

fn hears_over(forerunner: &mut Link, number: u64) {
    let heard = forerunner.receive();
    assert!(matches!(heard, Some((Reply::Over { number: over }, _)) if over == number), "{heard:?}");
}

fn answer(asking: &mut Link) -> (String, Rehearsal) {
    match asking.receive() {
        Some((Reply::Rehearsed { node, outcome }, _)) => (node, outcome),
        other => panic!("no answer: {other:?}"),
    }
}

/// Those of the two other nodes, by name.
fn answers(asking: &mut Link) -> Vec<(String, Rehearsal)> {
    let mut answers = vec![answer(asking), answer(asking)];
    answers.sort_by(|(one, _), (other, _)| one.cmp(other));
    answers
}

fn said(second: Rehearsal, third: Rehearsal) -> Vec<(String, Rehearsal)> {
    vec![("n2".to_owned(), second), ("n3".to_owned(), third)]
}

#[test]
fn what_a_forerunner_has_applied_comes_to_its_manager_without_the_writeset() {
    let mut scene = Scene::with_chunks();
    let (mut second, mut third) = (scene.forerunner(1), scene.forerunner(2));
    let mut asking = scene.ask(SEQUENCE);
    let numbers = [&mut second, &mut third].map(|forerunner| {
        let Given { number, tag, chunks, after, payload } = given(forerunner);
        assert_eq!((tag.slot, tag.sequence, tag.incarnation), (SLOT, SEQUENCE, Incarnation(1)));
        assert_eq!((chunks, after, payload), (3, Position::ZERO, without_keys()));
        assert!(fetched(forerunner, number) == scene.chunks);
        number
    });
    says(&mut second, numbers[0], Rehearsal::Passed);
    says(&mut third, numbers[1], Rehearsal::Partly);
    assert_eq!(answers(&mut asking), said(Rehearsal::Passed, Rehearsal::Partly));

    asking.send(&Request::AheadDone { number: 0 }, &[]);
    drop(asking);
    scene.submit();
    let delivered: Vec<Delivered> = scene.managers.iter_mut().map(Manager::next_delivered).collect();
    let whole: Vec<bool> = delivered.iter().map(|one| scene.is_whole(one)).collect();
    assert_eq!(whole, [false, false, true]);
    hears_over(&mut third, numbers[1]);
    let mut fetched = Fetcher::greet(&scene.group.daemons[1].socket).fetch(Position(1));
    assert_eq!(fetched.remove(0), scene.end());
    assert!(fetched == scene.chunks, "whoever wants the writeset all the same gets it");

    // The next thing that both hear of is another transaction.
    second.send(&Request::AheadDone { number: numbers[0] }, &[]);
    third.send(&Request::AheadDone { number: numbers[1] }, &[]);
    let _asking = scene.ask(Sequence(2));
    assert_eq!([given(&mut second), given(&mut third)].map(|given| given.tag.sequence), [Sequence(2); 2]);
}

#[test]
fn a_manager_that_catches_up_gets_the_writeset_unless_a_forerunner_has_it_applied() {
    let mut scene = Scene::with_chunks();
    let (mut second, mut third) = (scene.forerunner(1), scene.forerunner(2));
    let mut asking = scene.ask(SEQUENCE);
    let number = given(&mut second).number;
    says(&mut second, number, Rehearsal::Passed);
    let other = given(&mut third).number;
    says(&mut third, other, Rehearsal::Partly);
    answers(&mut asking);
    asking.send(&Request::AheadDone { number: 0 }, &[]);
    scene.submit();
    scene.managers[0].next_delivered();
    let attach_again = |scene: &mut Scene| {
        scene.managers.truncate(1);
        let mut manager = Manager::attach(&scene.group.daemons[1].socket, Incarnation(2), Position::ZERO);
        scene.is_whole(&manager.next_delivered())
    };
    assert!(!attach_again(&mut scene));
    second.send(&Request::AheadDone { number }, &[]);
    // When this is there, the forerunner was heard.
    let _asking = scene.ask(Sequence(2));
    given(&mut second);
    assert!(attach_again(&mut scene));
}

#[test]
fn chunks_are_sent_when_all_of_them_are_ordered() {
    let mut scene = Scene::new();
    scene.send_chunks(0..2);
    let mut second = scene.forerunner(1);
    let mut asking = scene.ask(SEQUENCE);
    let number = given(&mut second).number;
    second.send(&Request::FetchAhead { number }, &[]);
    assert_eq!(answer(&mut asking), ("n3".to_owned(), Rehearsal::Absent));
    scene.send_chunks(2..3);
    let mut parts = Vec::new();
    while parts.len() < 3 {
        let Some((Reply::Body { .. }, part)) = second.receive() else { panic!("no chunk") };
        parts.push(part);
    }
    assert!(parts == scene.chunks);
}

#[test]
fn when_whoever_asked_goes_without_submitting_it_is_over_and_comes_whole_if_it_comes_after_all() {
    let mut scene = Scene::with_chunks();
    let (mut second, mut third) = (scene.forerunner(1), scene.forerunner(2));
    let mut asking = scene.ask(SEQUENCE);
    let numbers = [&mut second, &mut third].map(|forerunner| given(forerunner).number);
    says(&mut second, numbers[0], Rehearsal::Passed);
    assert_eq!(answer(&mut asking), ("n2".to_owned(), Rehearsal::Passed));
    drop(asking);
    hears_over(&mut second, numbers[0]);
    hears_over(&mut third, numbers[1]);
    scene.submit();
    let delivered: Vec<Delivered> = scene.managers.iter_mut().map(Manager::next_delivered).collect();
    assert!(scene.is_whole(&delivered[1]) && scene.is_whole(&delivered[2]));
}

#[test]
fn another_question_of_the_same_connection_takes_the_place_of_the_one_before() {
    let scene = Scene::with_chunks();
    let mut second = scene.forerunner(1);
    let mut asking = scene.ask(SEQUENCE);
    let number = given(&mut second).number;
    asking.send(&Request::Rehearse { after: Position::ZERO, patience_ms: 1_000 }, &without_keys());
    hears_over(&mut second, number);
}

#[test]
fn what_is_abandoned_in_the_order_is_over() {
    let mut scene = Scene::with_chunks();
    let (mut second, mut third) = (scene.forerunner(1), scene.forerunner(2));
    let mut asking = scene.ask(SEQUENCE);
    let numbers = [&mut second, &mut third].map(|forerunner| given(forerunner).number);
    says(&mut third, numbers[1], Rehearsal::Passed);
    assert_eq!(answer(&mut asking), ("n3".to_owned(), Rehearsal::Passed));
    asking.send(&Request::AheadDone { number: 0 }, &[]);
    scene.backend.send(&Request::Abandon { slot: SLOT, sequence: SEQUENCE }, &[]);
    hears_over(&mut second, numbers[0]);
    hears_over(&mut third, numbers[1]);
}

#[test]
fn when_the_node_that_asked_is_lost_it_is_over() {
    let mut scene = Scene::with_chunks();
    let (mut second, mut third) = (scene.forerunner(1), scene.forerunner(2));
    let _asking = scene.ask(SEQUENCE);
    let numbers = [&mut second, &mut third].map(|forerunner| given(forerunner).number);
    scene.group.daemons[0].kill();
    hears_over(&mut second, numbers[0]);
    hears_over(&mut third, numbers[1]);
}

#[test]
fn a_node_whose_forerunners_are_busy_or_missing_says_so() {
    let scene = Scene::with_chunks();
    let mut second = scene.forerunner(1);
    let mut asking = scene.ask(SEQUENCE);
    assert_eq!(answer(&mut asking), ("n3".to_owned(), Rehearsal::Absent));
    let number = given(&mut second).number;
    assert_eq!(answers(&mut scene.ask(Sequence(2))), said(Rehearsal::Partly, Rehearsal::Absent));

    // One that is done without having said anything has not applied it, and can have another.
    second.send(&Request::AheadDone { number }, &[]);
    assert_eq!(answer(&mut asking), ("n2".to_owned(), Rehearsal::Partly));
    let _asking = scene.ask(Sequence(3));
    assert_eq!(given(&mut second).tag.sequence, Sequence(3));
}

#[test]
fn what_a_forerunner_leaves_behind_is_applied_from_the_log() {
    let mut scene = Scene::with_chunks();
    let (mut second, mut third) = (scene.forerunner(1), scene.forerunner(2));
    let mut asking = scene.ask(SEQUENCE);
    let number = given(&mut second).number;
    says(&mut second, number, Rehearsal::Passed);
    assert_eq!(answer(&mut asking), ("n2".to_owned(), Rehearsal::Passed));
    given(&mut third);
    drop((second, third));
    assert_eq!(answer(&mut asking), ("n3".to_owned(), Rehearsal::Partly), "it had not said anything");
    scene.wait_until_no_forerunner_is_left();
    asking.send(&Request::AheadDone { number: 0 }, &[]);
    scene.submit();
    let delivered: Vec<Delivered> = scene.managers.iter_mut().map(Manager::next_delivered).collect();
    assert!(scene.is_whole(&delivered[1]) && scene.is_whole(&delivered[2]));
}

#[test]
fn a_forerunner_says_once_what_became_of_what_it_was_given() {
    let scene = Scene::with_chunks();
    let (mut second, mut third) = (scene.forerunner(1), scene.forerunner(2));
    let mut asking = scene.ask(SEQUENCE);
    let number = given(&mut second).number;
    says(&mut second, number, Rehearsal::Partly);
    says(&mut second, number, Rehearsal::Passed);
    assert_eq!(second.failure(), FailureKind::Protocol);
    let number = given(&mut third).number;
    third.send(&Request::FetchAhead { number: number + 1 }, &[]);
    assert_eq!(third.failure(), FailureKind::Protocol);
    assert_eq!(answers(&mut asking), said(Rehearsal::Partly, Rehearsal::Partly));
}

#[test]
fn a_small_transaction_is_nothing_to_be_applied_ahead() {
    let scene = Scene::new();
    let mut asking = greet(&scene.group, 0, Role::Rehearsing);
    let ahead = Request::Ahead { slot: SLOT, sequence: SEQUENCE, chunks: 0, after: Position::ZERO, patience_ms: 1_000 };
    asking.send(&ahead, &writeset(1, Position::ZERO));
    assert_eq!(asking.failure(), FailureKind::Protocol);
}

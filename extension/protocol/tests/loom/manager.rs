//! A manager that ends between any two steps, and the one that comes after it.
//!
//! Each model is explored once for each number of steps after which the manager ends, until it comes to the end of its work by itself. It may
//! end while it brings a verdict, and again while it puts its affairs in order as it exits ([`manager::resolve`]). Its successor does that to
//! the end, and takes from the stream again what is not known here.

use gcs_writeset::link::{RefusalReason, Verdict};
use gcs_writeset::{Position, Sequence};
use loom::thread;
use postgres_r_protocol::ending;
use postgres_r_protocol::id::ProcNo;
use postgres_r_protocol::manager;
use postgres_r_protocol::slot::State;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::room::{ABORTED, CERTIFIED, Room, dies_after, fetched, job};
use crate::worker::Remote;
use crate::{report, try_all};

const BACKEND: ProcNo = ProcNo(0);

/// More steps than a manager does in any of these models.
const STEPS_MAX: u32 = 200;

/// After how many steps a manager ends: of its work, and of its exit.
pub type Deaths = [u32; 2];

/// Whether it did.
pub type Died = [bool; 2];

const NEVER: u32 = u32::MAX;

/// Explores `model` with a manager that dies after 0, 1, 2 ... steps of its work.
pub fn explore_deaths(name: &str, bound: Option<usize>, model: fn(Deaths) -> Died) {
    report(name, bound, |bound| {
        let mut tried = 0;
        for steps in 0..STEPS_MAX {
            let (count, [died, _]) = try_deaths(bound, [steps, NEVER], model);
            tried += count;
            if !died {
                return tried;
            }
        }
        panic!("the manager never comes to an end");
    });
}

/// The same, and for each of these with a manager that dies after 0, 1, 2 ... steps of its exit.
fn explore_two_deaths(name: &str, bound: Option<usize>, model: fn(Deaths) -> Died) {
    report(name, bound, |bound| {
        let (mut tried, mut deaths) = (0, [0, 0]);
        while deaths[0] < STEPS_MAX && deaths[1] < STEPS_MAX {
            let (count, died) = try_deaths(bound, deaths, model);
            tried += count;
            deaths = match died {
                [_, true] => [deaths[0], deaths[1] + 1],
                [true, false] => [deaths[0] + 1, 0],
                [false, false] => return tried,
            };
        }
        panic!("the manager never comes to an end");
    });
}

fn try_deaths(bound: Option<usize>, deaths: Deaths, model: fn(Deaths) -> Died) -> (usize, Died) {
    let died: Arc<[AtomicBool; 2]> = Arc::default();
    let noted = died.clone();
    let tried = try_all(bound, move || {
        for (noted, died) in noted.iter().zip(model(deaths)) {
            noted.fetch_or(died, Ordering::Relaxed);
        }
    });
    (tried, [0, 1].map(|death| died[death].load(Ordering::Relaxed)))
}

/// A manager brings the verdict at position 1 and dies; its exit, if it comes so far, and its successor put things in order.
fn bring(room: &Room, verdict: Verdict, sequence: Sequence, deaths: Deaths) -> Died {
    take_and_die(room, || room.take_own(1, BACKEND, sequence, verdict), deaths)
}

/// The same of whatever takes position 1.
pub fn take_and_die(room: &Room, take: impl Fn(), deaths: Deaths) -> Died {
    let lived = [dies_after(deaths[0], &take), dies_after(deaths[1], || manager::resolve(room.at()))];
    manager::resolve(room.at());
    if room.gate().known() == Position::ZERO {
        take();
    }
    lived.map(|lived| lived.is_none())
}

#[test]
fn a_verdict_left_half_written_reaches_the_backend_that_waits_for_it() {
    explore_deaths("a manager dies over a certified position whose backend waits", None, |deaths| {
        let room = Room::new(1, 0);
        let sequence = room.submit(BACKEND);
        let backend = {
            let room = room.clone();
            thread::spawn(move || {
                assert_eq!(room.wait_for_verdict(BACKEND), State::Certified);
                room.commit_in_turn(BACKEND)
            })
        };
        let died = bring(&room, CERTIFIED, sequence, deaths);
        assert!(backend.join().unwrap());
        room.assert_committed_once(1, true);
        room.assert_free(BACKEND);
        died
    });
}

#[test]
fn a_verdict_left_half_written_is_handed_over_for_a_backend_that_leaves() {
    explore_two_deaths("a manager dies over a certified position whose backend leaves", Some(2), |deaths| {
        let room = Room::new(1, 0);
        let sequence = room.submit(BACKEND);
        let backend = {
            let room = room.clone();
            thread::spawn(move || {
                ending::release(room.at(), room.slot(BACKEND));
                room.open_next(BACKEND);
                ending::release(room.at(), room.slot(BACKEND));
            })
        };
        let died = bring(&room, CERTIFIED, sequence, deaths);
        backend.join().unwrap();
        room.assert_committed_once(1, false);
        room.assert_free(BACKEND);
        died
    });
}

#[test]
fn a_refusal_by_the_group_left_half_written_reaches_the_backend_that_waits_for_it() {
    explore_deaths("a manager dies over an aborted position whose backend waits", None, |deaths| {
        let room = Room::new(1, 0);
        let sequence = room.submit(BACKEND);
        let backend = {
            let room = room.clone();
            thread::spawn(move || {
                assert_eq!(room.wait_for_verdict(BACKEND), State::Aborted);
                ending::release(room.at(), room.slot(BACKEND));
            })
        };
        let died = bring(&room, ABORTED, sequence, deaths);
        backend.join().unwrap();
        assert_eq!((room.gate().committed(), room.gate().orphans()), (Position(1), 0));
        room.assert_free(BACKEND);
        died
    });
}

#[test]
fn a_refusal_by_the_group_left_half_written_leaves_nothing_of_a_backend_that_leaves() {
    explore_two_deaths("a manager dies over an aborted position whose backend leaves", Some(2), |deaths| {
        let room = Room::new(1, 0);
        let sequence = room.submit(BACKEND);
        let backend = {
            let room = room.clone();
            thread::spawn(move || {
                ending::release(room.at(), room.slot(BACKEND));
                room.open_next(BACKEND);
                ending::release(room.at(), room.slot(BACKEND));
            })
        };
        let died = bring(&room, ABORTED, sequence, deaths);
        backend.join().unwrap();
        assert_eq!((room.gate().committed(), room.gate().orphans()), (Position(1), 0));
        room.assert_free(BACKEND);
        died
    });
}

#[test]
fn a_place_that_a_process_of_another_database_has_taken_is_still_put_in_order() {
    explore_deaths("a manager dies over a backend's place that is taken by another database's", Some(3), |deaths| {
        let room = Room::new(1, 0);
        let sequence = room.submit(BACKEND);
        let backend = {
            let room = room.clone();
            thread::spawn(move || {
                ending::release(room.at(), room.slot(BACKEND));
                // The process ends; the next in its place works for another database.
                room.slot(BACKEND).announce_base(1, Position(7));
                room.open_next(BACKEND);
                ending::release(room.at(), room.slot(BACKEND));
            })
        };
        let died = bring(&room, CERTIFIED, sequence, deaths);
        backend.join().unwrap();
        assert_eq!(room.slot(BACKEND).base_in(1), Some(Position(7)));
        room.assert_committed_once(1, false);
        room.assert_free(BACKEND);
        died
    });
}

#[test]
fn a_refused_copy_that_nobody_was_told_of_is_noticed() {
    explore_deaths("a manager dies over a refused copy", None, |deaths| {
        let room = Room::new(1, 0);
        let sequence = room.submit(BACKEND);
        let backend = {
            let room = room.clone();
            thread::spawn(move || {
                assert_eq!(room.wait_for_verdict(BACKEND), State::Refused);
                ending::release(room.at(), room.slot(BACKEND));
            })
        };
        let lived = dies_after(deaths[0], || {
            room.slot(BACKEND).refuse(sequence, RefusalReason::NoQuorum);
            room.server.wake(BACKEND);
        });
        manager::resolve(room.at());
        if room.slot(BACKEND).state() == State::Sent {
            // It is sent again when the node is attached again; this copy is refused too.
            room.slot(BACKEND).refuse(sequence, RefusalReason::NoQuorum);
            room.server.wake(BACKEND);
        }
        backend.join().unwrap();
        room.assert_free(BACKEND);
        [lived.is_none(), false]
    });
}

#[test]
fn a_queued_position_that_nobody_was_called_for_is_applied() {
    explore_deaths("a manager dies over a position of another node", Some(3), |deaths| {
        let room = Room::new(1, 1);
        let worker = Remote::spawn(&room, 0, 1);
        let lived = dies_after(deaths[0], || room.take_foreign(1, 0));
        manager::resolve(room.at());
        if room.gate().known() == Position::ZERO {
            room.take_foreign(1, 0);
        }
        worker.join().unwrap();
        assert_eq!(room.gate().committed(), Position(1));
        [lived.is_none(), false]
    });
}

#[test]
fn a_fetched_position_that_nobody_was_called_for_is_applied() {
    explore_deaths("a manager dies over a fetched position", Some(3), |deaths| {
        let (room, backend) = (Room::new(2, 1), ProcNo(1));
        let sequence = room.submit(backend);
        room.take_own(1, backend, sequence, CERTIFIED);
        room.gate().add_queued(&job(2, 0));
        ending::release(room.at(), room.slot(backend));
        assert_eq!(room.gate().take_orphans(false), [Position(1)]);
        let worker = Remote::spawn(&room, 0, 2);
        let queue = || {
            if room.gate().requeue(Position(1), fetched()) {
                postgres_r_protocol::pool::queued_below(room.at(), Position(1));
            }
        };
        let lived = dies_after(deaths[0], queue);
        manager::resolve(room.at());
        // Asked for again, if it is still missing.
        room.gate().take_orphans(true);
        queue();
        worker.join().unwrap();
        assert_eq!(room.gate().committed(), Position(2));
        [lived.is_none(), false]
    });
}

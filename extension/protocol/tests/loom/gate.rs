//! Several parties of the gate: positions handed over and fetched, claimed and given back.

use std::sync::Arc;

use gcs_writeset::Position;
use loom::thread;
use postgres_r_protocol::ending::{self, Released};
use postgres_r_protocol::gate::Job;
use postgres_r_protocol::id::{Lsn, ProcNo};
use postgres_r_protocol::sync::{AtomicBool, Ordering};
use postgres_r_protocol::turn;

use crate::room::{CERTIFIED, Room, WINDOW, fetched, job};
use crate::{explore, explore_at_most};

const FIRST: ProcNo = ProcNo(0);
const SECOND: ProcNo = ProcNo(1);
const MANAGER: ProcNo = ProcNo(2);

#[test]
fn every_position_that_is_handed_over_is_fetched_once() {
    explore_at_most(3, "two positions handed over, and fetched", || {
        let room = Room::new(3, 0);
        room.database.replica.manager.set(Some(MANAGER));
        let hands_over = |process, position| {
            let sequence = room.submit(process);
            room.take_own(position, process, sequence, CERTIFIED);
            let room = room.clone();
            thread::spawn(move || {
                let released = ending::release(room.at(), room.slot(process));
                assert_eq!(released, Released::HandedOver(Position(position)));
                assert_eq!(ending::hand_over(room.at(), Position(position)), Released::Nothing, "but once");
            })
        };
        let backends = [hands_over(FIRST, 1), hands_over(SECOND, 2)];
        let mut asked = Vec::new();
        while asked.len() < 2 {
            let found = room.gate().take_orphans(false);
            if found.is_empty() {
                room.sleep(MANAGER);
            }
            for position in found {
                assert!(room.gate().requeue(position, fetched()));
                assert!(!room.gate().requeue(position, fetched()), "a second answer");
                asked.push(position);
            }
        }
        for backend in backends {
            backend.join().unwrap();
        }
        asked.sort();
        assert_eq!(asked, [Position(1), Position(2)]);
        assert_eq!((room.gate().orphans(), room.gate().queued()), (0, 2));
        room.assert_free(FIRST);
    });
}

#[test]
fn what_was_asked_for_on_a_lost_connection_is_asked_for_again_once() {
    explore("a position handed over while the connection is lost", || {
        let room = Room::new(3, 0);
        let sequences = [room.submit(FIRST), room.submit(SECOND)];
        room.take_own(1, FIRST, sequences[0], CERTIFIED);
        room.take_own(2, SECOND, sequences[1], CERTIFIED);
        ending::release(room.at(), room.slot(FIRST));
        assert_eq!(room.gate().take_orphans(false), [Position(1)]);
        let backend = {
            let room = room.clone();
            thread::spawn(move || ending::release(room.at(), room.slot(SECOND)))
        };
        // The connection is lost before the answer has come.
        let mut asked = room.gate().take_orphans(true);
        backend.join().unwrap();
        asked.extend(room.gate().take_orphans(false));
        assert_eq!(asked, [Position(1), Position(2)]);
        assert!(asked.iter().all(|&position| room.gate().requeue(position, fetched())));
        assert!(!room.gate().is_fetching());
    });
}

/// Who holds which position.
struct Holders([AtomicBool; WINDOW]);

impl Holders {
    fn new() -> Arc<Holders> {
        Arc::new(Holders(Default::default()))
    }

    fn take(&self, job: Job) {
        assert!(!self.0[job.position.0 as usize].swap(true, Ordering::SeqCst), "{job:?} is claimed twice");
    }

    fn give_back(&self, position: Position) {
        assert!(self.0[position.0 as usize].swap(false, Ordering::SeqCst));
    }
}

#[test]
fn a_queued_position_is_claimed_by_one_at_a_time_and_none_is_lost() {
    explore("claim, claim and give back, queue", || {
        let (room, holders) = (Room::new(3, 0), Holders::new());
        room.gate().add_queued(&job(1, 0));
        let claims = |worker, gives_back| {
            let (room, holders) = (room.clone(), holders.clone());
            thread::spawn(move || {
                let Some(job) = room.gate().claim(worker) else { return 0 };
                holders.take(job);
                if gives_back {
                    holders.give_back(job.position);
                    room.gate().unclaim(job.position);
                    return 0;
                }
                1
            })
        };
        let workers = [claims(FIRST, true), claims(SECOND, false)];
        room.gate().add_queued(&job(2, 0));
        let mut claimed: u32 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
        assert_eq!(room.gate().queued(), 2 - claimed);
        while let Some(job) = room.gate().claim(FIRST) {
            holders.take(job);
            claimed += 1;
        }
        assert_eq!((claimed, room.gate().queued()), (2, 0));
    });
}

#[test]
fn the_lowest_queued_position_is_never_hidden_behind_one_that_was_claimed() {
    explore("give back a lower one while a higher one is claimed", || {
        let (room, holders) = (Room::new(3, 0), Holders::new());
        room.gate().add_queued(&job(1, 0));
        room.gate().add_queued(&job(2, 0));
        holders.take(room.gate().claim(FIRST).unwrap());
        let gives_back = {
            let (room, holders) = (room.clone(), holders.clone());
            thread::spawn(move || {
                holders.give_back(Position(1));
                room.gate().unclaim(Position(1));
            })
        };
        let claims = {
            let (room, holders) = (room.clone(), holders.clone());
            thread::spawn(move || holders.take(room.gate().claim(SECOND).unwrap()))
        };
        gives_back.join().unwrap();
        claims.join().unwrap();
        assert_eq!(room.gate().queued(), 1);
        holders.take(room.gate().claim(FIRST).unwrap());
        assert_eq!(room.gate().queued(), 0);
    });
}

#[test]
fn a_committed_position_is_not_given_back() {
    explore("the end of a worker that has committed, and the place in the ring used again", || {
        let room = Room::new(3, 0);
        room.gate().add_queued(&job(1, 0));
        room.gate().claim(FIRST).unwrap();
        let worker = {
            let room = room.clone();
            thread::spawn(move || {
                turn::pass(room.at(), Position(1), Lsn(1));
                room.gate().unclaim(Position(1));
            })
        };
        for position in 2..=WINDOW as u64 {
            room.gate().add_queued(&job(position, 0));
        }
        worker.join().unwrap();
        // In the place of position 1.
        room.gate().add_queued(&job(WINDOW as u64 + 1, 0));
        let claimed = std::iter::from_fn(|| room.gate().claim(SECOND)).map(|job| job.position.0);
        assert_eq!(claimed.collect::<Vec<_>>(), (2..=WINDOW as u64 + 1).collect::<Vec<_>>());
        assert_eq!(room.gate().queued(), 0);
    });
}

#[test]
fn a_manager_that_waits_for_room_is_told_of_it() {
    explore("a full window, and a position committed", || {
        let room = Room::new(3, 0);
        room.database.replica.manager.set(Some(MANAGER));
        for position in 1..=WINDOW as u64 {
            room.gate().add_queued(&job(position, 0));
        }
        room.gate().claim(FIRST).unwrap();
        let worker = {
            let room = room.clone();
            thread::spawn(move || turn::pass(room.at(), Position(1), Lsn(1)))
        };
        let is_full = || room.gate().ahead() >= room.gate().window();
        room.gate().want_room(false);
        while is_full() {
            // Told before it looks again.
            room.gate().want_room(true);
            if is_full() {
                room.sleep(MANAGER);
            }
        }
        room.gate().add_queued(&job(WINDOW as u64 + 1, 0));
        worker.join().unwrap();
    });
}

//! Remote backends asleep and awake: nothing that is queued is left lying, no dependency and no turn is slept through.

use std::sync::Arc;

use gcs_writeset::{NodeId, Position};
use loom::thread::{self, JoinHandle};
use postgres_r_protocol::gate::Most;
use postgres_r_protocol::id::{Lsn, ProcNo};
use postgres_r_protocol::pool::{self, Wait};
use postgres_r_protocol::replica::Phase;
use postgres_r_protocol::run::{self, Claimed};
use postgres_r_protocol::slot::State;
use postgres_r_protocol::turn;
use postgres_r_protocol::worker::{Doing, Worker};

use crate::room::{CERTIFIED, Loom, NO_FAULT, Room, fetched, job, small};
use crate::{explore, explore_at_most};

/// A remote backend's process: the loop of `apply/worker.rs` in the extension.
pub struct Remote {
    room: Arc<Room>,
    index: usize,
    /// Replication ends when this is committed.
    last: Position,
}

impl Remote {
    pub fn spawn(room: &Arc<Room>, index: usize, last: u64) -> JoinHandle<()> {
        let remote = Remote { room: room.clone(), index, last: Position(last) };
        assert!(pool::enter(remote.me(), remote.process()));
        thread::spawn(move || remote.run())
    }

    fn me(&self) -> &Worker {
        &self.room.database.workers[self.index]
    }

    fn process(&self) -> ProcNo {
        ProcNo(self.index as u32)
    }

    fn run(self) {
        let (at, me) = (self.room.at(), self.me());
        while pool::is_wanted(at) {
            me.doing.store(Doing::Applying);
            let Some(claimed) = Claimed::new::<Loom<NO_FAULT>>(at.database.gate.claim_run(self.process(), run::MOST)) else {
                if pool::may_sleep(at, me) {
                    self.room.sleep(self.process());
                }
                continue;
            };
            let first = claimed.run().first;
            me.set_position(first);
            let is_done = self.apply(&claimed);
            me.set_position(Position::ZERO);
            if !is_done {
                at.database.gate.unclaim(first);
            }
        }
        me.doing.store(Doing::Absent);
        pool::leave(at, me);
    }

    fn apply(&self, claimed: &Claimed) -> bool {
        let (at, me, run) = (self.room.at(), self.me(), claimed.run());
        if !self.has_dependency(claimed.depends_on()) {
            return false;
        }
        if !at.database.gate.is_turn(run.first) && self.wait(|| pool::wait_for_turn(at, me, run.first, false)) != Wait::Over
        {
            return false;
        }
        turn::pass_run(at, run, Lsn(run.last.0));
        if at.database.gate.committed() == self.last {
            at.database.replica.phase.store(Phase::Off);
            at.database.workers.iter().for_each(|worker| at.server.wake_holder(&worker.process));
        }
        true
    }

    fn has_dependency(&self, depends_on: Position) -> bool {
        let (at, me) = (self.room.at(), self.me());
        if at.database.gate.committed() >= depends_on {
            return true;
        }
        me.awaits(depends_on);
        let wait = self.wait(|| pool::wait_for_dependency(at, me, depends_on));
        me.awaits(Position::ZERO);
        wait == Wait::Over
    }

    fn wait(&self, look: impl Fn() -> Wait) -> Wait {
        pool::before_waiting(self.room.at(), self.me());
        let wait = loop {
            match look() {
                Wait::Sleep => self.room.sleep(self.process()),
                wait => break wait,
            }
        };
        pool::after_waiting(self.me());
        wait
    }
}

fn assert_all_applied(room: &Room, workers: impl IntoIterator<Item = JoinHandle<()>>, last: u64) {
    for worker in workers {
        worker.join().unwrap();
    }
    assert_eq!(room.gate().committed(), Position(last));
    assert_eq!(room.gate().queued(), 0);
}

#[test]
fn what_is_queued_wakes_somebody_or_is_seen() {
    explore("one position queued, one remote backend", || {
        let room = Room::new(1, 1);
        let worker = Remote::spawn(&room, 0, 1);
        room.take_foreign(1, 0);
        assert_all_applied(&room, [worker], 1);
    });
}

#[test]
fn what_is_queued_is_applied_though_whoever_was_called_ends() {
    explore_at_most(3, "one position queued, two remote backends, one ends", || {
        let room = Room::new(2, 2);
        let ends = {
            let room = room.clone();
            thread::spawn(move || {
                let me = &room.database.workers[0];
                assert!(pool::enter(me, ProcNo(0)));
                pool::may_sleep(room.at(), me);
                pool::leave(room.at(), me);
            })
        };
        let worker = Remote::spawn(&room, 1, 1);
        room.take_foreign(1, 0);
        assert_all_applied(&room, [worker, ends], 1);
    });
}

#[test]
fn two_positions_are_applied_by_two_remote_backends() {
    explore_at_most(3, "two positions queued, two remote backends", || {
        let room = Room::new(2, 2);
        let workers = [Remote::spawn(&room, 0, 2), Remote::spawn(&room, 1, 2)];
        room.take_foreign(1, 0);
        room.take_foreign(2, 1);
        assert_all_applied(&room, workers, 2);
    });
}

#[test]
fn a_dependency_that_is_committed_is_not_slept_through() {
    explore("a remote backend that depends on a backend's position", || {
        let (room, backend) = (Room::new(2, 1), ProcNo(1));
        let sequence = room.submit(backend);
        room.take_own(1, backend, sequence, CERTIFIED);
        room.gate().add_queued(&job(2, 1));
        let worker = Remote::spawn(&room, 0, 2);
        assert_eq!(room.slot(backend).state(), State::Certified);
        assert!(room.commit_in_turn(backend));
        assert_all_applied(&room, [worker], 2);
    });
}

#[test]
fn a_dependency_is_heard_of_though_it_is_nobodys_turn_yet() {
    explore("a remote backend that depends on a position long before its own", || {
        let (room, backend) = (Room::new(2, 1), ProcNo(1));
        for position in [1, 2] {
            room.gate().add_local(Position(position), Position::ZERO, (NodeId(1), backend));
        }
        room.gate().add_queued(&job(3, 1));
        let worker = {
            let room = room.clone();
            thread::spawn(move || {
                let remote = Remote { room: room.clone(), index: 0, last: Position(3) };
                assert!(pool::enter(remote.me(), remote.process()));
                let job = room.gate().claim(remote.process()).unwrap();
                assert!(remote.has_dependency(job.depends_on));
            })
        };
        turn::pass(room.at(), Position(1), Lsn(1));
        worker.join().unwrap();
    });
}

#[test]
fn a_lower_position_that_comes_back_is_applied_by_whoever_waits_behind_it() {
    explore("a lower position comes back to one remote backend", || {
        let (room, backend) = (Room::new(2, 1), ProcNo(1));
        let sequence = room.submit(backend);
        room.take_own(1, backend, sequence, CERTIFIED);
        room.gate().add_queued(&job(2, 0));
        postgres_r_protocol::ending::release(room.at(), room.slot(backend));
        assert_eq!(room.gate().take_orphans(false), [Position(1)]);
        let worker = Remote::spawn(&room, 0, 2);
        assert!(room.gate().requeue(Position(1), fetched()));
        pool::queued_below(room.at(), Position(1));
        assert_all_applied(&room, [worker], 2);
    });
}

#[test]
fn what_a_remote_backend_had_claimed_when_it_ended_is_applied_by_another() {
    explore_at_most(3, "a remote backend ends with a lower position", || {
        let room = Room::new(2, 2);
        room.gate().add_queued(&job(1, 0));
        room.gate().add_queued(&job(2, 0));
        let me = &room.database.workers[1];
        assert!(pool::enter(me, ProcNo(1)));
        me.doing.store(Doing::Applying);
        me.set_position(room.gate().claim(ProcNo(1)).unwrap().position);
        let worker = Remote::spawn(&room, 0, 2);
        pool::leave(room.at(), me);
        assert_all_applied(&room, [worker], 2);
    });
}

#[test]
fn a_run_is_committed_and_whoever_is_behind_it_has_its_turn() {
    explore_at_most(3, "a run, and a backend behind it", || {
        let (room, backend) = (Room::new(2, 1), ProcNo(1));
        let sequence = room.submit(backend);
        room.gate().add_queued(&small(1, 0));
        room.gate().add_queued(&small(2, 1));
        let commits = {
            let room = room.clone();
            thread::spawn(move || {
                assert_eq!(room.wait_for_verdict(backend), State::Certified);
                assert!(room.commit_in_turn(backend));
            })
        };
        let worker = Remote::spawn(&room, 0, 4);
        room.take_own(3, backend, sequence, CERTIFIED);
        room.gate().add_queued(&small(4, 0));
        pool::queued(room.at());
        commits.join().unwrap();
        assert_all_applied(&room, [worker], 4);
    });
}

#[test]
fn a_run_that_a_remote_backend_had_claimed_when_it_ended_is_applied_by_another() {
    explore_at_most(3, "a remote backend ends with a run", || {
        let room = Room::new(2, 2);
        (1..=3).for_each(|position| room.gate().add_queued(&small(position, 0)));
        let me = &room.database.workers[1];
        assert!(pool::enter(me, ProcNo(1)));
        me.doing.store(Doing::Applying);
        let most = Most { positions: 2, ..run::MOST };
        me.set_position(room.gate().claim_run(ProcNo(1), most)[0].position);
        let worker = Remote::spawn(&room, 0, 3);
        pool::leave(room.at(), me);
        assert_all_applied(&room, [worker], 3);
    });
}

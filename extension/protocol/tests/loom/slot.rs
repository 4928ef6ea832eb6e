//! Two parties of one slot's word: the backend, and the manager that brings what was decided.

use gcs_writeset::Position;
use gcs_writeset::link::RefusalReason;
use loom::thread;
use postgres_r_protocol::ending;
use postgres_r_protocol::id::ProcNo;
use postgres_r_protocol::slot::{State, Told};

use crate::explore;
use crate::room::{ABORTED, CERTIFIED, Room};

const BACKEND: ProcNo = ProcNo(0);
const REASON: RefusalReason = RefusalReason::Overloaded;

#[test]
fn a_certified_position_is_committed_by_the_backend_that_waits_for_it() {
    explore("certify, and a backend that waits", || {
        let room = Room::new(1, 0);
        let sequence = room.submit(BACKEND);
        let backend = {
            let room = room.clone();
            thread::spawn(move || {
                assert_eq!(room.wait_for_verdict(BACKEND), State::Certified);
                room.commit_in_turn(BACKEND)
            })
        };
        room.take_own(1, BACKEND, sequence, CERTIFIED);
        assert!(backend.join().unwrap());
        room.assert_committed_once(1, true);
        room.assert_free(BACKEND);
    });
}

#[test]
fn a_position_whose_backend_leaves_while_it_is_certified_is_handed_over_once() {
    explore("certify, and a backend that leaves", || {
        let room = Room::new(1, 0);
        let sequence = room.submit(BACKEND);
        let backend = {
            let room = room.clone();
            thread::spawn(move || {
                ending::release(room.at(), room.slot(BACKEND));
                // Its next submission must not have to wait for ever.
                room.open_next(BACKEND);
                ending::release(room.at(), room.slot(BACKEND));
            })
        };
        room.take_own(1, BACKEND, sequence, CERTIFIED);
        backend.join().unwrap();
        room.assert_committed_once(1, false);
        room.assert_free(BACKEND);
    });
}

#[test]
fn a_backend_that_gives_up_waiting_either_has_its_verdict_or_leaves_it_to_others() {
    explore("certify, and a backend that gives up", || {
        let room = Room::new(1, 0);
        let sequence = room.submit(BACKEND);
        let backend = {
            let room = room.clone();
            thread::spawn(move || {
                let slot = room.slot(BACKEND);
                // As `Submission` does at its deadline.
                let left = loop {
                    match slot.state() {
                        State::Certified => break false,
                        _ if slot.leave(sequence) => break true,
                        _ => {}
                    }
                };
                if left {
                    ending::release(room.at(), slot);
                    return false;
                }
                room.commit_in_turn(BACKEND)
            })
        };
        room.take_own(1, BACKEND, sequence, CERTIFIED);
        let committed = backend.join().unwrap();
        room.assert_committed_once(1, committed);
        room.assert_free(BACKEND);
    });
}

#[test]
fn an_aborted_position_is_passed_whether_or_not_its_backend_leaves() {
    explore("refute, and a backend that leaves", || {
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
        room.take_own(1, BACKEND, sequence, ABORTED);
        backend.join().unwrap();
        assert_eq!(room.gate().committed(), Position(1));
        assert_eq!(room.gate().orphans(), 0);
        room.assert_free(BACKEND);
    });
}

#[test]
fn a_submission_is_refused_or_sent_never_both() {
    explore("refuse, send, finish", || {
        let room = Room::new(1, 0);
        let sequence = room.slot(BACKEND).open(0).unwrap();
        let backend = {
            let room = room.clone();
            thread::spawn(move || {
                let slot = room.slot(BACKEND);
                if slot.send(sequence) && slot.take_back(sequence) {
                    // Refused now or not: nothing of it left the process.
                    slot.finish();
                    return;
                }
                assert_eq!(slot.state(), State::Refused);
                assert_eq!((slot.refusal(), slot.refusals()), (REASON, 1));
                slot.finish();
            })
        };
        let told = room.slot(BACKEND).refuse(sequence, REASON);
        backend.join().unwrap();
        assert!(matches!(told, Told::Told | Told::NobodyWaits));
        assert_eq!(room.slot(BACKEND).refuse(sequence, REASON), Told::NobodyWaits, "the submission is over");
        room.assert_free(BACKEND);
    });
}

#[test]
fn every_refused_copy_is_counted_though_another_is_sent_meanwhile() {
    explore("two refusals, and one more copy", || {
        let room = Room::new(1, 0);
        let sequence = room.submit(BACKEND);
        let backend = {
            let room = room.clone();
            thread::spawn(move || {
                let slot = room.slot(BACKEND);
                while slot.refusals() < 2 {
                    match slot.state() {
                        State::Refused => assert!(slot.send_again(sequence), "only a refusal can come between"),
                        _ => room.sleep(BACKEND),
                    }
                }
                // The second may have come just before the copy was sent again.
                slot.leave(sequence);
                slot.finish();
            })
        };
        for _ in 0..2 {
            assert_eq!(room.slot(BACKEND).refuse(sequence, REASON), Told::Told);
            room.server.wake(BACKEND);
        }
        backend.join().unwrap();
        room.assert_free(BACKEND);
    });
}

#[test]
fn a_verdict_is_heard_though_another_copy_was_refused_a_moment_ago() {
    explore("a refusal, then certify, and a backend that waits", || {
        let room = Room::new(1, 0);
        let sequence = room.submit(BACKEND);
        let backend = {
            let room = room.clone();
            thread::spawn(move || {
                loop {
                    match room.wait_for_verdict(BACKEND) {
                        // Two copies were sent: one refusal is no answer.
                        State::Refused => {
                            room.slot(BACKEND).send_again(sequence);
                        }
                        verdict => break assert_eq!(verdict, State::Certified),
                    }
                }
                room.commit_in_turn(BACKEND)
            })
        };
        assert_eq!(room.slot(BACKEND).refuse(sequence, REASON), Told::Told);
        room.server.wake(BACKEND);
        room.take_own(1, BACKEND, sequence, CERTIFIED);
        assert!(backend.join().unwrap());
        room.assert_committed_once(1, true);
        room.assert_free(BACKEND);
    });
}

#[test]
fn a_verdict_is_not_lost_on_a_backend_that_leaves_over_a_refusal() {
    explore("a refusal, then certify, and a backend that leaves", || {
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
        room.slot(BACKEND).refuse(sequence, REASON);
        room.take_own(1, BACKEND, sequence, CERTIFIED);
        backend.join().unwrap();
        room.assert_committed_once(1, false);
        room.assert_free(BACKEND);
    });
}

#[test]
fn a_late_word_about_the_last_submissions_chunks_changes_nothing_of_the_next() {
    explore("chunks ordered, and the next submission", || {
        let room = Room::new(1, 0);
        let first = room.slot(BACKEND).open(0).unwrap();
        let backend = {
            let room = room.clone();
            thread::spawn(move || {
                let slot = room.slot(BACKEND);
                slot.finish();
                let next = slot.open(0).unwrap();
                assert_eq!(slot.chunks.count(), 0);
                next
            })
        };
        for index in 0..2 {
            room.slot(BACKEND).chunk_ordered(first, index);
        }
        let next = backend.join().unwrap();
        let slot = room.slot(BACKEND);
        assert_eq!(slot.chunks.count(), 0);
        assert_eq!(slot.chunk_ordered(next, 0), Told::Told);
        assert_eq!(slot.chunks.count(), 1);
    });
}

//! A transaction is told to give way while it ends by itself.

use gcs_writeset::Position;
use loom::thread;
use postgres_r_protocol::id::{LocalXid, Moment, ProcNo};
use postgres_r_protocol::precedence::{Pressing, Pressure, summons};
use postgres_r_protocol::victim::{Holder, Summons, Winner};

use crate::explore;
use crate::room::Room;

const BACKEND: ProcNo = ProcNo(0);
const FIRST: LocalXid = LocalXid(1);
const NEXT: LocalXid = LocalXid(2);

fn press(room: &Room, transaction: LocalXid, position: u64, pressing: &mut Pressing, now: Moment) -> Pressure {
    let holder = Holder { process: BACKEND, transaction, writes: true };
    let winner = Winner { position: Position(position), ..Winner::default() };
    pressing.deal_with(room.at(), room.slot(BACKEND), &holder, &winner, Default::default(), now)
}

#[test]
fn a_transaction_is_never_cancelled_for_the_one_before_it() {
    explore("a mark, a summons, and the next transaction", || {
        let room = Room::new(1, 0);
        room.slot(BACKEND).victim.set_hears(true);
        let presser = {
            let room = room.clone();
            thread::spawn(move || {
                let (mut pressing, later) = (Pressing::default(), Moment(std::time::Duration::from_secs(9)));
                press(&room, FIRST, 1, &mut pressing, Moment::default());
                press(&room, FIRST, 1, &mut pressing, later);
            })
        };
        let slot = room.slot(BACKEND);
        // A signal can come at any time.
        let _ = summons(slot, Some(FIRST));
        slot.victim.clear();
        assert_eq!(summons(slot, None), Summons::Nothing);
        assert_eq!(summons(slot, Some(NEXT)), Summons::Nothing);
        assert_eq!(slot.victim.winner_of(NEXT), None);
        presser.join().unwrap();
        assert_eq!(summons(slot, Some(NEXT)), Summons::Nothing);
        assert_eq!(slot.victim.winner_of(NEXT), None);
    });
}

#[test]
fn whoever_still_stands_in_the_way_is_marked_whatever_was_marked_late() {
    explore("a late mark of the last transaction, and one of the next", || {
        let room = Room::new(1, 0);
        let late = {
            let room = room.clone();
            thread::spawn(move || {
                press(&room, FIRST, 1, &mut Pressing::default(), Moment::default());
            })
        };
        let mut pressing = Pressing::default();
        press(&room, NEXT, 2, &mut pressing, Moment::default());
        late.join().unwrap();
        // It waits for the lock, and looks again.
        assert_eq!(press(&room, NEXT, 2, &mut pressing, Moment::default()), Pressure::Summon);
        assert_eq!(summons(room.slot(BACKEND), Some(NEXT)), Summons::Cancel);
        assert_eq!(room.slot(BACKEND).victim.winner_of(NEXT).unwrap().position, Position(2));
    });
}

#[test]
fn whoever_submits_in_time_is_not_cancelled() {
    explore("a mark, and the submission of the same transaction", || {
        let room = Room::new(1, 0);
        let presser = {
            let room = room.clone();
            thread::spawn(move || press(&room, FIRST, 1, &mut Pressing::default(), Moment::default()))
        };
        let sequence = room.submit(BACKEND);
        assert_eq!(summons(room.slot(BACKEND), Some(FIRST)), Summons::Nothing, "the log decides");
        let pressure = presser.join().unwrap();
        assert!(matches!(pressure, Pressure::Summon | Pressure::Wait), "{pressure:?}");
        assert!(room.slot(BACKEND).leave(sequence));
    });
}

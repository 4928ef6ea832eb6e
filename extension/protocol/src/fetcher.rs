//! Writesets of positions that no backend or forerunner of this node will commit: asked for on a connection of their own.
//!
//! The manager's stream stands still when the gate's window is full, and the window moves on only when every position in it can be
//! committed. Were the writeset of an orphan to come with the stream, it could stand behind what there is no room for, and
//! neither would ever move again. So the manager opens a second connection while there are orphans. What comes on it always has room: it goes
//! to a file.
//!
//! gcs answers one request after the other, in the order in which they were asked. When the connection is lost, whatever was asked for
//! and has not come is asked for again.
//!
//! A large one takes its time, and whoever waits behind it is to see that something is being done ([`crate::turn::LocalTurn`]): how far it is stands in
//! [`crate::replica::Replica::fetched`], beside what the manager's slot says of the stream, which goes on meanwhile.

use std::collections::VecDeque;

use gcs_writeset::{NodeId, Position};

use crate::assembly::{Assembly, Spool};
use crate::dispatch::{Me, Trouble};
use crate::platform::Platform;
use crate::pool;
use crate::progress::{Stage, Whose};
use crate::replica::At;

pub struct Fetcher<S: Spool> {
    asked: VecDeque<Position>,
    half: Option<Assembly<S::File>>,
    is_welcome: bool,
    /// What was asked for on a connection that is gone must be asked for again.
    again: bool,
}

impl<S: Spool> Fetcher<S> {
    /// Of a manager that starts. Its predecessor may have asked for something.
    pub fn new<P: Platform>(at: At<'_, P>) -> Fetcher<S> {
        at.database.replica.fetched.clear();
        Fetcher { asked: VecDeque::new(), half: None, is_welcome: false, again: at.database.gate.is_fetching() }
    }

    /// Whether a connection is needed.
    pub fn is_wanted<P: Platform>(&self, at: At<'_, P>) -> bool {
        self.again || !self.asked.is_empty() || at.database.gate.orphans() > 0
    }

    /// gcs has greeted.
    pub fn welcome(&mut self) {
        self.is_welcome = true;
    }

    /// What is to be asked for now.
    pub fn requests<P: Platform>(&mut self, at: At<'_, P>) -> Vec<Position> {
        if !self.is_welcome {
            return Vec::new();
        }
        let positions = at.database.gate.take_orphans(std::mem::take(&mut self.again));
        self.asked.extend(&positions);
        positions
    }

    /// The next part of what was asked for.
    pub fn body<P: Platform>(
        &mut self,
        at: At<'_, P>,
        me: Me<'_>,
        spool: &S,
        (position, more): (Position, bool),
        part: &[u8],
    ) -> Result<(), Trouble> {
        if self.asked.front() != Some(&position) {
            return Err(Trouble::Protocol(format!("the writeset of position {position} came out of place")));
        }
        let database = at.database;
        let progress = &database.replica.fetched;
        if self.half.is_none() && more {
            let node = database.gate.origin(position).unwrap_or(NodeId(0));
            let whose = Whose { pid: me.pid, database: database.index, node, started_at: me.at };
            progress.start(whose, position, Stage::Receiving);
        }
        self.half.get_or_insert_with(|| Assembly::new(position)).add(spool, part, progress)?;
        if more {
            return Ok(());
        }
        progress.clear();
        if let Some(half) = self.half.take() {
            let storage = half.finish(spool)?;
            database.replica.counters.spooled.one();
            if database.gate.requeue(position, storage) {
                pool::queued_below(at, position);
            }
        }
        // Only now: what could not be written, for want of room, is asked for again.
        self.asked.pop_front();
        Ok(())
    }

    /// The connection is gone.
    pub fn lost<P: Platform>(&mut self, at: At<'_, P>) {
        at.database.replica.fetched.clear();
        self.again |= !self.asked.is_empty();
        self.asked.clear();
        self.is_welcome = false;
        if let Some(half) = self.half.take() {
            half.discard();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panic")]
mod tests {
    use std::io;
    use std::time::Duration;

    use super::*;
    use crate::assembly::SpoolFile;
    use crate::id::Moment;
    use crate::progress::Progress;
    use crate::testing::Room;
    use crate::turn::{LocalTurn, Unfinished, Wait};

    const ME: i32 = 7;
    const PATIENCE: Duration = Duration::from_secs(10);

    struct Counted;

    impl Spool for Counted {
        type File = u64;

        fn create(&self, _: Position) -> io::Result<u64> {
            Ok(0)
        }
    }

    impl SpoolFile for u64 {
        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            *self += bytes.len() as u64;
            Ok(())
        }

        fn length(&self) -> u64 {
            *self
        }

        fn discard(self) {}
    }

    struct Full;

    impl Spool for Full {
        type File = u64;

        fn create(&self, _: Position) -> io::Result<u64> {
            Err(io::ErrorKind::StorageFull.into())
        }
    }

    /// Position 1 is nobody's here, and was asked for.
    fn asked(room: &Room) -> Fetcher<Counted> {
        room.gate().add_orphan(Position(1), Position::ZERO, NodeId(2));
        let mut fetcher = Fetcher::new(room.at());
        fetcher.welcome();
        assert_eq!(fetcher.requests(room.at()), [Position(1)]);
        fetcher
    }

    fn part(room: &Room, fetcher: &mut Fetcher<Counted>, more: bool) {
        let progress = Progress::default();
        let me = Me { pid: ME, progress: &progress, at: 0 };
        fetcher.body(room.at(), me, &Counted, (Position(1), more), b"part").unwrap();
    }

    /// Invariant: nobody is told that what is committed in the group takes too long while it comes.
    #[test]
    fn whoever_waits_behind_it_waits_on_while_it_comes() {
        let room = Room::new();
        let mut fetcher = asked(&room);
        room.gate().add_local(Position(2), Position::ZERO, (NodeId(1), crate::testing::BACKEND));
        let mut turn = LocalTurn::new(room.at(), room.slot(), Position(2), PATIENCE, Moment(Duration::ZERO));
        let mut after =
            |seconds: u64| turn.step(room.at(), room.slot(), false, Moment(Duration::ZERO) + Duration::from_secs(seconds));
        for seconds in [8, 16, 24] {
            part(&room, &mut fetcher, true);
            assert_eq!(after(seconds), Wait::Sleep(PATIENCE));
        }
        assert_eq!(after(33), Wait::Sleep(Duration::from_secs(1)));
        assert_eq!(after(34), Wait::Unfinished(Unfinished::TooLate), "none came for as long as it waits");
    }

    #[test]
    fn how_far_it_is_can_be_seen_until_it_is_whole_or_the_connection_is_gone() {
        let room = Room::new();
        let mut fetcher = asked(&room);
        let fetched = &room.at().database.replica.fetched;
        part(&room, &mut fetcher, true);
        part(&room, &mut fetcher, true);
        let line = fetched.line(0).unwrap();
        assert_eq!((line.pid, line.node, line.position, line.done), (ME, NodeId(2), Some(Position(1)), 4));
        fetcher.lost(room.at());
        assert!(fetched.is_idle());
        fetcher.welcome();
        assert_eq!(fetcher.requests(room.at()), [Position(1)], "asked for again");
        part(&room, &mut fetcher, true);
        part(&room, &mut fetcher, false);
        assert!(fetched.is_idle());
        assert!(!fetcher.is_wanted(room.at()));
    }

    #[test]
    fn what_there_was_no_room_for_is_asked_for_again() {
        let room = Room::new();
        room.gate().add_orphan(Position(1), Position::ZERO, NodeId(2));
        let mut fetcher: Fetcher<Full> = Fetcher::new(room.at());
        fetcher.welcome();
        assert_eq!(fetcher.requests(room.at()), [Position(1)]);
        let progress = Progress::default();
        let me = Me { pid: ME, progress: &progress, at: 0 };
        assert!(fetcher.body(room.at(), me, &Full, (Position(1), false), b"part").is_err());
        fetcher.lost(room.at());
        fetcher.welcome();
        assert_eq!(fetcher.requests(room.at()), [Position(1)], "nobody else will apply it");
    }
}

//! Election timeouts from the seed.
//!
//! `raft` draws a new timeout whenever it changes role or term, from the thread's generator, which no simulator can replay. So
//! after every call into it the timeout is put back to ours, and ours is drawn anew whenever term or leader changed: a failed
//! election changes the term, so rivals do not stay in step.

use gcs_writeset::NodeId;
use gcs_writeset::key::mix;
use raft::{Raft, Storage};

use crate::bounds::ELECTION_TICKS;

pub struct Elections {
    state: u64,
    timeout: usize,
    seen: (u64, u64),
}

impl Elections {
    pub fn new<S: Storage>(me: NodeId, seed: u64, raft: &mut Raft<S>) -> Elections {
        let mut elections = Elections { state: mix(seed ^ mix(me.0)), timeout: 0, seen: (raft.term, raft.leader_id) };
        elections.draw();
        raft.set_randomized_election_timeout(elections.timeout);
        elections
    }

    pub fn settle<S: Storage>(&mut self, raft: &mut Raft<S>) {
        let now = (raft.term, raft.leader_id);
        if now != self.seen {
            self.seen = now;
            self.draw();
        }
        raft.set_randomized_election_timeout(self.timeout);
    }

    fn draw(&mut self) {
        self.state = mix(self.state);
        self.timeout = ELECTION_TICKS + (self.state % ELECTION_TICKS as u64) as usize;
    }
}

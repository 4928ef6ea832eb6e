//! Election timeouts from the seed.
//!
//! `raft` draws a new timeout whenever it changes role or term, from the thread's generator, which no simulator can replay. So
//! after every call into it the timeout is put back to ours, and ours is drawn anew whenever term or leader changed: a failed
//! election changes the term, so rivals do not stay in step.

use gcs_writeset::key::mix;
use raft::{Raft, Storage};

use crate::api::CoreConfig;

pub struct Elections {
    state: u64,
    /// The least that is drawn.
    ticks_min: u64,
    timeout: usize,
    seen: (u64, u64),
}

impl Elections {
    pub fn new<S: Storage>(config: &CoreConfig, raft: &mut Raft<S>) -> Elections {
        let (state, ticks_min) = (mix(config.seed ^ mix(config.node.0)), config.detector.election_ticks);
        let mut elections = Elections { state, ticks_min, timeout: 0, seen: (raft.term, raft.leader_id) };
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
        self.timeout = (self.ticks_min + self.state % self.ticks_min) as usize;
    }

    /// Only so many ticks are left until an election, unless a leader is heard before.
    pub fn hasten<S: Storage>(&self, raft: &mut Raft<S>, ticks: u64) {
        raft.election_elapsed = raft.election_elapsed.max(self.timeout.saturating_sub(ticks as usize));
    }
}

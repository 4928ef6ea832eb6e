//! Runs: consecutive positions of other nodes that a remote backend applies in one transaction and commits by one commit record.
//!
//! A commit costs about as much as applying a small writeset: an id, a snapshot, a commit record, a turn at the gate and a process that is woken
//! for the next one. So what waits in the queue when a remote backend looks is taken together: one transaction id, one commit record with the
//! last position as its origin's progress, one turn. All of it becomes visible at once, which is a prefix of the order like any other, and after a
//! crash the progress is that of the whole run or of nothing of it.
//!
//! What may be taken together ([`crate::gate::Gate::claim_run`]): positions that follow each other, but for aborted ones in between, all of them
//! in the queue's ring and small ([`Most`]). Nothing that is claimed, of this node's own, or still to be fetched lies between them, so that no
//! position in the middle of a run is anybody's turn. Each depends on nothing but what the first one waits for anyway; or the first one waits for
//! everything before it, and then they may depend on one another. (A position knows the last one that it depends on, which may hide others. Position
//! 9 depends on 8 and on 3, and says 8; a run of 8 and 9 that did not wait for 3 would change a row that 3 has yet to make. Found by the simulator.)
//!
//! A run waits for its turn and for nothing else. It has locks for several positions at once, so the rules of precedence, which compare one
//! position with another, would have to hold for each of them: a reader that waits for a position in the middle while it holds what a later one
//! needs would wait for itself. Therefore whoever applies a run gives it up as soon as it would have to wait for a lock, or anything else goes
//! wrong: it rolls back and gives the positions back to the queue, from which they are taken one at a time then ([`crate::gate::Gate::break_up`]), as if
//! there were no runs; so are the next ones, since sessions of this node are likely to hold what comes from others for a while.
//!
//! docs/adr/0045-runs.md has what this was measured to be worth.

use gcs_writeset::Position;

use crate::bounds::{RUN_BYTES, RUN_POSITIONS};
use crate::gate::{Job, Most, Run};
use crate::platform::{Planted, Platform};

/// What is taken together at most.
pub const MOST: Most = Most { positions: RUN_POSITIONS, bytes: RUN_BYTES };

/// What a remote backend has taken from the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    jobs: Vec<Job>,
    run: Run,
}

impl Claimed {
    /// None of no jobs.
    pub fn new<P: Platform>(mut jobs: Vec<Job>) -> Option<Claimed> {
        let run = Run { first: jobs.first()?.position, last: jobs.last()?.position };
        if P::planted(Planted::RunCommitsHalf) {
            jobs.truncate(jobs.len().div_ceil(2));
        }
        Some(Claimed { jobs, run })
    }

    pub fn jobs(&self) -> &[Job] {
        &self.jobs
    }

    pub fn run(&self) -> Run {
        self.run
    }

    /// Whether it is more than one writeset.
    pub fn is_several(&self) -> bool {
        self.jobs.len() > 1
    }

    /// The position that must be committed before it can be applied.
    pub fn depends_on(&self) -> Position {
        let outside = self.jobs.iter().map(|job| job.depends_on).filter(|&position| position < self.run.first);
        outside.max().unwrap_or(Position::ZERO)
    }
}

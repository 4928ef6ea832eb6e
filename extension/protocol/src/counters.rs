//! Counters: what pg_stat_postgres_r shows. Each only grows, until the server starts again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One number that any process may add to.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn one(&self) {
        self.add(1);
    }

    pub fn time(&self, time: Duration) {
        self.add(time.as_micros() as u64);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        #[derive(Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Counters {
            /// Names and values, in the order of the view.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

counters! {
    /// Local transactions committed by their own backend.
    commits,
    /// Local transactions that lost against an earlier position.
    aborts_conflict,
    /// Local transactions whose base had left the group's history.
    aborts_horizon,
    /// Local transactions that the group could not read.
    aborts_malformed,
    /// Local transactions of sessions that had held group locks, and were given up for lost.
    aborts_locks_lost,
    /// Local transactions whose commit token was used or fenced.
    refused_token,
    /// Local transactions that stood in the way of an earlier position before they had been submitted.
    aborts_victim,
    /// Local transactions refused for want of a majority.
    refused_quorum,
    /// Local transactions refused because too much was waiting.
    refused_overload,
    /// Commits whose outcome the client was told to be unknown.
    outcomes_unknown,
    /// Certified transactions that their backend could not finish; applied from the log.
    handed_over,
    /// Certified transactions of those that stood in the way of an earlier position.
    yielded,
    /// Writesets applied by remote backends.
    applied,
    /// Applications rolled back and done again.
    apply_retries,
    /// Remote backends of later positions that had to give way.
    apply_gave_way,
    /// Transactions in which remote backends committed several writesets together.
    apply_runs,
    /// Those that came to nothing, so that their writesets were applied one by one.
    apply_runs_broken,
    /// Writesets applied without what they notify, since PostgreSQL's queue was full.
    notifications_lost,
    /// Writesets that forerunners had applied before they were ordered, and committed.
    applied_ahead,
    /// Those that were applied ahead in vain: rolled back, and applied in their turn.
    ahead_lost,
    /// Sessions that were ended because they were idle while standing in the way.
    sessions_ended,
    /// Statements that lost and were run again inside the server.
    retries,
    /// Transactions with statements that were tried on other nodes first.
    rehearsals,
    /// Those that could not run there.
    rehearsals_failed,
    /// Those that at least one node could not try to their end, for want of time or of a lock.
    rehearsals_partly,
    rehearsal_us,
    /// Time from submission to verdict.
    verdict_wait_us,
    /// How often a turn at the gate had to be waited for.
    gate_waits,
    gate_wait_us,
    /// How often a statement that writes let what is already ordered go first.
    lag_waits,
    lag_wait_us,
    /// How often a transaction waited for a member that is far behind.
    throttle_waits,
    throttle_wait_us,
    /// Transactions that had to see what `postgres_r.read_level` promises.
    read_waits,
    read_wait_us,
    /// Locks that were asked of the group, and the time until it had answered.
    lock_requests,
    lock_wait_us,
    /// Statements that had other nodes' writers leave their tables first, and those that went on before all had.
    tables_cleared,
    tables_not_cleared,
    /// Commits that waited until other nodes show them, and those that some did not show in time.
    after_waits,
    after_missed,
    after_wait_us,
    /// Bytes of writesets sent.
    bytes_sent,
    /// Bytes received from gcs.
    bytes_received,
    /// Submissions repeated after the link was lost.
    resubmissions,
    /// Attaches of the manager.
    attaches,
    /// Writesets that went to the spool.
    spooled,
}

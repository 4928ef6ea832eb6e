//! What a database's remote backends could not apply, and have yet to: one record a database, in shared memory.
//!
//! While it is set the database is out of service on this node, and its manager has the position tried again, after pauses that grow up to
//! [`PAUSE_MAX`]: the cause may be gone by then (a role that was missing, a disk that was full). It is taken back when the position is committed.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use gcs_writeset::{NodeId, Position};

use crate::bounds::{TABLE_BYTES, WHAT_BYTES};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::text::Text;

const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// So often a position is tried before its failure is believed.
const COPY_AFTER_ATTEMPTS: u32 = 2;

/// The reason itself is the replica's.
#[derive(Default)]
pub struct Failure {
    /// 0 when there is none.
    position: AtomicU64,
    node: AtomicU64,
    /// SQLSTATE, in PostgreSQL's form of a number.
    pub code: AtomicU32,
    attempts: AtomicU32,
    /// Whether the failure proves that this node holds something else than the group.
    pub proves_difference: AtomicBool,
    /// When it failed for the first time, microseconds since 2000.
    pub since: AtomicI64,
    /// The statement, if it is one, or the table whose row it is.
    pub statement: Text<WHAT_BYTES>,
    pub table: Text<TABLE_BYTES>,
}

impl Failure {
    pub fn is_set(&self) -> bool {
        self.position() != Position::ZERO
    }

    pub fn position(&self) -> Position {
        Position(self.position.load(Ordering::SeqCst))
    }

    /// Where the position came from.
    pub fn node(&self) -> NodeId {
        NodeId(self.node.load(Ordering::SeqCst))
    }

    pub fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::SeqCst)
    }

    /// An application of this position failed `at` that time. True if it is the first, or another one than before.
    pub fn note(&self, position: Position, node: NodeId, code: u32, at: i64) -> bool {
        let is_news = self.position.swap(position.0, Ordering::SeqCst) != position.0;
        self.node.store(node.0, Ordering::SeqCst);
        self.code.store(code, Ordering::SeqCst);
        if is_news {
            self.since.store(at, Ordering::SeqCst);
            self.attempts.store(0, Ordering::SeqCst);
        }
        self.attempts.fetch_add(1, Ordering::SeqCst);
        is_news
    }

    pub fn forget(&self) {
        self.position.store(0, Ordering::SeqCst);
        self.attempts.store(0, Ordering::SeqCst);
    }

    /// The position, if the database can only be mended by another node's contents: it has been tried again, and the failure proves a difference.
    pub fn needs_copy(&self) -> Option<Position> {
        let is_beyond_doubt = self.attempts() >= COPY_AFTER_ATTEMPTS && self.proves_difference.load(Ordering::SeqCst);
        Some(self.position()).filter(|&position| position != Position::ZERO && is_beyond_doubt)
    }

    /// How long to wait before the next attempt.
    pub fn pause(&self) -> Duration {
        let doublings = self.attempts().saturating_sub(1).min(16);
        (PAUSE_MIN * (1 << doublings)).min(PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_attempts_at_one_position_and_begin_anew_with_another() {
        let failure = Failure::default();
        assert!(!failure.is_set());
        assert!(failure.note(Position(5), NodeId(1), 42, 100));
        assert_eq!(failure.pause(), PAUSE_MIN);
        for _ in 0..20 {
            assert!(!failure.note(Position(5), NodeId(1), 42, 200));
        }
        assert_eq!((failure.pause(), failure.since.load(Ordering::SeqCst)), (PAUSE_MAX, 100));
        assert!(failure.note(Position(6), NodeId(1), 42, 300));
        assert_eq!((failure.pause(), failure.attempts()), (PAUSE_MIN, 1));
        failure.forget();
        assert!(!failure.is_set());
    }

    #[test]
    fn a_copy_is_needed_when_a_failure_that_proves_a_difference_comes_again() {
        let failure = Failure::default();
        assert_eq!(failure.needs_copy(), None);
        failure.note(Position(5), NodeId(1), 42, 100);
        failure.proves_difference.store(true, Ordering::SeqCst);
        assert_eq!(failure.needs_copy(), None);
        failure.note(Position(5), NodeId(1), 42, 200);
        assert_eq!(failure.needs_copy(), Some(Position(5)));
        failure.proves_difference.store(false, Ordering::SeqCst);
        assert_eq!(failure.needs_copy(), None);
        failure.proves_difference.store(true, Ordering::SeqCst);
        failure.forget();
        assert_eq!(failure.needs_copy(), None);
    }
}

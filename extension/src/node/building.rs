//! Indexes that this node builds for sessions of other nodes, or takes out of use for them, in shared memory (docs/adr/0058-concurrently.md).
//!
//! The rehearser gives a place to an index, and starts a builder for it; the builder moves the stage on. A place whose builder has ended is
//! free for another index; until then it says how the last one went.
//!
//! | from | to | by |
//! |---|---|---|
//! | any without a process | `Asked` | the rehearser |
//! | `Asked` | `Known` | the builder: who writes here knows the index |
//! | `Known` | `Done`, `Failed` | the builder |

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use gcs_writeset::Position;
use pgrx::{PgSqlErrorCode, pg_sys};
use postgres_r_protocol::bounds::REASON_BYTES;
use postgres_r_protocol::id::{Holds, ProcNo};
use postgres_r_protocol::numbered::Atomic;
use postgres_r_protocol::text::Text;

use crate::error::Error;

/// Indexes that a database's node builds at a time; who asks for another is told to wait.
pub const BUILDS: usize = 4;

const NOT_KNOWN: u64 = u64::MAX;

postgres_r_protocol::numbered! {
    #[derive(Default)]
    pub enum Stage else Free {
        #[default]
        Free = 0,
        Asked = 1,
        Known = 2,
        Done = 3,
        Failed = 4,
    }
}

#[derive(Default)]
pub struct Build {
    pub process: Holds,
    pub stage: Atomic<Stage>,
    index: AtomicU32,
    /// Up to where those may have committed who wrote here without knowing the index.
    known: AtomicU64,
    /// Up to where it must have committed before the index is built; unknown until all nodes have said so.
    seen: AtomicU64,
    /// The index is to be dropped, and not to be built.
    is_to_go: AtomicBool,
    /// When somebody asked last, in milliseconds.
    asked_at: AtomicU64,
    code: AtomicU32,
    message: Text<REASON_BYTES>,
    detail: Text<REASON_BYTES>,
}

impl Build {
    pub fn index(&self) -> pg_sys::Oid {
        pg_sys::Oid::from(self.index.load(Ordering::SeqCst))
    }

    /// The place is this index's from now on. Somebody asks for it: a builder may be there before the one who starts it goes on.
    pub fn begin(&self, index: pg_sys::Oid, is_to_go: bool, now: u64) {
        self.is_asked(now);
        self.is_to_go.store(is_to_go, Ordering::SeqCst);
        self.index.store(index.to_u32(), Ordering::SeqCst);
        self.seen.store(NOT_KNOWN, Ordering::SeqCst);
        self.stage.store(Stage::Asked);
    }

    pub fn is_to_go(&self) -> bool {
        self.is_to_go.load(Ordering::SeqCst)
    }

    /// Whether there is nothing to be done by its process any more.
    pub fn is_over(&self) -> bool {
        matches!(self.stage.load(), Stage::Free | Stage::Done | Stage::Failed)
    }

    /// Takes the place; false if another process has it, or nobody waits any more.
    pub fn enter(&self, process: ProcNo) -> bool {
        let is_mine = self.process.claim(process);
        let is_asked = self.stage.load() == Stage::Asked;
        if is_mine && !is_asked {
            self.process.set(None);
        }
        is_mine && is_asked
    }

    /// The process that was started has not come, and is not to come any more; false if it has come after all.
    pub fn give_up(&self, me: ProcNo) -> bool {
        let is_empty = self.process.claim(me);
        if is_empty {
            self.stage.store(Stage::Free);
            self.process.set(None);
        }
        is_empty
    }

    /// The process ends, whichever way.
    pub fn leave(&self) {
        if !self.is_over() {
            self.fail(PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN, "the process that builds the index was ended", "");
        }
        self.process.set(None);
    }

    pub fn is_asked(&self, now: u64) {
        self.asked_at.store(now, Ordering::SeqCst);
    }

    pub fn asked_at(&self) -> u64 {
        self.asked_at.load(Ordering::SeqCst)
    }

    pub fn set_known(&self, committed: Position) {
        self.known.store(committed.0, Ordering::SeqCst);
        self.stage.store(Stage::Known);
    }

    pub fn known(&self) -> Position {
        Position(self.known.load(Ordering::SeqCst))
    }

    pub fn set_seen(&self, seen: Position) {
        self.seen.store(seen.0, Ordering::SeqCst);
    }

    /// None until it is known.
    pub fn seen(&self) -> Option<Position> {
        let seen = self.seen.load(Ordering::SeqCst);
        (seen != NOT_KNOWN).then_some(Position(seen))
    }

    pub fn fail(&self, code: PgSqlErrorCode, message: &str, detail: &str) {
        self.code.store(code as u32, Ordering::SeqCst);
        self.message.set(message);
        self.detail.set(detail);
        self.stage.store(Stage::Failed);
    }

    pub fn error(&self) -> Error {
        let code = PgSqlErrorCode::from(self.code.load(Ordering::SeqCst) as isize);
        Error::new(code, self.message.get()).detail(self.detail.get())
    }
}

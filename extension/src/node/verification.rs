//! A verification in shared memory: what a session asks for, who carries it out here, and how the one who has the turn of a mark lets another
//! process take its snapshot at that position (docs/adr/0034).
//!
//! | field | written by |
//! |---|---|
//! | the request | the session that asks; its answer by the coordinator |
//! | `coordinator`, `verifier` | the process that is it |
//! | `offer` | who has the turn of a mark; taken by the verifier, or taken back, by compare and swap |
//! | `changes` | whoever commits rows of ours |
//! | progress | the verifier |
//!
//! An offer stands while the gate stands still at its position: whoever takes a snapshot meanwhile sees exactly what was committed before.
//! The verifier takes its snapshot first and the offer then; if the offer is gone by then, the snapshot is worth nothing.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use gcs_writeset::Position;
use gcs_writeset::bounds::NAME_BYTES_MAX;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys;
use postgres_r_protocol::bounds::REASON_BYTES;
use postgres_r_protocol::id::{Holds, ProcNo};
use postgres_r_protocol::numbered::Atomic;
use postgres_r_protocol::text::Text;

use crate::error::Error;
use crate::pg::latch;

/// Of a table's name with its schema, both quoted.
const OBJECT_BYTES: usize = 300;

postgres_r_protocol::numbered! {
    #[derive(Default)]
    enum Stage else Free {
        #[default]
        Free = 0,
        Filling = 1,
        Asked = 2,
        Working = 3,
        Done = 4,
        /// Nobody waits for the answer.
        Abandoned = 5,
    }
}

/// What a session asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub timeout: Duration,
    /// One table only, and what is below it; everything if there is none.
    pub table: Option<pg_sys::Oid>,
    pub repair: Option<Repair>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    pub node: String,
    /// Also what does not differ.
    pub by_force: bool,
}

#[derive(Default)]
pub struct Verification {
    pub coordinator: Holds,
    pub verifier: Holds,
    /// Counts commits that changed rows of ours.
    changes: AtomicU64,

    /// Where a verification has begun, or is about to.
    begun_at: AtomicU64,
    offer: AtomicI64,
    offered_at: AtomicU64,
    offered_by: Holds,
    /// The verifier looks for an offer, in a moment at the latest.
    ready: AtomicBool,

    stage: Atomic<Stage>,
    requester: Holds,
    timeout_ms: AtomicU64,
    table: AtomicU32,
    by_force: AtomicBool,
    node: Text<NAME_BYTES_MAX>,
    run: AtomicI64,
    has_failed: AtomicBool,
    code: AtomicU32,
    message: Text<REASON_BYTES>,
    detail: Text<REASON_BYTES>,
    hint: Text<REASON_BYTES>,

    pub progress: Progress,
}

/// How far the verifier is with what it looks at now.
#[derive(Default)]
pub struct Progress {
    pub object: Text<OBJECT_BYTES>,
    pub done: AtomicU64,
    pub total: AtomicU64,
    pub rows: AtomicU64,
}

impl Progress {
    pub fn begin(&self, total: usize) {
        self.done.store(0, Ordering::Relaxed);
        self.rows.store(0, Ordering::Relaxed);
        self.total.store(total as u64, Ordering::Relaxed);
    }

    pub fn look_at(&self, object: &str) {
        self.object.set(object);
    }

    pub fn end(&self) {
        self.begin(0);
        self.object.set("");
    }
}

/// What processes that commit at marks do.
impl Verification {
    /// Rows of ours are committed here, or about to be. Raises nothing.
    pub fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        for process in [self.verifier.get(), self.coordinator.get()].into_iter().flatten() {
            latch::wake(process);
        }
    }

    /// A verification begins at this position, when it is committed.
    pub fn begin_at(&self, position: Position) {
        self.begun_at.store(position.0, Ordering::SeqCst);
    }

    pub fn begun_at(&self) -> Position {
        Position(self.begun_at.load(Ordering::SeqCst))
    }

    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Whether a verifier will see an offer that is made now.
    pub fn is_awaited(&self) -> bool {
        self.ready.load(Ordering::SeqCst) && self.verifier.get().is_some()
    }

    /// The turn of this mark is held until the offer is taken or taken back.
    pub fn offer(&self, mark: i64, position: Position, by: Option<ProcNo>) {
        self.offered_by.set(by);
        self.offered_at.store(position.0, Ordering::SeqCst);
        self.offer.store(mark, Ordering::SeqCst);
        if let Some(verifier) = self.verifier.get() {
            latch::wake(verifier);
        }
    }

    pub fn is_taken(&self, mark: i64) -> bool {
        self.offer.load(Ordering::SeqCst) != mark
    }

    /// The turn is passed on in a moment, whoever has taken a snapshot.
    pub fn take_back(&self, mark: i64) {
        let _ = self.offer.compare_exchange(mark, 0, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// What the verifier does.
impl Verification {
    pub fn set_ready(&self, is_ready: bool) {
        self.ready.store(is_ready, Ordering::SeqCst);
    }

    pub fn offered(&self) -> Option<(i64, Position)> {
        let mark = self.offer.load(Ordering::SeqCst);
        (mark != 0).then(|| (mark, Position(self.offered_at.load(Ordering::SeqCst))))
    }

    /// The snapshot is taken. False if it came too late.
    pub fn take(&self, mark: i64) -> bool {
        let is_taken = self.offer.compare_exchange(mark, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if let Some(holder) = self.offered_by.get().filter(|_| is_taken) {
            latch::wake(holder);
        }
        is_taken
    }
}

/// What the session does.
impl Verification {
    /// False if another session of this node asks already.
    pub fn ask(&self, wanted: &Wanted, requester: Option<ProcNo>) -> bool {
        if !self.stage.swap(Stage::Free, Stage::Filling) {
            return false;
        }
        self.requester.set(requester);
        self.timeout_ms.store(wanted.timeout.as_millis().min(u128::from(u64::MAX)) as u64, Ordering::SeqCst);
        self.table.store(wanted.table.map_or(0, pg_sys::Oid::to_u32), Ordering::SeqCst);
        self.node.set(wanted.repair.as_ref().map_or("", |repair| &repair.node));
        self.by_force.store(wanted.repair.as_ref().is_some_and(|repair| repair.by_force), Ordering::SeqCst);
        self.stage.swap(Stage::Filling, Stage::Asked)
    }

    /// Nobody has taken it up. False if somebody has.
    pub fn withdraw(&self) -> bool {
        self.stage.swap(Stage::Asked, Stage::Free)
    }

    /// The session waits no longer. False if there is an answer.
    pub fn abandon(&self) -> bool {
        let is_abandoned = self.withdraw() || self.stage.swap(Stage::Working, Stage::Abandoned);
        if let Some(coordinator) = self.coordinator.get().filter(|_| is_abandoned) {
            latch::wake(coordinator);
        }
        is_abandoned
    }

    /// The number of the run, once it is over.
    pub fn take_answer(&self) -> Option<Result<i64, Error>> {
        if self.stage.load() != Stage::Done {
            return None;
        }
        let some = |text: String| (!text.is_empty()).then_some(text);
        let answer = if self.has_failed.load(Ordering::SeqCst) {
            Err(Error {
                code: PgSqlErrorCode::from(self.code.load(Ordering::SeqCst) as i32),
                message: self.message.get(),
                detail: some(self.detail.get()),
                hint: some(self.hint.get()),
            })
        } else {
            Ok(self.run.load(Ordering::SeqCst))
        };
        self.stage.swap(Stage::Done, Stage::Free);
        Some(answer)
    }
}

/// What the coordinator does.
impl Verification {
    pub fn take_request(&self) -> Option<Wanted> {
        self.stage.swap(Stage::Asked, Stage::Working).then(|| {
            let (node, table) = (self.node.get(), self.table.load(Ordering::SeqCst));
            let by_force = self.by_force.load(Ordering::SeqCst);
            Wanted {
                timeout: Duration::from_millis(self.timeout_ms.load(Ordering::SeqCst)),
                table: (table != 0).then(|| pg_sys::Oid::from(table)),
                repair: (!node.is_empty()).then_some(Repair { node, by_force }),
            }
        })
    }

    pub fn is_abandoned(&self) -> bool {
        self.stage.load() == Stage::Abandoned
    }

    /// Nothing happens if there is no request under way.
    pub fn answer(&self, answer: Result<i64, Error>) {
        if !matches!(self.stage.load(), Stage::Working | Stage::Abandoned) {
            return;
        }
        self.has_failed.store(answer.is_err(), Ordering::SeqCst);
        match answer {
            Ok(run) => self.run.store(run, Ordering::SeqCst),
            Err(error) => {
                self.code.store(error.code as u32, Ordering::SeqCst);
                self.message.set(&error.message);
                self.detail.set(error.detail.as_deref().unwrap_or(""));
                self.hint.set(error.hint.as_deref().unwrap_or(""));
            }
        }
        if self.stage.swap(Stage::Working, Stage::Done) {
            if let Some(requester) = self.requester.get() {
                latch::wake(requester);
            }
        } else {
            self.stage.swap(Stage::Abandoned, Stage::Free);
        }
    }
}

//! START and STOP REPLICATION in shared memory: what a session asks, and what it is told.
//!
//! A session fills in a request and wakes the launcher, which sends a scout. The scout checks what shared catalogs can tell, the manager does
//! the rest, and whichever is last writes the answer. The session waits with a bound; if it leaves, the work goes on without it.
//!
//! | from | to | by |
//! |---|---|---|
//! | `Free` | `Filling` | the session |
//! | `Filling` | `Asked` | the same |
//! | `Asked` | `Working` | a scout |
//! | `Working` | `Done` | whoever answers |
//! | `Done`, `Asked` | `Free` | the session |
//! | `Working` | `Abandoned` | the session, which waits no longer |
//! | `Abandoned` | `Free` | whoever answers |

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use gcs_writeset::bounds::NAME_BYTES_MAX;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys;
use postgres_r_protocol::bounds::{NAME_BYTES, REASON_BYTES};
use postgres_r_protocol::id::{Holds, ProcNo};
use postgres_r_protocol::numbered::Atomic;
use postgres_r_protocol::statement::Wanted;
use postgres_r_protocol::text::Text;

use super::making::Birth;
use crate::error::Error;
use crate::pg::latch;

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

const START: u32 = 0;
const STOP: u32 = 1;
const STOP_BY_FORCE: u32 = 2;
const START_OVER: u32 = 3;

/// What became of a request. One that was carried out may have something to be said about it (a NOTICE or a WARNING).
pub type Answer = Result<Option<Error>, Error>;

#[derive(Default)]
pub struct Request {
    stage: Atomic<Stage>,
    /// One of the four above.
    wanted: AtomicU32,
    birth: Atomic<Birth>,
    role: AtomicU32,
    requester: Holds,
    database: Text<NAME_BYTES>,
    group: Text<NAME_BYTES_MAX>,
    has_failed: AtomicBool,
    code: AtomicU32,
    message: Text<REASON_BYTES>,
    detail: Text<REASON_BYTES>,
    hint: Text<REASON_BYTES>,
}

/// What a scout finds in a request.
pub struct Asked {
    pub database: String,
    pub wanted: Wanted,
    pub birth: Birth,
    /// Who asks.
    pub role: pg_sys::Oid,
}

/// What the session does.
impl Request {
    /// Fills in a request that is free. False if it is not.
    pub fn ask(
        &self,
        database: &str,
        (wanted, birth): (&Wanted, Birth),
        role: pg_sys::Oid,
        requester: Option<ProcNo>,
    ) -> bool {
        if !self.stage.swap(Stage::Free, Stage::Filling) {
            return false;
        }
        self.requester.set(requester);
        self.birth.store(birth);
        self.role.store(role.to_u32(), Ordering::SeqCst);
        self.database.set(database);
        let (wanted, group) = match wanted {
            Wanted::Start { group, overwrite: false } => (START, group.as_str()),
            Wanted::Start { group, overwrite: true } => (START_OVER, group.as_str()),
            Wanted::Stop { force: false } => (STOP, ""),
            Wanted::Stop { force: true } => (STOP_BY_FORCE, ""),
        };
        self.group.set(group);
        self.wanted.store(wanted, Ordering::SeqCst);
        self.stage.swap(Stage::Filling, Stage::Asked)
    }

    /// The session waits no longer. False if there is an answer.
    pub fn abandon(&self) -> bool {
        self.stage.swap(Stage::Asked, Stage::Free) || self.stage.swap(Stage::Working, Stage::Abandoned)
    }

    /// The answer, once there is one; the request is free then.
    pub fn take_answer(&self) -> Option<Answer> {
        if self.stage.load() != Stage::Done {
            return None;
        }
        let some = |text: String| (!text.is_empty()).then_some(text);
        let said = some(self.message.get()).map(|message| Error {
            code: PgSqlErrorCode::from(self.code.load(Ordering::SeqCst) as i32),
            message,
            detail: some(self.detail.get()),
            hint: some(self.hint.get()),
        });
        let answer = match said {
            Some(error) if self.has_failed.load(Ordering::SeqCst) => Err(error),
            remark => Ok(remark),
        };
        self.stage.swap(Stage::Done, Stage::Free);
        Some(answer)
    }
}

/// What scouts and managers do.
impl Request {
    pub fn requester(&self) -> Option<ProcNo> {
        self.requester.get()
    }

    pub fn is_asked(&self) -> bool {
        self.stage.load() == Stage::Asked
    }

    /// A scout takes it up.
    pub fn take(&self) -> Option<Asked> {
        self.stage.swap(Stage::Asked, Stage::Working).then(|| {
            let wanted = match self.wanted.load(Ordering::SeqCst) {
                wanted @ (START | START_OVER) => Wanted::Start { group: self.group.get(), overwrite: wanted == START_OVER },
                wanted => Wanted::Stop { force: wanted == STOP_BY_FORCE },
            };
            let role = pg_sys::Oid::from(self.role.load(Ordering::SeqCst));
            Asked { database: self.database.get(), wanted, birth: self.birth.load(), role }
        })
    }

    pub fn answer(&self, answer: Answer) {
        self.has_failed.store(answer.is_err(), Ordering::SeqCst);
        let said = answer.unwrap_or_else(Some);
        self.message.set(said.as_ref().map_or("", |said| &said.message));
        if let Some(said) = said {
            self.detail.set(said.detail.as_deref().unwrap_or(""));
            self.hint.set(said.hint.as_deref().unwrap_or(""));
            self.code.store(said.code as u32, Ordering::SeqCst);
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

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

use std::sync::atomic::{AtomicU32, Ordering};

use gcs_writeset::bounds::NAME_BYTES_MAX;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys;
use postgres_r_protocol::bounds::{NAME_BYTES, REASON_BYTES};
use postgres_r_protocol::id::{Holds, ProcNo};
use postgres_r_protocol::numbered::Atomic;
use postgres_r_protocol::statement::Wanted;
use postgres_r_protocol::text::Text;

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

#[derive(Default)]
pub struct Request {
    stage: Atomic<Stage>,
    is_stop: AtomicU32,
    role: AtomicU32,
    requester: Holds,
    database: Text<NAME_BYTES>,
    group: Text<NAME_BYTES_MAX>,
    code: AtomicU32,
    message: Text<REASON_BYTES>,
    detail: Text<REASON_BYTES>,
    hint: Text<REASON_BYTES>,
}

/// What a scout finds in a request.
pub struct Asked {
    pub database: String,
    pub wanted: Wanted,
    /// Who asks.
    pub role: pg_sys::Oid,
}

/// What the session does.
impl Request {
    /// Fills in a request that is free. False if it is not.
    pub fn ask(&self, database: &str, wanted: &Wanted, role: pg_sys::Oid, requester: Option<ProcNo>) -> bool {
        if !self.stage.swap(Stage::Free, Stage::Filling) {
            return false;
        }
        self.requester.set(requester);
        self.role.store(role.to_u32(), Ordering::SeqCst);
        self.database.set(database);
        let (is_stop, group) = match wanted {
            Wanted::Start { group } => (0, group.as_str()),
            Wanted::Stop => (1, ""),
        };
        self.group.set(group);
        self.is_stop.store(is_stop, Ordering::SeqCst);
        self.stage.swap(Stage::Filling, Stage::Asked)
    }

    /// The session waits no longer. False if there is an answer.
    pub fn abandon(&self) -> bool {
        self.stage.swap(Stage::Asked, Stage::Free) || self.stage.swap(Stage::Working, Stage::Abandoned)
    }

    /// The answer, once there is one; the request is free then.
    pub fn take_answer(&self) -> Option<Result<(), Error>> {
        if self.stage.load() != Stage::Done {
            return None;
        }
        let answer = match self.code.load(Ordering::SeqCst) {
            0 => Ok(()),
            code => {
                let some = |text: String| (!text.is_empty()).then_some(text);
                Err(Error {
                    code: PgSqlErrorCode::from(code as i32),
                    message: self.message.get(),
                    detail: some(self.detail.get()),
                    hint: some(self.hint.get()),
                })
            }
        };
        self.stage.swap(Stage::Done, Stage::Free);
        Some(answer)
    }
}

/// What scouts and managers do.
impl Request {
    pub fn is_asked(&self) -> bool {
        self.stage.load() == Stage::Asked
    }

    /// A scout takes it up.
    pub fn take(&self) -> Option<Asked> {
        self.stage.swap(Stage::Asked, Stage::Working).then(|| {
            let wanted = match self.is_stop.load(Ordering::SeqCst) {
                0 => Wanted::Start { group: self.group.get() },
                _ => Wanted::Stop,
            };
            let role = pg_sys::Oid::from(self.role.load(Ordering::SeqCst));
            Asked { database: self.database.get(), wanted, role }
        })
    }

    pub fn answer(&self, answer: Result<(), Error>) {
        match answer {
            Ok(()) => self.code.store(0, Ordering::SeqCst),
            Err(error) => {
                self.message.set(&error.message);
                self.detail.set(error.detail.as_deref().unwrap_or(""));
                self.hint.set(error.hint.as_deref().unwrap_or(""));
                self.code.store(error.code as u32, Ordering::SeqCst);
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

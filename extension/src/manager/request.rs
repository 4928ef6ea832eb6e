//! START and STOP REPLICATION: what a session asks, and what it is told.
//!
//! A session fills in a request in shared memory and wakes the launcher, which sends a scout. The scout checks what shared
//! catalogs can tell, the manager does the rest, and whichever is last writes the answer. The session waits with a bound; if it leaves, the
//! work goes on without it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gcs_writeset::bounds::NAME_BYTES_MAX;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::Error;
use crate::pg::shmem::Text;
use crate::pg::{catalog, interrupt, latch, process};
use crate::shmem::{self, NAME, Place, REASON};

/// How long a session waits for its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum State {
    Free = 0,
    Filling = 1,
    Asked = 2,
    Working = 3,
    Done = 4,
    /// Nobody waits for the answer.
    Abandoned = 5,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Start { group: String },
    Stop,
}

#[derive(Default)]
pub struct Request {
    state: AtomicU32,
    is_stop: AtomicU32,
    role: AtomicU32,
    requester: Place,
    database: Text<NAME>,
    group: Text<NAME_BYTES_MAX>,
    code: AtomicU32,
    message: Text<REASON>,
    detail: Text<REASON>,
    hint: Text<REASON>,
}

impl Request {
    fn swap(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from as u32, to as u32, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn is(&self, state: State) -> bool {
        self.state.load(Ordering::SeqCst) == state as u32
    }

    pub fn is_asked(&self) -> bool {
        self.is(State::Asked)
    }

    /// A scout takes it up.
    pub fn take(&self) -> Option<(String, Wanted, pg_sys::Oid)> {
        self.swap(State::Asked, State::Working).then(|| {
            let wanted = match self.is_stop.load(Ordering::SeqCst) {
                0 => Wanted::Start { group: self.group.get() },
                _ => Wanted::Stop,
            };
            (self.database.get(), wanted, pg_sys::Oid::from(self.role.load(Ordering::SeqCst)))
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
        if self.swap(State::Working, State::Done) {
            self.requester.wake();
        } else {
            self.swap(State::Abandoned, State::Free);
        }
    }

    fn result(&self) -> Result<(), Error> {
        match self.code.load(Ordering::SeqCst) {
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
        }
    }
}

/// Asks and waits. Raises nothing by itself; with `interruptible`, a cancel does.
pub fn ask(database: &str, wanted: &Wanted, interruptible: bool) -> Result<(), Error> {
    let Some(shared) = shmem::get() else { return Err(crate::error::not_preloaded()) };
    let Some(request) = shared.requests.iter().find(|request| request.swap(State::Free, State::Filling)) else {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
            "too many databases are being started or stopped",
        )
        .hint("Try again in a moment."));
    };
    request.requester.set(process::me());
    request.role.store(catalog::current_role().to_u32(), Ordering::SeqCst);
    request.database.set(database);
    match wanted {
        Wanted::Start { group } => {
            request.group.set(group);
            request.is_stop.store(0, Ordering::SeqCst);
        }
        Wanted::Stop => request.is_stop.store(1, Ordering::SeqCst),
    }
    request.swap(State::Filling, State::Asked);
    shared.server.launcher.wake();
    wait(request, interruptible)
}

fn wait(request: &Request, interruptible: bool) -> Result<(), Error> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    while !request.is(State::Done) {
        let left = deadline.saturating_duration_since(Instant::now());
        let stop = left.is_zero() || interrupt::die_pending() || (interruptible && interrupt::pending());
        if stop && (request.swap(State::Asked, State::Free) || request.swap(State::Working, State::Abandoned)) {
            if interruptible {
                interrupt::check();
            }
            return Err(Error::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, "no answer to the request for replication")
                .detail("It may still be carried out.")
                .hint("See the server's log and postgres_r.members."));
        }
        latch::wait(Some(left));
    }
    let result = request.result();
    request.swap(State::Done, State::Free);
    result
}

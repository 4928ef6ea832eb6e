//! Running the one statement of a client's message more than once, in a subtransaction each time.
//!
//! A plan that has failed cannot be run again, nor can its executor state be cleaned up in the middle of the transaction. So the
//! statement's own execution is started and then left alone; each try is an execution of the same plan of its own, wholly inside of
//! a subtransaction, and what it did is reported as if the first one had done it.
//!
//! The fate of the transaction is decided at the end of a try, when the client has not been told anything yet: PostgreSQL sends
//! neither the rows of RETURNING nor the command's tag before the portal has run to its end. That is only right if nothing
//! follows in the transaction. It is so when the message is a simple query of one statement outside a block, or an Execute with the
//! Sync that ends the transaction right behind it.
//!
//! ERRORs are caught here as PostgreSQL does it, not as pgrx does: what is raised again must have all its fields.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int};
use std::sync::OnceLock;

use cee_scape::call_with_sigsetjmp;
use gcs_writeset::Position;
use pgrx::{PgSqlErrorCode, pg_sys};

use super::majors::query::{self, has_unread, on_run, run_by_others};
use super::summons;

/// What the caller decides.
#[derive(Clone, Copy)]
pub struct Policy {
    /// Whether the transaction, in which nothing was written yet, may be run like this at all.
    pub wanted: fn() -> bool,
    /// Called at the beginning of a try, in its subtransaction; returns when the try makes sense. An ERROR ends the try.
    pub before: fn(),
    /// Called at the end of a try, when the statement and its deferred triggers have run. A loss or an ERROR undoes the try.
    pub decide: fn() -> Result<(), Loss>,
    /// Whether the statement is to be tried again. `tries` counts those made.
    pub again: fn(tries: u32, Failed) -> bool,
}

/// The transaction of a try was decided on, and lost.
pub struct Loss {
    pub winner: Position,
    /// Raises the error that the client is told if there is no further try.
    pub raise: Box<dyn FnOnce()>,
}

/// What ended a try.
#[derive(Clone, Copy)]
pub enum Failed {
    /// It lost to this position.
    Lost(Position),
    Raised(Caught),
}

/// An ERROR that ended a try.
#[derive(Clone, Copy)]
pub struct Caught {
    code: c_int,
}

impl Caught {
    pub fn is(&self, code: PgSqlErrorCode) -> bool {
        self.code == code as c_int
    }
}

/// The send buffer of a connection: PostgreSQL sends what is in it, and may wait for the client, when it is full.
const SEND_BUFFER_BYTES: u64 = 8192;

static POLICY: OnceLock<Policy> = OnceLock::new();

thread_local! {
    static TRYING: Cell<bool> = const { Cell::new(false) };
}

/// Called while libraries are preloaded.
pub fn install(policy: Policy) {
    if POLICY.set(policy).is_ok() {
        on_run(run);
    }
}

// As pgrx binds them, but without the guard, since ERRORs pass on to `sigsetjmp` below; and what it does not bind.
unsafe extern "C-unwind" {
    fn ExecutorStart(query: *mut pg_sys::QueryDesc, flags: c_int);
    fn ExecutorFinish(query: *mut pg_sys::QueryDesc);
    fn ExecutorEnd(query: *mut pg_sys::QueryDesc);
    fn CreateQueryDesc(
        plan: *mut pg_sys::PlannedStmt,
        source: *const c_char,
        snapshot: pg_sys::Snapshot,
        crosscheck: pg_sys::Snapshot,
        receiver: *mut pg_sys::DestReceiver,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        instruments: c_int,
    ) -> *mut pg_sys::QueryDesc;
    fn FreeQueryDesc(query: *mut pg_sys::QueryDesc);
    fn GetTransactionSnapshot() -> pg_sys::Snapshot;
    fn GetActiveSnapshot() -> pg_sys::Snapshot;
    fn PushActiveSnapshot(snapshot: pg_sys::Snapshot);
    fn PopActiveSnapshot();
    fn BeginInternalSubTransaction(name: *const c_char);
    fn ReleaseCurrentSubTransaction();
    fn RollbackAndReleaseCurrentSubTransaction();
    fn CommandCounterIncrement();
    fn AfterTriggerSetState(statement: *mut pg_sys::ConstraintsSetStmt);
    fn CopyErrorData() -> *mut pg_sys::ErrorData;
    fn FreeErrorData(error: *mut pg_sys::ErrorData);
    fn FlushErrorState();
    fn ReThrowError(error: *mut pg_sys::ErrorData) -> !;
    fn tuplestore_clear(state: *mut pg_sys::Tuplestorestate);
    fn pq_startmsgread();
    fn pq_peekbyte() -> c_int;
    fn pq_endmsgread();
}

/// # Safety
/// Called by PostgreSQL. Not guarded: ERRORs pass through this frame, in which nothing needs a `Drop`.
unsafe fn run(query: *mut pg_sys::QueryDesc, direction: pg_sys::ScanDirection::Type, count: u64, once: bool) {
    // A portal of which more rows are fetched comes by no other hook.
    summons::statement_is_known();
    // SAFETY: passes on what we were given.
    unsafe {
        if once && count == 0 && !TRYING.get() && is_wanted(query) {
            TRYING.set(true);
            run_until_decided(query, direction);
            TRYING.set(false);
        } else {
            run_by_others(query, direction, count, once);
        }
    }
}

/// The end of a transaction, whichever way it came.
pub fn reset() {
    TRYING.set(false);
}

/// # Safety
/// `query` must be what the executor is about to run.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn is_wanted(query: *mut pg_sys::QueryDesc) -> bool {
    // SAFETY: by contract.
    POLICY.get().is_some_and(|policy| unsafe { is_alone(query) } && (policy.wanted)())
}

/// Whether the statement changes rows, its client gets to know nothing before it ends, and nothing else is in its transaction.
///
/// # Safety
/// As above.
unsafe fn is_alone(query: *mut pg_sys::QueryDesc) -> bool {
    // SAFETY: a portal that runs is valid with its list of statements.
    unsafe {
        let portal = pg_sys::ActivePortal;
        if portal.is_null() || pg_sys::whereToSendOutput != pg_sys::CommandDest::DestRemote || pg_sys::IsTransactionBlock() {
            return false;
        }
        let (statements, plan) = ((*portal).stmts, (*query).plannedstmt);
        let holds_rows_back = match (*portal).strategy {
            pg_sys::PortalStrategy::PORTAL_MULTI_QUERY => (*query).operation != pg_sys::CmdType::CMD_SELECT,
            pg_sys::PortalStrategy::PORTAL_ONE_RETURNING | pg_sys::PortalStrategy::PORTAL_ONE_MOD_WITH => true,
            _ => false,
        };
        holds_rows_back
            && !statements.is_null()
            && (*statements).length == 1
            && (*(*statements).elements).ptr_value == plan.cast()
            && (is_simple_query(portal) || is_followed_by_sync())
            && !asks_for_its_id(CStr::from_ptr((*query).sourceText).to_bytes())
    }
}

/// Whether a statement's text seems to compare rows with the transaction's id: tried in a subtransaction, rows have another.
fn asks_for_its_id(text: &[u8]) -> bool {
    const ASK: [&[u8]; 4] = [b"xmin", b"xmax", b"xact_id", b"xid_current"];
    let starts =
        |rest: &[u8]| ASK.iter().any(|&ask| rest.get(..ask.len()).is_some_and(|word| word.eq_ignore_ascii_case(ask)));
    text.iter().enumerate().any(|(at, byte)| byte.eq_ignore_ascii_case(&b'x') && starts(&text[at..]))
}

/// Portals of simple queries are hidden from pg_cursors, those of Bind are not.
///
/// # Safety
/// `portal` must be valid.
unsafe fn is_simple_query(portal: pg_sys::Portal) -> bool {
    // SAFETY: by contract.
    unsafe { !(*portal).visible }
}

/// # Safety
/// Between two messages of the client.
unsafe fn is_followed_by_sync() -> bool {
    // SAFETY: there is a byte, so looking at it neither waits nor fails.
    unsafe {
        if !has_unread() {
            return false;
        }
        pq_startmsgread();
        let next = pq_peekbyte();
        pq_endmsgread();
        next == c_int::from(b'S')
    }
}

/// # Safety
/// As `run`, for a query of which `is_wanted` holds.
unsafe fn run_until_decided(query: *mut pg_sys::QueryDesc, direction: pg_sys::ScanDirection::Type) {
    let mut tries = 0;
    // SAFETY: see the parts.
    unsafe {
        let processed = loop {
            let mut processed = 0;
            let mut end = End::Done;
            attempt(query, direction, &raw mut processed, &raw mut end);
            if let End::Done = end {
                break processed;
            }
            tries += 1;
            if !try_again(tries, &raw const end) {
                TRYING.set(false);
                raise(end);
            }
            forget(end);
            let rows = (*pg_sys::ActivePortal).holdStore;
            if !rows.is_null() {
                tuplestore_clear(rows);
            }
        };
        let state = (*query).estate;
        (*state).es_processed = processed;
        // Parts of the plan that are run to their end when it is finished: the try has done that.
        (*state).es_auxmodifytables = std::ptr::null_mut();
    }
}

/// How a try ended.
enum End {
    Done,
    Lost(Loss),
    /// By this ERROR, copied.
    Raised(*mut pg_sys::ErrorData),
}

/// # Safety
/// `end` must be valid.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn try_again(tries: u32, end: *const End) -> bool {
    // SAFETY: by contract; an ERROR that was copied is there until it is freed.
    let failed = unsafe {
        match &*end {
            End::Done => return false,
            End::Lost(loss) => Failed::Lost(loss.winner),
            End::Raised(error) => Failed::Raised(Caught { code: (**error).sqlerrcode }),
        }
    };
    POLICY.get().is_some_and(|policy| (policy.again)(tries, failed))
}

/// Raises what ended the last try.
///
/// # Safety
/// As `run`.
unsafe fn raise(end: End) -> ! {
    match end {
        End::Done => {}
        End::Lost(loss) => raise_loss(Box::into_raw(Box::new(loss))),
        // SAFETY: the copy of an ERROR.
        End::Raised(error) => unsafe { ReThrowError(error) },
    }
    unreachable!("a try that failed has something to raise")
}

#[pgrx::pg_guard]
extern "C-unwind" fn raise_loss(loss: *mut Loss) {
    // SAFETY: made from a box by the only caller.
    let loss = unsafe { Box::from_raw(loss) };
    (loss.raise)();
}

/// # Safety
/// As `run`.
unsafe fn forget(end: End) {
    if let End::Raised(error) = end {
        // SAFETY: the copy of an ERROR.
        unsafe { FreeErrorData(error) };
    }
}

/// One try. What it did is undone unless it is done.
///
/// # Safety
/// As `run`. `processed` and `end` must be valid.
unsafe fn attempt(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    processed: *mut u64,
    end: *mut End,
) {
    // SAFETY: PG_TRY and PG_CATCH around an internal subtransaction, in the order in which PL/pgSQL does it. No frame between
    // `sigsetjmp` and whatever raises has anything to drop but those of the guards, which catch what is theirs.
    unsafe {
        let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        let (catchers, callbacks) = (pg_sys::PG_exception_stack, pg_sys::error_context_stack);
        BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let raised = call_with_sigsetjmp(false, |here| {
            pg_sys::PG_exception_stack = std::ptr::from_ref(here).cast_mut().cast();
            before();
            execute(query, direction, processed);
            if fits_the_send_buffer(query, *processed) {
                decide(end);
            }
            0
        });
        pg_sys::PG_exception_stack = catchers;
        pg_sys::error_context_stack = callbacks;
        if raised != 0 {
            pg_sys::MemoryContextSwitchTo(context);
            end.write(End::Raised(CopyErrorData()));
            FlushErrorState();
        }
        if matches!(*end, End::Done) {
            ReleaseCurrentSubTransaction();
        } else {
            RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
    }
}

/// Whether the rows that the client gets before COMMIT can be sent without its reading them. If not, COMMIT asks for the verdict as
/// ever: a certified transaction whose client takes its time would hold up all later positions.
///
/// # Safety
/// As `attempt`.
unsafe fn fits_the_send_buffer(query: *mut pg_sys::QueryDesc, rows: u64) -> bool {
    // SAFETY: by contract.
    unsafe {
        let width = u64::try_from((*(*(*query).plannedstmt).planTree).plan_width).unwrap_or(0);
        (*pg_sys::ActivePortal).strategy == pg_sys::PortalStrategy::PORTAL_MULTI_QUERY
            || rows.saturating_mul(width) <= SEND_BUFFER_BYTES
    }
}

/// # Safety
/// As `attempt`.
unsafe fn execute(query: *mut pg_sys::QueryDesc, direction: pg_sys::ScanDirection::Type, processed: *mut u64) {
    // SAFETY: what ProcessQuery does with a plan, and then what COMMIT does with deferred triggers.
    unsafe {
        PushActiveSnapshot(GetTransactionSnapshot());
        let own = CreateQueryDesc(
            (*query).plannedstmt,
            (*query).sourceText,
            GetActiveSnapshot(),
            std::ptr::null_mut(),
            (*query).dest,
            (*query).params,
            (*query).queryEnv,
            (*query).instrument_options,
        );
        ExecutorStart(own, 0);
        query::execute(own, direction);
        *processed = (*(*own).estate).es_processed;
        ExecutorFinish(own);
        ExecutorEnd(own);
        FreeQueryDesc(own);
        PopActiveSnapshot();

        CommandCounterIncrement();
        let mut immediate = pg_sys::ConstraintsSetStmt {
            type_: pg_sys::NodeTag::T_ConstraintsSetStmt,
            constraints: std::ptr::null_mut(),
            deferred: false,
        };
        AfterTriggerSetState(&raw mut immediate);
    }
}

#[pgrx::pg_guard]
extern "C-unwind" fn before() {
    if let Some(policy) = POLICY.get() {
        (policy.before)();
    }
}

/// # Safety
/// `end` must be valid, and hold nothing to be dropped.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn decide(end: *mut End) {
    if let Some(policy) = POLICY.get()
        && let Err(loss) = (policy.decide)()
    {
        // SAFETY: by contract.
        unsafe { end.write(End::Lost(loss)) };
    }
}

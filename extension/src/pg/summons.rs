//! Summons: what a signal makes this process do when its transaction is to give way.
//!
//! Another process signals (`process::summon`); the handler asks a function of the caller's what is meant, and then cancels the
//! statement that runs, as PostgreSQL's own handlers do, or ends the session if it is idle.
//!
//! Between two statements of a client, a cancel is *put off* until PostgreSQL has parsed the next one. A cancel that is pending when
//! a COMMIT has been read fails it before it runs, at the first CHECK_FOR_INTERRUPTS. That leaves the session in a failed
//! transaction, while the client takes the transaction to be over, as it is when a COMMIT fails that runs. A COMMIT that is not
//! cancelled runs, learns at XACT_EVENT_PRE_COMMIT that its transaction must give way, and fails as any COMMIT does: the block
//! ends, and AND CHAIN starts no other. A ROLLBACK does by itself what the summons is for. In a message of several statements only
//! the first is waited for: the client of `UPDATE ...; COMMIT` cannot know which of them failed, on one server neither.
//!
//! Which statement comes, the hooks learn from PostgreSQL's parser: [`statement_is_known`], [`statement_ends_block`]. To have the text
//! parsed later, when the cancel is reported, would not do. `emit_log_hook` runs while elog.c has an error on its stack. An ERROR
//! raised there (a syntax error, no memory), caught or not, makes `errstart` reset ErrorContext, where the reported error's texts are.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, Ordering};

use pgrx::pg_sys;

use super::majors::process::on_signal;
use postgres_r_protocol::victim::Summons;

static HEARING: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());
static SUMMONED: AtomicBool = AtomicBool::new(false);
static PUT_OFF: AtomicBool = AtomicBool::new(false);
static ENDED: AtomicBool = AtomicBool::new(false);
static LEFT: AtomicBool = AtomicBool::new(false);

/// The message whose statement may be cancelled: when it came, by `GetCurrentStatementStartTimestamp`, which PostgreSQL sets for
/// each message that can hold or run a statement. 0 if none may.
static CANCELLABLE: AtomicI64 = AtomicI64::new(0);

/// Installs the signal handler: `hear` says what is meant. It runs inside of the handler: atomics only.
pub fn install_summons(hear: fn() -> Summons) {
    HEARING.store(hear as *mut (), Ordering::Release);
    // The handler does only what PostgreSQL's own handlers do.
    on_signal(libc::SIGUSR2, on_summons);
}

unsafe extern "C-unwind" fn on_summons(_signal: i32) {
    // SAFETY: errno is this thread's own.
    let errno = unsafe { *libc::__errno_location() };
    match hear() {
        Summons::Nothing => {}
        Summons::End if is_idle() => {
            ENDED.store(true, Ordering::Release);
            end_session();
        }
        Summons::Cancel | Summons::End if may_cancel() => cancel(),
        Summons::Cancel | Summons::End => PUT_OFF.store(true, Ordering::Release),
        Summons::Leave if has_waited_for_client() => {
            LEFT.store(true, Ordering::Release);
            end_session();
        }
        Summons::Leave => {}
    }
    // SAFETY: MyLatch is valid once signals are unblocked; SetLatch is async-signal-safe.
    unsafe { raw::SetLatch(pg_sys::MyLatch) };
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

fn hear() -> Summons {
    let hearing = HEARING.load(Ordering::Acquire);
    if hearing.is_null() {
        return Summons::Nothing;
    }
    // SAFETY: only ever stored from a `fn() -> Summons`.
    let hear: fn() -> Summons = unsafe { std::mem::transmute(hearing) };
    hear()
}

fn end_session() {
    // SAFETY: what die() does.
    unsafe {
        pg_sys::InterruptPending = 1;
        pg_sys::ProcDiePending = 1;
    }
}

fn cancel() {
    SUMMONED.store(true, Ordering::Release);
    // SAFETY: what StatementCancelHandler does.
    unsafe {
        pg_sys::InterruptPending = 1;
        pg_sys::QueryCancelPending = 1;
    }
}

/// Whether what this process does now may be cancelled; false between two statements of a client.
fn may_cancel() -> bool {
    // SAFETY: a variable of this process.
    let has_client = unsafe { pg_sys::whereToSendOutput == pg_sys::CommandDest::DestRemote };
    // The analysis of a statement that is not known yet can wait for locks, and what it waits for can be this summons' sender. A
    // COMMIT or ROLLBACK cannot. A wait that begins just after this was asked is found by the next summons: the sender repeats it.
    if !has_client || waits_for_lock() {
        return true;
    }
    match activity() {
        Some(pg_sys::BackendState::STATE_IDLEINTRANSACTION) => false,
        // A function is called without a statement.
        Some(pg_sys::BackendState::STATE_FASTPATH) => true,
        _ => message_came() == CANCELLABLE.load(Ordering::Acquire),
    }
}

/// The client's statement is parsed and ends no transaction block: it may be cancelled, and is if a summons was put off. Told
/// by every hook that comes by before the statement runs. Raises nothing.
pub(super) fn statement_is_known() {
    CANCELLABLE.store(message_came(), Ordering::Release);
    // Asked again: the transaction may have been submitted meanwhile, or be another.
    if PUT_OFF.swap(false, Ordering::AcqRel) && hear() != Summons::Nothing {
        cancel();
    }
}

/// The client's statement is parsed and ends the transaction block: it must not be cancelled before it runs. Raises nothing.
pub(super) fn statement_ends_block() {
    CANCELLABLE.store(0, Ordering::Release);
}

/// The statement that ends the block ran. What is left to do, the deferred triggers of a COMMIT for one, may be cancelled, since any
/// error ends the block from now on. Raises nothing.
pub(super) fn block_is_ending() {
    CANCELLABLE.store(message_came(), Ordering::Release);
}

/// This transaction was cancelled by a summons.
pub fn was_summoned() -> bool {
    SUMMONED.load(Ordering::Acquire)
}

/// This session is being ended by a summons, not by an administrator.
pub fn was_ended() -> bool {
    ENDED.load(Ordering::Acquire)
}

/// This session is being ended since the node is drained.
pub fn was_sent_away() -> bool {
    LEFT.load(Ordering::Acquire)
}

/// Forgets a summons that its transaction never noticed, so that the next transaction does not pay for it.
pub fn forget_summons() {
    PUT_OFF.store(false, Ordering::Release);
    if SUMMONED.swap(false, Ordering::AcqRel) {
        // SAFETY: a flag of this process; clearing it is what PostgreSQL does between commands.
        unsafe { pg_sys::QueryCancelPending = 0 };
    }
}

/// In a transaction, and waiting for the client; or track_activities is off, and nobody knows.
fn is_idle() -> bool {
    matches!(
        activity(),
        Some(
            pg_sys::BackendState::STATE_IDLEINTRANSACTION
                | pg_sys::BackendState::STATE_IDLEINTRANSACTION_ABORTED
                | pg_sys::BackendState::STATE_DISABLED
        )
    )
}

/// Whether this process has been waiting for its client for a while, outside of a transaction, and nothing has come: a client that is about to send
/// something would take the session's end for an error of what it sent.
fn has_waited_for_client() -> bool {
    const EVENT: u32 = pg_sys::WaitEventClient::WAIT_EVENT_CLIENT_READ;
    // SAFETY: null or this process's own entry, written by nobody else; so is the wait event.
    let (entry, event) = unsafe { (pg_sys::MyBEEntry.as_ref(), *raw::my_wait_event_info) };
    let is_old = |since: i64| {
        // SAFETY: reads the clock.
        unsafe { raw::GetCurrentTimestamp() }.saturating_sub(since) >= IDLE_FOR_MICROS
    };
    let is_idle = entry
        .is_some_and(|entry| entry.st_state == pg_sys::BackendState::STATE_IDLE && is_old(entry.st_state_start_timestamp));
    is_idle && event == EVENT && !has_input()
}

/// How long a session must have been idle before it is sent away.
const IDLE_FOR_MICROS: i64 = 1_000_000;

/// Whether the client has sent something that is not read yet.
fn has_input() -> bool {
    // SAFETY: null, or the connection, which begins with its socket; poll is async-signal-safe.
    unsafe {
        let Some(&socket) = raw::MyProcPort.as_ref() else { return true };
        let mut wanted = libc::pollfd { fd: socket, events: libc::POLLIN, revents: 0 };
        libc::poll(&raw mut wanted, 1, 0) != 0
    }
}

/// What this process shows in pg_stat_activity; none before it has an entry there.
fn activity() -> Option<pg_sys::BackendState::Type> {
    // SAFETY: null or this process's own entry, written by nobody else.
    unsafe { pg_sys::MyBEEntry.as_ref() }.map(|entry| entry.st_state)
}

/// Whether this process waits for a heavyweight lock.
fn waits_for_lock() -> bool {
    // SAFETY: null or this process's own entry; the pointer is only compared.
    unsafe { pg_sys::MyProc.as_ref() }.is_some_and(|process| !process.waitLock.is_null())
}

fn message_came() -> i64 {
    // SAFETY: reads a variable of this process.
    unsafe { raw::GetCurrentStatementStartTimestamp() }
}

mod raw {
    // Declared again without pgrx's guard, which has no business in a signal handler.
    unsafe extern "C" {
        pub fn SetLatch(latch: *mut pgrx::pg_sys::Latch);
        pub fn GetCurrentStatementStartTimestamp() -> i64;
        pub fn GetCurrentTimestamp() -> i64;
        pub static my_wait_event_info: *mut u32;
        /// Port of libpq/libpq-be.h, which pgrx does not bind, by its first field: the socket.
        pub static MyProcPort: *mut i32;
    }
}

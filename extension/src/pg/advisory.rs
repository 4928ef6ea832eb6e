//! Being asked about advisory locks: `pg_advisory_lock` and all its kin.
//!
//! PostgreSQL's functions lock on this server; whether the group lets this session have the lock is for the listener to say. What waits asks
//! first, and then takes the server's lock, which nobody else of the group can be holding for long; what does not wait takes the server's lock first, so that
//! a lock that is held on this server costs the group no question. What gives a lock back does so on this server first.

use std::sync::OnceLock;

use pgrx::pg_sys;

use super::builtin;

/// How long a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Scope {
    Session,
    Transaction,
}

/// What is locked, in the current database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Subject {
    One(u64),
    Pair(u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Wanted {
    pub subject: Subject,
    pub is_shared: bool,
    pub scope: Scope,
}

#[derive(Clone, Copy)]
pub struct Listener {
    /// Whether this session's locks are the group's at all.
    pub concerns: fn() -> bool,
    /// A lock is about to be waited for. Returns when the group has granted it; may raise an error.
    pub before: fn(Wanted),
    /// The lock is this session's on this server, for which [`Listener::before`] was called.
    pub taken: fn(Wanted),
    /// The lock is this session's on this server: whether the group grants it. If not, it is let go here; after an error [`let_go`] is the listener's.
    pub tried: fn(Wanted) -> bool,
    /// Raises why the last [`Listener::tried`] had no answer, if it had none.
    pub raise: fn(),
    /// A lock of the session was given back on this server. May raise an error.
    pub given: fn(Wanted),
    /// All locks of the session were.
    pub all_given: fn(),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lock,
    Try,
    Unlock,
    UnlockAll,
}

#[derive(Clone, Copy)]
struct Call {
    number: u32,
    kind: Kind,
    is_shared: bool,
    scope: Scope,
    is_pair: bool,
}

const fn call(number: u32, kind: Kind, is_shared: bool, scope: Scope, is_pair: bool) -> Call {
    Call { number, kind, is_shared, scope, is_pair }
}

const COUNT: usize = 21;

const CALLS: [Call; COUNT] = [
    call(pg_sys::F_PG_ADVISORY_LOCK_INT8, Kind::Lock, false, Scope::Session, false),
    call(pg_sys::F_PG_ADVISORY_LOCK_SHARED_INT8, Kind::Lock, true, Scope::Session, false),
    call(pg_sys::F_PG_ADVISORY_LOCK_INT4_INT4, Kind::Lock, false, Scope::Session, true),
    call(pg_sys::F_PG_ADVISORY_LOCK_SHARED_INT4_INT4, Kind::Lock, true, Scope::Session, true),
    call(pg_sys::F_PG_ADVISORY_XACT_LOCK_INT8, Kind::Lock, false, Scope::Transaction, false),
    call(pg_sys::F_PG_ADVISORY_XACT_LOCK_SHARED_INT8, Kind::Lock, true, Scope::Transaction, false),
    call(pg_sys::F_PG_ADVISORY_XACT_LOCK_INT4_INT4, Kind::Lock, false, Scope::Transaction, true),
    call(pg_sys::F_PG_ADVISORY_XACT_LOCK_SHARED_INT4_INT4, Kind::Lock, true, Scope::Transaction, true),
    call(pg_sys::F_PG_TRY_ADVISORY_LOCK_INT8, Kind::Try, false, Scope::Session, false),
    call(pg_sys::F_PG_TRY_ADVISORY_LOCK_SHARED_INT8, Kind::Try, true, Scope::Session, false),
    call(pg_sys::F_PG_TRY_ADVISORY_LOCK_INT4_INT4, Kind::Try, false, Scope::Session, true),
    call(pg_sys::F_PG_TRY_ADVISORY_LOCK_SHARED_INT4_INT4, Kind::Try, true, Scope::Session, true),
    call(pg_sys::F_PG_TRY_ADVISORY_XACT_LOCK_INT8, Kind::Try, false, Scope::Transaction, false),
    call(pg_sys::F_PG_TRY_ADVISORY_XACT_LOCK_SHARED_INT8, Kind::Try, true, Scope::Transaction, false),
    call(pg_sys::F_PG_TRY_ADVISORY_XACT_LOCK_INT4_INT4, Kind::Try, false, Scope::Transaction, true),
    call(pg_sys::F_PG_TRY_ADVISORY_XACT_LOCK_SHARED_INT4_INT4, Kind::Try, true, Scope::Transaction, true),
    call(pg_sys::F_PG_ADVISORY_UNLOCK_INT8, Kind::Unlock, false, Scope::Session, false),
    call(pg_sys::F_PG_ADVISORY_UNLOCK_SHARED_INT8, Kind::Unlock, true, Scope::Session, false),
    call(pg_sys::F_PG_ADVISORY_UNLOCK_INT4_INT4, Kind::Unlock, false, Scope::Session, true),
    call(pg_sys::F_PG_ADVISORY_UNLOCK_SHARED_INT4_INT4, Kind::Unlock, true, Scope::Session, true),
    call(pg_sys::F_PG_ADVISORY_UNLOCK_ALL, Kind::UnlockAll, false, Scope::Session, false),
];

type Function = unsafe extern "C-unwind" fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum;

struct Hook {
    listener: Listener,
    originals: [Function; COUNT],
}

static HOOK: OnceLock<Hook> = OnceLock::new();

/// Called while libraries are preloaded. False if this server can't be made to ask.
pub fn on_advisory(listener: Listener) -> bool {
    let ours = functions();
    let mut originals = ours;
    for (index, original) in originals.iter_mut().enumerate() {
        match builtin::replace(CALLS[index].number, ours[index]) {
            Some(function) => *original = function,
            None => return false,
        }
    }
    HOOK.set(Hook { listener, originals }).is_ok()
}

/// One for each entry of [`CALLS`], since PostgreSQL does not say under which name a function is called.
fn functions() -> [Function; COUNT] {
    macro_rules! each {
        ($($index:literal)*) => { [$(called::<$index>),*] };
    }
    each!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20)
}

/// # Safety
/// Called by PostgreSQL's function manager. Not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
unsafe extern "C-unwind" fn called<const INDEX: usize>(info: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: by contract.
    unsafe {
        let Some(hook) = HOOK.get() else { return pg_sys::Datum::null() };
        let original = hook.originals[INDEX];
        if !concerns() {
            return original(info);
        }
        let call = &CALLS[INDEX];
        let wanted = wanted(call, info);
        match call.kind {
            Kind::Lock => {
                before(wanted);
                let result = original(info);
                taken(wanted);
                result
            }
            Kind::Try => {
                let result = original(info);
                if result.value() == 0 || tried(wanted) {
                    return result;
                }
                let (tag, mode) = (tag_of(wanted.subject), mode_of(wanted.is_shared));
                release(&tag, mode, wanted.scope == Scope::Session);
                raise();
                pg_sys::Datum::from(false)
            }
            Kind::Unlock => {
                let result = original(info);
                if result.value() != 0 {
                    given(wanted);
                }
                result
            }
            Kind::UnlockAll => {
                let result = original(info);
                all_given();
                result
            }
        }
    }
}

unsafe extern "C-unwind" {
    #[link_name = "LockRelease"]
    fn release(tag: *const pg_sys::LOCKTAG, mode: pg_sys::LOCKMODE, is_of_session: bool) -> bool;
}

/// A lock of the session, taken before an error, is given back on this server. Raises nothing: at the end of a transaction.
pub fn let_go(wanted: Wanted) {
    if wanted.scope == Scope::Session {
        // SAFETY: a lock that this session holds; PostgreSQL's own functions do the same.
        unsafe { release(&tag_of(wanted.subject), mode_of(wanted.is_shared), true) };
    }
}

/// # Safety
/// `info` must be a call with the arguments of `call`; all but one of the functions are strict.
unsafe fn wanted(call: &Call, info: pg_sys::FunctionCallInfo) -> Wanted {
    let subject = if call.kind == Kind::UnlockAll {
        Subject::One(0)
    } else {
        // SAFETY: by contract.
        let arguments = unsafe { (*info).args.as_slice(if call.is_pair { 2 } else { 1 }) };
        match call.is_pair {
            false => Subject::One(arguments[0].value.value() as u64),
            true => Subject::Pair(arguments[0].value.value() as u32, arguments[1].value.value() as u32),
        }
    };
    Wanted { subject, is_shared: call.is_shared, scope: call.scope }
}

/// As SET_LOCKTAG_INT64 and SET_LOCKTAG_INT32 of utils/adt/lockfuncs.c.
fn tag_of(subject: Subject) -> pg_sys::LOCKTAG {
    let (second, third, fourth) = match subject {
        Subject::One(key) => ((key >> 32) as u32, key as u32, 1),
        Subject::Pair(class, object) => (class, object, 2),
    };
    pg_sys::LOCKTAG {
        // SAFETY: a variable of this process.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: second,
        locktag_field3: third,
        locktag_field4: fourth,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

fn mode_of(is_shared: bool) -> pg_sys::LOCKMODE {
    (if is_shared { pg_sys::ShareLock } else { pg_sys::ExclusiveLock }) as pg_sys::LOCKMODE
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn concerns() -> bool {
    HOOK.get().is_some_and(|hook| (hook.listener.concerns)())
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn before(wanted: Wanted) {
    if let Some(hook) = HOOK.get() {
        (hook.listener.before)(wanted);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn taken(wanted: Wanted) {
    if let Some(hook) = HOOK.get() {
        (hook.listener.taken)(wanted);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn tried(wanted: Wanted) -> bool {
    HOOK.get().is_some_and(|hook| (hook.listener.tried)(wanted))
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn raise() {
    if let Some(hook) = HOOK.get() {
        (hook.listener.raise)();
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn given(wanted: Wanted) {
    if let Some(hook) = HOOK.get() {
        (hook.listener.given)(wanted);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn all_given() {
    if let Some(hook) = HOOK.get() {
        (hook.listener.all_given)();
    }
}

/// lock_timeout and deadlock_timeout of this session, in milliseconds; 0 is none.
pub fn timeouts() -> (u64, u64) {
    // SAFETY: variables of this process.
    unsafe { (u64::try_from(pg_sys::LockTimeout).unwrap_or(0), u64::try_from(pg_sys::DeadlockTimeout).unwrap_or(0).max(1)) }
}

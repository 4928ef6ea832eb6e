//! Calling functions without keeping what they do, and triggers not at all.
//!
//! Where statements and rows of other nodes are applied, expressions are evaluated anew: a CHECK that is validated, the key of an index. A function
//! of a user that is called for it may change rows or run DDL. It did so on the origin, and what it did travels; here it would be done once
//! more. So it runs as if it were on its own (it sees what it writes, RETURNING gives it what it inserted), in a subtransaction that is
//! rolled back when it has returned.
//!
//! PostgreSQL's function manager tells of the start and the end of a call. Of calls inside of others only the outermost counts. A subtransaction takes an
//! id only if something is written in it. Left out: functions of PostgreSQL itself and those in C, which write where we could not undo it;
//! those that return sets, which no such expression may call; those in SQL that are mere expressions ([`inlined`]); and those that compare the
//! keys of an index ([`can_be_undone`]).
//!
//! Triggers and event triggers fire on the origin only (docs/adr/0059-always-and-replica.md). Most are kept from firing here by the replica role of the
//! session; those that are ENABLE ALWAYS or REPLICA are called, and find a function in the place of theirs that does nothing.

use std::cell::Cell;
use std::sync::OnceLock;

use pgrx::pg_sys;
use pgrx::pg_sys::FmgrHookEventType as Event;

use super::extension;
use super::inlined;
use super::names::Oid;

/// Of pg_language, which pgrx does not bind: built-in functions, and those in C.
const UNDOABLE: [u32; 2] = [12, 13];

struct Hooks {
    is_wanted: fn() -> bool,
    needs: pg_sys::needs_fmgr_hook_type,
    call: pg_sys::fmgr_hook_type,
}

static HOOKS: OnceLock<Hooks> = OnceLock::new();

/// The call that is going to be undone, and what to go back to.
#[derive(Clone, Copy)]
struct Call {
    function: *mut pg_sys::FmgrInfo,
    level: i32,
    context: pg_sys::MemoryContext,
    owner: pg_sys::ResourceOwner,
}

thread_local! {
    static CALL: Cell<Option<Call>> = const { Cell::new(None) };
}

/// Undoes what functions do, and calls none of triggers, in processes of which `is_wanted` says so. Once, while libraries are preloaded.
pub fn undo_calls(is_wanted: fn() -> bool) {
    // SAFETY: plain variables, set while the library loads; the previous values are kept and called.
    unsafe {
        let hooks = Hooks { is_wanted, needs: pg_sys::needs_fmgr_hook, call: pg_sys::fmgr_hook };
        if HOOKS.set(hooks).is_ok() {
            pg_sys::needs_fmgr_hook = Some(needs);
            pg_sys::fmgr_hook = Some(call);
        }
    }
}

/// # Safety
/// Called by PostgreSQL, for each function that is looked up to be called.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn needs(function: Oid) -> bool {
    let Some(hooks) = HOOKS.get() else { return false };
    // SAFETY: passes on what we were given.
    (hooks.is_wanted)() && (is_of_trigger(function) || is_to_be_undone(function))
        || hooks.needs.is_some_and(|previous| unsafe { previous(function) })
}

/// Whether it is the function of triggers or event triggers. PostgreSQL's own are not called by TRUNCATE nor by DDL, and rows are put in below all triggers.
fn is_of_trigger(function: Oid) -> bool {
    // SAFETY: a syscache look-up; the function is about to be called, so it is there.
    function.to_u32() >= pg_sys::FirstNormalObjectId
        && matches!(unsafe { pg_sys::get_func_rettype(function) }, pg_sys::TRIGGEROID | pg_sys::EVENT_TRIGGEROID)
}

/// What is called in the place of a trigger's function.
///
/// # Safety
/// Called by PostgreSQL's function manager.
unsafe extern "C-unwind" fn nothing(_call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    pg_sys::Datum::null()
}

fn is_to_be_undone(function: Oid) -> bool {
    if function.to_u32() < pg_sys::FirstNormalObjectId {
        return false;
    }
    // SAFETY: a syscache look-up, its tuple released after what is needed was read.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(function));
        if tuple.is_null() {
            return false;
        }
        let form = &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_proc>(tuple);
        let is_function = form.prokind as u8 == pg_sys::PROKIND_FUNCTION && !form.proretset;
        let wanted = is_function && !UNDOABLE.contains(&form.prolang.to_u32()) && !inlined::is_an_expression(tuple);
        pg_sys::ReleaseSysCache(tuple);
        wanted
    }
}

/// # Safety
/// Called by PostgreSQL, around each call of such a function.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn call(event: Event::Type, function: *mut pg_sys::FmgrInfo, argument: *mut pg_sys::Datum) {
    let Some(hooks) = HOOKS.get() else { return };
    // SAFETY: passes on what we were given; `function` is valid for the call.
    unsafe {
        if let Some(previous) = hooks.call {
            previous(event, function, argument);
        }
        if !(hooks.is_wanted)() {
            return;
        }
        match event {
            Event::FHET_START if is_of_trigger((*function).fn_oid) => (*function).fn_addr = Some(nothing),
            Event::FHET_START if is_outermost() && can_be_undone() && is_to_be_undone((*function).fn_oid) => begin(function),
            Event::FHET_END => end(function),
            // Whoever catches the error rolls back more than this.
            Event::FHET_ABORT if is_current(function) => CALL.set(None),
            _ => {}
        }
    }
}

fn is_current(function: *mut pg_sys::FmgrInfo) -> bool {
    CALL.get().is_some_and(|call| call.function == function)
}

/// What an error has left behind is of a level that is no more.
fn is_outermost() -> bool {
    // SAFETY: reads the state of the transaction.
    CALL.get().is_none_or(|call| unsafe { pg_sys::GetCurrentTransactionNestLevel() } < call.level)
}

/// Not where a page is locked: there an index compares keys, and a rollback would release the page. What writes there would lock up any
/// server. And not what the script of an extension calls: it is to make what it makes.
fn can_be_undone() -> bool {
    // SAFETY: reads a variable, which counts the locks on shared memory that this process holds.
    unsafe { pg_sys::InterruptHoldoffCount == 0 && !extension::script_runs() }
}

/// As PL/pgSQL begins a block that catches errors: what the function allocates is its caller's.
fn begin(function: *mut pg_sys::FmgrInfo) {
    // SAFETY: inside a transaction, at the beginning of a call.
    unsafe {
        let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        CALL.set(Some(Call { function, level: pg_sys::GetCurrentTransactionNestLevel(), context, owner }));
    }
}

fn end(function: *mut pg_sys::FmgrInfo) {
    let Some(call) = CALL.get().filter(|call| call.function == function) else { return };
    CALL.set(None);
    // SAFETY: ends what `begin` has begun. The role is the caller's again already, and the subtransaction would put back the function's.
    unsafe {
        let (mut user, mut context) = (pg_sys::InvalidOid, 0);
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        pg_sys::RollbackAndReleaseCurrentSubTransaction();
        pg_sys::SetUserIdAndSecContext(user, context);
        pg_sys::MemoryContextSwitchTo(call.context);
        pg_sys::CurrentResourceOwner = call.owner;
    }
}

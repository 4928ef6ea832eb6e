//! Row locks: who holds one, and being shown each row that SELECT FOR UPDATE, FOR SHARE and the like lock.

use std::ffi::c_void;
use std::sync::OnceLock;

use pgrx::pg_sys;

use super::list;
use super::names::Oid;
use super::row::Row;
use super::table::Table;

/// How strong a lock is, in SQL's words: FOR KEY SHARE and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strength {
    KeyShare,
    Share,
    NoKeyUpdate,
    Update,
}

/// A row that was locked just now.
pub struct Locked<'a> {
    relation: pg_sys::Relation,
    pub strength: Strength,
    pub row: Row<'a>,
}

impl Locked<'_> {
    pub fn table(&self) -> Oid {
        // SAFETY: the executor holds the relation open.
        unsafe { (*self.relation).rd_id }
    }

    pub fn describe(&self) -> Table {
        Table::describe_raw(self.relation)
    }
}

struct Hook {
    listener: fn(&Locked<'_>),
}

static HOOK: OnceLock<Hook> = OnceLock::new();
/// What the executor itself calls for a node that locks rows.
static LOCK_ROWS: OnceLock<unsafe extern "C-unwind" fn(*mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot> =
    OnceLock::new();

/// Calls `listener` for each row locked by a plan that is watched. Once, while libraries are preloaded.
pub fn on_lock(listener: fn(&Locked<'_>)) {
    let _ = HOOK.set(Hook { listener });
}

unsafe extern "C-unwind" {
    /// Of nodes/nodeFuncs.h, which pgrx does not bind.
    fn planstate_tree_walker(
        state: *mut pg_sys::PlanState,
        walker: unsafe extern "C-unwind" fn(*mut pg_sys::PlanState, *mut c_void) -> bool,
        context: *mut c_void,
    ) -> bool;
}

/// Has every row that a node of this plan locks shown to the listener.
///
/// # Safety
/// `state` must be the top of a plan that was initialised and has not run.
pub(super) unsafe fn watch(state: *mut pg_sys::PlanState) {
    if !state.is_null() {
        // SAFETY: by contract.
        unsafe { visit(state, std::ptr::null_mut()) };
    }
}

/// # Safety
/// Called by `planstate_tree_walker` with the nodes of a plan. Nothing in this frame needs a `Drop`.
unsafe extern "C-unwind" fn visit(state: *mut pg_sys::PlanState, context: *mut c_void) -> bool {
    // SAFETY: by contract. The first call of a node goes through PostgreSQL's own wrapper, which then uses `ExecProcNodeReal`.
    unsafe {
        if (*state).type_ == pg_sys::NodeTag::T_LockRowsState
            && let Some(real) = (*state).ExecProcNodeReal
            && std::ptr::fn_addr_eq(*LOCK_ROWS.get_or_init(|| real), real)
        {
            (*state).ExecProcNodeReal = Some(lock_rows);
        }
        planstate_tree_walker(state, visit, context)
    }
}

/// # Safety
/// Called by the executor. Not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
unsafe extern "C-unwind" fn lock_rows(state: *mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: only nodes that were watched come here.
    unsafe {
        let Some(real) = LOCK_ROWS.get() else { return std::ptr::null_mut() };
        let slot = real(state);
        if !slot.is_null() && u32::from((*slot).tts_flags) & pg_sys::TTS_FLAG_EMPTY == 0 {
            tell(state.cast());
        }
        slot
    }
}

/// # Safety
/// `node` must have just given a row.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn tell(node: *mut pg_sys::LockRowsState) {
    let Some(hook) = HOOK.get() else { return };
    // SAFETY: by contract: every active mark has its row, as it was locked, in the slot kept for a recheck.
    unsafe {
        let slots = (*node).lr_epqstate.relsubs_slot;
        if slots.is_null() {
            return;
        }
        for mark in list::pointers::<pg_sys::ExecAuxRowMark>((*node).lr_arowMarks) {
            let mark = &*(*mark).rowmark;
            let strength = match mark.markType {
                pg_sys::RowMarkType::ROW_MARK_EXCLUSIVE => Strength::Update,
                pg_sys::RowMarkType::ROW_MARK_NOKEYEXCLUSIVE => Strength::NoKeyUpdate,
                pg_sys::RowMarkType::ROW_MARK_SHARE => Strength::Share,
                pg_sys::RowMarkType::ROW_MARK_KEYSHARE => Strength::KeyShare,
                _ => continue,
            };
            let slot = *slots.add(mark.rti as usize - 1);
            if mark.ermActive && !slot.is_null() && u32::from((*slot).tts_flags) & pg_sys::TTS_FLAG_EMPTY == 0 {
                (hook.listener)(&Locked { relation: mark.relation, strength, row: Row::of_slot(slot) });
            }
        }
    }
}

/// The transactions that hold the row in a mode that conflicts with changing it in mode `wanted`. Read without a lock on the
/// page: whoever comes or goes at this very moment may be missed, and is then waited for in the usual way.
///
/// # Safety
/// `slot` must hold a row in a buffer.
pub(super) unsafe fn holders(
    slot: *mut pg_sys::TupleTableSlot,
    wanted: pg_sys::LockTupleMode::Type,
) -> Vec<pg_sys::TransactionId> {
    // SAFETY: by contract the slot pins the buffer, so the header can be read.
    unsafe {
        let tuple = (*slot.cast::<pg_sys::BufferHeapTupleTableSlot>()).base.tuple;
        let header = (*tuple).t_data;
        let mask = u32::from((*header).t_infomask);
        let xmax = (*header).t_choice.t_heap.t_xmax;
        if mask & pg_sys::HEAP_XMAX_INVALID != 0 {
            return Vec::new();
        }
        let conflicts = |shares_key: bool| !(shares_key && wanted == pg_sys::LockTupleMode::LockTupleNoKeyExclusive);
        let mut holders = Vec::new();
        if mask & pg_sys::HEAP_XMAX_IS_MULTI != 0 {
            let mut members = std::ptr::null_mut();
            let only_locks = mask & pg_sys::HEAP_XMAX_LOCK_ONLY != 0;
            let count = pg_sys::GetMultiXactIdMembers(xmax, &mut members, false, only_locks);
            for at in 0..usize::try_from(count).unwrap_or(0) {
                let member = &*members.add(at);
                if conflicts(member.status == pg_sys::MultiXactStatus::MultiXactStatusForKeyShare) {
                    holders.push(member.xid);
                }
            }
            if !members.is_null() {
                pg_sys::pfree(members.cast());
            }
        } else {
            let exclusive = mask & pg_sys::HEAP_XMAX_EXCL_LOCK != 0;
            let only_locks = mask & pg_sys::HEAP_XMAX_LOCK_ONLY != 0;
            let shares_key = only_locks && !exclusive && mask & pg_sys::HEAP_XMAX_KEYSHR_LOCK != 0;
            if conflicts(shares_key) {
                holders.push(xmax);
            }
        }
        holders.retain(|&xid| !pg_sys::TransactionIdIsCurrentTransactionId(xid) && pg_sys::TransactionIdIsInProgress(xid));
        holders
    }
}

//! Row locks: how strong they are, and who holds one.

use pgrx::pg_sys;

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

/// A row that was locked just now, or is about to be.
pub struct Locked<'a> {
    pub(super) relation: pg_sys::Relation,
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

/// None of a row that is only read.
pub(super) fn strength_of(mark: pg_sys::RowMarkType::Type) -> Option<Strength> {
    match mark {
        pg_sys::RowMarkType::ROW_MARK_EXCLUSIVE => Some(Strength::Update),
        pg_sys::RowMarkType::ROW_MARK_NOKEYEXCLUSIVE => Some(Strength::NoKeyUpdate),
        pg_sys::RowMarkType::ROW_MARK_SHARE => Some(Strength::Share),
        pg_sys::RowMarkType::ROW_MARK_KEYSHARE => Some(Strength::KeyShare),
        _ => None,
    }
}

/// Whether the current transaction has made this version of the row, or has changed or locked it, however.
///
/// # Safety
/// `slot` must hold a row in a buffer.
pub(super) unsafe fn is_own(slot: *mut pg_sys::TupleTableSlot) -> bool {
    // SAFETY: by contract the slot pins the buffer, so the header can be read.
    unsafe {
        let header = (*(*slot.cast::<pg_sys::BufferHeapTupleTableSlot>()).base.tuple).t_data;
        let mask = u32::from((*header).t_infomask);
        if pg_sys::TransactionIdIsCurrentTransactionId((*header).t_choice.t_heap.t_xmin) {
            return true;
        }
        // Of several who lock it this may be one, as weakly as they do; whoever asks is told.
        mask & (pg_sys::HEAP_XMAX_INVALID | pg_sys::HEAP_XMAX_IS_MULTI) == 0
            && mask & pg_sys::HEAP_LOCK_MASK == pg_sys::HEAP_XMAX_EXCL_LOCK
            && pg_sys::TransactionIdIsCurrentTransactionId((*header).t_choice.t_heap.t_xmax)
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

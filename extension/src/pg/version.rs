//! Versions of rows: where one is, and where this process put the newest of a row.
//!
//! A unique index has an entry for every version of a row that somebody may still see, not for the newest alone. While an old
//! transaction is open on a node, none of them goes: who looks a row up that is updated again and again walks through all versions since. A
//! server's own clients become slower by that, and make fewer versions; a remote backend has the pace of other nodes, and
//! falls behind. So it remembers where it left the row, and follows the versions that others have made since.
//!
//! What is remembered proves nothing: versions are removed, their places used again, tables rewritten. Whoever follows must
//! check that the version at the end is one that the snapshot shows, with the key sought; if not, the index knows.

use std::cell::RefCell;

use pgrx::pg_sys;

use super::names::Oid;

/// Where a row version is.
#[derive(Clone, Copy, Debug)]
pub struct RowPlace(pub(super) pg_sys::ItemPointerData);

impl RowPlace {
    fn parts(&self) -> (u16, u16, u16) {
        (self.0.ip_blkid.bi_hi, self.0.ip_blkid.bi_lo, self.0.ip_posid)
    }
}

impl PartialEq for RowPlace {
    fn eq(&self, other: &RowPlace) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for RowPlace {}

impl std::hash::Hash for RowPlace {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

/// Rows remembered in each process. A newcomer takes the place of whoever has it: rows that change often come back at once.
const ROWS: usize = 1024;

/// So many versions are followed; then the index has been faster.
const FOLLOWED_MAX: usize = 64;

#[derive(Clone, Copy)]
struct Remembered {
    table: Oid,
    /// Hash of the key.
    key: u64,
    place: RowPlace,
}

thread_local! {
    static REMEMBERED: RefCell<Vec<Option<Remembered>>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn remember(table: Oid, key: u64, place: RowPlace) {
    REMEMBERED.with_borrow_mut(|rows| {
        rows.resize(ROWS, None);
        rows[key as usize % ROWS] = Some(Remembered { table, key, place });
    });
}

pub(super) fn recall(table: Oid, key: u64) -> Option<RowPlace> {
    REMEMBERED.with_borrow(|rows| {
        let row = rows.get(key as usize % ROWS).copied().flatten()?;
        (row.table == table && row.key == key).then_some(row.place)
    })
}

/// Brings the version that the active snapshot shows into the slot: the one at that place, or one that has followed it.
/// False if the way there is lost; the slot is then as it was.
///
/// # Safety
/// `relation` must be an open and locked table, and `slot` one of its slots.
pub(super) unsafe fn follow(relation: pg_sys::Relation, place: RowPlace, slot: *mut pg_sys::TupleTableSlot) -> bool {
    // SAFETY: by contract. The table's end is before no place looked at: it can't be cut off while the table is locked. The slot's
    // own tuple header is written only once a version is found; the pin goes over to the slot.
    unsafe {
        let blocks = pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM);
        let mut place = place.0;
        for _ in 0..FOLLOWED_MAX {
            if block_of(place) >= blocks {
                return false;
            }
            let mut tuple = pg_sys::HeapTupleData { t_self: place, ..Default::default() };
            let mut buffer = pg_sys::InvalidBuffer as pg_sys::Buffer;
            let is_visible = pg_sys::heap_fetch(relation, pg_sys::GetActiveSnapshot(), &mut tuple, &mut buffer, true);
            if is_visible {
                let own = &raw mut (*slot.cast::<pg_sys::BufferHeapTupleTableSlot>()).base.tupdata;
                clear(slot);
                *own = tuple;
                pg_sys::ExecStorePinnedBufferHeapTuple(own, slot, buffer);
                (*slot).tts_tableOid = (*relation).rd_id;
                return true;
            }
            if tuple.t_data.is_null() {
                return false;
            }
            let next = (*tuple.t_data).t_ctid;
            pg_sys::ReleaseBuffer(buffer);
            if RowPlace(next) == RowPlace(place) {
                return false;
            }
            place = next;
        }
        false
    }
}

fn block_of(place: pg_sys::ItemPointerData) -> pg_sys::BlockNumber {
    (pg_sys::BlockNumber::from(place.ip_blkid.bi_hi) << 16) | pg_sys::BlockNumber::from(place.ip_blkid.bi_lo)
}

/// # Safety
/// `slot` must be a live slot.
pub(super) unsafe fn clear(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: by contract; what ExecClearTuple does.
    unsafe {
        if let Some(clear) = (*(*slot).tts_ops).clear {
            clear(slot);
        }
    }
}

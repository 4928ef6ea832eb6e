//! Relations, rows, locks and files, as each major version has them.

use std::ffi::{c_char, c_int};

use pgrx::pg_sys;

use crate::pg::names::Oid;

/// Columns of pg_constraint, of which 18 has one more: conenforced.
pub mod constraint {
    const MORE: i16 = if cfg!(any(feature = "pg15", feature = "pg17")) { 0 } else { 1 };
    pub const CONRELID: i16 = 8 + MORE;
    pub const CONTYPID: i16 = 9 + MORE;
    pub const CONINDID: i16 = 10 + MORE;
}

/// The front of a row of pg_constraint.
#[repr(C)]
pub struct Constraint {
    pub oid: Oid,
    pub name: pg_sys::NameData,
    pub schema: Oid,
    pub kind: c_char,
    pub deferrable: bool,
    pub deferred: bool,
    #[cfg(not(any(feature = "pg15", feature = "pg17")))]
    pub enforced: bool,
    pub validated: bool,
    pub relation: Oid,
    pub domain: Oid,
    index: Oid,
    parent: Oid,
    referenced: Oid,
    actions: [c_char; 3],
    is_local: bool,
    #[cfg(feature = "pg15")]
    inherited: i32,
    #[cfg(not(feature = "pg15"))]
    inherited: i16,
    pub no_inherit: bool,
}

/// The attributes of rows of this shape.
///
/// # Safety
/// `descriptor` must be one of PostgreSQL's, that lives as long as what is given.
pub unsafe fn attributes<'a>(descriptor: pg_sys::TupleDesc) -> &'a [pg_sys::FormData_pg_attribute] {
    // SAFETY: by contract: it holds `natts` attributes. Since 18 they stand behind as many short forms of them.
    unsafe {
        let count = (*descriptor).natts as usize;
        #[cfg(any(feature = "pg15", feature = "pg17"))]
        let first = (*descriptor).attrs.as_ptr();
        #[cfg(not(any(feature = "pg15", feature = "pg17")))]
        let first = (*descriptor).compact_attrs.as_ptr().add(count).cast::<pg_sys::FormData_pg_attribute>();
        std::slice::from_raw_parts(first, count)
    }
}

/// Gives a relation an empty file.
///
/// # Safety
/// The relation must be open and locked exclusively.
pub unsafe fn give_new_file(relation: pg_sys::Relation) {
    // SAFETY: by contract.
    unsafe {
        let persistence = (*(*relation).rd_rel).relpersistence;
        #[cfg(feature = "pg15")]
        pg_sys::RelationSetNewRelfilenode(relation, persistence);
        #[cfg(not(feature = "pg15"))]
        pg_sys::RelationSetNewRelfilenumber(relation, persistence);
    }
}

/// The subtransaction that gave an open relation its first new file, InvalidSubTransactionId if none did.
///
/// # Safety
/// The relation must be open.
pub unsafe fn new_file_since(relation: pg_sys::Relation) -> pg_sys::SubTransactionId {
    // SAFETY: by contract.
    unsafe {
        #[cfg(feature = "pg15")]
        return (*relation).rd_firstRelfilenodeSubid;
        #[cfg(not(feature = "pg15"))]
        return (*relation).rd_firstRelfilelocatorSubid;
    }
}

/// Puts into a WAL record where a relation's file is, and then `length` bytes.
///
/// # Safety
/// A record must have been begun, for an open relation, and is to be inserted at once: nothing is copied.
pub unsafe fn log_file_and(relation: pg_sys::Relation, data: *mut c_char, length: u32) {
    // SAFETY: by contract. The descriptor's own copy of the place lives as long as the relation is open.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            let place = &raw mut (*relation).rd_node;
            pg_sys::XLogRegisterData(place.cast(), size_of::<pg_sys::RelFileNode>() as c_int);
            pg_sys::XLogRegisterData(data, length as c_int);
        }
        #[cfg(not(feature = "pg15"))]
        {
            let place = &raw mut (*relation).rd_locator;
            pg_sys::XLogRegisterData(place.cast(), size_of::<pg_sys::RelFileLocator>() as u32);
            pg_sys::XLogRegisterData(data.cast(), length);
        }
    }
}

/// The sequence of an identity column; InvalidOid if it has none.
///
/// # Safety
/// The relation must be open.
pub unsafe fn identity_sequence(relation: pg_sys::Relation, column: i16) -> Oid {
    // SAFETY: by contract.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::getIdentitySequence((*relation).rd_id, column, true);
        #[cfg(not(feature = "pg15"))]
        return pg_sys::getIdentitySequence(relation, column, true);
    }
}

/// Which indexes a row's new version is to be entered into.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    Nowhere,
    /// Those that summarize ranges of pages and have no entry for each row. Up to 15 they count among all.
    #[cfg(not(feature = "pg15"))]
    Summarizing,
    Everywhere,
}

/// heap_update() of access/heapam.h, with the strongest lock. Where it says that it is done, `tuple` is the row's new version.
///
/// # Safety
/// As that function.
pub unsafe fn heap_update(
    relation: pg_sys::Relation,
    place: *mut pg_sys::ItemPointerData,
    tuple: pg_sys::HeapTuple,
    waits: bool,
    failure: *mut pg_sys::TM_FailureData,
    mode: *mut pg_sys::LockTupleMode::Type,
) -> (pg_sys::TM_Result::Type, Entered) {
    let none = std::ptr::null_mut();
    // SAFETY: by contract.
    unsafe {
        let command = pg_sys::GetCurrentCommandId(true);
        #[cfg(feature = "pg15")]
        {
            let result = pg_sys::heap_update(relation, place, tuple, command, none, waits, failure, mode);
            let is_hot = u32::from((*(*tuple).t_data).t_infomask2) & pg_sys::HEAP_ONLY_TUPLE != 0;
            (result, if is_hot { Entered::Nowhere } else { Entered::Everywhere })
        }
        #[cfg(not(feature = "pg15"))]
        {
            use pg_sys::TU_UpdateIndexes as Indexes;
            let mut indexes = Indexes::TU_All;
            let result = pg_sys::heap_update(relation, place, tuple, command, none, waits, failure, mode, &raw mut indexes);
            let entered = match indexes {
                Indexes::TU_None => Entered::Nowhere,
                Indexes::TU_Summarizing => Entered::Summarizing,
                _ => Entered::Everywhere,
            };
            (result, entered)
        }
    }
}

/// ExecInsertIndexTuples() of executor/executor.h for one row; gives the indexes of which it is not known whether they may hold it.
///
/// # Safety
/// As that function.
pub unsafe fn insert_index_tuples(
    info: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    state: *mut pg_sys::EState,
    entered: Entered,
) -> *mut pg_sys::List {
    let (none, no_list) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: by contract.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            debug_assert!(entered == Entered::Everywhere);
            pg_sys::ExecInsertIndexTuples(info, slot, state, false, true, none, no_list)
        }
        #[cfg(not(feature = "pg15"))]
        pg_sys::ExecInsertIndexTuples(info, slot, state, false, true, none, no_list, entered == Entered::Summarizing)
    }
}

/// index_beginscan() of access/genam.h, with nothing to order by.
///
/// # Safety
/// As that function.
pub unsafe fn index_beginscan(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    keys: c_int,
) -> pg_sys::IndexScanDesc {
    // SAFETY: by contract.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg17"))]
        return pg_sys::index_beginscan(table, index, snapshot, keys, 0);
        #[cfg(not(any(feature = "pg15", feature = "pg17")))]
        return pg_sys::index_beginscan(table, index, snapshot, std::ptr::null_mut(), keys, 0);
    }
}

/// Enters an index into the catalogs, without building it and without checks.
///
/// # Safety
/// `statement` must be a CREATE INDEX of `table` that was analysed.
pub unsafe fn define_index(table: Oid, statement: *mut pg_sys::IndexStmt) -> Oid {
    let none = pg_sys::InvalidOid;
    // SAFETY: by contract.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::DefineIndex(table, statement, none, none, none, false, false, false, true, true).objectId;
        #[cfg(not(feature = "pg15"))]
        return pg_sys::DefineIndex(table, statement, none, none, none, -1, false, false, false, true, true).objectId;
    }
}

pub fn reindex_index(index: Oid, persistence: c_char) {
    let mut params = pg_sys::ReindexParams::default();
    // SAFETY: it opens and locks the index itself.
    unsafe {
        #[cfg(feature = "pg15")]
        pg_sys::reindex_index(index, false, persistence, &raw mut params);
        #[cfg(not(feature = "pg15"))]
        pg_sys::reindex_index(std::ptr::null(), index, false, persistence, &raw mut params);
    }
}

/// Builds the indexes of a table and of its TOAST table anew.
pub fn reindex_relation(table: Oid) {
    let flags = pg_sys::REINDEX_REL_PROCESS_TOAST as c_int;
    let mut params = pg_sys::ReindexParams::default();
    // SAFETY: as above.
    unsafe {
        #[cfg(feature = "pg15")]
        pg_sys::reindex_relation(table, flags, &raw mut params);
        #[cfg(not(feature = "pg15"))]
        pg_sys::reindex_relation(std::ptr::null(), table, flags, &raw mut params);
    }
}

/// Whether this process holds a lock in this mode.
pub fn is_locked_by_me(tag: &pg_sys::LOCKTAG, mode: pg_sys::LOCKMODE) -> bool {
    // SAFETY: a look into this process's own table.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::LockHeldByMe(tag, mode);
        #[cfg(not(feature = "pg15"))]
        return pg_sys::LockHeldByMe(tag, mode, false);
    }
}

/// Takes the lock of a row's place, if that is possible at once.
///
/// # Safety
/// The relation must be open.
pub unsafe fn try_lock_place(
    relation: pg_sys::Relation,
    place: *mut pg_sys::ItemPointerData,
    mode: pg_sys::LOCKMODE,
) -> bool {
    // SAFETY: by contract.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg17"))]
        return pg_sys::ConditionalLockTuple(relation, place, mode);
        #[cfg(not(any(feature = "pg15", feature = "pg17")))]
        return pg_sys::ConditionalLockTuple(relation, place, mode, false);
    }
}

/// A range of these bounds. May raise an error.
///
/// # Safety
/// They must be of the range's subtype.
pub unsafe fn range_serialize(
    entry: *mut pg_sys::TypeCacheEntry,
    lower: *mut pg_sys::RangeBound,
    upper: *mut pg_sys::RangeBound,
    is_empty: bool,
) -> *mut pg_sys::RangeType {
    // SAFETY: by contract.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::range_serialize(entry, lower, upper, is_empty);
        #[cfg(not(feature = "pg15"))]
        return pg_sys::range_serialize(entry, lower, upper, is_empty, std::ptr::null_mut());
    }
}

/// Makes a replication origin this session's. May raise an error.
pub fn origin_session_setup(origin: pg_sys::RepOriginId) {
    // SAFETY: it raises if the origin is taken or there is no room.
    unsafe {
        #[cfg(feature = "pg15")]
        pg_sys::replorigin_session_setup(origin);
        #[cfg(not(feature = "pg15"))]
        pg_sys::replorigin_session_setup(origin, 0);
    }
}

/// FileWrite() and FileRead() of storage/fd.h: how many bytes, or below zero.
///
/// # Safety
/// The file must be open.
pub unsafe fn file_write(file: pg_sys::File, bytes: &[u8], offset: u64, event: u32) -> isize {
    let start = bytes.as_ptr().cast_mut().cast();
    // SAFETY: by contract; the bytes are only read.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::FileWrite(file, start, bytes.len() as c_int, offset as i64, event) as isize;
        #[cfg(not(feature = "pg15"))]
        return pg_sys::FileWrite(file, start, bytes.len(), offset as i64, event);
    }
}

/// # Safety
/// As [`file_write`].
pub unsafe fn file_read(file: pg_sys::File, bytes: &mut [u8], offset: u64, event: u32) -> isize {
    let start = bytes.as_mut_ptr().cast();
    // SAFETY: by contract; at most these bytes are filled.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::FileRead(file, start, bytes.len() as c_int, offset as i64, event) as isize;
        #[cfg(not(feature = "pg15"))]
        return pg_sys::FileRead(file, start, bytes.len(), offset as i64, event);
    }
}

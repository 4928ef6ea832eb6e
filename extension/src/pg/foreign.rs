//! Which foreign tables the current transaction has come to, and what it has done to rows that no other node hears of, otherwise than by a plan that
//! names their table.
//!
//! A foreign data wrapper that can write keeps a transaction open on its server, and commits it there at XACT_EVENT_PRE_COMMIT, which may fail or
//! wait. PostgreSQL calls the listener that was added last first: wrappers, which are loaded when they are used, come before this library.

use std::cell::{Cell, RefCell};

use pgrx::pg_sys;

use super::encoding;
use super::list;
use super::names::Oid;
use super::relation::{self, RelationKind};

thread_local! {
    static USED: RefCell<Vec<Oid>> = const { RefCell::new(Vec::new()) };
    static ROWS_STAY: Cell<bool> = const { Cell::new(false) };
}

/// A plan starts. What it names is known; the partitions that rows will go to are not.
///
/// # Safety
/// `query` must be what the executor is about to start.
pub(super) unsafe fn before_start(query: *mut pg_sys::QueryDesc) {
    // SAFETY: by contract; a range table has entries.
    unsafe {
        for entry in list::each::<pg_sys::RangeTblEntry>((*(*query).plannedstmt).rtable) {
            let is_relation = (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION;
            if is_relation && (*entry).relkind as u8 == pg_sys::RELKIND_FOREIGN_TABLE {
                note((*entry).relid);
            }
        }
    }
}

/// A plan ends: the partitions that rows went to are known.
///
/// # Safety
/// `query` must be what the executor has run, and not ended yet.
pub(super) unsafe fn before_end(query: *mut pg_sys::QueryDesc) {
    // SAFETY: by contract; a list of relations, which are open.
    unsafe {
        let targets = (*(*query).estate).es_tuple_routing_result_relations;
        for target in list::pointers::<pg_sys::ResultRelInfo>(targets) {
            let relation = (*target).ri_RelationDesc;
            let is_foreign = !(*target).ri_FdwRoutine.is_null();
            if is_foreign {
                note((*relation).rd_id);
            }
            if is_foreign || (*(*relation).rd_rel).relpersistence as u8 == pg_sys::RELPERSISTENCE_UNLOGGED {
                ROWS_STAY.set(true);
            }
        }
    }
}

/// The transaction has come to this foreign table.
pub fn note(table: Oid) {
    USED.with_borrow_mut(|used| {
        if !used.contains(&table) {
            used.push(table);
        }
    });
}

/// The table is about to be emptied.
pub(super) fn note_emptied(table: Oid, entry: &relation::Entry) {
    let is_foreign = entry.kind == RelationKind::ForeignTable;
    if is_foreign {
        note(table);
    }
    if is_foreign || entry.persistence.is_of_node() {
        ROWS_STAY.set(true);
    }
}

pub fn is_used() -> bool {
    USED.with_borrow(|used| !used.is_empty())
}

/// Rows have gone to a partition that is foreign or unlogged, by a plan that names only the table above it; or such a table was emptied.
pub fn rows_stay() -> bool {
    ROWS_STAY.get()
}

/// The wrapper, if there is one, that has a transaction open on its server.
pub fn wrapper() -> Option<String> {
    let used = USED.with_borrow(Vec::clone);
    used.into_iter().filter(|&table| relation::entry(table).is_some()).find_map(writer_of)
}

/// The wrapper of a foreign table, if it can write.
fn writer_of(table: Oid) -> Option<String> {
    // SAFETY: the table is there, and so is what it depends on; an ERROR comes as one. The name is a C string.
    unsafe {
        (*pg_sys::GetFdwRoutineByRelId(table)).ExecForeignInsert?;
        let server = pg_sys::GetForeignServer((*pg_sys::GetForeignTable(table)).serverid);
        let wrapper = pg_sys::GetForeignDataWrapper((*server).fdwid);
        Some(encoding::text(std::ffi::CStr::from_ptr((*wrapper).fdwname)).to_string())
    }
}

/// At the end of every transaction.
pub fn reset() {
    USED.with_borrow_mut(Vec::clear);
    ROWS_STAY.set(false);
}

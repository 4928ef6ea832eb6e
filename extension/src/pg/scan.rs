//! Reading a whole table, row by row, by a snapshot; and taking rows out of it that no index can be trusted to find.

use pgrx::pg_sys;

use super::memory::Context;
use super::names::Oid;
use super::relation::{Lock, Open};
use super::row::Row;
use super::snapshot::Fresh;

/// Calls `f` with every row that the active snapshot shows, in memory that is free again afterwards. Interrupts are served.
pub fn for_each_row(table: &Open, mut f: impl FnMut(Row<'_>)) {
    let mut scratch = Context::in_transaction(c"postgres_r scan");
    // SAFETY: a plain sequential scan by the active snapshot; the slot is of this relation.
    unsafe {
        let slot = pg_sys::table_slot_create(table.raw(), std::ptr::null_mut());
        let scan = pg_sys::table_beginscan(table.raw(), pg_sys::GetActiveSnapshot(), 0, std::ptr::null_mut());
        while pg_sys::heap_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot) {
            super::interrupt::check();
            let row = Row::of_slot(slot);
            scratch.with(|| f(row));
            scratch.reset();
        }
        pg_sys::table_endscan(scan);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
    }
}

/// Deletes the rows for which what `prepare` gives says so. The table is locked against writers. False if there is no such table.
pub fn delete_where<F: FnMut(Row<'_>) -> bool>(table: Oid, prepare: impl FnOnce(&Open) -> F) -> bool {
    let Some(open) = Open::by_oid(table, Lock::Exclusive) else { return false };
    let snapshot = Fresh::take();
    let mut places = Vec::new();
    let mut is_wanted = prepare(&open);
    for_each_row(&open, |row| {
        if is_wanted(row) {
            // SAFETY: the slot holds the row.
            places.push(unsafe { (*row.slot).tts_tid });
        }
    });
    drop(is_wanted);
    drop(snapshot);
    for mut place in places {
        let mut failure = pg_sys::TM_FailureData::default();
        // SAFETY: the rows were there a moment ago, and nobody else can have changed the table since.
        let result = unsafe {
            let command = pg_sys::GetCurrentCommandId(true);
            let no_check = std::ptr::null_mut();
            pg_sys::heap_delete(open.raw(), &mut place, command, no_check, true, &mut failure, false)
        };
        if result != pg_sys::TM_Result::TM_Ok {
            let message = "a row to repair was changed meanwhile";
            pgrx::ereport!(ERROR, pgrx::PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, message);
        }
    }
    // SAFETY: in a transaction; what was deleted must be seen to be.
    unsafe { pg_sys::CommandCounterIncrement() };
    true
}

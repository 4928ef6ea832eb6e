//! Queries, for the few things that are easier asked in SQL.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::encoding;
use super::role::Acting;
use super::setting::Scope;

/// The text that the query returns, if it returns a row. Inside a transaction.
pub fn text(sql: &str) -> Option<String> {
    first_row(sql).and_then(|row| row.into_iter().next().flatten())
}

/// A row of a result: its columns as texts.
pub type Row = Vec<Option<String>>;

/// The first row that a statement of ours returns. It runs as the superuser that PostgreSQL is made with, finds names in pg_catalog
/// only, and sees what is committed now, whatever snapshot the transaction has.
pub fn first_row(sql: &str) -> Option<Row> {
    rows(sql).into_iter().next()
}

/// The same, all rows.
pub fn rows(sql: &str) -> Vec<Row> {
    // SAFETY: takes a snapshot, which is copied below.
    run(sql, unsafe { pg_sys::GetLatestSnapshot() })
}

/// The same, by the transaction's active snapshot.
pub fn rows_by_snapshot(sql: &str) -> Vec<Row> {
    // SAFETY: the active snapshot, which is copied below.
    run(sql, unsafe { pg_sys::GetActiveSnapshot() })
}

fn run(sql: &str, snapshot: pg_sys::Snapshot) -> Vec<Row> {
    let Some(sql) = encoding::c_string(sql) else { return Vec::new() };
    let _role = Acting::superuser();
    let mut scope = Scope::enter();
    scope.set("search_path", "pg_catalog");
    // SAFETY: connects, runs, reads, disconnects; an ERROR in between cleans up by itself.
    unsafe {
        pg_sys::SPI_connect();
        pg_sys::PushCopiedSnapshot(snapshot);
        let snapshot = pg_sys::GetActiveSnapshot();
        let plan = pg_sys::SPI_prepare(sql.as_ptr(), 0, std::ptr::null_mut());
        if plan.is_null() {
            let result = pg_sys::SPI_result;
            pgrx::error!("could not prepare a statement of the extension: SPI result {result}");
        }
        let none = std::ptr::null_mut();
        let result =
            pg_sys::SPI_execute_snapshot(plan, none, std::ptr::null(), snapshot, std::ptr::null_mut(), false, true, 0);
        if result < 0 {
            pgrx::error!("could not run a statement of the extension: SPI result {result}");
        }
        let table = pg_sys::SPI_tuptable;
        let mut rows = Vec::new();
        if !table.is_null() {
            let descriptor = (*table).tupdesc;
            for index in 0..pg_sys::SPI_processed as usize {
                let tuple = *(*table).vals.add(index);
                rows.push((1..=(*descriptor).natts).map(|column| value(tuple, descriptor, column)).collect());
            }
        }
        pg_sys::PopActiveSnapshot();
        pg_sys::SPI_finish();
        rows
    }
}

/// # Safety
/// The tuple must be of that description, and have that many columns.
unsafe fn value(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc, column: i32) -> Option<String> {
    // SAFETY: by contract; a palloc'd string or null.
    unsafe {
        let text = pg_sys::SPI_getvalue(tuple, descriptor, column);
        (!text.is_null()).then(|| encoding::text(CStr::from_ptr(text)))
    }
}

/// A text as an SQL literal.
pub fn literal(text: &str) -> String {
    let Some(text) = encoding::c_string(text) else { return "''".to_owned() };
    // SAFETY: gives a palloc'd string; read at once.
    unsafe { encoding::text(CStr::from_ptr(pg_sys::quote_literal_cstr(text.as_ptr()))) }
}

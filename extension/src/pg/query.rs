//! Queries, for the few things that catalogs are easier asked in SQL.

use pgrx::pg_sys;
use pgrx::prelude::*;

/// The text that the query returns, if it returns a row. Inside a transaction.
pub fn text(sql: &str) -> Option<String> {
    // SAFETY: in a transaction of a background worker, which has no snapshot yet.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
    let found = Spi::get_one::<String>(sql);
    // SAFETY: pushed above; an ERROR pops it with the transaction.
    unsafe { pg_sys::PopActiveSnapshot() };
    found.ok().flatten()
}

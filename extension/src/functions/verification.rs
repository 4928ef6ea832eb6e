//! What SQL can ask of a verification and of a repair.

use std::sync::atomic::Ordering;
use std::time::Duration;

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::backend::{repair as backend_repair, verify};
use crate::error::Error;
use crate::node::verification::{Repair, Wanted};
use crate::pg::{privilege, query, role};
use crate::session;
use crate::verify::look;

type Row = (String, String, String, Option<i64>, Option<String>, Option<String>, Option<i64>);

#[pg_extern]
#[allow(clippy::type_complexity)]
fn verify_within(
    timeout_ms: Option<i64>,
    table: Option<pg_sys::Oid>,
) -> TableIterator<
    'static,
    (
        name!(table_name, String),
        name!(node, String),
        name!(verdict, String),
        name!(rows, Option<i64>),
        name!(key_range, Option<String>),
        name!(detail, Option<String>),
        name!(position, Option<i64>),
    ),
> {
    let wanted = Wanted { timeout: patience(timeout_ms), table, repair: None };
    TableIterator::new(carry_out(&wanted))
}

#[pg_extern]
#[allow(clippy::type_complexity)]
fn repair_within(
    node: &str,
    table: pg_sys::Oid,
    by_force: bool,
    timeout_ms: i64,
) -> TableIterator<
    'static,
    (
        name!(table_name, String),
        name!(node, String),
        name!(verdict, String),
        name!(rows, Option<i64>),
        name!(key_range, Option<String>),
        name!(detail, Option<String>),
        name!(position, Option<i64>),
    ),
> {
    if !role::is_superuser() {
        Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, "must be superuser to repair a table").raise();
    }
    let repair = Some(Repair { node: node.to_owned(), by_force });
    let wanted = Wanted { timeout: patience(Some(timeout_ms)), table: Some(table), repair };
    TableIterator::new(carry_out(&wanted))
}

fn patience(timeout_ms: Option<i64>) -> Duration {
    match timeout_ms.and_then(|timeout| u64::try_from(timeout).ok()).filter(|&timeout| timeout > 0) {
        Some(timeout) => Duration::from_millis(timeout),
        None => Error::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "timeout must be greater than zero").raise(),
    }
}

fn carry_out(wanted: &Wanted) -> Vec<Row> {
    let run = verify::ask(wanted).unwrap_or_else(|error| error.raise());
    let sql = format!(
        "SELECT object, node, verdict, rows, key_range, detail, position
         FROM postgres_r.verification_results WHERE run = {run} ORDER BY nth"
    );
    let rows: Vec<Row> = query::rows(&sql).into_iter().filter_map(row).collect();
    if rows.is_empty() {
        // Nothing must never look like "all is well".
        Error::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "the verification has no result")
            .detail("No node has said what it holds.")
            .hint("Try again.")
            .raise();
    }
    rows
}

/// Keys are shown to whoever may read the table.
fn row(row: query::Row) -> Option<Row> {
    let [Some(object), Some(node), Some(verdict), rows, keys, detail, position] =
        <[Option<String>; 7]>::try_from(row).ok()?
    else {
        return None;
    };
    let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
    let keys = keys.filter(|_| may_see_keys(&object));
    Some((object, node, verdict, number(rows), keys, detail, number(position)))
}

fn may_see_keys(object: &str) -> bool {
    match look::oid_of(object) {
        Some(table) => privilege::sees(role::outer(), table, &[]),
        // Names in the catalogs are no secret.
        None => object == crate::verify::CATALOGS,
    }
}

/// The rows of a table that a node lacks, as part of the current transaction: the coordinator's own way of speaking to its backend.
#[pg_extern]
fn put_repair(node: &str, object: &str, identities: Option<&str>) -> i64 {
    let Some(table) = look::oid_of(object) else {
        let message = format!("table {object} to repair does not exist");
        Error::new(PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE, message).raise();
    };
    let identities: Option<Vec<u128>> = identities.map(|identities| {
        let read = identities.split_whitespace().map(|identity| u128::from_str_radix(identity, 16));
        read.collect::<Result<_, _>>().unwrap_or_else(|_| {
            Error::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "an identity is 32 hexadecimal digits").raise()
        })
    });
    backend_repair::put(node, table, identities.as_deref()) as i64
}

/// What this node's verifier is looking at, if there is one.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn verification_progress_list() -> TableIterator<
    'static,
    (name!(table_name, String), name!(tables_done, i64), name!(tables_total, i64), name!(rows_read, i64)),
> {
    let progress = session::database().map(|area| &area.verification.progress);
    let busy = progress.filter(|progress| progress.total.load(Ordering::Relaxed) > 0);
    TableIterator::new(busy.map(|progress| {
        let number = |field: &std::sync::atomic::AtomicU64| field.load(Ordering::Relaxed) as i64;
        (progress.object.get(), number(&progress.done), number(&progress.total), number(&progress.rows))
    }))
}

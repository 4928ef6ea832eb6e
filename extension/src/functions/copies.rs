//! What gcs asks of the extension where it makes a copy of a database.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::Error;
use crate::pg::materialized::{self, Unfit};
use crate::pg::role;
use crate::session;

/// Gives a materialized view the rows of a table with the same columns, which is dropped. A dump has only the view's query, and what that gives here is
/// not what the view holds elsewhere.
#[pg_extern]
fn fill_materialized_view(view: pg_sys::Oid, rows: pg_sys::Oid) {
    if !role::is_superuser() {
        let message = "must be superuser to fill a materialized view";
        Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message).raise();
    }
    if session::replicated() {
        let message = "materialized views of a replicated database are filled by REFRESH only";
        Error::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message).raise();
    }
    let wrong_kind = PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE;
    match materialized::take_over(view, rows) {
        Ok(()) => {}
        Err(Unfit::NoView) => Error::new(wrong_kind, "what is to be filled is no materialized view").raise(),
        Err(Unfit::NoTable) => Error::new(wrong_kind, "the rows are not in a permanent table without indexes").raise(),
        Err(Unfit::OtherColumns) => {
            let message = "the columns of the table are not those of the materialized view";
            Error::new(PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH, message).raise();
        }
    }
}

extension_sql!(
    "REVOKE ALL ON FUNCTION fill_materialized_view(oid, oid) FROM PUBLIC;",
    name = "fill_materialized_view_rights",
    requires = [fill_materialized_view]
);

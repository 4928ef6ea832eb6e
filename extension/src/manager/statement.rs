//! `ALTER DATABASE ... START REPLICATION ...`, which PostgreSQL's grammar does not know.
//!
//! The syntax error that it causes passes the report hook with the query text at hand. When the whole text is one of these
//! statements (`postgres_r_protocol::statement`), the hook carries it out, holds the error back and tells the client that its command is
//! done; or it puts the reason of a failure in the error's place. The launcher does the work: where an error is reported, catalogs can't be
//! read.

use pgrx::prelude::*;
use postgres_r_protocol::statement::{Statement, parse};

use super::ask;
use crate::pg::log::{self, Level, Report};
use crate::pg::xact;

pub fn on_report(report: &mut Report) {
    if report.level() != Level::Error || !report.is(PgSqlErrorCode::ERRCODE_SYNTAX_ERROR) || !report.to_client() {
        return;
    }
    if !log::has_client() {
        return;
    }
    let Some(Statement { database, wanted }) = log::query_text().as_deref().and_then(parse) else { return };
    let result = if xact::in_block() { Err(ask::in_block(&wanted)) } else { ask::ask(&database, &wanted, false) };
    match result {
        Ok(()) => {
            report.hold_back();
            log::complete_command_alter_database();
        }
        Err(error) => report.rewrite(error.code, &error.message, error.detail.as_deref(), error.hint.as_deref()),
    }
}

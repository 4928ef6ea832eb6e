//! `ALTER DATABASE ... START REPLICATION ...`, which PostgreSQL's grammar does not know.
//!
//! The syntax error that it causes passes the report hook with the query text at hand. When the whole text is one of these
//! statements (`postgres_r_protocol::statement`), the hook carries it out, holds the error back and tells the client that its command is
//! done; or it puts the reason of a failure in the error's place. The launcher does the work: where an error is reported, catalogs can't be
//! read.
//!
//! Text that is only read now, to be run later (a named prepared statement), is refused: nobody would expect it to run. So is one among other
//! statements, since those before it would be undone by the error that it is.

use pgrx::prelude::*;
use postgres_r_protocol::statement::{Statement, parse, start_among_others};

use super::ask;
use crate::error::Error;
use crate::pg::log::{self, Level, Report};
use crate::pg::xact;

pub fn on_report(report: &mut Report) {
    if report.level() != Level::Error || !report.is(PgSqlErrorCode::ERRCODE_SYNTAX_ERROR) || !report.to_client() {
        return;
    }
    if !log::has_client() {
        return;
    }
    let Some(text) = log::query_text() else { return };
    let result = match parse(&text) {
        Some(statement) => carry_out(&statement),
        None => match among_others(report, &text) {
            Some(error) => Err(error),
            None => return,
        },
    };
    match result {
        Ok(()) => {
            report.hold_back();
            log::complete_command_alter_database();
        }
        Err(error) => report.rewrite(error.code, &error.message, error.detail.as_deref(), error.hint.as_deref()),
    }
}

fn carry_out(Statement { database, wanted }: &Statement) -> Result<(), Error> {
    if log::is_preparing() {
        Err(ask::prepared(database, wanted))
    } else if xact::in_block() {
        Err(ask::in_block(wanted))
    } else {
        ask::ask(database, wanted, false)
    }
}

fn among_others(report: &Report, text: &str) -> Option<Error> {
    if report.has_format(c"option \"%s\" not recognized") && report.message().is_some_and(|message| message.contains("stop"))
    {
        return Some(ask::among_others(ask::STOP, "stop_replication(database)"));
    }
    let at = report.position(text)?;
    start_among_others(text, at).then(|| ask::among_others(ask::START, "start_replication(database, group_name)"))
}

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
use postgres_r_protocol::statement::{self, Statement, Wanted, parse};

use super::ask;
use crate::error::Error;
use crate::node::request::Answer;
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
        Some(Ok(statement)) => carry_out(&statement),
        Some(Err(error)) => Err(ask::bad_option(&error)),
        None => match among_others(report, &text) {
            Some(error) => Err(error),
            None => return,
        },
    };
    match result {
        Ok(remark) => {
            if let Some(remark) = remark {
                remark.remark();
            }
            report.hold_back();
            log::complete_command_alter_database();
        }
        Err(error) => report.rewrite(error.code, &error.message, error.detail.as_deref(), error.hint.as_deref()),
    }
}

fn carry_out(Statement { database, wanted }: &Statement) -> Answer {
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
        return Some(ask::among_others(&Wanted::Stop { force: false }));
    }
    let at = report.position(text)?;
    statement::among_others(text, at).map(|wanted| match wanted {
        Ok(wanted) => ask::among_others(&wanted),
        Err(error) => ask::bad_option(&error),
    })
}

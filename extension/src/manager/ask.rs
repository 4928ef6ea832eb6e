//! START and STOP REPLICATION, as a session asks for them: a request in shared memory, and a bounded wait for its answer.

use std::time::{Duration, Instant};

use pgrx::prelude::*;
use postgres_r_protocol::statement::{OptionError, Wanted};

use crate::error::{self, Error};
use crate::node::making::Birth;
use crate::node::request::{Answer, Request};
use crate::node::{self, wake};
use crate::pg::{catalog, interrupt, latch, process};

/// How long a session waits for its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Asks and waits. Raises nothing by itself; with `interruptible`, a cancel does. What there is to be said about a request that was carried out
/// comes back.
pub fn ask(database: &str, wanted: &Wanted, interruptible: bool) -> Answer {
    ask_for(database, (wanted, Birth::Ordinary), interruptible)
}

/// The same, for a database that the group has made.
pub fn ask_for(database: &str, wanted: (&Wanted, Birth), interruptible: bool) -> Answer {
    let Some(node) = node::get() else { return Err(error::not_preloaded()) };
    let role = catalog::current_role();
    let Some(request) = node.requests.iter().find(|request| request.ask(database, wanted, role, process::me())) else {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
            "too many databases are being started or stopped",
        )
        .hint("Try again in a moment."));
    };
    wake(&node.registry.launcher);
    wait(request, interruptible)
}

fn wait(request: &Request, interruptible: bool) -> Answer {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        if let Some(answer) = request.take_answer() {
            return answer;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let stop = left.is_zero() || interrupt::die_pending() || (interruptible && interrupt::pending());
        if stop && request.abandon() {
            if interruptible {
                interrupt::check();
            }
            return Err(Error::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, "no answer to the request for replication")
                .detail("It may still be carried out.")
                .hint("See the server's log and postgres_r.members."));
        }
        latch::wait(Some(left));
    }
}

/// Inside of a transaction block nothing can be started or stopped.
pub fn in_block(wanted: &Wanted) -> Error {
    let message = format!("ALTER DATABASE ... {} cannot run inside a transaction block", name(wanted));
    Error::new(PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION, message).hint("End the transaction first.")
}

/// Nor can it in a text with other statements, in a function or a DO block.
pub fn among_others(wanted: &Wanted) -> Error {
    let function = match wanted {
        Wanted::Start { overwrite: false, .. } => "start_replication(database, group_name)",
        Wanted::Start { overwrite: true, .. } => "start_replication(database, group_name, overwrite => true)",
        Wanted::Stop { force: false } => "stop_replication(database)",
        Wanted::Stop { force: true } => "stop_replication(database, force => true)",
    };
    let message = format!("ALTER DATABASE ... {} cannot run among other statements", name(wanted));
    Error::new(PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION, message)
        .hint(format!("Send it by itself, or SELECT postgres_r.{function}."))
}

/// Where PostgreSQL reads a statement to run it later.
pub fn prepared(database: &str, wanted: &Wanted) -> Error {
    let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let call = match wanted {
        Wanted::Start { group, overwrite } => {
            let overwrite = if *overwrite { ", overwrite => true" } else { "" };
            format!("start_replication({}, {}{overwrite})", literal(database), literal(group))
        }
        Wanted::Stop { force: false } => format!("stop_replication({})", literal(database)),
        Wanted::Stop { force: true } => format!("stop_replication({}, force => true)", literal(database)),
    };
    Error::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("ALTER DATABASE ... {} cannot be a prepared statement", name(wanted)),
    )
    .hint(format!("Prepare SELECT postgres_r.{call}, or send the statement unprepared."))
}

/// A list of options that says what cannot be meant.
pub fn bad_option(error: &OptionError) -> Error {
    let message = match error {
        OptionError::Unknown(option) => format!("unrecognized START REPLICATION option \"{option}\""),
        OptionError::Repeated(option) => format!("START REPLICATION option \"{option}\" is given more than once"),
        OptionError::NotBoolean(option) => format!("START REPLICATION option \"{option}\" requires a Boolean value"),
    };
    Error::new(PgSqlErrorCode::ERRCODE_SYNTAX_ERROR, message)
        .hint("The only option is OVERWRITE: WITH (OVERWRITE), or WITH (OVERWRITE = true).")
}

fn name(wanted: &Wanted) -> &'static str {
    match wanted {
        Wanted::Start { .. } => "START REPLICATION",
        Wanted::Stop { .. } => "STOP REPLICATION",
    }
}

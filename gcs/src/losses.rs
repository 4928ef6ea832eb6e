//! `gcs conflicts` and `gcs failures`: what transactions lost over, and to whom; and what this node could not apply. From the extension's views, which docs/settings.md describes.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use gcs_writeset::link::Inquiry;
use postgres::Row;
use serde::Serialize;

use crate::config::Config;
use crate::control::{self, ControlError};
use crate::examined::Examination;
use crate::members::Daemon;
use crate::own_server::{self, ServerError};

/// A daemon that does not answer within this time is as good as down.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct ConflictsArgs {
    /// The database.
    database: String,
    /// One line of JSON instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Debug, Args)]
pub struct FailuresArgs {
    /// One line of JSON instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

/// What was lost over one key of one table, on this node.
#[derive(Debug, Serialize)]
struct Conflict {
    /// None for all those beyond the first 128 tables and keys.
    table: Option<String>,
    key: Option<String>,
    certification: i64,
    victim: i64,
    yielded: i64,
    last_at: Option<String>,
    /// Who won the last one that is remembered.
    winner_node: Option<String>,
    winner_position: Option<i64>,
    winner_application: Option<String>,
    /// The key's values, as the loser was told.
    last_key: Option<String>,
}

const CONFLICTS: &str = "
    SELECT c.table_name, c.key, c.certification, c.victim, c.yielded, c.last_at::text, l.winner_node, l.winner_position, l.winner_application, l.key
    FROM postgres_r.conflict_counts c LEFT JOIN LATERAL (
        SELECT * FROM postgres_r.conflicts l WHERE l.table_name = c.table_name AND (c.key IS NULL OR starts_with(l.key, c.key)) ORDER BY at DESC LIMIT 1) l ON true
    ORDER BY c.certification + c.victim + c.yielded DESC, 1, 2";

impl Conflict {
    fn of(row: &Row) -> Result<Conflict, postgres::Error> {
        Ok(Conflict {
            table: row.try_get(0)?,
            key: row.try_get(1)?,
            certification: row.try_get(2)?,
            victim: row.try_get(3)?,
            yielded: row.try_get(4)?,
            last_at: row.try_get(5)?,
            winner_node: row.try_get(6)?,
            winner_position: row.try_get(7)?,
            winner_application: row.try_get(8)?,
            last_key: row.try_get(9)?,
        })
    }
}

/// Exit status 0, 1 if it cannot be found out, 2 for a bad configuration.
pub fn conflicts(args: &ConflictsArgs) -> ExitCode {
    let found = || -> Result<Vec<Conflict>, ServerError> {
        let config = Config::load(args.daemon.config()).map_err(ControlError::from)?;
        let rows = own_server::connect(&config, &args.database)?.query(CONFLICTS, &[])?;
        Ok(rows.iter().map(Conflict::of).collect::<Result<_, _>>()?)
    };
    show(found(), args.json, conflicts_table)
}

fn show<T: Serialize>(found: Result<Vec<T>, ServerError>, json: bool, table: impl Fn(&[T]) -> String) -> ExitCode {
    match found {
        Ok(found) => {
            // Strings, numbers and nothing always have a JSON form.
            let text = if json { serde_json::to_string(&found).unwrap_or_default() + "\n" } else { table(&found) };
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => own_server::failed(&error),
    }
}

fn conflicts_table(found: &[Conflict]) -> String {
    if found.is_empty() {
        return "no transaction has lost on this node since its PostgreSQL was started\n".to_owned();
    }
    let mut text = format!("{:<32} {:<20} {:>8} {:>8} {:>8} last lost to\n", "table", "key", "ordered", "victim", "yielded");
    for Conflict {
        table,
        key,
        certification,
        victim,
        yielded,
        winner_node,
        winner_position,
        winner_application,
        last_key,
        ..
    } in found
    {
        let (table, key) = (table.as_deref().unwrap_or("others"), key.as_deref().unwrap_or(""));
        let winner =
            winner_node.as_ref().zip(*winner_position).map(|(node, position)| format!("{node}, position {position}"));
        let application = winner_application.as_ref().filter(|name| !name.is_empty()).map(|name| format!("\"{name}\""));
        let last: Vec<String> = [winner, application, last_key.clone()].into_iter().flatten().collect();
        let last = last.join(", ");
        text += format!("{table:<32} {key:<20} {certification:>8} {victim:>8} {yielded:>8} {last}").trim_end();
        text.push('\n');
    }
    text
}

/// What a database of this node could not apply, and tries again.
#[derive(Debug, Serialize)]
struct Failure {
    database: String,
    position: i64,
    /// Where it came from.
    node: String,
    sqlstate: String,
    reason: String,
    statement: Option<String>,
    table: Option<String>,
    since: Option<String>,
    attempts: i32,
}

const FAILURES: &str = "SELECT database, position, node, sqlstate, reason, statement, table_name, since::text, attempts FROM postgres_r.failures";

impl Failure {
    fn of(row: &Row) -> Result<Failure, postgres::Error> {
        Ok(Failure {
            database: row.try_get(0)?,
            position: row.try_get(1)?,
            node: row.try_get(2)?,
            sqlstate: row.try_get(3)?,
            reason: row.try_get(4)?,
            statement: row.try_get(5)?,
            table: row.try_get(6)?,
            since: row.try_get(7)?,
            attempts: row.try_get(8)?,
        })
    }
}

/// Likewise.
pub fn failures(args: &FailuresArgs) -> ExitCode {
    let found = || -> Result<Vec<Failure>, ServerError> {
        let config = Config::load(args.daemon.config()).map_err(ControlError::from)?;
        let text = control::inquire(&config.local_socket, Inquiry::Examination, ANSWER_TIMEOUT)?;
        // What is not understood is of another version, and names no databases.
        let found: Examination = serde_json::from_str(&text).unwrap_or_default();
        let mut client = own_server::connect_to_any(found.server.as_ref(), &found)?;
        let rows = client.query(FAILURES, &[])?;
        Ok(rows.iter().map(Failure::of).collect::<Result<_, _>>()?)
    };
    show(found(), args.json, failures_table)
}

fn failures_table(found: &[Failure]) -> String {
    if found.is_empty() {
        return "everything that was ordered could be applied here\n".to_owned();
    }
    let mut text = String::new();
    for Failure { database, position, node, sqlstate, reason, statement, table, since, attempts } in found {
        text += &format!("database {database}, position {position} of {node}: {reason} ({sqlstate})\n");
        let what =
            statement.as_ref().map(|it| format!("statement: {it}")).or(table.as_ref().map(|it| format!("table {it}")));
        let since = since.as_deref().unwrap_or("not known");
        text += &format!("  {}tried {attempts} times since {since}\n", what.map(|what| what + "; ").unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_over_is_told_with_the_winner() {
        let conflict = Conflict {
            table: Some("public.item".to_owned()),
            key: Some("(id)".to_owned()),
            certification: 3,
            victim: 1,
            yielded: 0,
            last_at: None,
            winner_node: Some("n2".to_owned()),
            winner_position: Some(77),
            winner_application: Some("shop".to_owned()),
            last_key: Some("(id)=(5)".to_owned()),
        };
        let text = conflicts_table(&[conflict]);
        assert!(text.lines().nth(1).unwrap().ends_with("n2, position 77, \"shop\", (id)=(5)"), "{text}");
        assert!(conflicts_table(&[]).starts_with("no transaction has lost"));
    }
}

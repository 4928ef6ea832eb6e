//! `gcs verify` and `gcs repair`: whether the nodes hold the same, and how one that does not is mended. Asked of the PostgreSQL of this node, which the daemon
//! knows; the functions there do the work (`postgres_r.verify`, `postgres_r.repair`).

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use gcs_writeset::link::{Reply, Request, ServerPlace};
use postgres::{Client, NoTls, Row};
use serde::Serialize;
use thiserror::Error;

use crate::config::Config;
use crate::control::{self, ControlError};
use crate::copy::describe;

/// A daemon that does not answer within this time is as good as down.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Something is not equal, or not known to be.
const NOT_EQUAL: u8 = 3;

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The database.
    database: String,
    /// Only this table, with its schema if that is not on the search path.
    #[arg(long)]
    table: Option<String>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub struct RepairArgs {
    /// The member that is to get the rows of this node.
    node: String,
    /// The table, with its schema if that is not on the search path.
    table: String,
    /// The database.
    #[arg(long)]
    database: String,
    /// Also where nothing differs: the table is copied as a whole, and its indexes are built anew.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
struct How {
    /// After so many seconds it is given up, everywhere.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    timeout: u32,
    /// One line of JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// The configuration file of the daemon.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, Error)]
enum EqualityError {
    #[error("{0}")]
    Control(#[from] ControlError),
    #[error("{}", describe(.0))]
    Postgres(#[from] postgres::Error),
}

/// What one node holds of one table.
#[derive(Debug, Serialize)]
struct Finding {
    table: String,
    node: String,
    verdict: String,
    rows: Option<i64>,
    key_range: Option<String>,
    detail: Option<String>,
    position: Option<i64>,
}

impl Finding {
    fn of(row: &Row) -> Result<Finding, postgres::Error> {
        Ok(Finding {
            table: row.try_get(0)?,
            node: row.try_get(1)?,
            verdict: row.try_get(2)?,
            rows: row.try_get(3)?,
            key_range: row.try_get(4)?,
            detail: row.try_get(5)?,
            position: row.try_get(6)?,
        })
    }

    fn is_equal(&self) -> bool {
        self.verdict == "equal"
    }
}

/// Exit status 0 if all is equal, 3 if not or if it is not known, 2 for a bad configuration, 1 if it cannot be found out.
pub fn verify(args: &VerifyArgs) -> ExitCode {
    let sql = "SELECT table_name, node, verdict, rows, key_range, detail, \"position\"
               FROM postgres_r.verify($1::float8 * interval '1 second', $2::text::regclass)";
    let found = connect(&args.how, &args.database)
        .and_then(|mut client| Ok(client.query(sql, &[&f64::from(args.how.timeout), &args.table])?));
    report(found, args.how.json)
}

/// The same; what is reported is what the table is like afterwards.
pub fn repair(args: &RepairArgs) -> ExitCode {
    let sql = "SELECT table_name, node, verdict, rows, key_range, detail, \"position\"
               FROM postgres_r.repair($1, $2::text::regclass, $3, $4::float8 * interval '1 second')";
    let found = connect(&args.how, &args.database).and_then(|mut client| {
        Ok(client.query(sql, &[&args.node, &args.table, &args.force, &f64::from(args.how.timeout)])?)
    });
    report(found, args.how.json)
}

/// To the PostgreSQL of this node, as the user that the daemon would be.
fn connect(how: &How, database: &str) -> Result<Client, EqualityError> {
    let config = Config::load(&how.config).map_err(ControlError::from)?;
    let request = Request::AskPlace { database: database.to_owned() };
    let place: ServerPlace = control::ask(&config.local_socket, &request, ANSWER_TIMEOUT, |reply| match reply {
        Reply::Place(place) => Some(place),
        _ => None,
    })?;
    let mut server = postgres::Config::new();
    server.host_path(&place.socket_directory).port(place.port).user(&place.user).dbname(database);
    Ok(server.application_name("gcs").connect(NoTls)?)
}

fn report(found: Result<Vec<Row>, EqualityError>, json: bool) -> ExitCode {
    let findings = found.and_then(|rows| Ok(rows.iter().map(Finding::of).collect::<Result<Vec<_>, _>>()?));
    match findings {
        Ok(findings) => {
            print!("{}", if json { to_json(&findings) } else { to_table(&findings) });
            if findings.iter().all(Finding::is_equal) { ExitCode::SUCCESS } else { ExitCode::from(NOT_EQUAL) }
        }
        Err(error) => {
            eprintln!("gcs: error: {error}");
            let is_bad = matches!(error, EqualityError::Control(ControlError::Config(_)));
            if is_bad { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn to_json(findings: &[Finding]) -> String {
    // Strings, numbers and nothing always have a JSON form.
    serde_json::to_string(findings).unwrap_or_default() + "\n"
}

/// What is equal is counted; what is not is listed.
fn to_table(findings: &[Finding]) -> String {
    let (equal, other): (Vec<&Finding>, Vec<&Finding>) = findings.iter().partition(|finding| finding.is_equal());
    let mut text = String::new();
    if !other.is_empty() {
        text += &format!("{:<32} {:<16} {:<10} {}\n", "table", "node", "verdict", "where");
    }
    for Finding { table, node, verdict, key_range, detail, .. } in &other {
        let place: Vec<&str> = [key_range, detail].into_iter().flatten().map(String::as_str).collect();
        text += format!("{table:<32} {node:<16} {verdict:<10} {}", place.join("; ")).trim_end();
        text.push('\n');
    }
    let mut tables: Vec<&str> = findings.iter().map(|finding| finding.table.as_str()).collect();
    tables.dedup();
    text + &format!("{} of {} findings on {} tables are equal\n", equal.len(), findings.len(), tables.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(table: &str, node: &str, verdict: &str, key_range: Option<&str>) -> Finding {
        let (table, node, verdict, key_range) = (table.into(), node.into(), verdict.into(), key_range.map(str::to_owned));
        Finding { table, node, verdict, rows: Some(3), key_range, detail: None, position: Some(7) }
    }

    #[test]
    fn what_differs_is_listed_and_what_is_equal_is_counted() {
        let findings = [
            finding("public.t", "node1", "equal", None),
            finding("public.t", "node2", "different", Some("(id)=(5)")),
            finding("catalogs", "node1", "equal", None),
        ];
        let text = to_table(&findings);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].starts_with("public.t ") && lines[1].ends_with("different  (id)=(5)"), "{text}");
        assert_eq!(lines[2], "2 of 3 findings on 2 tables are equal");
        assert_eq!(to_table(&findings[..1]), "1 of 1 findings on 1 tables are equal\n");
        assert!(to_json(&findings).contains("\"key_range\":\"(id)=(5)\""));
    }
}

//! `gcs verify` and `gcs repair`: whether the nodes hold the same, and how one that does not is mended. Asked of the PostgreSQL of this node, which the daemon
//! knows; the functions there do the work (`postgres_r.verify`, `postgres_r.repair`).

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use gcs_writeset::link::{Failure, FailureKind, GroupStatus, MemberState, Request};
use postgres::{Client, Row};
use serde::Serialize;

use crate::config::Config;
use crate::control::{self, ControlError};
use crate::history::event::Happening;
use crate::members::said;
use crate::own_server::{self, ServerError};
use crate::status;
use crate::tls::Moment;
use crate::verified::{self, Unequal, Verification};

/// Something is not equal, or not known to be.
const NOT_EQUAL: u8 = 3;

/// For the daemon to hear of it.
const TELL_PATIENCE: Duration = Duration::from_secs(5);

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
    /// Only says what would be done, and whether it could be, by what the last gcs verify found. Changes nothing.
    #[arg(long)]
    dry_run: bool,
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
    report(found, &args.how, &args.database, args.table.as_deref(), |findings| {
        verified(findings, &args.database, args.table.as_deref())
    })
}

/// The same; what is reported is what the table is like afterwards.
pub fn repair(args: &RepairArgs) -> ExitCode {
    if args.dry_run {
        return match consider(args) {
            Ok(words) => said(Ok(words)),
            Err(error) => own_server::failed(&error),
        };
    }
    let sql = "SELECT table_name, node, verdict, rows, key_range, detail, \"position\"
               FROM postgres_r.repair($1, $2::text::regclass, $3, $4::float8 * interval '1 second')";
    let found = connect(&args.how, &args.database).and_then(|mut client| {
        Ok(client.query(sql, &[&args.node, &args.table, &args.force, &f64::from(args.how.timeout)])?)
    });
    report(found, &args.how, &args.database, Some(&args.table), |findings| repaired(findings, args))
}

/// What a repair would do, or why it could not be done. Comparing the tables would go through the order of the group, so that is not done: what is known is what was found last.
fn consider(args: &RepairArgs) -> Result<String, ServerError> {
    let RepairArgs { node, table, database, .. } = args;
    let config = Config::load(&args.how.config).map_err(ControlError::from)?;
    check_node(&status::ask(&config.local_socket)?, node, &config.name).map_err(ControlError::Refused)?;
    let sql = "SELECT $1::text::regclass::text, pg_size_pretty(pg_total_relation_size($1::text::regclass))";
    let row = connect(&args.how, database)?.query_one(sql, &[table])?;
    let (name, size): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let what = if args.force { "the whole table" } else { "the rows that differ" };
    let known = match verified::read(&config.data_directory).into_iter().find(|found| found.database == *database) {
        None => "whether it differs is not known: run gcs verify".to_owned(),
        Some(found) => {
            let verdict_of = |node: &str| {
                let its = found.first.iter().find(|unequal| unequal.node == node && verified::is_of(unequal, table));
                its.map_or("not said to differ", |unequal| &unequal.verdict)
            };
            let (its, own) = (verdict_of(node), verdict_of(&config.name));
            format!("by the comparison of {} it is {its} there, and {own} here", Moment::new(found.at))
        }
    };
    Ok(format!("table {name} ({size}) of database \"{database}\" on \"{node}\" would get {what} from this node; {known}"))
}

/// Whether this member could be repaired from this node.
fn check_node(status: &GroupStatus, node: &str, own: &str) -> Result<(), Failure> {
    let refused = |message: String, hint: &str| {
        let hint = hint.to_owned();
        Err(Failure { kind: FailureKind::Membership, message, hint })
    };
    match status.members.iter().find(|member| member.name == node) {
        None => refused(format!("the group has no member \"{node}\""), "See gcs members."),
        Some(member) if member.state == MemberState::Unreachable => {
            refused(format!("member \"{node}\" cannot be reached"), "See gcs members.")
        }
        Some(_) if node == own => {
            let message = format!("node \"{node}\" is the one whose rows count");
            refused(message, "Run gcs repair on another node, which has what is right.")
        }
        Some(_) => Ok(()),
    }
}

fn connect(how: &How, database: &str) -> Result<Client, ServerError> {
    own_server::connect(&Config::load(&how.config).map_err(ControlError::from)?, database)
}

fn report(
    found: Result<Vec<Row>, ServerError>,
    how: &How,
    database: &str,
    table: Option<&str>,
    happened: impl FnOnce(&[Finding]) -> Happening,
) -> ExitCode {
    let findings = found.and_then(|rows| Ok(rows.iter().map(Finding::of).collect::<Result<Vec<_>, _>>()?));
    match findings {
        Ok(findings) => {
            note(&findings, how, database, table);
            tell_daemon(&happened(&findings), how);
            print!("{}", if how.json { to_json(&findings) } else { to_table(&findings) });
            if findings.iter().all(Finding::is_equal) { ExitCode::SUCCESS } else { ExitCode::from(NOT_EQUAL) }
        }
        Err(error) => own_server::failed(&error),
    }
}

/// For `gcs events`. A daemon that is not there, or too old, is not told.
fn tell_daemon(happening: &Happening, how: &How) {
    let Ok(config) = Config::load(&how.config) else { return };
    // Strings always have a JSON form.
    let payload = serde_json::to_vec(happening).unwrap_or_default();
    if let Err(error) = control::tell(&config.local_socket, &Request::Note, &payload, TELL_PATIENCE) {
        eprintln!("gcs: note: gcs events will not know of this: {error}");
    }
}

fn verified(findings: &[Finding], database: &str, table: Option<&str>) -> Happening {
    let what = table.map_or_else(|| format!("database {database}"), |table| format!("table {table} of database {database}"));
    let unequal: Vec<String> = findings
        .iter()
        .filter(|finding| !finding.is_equal())
        .map(|finding| format!("{} of {} {}", finding.table, finding.node, finding.verdict))
        .collect();
    let happening = if unequal.is_empty() {
        Happening::new("verified", format!("{what} was compared: equal on all nodes"))
    } else {
        Happening::new("divergence", format!("{what} was compared: {}", unequal.join(", ")))
    };
    happening.of_database(database)
}

fn repaired(findings: &[Finding], args: &RepairArgs) -> Happening {
    let verdict = if findings.iter().all(Finding::is_equal) { "it is equal now" } else { "it is not equal yet" };
    let text = format!("table {} of database {} on {} was repaired: {verdict}", args.table, args.database, args.node);
    Happening::new("repair", text).of_database(&args.database).of_member(&args.node)
}

/// For `gcs doctor`. Who may not write there has still been told what was found.
fn note(findings: &[Finding], how: &How, database: &str, table: Option<&str>) {
    let unequal = || findings.iter().filter(|finding| !finding.is_equal());
    let first = unequal().map(|Finding { table, node, verdict, .. }| {
        let (table, node, verdict) = (table.clone(), node.clone(), verdict.clone());
        Unequal { table, node, verdict }
    });
    let (at, tables) = (Moment::now().unix_seconds, count_tables(findings));
    let new = Verification { database: database.to_owned(), at, tables, unequal: unequal().count(), first: first.collect() };
    let noted = Config::load(&how.config).map(|config| verified::note(&config.data_directory, new, table));
    if let Ok(Err(error)) = noted {
        eprintln!("gcs: note: gcs doctor will not know of this: {error}");
    }
}

fn count_tables(findings: &[Finding]) -> usize {
    let mut tables: Vec<&str> = findings.iter().map(|finding| finding.table.as_str()).collect();
    tables.dedup();
    tables.len()
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
    text + &format!("{} of {} findings on {} tables are equal\n", equal.len(), findings.len(), count_tables(findings))
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

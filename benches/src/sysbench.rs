//! Runs sysbench 1.0 with the scripts that come with it, and reads what it reports.
//!
//! The same scripts run on PostgreSQL and on MariaDB. A transaction that lost against another is run again by sysbench, with both drivers, and counted as
//! an ignored error: with PostgreSQL for serialization failures, deadlocks and duplicate keys, with MariaDB for the errors that it is told. Ids are
//! chosen by the client (`auto_inc=off`), since Galera's own leave gaps. Rows are picked uniformly; hot rows are a load of pgbench's.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::latency::Samples;

/// All scripts of that kind make the same tables; one of them has to be named.
const PREPARES: &str = "oltp_read_write";
const TABLES: u32 = 4;
const ROWS_OF_A_TABLE: u32 = 25_000;
/// A deadlock or a lost certification, a row changed meanwhile, a lock not got in time, a duplicate key.
const LOST_IN_MARIADB: &str = "1213,1020,1205,1062";

#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub transactions: u64,
    pub tps: f64,
    /// Transactions that lost and were run again.
    pub ignored: u64,
    pub samples: Samples,
}

/// Where to connect, as options of sysbench.
#[derive(Clone, Debug)]
pub struct Connection(Vec<String>);

impl Connection {
    pub fn postgres(port: u16, user: &str, database: &str) -> Connection {
        Connection::of("pgsql", port, user, database)
    }

    pub fn mariadb(port: u16, user: &str, database: &str) -> Connection {
        let mut connection = Connection::of("mysql", port, user, database);
        connection.0.push(format!("--mysql-ignore-errors={LOST_IN_MARIADB}"));
        connection
    }

    fn of(driver: &str, port: u16, user: &str, database: &str) -> Connection {
        Connection(vec![
            format!("--db-driver={driver}"),
            format!("--{driver}-host=127.0.0.1"),
            format!("--{driver}-port={port}"),
            format!("--{driver}-user={user}"),
            format!("--{driver}-db={database}"),
        ])
    }

    fn command(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("sysbench");
        command.arg(script).args(&self.0);
        command.args([&format!("--tables={TABLES}"), &format!("--table-size={ROWS_OF_A_TABLE}"), "--auto_inc=off"]);
        command.args(["--rand-type=uniform", &format!("--rand-seed={}", seed())]).args(arguments);
        command.env_remove("PGOPTIONS").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Makes and fills the tables, which are the same for all loads.
    pub fn prepare(&self) -> Result<(), String> {
        let output = self.command(PREPARES, &["prepare"]).output().map_err(|error| format!("sysbench: {error}"))?;
        if output.status.success() { Ok(()) } else { Err(format!("sysbench prepare: {}", reason(&output))) }
    }

    /// The command of a timed run.
    pub fn timed(&self, script: &str, clients: u32, time: Duration) -> Command {
        let (clients, seconds) = (format!("--threads={clients}"), format!("--time={}", time.as_secs()));
        self.command(script, &[&clients, &seconds, "--events=0", "--histogram=on", "run"])
    }
}

/// Without one, programs that start within the same second pick the same rows.
fn seed() -> u32 {
    static STARTED: AtomicU32 = AtomicU32::new(1);
    let started = STARTED.fetch_add(1, Ordering::Relaxed);
    std::process::id().wrapping_mul(1000).wrapping_add(started) & 0x3fff_ffff
}

/// Waits for a run. An error is one that did not run to its end.
pub fn finish(child: Child) -> Result<Report, String> {
    let output = child.wait_with_output().map_err(|error| format!("sysbench: {error}"))?;
    if !output.status.success() {
        return Err(format!("sysbench ended with {}: {}", output.status, reason(&output)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Report::parse(&text).ok_or_else(|| format!("could not understand sysbench: {text}"))
}

/// Errors stand among the rest of what it says; the first is the cause.
fn reason(output: &std::process::Output) -> String {
    let text = [&output.stderr[..], &output.stdout[..]].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().find(|line| line.contains("FATAL") || line.contains("ALERT")).unwrap_or(text.trim()).to_owned()
}

impl Report {
    pub fn parse(text: &str) -> Option<Report> {
        let after = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label));
        let first = |label: &str| after(label)?.split_whitespace().next();
        let transactions = after("transactions:")?;
        let rate = transactions.split_once('(')?.1.split_whitespace().next()?;
        let transactions = transactions.split_whitespace().next()?.parse().ok()?;
        let counts = histogram(text).filter(|counts| !counts.is_empty() || transactions == 0)?;
        Some(Report {
            transactions,
            tps: rate.parse().ok()?,
            ignored: first("ignored errors:")?.parse().ok()?,
            samples: Samples::of_histogram(counts, first("max:")?.parse().ok()?),
        })
    }
}

/// Milliseconds and counts of its lines, which look like `  3.885 |***   12`. Without transactions there are none.
fn histogram(text: &str) -> Option<Vec<(f64, u64)>> {
    let lines = text.lines().filter_map(|line| line.split_once('|'));
    lines
        .map(|(value, bar)| {
            let count = bar.split_whitespace().last()?;
            Some((value.trim().parse().ok()?, count.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "sysbench 1.0.20 (using system LuaJIT 2.1.0-beta3)\n\nRunning the test with following options:\n\
        Number of threads: 16\nInitializing random number generator from seed (6).\n\n\nThreads started!\n\n\
        Latency histogram (values are in milliseconds)\n       value  ------------- distribution ------------- count\n\
        \x20      3.488 |*                                        1\n\
        \x20     24.827 |**************************************** 74\n\
        \x20     52.889 |                                         1\n \n\
        SQL statistics:\n    queries performed:\n        read:                            0\n\
        \x20       write:                           9430\n        other:                           4663\n\
        \x20       total:                           14093\n\
        \x20   transactions:                        2304   (758.81 per sec.)\n\
        \x20   queries:                             14093  (4641.43 per sec.)\n\
        \x20   ignored errors:                      55     (18.11 per sec.)\n\
        \x20   reconnects:                          0      (0.00 per sec.)\n\n\
        General statistics:\n    total time:                          3.0360s\n\
        \x20   total number of events:              2304\n\n\
        Latency (ms):\n         min:                                    3.46\n\
        \x20        avg:                                   20.93\n         max:                                   63.14\n\
        \x20        95th percentile:                       34.95\n         sum:                                48233.52\n";

    #[test]
    fn a_report_of_sysbench_1_0_is_understood() {
        let report = Report::parse(REPORT).unwrap();
        assert_eq!((report.transactions, report.tps, report.ignored), (2304, 758.81, 55));
        assert_eq!(report.samples, Samples::of_histogram(vec![(3.488, 1), (24.827, 74), (52.889, 1)], 63.14));
    }

    #[test]
    fn a_report_without_its_histogram_or_its_end_is_none() {
        assert_eq!(Report::parse(&REPORT.replace('|', " ")), None);
        assert_eq!(Report::parse(&REPORT.replace(" 74\n", " *\n")), None);
        assert_eq!(Report::parse(REPORT.split_once("Latency (ms)").unwrap().0), None);
    }

    #[test]
    fn no_two_runs_have_the_same_seed() {
        assert_ne!(seed(), seed());
    }
}

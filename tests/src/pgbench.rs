//! Runs pgbench and reads what it reports.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gcs::playground::cluster::SUPERUSER;

/// One run against one server.
#[derive(Clone, Debug)]
pub struct Pgbench {
    /// PostgreSQL's programs.
    pub bin: PathBuf,
    pub port: u16,
    pub database: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub transactions: u64,
    pub failed: u64,
    pub retries: u64,
    pub latency_ms: f64,
    pub tps: f64,
    /// Lines that it wrote beside its report.
    pub complaints: Vec<String>,
}

impl Pgbench {
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.bin.join("pgbench"));
        command.args(["-h", "127.0.0.1", "-U", SUPERUSER, "-p", &self.port.to_string()]).args(arguments).arg(&self.database);
        command.env_remove("PGOPTIONS").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `pgbench -i`.
    pub fn initialize(&self, scale: u32) -> Result<(), String> {
        self.initialize_with(scale, "")
    }

    /// The same, with these settings of the session, as PGOPTIONS has them.
    pub fn initialize_with(&self, scale: u32, options: &str) -> Result<(), String> {
        let mut command = self.command(&["-i", "-q", "-s", &scale.to_string()]);
        let output = command.env("PGOPTIONS", options).output().map_err(|error| error.to_string())?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    /// Starts a timed run; losers of a conflict are run again by pgbench.
    pub fn spawn(&self, clients: u32, time: Duration, arguments: &[&str]) -> std::io::Result<Child> {
        self.timed(clients, time, arguments).spawn()
    }

    /// The command of such a run.
    pub fn timed(&self, clients: u32, time: Duration, arguments: &[&str]) -> Command {
        let (clients, seconds) = (clients.to_string(), time.as_secs().to_string());
        let mut all = vec!["-n", "-c", &clients, "-j", "2", "-T", &seconds, "--max-tries=1000"];
        all.extend(arguments);
        self.command(&all)
    }
}

/// Waits for a run. An error is one that did not run to its end.
pub fn finish(child: Child) -> Result<Report, String> {
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let complaints: Vec<String> =
        stderr.lines().filter(|line| line.contains("error") || line.contains("FATAL")).map(str::to_owned).collect();
    if !output.status.success() {
        return Err(format!("pgbench ended with {}: {}", output.status, stderr.trim()));
    }
    Report::parse(&stdout, complaints).ok_or_else(|| format!("could not understand pgbench: {stdout}"))
}

impl Report {
    pub fn parse(text: &str, complaints: Vec<String>) -> Option<Report> {
        let after = |label: &str| {
            let line = text.lines().find(|line| line.starts_with(label))?;
            line[label.len()..].split_whitespace().next().map(str::to_owned)
        };
        let transactions: u64 = after("number of transactions actually processed:")?.split('/').next()?.parse().ok()?;
        // Of nothing there is no average, and the line is not there.
        let average = |label: &str| match after(label) {
            None if transactions == 0 => Some(0.0),
            found => found?.parse().ok(),
        };
        Some(Report {
            transactions,
            failed: after("number of failed transactions:")?.parse().ok()?,
            retries: after("total number of retries:").map_or(Some(0), |text| text.parse().ok())?,
            latency_ms: average("latency average =")?,
            tps: average("tps =")?,
            complaints,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_pgbench_15_is_understood() {
        let text = "pgbench (15.20 (Debian 15.20-0+deb12u1))\ntransaction type: <builtin: TPC-B (sort of)>\nscaling factor: 10\n\
            query mode: simple\nnumber of clients: 8\nnumber of threads: 2\nmaximum number of tries: 1000\nduration: 30 s\n\
            number of transactions actually processed: 12345\nnumber of failed transactions: 0 (0.000%)\n\
            number of transactions retried: 70 (0.567%)\ntotal number of retries: 81\n\
            latency average = 19.441 ms (including failures)\ninitial connection time = 11.007 ms\n\
            tps = 411.500000 (without initial connection time)\n";
        let report = Report::parse(text, Vec::new()).unwrap();
        let expected =
            Report { transactions: 12345, failed: 0, retries: 81, latency_ms: 19.441, tps: 411.5, complaints: Vec::new() };
        assert_eq!(report, expected);
    }

    #[test]
    fn a_report_of_nothing_is_understood() {
        let text = "number of transactions actually processed: 0\nnumber of failed transactions: 0 (NaN%)\n\
            number of transactions retried: 0 (NaN%)\ntotal number of retries: 0\n";
        let report = Report::parse(text, Vec::new()).unwrap();
        assert_eq!((report.transactions, report.latency_ms), (0, 0.0));
        assert_eq!(Report::parse(&text.replace("processed: 0", "processed: 1"), Vec::new()), None);
    }
}

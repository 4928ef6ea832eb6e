//! One PostgreSQL cluster: made, started, stopped, killed. Knows nothing of replication; the benchmarks use it plain.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::account::Account;
use super::process::{Process, Signal};
use super::{Error, Result};

/// Recovery after a kill reads at most max_wal_size (1 GB).
const START_MAX: Duration = Duration::from_secs(120);
/// A fast shutdown; then an immediate one; then KILL.
const STOP_FAST_MAX: Duration = Duration::from_secs(30);
const STOP_IMMEDIATE_MAX: Duration = Duration::from_secs(10);
/// How soon backends must have noticed that their postmaster is gone.
const ORPHANS_MAX: Duration = Duration::from_secs(10);

/// The superuser of every cluster made here.
pub const SUPERUSER: &str = "postgres";

#[derive(Clone, Debug)]
pub struct Cluster {
    /// PostgreSQL's programs.
    pub bin: PathBuf,
    pub account: Account,
    /// Holds `data`, the log and the Unix socket. Must exist and belong to the account.
    pub home: PathBuf,
    pub port: u16,
}

impl Cluster {
    pub fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    pub fn log(&self) -> PathBuf {
        self.home.join("postgres.log")
    }

    pub fn uri(&self, database: &str) -> String {
        format!("postgresql://{SUPERUSER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes the cluster; `settings` are lines for postgresql.conf after the ones every cluster here has.
    pub fn init(&self, settings: &str) -> Result<()> {
        let mut initdb = self.account.command(&self.bin.join("initdb"), &self.home);
        initdb.arg("-D").arg(self.data()).args([
            "-U",
            SUPERUSER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]);
        run(&mut initdb, "initdb")?;
        self.configure(settings)
    }

    /// Settings that count, whatever the file has said so far.
    pub fn configure(&self, settings: &str) -> Result<()> {
        let file = self.data().join("postgresql.conf");
        let mut conf = fs::OpenOptions::new().append(true).open(&file).map_err(Error::file("open", &file))?;
        let text = format!("{}{settings}", self.common_settings());
        conf.write_all(text.as_bytes()).map_err(Error::file("write", &file))
    }

    fn common_settings(&self) -> String {
        format!(
            "\n# Written by gcs playground.\nlisten_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\n\
             max_connections = 200\nshared_buffers = '128MB'\nmax_wal_size = '1GB'\nwal_level = replica\nmax_wal_senders = 4\n\
             log_line_prefix = '%m [%p] %q%u@%d '\ntimezone = 'UTC'\nlog_timezone = 'UTC'\n",
            self.port,
            quote_setting(&self.home)
        )
    }

    /// The running postmaster.
    pub fn process(&self) -> Option<Process> {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        Process::find(text.lines().next()?.trim().parse().ok()?, &self.data())
    }

    /// Returns once it accepts connections or would, but for its extensions' own reasons. Does nothing if it runs.
    pub fn start(&self) -> Result<()> {
        if self.process().is_some() {
            return Ok(());
        }
        self.wait_orphans()?;
        self.drop_stale_locks()?;
        let log_before = fs::metadata(self.log()).map_or(0, |meta| meta.len());
        let mut pg_ctl = self.account.command(&self.bin.join("pg_ctl"), &self.home);
        pg_ctl.args(["start", "-s", "-w", "-t", &START_MAX.as_secs().to_string()]);
        pg_ctl.arg("-D").arg(self.data()).arg("-l").arg(self.log());
        // The server inherits these and keeps them open: with a pipe here we would wait for its end.
        pg_ctl.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let status = pg_ctl.status().map_err(|error| Error::failed(format!("could not run pg_ctl: {error}")))?;
        if status.success() {
            return Ok(());
        }
        let reason = last_complaint(&self.log(), log_before).unwrap_or_else(|| "no reason in its log".to_owned());
        let message = format!("PostgreSQL on port {} did not start: {reason}", self.port);
        Err(Error::failed(message).hint(format!("Its log is {}.", self.log().display())))
    }

    /// After a kill, PostgreSQL believes its old lock files for as long as the old pid is in the process table, if only as a
    /// zombie that nobody has waited for yet. No process works in the directory any more, so nobody holds the locks.
    fn drop_stale_locks(&self) -> Result<()> {
        let socket_lock = self.home.join(format!(".s.PGSQL.{}.lock", self.port));
        for lock in [self.data().join("postmaster.pid"), socket_lock] {
            if let Err(error) = fs::remove_file(&lock)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                return Err(Error::file("remove", &lock)(error));
            }
        }
        Ok(())
    }

    /// Ends every process of the cluster, gently if it lets us. True if it did.
    pub fn stop(&self) -> Result<bool> {
        let gentle = match self.process() {
            Some(postmaster) => {
                postmaster.signal(Signal::INT);
                postmaster.wait_until(Instant::now() + STOP_FAST_MAX) || {
                    postmaster.signal(Signal::QUIT);
                    if !postmaster.wait_until(Instant::now() + STOP_IMMEDIATE_MAX) {
                        postmaster.signal(Signal::KILL);
                    }
                    false
                }
            }
            None => true,
        };
        Ok(self.wait_orphans()? && gentle)
    }

    /// Waits until no process works for the cluster any more, and ends what does not notice. True if nothing had to be.
    pub fn wait_orphans(&self) -> Result<bool> {
        if end_all_in(&self.data(), ORPHANS_MAX) {
            return Ok(true);
        }
        match Process::all_in(&self.data()).first() {
            None => Ok(false),
            Some(process) => Err(Error::failed(format!("process {} of {} does not end", process.pid, self.home.display()))),
        }
    }
}

/// Waits for the end of every process in the directory, then kills. True if nothing had to be killed.
fn end_all_in(directory: &Path, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    let late: Vec<Process> =
        Process::all_in(directory).into_iter().filter(|process| !process.wait_until(deadline)).collect();
    for process in &late {
        process.signal(Signal::KILL);
    }
    let deadline = Instant::now() + patience;
    for process in &late {
        process.wait_until(deadline);
    }
    late.is_empty()
}

/// A string for postgresql.conf, without its quotes.
pub fn quote_setting(path: &Path) -> String {
    path.display().to_string().replace('\'', "''")
}

/// Runs a program to its end; its last words on stderr become the error.
pub fn run(command: &mut Command, name: &str) -> Result<String> {
    let output = command.output().map_err(|error| {
        let error = Error::failed(format!("could not run {}: {error}", command.get_program().display()));
        error.hint("Set PG_CONFIG to the pg_config of a PostgreSQL 15, 17 or 18; `make setup` installs Debian's.")
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message");
    Err(Error::failed(format!("{name} failed: {}", last.trim())))
}

/// The first line that says why the process ended, or else the last line, that the log got after byte `from`.
pub fn last_complaint(log: &Path, from: u64) -> Option<String> {
    let bytes = fs::read(log).ok()?;
    let text = String::from_utf8_lossy(bytes.get(from as usize..)?).into_owned();
    let grave = |line: &&str| ["FATAL:", "PANIC:", "gcs: error: "].iter().any(|word| line.contains(word));
    let line = text.lines().find(grave).or_else(|| text.lines().rev().find(|line| !line.trim().is_empty()))?;
    Some(line.trim().trim_start_matches("gcs: error: ").to_owned())
}

//! One MariaDB, alone or as a node of a Galera cluster: made, started, ended.
//!
//! It listens on loopback only, writes its log to disk at each commit, and ends when this process does, however that ends (`setpriv --pdeathsig`).

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gcs::playground::cluster::{last_complaint, run};
use gcs::playground::process::{Process, Signal};
use postgres_r_tests::harness::{ports, wait};

use super::site::Site;
use crate::server::Server;
use crate::sysbench::Connection;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Not in every user's PATH.
const PROGRAM: &str = "/usr/sbin/mariadbd";
const USER: &str = "root";
const DATABASE: &str = "sbtest";
/// A node of Galera copies another's files meanwhile.
const START_MAX: Duration = Duration::from_secs(120);
const STOP_MAX: Duration = Duration::from_secs(60);

pub struct Mariadb {
    home: PathBuf,
    port: u16,
    child: Child,
}

impl Mariadb {
    pub fn start_alone(site: &Site) -> Result<Mariadb> {
        let mut mariadb = Mariadb::start(site, "mariadb", &[])?;
        mariadb.wait_for("SELECT 1", "1")?;
        mariadb.make_database()?;
        Ok(mariadb)
    }

    /// Returns before it is ready (`wait_for`).
    pub fn start(site: &Site, name: &str, settings: &[String]) -> Result<Mariadb> {
        let home = site.home(name)?;
        let mut install = site.account.command(Path::new("mariadb-install-db"), &home);
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        run(install.arg(format!("--datadir={}", data(&home).display())), "mariadb-install-db")?;
        let port = ports::free_one();
        let mut command = site.account.command(Path::new("setpriv"), &home);
        // Gently it would not end in the middle of a copy, and its data go with us.
        command.args(["--pdeathsig", "KILL", PROGRAM]).args(common_settings(&home, port)).args(settings);
        // It writes a log. What it says before that is of no use, and a pipe would have to be read.
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Mariadb { home, port, child })
    }

    pub fn data(&self) -> PathBuf {
        data(&self.home)
    }

    pub fn server(&self) -> Server {
        Server::Mariadb(Connection::mariadb(self.port, USER, DATABASE))
    }

    pub fn make_database(&self) -> Result<()> {
        self.execute(&format!("CREATE DATABASE {DATABASE}")).map(drop)
    }

    /// Runs statements with MariaDB's own client; what the last one returns, without heads of columns.
    pub fn execute(&self, sql: &str) -> Result<String> {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "-h", "127.0.0.1", "-u", USER, "-P", &self.port.to_string()]);
        command.args(["-N", "-B", "-e", sql]).stdin(Stdio::null());
        Ok(run(&mut command, "mariadb")?.trim().to_owned())
    }

    /// Returns once the query gives that, or with what the server said when it ended instead.
    pub fn wait_for(&mut self, query: &str, expected: &str) -> Result<()> {
        let what = format!("MariaDB in {} to answer \"{expected}\" to \"{query}\"", self.home.display());
        let (ended, _) = wait::until(&what, START_MAX, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(Some(status.to_string())),
            Err(error) => Ok(Some(error.to_string())),
            Ok(None) => match self.execute(query) {
                Ok(found) if found == expected => Ok(None),
                Ok(found) => Err(format!("it answers \"{found}\"")),
                Err(error) => Err(error.to_string()),
            },
        });
        let Some(status) = ended else { return Ok(()) };
        let reason = last_complaint(&log(&self.home), 0).unwrap_or_else(|| "no reason in its log".to_owned());
        Err(format!("MariaDB in {} ended with {status}: {reason}", self.home.display()).into())
    }
}

impl Drop for Mariadb {
    fn drop(&mut self) {
        let ended = Process::find(self.child.id() as i32, &self.data()).is_some_and(|process| {
            process.signal(Signal::TERM);
            process.wait_until(Instant::now() + STOP_MAX)
        });
        if !ended && self.child.kill().is_err() {
            eprintln!("bench: MariaDB in {} had ended before", self.home.display());
        }
        if let Err(error) = self.child.wait() {
            eprintln!("bench: MariaDB in {}: {error}", self.home.display());
        }
    }
}

fn data(home: &Path) -> PathBuf {
    home.join("data")
}

fn log(home: &Path) -> PathBuf {
    home.join("mariadb.log")
}

fn common_settings(home: &Path, port: u16) -> Vec<String> {
    vec![
        "--no-defaults".to_owned(),
        format!("--datadir={}", data(home).display()),
        format!("--socket={}", home.join("mariadb.sock").display()),
        format!("--pid-file={}", home.join("mariadb.pid").display()),
        format!("--log-error={}", log(home).display()),
        format!("--port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--skip-name-resolve".to_owned(),
        "--max-connections=200".to_owned(),
        "--default-storage-engine=InnoDB".to_owned(),
        "--innodb-buffer-pool-size=256M".to_owned(),
        "--innodb-log-file-size=512M".to_owned(),
        "--innodb-flush-log-at-trx-commit=1".to_owned(),
    ]
}

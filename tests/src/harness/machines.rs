//! Machines of a group that is set up as docs/operations.md says, command by command: directories, addresses on loopback, and what runs there.
//! Everything ends when the value does.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::Mutex;
use std::time::Duration;

use gcs::playground::account::Account;
use gcs::playground::cluster::{Cluster, SUPERUSER};
use gcs::playground::daemon::copy_program;
use gcs::playground::group::{describe, find_postgres};
use gcs::playground::process::{Process, Signal};
use postgres::{Client, NoTls};
use tempfile::TempDir;

use super::{ports, programs, wait};

const STOP_MAX: Duration = Duration::from_secs(30);

pub struct Machines {
    directory: TempDir,
    account: Account,
    /// The daemon's program, where the account can run it.
    gcs: PathBuf,
    /// Of each machine: of PostgreSQL, and of the daemon.
    ports: Vec<(u16, u16)>,
    daemons: Mutex<Vec<Option<Child>>>,
}

impl Machines {
    pub fn new(count: usize) -> Machines {
        let ports = ports::free(2 * count);
        let ports = ports.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        let directory = tempfile::Builder::new().prefix("postgres_r.").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let account = Account::choose().unwrap();
        let daemons = Mutex::new((0..count).map(|_| None).collect());
        let gcs = copy_program(&programs::gcs(), &directory.path().join("bin")).unwrap();
        let machines = Machines { directory, account, gcs, ports, daemons };
        for number in 1..=count {
            fs::create_dir(machines.home(number)).unwrap();
            machines.account.give(&machines.home(number)).unwrap();
        }
        machines
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn home(&self, number: usize) -> PathBuf {
        self.directory.path().join(format!("machine{number}"))
    }

    pub fn config(&self, number: usize) -> PathBuf {
        self.home(number).join("gcs.toml")
    }

    /// Where the daemon listens.
    pub fn address(&self, number: usize) -> String {
        format!("127.0.0.1:{}", self.ports[number - 1].1)
    }

    pub fn port(&self, number: usize) -> u16 {
        self.ports[number - 1].0
    }

    pub fn cluster(&self, number: usize) -> Cluster {
        let (bin, account) = (find_postgres().unwrap(), self.account.clone());
        Cluster { bin, account, home: self.home(number), port: self.port(number) }
    }

    /// Runs a command of gcs there.
    pub fn run(&self, number: usize, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.gcs);
        command.args(arguments).arg("--config").arg(self.config(number));
        if matches!(arguments[0], "init" | "join") {
            let home = self.home(number);
            command.args(["--user", self.account.name()]);
            command.arg("--directory").arg(home.join("lib")).arg("--socket").arg(home.join("gcs.sock"));
        }
        command.output().unwrap()
    }

    /// What it prints, once it is done.
    pub fn done(&self, number: usize, arguments: &[&str]) -> String {
        let output = self.run(number, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The first machine: its server has a database before there is a group.
    pub fn found(&self) {
        let (cluster, socket) = (self.cluster(1), self.home(1).join("gcs.sock"));
        cluster.init(&settings(&socket)).unwrap();
        self.done(1, &["init", "--group", "postgresr", "--name", "node1", "--address", &self.address(1)]);
        self.start_daemon(1);
        cluster.start().unwrap();
        self.execute(1, "postgres", "CREATE DATABASE shop");
    }

    /// What makes the database of a server that runs the group's, or a copy of the group's.
    pub fn replicate(&self, number: usize) {
        self.execute(number, "shop", "CREATE EXTENSION postgres_r");
        self.execute(number, "shop", "ALTER DATABASE shop START REPLICATION IN GROUP postgresr");
    }

    /// What is typed on another machine, where nothing is but programs.
    pub fn join(&self, number: usize) -> Output {
        let (home, port) = (self.home(number), self.port(number));
        let data = home.join("data").display().to_string();
        let start = format!(
            "{} -D {data} -l {home}/postgres.log -o '-c port={port} -c unix_socket_directories={home}' -w start",
            self.cluster(number).bin.join("pg_ctl").display(),
            home = home.display(),
        );
        self.join_with(number, &["--pgdata", &data, "--start", &start])
    }

    /// Likewise, where there is a server already, which is made here.
    pub fn join_with_server(&self, number: usize) {
        let (cluster, socket) = (self.cluster(number), self.home(number).join("gcs.sock"));
        cluster.init(&settings(&socket)).unwrap();
        let joined = self.join_with(number, &[]);
        assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
        self.start_daemon(number);
        cluster.start().unwrap();
        self.execute(number, "postgres", "CREATE DATABASE shop");
    }

    fn join_with(&self, number: usize, options: &[&str]) -> Output {
        let (token, name, address) = (self.done(1, &["token"]), format!("node{number}"), self.address(number));
        let arguments = ["join", &self.address(1), "--token", token.trim(), "--name", &name, "--address", &address];
        self.run(number, &[&arguments[..], options].concat())
    }

    /// `gcs run`, until it answers.
    pub fn start_daemon(&self, number: usize) {
        let log = self.home(number).join("gcs.log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = self.account.command(&self.gcs, &self.home(number));
        command.arg("run").arg("--config").arg(self.config(number)).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemons.lock().unwrap()[number - 1] = Some(command.spawn().unwrap());
        wait::until("the daemon answers", STOP_MAX, || {
            let output = self.run(number, &["status"]);
            if output.status.success() { Ok(()) } else { Err(self.log(number)) }
        });
    }

    pub fn stop_daemon(&self, number: usize) {
        let Some(mut child) = self.daemons.lock().unwrap()[number - 1].take() else { return };
        if let Some(process) = Process::find(child.id() as i32, &self.home(number)) {
            process.signal(Signal::TERM);
        }
        child.wait().unwrap();
    }

    /// What the daemon has said.
    pub fn log(&self, number: usize) -> String {
        fs::read_to_string(self.home(number).join("gcs.log")).unwrap_or_default()
    }

    pub fn try_connect(&self, number: usize, database: &str) -> Result<Client, postgres::Error> {
        let mut config = postgres::Config::new();
        config.host("127.0.0.1").port(self.port(number)).user(SUPERUSER).dbname(database).connect(NoTls)
    }

    pub fn execute(&self, number: usize, database: &str, sql: &str) {
        let done = self.try_connect(number, database).and_then(|mut client| client.batch_execute(sql));
        done.unwrap_or_else(|error| panic!("machine {number}: {sql}: {}", describe(&error)));
    }
}

fn settings(socket: &Path) -> String {
    format!("shared_preload_libraries = 'postgres_r'\npostgres_r.gcs_socket = '{}'\n", socket.display())
}

impl Drop for Machines {
    fn drop(&mut self) {
        for number in 1..=self.ports.len() {
            if std::thread::panicking() {
                eprintln!("--- machine {number}\n{}", self.log(number));
            }
            let stopped = self.cluster(number).stop();
            self.stop_daemon(number);
            if !std::thread::panicking() {
                stopped.unwrap();
            }
        }
    }
}

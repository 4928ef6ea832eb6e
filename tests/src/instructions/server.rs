//! The PostgreSQL server of one node of a group, under callgrind.
//!
//! The server is stopped and started again by hand, with valgrind before its name. Each of its processes writes a file of its own when it ends,
//! so what is counted of one session is counted by ending it. The daemons and the other nodes run as always: nobody there waits for
//! more than a commit or two of this server, some milliseconds each, and no setting of the group has to be changed for that.
//!
//! What a process does first (it reads catalogs, fills caches, binds symbols) would hide what a transaction costs. So each step is done
//! [`FEW`] times in one process and [`MANY`] times in another, and the difference counts.
//!
//! Only one remote backend applies, and it is ended after each step for its file. It takes positions together where more than one waits, which is cheaper;
//! so each transaction of the other node is applied here before the next one begins. Checkpoints, and the full page images that follow
//! them, are kept away.

use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use gcs::playground::cluster::Cluster;
use gcs::playground::process::Signal;
use gcs::playground::{NodeNumber, Part};
use postgres::Client;

use super::callgrind;
use super::profile::Profile;
use crate::harness::{Group, wait};

pub const FEW: i32 = 50;
pub const MANY: i32 = 350;

const STARTS_WITHIN: Duration = Duration::from_secs(60);
const ENDS_WITHIN: Duration = Duration::from_secs(30);
const SETTINGS: [&str; 5] = [
    "postgres_r.apply_workers = 1",
    "autovacuum = off",
    "full_page_writes = off",
    "checkpoint_timeout = '1h'",
    "max_parallel_workers_per_gather = 0",
];

/// Stopped when dropped.
pub struct Counted<'a> {
    group: &'a Group,
    node: NodeNumber,
    server: Child,
    files: PathBuf,
}

/// A process with few transactions and one with many.
pub struct Pair {
    few: Profile,
    many: Profile,
}

impl Pair {
    /// Instructions of a transaction, of all that the process does.
    pub fn of_all(&self) -> u64 {
        per_transaction(self.few.instructions, self.many.instructions)
    }

    /// Instructions of a transaction, in this function and what it calls.
    pub fn of(&self, function: &str) -> Result<u64, String> {
        let (few, many) = (self.few.calls(function), self.many.calls(function));
        if many.calls < few.calls + (MANY - FEW) as u64 {
            return Err(format!(
                "{function} was called {} and {} times in {FEW} and {MANY} transactions; has the compiler put it into its caller, or has it \
                 another name now?",
                few.calls, many.calls
            ));
        }
        Ok(per_transaction(few.instructions, many.instructions))
    }
}

fn per_transaction(few: u64, many: u64) -> u64 {
    many.saturating_sub(few) / (MANY - FEW) as u64
}

impl<'a> Counted<'a> {
    pub fn start(group: &'a Group, node: NodeNumber) -> Counted<'a> {
        for setting in SETTINGS {
            group.execute(node, &format!("ALTER SYSTEM SET {setting}"));
        }
        group.signal(node, Part::Postgres, Signal::INT);
        let cluster = group.playground.cluster(node);
        let files = cluster.home.join("callgrind");
        fs::create_dir(&files).unwrap_or_else(|error| panic!("could not make {}: {error}", files.display()));
        cluster.account.give(&files).unwrap_or_else(|error| panic!("{error}"));
        let server = command(&cluster, &files).spawn().unwrap_or_else(|error| panic!("could not run valgrind: {error}"));
        let counted = Counted { group, node, server, files };
        wait::until("a server under valgrind", STARTS_WITHIN, || {
            cluster.process().ok_or_else(|| "it is not there".to_owned())
        });
        group.playground.wait_online(&[node]).unwrap_or_else(|error| panic!("{error}"));
        counted
    }

    /// Runs the statement once for each number, in a session on this server, and returns the pid of its process.
    pub fn client(&self, statement: &str, numbers: Range<i32>) -> i32 {
        let mut client = self.group.connect(self.node);
        let pid = client.query_one("SELECT pg_backend_pid()", &[]).map_or(0, |row| row.get(0));
        each(&mut client, statement, numbers);
        drop(client);
        self.await_end(pid);
        pid
    }

    /// Runs the statement on that node, and returns the pid of the process here that has applied it all.
    pub fn applied(&self, elsewhere: NodeNumber, statement: &str, numbers: Range<i32>) -> i32 {
        let mut client = self.group.connect(elsewhere);
        let waits = client.batch_execute("SET postgres_r.commit_level = after");
        waits.unwrap_or_else(|error| panic!("postgres_r.commit_level: {error}"));
        each(&mut client, statement, numbers);
        let mut client = self.group.connect(self.node);
        let query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'postgres_r remote backend'";
        let pids = client.query(query, &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(pids.len(), 1, "remote backends, of postgres_r.apply_workers = 1");
        let pid = pids[0].get::<_, i32>(0);
        let end = client.execute("SELECT pg_terminate_backend($1)", &[&pid]);
        end.unwrap_or_else(|error| panic!("could not end the remote backend: {error}"));
        self.await_end(pid);
        pid
    }

    /// What [`Counted::client`] or [`Counted::applied`] took, for rows from this number on.
    pub fn pair(&self, run: impl Fn(Range<i32>) -> i32, first: i32) -> Pair {
        let few = run(first..first + FEW);
        let many = run(first + FEW..first + FEW + MANY);
        let read = |pid: i32| Profile::read(&self.files.join(pid.to_string())).unwrap_or_else(|why| panic!("{why}"));
        Pair { few: read(few), many: read(many) }
    }

    fn await_end(&self, pid: i32) {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        wait::until(&format!("the end of process {pid}"), ENDS_WITHIN, || {
            if directory.exists() { Err("it runs".to_owned()) } else { Ok(()) }
        });
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        // The server waits for its processes.
        let _ = self.group.playground.kill(self.node, Part::Postgres, Signal::INT);
        let deadline = Instant::now() + ENDS_WITHIN;
        while matches!(self.server.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn command(cluster: &Cluster, files: &Path) -> Command {
    let words = callgrind::words(files);
    let mut command = cluster.account.command(words[0].as_ref(), &cluster.home);
    command.args(&words[1..]).arg(cluster.bin.join("postgres")).arg("-D").arg(cluster.data());
    let (variable, value) = callgrind::PLAIN_FUNCTIONS;
    command.env(variable, value);
    let log = File::options().append(true).create(true).open(cluster.log());
    let log = log.and_then(|log| Ok((log.try_clone()?, log)));
    let (out, err) = log.unwrap_or_else(|error| panic!("could not open {}: {error}", cluster.log().display()));
    command.stdout(out).stderr(err);
    command
}

/// Each a transaction of its own.
fn each(client: &mut Client, statement: &str, numbers: Range<i32>) {
    let failed = |error| -> ! { panic!("{statement}: {}", gcs::playground::group::describe(&error)) };
    let prepared = client.prepare(statement).unwrap_or_else(|error| failed(error));
    for number in numbers {
        client.execute(&prepared, &[&number]).unwrap_or_else(|error| failed(error));
    }
}

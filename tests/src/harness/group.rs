//! One group, for as long as the value lives.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use gcs::playground::group::Started;
use gcs::playground::process::Signal;
use gcs::playground::status::{self, Status};
use gcs::playground::{NodeNumber, Part, Place, Playground};
use postgres::Client;

use super::{programs, wait};

/// Below Linux's ephemeral ports, above everything registered that we know of.
const BASE_PORTS: std::ops::Range<u16> = 10_000..30_000;
const PORT_TRIES: u16 = 50;
/// Groups of one process that begin to look for ports at different ones.
const GROUPS_SPREAD: u32 = 64;
const STOP_MAX: Duration = Duration::from_secs(90);
/// From an acknowledged commit to its presence on all nodes.
const SETTLE_MAX: Duration = Duration::from_secs(120);

/// Short for [`NodeNumber`]; counts from 1.
pub fn node(number: usize) -> NodeNumber {
    NodeNumber(number)
}

pub struct Group {
    child: Child,
    dir: PathBuf,
    pub playground: Playground,
}

impl Group {
    /// Three nodes, online, database `shop`.
    pub fn start() -> Group {
        Group::start_nodes(3)
    }

    pub fn start_nodes(nodes: usize) -> Group {
        Group::try_start(nodes).unwrap_or_else(|error| panic!("could not start a group: {error}"))
    }

    /// On the first free ports.
    pub fn try_start(nodes: usize) -> Result<Group, String> {
        Group::try_start_with(nodes, &[])
    }

    /// The same, with a daemon in each of these places.
    pub fn try_start_at(places: &[Place]) -> Result<Group, String> {
        Group::try_start_with(places.len(), places)
    }

    fn try_start_with(nodes: usize, places: &[Place]) -> Result<Group, String> {
        static GROUPS: AtomicU32 = AtomicU32::new(0);
        let number = GROUPS.fetch_add(1, Ordering::Relaxed) % GROUPS_SPREAD;
        let mut last = String::new();
        for attempt in 0..PORT_TRIES {
            match Group::start_on(nodes, base_port(number, attempt), places) {
                Err(error) if error.contains("cannot be used") => last = error,
                other => return other,
            }
        }
        Err(last)
    }

    fn start_on(nodes: usize, base_port: u16, places: &[Place]) -> Result<Group, String> {
        let places = places.iter().map(|place| serde_json::to_string(place).map(|text| ["--place".to_owned(), text]));
        let places: Vec<[String; 2]> = places.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let dir = tempfile::Builder::new().prefix("postgres_r.").tempdir().map_err(|error| error.to_string())?.keep();
        // The shell outlives gcs, so that the files go away too, also when this process is killed; unless a test failed.
        let script = r#""$0" "$@"; status=$?; [ -e "$DIR/keep" ] || rm -rf "$DIR"; exit $status"#;
        let mut child = Command::new("/bin/sh")
            .args(["-c", script])
            .arg(programs::gcs())
            .args(["playground", "start", "--until-eof", "--nodes", &nodes.to_string()])
            .args(["--base-port", &base_port.to_string(), "--dir"])
            .arg(&dir)
            .args(places.iter().flatten())
            .env("DIR", &dir)
            // A Ctrl-C is for us; the child ends when we do.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        match wait_for_uris(&mut child, nodes) {
            Ok(()) => {
                let playground = Playground::open(&dir).map_err(|error| error.to_string())?;
                let group = Group { child, dir, playground };
                group.execute(node(1), "CREATE SCHEMA harness; CREATE TABLE harness.marker (mark bigint PRIMARY KEY)");
                // Definitions of other nodes must not meet it.
                group.settle();
                Ok(group)
            }
            Err(()) => {
                let mut error = String::new();
                let _ = child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut error));
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// One more node, made by the command that people use, while everybody goes on.
    pub fn add_node(&self) -> Result<(), String> {
        self.add(&[])
    }

    /// Likewise, with a copy of another's whole server.
    pub fn add_node_with_server(&self) -> Result<(), String> {
        self.add(&["--physical"])
    }

    /// Likewise, with this role.
    pub fn add_node_as(&self, role: &str) -> Result<(), String> {
        self.add(&["--role", role])
    }

    /// Likewise, with another PostgreSQL than the group's.
    pub fn add_node_with(&self, pg_config: &Path) -> Result<(), String> {
        self.add_by(Command::new(programs::gcs()).env("PG_CONFIG", pg_config), &[])
    }

    fn add(&self, options: &[&str]) -> Result<(), String> {
        self.add_by(&mut Command::new(programs::gcs()), options)
    }

    fn add_by(&self, command: &mut Command, options: &[&str]) -> Result<(), String> {
        command.args(["playground", "add-node", "--dir"]).arg(&self.dir).args(options);
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    /// The group with the nodes that were added.
    pub fn reload(&mut self) {
        self.playground = self.playground.as_it_is().unwrap_or_else(|error| panic!("{error}"));
    }

    pub fn numbers(&self) -> Vec<NodeNumber> {
        self.playground.numbers()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn database(&self) -> &str {
        &self.playground.manifest.database
    }

    /// The major version of PostgreSQL on node 1.
    pub fn major(&self) -> u32 {
        let value = self.value(NodeNumber(1), "current_setting('server_version_num')::int / 10000");
        value.parse().unwrap_or_else(|error| panic!("{value}: {error}"))
    }

    /// A session on the node; it must take clients.
    pub fn connect(&self, number: NodeNumber) -> Client {
        self.try_connect(number).unwrap_or_else(|error| panic!("node {}: {error}", number.0))
    }

    pub fn try_connect(&self, number: NodeNumber) -> Result<Client, postgres::Error> {
        self.playground.connect(number, self.database())
    }

    pub fn execute(&self, number: NodeNumber, sql: &str) {
        let done = self.connect(number).batch_execute(sql);
        done.unwrap_or_else(|error| panic!("node {}: {sql}: {}", number.0, gcs::playground::group::describe(&error)));
    }

    /// The first column of the first row, as text.
    pub fn value(&self, number: NodeNumber, query: &str) -> String {
        self.try_value(number, query).unwrap_or_else(|error| panic!("node {}: {query}: {error}", number.0))
    }

    fn try_value(&self, number: NodeNumber, query: &str) -> Result<String, String> {
        let row = self.connect(number).query_one(&format!("SELECT ({query})::text"), &[]);
        let value: Option<String> = row.map_err(|error| gcs::playground::group::describe(&error))?.get(0);
        Ok(value.unwrap_or_else(|| "NULL".to_owned()))
    }

    /// Waits until `query` gives `wanted` there, and says how long that took. What the query names need not be there yet: its
    /// error is one more value that is not the wanted one.
    pub fn becomes(&self, number: NodeNumber, query: &str, wanted: &str, at_most: Duration) -> Duration {
        let ((), took) = wait::until(query, at_most, || match self.try_value(number, query)? {
            value if value == wanted => Ok(()),
            value => Err(value),
        });
        took
    }

    /// The same, asked of every node.
    pub fn values(&self, query: &str) -> Vec<String> {
        self.numbers().into_iter().map(|number| self.value(number, query)).collect()
    }

    pub fn kill(&self, number: NodeNumber, part: Part) {
        self.signal(number, part, Signal::KILL);
    }

    /// Server, daemon and both are killed, on each node in turn, and started again; each time after this.
    pub fn kill_each_in_turn(&self, before: impl Fn()) {
        for part in [Part::Postgres, Part::Gcs, Part::Both] {
            for number in self.numbers() {
                before();
                self.kill(number, part);
                self.start_node(number);
            }
        }
    }

    pub fn signal(&self, number: NodeNumber, part: Part, signal: Signal) {
        self.playground.kill(number, part, signal).unwrap_or_else(|error| panic!("{error}"));
    }

    pub fn start_node(&self, number: NodeNumber) -> Started {
        self.playground.start_node(number).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn status(&self) -> Status {
        status::collect(&self.playground)
    }

    /// Waits until everything acknowledged so far, on any node, is visible on all: a marker committed now is ordered after
    /// it, and nodes commit in order.
    pub fn settle(&self) -> Duration {
        let insert = "INSERT INTO harness.marker SELECT coalesce(max(mark), 0) + 1 FROM harness.marker RETURNING mark";
        let first = self.numbers()[0];
        let (mark, _) = wait::until("a marker", SETTLE_MAX, || {
            let mut client = self.try_connect(first).map_err(|error| error.to_string())?;
            let row = client.query_one(insert, &[]).map_err(|error| gcs::playground::group::describe(&error))?;
            Ok(row.get::<_, i64>(0))
        });
        let mut longest = Duration::ZERO;
        for number in self.numbers() {
            let (_, took) = wait::until(&format!("the marker on node {}", number.0), SETTLE_MAX, || {
                let mut client = self.try_connect(number).map_err(|error| error.to_string())?;
                let there = client.query_opt("SELECT 1 FROM harness.marker WHERE mark = $1", &[&mark]);
                there.map_err(|error| error.to_string())?.ok_or_else(|| "it is not there".to_owned())
            });
            longest = longest.max(took);
        }
        longest
    }

    /// Starts what is down; false if that does not help.
    fn heal(&self) -> bool {
        self.numbers().into_iter().all(|number| self.playground.start_node(number).is_ok())
            && self.playground.wait_online(&self.numbers()).is_ok_and(|started| started == Started::Online)
    }

    /// The ends of all logs, for a failed test.
    fn print_logs(&self) {
        for number in self.numbers() {
            for log in [self.playground.cluster(number).log(), self.playground.daemon(number).log()] {
                let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
                // Lost conflicts are daily business, and there are thousands of them.
                let telling = |line: &&str| {
                    ["LOG:", "WARNING:", "FATAL:", "PANIC:", "WARN", "ERROR gcs", "INFO"]
                        .iter()
                        .any(|word| line.contains(word))
                };
                let lines: Vec<&str> = text.lines().filter(telling).collect();
                eprintln!("--- {}", log.display());
                lines[lines.len().saturating_sub(15)..].iter().for_each(|line| eprintln!("{line}"));
            }
        }
    }

    /// Leaves the files where they are when the group ends.
    pub fn keep_files(&self) {
        let _ = std::fs::write(self.dir.join("keep"), "");
        eprintln!("the group's files stay in {}", self.dir.display());
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if thread::panicking() {
            self.keep_files();
            self.print_logs();
        }
        drop(self.child.stdin.take());
        let _ = wait_child(&mut self.child);
    }
}

fn wait_child(child: &mut Child) -> std::io::Result<()> {
    let start = std::time::Instant::now();
    while child.try_wait()?.is_none() && start.elapsed() < STOP_MAX {
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// `gcs` prints a URI for each node once the group is online, and nothing if it fails.
fn wait_for_uris(child: &mut Child, nodes: usize) -> Result<(), ()> {
    use std::io::{BufRead, BufReader};
    let stdout = child.stdout.as_mut().ok_or(())?;
    let lines = BufReader::new(stdout).lines().take(nodes).filter(|line| line.is_ok()).count();
    if lines == nodes { Ok(()) } else { Err(()) }
}

/// Different for each process, group of it and attempt; whether it is free is found out by trying.
fn base_port(group: u32, attempt: u16) -> u16 {
    let span = u32::from(BASE_PORTS.end - BASE_PORTS.start - 200);
    let spread = std::process::id().wrapping_mul(211).wrapping_add(group * 307 + u32::from(attempt) * 1009);
    BASE_PORTS.start + (spread % span) as u16
}

/// A shared group, held by one test at a time.
pub struct Shared(MutexGuard<'static, Option<Group>>);

impl std::ops::Deref for Shared {
    type Target = Group;

    fn deref(&self) -> &Group {
        self.0.as_ref().unwrap_or_else(|| unreachable!("it is put there before it is handed out"))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if thread::panicking() {
            // The next test gets a new one.
            *self.0 = None;
        }
    }
}

/// Runs it on a node that has seen all before.
pub fn step(group: &Group, number: usize, statements: &str) {
    group.settle();
    group.execute(node(number), statements);
}

/// What the query gives, which must be the same on every node.
pub fn everywhere(group: &Group, query: &str) -> String {
    group.settle();
    let values = group.values(query);
    assert!(values.iter().all(|value| *value == values[0]), "{query}: {values:?}");
    values.into_iter().next().unwrap_or_default()
}

/// The group that the tests of this file share; healthy, and nobody else's until it is dropped.
pub fn shared() -> Shared {
    static SHARED: Mutex<Option<Group>> = Mutex::new(None);
    let mut guard = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !guard.as_ref().is_some_and(Group::heal) {
        *guard = Some(Group::start());
    }
    Shared(guard)
}

/// The same, where DDL and LOCK TABLE wait for nobody on other nodes, and nobody there for them: what certification makes of that is what such tests are about.
pub fn shared_without_table_locks() -> Shared {
    let shared = shared();
    for number in shared.numbers() {
        shared.execute(number, "ALTER SYSTEM SET postgres_r.table_locks = local");
        shared.execute(number, "SELECT pg_reload_conf()");
        wait::until("the setting", SETTLE_MAX, || match shared.value(number, "current_setting('postgres_r.table_locks')") {
            value if value == "local" => Ok(()),
            value => Err(value),
        });
    }
    shared
}

//! `gcs drain`: a node is made ready to be shut down; what sessions of each kind hear, and a restart of all nodes that no client of a pooler notices.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gcs::playground::account::Account;
use gcs::playground::group::{Started, describe};
use gcs::playground::process::{Process, Signal};
use gcs::playground::{NodeNumber, Part};
use postgres::SimpleQueryMessage;
use postgres_r_tests::harness::{self, Group, node, ports, wait};
use postgres_r_tests::pgbench::{self, Pgbench};

const PATIENCE: Duration = Duration::from_secs(60);
const CLIENTS: u32 = 24;
const POOL_SIZE: usize = 12;

/// The clients run again and again for so long, until all nodes have been restarted.
const RUN: Duration = Duration::from_secs(10);

/// `gcs drain` on this node's machine.
fn drain(group: &Group, number: NodeNumber, arguments: &[&str]) -> Command {
    let mut command = Command::new(harness::gcs());
    let config = group.playground.cluster(number).home.join("gcs.toml");
    command.arg("drain").args(arguments).arg("--config").arg(config).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn done(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn state(group: &Group, on: NodeNumber, of: NodeNumber) -> String {
    group.value(on, &format!("SELECT state FROM postgres_r.members WHERE node = 'node{}'", of.0))
}

fn await_state(group: &Group, on: NodeNumber, of: NodeNumber, wanted: &str) {
    wait::until(&format!("node {} is {wanted}", of.0), PATIENCE, || {
        let found = state(group, on, of);
        if found == wanted { Ok(()) } else { Err(found) }
    });
}

fn leads(group: &Group, number: NodeNumber) -> bool {
    let query = format!("SELECT leader FROM postgres_r.members WHERE node = 'node{}'", number.0);
    let asked = if number == node(1) { node(2) } else { node(1) };
    group.value(asked, &query) == "true"
}

fn sqlstate(error: &postgres::Error) -> &str {
    error.code().map_or("none", |code| code.code())
}

#[test]
fn sessions_go_between_transactions_nobody_comes_in_and_another_node_leads() {
    let group = harness::shared();
    let drained = group.numbers().into_iter().find(|&number| leads(&group, number)).unwrap();
    let other = if drained == node(1) { node(2) } else { node(1) };
    group.execute(other, "CREATE TABLE drained_item (n int PRIMARY KEY)");
    group.settle();
    let mut idle = group.connect(drained);
    idle.batch_execute("SELECT 1").unwrap();
    let mut working = group.connect(drained);
    working.batch_execute("BEGIN; INSERT INTO drained_item VALUES (1)").unwrap();
    // Asked on another node.
    let name = format!("node{}", drained.0);
    let draining = drain(&group, other, &[&name, "--grace", "3", "--timeout", "60"]).spawn().unwrap();

    await_state(&group, other, drained, "draining");
    let error = group.try_connect(drained).err().unwrap();
    assert_eq!(sqlstate(&error), "57P03", "{}", describe(&error));
    assert!(describe(&error).contains("being drained"), "{}", describe(&error));
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop' AND backend_type = 'client backend'";
    let mut server = group.playground.connect(drained, "postgres").unwrap();
    wait::until("the idle session ends", PATIENCE, || {
        let left: i64 = server.query_one(sessions, &[]).unwrap().get(0);
        if left == 1 { Ok(()) } else { Err(format!("{left} sessions")) }
    });
    let error = idle.batch_execute("SELECT 1").unwrap_err();
    assert!(error.is_closed() || sqlstate(&error) == "57P01", "{}", describe(&error));
    // What was begun ends as it pleases, whatever the time.
    wait::until("another node leads", PATIENCE, || if leads(&group, drained) { Err("not yet".to_owned()) } else { Ok(()) });
    working.batch_execute("INSERT INTO drained_item VALUES (2); COMMIT").unwrap();
    // After the grace its next transaction does not begin; until then it may.
    let (error, _) = wait::until("the session is sent away", PATIENCE, || {
        working
            .batch_execute("INSERT INTO drained_item VALUES (3) ON CONFLICT DO NOTHING")
            .err()
            .ok_or_else(|| "it works".to_owned())
    });
    assert!(error.is_closed() || sqlstate(&error) == "57P01", "{}", describe(&error));
    let output = draining.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("can be shut down"), "{said}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("left"), "progress is shown");
    assert_eq!(group.value(other, "SELECT count(*) FROM drained_item WHERE n < 3"), "2");

    assert!(done(drain(&group, drained, &["--cancel"])).contains("works again"));
    await_state(&group, other, drained, "online");
    group.execute(drained, "INSERT INTO drained_item VALUES (4)");

    // What was drained works again when its server has been started again, without a word to the daemon.
    done(drain(&group, drained, &[]));
    group.kill(drained, Part::Postgres);
    assert_eq!(group.start_node(drained), Started::Online);
    group.execute(drained, "INSERT INTO drained_item VALUES (5)");
    await_state(&group, other, drained, "online");

    let nobody = drain(&group, other, &["node9"]).output().unwrap();
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("has no member \"node9\""));
}

/// PgBouncer in front of all nodes, which it finds at one port in a directory for each.
struct Pooler {
    child: Child,
    directory: PathBuf,
    port: u16,
}

impl Pooler {
    fn start(group: &Group) -> Pooler {
        let account = Account::choose().unwrap();
        let directory = group.dir().join("pgbouncer");
        fs::create_dir(&directory).unwrap();
        account.give(&directory).unwrap();
        for number in group.numbers() {
            let (cluster, host) = (group.playground.cluster(number), directory.join(format!("node{}", number.0)));
            fs::create_dir(&host).unwrap();
            symlink(cluster.home.join(format!(".s.PGSQL.{}", cluster.port)), host.join(".s.PGSQL.5432")).unwrap();
        }
        let port = ports::free_one();
        fs::write(directory.join("users"), "\"postgres\" \"\"\n").unwrap();
        write_config(&directory, port, &group.numbers());
        let log = fs::File::create(directory.join("log")).unwrap();
        let mut command = account.command("pgbouncer".as_ref(), &directory);
        command.env("PATH", "/usr/sbin:/usr/bin:/bin").arg("pgbouncer.ini").stdout(Stdio::null()).stderr(log);
        let pooler = Pooler { child: command.spawn().unwrap(), directory, port };
        wait::until("the pooler answers", PATIENCE, || {
            std::net::TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
        });
        pooler
    }

    /// Has it use these nodes from now on: connections to others are closed as soon as they are given back. It takes a connection that is being made
    /// when its configuration changes for one that failed, and has clients wait or fail for it; so all of them are there before and afterwards.
    fn use_nodes(&self, numbers: &[NodeNumber]) {
        self.await_connections();
        write_config(&self.directory, self.port, numbers);
        self.console("RELOAD");
        self.await_connections();
    }

    fn await_connections(&self) {
        wait::until("the pool is full", PATIENCE, || {
            let servers = self.console("SHOW SERVERS");
            let is_ready = |message: &&SimpleQueryMessage| match message {
                SimpleQueryMessage::Row(row) => {
                    let is = |column, wanted: &[&str]| row.get(column).is_some_and(|found| wanted.contains(&found));
                    is("database", &["shop"]) && is("state", &["active", "idle"]) && is("close_needed", &["0"])
                }
                _ => false,
            };
            let ready = servers.iter().filter(is_ready).count();
            if ready == POOL_SIZE { Ok(()) } else { Err(format!("{ready} of {POOL_SIZE}")) }
        });
    }

    /// A command of its console, which speaks the simple protocol only.
    fn console(&self, command: &str) -> Vec<SimpleQueryMessage> {
        let mut config = postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").dbname("pgbouncer");
        config.connect(postgres::NoTls).unwrap().simple_query(command).unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

fn write_config(directory: &Path, port: u16, numbers: &[NodeNumber]) {
    let host = |number: &NodeNumber| directory.join(format!("node{}", number.0)).display().to_string();
    let hosts = numbers.iter().map(host).collect::<Vec<_>>().join(",");
    let text = format!(
        "[databases]\nshop = host={hosts} port=5432 user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = trust\nauth_file = {}\nadmin_users = postgres\npool_mode = transaction\n\
         default_pool_size = {POOL_SIZE}\n",
        directory.join("users").display()
    );
    fs::write(directory.join("pgbouncer.ini"), text).unwrap();
}

impl Drop for Pooler {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- pgbouncer\n{}", self.log());
        }
        if let Some(process) = Process::find(self.child.id() as i32, &self.directory) {
            process.signal(Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

#[test]
fn all_nodes_are_restarted_under_clients_of_a_pooler_and_none_hears_an_error() {
    let group = Group::start();
    let cluster = group.playground.cluster(node(1));
    let directly = Pgbench { bin: cluster.bin.clone(), port: cluster.port, database: group.database().to_owned() };
    directly.initialize(10).unwrap();
    group.settle();
    let pooler = Pooler::start(&group);
    let through = Pgbench { port: pooler.port, ..directly };
    let stop = AtomicBool::new(false);
    let reports = thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let mut reports = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let running = through.spawn(CLIENTS, RUN, &[]).unwrap();
                reports.push(pgbench::finish(running).unwrap());
            }
            reports
        });
        let _stop = Stop(&stop);
        restart_all(&group, &pooler);
        stop.store(true, Ordering::SeqCst);
        clients.join().unwrap()
    });
    for report in &reports {
        println!("{} transactions, {} tries again, {} failed", report.transactions, report.retries, report.failed);
        assert_eq!((report.failed, &report.complaints), (0, &Vec::new()));
    }
    group.settle();
    harness::assert_equal(&group);
}

/// Told to stop also where the job fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One node after the other, as docs/operations.md says.
fn restart_all(group: &Group, pooler: &Pooler) {
    wait::until("transactions come in", PATIENCE, || {
        let many = group.value(node(1), "SELECT count(*) > 1000 FROM pgbench_history") == "true";
        if many { Ok(()) } else { Err("few".to_owned()) }
    });
    let began = Instant::now();
    for number in group.numbers() {
        let others: Vec<_> = group.numbers().into_iter().filter(|&other| other != number).collect();
        pooler.use_nodes(&others);
        done(drain(group, number, &["--grace", "60", "--timeout", "90"]));
        for part in [Part::Postgres, Part::Gcs] {
            group.signal(number, part, if part == Part::Postgres { Signal::INT } else { Signal::TERM });
        }
        wait::until("the node is down", PATIENCE, || {
            let (cluster, daemon) = (group.playground.cluster(number), group.playground.daemon(number));
            let runs = cluster.process().is_some() || daemon.process().is_some();
            if runs { Err("it runs".to_owned()) } else { Ok(()) }
        });
        assert_eq!(group.start_node(number), Started::Online);
        pooler.use_nodes(&group.numbers());
        println!("node {} was restarted after {:?}", number.0, began.elapsed());
    }
}

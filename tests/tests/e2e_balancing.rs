//! What stands between clients and a group: HAProxy, PgBouncer and libpq's list of hosts, as `gcs gen` and docs/balancing.md set them up. In each a node
//! is killed under clients; how long nobody could commit is printed.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gcs::playground::account::Account;
use gcs::playground::process::{Process, Signal};
use gcs::playground::{NodeNumber, Part};
use postgres::config::TargetSessionAttrs;
use postgres::{Client, NoTls};
use postgres_r_tests::harness::{self, Group, http, node, ports, wait};

const PATIENCE: Duration = Duration::from_secs(60);
const WRITERS: i64 = 8;

/// A program that listens on a port, and ends with this.
struct Server {
    child: Child,
    directory: PathBuf,
    port: u16,
}

impl Server {
    fn start(group: &Group, name: &str, program: &str, port: u16, text: &str) -> Server {
        let account = Account::choose().unwrap();
        let directory = group.dir().join(format!("{name}{port}"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("config"), text).unwrap();
        account.give(&directory).unwrap();
        let log = fs::File::create(directory.join("log")).unwrap();
        let mut command = account.command(program.as_ref(), &directory);
        command.env("PATH", "/usr/sbin:/usr/bin:/bin").stdout(Stdio::null()).stderr(log);
        if program == "haproxy" {
            command.args(["-db", "-f"]);
        }
        let child = command.arg("config").spawn().unwrap();
        let server = Server { child, directory, port };
        wait::until(&format!("{name} answers"), PATIENCE, || server.connect().map(drop).map_err(|error| error.to_string()));
        server
    }

    fn haproxy(group: &Group, arguments: &[&str]) -> Server {
        let port = ports::free_one();
        let text = generate(group, "haproxy", &[&["--listen", &format!("127.0.0.1:{port}")], arguments].concat());
        Server::start(group, "haproxy", "haproxy", port, &text)
    }

    fn connect(&self) -> Result<Client, postgres::Error> {
        let mut config = postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").dbname("shop");
        config.connect_timeout(PATIENCE).connect(NoTls)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "--- {}\n{}",
                self.directory.display(),
                fs::read_to_string(self.directory.join("log")).unwrap_or_default()
            );
        }
        if let Some(process) = Process::find(self.child.id() as i32, &self.directory) {
            process.signal(Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// What `gcs gen` prints for this group, of which all nodes are on one machine.
fn generate(group: &Group, kind: &str, arguments: &[&str]) -> String {
    let config = group.playground.cluster(node(1)).home.join("gcs.toml");
    let place = |number: NodeNumber| {
        let (port, http) = (group.playground.cluster(number).port, http::address(group, number));
        format!("--at=node{}=127.0.0.1:{port}:{}", number.0, http.rsplit_once(':').unwrap().1)
    };
    let mut command = Command::new(harness::gcs());
    command.args(["gen", kind]).args(arguments);
    if kind == "nftables" {
        command.arg("--config").arg(config);
    } else if kind != "pgbouncer" {
        command.arg("--config").arg(config).args(group.numbers().into_iter().map(place));
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Clients that insert one row after the other and connect again when they are told of an error, until they are stopped.
struct Writers {
    stop: AtomicBool,
    next: AtomicI64,
    /// Numbers whose COMMIT was acknowledged, and when.
    acknowledged: Mutex<Vec<(i64, Instant)>>,
}

impl Writers {
    fn write(&self, connect: &dyn Fn() -> Result<Client, postgres::Error>) {
        while !self.stop.load(Ordering::SeqCst) {
            // Nobody takes writes at this moment: the next try comes when a balancer has looked again.
            let Ok(mut client) = connect() else { continue };
            while !self.stop.load(Ordering::SeqCst) {
                let number = self.next.fetch_add(1, Ordering::SeqCst);
                if client.execute("INSERT INTO told VALUES ($1)", &[&number]).is_err() {
                    break;
                }
                self.acknowledged.lock().unwrap().push((number, Instant::now()));
            }
        }
    }
}

/// A node is killed under clients: whatever they were told is there, everybody goes on. How long nobody committed.
fn fail_over(group: &Group, what: &str, killed: NodeNumber, connect: &(dyn Fn() -> Result<Client, postgres::Error> + Sync)) {
    group.execute(node(1), "CREATE TABLE told (n bigint PRIMARY KEY)");
    group.settle();
    let writers = Writers { stop: AtomicBool::new(false), next: AtomicI64::new(0), acknowledged: Mutex::default() };
    let count = || writers.acknowledged.lock().unwrap().len();
    let more_than = |before: usize| {
        wait::until("commits", PATIENCE, || if count() > before + 200 { Ok(()) } else { Err(format!("{}", count())) });
    };
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| writers.write(connect));
        }
        more_than(0);
        group.kill(killed, Part::Postgres);
        group.kill(killed, Part::Gcs);
        more_than(count());
        writers.stop.store(true, Ordering::SeqCst);
    });
    let acknowledged = writers.acknowledged.into_inner().unwrap();
    let mut moments: Vec<Instant> = acknowledged.iter().map(|(_, at)| *at).collect();
    moments.sort();
    let gap = moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    println!("{what}: nobody committed for {} ms when a node was killed", gap.as_millis());

    group.start_node(killed);
    group.settle();
    let there = group.connect(killed).query("SELECT n FROM told", &[]).unwrap();
    let there: BTreeSet<i64> = there.iter().map(|row| row.get(0)).collect();
    let lost: Vec<i64> = acknowledged.iter().map(|(number, _)| *number).filter(|number| !there.contains(number)).collect();
    assert!(lost.is_empty(), "{what}: acknowledged, and not there: {lost:?}");
    harness::assert_equal(group);
    group.execute(node(1), "DROP TABLE told");
    group.settle();
}

#[test]
fn haproxy_takes_clients_to_nodes_that_commit() {
    let group = harness::shared();
    let proxy = Server::haproxy(&group, &[]);
    fail_over(&group, "HAProxy", node(2), &|| proxy.connect());

    // All nodes get sessions, and reads have a port of their own.
    let port_of = |client: &mut Client| client.query_one("SELECT inet_server_port()", &[]).unwrap().get::<_, i32>(0);
    let mut sessions: Vec<Client> = (0..6).map(|_| proxy.connect().unwrap()).collect();
    let ports: BTreeSet<i32> = sessions.iter_mut().map(port_of).collect();
    assert!(ports.len() > 1, "{ports:?}");
    let mut reads = postgres::Config::new();
    reads.host("127.0.0.1").port(proxy.port + 1).user("postgres").dbname("shop");
    reads.connect(NoTls).unwrap().simple_query("SELECT 1").unwrap();
}

/// What pglb and pgpool-II did: a thousand clients on as many sessions as the servers like, and nobody is refused.
#[test]
fn a_thousand_clients_at_once_wait_for_their_place_and_none_is_refused() {
    const CLIENTS: i64 = 1000;
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE guest (n bigint PRIMARY KEY)");
    group.settle();
    let proxy = Server::haproxy(&group, &["--sessions", "20"]);
    let together = Barrier::new(CLIENTS as usize);
    let come = |number: i64| {
        together.wait();
        let mut client = proxy.connect().map_err(|error| error.to_string())?;
        client.execute("INSERT INTO guest VALUES ($1)", &[&number]).map_err(|error| error.to_string())
    };
    let began = Instant::now();
    let outcomes: Vec<Result<u64, String>> = thread::scope(|scope| {
        let come = &come;
        let start = |number| thread::Builder::new().stack_size(512 << 10).spawn_scoped(scope, move || come(number)).unwrap();
        let clients: Vec<_> = (0..CLIENTS).map(start).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let refused: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(refused.is_empty(), "{} of {CLIENTS}: {:?}", refused.len(), refused.first());
    println!("{CLIENTS} clients on 60 sessions were served within {:?}", began.elapsed());
    group.settle();
    assert_eq!(group.value(node(3), "SELECT count(*) FROM guest"), CLIENTS.to_string());
    harness::assert_equal(&group);
}

#[test]
fn pgbouncer_before_haproxy_goes_on_when_a_node_is_killed() {
    let group = harness::shared();
    let proxy = Server::haproxy(&group, &[]);
    let port = ports::free_one();
    let (server, listen) = (format!("127.0.0.1:{}", proxy.port), format!("127.0.0.1:{port}"));
    let text = generate(&group, "pgbouncer", &["--server", &server, "--listen", &listen]);
    let users = group.dir().join(format!("users{port}"));
    fs::write(&users, "\"postgres\" \"\"\n").unwrap();
    let text = text
        .replace("auth_type = scram-sha-256", "auth_type = trust\nunix_socket_dir =")
        .replace("/etc/pgbouncer/userlist.txt", users.to_str().unwrap());
    let pooler = Server::start(&group, "pgbouncer", "pgbouncer", port, &text);
    fail_over(&group, "PgBouncer before HAProxy", node(3), &|| pooler.connect());
}

#[test]
fn a_list_of_hosts_is_enough_for_a_client_library() {
    let group = harness::shared();
    let connect = || {
        let mut config = postgres::Config::new();
        for number in group.numbers() {
            config.host("127.0.0.1").port(group.playground.cluster(number).port);
        }
        config.load_balance_hosts(postgres::config::LoadBalanceHosts::Random);
        config.target_session_attrs(TargetSessionAttrs::ReadWrite).connect_timeout(Duration::from_secs(3));
        config.user("postgres").dbname("shop").connect(NoTls)
    };
    fail_over(&group, "a list of hosts", node(1), &connect);
}

/// The example of docs/balancing.md, as it stands there.
fn example() -> String {
    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/balancing.md")).unwrap();
    let begin = docs.find("    import uuid\n").unwrap();
    let lines = docs[begin..].lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    lines.map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect()
}

#[test]
fn the_example_in_python_has_each_transaction_committed_once() {
    const TRANSACTIONS: usize = 400;
    let group = harness::shared();
    // Without a key: what comes twice stands there twice.
    group.execute(node(1), "CREATE TABLE once (n int)");
    group.settle();
    let ports: Vec<String> =
        group.numbers().into_iter().map(|number| group.playground.cluster(number).port.to_string()).collect();
    let hosts = format!("host=127.0.0.1,127.0.0.1,127.0.0.1 port={} user=postgres", ports.join(","));
    let program = example().replace("host=node1,node2,node3", &hosts)
        + &format!(
            "\nfor n in range({TRANSACTIONS}):\n    run(lambda connection: connection.execute('INSERT INTO once VALUES (%s)', (n,)))\n    print(n, flush=True)\n"
        );
    assert!(program.contains(&hosts), "{program}");
    let file = group.dir().join("example.py");
    fs::write(&file, program).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("../target"), PathBuf::from);
    let mut command = Command::new(target.join("django/bin/python"));
    let mut child = command.arg(file).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut done = |count: usize| lines.by_ref().take(count).filter(Result::is_ok).count();
    let first = done(100);
    // It begins with the first of the list.
    group.kill(node(1), Part::Postgres);
    group.kill(node(1), Part::Gcs);
    let rest = done(TRANSACTIONS);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(first + rest, TRANSACTIONS);
    group.start_node(node(1));
    group.settle();
    let counted = "SELECT count(*)::text || ' ' || count(DISTINCT n)::text FROM once";
    assert_eq!(group.value(node(1), counted), format!("{TRANSACTIONS} {TRANSACTIONS}"));
    harness::assert_equal(&group);
}

#[test]
fn keepalived_and_haproxy_take_what_is_generated() {
    let group = harness::shared();
    let file = group.dir().join("haproxy.cfg");
    fs::write(&file, generate(&group, "haproxy", &[])).unwrap();
    let output = Command::new("/usr/sbin/haproxy").args(["-c", "-f"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // It looks for the interface, which is made in a network of its own.
    fs::write(group.dir().join("keepalived.conf"), generate(&group, "keepalived", &["--address", "10.0.0.100/24"])).unwrap();
    let script = "ip link add eth0 type veth peer name eth1 && ip link set eth0 up && exec keepalived --config-test --use-file keepalived.conf";
    let output = Command::new("unshare").args(["--net", "sh", "-ec", script]).current_dir(group.dir()).output().unwrap();
    // Its status says nothing: it ends by a signal of its own. What it does not understand it names, with the line.
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("keepalived.conf") && !said.contains("not found"), "{said}");
    let config = group.playground.cluster(node(1)).home.join("gcs.toml");
    let mut wrong = Command::new(harness::gcs());
    wrong.args(["gen", "keepalived", "--address", "10.0.0.100", "--config"]).arg(config);
    let output = wrong.output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("no ADDRESS/LENGTH"));
}

/// In a network of its own: a server at the port, and callers from an address that is a member's and from one that is nobody's.
const CALLERS: &str = r#"
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1000)
def held(source):
    calls = []
    for _ in range(300):
        try:
            calls.append(socket.create_connection(server.getsockname(), timeout=5, source_address=(source, 0)))
        except ConnectionRefusedError:
            pass
    return calls
members, others = held("127.0.0.1"), held("127.0.0.99")
print(len(members), len(others))
"#;

#[test]
fn who_calls_too_often_is_refused_by_the_kernel_and_members_are_not() {
    let group = harness::shared();
    let limits = ["--postgres-port", "5432", "--held", "40", "--rate", "1000", "--burst", "2000"];
    fs::write(group.dir().join("limits.nft"), generate(&group, "nftables", &limits)).unwrap();
    fs::write(group.dir().join("callers.py"), CALLERS).unwrap();
    let called = |port: u16| {
        let script = format!("ip link set lo up && nft -f limits.nft && exec python3 callers.py {port}");
        let output =
            Command::new("unshare").args(["--net", "sh", "-ec", &script]).current_dir(group.dir()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said
    };
    assert_eq!(called(5432), "300 40");
    assert_eq!(called(5433), "300 300", "a port that is none of the node's");
    let limits = ["--held", "1000", "--rate", "1", "--burst", "25"];
    fs::write(group.dir().join("limits.nft"), generate(&group, "nftables", &limits)).unwrap();
    let said = called(5432);
    let (members, others) = said.split_once(' ').unwrap();
    let others: u32 = others.parse().unwrap();
    // And one more for each second that this takes.
    assert!(members == "300" && (25..60).contains(&others), "{said}");
}

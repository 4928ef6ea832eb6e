//! `make bench`: the same pgbench load against one plain PostgreSQL and against one node of a group of three.
//!
//! Both servers have the same settings (durable commits, the playground's postgresql.conf), run at the same time and are
//! loaded by turns; the plain one has no extension. Printed as a table, written to target/bench/cluster.json.
//!
//! `BENCH_SECONDS` (a run), `BENCH_ROUNDS`, `BENCH_SCALE` and `BENCH_CLIENTS` (a list) say how much.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use gcs::playground::account::Account;
use gcs::playground::cluster::Cluster;
use postgres_r_benches::{Comparison, Series, write_json};
use postgres_r_tests::harness::{Group, node};
use postgres_r_tests::pgbench::{self, Pgbench};
use serde::Serialize;

const LOADS: [(&str, &[&str]); 2] = [("simple-update", &["-N"]), ("tpcb-like", &[])];

#[derive(Debug, Serialize)]
struct Results {
    processors: usize,
    seconds: u64,
    rounds: u64,
    scale: u32,
    nodes: usize,
    comparisons: Vec<Comparison>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let (seconds, rounds) = (setting("BENCH_SECONDS", 15)?, setting("BENCH_ROUNDS", 3)?);
    let scale = setting("BENCH_SCALE", 10)? as u32;
    let clients = std::env::var("BENCH_CLIENTS").unwrap_or_else(|_| "1 8 32".to_owned());
    let clients: Vec<u32> = clients.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let processors = std::thread::available_parallelism()?.get();

    let group = Group::try_start(3)?;
    let plain = Plain::start(&group)?;
    let servers = [plain.pgbench(), group_pgbench(&group)];
    for server in &servers {
        server.initialize(scale)?;
    }
    group.settle();

    let mut comparisons = Vec::new();
    println!("{processors} processors, scale {scale}, {rounds} rounds of {seconds} s, medians\n");
    println!(
        "{:<14} {:>7} {:>12} {:>12} {:>12} {:>12} {:>7}",
        "load", "clients", "plain tps", "group tps", "plain ms", "group ms", "ratio"
    );
    for (load, arguments) in LOADS {
        for &clients in &clients {
            let comparison = compare(&servers, load, arguments, clients, Duration::from_secs(seconds), rounds)?;
            print_line(&comparison);
            comparisons.push(comparison);
        }
    }
    let results = Results { processors, seconds, rounds, scale, nodes: group.numbers().len(), comparisons };
    println!("\nwritten to {}", write_json("cluster", &results)?.display());
    Ok(())
}

fn setting(name: &str, default: u64) -> Result<u64, Box<dyn Error>> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|error| format!("{name}: {error}").into()),
        Err(_) => Ok(default),
    }
}

fn compare(
    servers: &[Pgbench; 2],
    load: &str,
    arguments: &[&str],
    clients: u32,
    time: Duration,
    rounds: u64,
) -> Result<Comparison, Box<dyn Error>> {
    let mut series = [Series::default(), Series::default()];
    for _ in 0..rounds {
        for (server, series) in servers.iter().zip(&mut series) {
            let report = pgbench::finish(server.spawn(clients, time, arguments)?)?;
            series.add(report.tps, report.latency_ms);
        }
    }
    let [plain, group] = series;
    let ratio = group.tps_median / plain.tps_median.max(f64::MIN_POSITIVE);
    Ok(Comparison { load: load.to_owned(), clients, plain, group, ratio })
}

fn print_line(c: &Comparison) {
    println!(
        "{:<14} {:>7} {:>12.0} {:>12.0} {:>12.2} {:>12.2} {:>7.2}",
        c.load,
        c.clients,
        c.plain.tps_median,
        c.group.tps_median,
        c.plain.latency_ms_median,
        c.group.latency_ms_median,
        c.ratio
    );
}

fn group_pgbench(group: &Group) -> Pgbench {
    let cluster = group.playground.cluster(node(1));
    Pgbench { bin: cluster.bin, port: cluster.port, database: group.database().to_owned() }
}

/// A server without the extension, stopped and removed when it goes out of scope.
struct Plain {
    cluster: Cluster,
    _dir: tempfile::TempDir,
}

impl Plain {
    fn start(group: &Group) -> Result<Plain, Box<dyn Error>> {
        let dir = tempfile::Builder::new().prefix("postgres_r.plain.").tempdir()?;
        let account = Account::choose()?;
        account.give(dir.path())?;
        let home: PathBuf = dir.path().canonicalize()?;
        // The group's ports are spread over its own range; whatever the system has free is not among them.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let cluster = Cluster { bin: group.playground.cluster(node(1)).bin, account, home, port };
        cluster.init("synchronous_commit = on\n")?;
        cluster.start()?;
        Ok(Plain { cluster, _dir: dir })
    }

    fn pgbench(&self) -> Pgbench {
        Pgbench { bin: self.cluster.bin.clone(), port: self.cluster.port, database: "postgres".to_owned() }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        if let Err(error) = self.cluster.stop() {
            eprintln!("bench: {error}");
        }
    }
}

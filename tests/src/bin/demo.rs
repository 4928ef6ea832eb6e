//! `make demo`: three nodes under load, one of them killed and back, and the proof that they are equal.
//!
//! Ends with status 0 only if every table has the same fingerprint on every node and TPC-B's own sums agree. Everything
//! that runs ends with this program, however that ends.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ExitCode};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::Parser;
use gcs::playground::{NodeNumber, Part};
use postgres_r_tests::harness::fingerprint::{self, Fingerprints};
use postgres_r_tests::harness::{Group, node};
use postgres_r_tests::pgbench::{Pgbench, Report};

const NODES: usize = 3;
const VICTIM: NodeNumber = NodeNumber(3);

/// Runs three nodes, loads all of them at once, kills one and brings it back, and compares them.
#[derive(Debug, Parser)]
struct Options {
    /// Seconds of load.
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// pgbench's scale factor: 100,000 accounts each.
    #[arg(long, default_value_t = 5)]
    scale: u32,
    /// pgbench clients on each node.
    #[arg(long, default_value_t = 8)]
    clients: u32,
}

fn main() -> ExitCode {
    match demo(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demo(options: &Options) -> Result<bool, String> {
    step("starting three PostgreSQL servers and their daemons");
    let group = Group::try_start(NODES)?;
    for number in group.numbers() {
        println!("    {}", group.playground.uri(number));
    }
    step(&format!("pgbench -i -s {} on node 1", options.scale));
    bench(&group, node(1)).initialize(options.scale)?;
    let took = group.settle();
    println!("    on all nodes {:.1} s after it was done on node 1", took.as_secs_f64());

    step(&format!("TPC-B on all nodes at once: {} clients each, {} s", options.clients, options.seconds));
    let (runs, catch_up) = load(&group, options)?;

    step("comparing");
    group.settle();
    let prints: Vec<Fingerprints> =
        group.numbers().into_iter().map(|number| fingerprints(&group, number)).collect::<Result<_, _>>()?;
    print_runs(&runs, catch_up);
    let equal = print_fingerprints(&prints);
    let sums = print_sums(&group)?;
    println!("\n{}", if equal && sums { "The nodes are equal." } else { "THE NODES DIFFER." });
    Ok(equal && sums)
}

fn step(text: &str) {
    println!("\n==> {text}");
    let _ = std::io::stdout().flush();
}

fn bench(group: &Group, number: NodeNumber) -> Pgbench {
    let cluster = group.playground.cluster(number);
    Pgbench { bin: cluster.bin, port: cluster.port, database: group.database().to_owned() }
}

/// One run of pgbench, and what it last said of itself.
struct Run {
    number: NodeNumber,
    child: Child,
    progress: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Run {
    fn start(group: &Group, number: NodeNumber, clients: u32, time: Duration) -> Result<Run, String> {
        let mut child = bench(group, number).spawn(clients, time, &["-P", "1"]).map_err(|error| error.to_string())?;
        let stderr = child.stderr.take().ok_or("pgbench has no stderr")?;
        let progress = Arc::new(Mutex::new("starting".to_owned()));
        let shown = progress.clone();
        let reader = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(text) = short_progress(&line) {
                    *shown.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = text;
                }
            }
        });
        Ok(Run { number, child, progress, reader })
    }

    /// What it reports, also when its server went away under it.
    fn finish(self) -> Result<(NodeNumber, Report), String> {
        let output = self.child.wait_with_output().map_err(|error| error.to_string())?;
        let _ = self.reader.join();
        let text = String::from_utf8_lossy(&output.stdout);
        let report = Report::parse(&text, Vec::new()).ok_or_else(|| format!("pgbench said nothing useful: {text}"))?;
        Ok((self.number, report))
    }
}

/// "progress: 5.0 s, 123.4 tps, lat 12.345 ms stddev …" becomes "123 tps 12 ms".
fn short_progress(line: &str) -> Option<String> {
    let mut parts = line.strip_prefix("progress: ")?.split(", ").skip(1);
    let tps: f64 = parts.next()?.strip_suffix(" tps")?.parse().ok()?;
    let latency: f64 = parts.next()?.strip_prefix("lat ")?.split(' ').next()?.parse().unwrap_or(0.0);
    Some(format!("{tps:.0} tps {latency:.0} ms"))
}

/// Loads all nodes; a third of the way in the victim is killed, after half of the time it comes back.
fn load(group: &Group, options: &Options) -> Result<(Vec<(NodeNumber, Report)>, Duration), String> {
    let begin = Instant::now();
    let time = Duration::from_secs(options.seconds);
    let start = |number| Run::start(group, number, options.clients, time);
    let mut running: Vec<Run> = group.numbers().into_iter().map(start).collect::<Result<_, _>>()?;
    let mut reports = Vec::new();

    show_until(&running, begin, begin + time / 3);
    println!("    kill -9: PostgreSQL and the daemon of node {}", VICTIM.0);
    group.playground.kill(VICTIM, Part::Both, gcs::playground::process::Signal::KILL).map_err(|error| error.to_string())?;
    let victim = running.pop().ok_or("no node to kill")?;
    reports.push(victim.finish()?);
    show_until(&running, begin, begin + time / 2);

    println!("    node {} comes back", VICTIM.0);
    let back = Instant::now();
    group.playground.start_node(VICTIM).map_err(|error| error.to_string())?;
    group.settle();
    let catch_up = back.elapsed();
    println!("    node {} has caught up after {:.1} s", VICTIM.0, catch_up.as_secs_f64());
    let left = (begin + time).saturating_duration_since(Instant::now());
    if left >= Duration::from_secs(1) {
        running.push(Run::start(group, VICTIM, options.clients, left)?);
    }
    show_until(&running, begin, begin + time);
    for run in running {
        reports.push(run.finish()?);
    }
    reports.sort_by_key(|(number, _)| *number);
    Ok((reports, catch_up))
}

/// A line a second, until then.
fn show_until(running: &[Run], begin: Instant, until: Instant) {
    while Instant::now() < until {
        thread::sleep(Duration::from_secs(1).min(until.saturating_duration_since(Instant::now())));
        let mut line = format!("    {:>3} s", begin.elapsed().as_secs());
        for run in running {
            let progress = run.progress.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            line += &format!("   node {}: {:<16}", run.number.0, *progress);
        }
        println!("{}", line.trim_end());
    }
}

fn fingerprints(group: &Group, number: NodeNumber) -> Result<Fingerprints, String> {
    let mut client = group.try_connect(number).map_err(|error| error.to_string())?;
    fingerprint::take(&mut client).map_err(|error| gcs::playground::group::describe(&error))
}

fn print_runs(runs: &[(NodeNumber, Report)], catch_up: Duration) {
    println!(
        "\n    {:<6} {:>12} {:>15} {:>14} {:>10}",
        "node", "transactions", "aborts, retried", "latency, ms", "catch-up"
    );
    for number in (1..=NODES).map(NodeNumber) {
        let of_node: Vec<&Report> = runs.iter().filter(|(of, _)| *of == number).map(|(_, report)| report).collect();
        let transactions: u64 = of_node.iter().map(|report| report.transactions).sum();
        let retries: u64 = of_node.iter().map(|report| report.retries).sum();
        let weighed: f64 = of_node.iter().map(|report| report.latency_ms * report.transactions as f64).sum();
        let latency = weighed / transactions.max(1) as f64;
        let catch_up = if number == VICTIM { format!("{:.1} s", catch_up.as_secs_f64()) } else { "-".to_owned() };
        println!("    {:<6} {transactions:>12} {retries:>15} {latency:>14.1} {catch_up:>10}", number.0);
    }
}

/// True if they are equal.
fn print_fingerprints(prints: &[Fingerprints]) -> bool {
    println!("\n    {:<26} {:<34} same on all nodes", "table", "rows:fingerprint on node 1");
    let tables: std::collections::BTreeSet<&String> = prints.iter().flat_map(Fingerprints::keys).collect();
    let mut equal = true;
    for table in tables {
        let first = prints[0].get(table).map_or("missing", String::as_str);
        let same = prints.iter().all(|of_node| of_node.get(table) == prints[0].get(table));
        println!("    {table:<26} {first:<34} {}", if same { "yes" } else { "NO" });
        for (index, of_node) in prints.iter().enumerate().skip(1).filter(|_| !same) {
            println!("    {:<26} {} on node {}", "", of_node.get(table).map_or("missing", String::as_str), index + 1);
        }
        equal &= same;
    }
    equal
}

/// TPC-B's invariant: what was moved is what the balances say. True if it holds everywhere.
fn print_sums(group: &Group) -> Result<bool, String> {
    let query =
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts)::text, (SELECT sum(tbalance) FROM pgbench_tellers)::text,
        (SELECT sum(bbalance) FROM pgbench_branches)::text, (SELECT sum(delta) FROM pgbench_history)::text";
    let mut right = true;
    println!();
    for number in group.numbers() {
        let mut client = group.try_connect(number).map_err(|error| error.to_string())?;
        let row = client.query_one(query, &[]).map_err(|error| gcs::playground::group::describe(&error))?;
        let sums: Vec<String> = (0..4).map(|column| row.get::<_, Option<String>>(column).unwrap_or_default()).collect();
        println!(
            "    node {}: accounts {}, tellers {}, branches {}, history {}",
            number.0, sums[0], sums[1], sums[2], sums[3]
        );
        right &= sums.iter().all(|sum| *sum == sums[0]);
    }
    Ok(right)
}

//! `make flood`: 10,000 connections at every port of a node, and what that costs the group.
//!
//! For each port, rounds of two runs of pgbench each on another node than the flooded one: one in peace, one in which the connections come from its
//! beginning, as fast as the port lets them, and are held to its end. A port that takes its time has not been given all of them by then: how many were made is said. The median of the rounds' ratios is the port's figure. What the ports did with the
//! connections is asked of the flooded node's metrics. Ends with status 1 where a figure is below the bound.
//!
//! They come from an address of their own. With --limited the node is protected as docs/balancing.md says: what `gcs gen nftables` prints is loaded, into the
//! network namespace that this program then must run in; `make flood` gives it one.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use clap::Parser;
use gcs::config::Config;
use gcs::playground::NodeNumber;
use postgres_r_tests::harness::{self, Group, http, node};
use postgres_r_tests::pgbench::{self, Pgbench};

const NODES: usize = 3;
const FLOODED: NodeNumber = NodeNumber(1);
const FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 99);

/// Throws connections at every port of one node, and measures the group.
#[derive(Debug, Parser)]
struct Options {
    /// Connections at each port.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Seconds of each run of pgbench.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Pairs of runs for each port.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// pgbench clients.
    #[arg(long, default_value_t = 8)]
    clients: u32,
    /// The least share of the throughput in peace that is good enough, in percent.
    #[arg(long, default_value_t = 95.0)]
    least: f64,
    /// With the limits of `gcs gen nftables`.
    #[arg(long)]
    limited: bool,
}

enum Port {
    Tcp(&'static str, String),
    Unix(&'static str, PathBuf),
}

/// What is held until the run is over.
enum Held {
    Tcp { _stream: TcpStream },
    Unix { _stream: UnixStream },
}

impl Port {
    fn name(&self) -> &'static str {
        match self {
            Port::Tcp(name, _) | Port::Unix(name, _) => name,
        }
    }

    fn connect(&self) -> std::io::Result<Held> {
        match self {
            Port::Tcp(_, address) => call(address).map(|stream| Held::Tcp { _stream: stream }),
            Port::Unix(_, path) => UnixStream::connect(path).map(|stream| Held::Unix { _stream: stream }),
        }
    }
}

/// From the address of nobody else.
fn call(address: &str) -> std::io::Result<TcpStream> {
    let to = address.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _inside = runtime.enter();
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((FROM, 0)))?;
    runtime.block_on(socket.connect(to))?.into_std()
}

/// What `gcs gen nftables` says for the flooded node, into the kernel.
fn limit(group: &Group) -> Result<(), String> {
    let cluster = group.playground.cluster(FLOODED);
    let failed = |error: std::io::Error| error.to_string();
    let made = Command::new(harness::gcs())
        .args(["gen", "nftables", "--postgres-port", &cluster.port.to_string(), "--config"])
        .arg(cluster.home.join("gcs.toml"))
        .output()
        .map_err(failed)?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned());
    }
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().map_err(failed)?;
    let mut input = nft.stdin.take().ok_or("nft takes no input")?;
    input.write_all(&made.stdout).map_err(failed)?;
    drop(input);
    if nft.wait().map_err(failed)?.success() { Ok(()) } else { Err("nft did not take the limits".to_owned()) }
}

fn main() -> ExitCode {
    match flood(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("flood: error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn flood(options: &Options) -> Result<bool, String> {
    let group = Group::try_start(NODES)?;
    let bench = Pgbench {
        bin: group.playground.cluster(node(2)).bin,
        port: group.playground.cluster(node(2)).port,
        database: group.database().to_owned(),
    };
    bench.initialize(10)?;
    group.settle();
    if options.limited {
        limit(&group)?;
    }
    let cluster = group.playground.cluster(FLOODED);
    let config = Config::load(&cluster.home.join("gcs.toml")).map_err(|error| error.to_string())?;
    let ports = [
        Port::Tcp("peers", config.peer_address),
        Port::Tcp("http", http::address(&group, FLOODED)),
        Port::Unix("local socket", config.local_socket),
        Port::Tcp("postgres", format!("127.0.0.1:{}", cluster.port)),
    ];
    println!(
        "{} connections at each port of one node; simple-update, {} clients on another",
        options.connections, options.clients
    );
    println!("{:<14}{:>9}{:>14}{:>14}{:>9}", "port", "made", "tps in peace", "tps flooded", "median");
    let mut is_good = true;
    for port in &ports {
        let figure = measure(&bench, port, options)?;
        is_good &= figure >= options.least / 100.0;
    }
    Ok(is_good)
}

fn measure(bench: &Pgbench, port: &Port, options: &Options) -> Result<f64, String> {
    let (mut peace, mut flooded, mut made) = (Vec::new(), Vec::new(), 0);
    for _ in 0..options.rounds {
        peace.push(run(bench, options, |_| ())?);
        flooded.push(run(bench, options, |is_over| made = throw(port, options.connections, is_over))?);
    }
    let mut ratios: Vec<f64> = peace.iter().zip(&flooded).map(|(peace, flooded)| flooded / peace).collect();
    let figure = median(&mut ratios);
    let (peace, flooded) = (median(&mut peace), median(&mut flooded));
    println!("{:<14}{made:>9}{peace:>14.0}{flooded:>14.0}{figure:>9.3}", port.name());
    Ok(figure)
}

/// Makes connections until there are as many or the run is over, and holds them until then. How many were made: those beyond what a port takes are
/// refused, or closed, which is its answer and no error here.
fn throw(port: &Port, wanted: usize, is_over: &Receiver<()>) -> usize {
    let mut held: Vec<Held> = Vec::with_capacity(wanted);
    for _ in 0..wanted {
        if is_over.try_recv() == Ok(()) {
            return held.len();
        }
        held.extend(port.connect().ok());
    }
    // An error is the end of the run, too.
    let _ = is_over.recv();
    held.len()
}

/// Transactions a second of a run, beside which `work` is done until it is told that the run is over.
fn run(bench: &Pgbench, options: &Options, work: impl FnOnce(&Receiver<()>)) -> Result<f64, String> {
    let time = Duration::from_secs(options.seconds);
    let child = bench.spawn(options.clients, time, &["-N"]).map_err(|error| error.to_string())?;
    let (over, is_over) = mpsc::channel();
    thread::scope(|scope| {
        let bench = scope.spawn(move || {
            let report = pgbench::finish(child);
            // Whoever worked beside it may have ended before.
            let _ = over.send(());
            report
        });
        work(&is_over);
        let report = bench.join().map_err(|_| "the run was not waited for".to_owned())?;
        report.map(|report| report.tps)
    })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

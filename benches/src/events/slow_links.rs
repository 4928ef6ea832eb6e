//! The load of the study of PGCluster of 2008, as it was run: three masters, each behind 1 Mbit/s; on each some clients that draw one of ten names, insert it, or update, delete or
//! read all rows that have it; a connection for each operation, and a pause of up to 5 seconds behind it. What was measured is the traffic of one node.
//!
//! Here clients and server of a node are on the same side of the narrow link, which only the daemons use.

use std::thread;
use std::time::{Duration, Instant};

use postgres_r_tests::faults::network::Network;
use postgres_r_tests::faults::testbed::{Kind, Testbed};
use postgres_r_tests::harness::{self, Group, node};
use postgres_r_tests::pgbench::Pgbench;
use postgres_r_tests::rng::Rng;
use postgres_r_tests::workload::client::{Failure, classify};

use super::bed::{Bed, connect, of_node};
use super::figure::{Extent, Figure, Result};

const CLIENTS: [u64; 4] = [1, 5, 10, 20];
const SECONDS: u64 = 40;
const RATE: &str = "1mbit";
const NAMES: u64 = 10;
const PAUSE_MAX_MS: u64 = 5_000;

/// What the clients did, all together.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    operations: u64,
    /// Each was tried again.
    lost: u64,
    failed: u64,
}

pub fn run(_bed: &mut Bed, extent: Extent) -> Result<Vec<Figure>> {
    let testbed = Testbed::try_start(Kind::Direct)?;
    let (group, network): (&Group, &Network) = (&testbed.group, &testbed.network);
    group.execute(node(1), "CREATE TABLE pessoas (codigo serial PRIMARY KEY, nome text)");
    group.settle();
    for number in group.numbers() {
        network.narrow(number, RATE)?;
    }
    let mut figures = Vec::new();
    for clients in CLIENTS {
        let (start, before) = (Instant::now(), network.bytes(node(1))?);
        let done = on_all_nodes(group, clients, extent.seconds(SECONDS));
        let seconds = start.elapsed().as_secs_f64();
        let kilobytes = (network.bytes(node(1))? - before) as f64 / 1000.0;
        if done.failed > 0 {
            return Err(
                format!("{} of {} operations failed with {clients} clients a node", done.failed, done.operations).into()
            );
        }
        figures.push(Figure::one(format!("traffic of one node, {clients} clients a node"), "kB/s", kilobytes / seconds));
        figures.push(Figure::one(format!("operations, {clients} clients a node"), "1/s", done.operations as f64 / seconds));
        figures.push(Figure::one(format!("tried again, {clients} clients a node"), "", done.lost as f64));
    }
    group.settle();
    harness::assert_equal(group);
    Ok(figures)
}

fn on_all_nodes(group: &Group, clients: u64, time: Duration) -> Done {
    let end = Instant::now() + time;
    let servers: Vec<Pgbench> = group.numbers().into_iter().map(|number| of_node(group, number)).collect();
    thread::scope(|scope| {
        let start = |(nth, server)| scope.spawn(move || client(server, nth, end));
        let numbered = (0..clients).flat_map(|client| servers.iter().map(move |server| (client, server))).enumerate();
        let running: Vec<_> = numbered.map(|(nth, (_, server))| start((nth as u64, server))).collect();
        running.into_iter().map(|client| client.join().unwrap_or(Done { failed: 1, ..Done::default() })).fold(
            Done::default(),
            |a, b| Done { operations: a.operations + b.operations, lost: a.lost + b.lost, failed: a.failed + b.failed },
        )
    })
}

fn client(server: &Pgbench, seed: u64, end: Instant) -> Done {
    let mut rng = Rng::new(seed);
    let mut done = Done::default();
    while Instant::now() < end {
        let name = format!("nome {}", rng.below(NAMES));
        let statement = match rng.below(100) {
            0..30 => "INSERT INTO pessoas (nome) VALUES ($1)",
            30..50 => "UPDATE pessoas SET nome = nome WHERE nome = $1",
            50..60 => "DELETE FROM pessoas WHERE nome = $1",
            _ => "SELECT codigo FROM pessoas WHERE nome = $1",
        };
        operation(server, statement, &name, &mut done);
        let pause = Duration::from_millis(rng.below(PAUSE_MAX_MS));
        thread::sleep(pause.min(end.saturating_duration_since(Instant::now())));
    }
    done
}

/// A connection of its own; whoever loses tries again.
fn operation(server: &Pgbench, statement: &str, name: &str, done: &mut Done) {
    loop {
        let answer = match connect(server) {
            Ok(mut client) => client.query(statement, &[&name]),
            Err(_) => {
                done.failed += 1;
                return;
            }
        };
        match answer.as_ref().map_err(classify) {
            Ok(_) => {
                done.operations += 1;
                return;
            }
            Err(Failure::Retry) => done.lost += 1,
            Err(Failure::Definite(_) | Failure::Unknown(_)) => {
                done.failed += 1;
                return;
            }
        }
    }
}

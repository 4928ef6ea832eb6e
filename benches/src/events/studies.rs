//! Two loads of the studies of PGCluster (2009), as they ran them: many rows from one client, each a transaction; and a hundred clients with a thousand TPC-B transactions each, a tenth of them with
//! a new connection for each transaction, also with a node that loses its power in the middle.

use std::process::Child;
use std::time::{Duration, Instant};

use postgres_r_tests::harness::{self, node};
use postgres_r_tests::pgbench::{self, Pgbench};

use super::bed::{Bed, connect, execute};
use super::figure::{Extent, Figure, Result};

const ROWS: u64 = 175_046;
const CLIENTS: u64 = 100;
const TRANSACTIONS: u64 = 1_000;
/// Until enough is done for the power to go.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub fn rows(bed: &mut Bed, extent: Extent) -> Result<Vec<Figure>> {
    let rows = extent.of(ROWS);
    let script = bed.directory().join("rows.sql");
    std::fs::write(&script, "INSERT INTO pessoas (nome) VALUES ('uma pessoa');\n")?;
    let mut figures = Vec::new();
    for (system, server) in [("plain", bed.plain()), ("group", bed.node(1))] {
        execute(&server, "DROP TABLE IF EXISTS pessoas; CREATE TABLE pessoas (codigo serial PRIMARY KEY, nome text)")?;
        let start = Instant::now();
        let (path, count) = (script.display().to_string(), rows.to_string());
        pgbench::finish(server.command(&["-n", "-c", "1", "-t", &count, "-f", &path]).spawn()?)?;
        figures.push(Figure::one(format!("{system}: 175,046 rows from one client"), "s", start.elapsed().as_secs_f64()));
    }
    Ok(figures)
}

pub fn hundred(bed: &mut Bed, extent: Extent) -> Result<Vec<Figure>> {
    let each = extent.of(TRANSACTIONS);
    let mut figures = Vec::new();
    let whole = |server: &Pgbench, each: u64, options: &[&str]| -> Result<f64> {
        let start = Instant::now();
        pgbench::finish(spawn(server, CLIENTS, each, options)?)?;
        Ok(start.elapsed().as_secs_f64())
    };
    for (system, server) in [("plain", bed.plain()), ("group", bed.node(1))] {
        let kept = whole(&server, each, &[])?;
        figures.push(Figure::one(format!("{system}: 100 clients with 1,000 transactions each"), "s", kept));
        let anew = whole(&server, each.div_ceil(10), &["-C"])?;
        figures.push(Figure::one(
            format!("{system}: 100 clients with 100 each, a connection for each transaction"),
            "s",
            anew,
        ));
    }
    figures.extend(power_off(bed, each)?);
    Ok(figures)
}

/// Half of the clients on each of two nodes; the third loses its power when a quarter is done, and comes back.
fn power_off(bed: &Bed, each: u64) -> Result<Vec<Figure>> {
    let victim = node(3);
    let before = transactions(bed)?;
    let start = Instant::now();
    let running: Vec<Child> =
        [1, 2].into_iter().map(|number| spawn(&bed.node(number), CLIENTS / 2, each, &[])).collect::<Result<_>>()?;
    while transactions(bed)? - before < (CLIENTS * each / 4) as i64 {
        std::thread::sleep(LOOK_EVERY);
    }
    bed.power_off(victim);
    bed.power_on(victim)?;
    let mut done = 0;
    for child in running {
        done += pgbench::finish(child)?.transactions;
    }
    let took = start.elapsed().as_secs_f64();
    bed.group.settle();
    let there = transactions(bed)? - before;
    if there != done as i64 {
        return Err(format!("{done} transactions were acknowledged, {there} are there").into());
    }
    harness::assert_equal(&bed.group);
    Ok(vec![Figure::one("group: half of them on each of two nodes, the third off and back in the middle", "s", took)])
}

fn transactions(bed: &Bed) -> Result<i64> {
    Ok(connect(&bed.node(1))?.query_one("SELECT count(*) FROM pgbench_history", &[])?.get(0))
}

fn spawn(server: &Pgbench, clients: u64, each: u64, options: &[&str]) -> Result<Child> {
    let (clients, each) = (clients.to_string(), each.to_string());
    let mut all = vec!["-n", "-c", &clients, "-j", "2", "-t", &each, "--max-tries=100000"];
    all.extend(options);
    Ok(server.command(&all).spawn()?)
}

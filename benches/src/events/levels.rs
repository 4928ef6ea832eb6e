//! What each read level costs: pgbench's select-only on one node, while another is written to.

use std::time::Duration;

use postgres_r_tests::pgbench::{self, Pgbench, Report};

use super::bed::{Bed, connect};
use super::figure::{Extent, Figure, Result};

const LEVELS: [&str; 4] = ["eventual", "session", "bounded", "strong"];
const CLIENTS: [u32; 2] = [1, 8];
const SECONDS: u64 = 4;
/// Transactions a second on the other node.
const WRITES: &str = "300";

pub fn run(bed: &mut Bed, extent: Extent) -> Result<Vec<Figure>> {
    let (reader, writer) = (bed.node(2), bed.node(3));
    let token: String = connect(&reader)?.query_one("SELECT postgres_r.session_token()", &[])?.get(0);
    let mut figures = Vec::new();
    for clients in CLIENTS {
        for level in LEVELS {
            let options = match level {
                "session" => format!("-c postgres_r.read_level={level} -c postgres_r.read_after={token}"),
                _ => format!("-c postgres_r.read_level={level}"),
            };
            let (mut tps, mut latency) = (Vec::new(), Vec::new());
            for _ in 0..extent.rounds {
                let report = read(&reader, &writer, clients, extent.seconds(SECONDS), &options)?;
                tps.push(report.tps);
                latency.push(report.latency_ms);
            }
            figures.push(Figure::new(format!("select-only at {level}, {clients} clients"), "tps", tps));
            figures.push(Figure::new(format!("select-only at {level}, {clients} clients, mean"), "ms", latency));
        }
    }
    figures.extend(commits(&writer, extent)?);
    Ok(figures)
}

fn read(reader: &Pgbench, writer: &Pgbench, clients: u32, time: Duration, options: &str) -> Result<Report> {
    let writing = writer.spawn(2, time, &["-N", "-R", WRITES])?;
    let mut command = reader.timed(clients, time, &["-S"]);
    let report = pgbench::finish(command.env("PGOPTIONS", options).spawn()?)?;
    pgbench::finish(writing)?;
    Ok(report)
}

/// A commit that returns when all nodes show it, to one that does not wait for that.
fn commits(server: &Pgbench, extent: Extent) -> Result<Vec<Figure>> {
    let seconds = extent.seconds(SECONDS).as_secs().to_string();
    let at = |level: &str| -> Result<Figure> {
        let mut latency = Vec::new();
        for _ in 0..extent.rounds {
            let mut command = server.command(&["-n", "-N", "-c", "1", "-T", &seconds]);
            let options = format!("-c postgres_r.commit_level={level}");
            latency.push(pgbench::finish(command.env("PGOPTIONS", options).spawn()?)?.latency_ms);
        }
        Ok(Figure::new(format!("simple-update with commit_level = {level}, 1 client, mean"), "ms", latency))
    };
    Ok(vec![at("here")?, at("after")?])
}

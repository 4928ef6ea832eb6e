//! How a transaction's time grows with its rows: one client updates 1 to 100,000 rows by one statement.

use std::time::{Duration, Instant};

use postgres_r_tests::pgbench::Pgbench;

use super::bed::{Bed, connect};
use super::figure::{Extent, Figure, Result};
use crate::median;

const SIZES: [u64; 6] = [1, 10, 100, 1_000, 10_000, 100_000];
/// Of pgbench's accounts, at the scale of the bed.
const ACCOUNTS: u64 = 1_000_000;
const LEAST: usize = 5;
const MOST: Duration = Duration::from_secs(2);

pub fn run(bed: &mut Bed, extent: Extent) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for rows in SIZES {
        let (mut plain, mut group, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..extent.rounds {
            let (alone, replicated) = (of(&bed.plain(), rows)?, of(&bed.node(1), rows)?);
            plain.push(alone);
            group.push(replicated);
            ratio.push(alone / replicated);
        }
        figures.push(Figure::new(format!("plain: UPDATE of {rows} rows"), "ms", plain));
        figures.push(Figure::new(format!("group: UPDATE of {rows} rows"), "ms", group));
        figures.push(Figure::new(format!("plain's time to the group's, {rows} rows"), "", ratio));
    }
    Ok(figures)
}

/// The median of one statement, in milliseconds.
fn of(server: &Pgbench, rows: u64) -> Result<f64> {
    let mut client = connect(server)?;
    let update = client.prepare("UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid BETWEEN $1 AND $2")?;
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < LEAST || start.elapsed() < MOST {
        let first = (times.len() as u64 * rows) % (ACCOUNTS - rows) + 1;
        let begin = Instant::now();
        client.execute(&update, &[&(first as i32), &((first + rows - 1) as i32)])?;
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(median(&times))
}

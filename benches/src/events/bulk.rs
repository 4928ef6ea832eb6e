//! A COPY of 5 million rows into a table with a primary key, to the same on one plain server.

use std::io::Write;
use std::time::Instant;

use postgres_r_tests::pgbench::Pgbench;

use super::bed::{Bed, connect, execute};
use super::figure::{Extent, Figure, Result};

const ROWS: u64 = 5_000_000;
const FILLER: &str = "forty characters of nothing in particular";

pub fn run(bed: &mut Bed, extent: Extent) -> Result<Vec<Figure>> {
    let rows = extent.of(ROWS);
    let (plain, first) = (bed.plain(), bed.node(1));
    for server in [&plain, &first] {
        execute(server, "DROP TABLE IF EXISTS bulk; CREATE TABLE bulk (id int PRIMARY KEY, n int, filler text)")?;
    }
    let (mut on_plain, mut on_group, mut everywhere, mut ratio) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..extent.rounds {
        let alone = copy(&plain, rows)?;
        let start = Instant::now();
        let acknowledged = copy(&first, rows)?;
        bed.group.settle();
        everywhere.push(start.elapsed().as_secs_f64());
        on_plain.push(alone);
        on_group.push(acknowledged);
        ratio.push(alone / acknowledged);
        for server in [&plain, &first] {
            execute(server, "TRUNCATE bulk")?;
        }
    }
    Ok(vec![
        Figure::new("plain: COPY of 5 million rows", "s", on_plain),
        Figure::new("group: COPY of 5 million rows", "s", on_group),
        Figure::new("group: until all nodes show them", "s", everywhere),
        Figure::new("plain's time to the group's", "", ratio),
    ])
}

fn copy(server: &Pgbench, rows: u64) -> Result<f64> {
    let mut client = connect(server)?;
    let start = Instant::now();
    let mut writer = client.copy_in("COPY bulk FROM STDIN")?;
    for row in 1..=rows {
        writeln!(writer, "{row}\t0\t{FILLER}")?;
    }
    writer.finish()?;
    Ok(start.elapsed().as_secs_f64())
}

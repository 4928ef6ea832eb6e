//! A database of gigabytes joins by a physical and by a logical copy, and no process holds much of it in memory. `COPY_SCALE` is pgbench's, 340 for
//! 5 GB.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::time::{Duration, Instant};

use gcs::playground::group::describe;
use postgres_r_tests::harness::machines::Machines;
use postgres_r_tests::harness::memory::Watch;
use postgres_r_tests::harness::wait;
use postgres_r_tests::pgbench::Pgbench;

const PATIENCE: Duration = Duration::from_secs(1_800);
const MEMORY_MAX_MB: u64 = 256;

const DIGEST: &str = "SELECT count(*), sum(abalance)::text FROM pgbench_accounts";

fn await_rows(machines: &Machines, number: usize, wanted: i64) {
    wait::until("the copy is there", PATIENCE, || {
        let mut client = machines.try_connect(number, "shop").map_err(|error| describe(&error))?;
        let found: i64 = client.query_one(DIGEST, &[]).map_err(|error| describe(&error))?.get(0);
        if found == wanted { Ok(()) } else { Err(format!("{found} rows")) }
    });
}

/// With what each kind of process held at the most.
fn timed(machines: &Machines, what: &str, join: impl FnOnce()) {
    let (watch, began) = (Watch::below(machines.directory()), Instant::now());
    join();
    let (peaks, took) = (watch.peaks(), began.elapsed());
    println!("{what}: {took:.1?}, MB held at the most: {peaks:?}");
    for (process, held) in peaks {
        assert!(held < MEMORY_MAX_MB, "{what}: {process} held {held} MB");
    }
}

#[test]
fn a_large_database_joins_physically_and_logically_in_little_memory() {
    let scale = std::env::var("COPY_SCALE").map_or(340, |text| text.parse().unwrap());
    let machines = Machines::new(3);
    machines.found();
    let cluster = machines.cluster(1);
    Pgbench { bin: cluster.bin, port: cluster.port, database: "shop".to_owned() }.initialize(scale).unwrap();
    machines.replicate(1);
    let mut client = machines.try_connect(1, "shop").unwrap();
    let size: i64 = client.query_one("SELECT pg_database_size('shop')", &[]).unwrap().get(0);
    println!("the database has {} MB", size / 1_000_000);
    let rows = i64::from(scale) * 100_000;
    timed(&machines, "physical", || {
        assert!(machines.join(2).status.success());
        machines.start_daemon(2);
        await_rows(&machines, 2, rows);
    });
    timed(&machines, "logical", || {
        machines.join_with_server(3);
        machines.replicate(3);
        await_rows(&machines, 3, rows);
    });
}

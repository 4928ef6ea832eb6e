//! The playground's handling of one PostgreSQL server, without any replication.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use gcs::playground::account::Account;
use gcs::playground::cluster::Cluster;
use gcs::playground::process::{Process, Signal};
use postgres_r_tests::harness::ports;

fn cluster(dir: &tempfile::TempDir) -> Cluster {
    let account = Account::choose().unwrap();
    account.give(dir.path()).unwrap();
    let pg_config = std::env::var("PG_CONFIG").unwrap_or_else(|_| "/usr/lib/postgresql/15/bin/pg_config".to_owned());
    let bin = PathBuf::from(pg_config).parent().unwrap().to_owned();
    let port = ports::free_one();
    Cluster { bin, account, home: dir.path().canonicalize().unwrap(), port }
}

#[test]
fn a_server_starts_stops_and_starts_again_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = cluster(&dir);
    cluster.init("").unwrap();
    assert!(cluster.process().is_none());
    cluster.start().unwrap();
    cluster.start().unwrap();
    let mut client = postgres::Client::connect(&cluster.uri("postgres"), postgres::NoTls).unwrap();
    client.batch_execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").unwrap();

    let postmaster = cluster.process().unwrap();
    assert!(postmaster.signal(Signal::KILL));
    assert!(postmaster.wait_until(Instant::now() + Duration::from_secs(10)));
    cluster.wait_orphans().unwrap();
    assert!(cluster.process().is_none(), "its pid file is still there, and must not be believed");

    cluster.start().unwrap();
    let mut client = postgres::Client::connect(&cluster.uri("postgres"), postgres::NoTls).unwrap();
    assert_eq!(client.query_one("SELECT n FROM t", &[]).unwrap().get::<_, i32>(0), 1);
    assert!(cluster.stop().unwrap(), "it had to be forced");
    assert!(Process::all_in(&cluster.data()).is_empty());
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = cluster(&dir);
    cluster.init("shared_preload_libraries = 'no_such_library'\n").unwrap();
    let error = cluster.start().unwrap_err();
    assert!(error.message.contains("no_such_library"), "{error}");
}

//! What the daemons of a real group tell over HTTP while things happen to it: a majority is lost, a node is drained, is behind, is out of service, comes
//! back, and somebody floods the port.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

use gcs::playground::{NodeNumber, Part};
use postgres_r_tests::harness::http::{self, becomes, metric, metric_becomes, status};
use postgres_r_tests::harness::stopped::Stopped;
use postgres_r_tests::harness::{self, Group, damage, node};

const WITHIN: Duration = Duration::from_secs(60);

/// Of ready, writable and synced.
fn answers(group: &Group, number: NodeNumber) -> [u16; 3] {
    ["/readyz", "/writable", "/synced"].map(|path| status(group, number, path))
}

fn assert_healthy(group: &Group) {
    for number in group.numbers() {
        becomes(group, number, "/writable", 200, "\"ok\":true", WITHIN);
        becomes(group, number, "/synced", 200, "\"ok\":true", WITHIN);
        assert_eq!(status(group, number, "/healthz"), 200);
    }
}

#[test]
fn without_a_majority_a_node_is_healthy_and_reads_and_is_not_writable() {
    let group = harness::shared();
    assert_healthy(&group);
    group.kill(node(2), Part::Gcs);
    assert_eq!(answers(&group, node(1))[0], 200);
    becomes(&group, node(1), "/writable", 200, "", WITHIN);
    group.kill(node(3), Part::Gcs);
    let took = becomes(&group, node(1), "/writable", 503, "no majority", WITHIN);
    println!("known after {took:?}");
    let refused = group.connect(node(1)).batch_execute("CREATE TABLE not_now (n int)").unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "25006");
    assert_eq!(status(&group, node(1), "/healthz"), 200);
    assert_eq!(group.value(node(1), "SELECT 1"), "1");
    assert_eq!(answers(&group, node(1)), [200, 503, 503], "what others have committed is not known");
    assert_eq!(status(&group, node(1), "/readyz?lag=100000"), 503);
    metric_becomes(&group, node(1), "gcs_quorum", 0.0);
    group.start_node(node(2));
    group.start_node(node(3));
    assert_healthy(&group);
    group.execute(node(1), "CREATE TABLE and_now (n int)");
}

#[test]
fn a_node_that_is_drained_sends_everybody_elsewhere() {
    let group = harness::shared();
    let config = group.playground.cluster(node(2)).home.join("gcs.toml");
    let drain = |arguments: &[&str]| {
        let output =
            Command::new(harness::gcs()).arg("drain").args(arguments).arg("--config").arg(&config).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    drain(&[]);
    assert_eq!(answers(&group, node(2)), [503; 3]);
    assert!(http::get(&group, node(2), "/readyz").unwrap().1.contains("drained"));
    assert_eq!(status(&group, node(2), "/healthz"), 200);
    metric_becomes(&group, node(2), "gcs_draining", 1.0);
    becomes(&group, node(1), "/writable", 200, "", WITHIN);
    metric_becomes(&group, node(1), "gcs_member_state{member=\"node2\",state=\"draining\"}", 1.0);
    drain(&["--cancel"]);
    assert_healthy(&group);
}

#[test]
fn a_node_that_is_behind_is_ready_only_for_those_who_do_not_mind() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE behind (n int PRIMARY KEY)");
    group.settle();
    let stopped = Stopped::remote_backends(&group, node(3));
    for n in 0..40 {
        group.execute(node(1), &format!("INSERT INTO behind VALUES ({n})"));
    }
    becomes(&group, node(3), "/readyz?lag=20", 503, "40 positions behind", WITHIN);
    assert_eq!([status(&group, node(3), "/readyz"), status(&group, node(3), "/readyz?lag=40")], [200; 2]);
    assert_eq!([status(&group, node(3), "/synced"), status(&group, node(1), "/synced")], [503, 200]);
    assert_eq!(status(&group, node(3), "/synced?database=postgres"), 503, "it is not replicated");
    metric_becomes(&group, node(3), "gcs_database_apply_lag_positions{database=\"shop\"}", 40.0);
    metric_becomes(&group, node(3), "gcs_database_receive_lag_positions{database=\"shop\"}", 0.0);
    drop(stopped);
    becomes(&group, node(3), "/synced", 200, "\"behind\":0", WITHIN);
    assert_eq!(group.value(node(3), "SELECT count(*) FROM behind"), "40", "as it was promised");
    // What one session has been told, the next one sees on another node that is synced then.
    for n in 40..60 {
        group.execute(node(1), &format!("INSERT INTO behind VALUES ({n})"));
        assert_eq!(status(&group, node(2), "/synced"), 200);
        assert_eq!(group.value(node(2), "SELECT max(n) FROM behind"), n.to_string());
    }
    harness::assert_equal(&group);
}

#[test]
fn a_node_that_comes_back_is_synced_when_it_has_what_it_missed() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE missed (n int PRIMARY KEY, t text)");
    group.settle();
    group.kill(node(2), Part::Postgres);
    becomes(&group, node(2), "/readyz", 503, "its PostgreSQL is not connected", WITHIN);
    assert_eq!(status(&group, node(2), "/healthz"), 200, "that is no reason to end the daemon");
    group.kill(node(2), Part::Gcs);
    for n in 0..20 {
        let rows =
            format!("INSERT INTO missed SELECT i, repeat('x', 1000) FROM generate_series({n} * 500, {n} * 500 + 499) i");
        group.execute(node(1), &rows);
    }
    group.start_node(node(2));
    becomes(&group, node(2), "/synced", 200, "", WITHIN);
    assert_eq!(group.value(node(2), "SELECT count(*) FROM missed"), "10000");
    assert_healthy(&group);
    harness::assert_equal(&group);
}

/// By a group of its own: its server is left to be repaired.
#[test]
fn a_node_that_is_out_of_service_says_so_and_is_not_to_be_restarted_for_it() {
    let group = Group::start();
    let may_rebuild = |may: bool| damage::may_rebuild(&group, node(2), may);
    group.execute(node(1), "CREATE TABLE thing (id int PRIMARY KEY); INSERT INTO thing SELECT generate_series(1, 100)");
    damage::change_rows(&group, node(2), "thing", &["DELETE FROM thing WHERE id = 5"]);
    may_rebuild(false);
    group.execute(node(1), "DELETE FROM thing WHERE id = 5");
    becomes(&group, node(2), "/readyz", 503, "out of service", WITHIN);
    assert_eq!(answers(&group, node(2)), [503; 3]);
    assert_eq!([status(&group, node(2), "/healthz"), status(&group, node(1), "/writable")], [200; 2]);
    metric_becomes(&group, node(2), "gcs_database_out_of_service{database=\"shop\"}", 1.0);
    may_rebuild(true);
    becomes(&group, node(2), "/synced", 200, "", WITHIN);
    assert_healthy(&group);
}

#[test]
fn a_flood_at_the_port_is_counted_and_costs_no_commit() {
    const FLOOD: usize = 2_000;
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE flooded (n int PRIMARY KEY)");
    group.settle();
    let rejected = || metric(&group, node(1), "gcs_connections_rejected_total{port=\"http\",cause=\"crowd\"}").unwrap();
    let memory = || metric(&group, node(1), "process_resident_memory_bytes").unwrap();
    let (rejected_before, memory_before) = (rejected(), memory());
    let address = http::address(&group, node(1));
    thread::scope(|scope| {
        let flood = scope.spawn(|| (0..FLOOD).map(|_| TcpStream::connect(&address).unwrap()).collect::<Vec<_>>());
        let mut client = group.connect(node(1));
        for n in 0..200 {
            client.execute("INSERT INTO flooded VALUES ($1)", &[&n]).unwrap();
        }
        let held = flood.join().unwrap();
        assert_eq!(status(&group, node(1), "/writable"), 200, "the newest is heard");
        assert!(memory() < memory_before + 16e6, "{} before, {} now", memory_before, memory());
        drop(held);
    });
    assert!(rejected() - rejected_before > FLOOD as f64 * 0.9, "{} and {}", rejected_before, rejected());
    group.settle();
    assert_eq!(group.values("SELECT count(*) FROM flooded"), ["200"; 3]);
    harness::assert_equal(&group);
}

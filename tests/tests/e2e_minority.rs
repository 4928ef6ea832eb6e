//! A node without majority refuses writes at once, serves reads, and comes back by itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::time::{Duration, Instant};

use gcs::playground::process::Signal;
use gcs::playground::{NodeNumber, Part};
use postgres_r_tests::harness::{self, Group, node, wait};

const REFUSED_WITHIN: Duration = Duration::from_secs(2);

fn assert_refused(group: &Group, number: NodeNumber, since: Instant) {
    let error = group.connect(number).batch_execute("INSERT INTO minority VALUES (99)").unwrap_err();
    let took = since.elapsed();
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
    println!("node {}: refused after {took:?}: {} ({:?})", number.0, error.message(), error.detail());
    assert_eq!(error.code().code(), "25006", "{}", error.message());
    assert!(took <= REFUSED_WITHIN, "it took {took:?}");
}

fn two_daemons_stop(group: &Group, stopped: [usize; 2], left: usize) {
    for number in stopped {
        group.signal(node(number), Part::Gcs, Signal::TERM);
    }
    assert_refused(group, node(left), Instant::now());
    assert_refused(group, node(left), Instant::now());
    assert_eq!(group.value(node(left), "SELECT count(*) FROM minority"), "1");
    for number in stopped {
        group.start_node(node(number));
    }
    wait::until("a write after the daemons are back", Duration::from_secs(10), || {
        let mut client = group.try_connect(node(left)).map_err(|error| error.to_string())?;
        client.batch_execute("UPDATE minority SET n = n").map_err(|error| gcs::playground::group::describe(&error))
    });
    harness::assert_equal(group);
}

#[test]
fn a_node_whose_peers_are_stopped_refuses_writes_within_two_seconds_and_serves_reads() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE minority (n int PRIMARY KEY); INSERT INTO minority VALUES (1)");
    group.settle();
    // Whoever leads: each node is the one left over once.
    two_daemons_stop(&group, [1, 2], 3);
    two_daemons_stop(&group, [2, 3], 1);
    two_daemons_stop(&group, [1, 3], 2);
}

#[test]
fn a_node_without_its_own_daemon_refuses_writes_and_serves_reads() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE alone (n int PRIMARY KEY); INSERT INTO alone VALUES (1)");
    group.settle();
    group.kill(node(2), Part::Gcs);
    let error = group.connect(node(2)).batch_execute("INSERT INTO alone VALUES (2)").unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("25006"), "{error}");
    assert_eq!(group.value(node(2), "SELECT count(*) FROM alone"), "1");
    group.execute(node(1), "INSERT INTO alone VALUES (3)");
    group.start_node(node(2));
    harness::assert_equal(&group);
}

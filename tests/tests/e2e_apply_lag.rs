//! A node that is far behind: by the policy those who write wait for it, or they do not.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::time::{Duration, Instant};

use postgres_r_tests::harness::stopped::Stopped;
use postgres_r_tests::harness::{self, Group, node, wait};

const WITHIN: Duration = Duration::from_secs(30);

fn setting(group: &Group, name: &str, value: &str) {
    let mut client = group.playground.connect(node(1), "postgres").unwrap();
    client.batch_execute(&format!("ALTER SYSTEM SET {name} = {value}")).unwrap();
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    wait::until(&format!("{name} is {value}"), WITHIN, || {
        match group.value(node(1), &format!("SELECT current_setting('{name}')")) {
            found if found == value => Ok(()),
            found => Err(found),
        }
    });
}

fn throttled(group: &Group) -> u64 {
    group.value(node(1), "SELECT throttle_waits::bigint FROM postgres_r.pg_stat_postgres_r").parse().unwrap()
}

#[test]
fn writers_wait_for_a_node_that_is_far_behind_if_that_is_the_policy() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE slow (n int PRIMARY KEY)");
    group.settle();
    setting(&group, "postgres_r.max_apply_lag", "20");
    let mut client = group.connect(node(1));
    let before = throttled(&group);
    let stopped = Stopped::remote_backends(&group, node(3));
    for n in 0..60 {
        client.execute("INSERT INTO slow VALUES ($1)", &[&n]).unwrap();
    }
    let lag = "SELECT lag > 20 FROM postgres_r.members WHERE node = 'node3'";
    wait::until("the others know that it is behind", WITHIN, || match group.value(node(1), lag) {
        found if found == "true" => Ok(()),
        found => Err(found),
    });
    client.execute("INSERT INTO slow VALUES (60)", &[]).unwrap();
    assert_eq!(throttled(&group), before, "nobody waits unless told to");
    setting(&group, "postgres_r.max_apply_lag_policy", "throttle");
    let started = Instant::now();
    client.execute("INSERT INTO slow VALUES (61)", &[]).unwrap();
    println!("a statement took {:?}", started.elapsed());
    assert_eq!(throttled(&group), before + 1, "it goes on after a while, though the node has not moved");
    drop(stopped);
    wait::until("it has caught up", WITHIN, || match group.value(node(1), lag) {
        found if found == "false" => Ok(()),
        found => Err(found),
    });
    let after = throttled(&group);
    client.execute("INSERT INTO slow VALUES (62)", &[]).unwrap();
    assert_eq!(throttled(&group), after);
    setting(&group, "postgres_r.max_apply_lag_policy", "fall_behind");
    setting(&group, "postgres_r.max_apply_lag", "100000");
    harness::assert_equal(&group);
}

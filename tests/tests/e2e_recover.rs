//! A majority that is lost for good: what one node has goes on, and others join it.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::fs;
use std::process::Output;
use std::time::Duration;

use gcs::playground::group::{Started, describe};
use gcs::playground::{NodeNumber, Part};
use postgres_r_tests::harness::{Group, node, wait};

const BACK_WITHIN: Duration = Duration::from_secs(30);

const DIGEST: &str = "SELECT concat_ws(' ', count(*), md5(string_agg(t::text, ',' ORDER BY t::text))) FROM kept t";

fn recover(group: &Group, number: NodeNumber, options: &[&str]) -> Output {
    let cluster = group.playground.cluster(number);
    let mut command = cluster.account.command(&group.playground.manifest.gcs, &cluster.home);
    command.args(["recover", "--config"]).arg(cluster.home.join("gcs.toml")).args(options).output().unwrap()
}

#[test]
fn two_of_three_are_destroyed_and_what_the_third_acknowledged_is_all_there_in_a_group_of_three_again() {
    let mut group = Group::start();
    group.execute(node(1), "CREATE TABLE kept (id serial PRIMARY KEY, node int, v text)");
    group.settle();
    for number in [1, 2, 3, 1, 1] {
        group.execute(
            node(number),
            &format!("INSERT INTO kept (node, v) SELECT {number}, md5(n::text) FROM generate_series(1, 100) n"),
        );
    }
    // The last word is the survivor's.
    let acknowledged = group.value(node(1), DIGEST);
    for lost in [2, 3] {
        group.kill(node(lost), Part::Both);
        let home = group.playground.cluster(node(lost)).home;
        fs::remove_dir_all(home.join("gcs")).unwrap();
        fs::remove_dir_all(home.join("data")).unwrap();
    }
    let refused = group.try_connect(node(1)).unwrap().batch_execute("INSERT INTO kept (node) VALUES (0)");
    assert!(refused.is_err(), "there is no majority");

    let running = recover(&group, node(1), &["--accept-loss"]);
    assert_eq!(running.status.code(), Some(2), "{running:?}");
    assert!(String::from_utf8_lossy(&running.stderr).contains("in use by another daemon"), "{running:?}");
    group.kill(node(1), Part::Gcs);
    let asked = recover(&group, node(1), &[]);
    let report = String::from_utf8_lossy(&asked.stdout).into_owned();
    assert_eq!(asked.status.code(), Some(3), "{asked:?}");
    assert!(["node2", "node3", "shop", "position"].iter().all(|word| report.contains(word)), "{report}");
    let done = recover(&group, node(1), &["--accept-loss"]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(group.start_node(node(1)), Started::Online);
    wait::until("the survivor takes writes", BACK_WITHIN, || {
        let mut client = group.try_connect(node(1)).map_err(|error| describe(&error))?;
        client.batch_execute("UPDATE kept SET v = v WHERE id = 1").map_err(|error| describe(&error))
    });
    assert_eq!(group.value(node(1), DIGEST), acknowledged);

    for _ in 0..2 {
        group.add_node().unwrap();
    }
    group.reload();
    let voters = "SELECT string_agg(node || ' ' || role || ' ' || state, ', ' ORDER BY node) FROM postgres_r.members";
    for number in [1, 4, 5] {
        let all = "node1 voter online, node4 voter online, node5 voter online";
        wait::until(&format!("three members as node {number} sees them"), BACK_WITHIN, || {
            let members = group.value(node(number), voters);
            if members == all { Ok(()) } else { Err(members) }
        });
        wait::until(&format!("what was acknowledged on node {number}"), BACK_WITHIN, || {
            let found = group.value(node(number), DIGEST);
            if found == acknowledged { Ok(()) } else { Err(found) }
        });
    }
    // One of three can be lost again, the survivor too; what sequences give out is new.
    group.execute(node(4), "INSERT INTO kept (node) SELECT 4 FROM generate_series(1, 50)");
    group.kill(node(1), Part::Both);
    wait::until("two of three take writes", BACK_WITHIN, || {
        let mut client = group.try_connect(node(5)).map_err(|error| describe(&error))?;
        client.batch_execute("INSERT INTO kept (node) VALUES (5)").map_err(|error| describe(&error))
    });
}

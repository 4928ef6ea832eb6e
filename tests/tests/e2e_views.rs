//! What a node says of itself and of the group, and what it tells a transaction that lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::collections::BTreeMap;
use std::time::Duration;

use gcs::playground::{NodeNumber, Part};
use postgres_r_tests::harness::{self, Group, node, wait};

fn members(group: &Group, number: NodeNumber) -> BTreeMap<String, String> {
    let rows = group.connect(number).query("SELECT node::text, state::text FROM postgres_r.members", &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[test]
fn members_shows_every_node_with_its_state_and_one_leader() {
    let group = harness::shared();
    for number in group.numbers() {
        wait::until("three members online", Duration::from_secs(10), || {
            let members = members(&group, number);
            let online = members.values().filter(|state| *state == "online").count();
            if members.len() == 3 && online == 3 { Ok(()) } else { Err(format!("{members:?}")) }
        });
        let leaders = group.value(number, "SELECT count(*) FROM postgres_r.members WHERE leader");
        assert_eq!(leaders, "1", "as seen by node {}", number.0);
        let columns =
            "SELECT count(address) = 3 AND count(committed_position) = 3 AND count(lag) = 3 FROM postgres_r.members";
        assert_eq!(group.value(number, columns), "true");
    }
    group.kill(node(3), Part::Both);
    wait::until("node 3 seen to be gone", Duration::from_secs(10), || {
        let members = members(&group, node(1));
        if members["node3"] != "online" { Ok(()) } else { Err(format!("{members:?}")) }
    });
    group.start_node(node(3));
}

#[test]
fn the_committed_position_is_the_same_everywhere_once_the_group_is_quiet() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE quiet (n int PRIMARY KEY); INSERT INTO quiet SELECT generate_series(1, 50)");
    group.settle();
    wait::until("one position", Duration::from_secs(10), || {
        let positions: Vec<String> = group
            .numbers()
            .into_iter()
            .map(|number| {
                group.value(
                    number,
                    &format!("SELECT committed_position FROM postgres_r.members WHERE node = 'node{}'", number.0),
                )
            })
            .collect();
        if positions.iter().all(|position| *position == positions[0]) { Ok(()) } else { Err(format!("{positions:?}")) }
    });
}

#[test]
fn the_loser_of_a_conflict_is_told_the_table_the_winner_and_its_position() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE fight (id int PRIMARY KEY, n int); INSERT INTO fight VALUES (7, 0)");
    group.settle();
    let mut loser = group.connect(node(2));
    loser.batch_execute("BEGIN; UPDATE fight SET n = n + 1 WHERE id = 7").unwrap();
    group.execute(node(1), "UPDATE fight SET n = n + 10 WHERE id = 7");
    let error = loser.batch_execute("COMMIT").unwrap_err();
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
    println!("{} / {:?}", error.message(), error.detail());
    assert_eq!(error.code().code(), "40001");
    let detail = error.detail().unwrap_or_default();
    for part in ["fight", "7", "node1", "position"] {
        assert!(detail.contains(part), "{part} is missing in: {detail}");
    }
    harness::assert_equal(&group);
    assert_eq!(group.values("SELECT n FROM fight"), ["10", "10", "10"]);
}

#[test]
fn pg_stat_postgres_r_counts_commits_and_aborts() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE counted (n int PRIMARY KEY)");
    group.settle();
    let counters = |number| -> BTreeMap<String, i64> {
        let row = group
            .connect(number)
            .query_one("SELECT to_jsonb(s)::text FROM postgres_r.pg_stat_postgres_r s LIMIT 1", &[])
            .unwrap();
        let value: serde_json::Value = serde_json::from_str(row.get(0)).unwrap();
        value.as_object().unwrap().iter().filter_map(|(name, value)| Some((name.clone(), value.as_i64()?))).collect()
    };
    let (before1, before2) = (counters(node(1)), counters(node(2)));
    for n in 0..10 {
        group.execute(node(1), &format!("INSERT INTO counted VALUES ({n})"));
    }
    group.settle();
    let (after1, after2) = (counters(node(1)), counters(node(2)));
    assert!(after1["commits"] - before1["commits"] >= 10, "{before1:?} {after1:?}");
    assert!(after2["applied"] - before2["applied"] >= 10, "{before2:?} {after2:?}");
    assert!(after1["bytes_sent"] > before1["bytes_sent"]);
}

//! The history of the group as `gcs events` tells it: what happens is in it, on every node that saw it, also after a restart, also for whoever follows, and the operator's command is told.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gcs::playground::Part;
use postgres_r_tests::harness::{self, Group, damage, http, node, wait};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

fn config(group: &Group, number: usize) -> PathBuf {
    group.playground.cluster(node(number)).home.join("gcs.toml")
}

fn gcs(group: &Group, number: usize, arguments: &[&str]) -> (String, String, Option<i32>) {
    let output = Command::new(harness::gcs()).args(arguments).arg("--config").arg(config(group, number)).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

fn events(group: &Group, number: usize) -> Vec<Value> {
    let (said, complaint, status) = gcs(group, number, &["events", "--json"]);
    assert_eq!(status, Some(0), "{complaint}");
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn last_number(group: &Group, number: usize) -> u64 {
    events(group, number).last().map_or(0, |event| event["number"].as_u64().unwrap())
}

/// Until the history of this node has an event of this kind behind a number whose text has these words.
fn happens(group: &Group, number: usize, behind: u64, kind: &str, words: &str) {
    wait::until(&format!("{kind}: {words}"), PATIENCE, || {
        let all = events(group, number);
        let is_it = |event: &&Value| {
            event["number"].as_u64().unwrap() > behind
                && event["kind"] == kind
                && event["text"].as_str().unwrap().contains(words)
        };
        if all.iter().any(|event| is_it(&event)) { Ok(()) } else { Err(format!("{:#?}", all.last())) }
    });
}

/// `gcs events --follow`, ended with the test.
struct Following {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Following {
    fn start(group: &Group, number: usize) -> Following {
        let mut command = Command::new(harness::gcs());
        command.args(["events", "--follow", "--since", "1s", "--config"]).arg(config(group, number)).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Following { child, lines }
    }

    fn until(&mut self, words: &str) {
        let found = self.lines.by_ref().map_while(Result::ok).any(|line| line.contains(words));
        assert!(found, "gcs events --follow has ended without \"{words}\"");
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_happens_to_a_node_is_told_to_whoever_follows_elsewhere_and_stays_after_a_restart() {
    let group = harness::shared();
    let behind = last_number(&group, 1);
    let mut following = Following::start(&group, 1);
    group.kill(node(3), Part::Postgres);
    following.until("node3: detached (was online)");
    group.kill(node(3), Part::Gcs);
    following.until("node3: unreachable (was detached)");
    let (said, note, status) = gcs(&group, 3, &["events"]);
    assert!(said.contains("the daemon of node3 was started") && note.contains("does not run"), "{said}{note}");
    assert_eq!(status, Some(0));
    group.start_node(node(3));
    following.until("node3: online");
    happens(&group, 3, 0, "database-state", "database shop here: serving");

    let (_, _, status) = gcs(&group, 1, &["drain", "node2"]);
    assert_eq!(status, Some(0));
    following.until("node2: draining (was online)");
    gcs(&group, 1, &["drain", "node2", "--cancel"]);
    following.until("node2: online (was draining)");

    let before = events(&group, 1);
    group.kill(node(1), Part::Gcs);
    group.start_node(node(1));
    let after = events(&group, 1);
    assert_eq!(after[..before.len()], before[..], "what was before the restart is still there");
    happens(&group, 1, before.last().unwrap()["number"].as_u64().unwrap(), "daemon-started", "node1");
    let numbers: Vec<u64> = after.iter().map(|event| event["number"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
    assert!(behind < *numbers.last().unwrap());
    let state = http::get(&group, node(1), "/state").unwrap().1;
    assert!(state.contains("node3: unreachable (was detached)"), "{state}");
    assert_eq!(gcs(&group, 1, &["events", "--since", "yesterday"]).2, Some(2));
    assert_eq!(gcs(&group, 1, &["events", "--since", "2100-01-01"]).0, "");
    group.settle();
}

#[test]
fn a_majority_that_is_lost_and_found_and_leaders_are_told() {
    let group = harness::shared();
    let behind = last_number(&group, 1);
    for number in [2, 3] {
        group.kill(node(number), Part::Gcs);
    }
    happens(&group, 1, behind, "majority-lost", "writes are refused here");
    happens(&group, 1, behind, "no-leader", "as far as is known here");
    for number in [2, 3] {
        group.start_node(node(number));
    }
    happens(&group, 1, behind, "majority-found", "a majority");
    happens(&group, 1, behind, "leader", "leads, term");
    group.settle();
}

/// By a group of its own: a node's rows are changed behind its back.
#[test]
fn divergence_copies_comparisons_and_repairs_are_told() {
    let group = Group::start();
    let may_rebuild = |may: bool| damage::may_rebuild(&group, node(2), may);
    group.execute(node(1), "CREATE TABLE thing (id int PRIMARY KEY); INSERT INTO thing SELECT generate_series(1, 100)");
    group.settle();
    let database = group.database().to_owned();
    assert_eq!(gcs(&group, 1, &["verify", &database]).2, Some(0));
    happens(&group, 1, 0, "verified", "equal on all nodes");
    damage::change_rows(&group, node(2), "thing", &["DELETE FROM thing WHERE id = 7"]);
    assert_eq!(gcs(&group, 1, &["verify", &database]).2, Some(3));
    happens(&group, 1, 0, "divergence", "public.thing of node2 different");
    assert_eq!(gcs(&group, 1, &["repair", "node2", "thing", "--database", &database]).2, Some(0));
    happens(&group, 1, 0, "repair", "it is equal now");

    may_rebuild(false);
    damage::change_rows(&group, node(2), "thing", &["DELETE FROM thing WHERE id = 5"]);
    group.execute(node(1), "DELETE FROM thing WHERE id = 5");
    happens(&group, 2, 0, "database-state", "here: out of service");
    happens(&group, 1, 0, "member-state", "node2: out of service");
    happens(&group, 2, 0, "divergence", "cannot apply position");
    may_rebuild(true);
    happens(&group, 1, 0, "copy-begun", "node2 gets a copy of database");
    happens(&group, 2, 0, "copy-made", "has taken its place");
    happens(&group, 1, 0, "copy-ended", "node2: the copy of database");
    group.settle();
    harness::assert_equal(&group);
}

#[test]
fn the_command_of_hooks_is_told_each_event() {
    let group = Group::start();
    let told = group.dir().join("told.jsonl");
    let path = config(&group, 1);
    let mut text = std::fs::read_to_string(&path).unwrap();
    text += &format!("\n[hooks]\ncommand = [\"/usr/bin/tee\", \"-a\", \"{}\"]\n", told.display());
    std::fs::write(&path, text).unwrap();
    group.kill(node(1), Part::Gcs);
    group.start_node(node(1));
    group.kill(node(3), Part::Gcs);
    wait::until("the command was told", PATIENCE, || {
        let text = std::fs::read_to_string(&told).unwrap_or_default();
        let is_told = |words: &str| text.contains(words);
        if is_told("the daemon of node1 was started") && is_told("node3: unreachable") { Ok(()) } else { Err(text) }
    });
    group.start_node(node(3));
    let text = std::fs::read_to_string(&told).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|event| event["node"] == "node1" && event["kind"].is_string()), "{text}");
}

//! `gcs playground` as a user meets it.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use gcs::playground::process::Process;
use postgres_r_tests::harness::{self, node, wait};

fn gcs(arguments: &[&str], dir: &Path) -> Output {
    Command::new(harness::gcs()).arg("playground").args(arguments).arg("--dir").arg(dir).output().unwrap()
}

fn assert_done(output: &Output) -> String {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn assert_refused(output: &Output, text: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it was expected to fail");
    assert!(stderr.starts_with("gcs: error: ") && stderr.contains(text), "{stderr}");
}

fn states(dir: &Path) -> Vec<String> {
    let json: serde_json::Value = serde_json::from_str(&assert_done(&gcs(&["status", "--json"], dir))).unwrap();
    let nodes = json["nodes"].as_array().unwrap();
    for node in nodes {
        for key in ["name", "uri", "state", "leader", "position", "lag"] {
            assert!(node.get(key).is_some(), "{key} is missing in {node}");
        }
    }
    nodes.iter().map(|node| node["state"].as_str().unwrap().to_owned()).collect()
}

fn processes(dir: &Path, nodes: usize) -> usize {
    let homes = (1..=nodes).map(|number| dir.join(format!("node{number}")));
    homes.map(|home| Process::all_in(&home).len() + Process::all_in(&home.join("data")).len()).sum()
}

/// Starts on the first base port from which all are free.
fn start_detached(dir: &Path) -> String {
    for base_port in (10_500..30_000).step_by(211).skip(std::process::id() as usize % 50) {
        let output = gcs(&["start", "--detach", "--base-port", &base_port.to_string()], dir);
        if !String::from_utf8_lossy(&output.stderr).contains("cannot be used") {
            return assert_done(&output);
        }
    }
    panic!("no free ports");
}

#[test]
fn a_detached_group_can_be_looked_at_broken_mended_stopped_and_started_again() {
    let parent = tempfile::tempdir().unwrap();
    // Others must get through to DIR.
    std::fs::set_permissions(parent.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let dir = parent.path().canonicalize().unwrap().join("group");
    let uris = start_detached(&dir);
    assert_eq!(uris.lines().count(), 3, "{uris}");
    assert!(uris.lines().all(|uri| uri.starts_with("postgresql://postgres@127.0.0.1:") && uri.ends_with("/shop")), "{uris}");
    assert_eq!(states(&dir), ["online", "online", "online"]);

    assert_refused(&gcs(&["start", "--detach"], &dir), "is running");
    assert_refused(&gcs(&["kill", "4"], &dir), "there is no node 4");

    assert_done(&gcs(&["kill", "2"], &dir));
    assert_eq!(states(&dir)[1], "down");
    assert_refused(&gcs(&["kill", "2"], &dir), "runs");
    assert_done(&gcs(&["start-node", "2"], &dir));
    assert_done(&gcs(&["kill", "3", "--gcs", "--signal", "TERM"], &dir));
    assert_eq!(states(&dir)[2], "gcs-down");
    assert_done(&gcs(&["start-node", "3"], &dir));
    assert_done(&gcs(&["kill", "1", "--postgres"], &dir));
    assert_eq!(states(&dir)[0], "postgres-down");
    assert_done(&gcs(&["start-node", "1"], &dir));
    assert_eq!(states(&dir), ["online", "online", "online"]);

    let added = assert_done(&gcs(&["add-node"], &dir));
    assert_eq!(states(&dir), ["online"; 4]);

    assert!(processes(&dir, 4) > 0);
    assert_done(&gcs(&["stop"], &dir));
    assert_eq!(processes(&dir, 4), 0, "processes outlived stop");
    assert_eq!(states(&dir), ["down"; 4]);
    assert_refused(&gcs(&["add-node"], &dir), "is stopped");

    let port: u16 = uris.lines().next().unwrap().rsplit([':', '/']).nth(1).unwrap().parse().unwrap();
    assert_refused(&gcs(&["start", "--detach", "--base-port", &(port + 1).to_string()], &dir), "other options");
    assert_eq!(assert_done(&gcs(&["start", "--detach", "--base-port", &port.to_string()], &dir)), uris + &added);
    assert_eq!(states(&dir), ["online"; 4]);
    assert_done(&gcs(&["stop"], &dir));
    assert_eq!(processes(&dir, 4), 0, "processes outlived stop");
}

#[test]
fn a_node_that_is_paused_is_missed_and_comes_back_by_itself() {
    let group = harness::Group::start_nodes(3);
    let dir = group.dir().canonicalize().unwrap();
    group.execute(node(1), "CREATE TABLE paused (n int PRIMARY KEY)");
    group.settle();
    let fault = |what: &str, number: &str| gcs(&["fault", what, number], &dir);
    assert_refused(&fault("resume", "2"), "node2 is not paused");
    assert_done(&fault("pause", "2"));
    assert_eq!(states(&dir)[1], "paused");
    // Whoever led: the other two are a majority, before long.
    wait::until("a write on node 1", Duration::from_secs(30), || {
        let mut client = group.try_connect(node(1)).map_err(|error| error.to_string())?;
        client.batch_execute("INSERT INTO paused VALUES (1) ON CONFLICT DO NOTHING").map_err(|error| error.to_string())
    });
    assert_done(&fault("resume", "2"));
    harness::assert_equal(&group);
    assert_eq!(group.value(node(2), "SELECT count(*) FROM paused"), "1");
    // One that is paused ends with the group all the same.
    assert_done(&fault("pause", "3"));
    drop(group);
    assert_eq!(processes(&dir, 3), 0);
}

#[test]
fn a_group_in_the_foreground_ends_with_its_caller() {
    let group = harness::Group::start_nodes(1);
    let dir = group.dir().canonicalize().unwrap();
    assert!(processes(&dir, 1) > 0);
    drop(group);
    assert_eq!(processes(&dir, 1), 0);
    assert!(!dir.exists());
}

#[test]
fn a_group_that_cannot_be_started_does_not_wait_for_the_end_of_its_input() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("precious"), "").unwrap();
    let mut start = Command::new(harness::gcs());
    start.args(["playground", "start", "--until-eof", "--dir"]).arg(dir.path());
    let mut child = start.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let input = child.stdin.take().unwrap();
    let (status, _) = wait::until("its end", Duration::from_secs(20), || {
        child.try_wait().map_err(|error| error.to_string())?.ok_or_else(|| "it runs".to_owned())
    });
    assert!(!status.success());
    drop(input);
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    assert_refused(&gcs(&["status"], dir.path()), "is not a playground");
    assert_refused(&gcs(&["status"], &dir.path().join("nowhere")), "does not exist");
    assert_refused(&gcs(&["start", "--nodes", "0"], &dir.path().join("none")), "1 to 8 nodes");
    std::fs::write(dir.path().join("precious"), "").unwrap();
    assert_refused(&gcs(&["start"], dir.path()), "is not empty");
}

//! `gcs playground` as a user meets it.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use gcs::playground::group::{Gets, describe};
use gcs::playground::process::Process;
use gcs::playground::{NewGroup, Playground, status};
use gcs_writeset::NodeKind;
use postgres_r_tests::harness::{self, node, wait};

const WITHIN: Duration = Duration::from_secs(60);

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
    let of_nodes: usize = homes.map(|home| Process::all_in(&home).len() + Process::all_in(&home.join("data")).len()).sum();
    of_nodes + Process::all_in(&dir.join("relay")).len()
}

/// Starts on the first base port from which all are free.
fn start_detached(dir: &Path, options: &[&str]) -> String {
    for base_port in base_ports() {
        let output = gcs(&[&["start", "--detach", "--base-port", &base_port.to_string()], options].concat(), dir);
        if !String::from_utf8_lossy(&output.stderr).contains("cannot be used") {
            return assert_done(&output);
        }
    }
    panic!("no free ports");
}

fn base_ports() -> impl Iterator<Item = u16> {
    (10_500..30_000).step_by(211).skip(std::process::id() as usize % 50)
}

/// That everybody can get through to.
fn parent() -> tempfile::TempDir {
    let parent = tempfile::tempdir().unwrap();
    std::fs::set_permissions(parent.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    parent
}

#[test]
fn a_detached_group_can_be_looked_at_broken_mended_stopped_and_started_again() {
    let parent = parent();
    let dir = parent.path().canonicalize().unwrap().join("group");
    let uris = start_detached(&dir, &[]);
    assert_eq!(uris.lines().count(), 3, "{uris}");
    assert!(uris.lines().all(|uri| uri.starts_with("postgresql://postgres@127.0.0.1:") && uri.ends_with("/shop")), "{uris}");
    assert_eq!(states(&dir), ["online", "online", "online"]);

    assert_refused(&gcs(&["start", "--detach"], &dir), "is running");
    assert_refused(&gcs(&["kill", "4"], &dir), "there is no node 4");
    assert_refused(&gcs(&["fault", "cut", "1"], &dir), "was made without --faults");

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

/// A group with a relay that runs until dropped.
struct Relayed {
    dir: PathBuf,
    _parent: tempfile::TempDir,
}

impl Relayed {
    fn start() -> Relayed {
        let parent = parent();
        let dir = parent.path().canonicalize().unwrap().join("group");
        start_detached(&dir, &["--faults"]);
        Relayed { dir, _parent: parent }
    }

    fn playground(&self) -> Playground {
        Playground::open(&self.dir).unwrap()
    }

    fn fault(&self, words: &[&str]) {
        assert_done(&gcs(&[&["fault"], words].concat(), &self.dir));
    }

    /// What is wrong with each node's links.
    fn faults(&self) -> Vec<Vec<String>> {
        status::collect(&self.playground()).nodes.into_iter().map(|node| node.faults).collect()
    }

    fn leader(&self) -> usize {
        wait::until("a leader", WITHIN, || {
            let nodes = status::collect(&self.playground()).nodes;
            nodes.iter().position(|node| node.leader).map(|index| index + 1).ok_or_else(|| "nobody leads".to_owned())
        })
        .0
    }

    fn query(&self, number: usize, query: &str) -> Result<String, String> {
        let mut client = self.playground().connect(node(number), "shop").map_err(|error| describe(&error))?;
        let rows = client.query(query, &[]).map_err(|error| describe(&error))?;
        Ok(rows.first().map(|row| row.get(0)).unwrap_or_default())
    }

    fn insert(&self, number: usize, row: usize) -> Result<String, String> {
        self.query(number, &format!("INSERT INTO links VALUES ({row}) ON CONFLICT DO NOTHING"))
    }

    /// Once it knows that it is alone. What is written before that may well be committed later.
    fn assert_refuses(&self, number: usize) {
        wait::until(&format!("node {number} knows"), WITHIN, || {
            match self.query(number, "SELECT current_setting('default_transaction_read_only')")?.as_str() {
                "on" => Ok(()),
                found => Err(found.to_owned()),
            }
        });
        let refused = self.insert(number, 9).unwrap_err();
        assert!(refused.contains("(25006)"), "{refused}");
        assert_eq!(states(&self.dir)[number - 1], "no-majority");
    }

    /// Until each of so many nodes has all these rows.
    fn assert_equal(&self, nodes: usize, rows: &str) {
        for number in 1..=nodes {
            wait::until(&format!("the rows on node {number}"), WITHIN, || {
                match self.query(number, "SELECT coalesce(string_agg(n::text, ' ' ORDER BY n), '') FROM links")? {
                    found if found == rows => Ok(()),
                    found => Err(found),
                }
            });
        }
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        let _ = gcs(&["stop"], &self.dir);
    }
}

#[test]
fn a_leader_whose_cable_is_pulled_refuses_while_the_others_go_on_and_has_what_they_have_when_it_is_back() {
    let group = Relayed::start();
    group.query(1, "CREATE TABLE links (n int PRIMARY KEY)").unwrap();
    let leader = group.leader();
    let (number, others) = (leader.to_string(), [leader % 3 + 1, (leader + 1) % 3 + 1]);
    group.fault(&["cut", &number]);
    assert_eq!(group.faults()[leader - 1], ["cut off"]);
    let table = assert_done(&gcs(&["status"], &group.dir));
    assert!(table.lines().any(|line| line.starts_with(&format!("node{leader} ")) && line.ends_with(" cut off")), "{table}");
    for other in others {
        wait::until(&format!("a write on node {other}"), WITHIN, || group.insert(other, other));
    }
    group.assert_refuses(leader);
    group.fault(&["heal", &number]);
    wait::until("a write on the node that was cut off", WITHIN, || group.insert(leader, leader));
    group.assert_equal(3, "1 2 3");

    // Only one pair, of which one leads or neither does: whoever is seen by a majority writes.
    group.fault(&["cut", "2", "3"]);
    assert_eq!(group.faults(), [vec![], vec!["cut off from node3".to_owned()], vec!["cut off from node2".to_owned()]]);
    wait::until("a write on node 1", WITHIN, || group.insert(1, 4));
    group.fault(&["slow", "1", "20"]);
    group.fault(&["heal", "2"]);
    assert_eq!(group.faults(), [vec!["20 ms late".to_owned()], vec![], vec![]]);
    for number in [1, 2, 3] {
        wait::until(&format!("a slow write on node {number}"), WITHIN, || group.insert(number, 4 + number));
    }
    group.assert_equal(3, "1 2 3 4 5 6 7");

    // One more node has the same links, and everything is undone by an end and a beginning.
    // A command that waits for a node does not hold up who mends its links.
    let waiting = group.playground().paths.lock().unwrap();
    group.fault(&["cut", "1", "2"]);
    group.fault(&["heal"]);
    drop(waiting);
    assert_done(&gcs(&["add-node"], &group.dir));
    group.fault(&["cut", "4"]);
    group.assert_refuses(4);
    assert_done(&gcs(&["stop"], &group.dir));
    assert_eq!(processes(&group.dir, 4), 0, "processes outlived stop");
    let port = group.playground().manifest.nodes[0].port.to_string();
    assert_refused(&gcs(&["start", "--detach", "--base-port", &port], &group.dir), "other options");
    assert_refused(&gcs(&["fault", "cut", "1"], &group.dir), "does not run");
    assert_done(&gcs(&["start", "--detach", "--faults", "--base-port", &port], &group.dir));
    assert_eq!(group.faults(), vec![Vec::<String>::new(); 4]);
    group.insert(4, 8).unwrap();
    group.assert_equal(4, "1 2 3 4 5 6 7 8");
}

#[test]
fn a_node_that_is_added_has_the_settings_that_the_playground_was_made_with() {
    let parent = parent();
    let make = |base_port| {
        Playground::create(&NewGroup {
            dir: parent.path().join(format!("group{base_port}")),
            nodes: 1,
            base_port,
            database: "shop".to_owned(),
            group: "postgresr".to_owned(),
            gcs: harness::gcs(),
            settings: "work_mem = '7MB'\nmax_connections = 50\n".to_owned(),
            places: Vec::new(),
            faults: false,
        })
    };
    let made =
        base_ports().map(make).find(|made| !made.as_ref().is_err_and(|error| error.message.contains("cannot be used")));
    let mut playground = made.unwrap().unwrap();
    let added = [Gets::Database, Gets::Server].map(|gets| playground.add_node(gets, NodeKind::Full));
    let shown = playground.numbers().into_iter().map(|number| {
        let query = "SELECT current_setting('work_mem') || ' ' || current_setting('max_connections')";
        let row = playground.connect(number, "shop").and_then(|mut client| client.query_one(query, &[]));
        row.map(|row| row.get(0)).map_err(|error| describe(&error))
    });
    let shown: Vec<Result<String, String>> = shown.collect();
    playground.stop().unwrap();
    assert!(added.iter().all(Result::is_ok), "{added:?}");
    assert_eq!(shown, vec![Ok("7MB 50".to_owned()); 3]);
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

//! `gcs playground` as a user meets it.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use gcs::playground::group::{Gets, describe};
use gcs::playground::process::Process;
use gcs::playground::{NewGroup, Playground, disk, status};
use gcs_writeset::NodeKind;
use postgres_r_tests::harness::{self, fingerprint, node, wait};

const WITHIN: Duration = Duration::from_secs(60);
/// Of each log, when a test has failed.
const LOG_LINES_SHOWN: usize = 40;

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

/// A group that things can be done to, until dropped.
struct Breakable {
    dir: PathBuf,
    _parent: tempfile::TempDir,
}

impl Breakable {
    fn start(options: &[&str]) -> Breakable {
        let parent = parent();
        let dir = parent.path().canonicalize().unwrap().join("group");
        let group = Breakable { dir, _parent: parent };
        start_detached(&group.dir, options);
        group
    }

    fn playground(&self) -> Playground {
        Playground::open(&self.dir).unwrap()
    }

    fn fault(&self, words: &[&str]) {
        assert_done(&gcs(&[&["fault"], words].concat(), &self.dir));
    }

    /// What is wrong with each node's links, and its disk.
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

    /// The ends of all logs, for a failed test.
    fn print_logs(&self) {
        let Ok(playground) = Playground::open(&self.dir) else { return };
        for number in playground.numbers() {
            for log in [playground.cluster(number).log(), playground.daemon(number).log()] {
                let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
                let lines: Vec<&str> = text.lines().collect();
                eprintln!("--- {}\n{}", log.display(), lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n"));
            }
        }
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

impl Drop for Breakable {
    fn drop(&mut self) {
        if thread::panicking() {
            self.print_logs();
        }
        let _ = gcs(&["stop"], &self.dir);
        // What `stop` has left after a test that failed: the directory could not go away otherwise.
        for mounted in mounts(&self.dir) {
            let _ = Command::new("umount").arg("-l").arg(mounted).status();
        }
    }
}

/// What is mounted below a directory.
fn mounts(dir: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let places = table.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    places.filter(|place| place.starts_with(dir)).collect()
}

#[test]
fn a_leader_whose_cable_is_pulled_refuses_while_the_others_go_on_and_has_what_they_have_when_it_is_back() {
    let group = Breakable::start(&["--faults"]);
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

impl Breakable {
    /// A row each, one after the other, none of which may fail.
    fn write_small(&self, number: usize, ids: std::ops::Range<i32>) {
        let mut client = self.playground().connect(node(number), "shop").unwrap();
        for id in ids {
            let written = client.execute("INSERT INTO item VALUES ($1, 'small')", &[&id]);
            assert!(written.is_ok(), "node {number}: {}", describe(&written.unwrap_err()));
        }
    }

    /// Likewise, but for as long as it lasts: those that were acknowledged.
    fn write_small_until_it_fails(&self, number: usize, ids: std::ops::Range<i32>) -> Vec<i32> {
        let mut client = self.playground().connect(node(number), "shop").unwrap();
        ids.take_while(|id| client.execute("INSERT INTO item VALUES ($1, 'small')", &[id]).is_ok()).collect()
    }

    /// One transaction of 30 MB: more than the daemon's log and the tables of a node have room for that is full.
    fn write_large(&self, number: usize, from: i32) {
        let rows = format!("SELECT n, repeat(md5(n::text), 100) FROM generate_series({from}, {from} + 9999) n");
        self.query(number, &format!("INSERT INTO item {rows}")).unwrap();
    }

    /// Until every node has the same.
    fn assert_same(&self) {
        let playground = self.playground();
        wait::until("the nodes are equal", WITHIN, || {
            let print = |number| {
                let prints = playground.connect(number, "shop").and_then(|mut client| fingerprint::take(&mut client));
                prints.map_err(|error| describe(&error))
            };
            let prints = playground.numbers().into_iter().map(print).collect::<Result<Vec<_>, String>>()?;
            if prints.iter().all(|other| *other == prints[0]) { Ok(()) } else { Err(format!("{prints:?}")) }
        });
    }

    fn count(&self, number: usize, of: &str) -> usize {
        self.query(number, &format!("SELECT count(*)::text FROM item WHERE {of}")).unwrap().parse().unwrap()
    }
}

const DISKS: [&str; 2] = ["--disk-size", "400"];

#[test]
fn a_node_whose_disk_is_full_holds_up_nobody_and_has_what_the_others_have_when_it_has_room_again() {
    if disk::check_allowed().is_err() {
        let dir = tempfile::tempdir().unwrap();
        assert_refused(&gcs(&[&["start"], &DISKS[..]].concat(), &dir.path().join("group")), "only root can give each node");
        return println!("not tried: only root may mount");
    }
    let group = Breakable::start(&DISKS);
    assert_eq!(mounts(&group.dir).len(), 3);
    group.query(1, "CREATE TABLE item (id int PRIMARY KEY, body text)").unwrap();
    group.write_small(1, 0..10);
    group.assert_same();
    assert_refused(&gcs(&["fault", "cut", "1"], &group.dir), "was made without --faults");
    // Nothing is wrong, and that is no error.
    group.fault(&["heal"]);
    group.fault(&["fill", "3"]);
    assert_refused(&gcs(&["fault", "fill", "3"], &group.dir), "the disk of node3 is filled already");
    assert_eq!(group.faults(), [vec![], vec![], vec!["disk full".to_owned()]]);
    let acknowledged = thread::scope(|scope| {
        let full = scope.spawn(|| group.write_small_until_it_fails(3, 1_000..3_000));
        scope.spawn(|| group.write_small(1, 10..300));
        scope.spawn(|| group.write_small(2, 300..600));
        group.write_large(1, 10_000);
        // What finds no room first is not always the same: a table, the daemon's log, or the WAL.
        wait::until("node 3 has no room", WITHIN, || match states(&group.dir).remove(2) {
            state if state == "out-of-service" || state.ends_with("down") => Ok(()),
            state => Err(state),
        });
        group.write_large(2, 20_000);
        if states(&group.dir)[2].ends_with("down") {
            let hint = "hint: Its disk is full. To give it room: gcs playground fault heal 3";
            assert_refused(&gcs(&["start-node", "3"], &group.dir), hint);
        }
        group.fault(&["heal", "3"]);
        assert_eq!(group.faults(), vec![Vec::<String>::new(); 3]);
        assert_done(&gcs(&["start-node", "3"], &group.dir));
        full.join().unwrap()
    });
    assert_eq!(states(&group.dir), ["online"; 3]);
    group.write_small(3, 600..610);
    group.assert_same();
    assert_eq!(group.count(2, "id < 1000 OR id >= 10000"), 610 + 20_000);
    let ids = acknowledged.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
    assert_eq!(
        group.count(2, &format!("id = ANY ('{{{ids}}}')")),
        acknowledged.len(),
        "what node 3 had acknowledged is there"
    );
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
            disk_size: None,
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
fn disks_are_mounted_for_as_long_as_the_group_runs_and_are_not_full_when_it_starts_again() {
    if disk::check_allowed().is_err() {
        return println!("not tried: only root may mount");
    }
    let group = Breakable::start(&DISKS);
    group.query(1, "CREATE TABLE item (id int PRIMARY KEY, body text)").unwrap();
    group.write_small(1, 0..10);
    assert_done(&gcs(&["add-node", "--physical"], &group.dir));
    assert_eq!(mounts(&group.dir).len(), 4);
    for number in 1..=4 {
        assert_eq!(group.query(number, "SHOW max_wal_size").unwrap(), "50MB");
    }
    group.fault(&["fill", "4"]);
    // Somebody's shell: it is named, and nothing is taken away from it.
    let mut shell = Command::new("cat").current_dir(group.dir.join("node2")).stdin(Stdio::piped()).spawn().unwrap();
    assert_refused(&gcs(&["stop"], &group.dir), "node2: target is busy");
    assert_eq!(mounts(&group.dir), [group.dir.join("node2")]);
    shell.kill().unwrap();
    shell.wait().unwrap();
    assert_done(&gcs(&["stop"], &group.dir));
    assert_eq!(mounts(&group.dir), Vec::<PathBuf>::new());
    assert_eq!(processes(&group.dir, 4), 0, "processes outlived stop");
    assert_refused(&gcs(&["fault", "fill", "4"], &group.dir), "node4 is not mounted");

    let port = group.playground().manifest.nodes[0].port.to_string();
    let start = ["start", "--detach", "--base-port", &port];
    assert_refused(&gcs(&start, &group.dir), "--disk-size 400, or give another --dir");
    assert_done(&gcs(&[&start[..], &DISKS[..]].concat(), &group.dir));
    assert_eq!(mounts(&group.dir).len(), 4);
    assert_eq!(group.faults(), vec![Vec::<String>::new(); 4]);
    group.write_small(4, 10..20);
    group.assert_same();
    assert_eq!(group.count(1, "true"), 20);
    assert_done(&gcs(&["stop"], &group.dir));
    assert_eq!(mounts(&group.dir), Vec::<PathBuf>::new());
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

//! A fourth node joins while three take TPC-B from 24 clients, and the member that it copies from is killed: physical and logical copies in turn, `JOINS` of
//! them (10). No writer on a node that lives may have to wait for more than a second.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::fs;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use gcs::playground::NodeNumber;
use gcs::playground::group::Started;
use gcs::playground::process::Signal;
use postgres_r_tests::harness::database::Database;
use postgres_r_tests::harness::writers::{Ledger, TABLES, assert_all_there, while_three_write};
use postgres_r_tests::harness::{Group, assert_equal, node, wait};
use postgres_r_tests::pgbench::Pgbench;

const PATIENCE: Duration = Duration::from_secs(300);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Of each node.
const CLIENTS: u32 = 8;
/// So much that a copy is caught in the middle.
const SCALE: u32 = 20;
/// Longer than any join takes: clients are told to stop.
const RUN: Duration = Duration::from_secs(600);

const SUMS: &str = "concat_ws('|',
    (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
    (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history),
    (SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM written t))";

fn joins() -> usize {
    std::env::var("JOINS").map_or(10, |text| text.parse().unwrap())
}

/// The member that node 4 copies from, once it does.
fn source(group: &Group) -> NodeNumber {
    let log = group.dir().join("node4/gcs.log");
    let (number, _) = wait::until("a copy is made", PATIENCE, || {
        let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
        let line = text.lines().find(|line| line.contains("a copy is made") || line.contains("a copy of a server is made"));
        let from = line.and_then(|line| line.split_once("from=\"node")).ok_or("not yet")?.1;
        from.split('"').next().and_then(|number| number.parse().ok()).ok_or_else(|| from.to_owned())
    });
    node(number)
}

/// The database is too new on the first three nodes for its log to reach a fourth: it must be copied.
fn group_with_contents() -> Group {
    let group = Group::start();
    let database = Database { group: &group, name: "bank" };
    for number in group.numbers() {
        database.make(number);
        if number == node(1) {
            let cluster = group.playground.cluster(number);
            Pgbench { bin: cluster.bin, port: cluster.port, database: "bank".to_owned() }.initialize(SCALE).unwrap();
            database.execute(number, TABLES);
        }
        database.start(number).unwrap();
        wait::until("the copy is there", PATIENCE, || database.try_connect(number).map(drop).map_err(|e| e.to_string()));
    }
    // A gigabyte has been written that the disk, which all nodes share, does not have yet: a commit's flush would wait for it.
    assert!(Command::new("sync").status().unwrap().success());
    group
}

/// TPC-B on each of the first three nodes.
fn start_clients(group: &Group) -> Vec<(Child, NodeNumber)> {
    let start = |number: NodeNumber| {
        let cluster = group.playground.cluster(number);
        let pgbench = Pgbench { bin: cluster.bin, port: cluster.port, database: "bank".to_owned() };
        (pgbench.spawn(CLIENTS, RUN, &[]).unwrap(), number)
    };
    group.numbers().into_iter().map(start).collect()
}

/// By itself: commands of the playground wait for each other.
fn kill_source(group: &Group) -> NodeNumber {
    let found = source(group);
    let postmaster = group.playground.cluster(found).process().unwrap();
    postmaster.signal(Signal::KILL);
    assert!(postmaster.wait_until(Instant::now() + PATIENCE));
    found
}

/// Back, and the new node has its vote.
fn await_vote(group: &Group, killed: NodeNumber) {
    assert_eq!(group.start_node(killed), Started::Online);
    wait::until("the new node votes", PATIENCE, || {
        let role = group.value(node(1), "SELECT role FROM postgres_r.members WHERE node = 'node4'");
        if role == "voter" { Ok(()) } else { Err(role) }
    });
}

fn physically(group: &Group) -> (NodeNumber, Vec<(Ledger, NodeNumber)>) {
    let mut killed = node(1);
    let ledgers = while_three_write(&Database { group, name: "bank" }, || {
        killed = thread::scope(|scope| {
            let adding = scope.spawn(|| group.add_node_with_server());
            let killed = kill_source(group);
            adding.join().unwrap().unwrap();
            killed
        });
        await_vote(group, killed);
    });
    (killed, ledgers)
}

/// It becomes a member first; its database is a copy then.
fn logically(group: &mut Group) -> (NodeNumber, Vec<(Ledger, NodeNumber)>) {
    let mut ledgers = while_three_write(&Database { group, name: "bank" }, || group.add_node().unwrap());
    group.reload();
    let database = Database { group, name: "bank" };
    let mut killed = node(1);
    ledgers.extend(while_three_write(&database, || {
        database.make(node(4));
        database.start(node(4)).unwrap();
        killed = kill_source(group);
        await_vote(group, killed);
    }));
    (killed, ledgers)
}

fn join_once(round: usize) {
    let mut group = group_with_contents();
    let clients = start_clients(&group);
    let (killed, ledgers) = if round.is_multiple_of(2) { physically(&group) } else { logically(&mut group) };
    for (mut child, number) in clients {
        // Those of the node that was killed have ended with it.
        let _ = child.kill();
        println!("round {round}: clients of node {}: {}", number.0, child.wait().unwrap());
    }
    group.reload();
    let database = Database { group: &group, name: "bank" };
    let log = fs::read_to_string(group.dir().join("node4/gcs.log")).unwrap();
    assert!(log.contains("could not be made"), "no copy was broken off:\n{log}");
    assert_all_there(&database, SUMS, &ledgers);
    let sums = database.value(node(4), SUMS);
    let mut sums: Vec<&str> = sums.split('|').take(4).collect();
    sums.dedup();
    assert_eq!(sums.len(), 1, "TPC-B's sums differ");
    assert_equal(&group);
    let ledgers: Vec<_> = ledgers.into_iter().filter(|(_, number)| *number != killed).collect();
    assert_no_long_pause(round, &ledgers);
}

/// While the group's logs are still there. The bound is for a machine that does nothing else.
fn assert_no_long_pause(round: usize, ledgers: &[(Ledger, NodeNumber)]) {
    for (ledger, number) in ledgers {
        let pause = ledger.longest_pause;
        let ended = ledger.longest_pause_ended.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        println!("round {round}: longest pause of a writer on node {}: {pause:?}, ended at {ended:.3}", number.0);
    }
    let longest = ledgers.iter().map(|(ledger, _)| ledger.longest_pause).max().unwrap_or_default();
    assert!(longest <= PAUSE_MAX, "a writer waited for {longest:?}");
}

#[test]
fn a_fourth_node_joins_again_and_again_while_24_clients_write_though_its_source_is_killed() {
    for round in 0..joins() {
        println!("round {round}: {}", if round.is_multiple_of(2) { "physical" } else { "logical" });
        join_once(round);
    }
}

//! Roles of nodes: a witness, which votes and has no PostgreSQL, and a query-only node, which applies and takes no writes.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::fs;
use std::process::Command;
use std::time::Duration;

use gcs::playground::daemon::Daemon;
use gcs::playground::group::{Started, describe};
use gcs::playground::manifest::NodeEntry;
use gcs::playground::{NodeNumber, Part};
use postgres_r_tests::harness::{Group, assert_equal, node, ports, wait};

const WITHIN: Duration = Duration::from_secs(30);

/// A daemon without a PostgreSQL, which joined the group.
struct Witness {
    daemon: Daemon,
}

impl Witness {
    fn join(group: &Group) -> Witness {
        let home = group.dir().join("witness");
        let daemon = Daemon { home, ..group.playground.daemon(node(1)) };
        fs::create_dir(&daemon.home).unwrap();
        daemon.account.give(&daemon.home).unwrap();
        let peer_port = ports::free_one();
        let me = NodeEntry {
            name: "witness".into(),
            port: 0,
            peer_port,
            listen_port: None,
            http_port: None,
            joined: true,
            place: None,
            role: Some("witness".into()),
            postgres_bin: None,
        };
        daemon.configure(&group.playground.manifest.group, &me, &group.playground.manifest.nodes, None).unwrap();
        daemon.start().unwrap();
        Witness { daemon }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.daemon.stop();
    }
}

fn write(group: &Group, number: NodeNumber, n: i32) {
    wait::until(&format!("a write on node {}", number.0), WITHIN, || {
        let mut client = group.try_connect(number).map_err(|error| describe(&error))?;
        client.execute("INSERT INTO kept VALUES ($1) ON CONFLICT DO NOTHING", &[&n]).map_err(|error| describe(&error))
    });
}

fn members(group: &Group, number: NodeNumber) -> String {
    let shown = "SELECT string_agg(concat_ws(' ', node, role, state, lag), ', ' ORDER BY node) FROM postgres_r.members";
    group.value(number, shown)
}

#[test]
fn two_full_nodes_and_a_witness_take_writes_when_any_one_of_them_is_lost() {
    let group = Group::start_nodes(2);
    group.execute(node(1), "CREATE TABLE kept (n int PRIMARY KEY)");
    let witness = Witness::join(&group);
    group.settle();
    wait::until("the witness votes", WITHIN, || match members(&group, node(2)) {
        found if found == "node1 voter online 0, node2 voter online 0, witness witness online" => Ok(()),
        found => Err(found),
    });
    for (n, lost) in [(1, node(1)), (2, node(2))] {
        group.kill(lost, Part::Both);
        write(&group, node(3 - lost.0), n);
        assert_eq!(group.start_node(lost), Started::Online);
        assert_equal(&group);
    }
    witness.daemon.stop();
    write(&group, node(1), 3);
    write(&group, node(2), 4);
    // A definition is tried on the other full node; nobody waits for one that has none.
    group.execute(node(1), "CREATE TABLE later (n int PRIMARY KEY)");
    witness.daemon.start().unwrap();
    let shown = "SET postgres_r.commit_level = 'after'; INSERT INTO later VALUES (1)";
    group.connect(node(2)).batch_execute(shown).unwrap();
    assert_equal(&group);
    let verdicts =
        "SELECT string_agg(DISTINCT node || ' ' || verdict, ', ' ORDER BY node || ' ' || verdict) FROM postgres_r.verify()";
    assert_eq!(group.value(node(1), verdicts), "node1 equal, node2 equal");
}

fn refused(group: &Group, statement: &str) {
    let error = group.connect(node(3)).batch_execute(statement).unwrap_err();
    let error = error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error}")).clone();
    assert_eq!((error.code().code(), error.message()), ("25006", "cannot change data on a query-only node"), "{statement}");
    assert!(error.hint().unwrap().contains("voter"), "{error:?}");
}

/// The port that libpq takes of these two nodes, the first of which comes first.
fn led_to(group: &Group, attributes: &str) -> String {
    let port = |number| group.playground.cluster(node(number)).port;
    let target = format!(
        "host=127.0.0.1,127.0.0.1 port={},{} user=postgres dbname=shop target_session_attrs={attributes}",
        port(3),
        port(1)
    );
    let output = Command::new("psql").args(["-XAtc", "SHOW port", &target]).env("PGOPTIONS", "").output().unwrap();
    let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if found == port(3).to_string() { "node3".to_owned() } else { format!("not node3: {found}") }
}

#[test]
fn a_query_only_node_applies_refuses_writes_and_is_needed_by_nobody() {
    let mut group = Group::start_nodes(2);
    group.execute(node(1), "CREATE TABLE kept (n int PRIMARY KEY, s serial); INSERT INTO kept VALUES (0)");
    group.add_node_as("query-only").unwrap();
    group.reload();
    assert_equal(&group);
    wait::until("all are there", WITHIN, || match members(&group, node(3)) {
        found if found == "node1 voter online 0, node2 voter online 0, node3 query-only online 0" => Ok(()),
        found => Err(found),
    });
    for statement in [
        "INSERT INTO kept VALUES (9)",
        "UPDATE kept SET n = n",
        "NOTIFY kept, 'refused'",
        "DELETE FROM kept WHERE false; DELETE FROM kept",
        "CREATE TABLE other (n int)",
        "TRUNCATE kept",
        "SELECT nextval('kept_s_seq')",
        "COPY kept (n) FROM PROGRAM 'echo 9'",
    ] {
        refused(&group, statement);
    }
    assert_eq!(led_to(&group, "read-write"), format!("not node3: {}", group.playground.cluster(node(1)).port));
    assert_eq!(led_to(&group, "read-only"), "node3");
    for n in 1..=20 {
        group.execute(node(1 + n % 2), &format!("INSERT INTO kept VALUES ({n})"));
        let strong = "SET postgres_r.read_level = 'strong'";
        let mut reader = group.connect(node(3));
        reader.batch_execute(strong).unwrap();
        let found: i64 = reader.query_one("SELECT count(*) FROM kept WHERE n > 0", &[]).unwrap().get(0);
        assert_eq!(found as usize, n, "a strong read sees what was acknowledged before");
    }
    let verdicts =
        "SELECT string_agg(DISTINCT node || ' ' || verdict, ', ' ORDER BY node || ' ' || verdict) FROM postgres_r.verify()";
    for number in [1, 3] {
        assert_eq!(group.value(node(number), verdicts), "node1 equal, node2 equal, node3 equal");
    }
    group.kill(node(3), Part::Both);
    group.execute(node(1), "INSERT INTO kept VALUES (21)");
    assert_eq!(group.start_node(node(3)), Started::Online);
    assert_equal(&group);
    // It helps no minority.
    group.kill(node(2), Part::Gcs);
    let error = group.connect(node(1)).batch_execute("INSERT INTO kept VALUES (22)").unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("25006"), "{error}");
    assert!(describe(&error).contains("1 of 2 members that vote"), "{}", describe(&error));
    refused(&group, "INSERT INTO kept VALUES (9)");
    assert_eq!(group.value(node(3), "SELECT count(*) FROM kept"), "22");
    assert_eq!(group.start_node(node(2)), Started::Online);
    write(&group, node(2), 23);
    assert_equal(&group);
}

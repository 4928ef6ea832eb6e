//! Nodes that come to a group which has data and is written to: by `join`, a copy of the database, and the log behind it.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::fs;
use std::thread;
use std::time::Duration;

use gcs::playground::group::{Started, describe};
use gcs::playground::process::Signal;
use gcs::playground::{NodeNumber, Part};
use postgres_r_tests::harness::database::Database;
use postgres_r_tests::harness::writers::{TABLES, assert_all_there, while_three_write};
use postgres_r_tests::harness::{Group, assert_equal, node, wait};

const COPIED_WITHIN: Duration = Duration::from_secs(120);

const DIGEST: &str = "concat_ws('|',
    (SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM item t),
    (SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM written t),
    (SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM numbered t))";

const SETUP: &str = "
    CREATE TABLE item (id int PRIMARY KEY, body text);
    INSERT INTO item SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 40000) n";

fn await_copy(database: &Database<'_>, number: NodeNumber) {
    wait::until(&format!("the copy on node {}", number.0), COPIED_WITHIN, || {
        let mut client = database.try_connect(number).map_err(|error| describe(&error))?;
        client.query_one("SELECT count(*) FROM item", &[]).map(drop).map_err(|error| describe(&error))
    });
}

fn role(group: &Group, number: NodeNumber) -> String {
    group.value(number, &format!("SELECT role FROM postgres_r.members WHERE node = 'node{}'", number.0))
}

/// The node that a copy is being read from, once there is one.
fn source(group: &Group) -> NodeNumber {
    let reads = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name IN ('gcs copy', 'pg_dump')";
    let (number, _) = wait::until("a copy is read", COPIED_WITHIN, || {
        let is_read = |number: &NodeNumber| {
            let row = group.try_connect(*number).and_then(|mut client| client.query_one(reads, &[]));
            row.is_ok_and(|row| row.get(0))
        };
        group.numbers().into_iter().find(is_read).ok_or_else(|| "by nobody".to_owned())
    });
    number
}

#[test]
fn a_fourth_node_joins_while_three_write_though_the_one_it_copies_from_is_killed() {
    let mut group = Group::start();
    let database = Database { group: &group, name: "brought" };
    for number in group.numbers() {
        database.make(number);
        if number == node(1) {
            database.execute(number, SETUP);
            database.execute(number, TABLES);
        }
        database.start(number).unwrap();
        await_copy(&database, number);
    }
    // The group's own database comes by the log, which has all of it.
    let while_joining = while_three_write(&database, || group.add_node().unwrap());
    group.reload();
    let database = Database { group: &group, name: "brought" };
    // The log has no beginning of this one.
    database.make(node(4));
    let while_copying = while_three_write(&database, || {
        database.start(node(4)).unwrap();
        assert!(database.try_connect(node(4)).is_err(), "nobody may see half a copy");
        assert_eq!(role(&group, node(4)), "learner", "it lacks a database");
        let killed = source(&group);
        group.kill(killed, Part::Postgres);
        assert_eq!(group.start_node(killed), Started::Online);
        await_copy(&database, node(4));
    });
    wait::until("the new node votes", COPIED_WITHIN, || {
        let role = role(&group, node(4));
        if role == "voter" { Ok(()) } else { Err(role) }
    });
    for (ledger, number) in while_joining.iter().chain(&while_copying) {
        println!("longest pause of a writer on node {}: {:?}", number.0, ledger.longest_pause);
    }
    let offset = while_joining.iter().map(|(ledger, number)| (number.0, ledger.acknowledged.len())).collect::<Vec<_>>();
    println!("written while it joined: {offset:?}");
    assert_all_there(&database, DIGEST, &while_joining);
    assert_all_there(&database, DIGEST, &while_copying);
    // It writes like the others, what it gives out is nobody else's, and the group does without one node of four.
    database.execute(node(4), "INSERT INTO numbered (node) SELECT 4 FROM generate_series(1, 100)");
    database.execute(node(4), "CREATE TABLE made_there (id int PRIMARY KEY); INSERT INTO made_there VALUES (1)");
    database.arrives(node(1), "SELECT count(*) FROM made_there", "1");
    group.kill(node(1), Part::Both);
    wait::until("three of four go on", COPIED_WITHIN, || {
        let mut client = database.try_connect(node(4)).map_err(|error| describe(&error))?;
        client.batch_execute("INSERT INTO numbered (node) VALUES (4)").map_err(|error| describe(&error))
    });
    assert_eq!(group.start_node(node(1)), Started::Online);
    assert_all_there(&database, DIGEST, &[]);
    assert_equal(&group);
}

/// With this much of the log, and not more, kept by each daemon from now on.
fn keep_at_most(group: &Group, retention: &str) {
    for number in group.numbers() {
        let file = group.playground.cluster(number).home.join("gcs.toml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("log_retention = \"{retention}\"\n{text}")).unwrap();
        group.kill(number, Part::Gcs);
        assert_eq!(group.start_node(number), Started::Online);
    }
}

#[test]
fn who_was_away_for_longer_than_the_log_is_kept_gets_a_copy_by_itself_and_the_log_stays_small() {
    let group = Group::start();
    keep_at_most(&group, "64 MB");
    group
        .execute(node(1), "CREATE TABLE item (id serial PRIMARY KEY, body text); INSERT INTO item (body) VALUES ('before')");
    group.settle();
    group.kill(node(3), Part::Both);
    for _ in 0..60 {
        // What does not compress, 5 MB at a time.
        group.execute(
            node(1),
            "INSERT INTO item (body) SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 160000) n GROUP BY n % 50",
        );
    }
    let log = group.playground.cluster(node(1)).home.join("gcs/log");
    let bytes: u64 = fs::read_dir(log).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 250_000_000, "{bytes} bytes of log are kept");
    assert_eq!(group.start_node(node(3)), Started::Online);
    assert_equal(&group);
    let kept = "SELECT count(*) FROM pg_database WHERE datname = 'shop_before'";
    assert_eq!(group.value(node(3), kept), "1", "what it had is kept");
    group.execute(node(3), "INSERT INTO item (body) VALUES ('after')");
    assert_equal(&group);
}

/// The node that node 4 has begun to copy a server from, once it has.
fn server_source(group: &Group) -> NodeNumber {
    let log = group.dir().join("node4/gcs.log");
    let (number, _) = wait::until("a server is copied", COPIED_WITHIN, || {
        let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
        let from = text.split_once("a copy of a server is made from=\"node").ok_or("not yet")?.1;
        from.split('"').next().and_then(|number| number.parse().ok()).ok_or_else(|| from.to_owned())
    });
    node(number)
}

#[test]
fn a_fourth_node_gets_a_whole_server_while_three_write_though_the_one_it_copies_from_is_killed() {
    let mut group = Group::start();
    group.execute(node(1), SETUP);
    group.execute(node(1), TABLES);
    // So much that a copy is caught in the middle.
    group.execute(node(1), "INSERT INTO item SELECT n, repeat(md5(n::text), 30) FROM generate_series(40001, 200000) n");
    let database = Database { group: &group, name: "shop" };
    for number in group.numbers() {
        // Roles are not replicated; a copy of a server has them.
        database.on_server(number, "CREATE ROLE clerk").unwrap();
    }
    group.execute(node(1), "GRANT SELECT ON item TO clerk");
    group.settle();
    let ledgers = while_three_write(&database, || {
        thread::scope(|scope| {
            let adding = scope.spawn(|| group.add_node_with_server());
            let killed = server_source(&group);
            // By itself: commands of the playground wait for each other.
            group.playground.cluster(killed).process().unwrap().signal(Signal::KILL);
            adding.join().unwrap().unwrap();
            assert_eq!(group.start_node(killed), Started::Online);
        });
    });
    group.reload();
    let database = Database { group: &group, name: "shop" };
    let log = fs::read_to_string(group.playground.cluster(node(4)).home.join("gcs.log")).unwrap();
    assert!(log.contains("a copy of a server could not be made"), "the first copy was broken off:\n{log}");
    assert!(log.contains("the copy of a server is whole"), "{log}");
    for (ledger, number) in &ledgers {
        println!("longest pause of a writer on node {}: {:?}", number.0, ledger.longest_pause);
    }
    assert_all_there(&database, DIGEST, &ledgers);
    assert_eq!(database.value(node(4), "SELECT count(*) FROM pg_roles WHERE rolname = 'clerk'"), "1");
    wait::until("the new node votes", COPIED_WITHIN, || {
        let role = role(&group, node(4));
        if role == "voter" { Ok(()) } else { Err(role) }
    });
    database.execute(node(4), "INSERT INTO numbered (node) SELECT 4 FROM generate_series(1, 100)");
    database.execute(node(4), "CREATE TABLE made_there (id int PRIMARY KEY); INSERT INTO made_there VALUES (1)");
    database.arrives(node(1), "SELECT count(*) FROM made_there", "1");
    // It loses what it had not flushed, like any other, and gets it again.
    group.kill(node(4), Part::Both);
    database.execute(node(1), "INSERT INTO numbered (node) VALUES (1)");
    assert_eq!(group.start_node(node(4)), Started::Online);
    assert_all_there(&database, DIGEST, &ledgers);
    assert_equal(&group);
}

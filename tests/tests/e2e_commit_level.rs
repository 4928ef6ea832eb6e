//! `postgres_r.commit_level = after`: COMMIT returns when the other nodes that can be reached show the transaction, and a warning names those that
//! do not.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use gcs::playground::{NodeNumber, Part};
use postgres::{Client, NoTls};
use postgres_r_tests::harness::stopped::Stopped;
use postgres_r_tests::harness::{self, Group, node, wait};

const WAITS_WITHIN: Duration = Duration::from_secs(20);

type Heard = Arc<Mutex<Vec<String>>>;

/// A session at `after` that keeps the notices it gets.
fn after(group: &Group, number: NodeNumber) -> (Client, Heard) {
    let heard = Heard::default();
    let ears = heard.clone();
    let mut config: postgres::Config = group.playground.cluster(number).uri(group.database()).parse().unwrap();
    config.notice_callback(move |notice| {
        let detail = notice.detail().unwrap_or_default();
        ears.lock().unwrap().push(format!("{} {} | {detail}", notice.severity(), notice.message()));
    });
    let mut client = config.connect(NoTls).unwrap();
    client.batch_execute("SET postgres_r.commit_level = after").unwrap();
    (client, heard)
}

fn warnings(heard: &Heard) -> Vec<String> {
    std::mem::take(&mut *heard.lock().unwrap())
}

fn table(group: &Group, name: &str) {
    group.execute(node(1), &format!("CREATE TABLE {name} (n int PRIMARY KEY); INSERT INTO {name} VALUES (0)"));
    group.settle();
}

fn pid(client: &mut Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0)
}

fn until_it_waits(group: &Group, number: NodeNumber, pid: i32) {
    let mut watcher = group.connect(number);
    wait::until("the session waits", WAITS_WITHIN, || {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'Extension'";
        let count: i64 = watcher.query_one(waits, &[&pid]).unwrap().get(0);
        if count == 1 { Ok(()) } else { Err("it does not".to_owned()) }
    });
}

#[test]
fn what_was_committed_is_on_every_node_when_commit_returns() {
    let group = harness::shared();
    table(&group, "on_all");
    let (mut client, heard) = after(&group, node(1));
    let mut others: Vec<Client> = [2, 3].map(|number| group.connect(node(number))).into();
    for value in 1..=200 {
        let value: i32 = value;
        match value % 3 {
            0 => client.batch_execute(&format!("INSERT INTO on_all VALUES ({value})")).unwrap(),
            1 => drop(client.execute("INSERT INTO on_all VALUES ($1)", &[&value]).unwrap()),
            _ => client.batch_execute(&format!("BEGIN; INSERT INTO on_all VALUES ({value}); COMMIT")).unwrap(),
        }
        for other in &mut others {
            let seen: i64 = other.query_one("SELECT count(*) FROM on_all WHERE n = $1", &[&value]).unwrap().get(0);
            assert_eq!(seen, 1, "{value}");
        }
    }
    assert_eq!(warnings(&heard), [""; 0]);
}

#[test]
fn commit_waits_for_a_node_that_is_behind_and_holds_no_lock_meanwhile() {
    let group = harness::shared();
    table(&group, "behind");
    let (mut client, heard) = after(&group, node(1));
    let waiting = pid(&mut client);
    let behind = Stopped::remote_backends(&group, node(2));
    thread::scope(|scope| {
        let runner =
            scope.spawn(|| client.batch_execute("UPDATE behind SET n = n + 1; INSERT INTO behind VALUES (100)").unwrap());
        until_it_waits(&group, node(1), waiting);
        assert!(!runner.is_finished());
        // Visible here, and free to be changed.
        assert_eq!(group.value(node(1), "SELECT count(*) FROM behind"), "2");
        group.execute(node(1), "SET lock_timeout = '2s'; UPDATE behind SET n = n + 1000");
        drop(behind);
        runner.join().unwrap();
    });
    assert_eq!(warnings(&heard), [""; 0]);
    harness::assert_equal(&group);
}

#[test]
fn a_node_that_does_not_show_it_in_time_is_named_by_a_warning() {
    let group = harness::shared();
    table(&group, "too_late");
    let (mut client, heard) = after(&group, node(1));
    client.batch_execute("SET postgres_r.after_timeout = '300ms'").unwrap();
    let behind = Stopped::remote_backends(&group, node(2));
    client.batch_execute("INSERT INTO too_late VALUES (1)").unwrap();
    let said = warnings(&heard);
    let name = format!("\"{}\"", group.playground.name(node(2)));
    assert!(said.len() == 1 && said[0].starts_with("WARNING") && said[0].contains(&name), "{said:?}");
    assert!(!said[0].contains(group.playground.name(node(3))), "{said:?}");
    drop(behind);
    group.settle();
    assert_eq!(group.value(node(2), "SELECT count(*) FROM too_late"), "2");
}

#[test]
fn a_wait_that_is_cancelled_is_no_error_since_the_transaction_is_committed() {
    let group = harness::shared();
    table(&group, "after_cancelled");
    let (mut client, heard) = after(&group, node(1));
    let waiting = pid(&mut client);
    let behind = Stopped::remote_backends(&group, node(2));
    thread::scope(|scope| {
        let runner = scope.spawn(|| client.batch_execute("INSERT INTO after_cancelled VALUES (1)"));
        until_it_waits(&group, node(1), waiting);
        group.execute(node(1), &format!("SELECT pg_cancel_backend({waiting})"));
        runner.join().unwrap().unwrap();
    });
    let said = warnings(&heard);
    assert!(said.len() == 1 && said[0].contains("ended by an interrupt"), "{said:?}");
    client.batch_execute("SELECT 1").unwrap();
    drop(behind);
    harness::assert_equal(&group);
}

#[test]
fn nodes_that_are_away_are_not_waited_for() {
    let group = harness::shared();
    table(&group, "away");
    group.kill(node(3), Part::Gcs);
    let (mut client, heard) = after(&group, node(1));
    for value in 1..=20 {
        client.batch_execute(&format!("INSERT INTO away VALUES ({value})")).unwrap();
    }
    assert_eq!(warnings(&heard), [""; 0]);
    assert_eq!(group.value(node(2), "SELECT count(*) FROM away"), "21");
    group.start_node(node(3));
    harness::assert_equal(&group);
}

#[test]
fn a_transaction_that_changes_nothing_or_is_rolled_back_waits_for_nobody() {
    let group = harness::shared();
    table(&group, "nothing");
    let (mut client, heard) = after(&group, node(1));
    let _behind = Stopped::remote_backends(&group, node(2));
    client.batch_execute("SELECT count(*) FROM nothing; BEGIN; SELECT 1; COMMIT").unwrap();
    client.batch_execute("BEGIN; INSERT INTO nothing VALUES (1); ROLLBACK").unwrap();
    client.batch_execute("SET postgres_r.commit_level = here; INSERT INTO nothing VALUES (2)").unwrap();
    client.batch_execute("CREATE TEMP TABLE own (n int); INSERT INTO own VALUES (1)").unwrap();
    assert_eq!(warnings(&heard), [""; 0]);
}

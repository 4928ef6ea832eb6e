//! Hot rows: what transactions of several nodes change all the time is waited for, as on one server, and not lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use gcs::playground::{NodeNumber, Part};
use postgres::{Client, Error};
use postgres_r_tests::harness::{self, Group, node, race, wait};
use postgres_r_tests::workload::client::{Failure, classify};

/// Far above what it takes: what does not come within it does not come.
const RESOLVED_MAX: Duration = Duration::from_secs(30);

fn code(error: &Error) -> String {
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
}

/// The group, once it has locks. With tables of ten rows, made anew.
fn group() -> harness::Shared {
    let group = harness::shared();
    let mut client = group.connect(node(1));
    wait::until("group locks", RESOLVED_MAX, || {
        client.batch_execute("SELECT pg_advisory_lock(0); SELECT pg_advisory_unlock(0)").map_err(|error| code(&error))
    });
    for statement in [
        "DROP TABLE IF EXISTS t, part, other",
        "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0)",
        "CREATE TABLE part (id int PRIMARY KEY, n int DEFAULT 0) PARTITION BY RANGE (id)",
        "CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (0) TO (6)",
        "CREATE TABLE part_high PARTITION OF part FOR VALUES FROM (6) TO (100)",
        "CREATE TABLE other (id int PRIMARY KEY, t int)",
        "INSERT INTO t SELECT generate_series(1, 10)",
        "INSERT INTO part SELECT generate_series(1, 10)",
        "INSERT INTO other SELECT id, id FROM t",
        "CREATE OR REPLACE FUNCTION more(which int) RETURNS void LANGUAGE plpgsql
         AS $$ BEGIN UPDATE t SET n = n + 1 WHERE id = which; END $$",
    ] {
        client.batch_execute(statement).unwrap();
    }
    group.settle();
    group
}

fn change(table: &str, id: i32) -> String {
    format!("UPDATE {table} SET n = n WHERE id = {id}")
}

/// Has each of these nodes lose the row twice.
fn heat(group: &Group, table: &str, id: i32, nodes: &[usize]) {
    for &number in nodes {
        let other = if number == 1 { 2 } else { 1 };
        for _ in 0..2 {
            let (here, there) = (format!("SET postgres_r.row_locks = local; {}", change(table, id)), change(table, id));
            let lost = race::while_open(group, (node(number), &here), (node(other), &there));
            assert!(matches!(lost, Err(Failure::Retry)), "{lost:?}");
        }
    }
}

/// One transaction on node 1 has changed row 5; this statement on node 2 waits for its end, and sees what it did.
fn assert_waits(group: &Group, statement: &str) {
    let (mut one, mut two) = (group.connect(node(1)), group.connect(node(2)));
    let before = sum(group);
    one.batch_execute("BEGIN; UPDATE t SET n = n + 10 WHERE id = 5; UPDATE part SET n = n + 10 WHERE id = 5").unwrap();
    two.batch_execute("BEGIN").unwrap();
    let ended = race::while_blocked(group, (node(2), &mut two), statement, || one.batch_execute("COMMIT").unwrap());
    assert!(ended.is_ok(), "{statement}: {ended:?}");
    two.batch_execute("COMMIT").unwrap_or_else(|error| panic!("{statement}: {}", code(&error)));
    group.settle();
    let (expected, now) = (before + 20 + i64::from(!statement.starts_with("SELECT t")), sum(group));
    assert_eq!(now, expected, "{statement}");
}

fn sum(group: &Group) -> i64 {
    let found = group.values("SELECT (SELECT sum(n) FROM t) + (SELECT sum(n) FROM part)");
    assert_eq!(found[0], found[1]);
    found[0].parse().unwrap()
}

#[test]
fn whatever_changes_or_locks_a_hot_row_waits_for_it() {
    let group = group();
    heat(&group, "t", 5, &[1, 2]);
    heat(&group, "part", 5, &[1, 2]);
    for statement in [
        "UPDATE t SET n = n + 1 WHERE id = 5",
        "UPDATE t SET n = n + 1 WHERE id = 5 RETURNING n",
        "UPDATE t SET n = t.n + 1 FROM other o WHERE o.t = t.id AND o.id = 5",
        "UPDATE part SET n = n + 1 WHERE id = 5",
        "SELECT more(5)",
        "SELECT t.id FROM t WHERE id = 5 FOR UPDATE",
        "SELECT t.id FROM t JOIN other o ON o.t = t.id WHERE o.id = 5 FOR NO KEY UPDATE OF t",
        "SELECT t.id FROM t WHERE id = 5 FOR SHARE",
        "WITH changed AS (UPDATE t SET n = n + 1 WHERE id = 5 RETURNING id) SELECT id FROM changed",
        "MERGE INTO t USING (VALUES (5)) AS v (id) ON v.id = t.id WHEN MATCHED THEN UPDATE SET n = t.n + 1",
        "INSERT INTO t VALUES (5, 0) ON CONFLICT (id) DO UPDATE SET n = t.n + 1",
        "PREPARE more AS UPDATE t SET n = n + 1 WHERE id = $1; EXECUTE more (5)",
        "DO $$ BEGIN UPDATE t SET n = n + 1 WHERE id = 5; END $$",
    ] {
        assert_waits(&group, statement);
    }
    // A row that is deleted is not found afterwards.
    let (mut one, mut two) = (group.connect(node(1)), group.connect(node(2)));
    one.batch_execute("BEGIN; DELETE FROM t WHERE id = 5").unwrap();
    race::while_blocked(&group, (node(2), &mut two), &change("t", 5), || one.batch_execute("COMMIT").unwrap()).unwrap();
    group.settle();
    assert_eq!(group.values("SELECT count(*) FROM t"), ["9", "9", "9"]);
}

#[test]
fn what_is_not_hot_or_not_to_be_waited_for_is_not() {
    let group = group();
    heat(&group, "t", 5, &[1, 2]);
    let (mut one, mut two) = (group.connect(node(1)), group.connect(node(2)));
    one.batch_execute("BEGIN; UPDATE t SET n = 1 WHERE id IN (4, 5)").unwrap();
    // Another row; a session that does not want to; a row that goes together with the change; a transaction whose snapshot is there already; a limit that is too short; a row
    // that is not changed.
    for statement in [
        "UPDATE t SET n = 2 WHERE id = 4",
        "SET LOCAL postgres_r.row_locks = local; UPDATE t SET n = 2 WHERE id = 5",
        "SELECT id FROM t WHERE id = 5 FOR KEY SHARE",
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; UPDATE t SET n = 2 WHERE id = 5",
        "SET LOCAL lock_timeout = '100ms'; UPDATE t SET n = 2 WHERE id = 5",
        "MERGE INTO t USING (VALUES (5)) AS v (id) ON v.id = t.id WHEN NOT MATCHED THEN INSERT VALUES (v.id, 0)",
        "INSERT INTO t VALUES (5, 0) ON CONFLICT DO NOTHING",
    ] {
        two.batch_execute(&format!("BEGIN; {statement}; ROLLBACK")).unwrap();
    }
    // What is skipped is not waited for, and what is its own a transaction has.
    assert!(two.query("SELECT id FROM t WHERE id = 5 FOR UPDATE SKIP LOCKED", &[]).unwrap().is_empty());
    one.batch_execute("UPDATE t SET n = 3 WHERE id = 5; COMMIT").unwrap();
}

#[test]
fn a_wait_for_a_hot_row_ends_as_one_on_one_server() {
    let group = group();
    heat(&group, "t", 5, &[1, 2]);
    heat(&group, "t", 6, &[1, 2]);
    let (mut one, mut two) = (group.connect(node(1)), group.connect(node(2)));
    // By its own limits.
    one.batch_execute("BEGIN; UPDATE t SET n = 1 WHERE id = 5").unwrap();
    for (limit, expected) in [("lock_timeout", "55P03"), ("statement_timeout", "57014")] {
        two.batch_execute(&format!("SET {limit} = '1s'")).unwrap();
        assert_eq!(code(&two.batch_execute(&change("t", 5)).unwrap_err()), expected);
        two.batch_execute(&format!("RESET {limit}")).unwrap();
    }
    // By the end of a subtransaction that holds it.
    one.batch_execute("ROLLBACK; BEGIN; SAVEPOINT s; UPDATE t SET n = 1 WHERE id = 5").unwrap();
    race::while_blocked(&group, (node(2), &mut two), &change("t", 5), || one.batch_execute("ROLLBACK TO s").unwrap())
        .unwrap();
    one.batch_execute("ROLLBACK").unwrap();
    // By a deadlock across nodes.
    one.batch_execute("BEGIN; UPDATE t SET n = n + 1 WHERE id = 5").unwrap();
    two.batch_execute("BEGIN; UPDATE t SET n = n + 1 WHERE id = 6").unwrap();
    let both = race::while_blocked(&group, (node(2), &mut two), &change("t", 5), || {
        assert_eq!(code(&one.batch_execute(&change("t", 6)).unwrap_err()), "40P01");
        one.batch_execute("ROLLBACK").unwrap();
    });
    assert!(both.is_ok(), "{both:?}");
    two.batch_execute("COMMIT").unwrap();
    // By one half in the group, half on a server: each waits for the other.
    let mut other = group.connect(node(2));
    two.batch_execute("BEGIN; UPDATE t SET n = n + 1 WHERE id = 7").unwrap();
    other.batch_execute("BEGIN; UPDATE t SET n = n + 1 WHERE id = 5").unwrap();
    let circle = race::while_blocked(&group, (node(2), &mut other), &change("t", 7), || {
        assert_eq!(code(&two.batch_execute(&change("t", 5)).unwrap_err()), "40P01");
        two.batch_execute("ROLLBACK").unwrap();
    });
    assert!(circle.is_ok(), "{circle:?}");
    other.batch_execute("COMMIT").unwrap();
}

/// Nobody asked for the lock, so nobody's transaction fails for it.
#[test]
fn a_transaction_goes_on_without_the_lock_of_its_row() {
    let group = group();
    heat(&group, "t", 5, &[1, 2]);
    let mut two = group.connect(node(2));
    two.batch_execute("BEGIN; UPDATE t SET n = n + 1 WHERE id = 5").unwrap();
    group.kill(node(2), Part::Gcs);
    group.start_node(node(2));
    wait::until("the node takes writes again", RESOLVED_MAX, || {
        group.connect(node(2)).batch_execute("UPDATE t SET n = 1 WHERE id = 6").map_err(|error| code(&error))
    });
    two.batch_execute("UPDATE t SET n = n + 1 WHERE id = 7; COMMIT").unwrap();
    group.settle();
    assert_eq!(group.values("SELECT n FROM t WHERE id = 5"), ["1", "1", "1"]);
    // One that waits while its daemon does not answer.
    let mut one = group.connect(node(1));
    one.batch_execute("BEGIN; UPDATE t SET n = n + 1 WHERE id = 5").unwrap();
    let ended = race::while_blocked(&group, (node(2), &mut two), &format!("BEGIN; {}", change("t", 5)), || {
        group.kill(node(2), Part::Gcs);
        group.start_node(node(2));
    });
    assert!(ended.is_ok(), "{ended:?}");
    two.batch_execute("ROLLBACK").unwrap();
    one.batch_execute("COMMIT").unwrap();
}

/// A client of node 1 changes the row all the time, and is never in anybody's way for long; one of node 2 takes its time.
#[test]
fn whoever_would_lose_for_ever_gets_its_turn() {
    const TRIES_MAX: usize = 20;
    let group = group();
    let is_over = AtomicBool::new(false);
    let ended = thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = group.connect(node(1));
            while !is_over.load(Ordering::SeqCst) {
                client.batch_execute("UPDATE t SET n = n + 1 WHERE id = 5").unwrap();
            }
        });
        let mut client = group.connect(node(2));
        let mut tries = (0..TRIES_MAX).map(|_| slow_transaction(&group, &mut client));
        let ended = tries.find(|ended| !matches!(ended, Err(Failure::Retry)));
        is_over.store(true, Ordering::SeqCst);
        ended
    });
    assert!(matches!(ended, Some(Ok(()))), "it loses for ever, or worse: {ended:?}");
    group.settle();
    assert_eq!(group.values("SELECT n < 0 FROM t WHERE id = 6"), ["true", "true", "true"]);
}

/// Changes the row, and commits when node 1 has come by several times, or waits.
fn slow_transaction(group: &Group, client: &mut Client) -> Result<(), Failure> {
    let run = |client: &mut Client, sql: &str| client.batch_execute(sql).map_err(|error| classify(&error));
    run(client, "ROLLBACK; BEGIN; UPDATE t SET n = n + 1 WHERE id = 5; UPDATE t SET n = -1 WHERE id = 6")?;
    let mut watcher = group.connect(node(1));
    let commits = |watcher: &mut Client| -> i64 {
        watcher.query_one("SELECT commits FROM postgres_r.pg_stat_postgres_r", &[]).map_or(0, |row| row.get(0))
    };
    let before = commits(&mut watcher);
    wait::until("the other's changes, or its wait", RESOLVED_MAX, || {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE t%'";
        let waits = watcher.query_one(waits, &[]).is_ok_and(|row| row.get::<_, i64>(0) > 0);
        if waits || commits(&mut watcher) > before + 5 { Ok(()) } else { Err("neither".to_owned()) }
    });
    run(client, "COMMIT")
}

/// How many nodes' clients change the counter at the same time, nothing is lost or counted twice.
#[test]
fn a_counter_that_all_nodes_change_counts() {
    const EACH: i64 = 200;
    let group = group();
    thread::scope(|scope| {
        for number in 1..=3 {
            let group = &group;
            for _ in 0..2 {
                scope.spawn(move || count(group, node(number), EACH));
            }
        }
    });
    group.settle();
    assert_eq!(group.values("SELECT n FROM t WHERE id = 5"), vec![(6 * EACH).to_string(); 3]);
}

fn count(group: &Group, number: NodeNumber, times: i64) {
    let mut client = group.connect(number);
    let mut done = 0;
    while done < times {
        match client.batch_execute("BEGIN; UPDATE t SET n = n + 1 WHERE id = 5; COMMIT") {
            Ok(()) => done += 1,
            Err(error) => {
                assert_eq!(code(&error), "40001");
                client.batch_execute("ROLLBACK").unwrap();
            }
        }
    }
}

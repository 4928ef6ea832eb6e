//! SKIP LOCKED and NOWAIT across nodes: whoever skips what is locked skips what is locked anywhere, and a queue made of that has each job done once.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use gcs::playground::Part;
use gcs::playground::process::Signal;
use postgres::{Client, Error};
use postgres_r_tests::harness::{self, node, wait};
use postgres_r_tests::workload::queue;

/// Far above what it takes: what does not come within it does not come.
const RESOLVED_MAX: Duration = Duration::from_secs(30);
const JOBS: i32 = 600;
const NONE: [i32; 0] = [];

fn code(error: &Error) -> String {
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
}

fn ids(client: &mut Client, query: &str) -> Vec<i32> {
    let rows = client.query(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// The group, once it has locks: a moment after its members have met. With tables of ten rows, made anew.
fn group() -> harness::Shared {
    let group = harness::shared();
    let mut client = group.connect(node(1));
    wait::until("group locks", RESOLVED_MAX, || {
        client.batch_execute("SELECT pg_advisory_lock(0); SELECT pg_advisory_unlock(0)").map_err(|error| code(&error))
    });
    for table in [
        "DROP TABLE IF EXISTS t, keyless, part, other, queue_jobs, queue_done",
        "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0)",
        "CREATE TABLE keyless (id int, n int DEFAULT 0)",
        "CREATE TABLE part (id int PRIMARY KEY, n int DEFAULT 0) PARTITION BY RANGE (id)",
        "CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (0) TO (6)",
        "CREATE TABLE part_high PARTITION OF part FOR VALUES FROM (6) TO (100)",
        "CREATE TABLE other (id int PRIMARY KEY, t int)",
    ] {
        client.batch_execute(table).unwrap();
    }
    for table in ["t", "keyless", "part"] {
        client.batch_execute(&format!("INSERT INTO {table} SELECT generate_series(1, 10)")).unwrap();
    }
    client.batch_execute("INSERT INTO other SELECT id, id FROM t").unwrap();
    group.settle();
    group
}

#[test]
fn whoever_skips_what_is_locked_skips_what_is_locked_on_other_nodes() {
    let group = group();
    let (mut one, mut two, mut three) = (group.connect(node(1)), group.connect(node(2)), group.connect(node(3)));
    // Statements of many forms, each of which takes the first of what it can get.
    for first in [
        "SELECT id FROM t ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED",
        "SELECT id FROM t ORDER BY id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED",
        "SELECT id FROM keyless ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED",
        "SELECT id FROM part ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED",
        "SELECT t.id FROM t JOIN other o ON o.t = t.id ORDER BY t.id LIMIT 1 FOR UPDATE OF t SKIP LOCKED",
        "SELECT t.id FROM t JOIN other o ON o.t = t.id ORDER BY t.id LIMIT 1 FOR UPDATE SKIP LOCKED",
        "WITH next AS MATERIALIZED (SELECT id FROM t ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) SELECT id FROM next",
        "UPDATE t SET n = n + 1 WHERE id = (SELECT id FROM t ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id",
        "DELETE FROM t WHERE id IN (SELECT id FROM t ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id",
    ] {
        let table = first.split_whitespace().skip_while(|word| *word != "FROM").nth(1).unwrap();
        for client in [&mut two, &mut three] {
            client.batch_execute("BEGIN").unwrap();
        }
        // What was only locked before is given back together, a moment after its transaction.
        wait::until("the first is free", RESOLVED_MAX, || {
            one.batch_execute("BEGIN").unwrap();
            let found = ids(&mut one, first);
            if found == [1] {
                return Ok(());
            }
            one.batch_execute("ROLLBACK").unwrap();
            Err(format!("{first}: {found:?}"))
        });
        assert_eq!((ids(&mut two, first), ids(&mut three, first)), (vec![2], vec![3]), "{first}");
        // What a transaction has locked itself it does not skip.
        if first.starts_with("SELECT") {
            assert_eq!((ids(&mut two, first), ids(&mut one, first)), (vec![2], vec![1]), "{first}");
        }
        // All that is left, and nothing twice.
        let rest = ids(&mut two, &format!("SELECT id FROM {table} ORDER BY id FOR UPDATE SKIP LOCKED"));
        let own = if first.starts_with("DELETE") { 4 } else { 2 };
        let expected: Vec<i32> = [2].into_iter().filter(|_| own == 2).chain(4..=10).collect();
        assert_eq!(rest, expected, "{first}");
        assert_eq!(
            ids(&mut three, &format!("SELECT id FROM {table} WHERE id <> 3 FOR UPDATE SKIP LOCKED")),
            NONE,
            "{first}"
        );
        for client in [&mut one, &mut two, &mut three] {
            client.batch_execute("ROLLBACK").unwrap();
        }
    }
}

#[test]
fn a_rows_lock_is_as_strong_as_it_says_and_ends_with_what_it_was_taken_by() {
    let group = group();
    let (mut one, mut two) = (group.connect(node(1)), group.connect(node(2)));
    let first = |strength: &str| format!("SELECT id FROM t ORDER BY id LIMIT 1 FOR {strength} SKIP LOCKED");
    // Shared with others that share, and with nobody else.
    one.batch_execute("BEGIN").unwrap();
    two.batch_execute("BEGIN").unwrap();
    assert_eq!((ids(&mut one, &first("SHARE")), ids(&mut two, &first("SHARE"))), (vec![1], vec![1]));
    assert_eq!(ids(&mut two, &first("UPDATE")), [2]);
    assert_eq!(ids(&mut one, &first("SHARE")), [1]);
    one.batch_execute("ROLLBACK").unwrap();
    two.batch_execute("ROLLBACK").unwrap();
    // NOWAIT, in PostgreSQL's words.
    wait::until("what was rolled back is free", RESOLVED_MAX, || {
        let locked = one.batch_execute("BEGIN; SELECT FROM t WHERE id = 1 FOR UPDATE NOWAIT");
        locked.map_err(|error| {
            one.batch_execute("ROLLBACK").unwrap();
            code(&error)
        })
    });
    let refused = two.batch_execute("SELECT FROM t WHERE id = 1 FOR SHARE NOWAIT").unwrap_err();
    assert_eq!(code(&refused), "55P03");
    assert_eq!(refused.as_db_error().unwrap().message(), "could not obtain lock on row in relation \"t\"");
    // One that is given back after a change is to be had, and shows the change.
    one.batch_execute("UPDATE t SET n = 7 WHERE id = 1; COMMIT").unwrap();
    // (While it is being applied, PostgreSQL refuses it.)
    group.settle();
    assert_eq!(ids(&mut two, "SELECT n FROM t WHERE id = 1 FOR UPDATE NOWAIT"), [7]);
    // A savepoint that is rolled back, and not one that is released; an error that is caught.
    one.batch_execute("BEGIN; SAVEPOINT s").unwrap();
    // What was only locked is given back a moment after its transaction.
    wait::until("the row is free", RESOLVED_MAX, || {
        match ids(&mut one, "SELECT id FROM t WHERE id = 1 FOR UPDATE SKIP LOCKED")[..] {
            [1] => Ok(()),
            _ => Err("locked".to_owned()),
        }
    });
    one.batch_execute("RELEASE s; SAVEPOINT s").unwrap();
    one.batch_execute("SELECT FROM t WHERE id = 2 FOR UPDATE SKIP LOCKED; ROLLBACK TO s").unwrap();
    one.batch_execute(
        "DO $$ BEGIN PERFORM FROM t WHERE id = 3 FOR UPDATE SKIP LOCKED; RAISE division_by_zero;
         EXCEPTION WHEN division_by_zero THEN END $$",
    )
    .unwrap();
    wait::until("what was rolled back is free", RESOLVED_MAX, || match ids(&mut two, &first("UPDATE"))[..] {
        [2] => Ok(()),
        ref other => Err(format!("{other:?}")),
    });
    wait::until("what an exception undid is free", RESOLVED_MAX, || {
        two.batch_execute("SELECT FROM t WHERE id = 3 FOR UPDATE NOWAIT").map_err(|error| code(&error))
    });
    // A session, however it ends.
    drop(one);
    wait::until("a session's locks are free", RESOLVED_MAX, || match ids(&mut two, &first("UPDATE"))[..] {
        [1] => Ok(()),
        ref other => Err(format!("{other:?}")),
    });
}

#[test]
fn a_cursor_locks_what_it_has_fetched_and_with_local_each_node_is_by_itself() {
    let group = group();
    let (mut one, mut two) = (group.connect(node(1)), group.connect(node(2)));
    let first = "SELECT id FROM t ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED";
    wait::until("the first rows are free", RESOLVED_MAX, || {
        one.batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT id FROM t ORDER BY id FOR UPDATE SKIP LOCKED").unwrap();
        let fetched = ids(&mut one, "FETCH 3 FROM c");
        if fetched == [1, 2, 3] {
            return Ok(());
        }
        one.batch_execute("ROLLBACK").unwrap();
        Err(format!("{fetched:?}"))
    });
    assert_eq!(ids(&mut two, first), [4]);
    one.batch_execute("UPDATE t SET n = 1 WHERE CURRENT OF c; COMMIT").unwrap();
    // With the setting each node is by itself, and the commit decides.
    one.batch_execute("SET postgres_r.row_locks = local; BEGIN").unwrap();
    two.batch_execute("SET postgres_r.row_locks = local; BEGIN").unwrap();
    assert_eq!((ids(&mut one, first), ids(&mut two, first)), (vec![1], vec![1]));
    one.batch_execute("DELETE FROM t WHERE id = 1; COMMIT").unwrap();
    // It stands in the way of what is to be applied, and is told so, or ended if it has nothing to say.
    let lost = two.batch_execute("DELETE FROM t WHERE id = 1; COMMIT").unwrap_err();
    assert!(lost.is_closed() || code(&lost) == "40001" || code(&lost) == "57P01", "{lost:?}");
    harness::assert_equal(&group);
}

/// Rows behind those that are read ahead are not forgotten, and none is given twice, whatever begins the plan anew.
#[test]
fn what_is_read_ahead_is_used_once() {
    let group = group();
    let (mut one, mut two) = (group.connect(node(1)), group.connect(node(2)));
    one.batch_execute("INSERT INTO t SELECT generate_series(11, 200)").unwrap();
    group.settle();
    one.batch_execute("BEGIN").unwrap();
    let held = ids(&mut one, "SELECT id FROM t WHERE id % 3 = 0 ORDER BY id FOR UPDATE SKIP LOCKED");
    assert_eq!(held.len(), 66);
    two.batch_execute("BEGIN").unwrap();
    let free: Vec<i32> = (1..=200).filter(|id| id % 3 != 0).collect();
    assert_eq!(ids(&mut two, "SELECT id FROM t ORDER BY id FOR UPDATE SKIP LOCKED"), free);
    two.batch_execute("ROLLBACK").unwrap();
    wait::until("what was rolled back is free", RESOLVED_MAX, || {
        two.batch_execute("BEGIN").unwrap();
        let again = ids(&mut two, "SELECT id FROM t ORDER BY id FOR UPDATE SKIP LOCKED");
        two.batch_execute("ROLLBACK").unwrap();
        if again == free { Ok(()) } else { Err(format!("{again:?}")) }
    });
    wait::until("and again", RESOLVED_MAX, || {
        two.batch_execute("BEGIN").unwrap();
        match ids(&mut two, "SELECT id FROM t WHERE id IN (1, 200) ORDER BY id FOR UPDATE SKIP LOCKED")[..] {
            [1, 200] => Ok(()),
            ref other => {
                let other = format!("{other:?}");
                two.batch_execute("ROLLBACK").unwrap();
                Err(other)
            }
        }
    });
    for limit in [1, 2, 17, 40] {
        let query = format!("SELECT id FROM t ORDER BY id LIMIT {limit} FOR UPDATE SKIP LOCKED");
        assert_eq!(ids(&mut two, &query), free[..limit]);
    }
    // Once for each row outside, each time from the beginning: what it has locked before is its own.
    let again = "SELECT l.id FROM generate_series(1, 3) g,
        LATERAL (SELECT id FROM t WHERE id >= g ORDER BY id LIMIT 5 FOR UPDATE SKIP LOCKED) l";
    let expected: Vec<i32> = (1..=3).flat_map(|from| free.iter().copied().filter(move |id| *id >= from).take(5)).collect();
    assert_eq!(ids(&mut two, again), expected);
    let uncorrelated = "SELECT l.id FROM generate_series(1, 3) g LEFT JOIN
        (SELECT id FROM t ORDER BY id LIMIT 5 FOR UPDATE SKIP LOCKED) l ON l.id > g ORDER BY g, l.id";
    let expected: Vec<i32> = (1..=3).flat_map(|from| free[..5].iter().copied().filter(move |id| *id > from)).collect();
    assert_eq!(ids(&mut two, uncorrelated), expected);
    two.batch_execute("ROLLBACK").unwrap();
    one.batch_execute("ROLLBACK").unwrap();
}

#[test]
fn what_a_plan_does_besides_reading_is_done_as_on_one_server() {
    let group = group();
    group.execute(node(1), "CREATE SEQUENCE IF NOT EXISTS looked_at");
    group.execute(
        node(1),
        "CREATE OR REPLACE FUNCTION fails(id int) RETURNS int LANGUAGE plpgsql AS
            $$ BEGIN RAISE division_by_zero USING TABLE = 'some'; END $$",
    );
    group.settle();
    let (mut one, mut two) = (group.connect(node(1)), group.connect(node(2)));
    one.batch_execute("BEGIN").unwrap();
    assert_eq!(ids(&mut one, "SELECT id FROM t WHERE id <= 5 ORDER BY id FOR UPDATE SKIP LOCKED"), [1, 2, 3, 4, 5]);
    // Six rows are looked at, and none ahead.
    two.batch_execute("BEGIN; SELECT nextval('looked_at')").unwrap();
    let query = "SELECT id, nextval('looked_at') FROM t ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED";
    let plan = format!("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; EXPLAIN {query}");
    two.batch_execute(&plan).unwrap();
    let before: i64 = two.query_one("SELECT currval('looked_at')", &[]).unwrap().get(0);
    assert_eq!(ids(&mut two, query), [6]);
    let after: i64 = two.query_one("SELECT currval('looked_at')", &[]).unwrap().get(0);
    assert_eq!(after - before, 6);
    two.batch_execute("ROLLBACK").unwrap();
    // An error that comes from below says where, and keeps what it says.
    let error = two.batch_execute("SELECT id, fails(id) FROM t ORDER BY id FOR UPDATE SKIP LOCKED").unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!((error.code().code(), error.table()), ("22012", Some("some")));
    assert!(error.where_().is_some_and(|text| text.contains("PL/pgSQL function fails")), "{error:?}");
    one.batch_execute("ROLLBACK").unwrap();
    // What a transaction has changed itself it can lock, whoever has asked the group for it.
    wait::until("what was rolled back is free", RESOLVED_MAX, || {
        one.batch_execute("BEGIN; UPDATE t SET n = 1 WHERE id = 1").unwrap();
        two.batch_execute("BEGIN").unwrap();
        let got = ids(&mut two, "SELECT id FROM t WHERE id = 1 FOR UPDATE SKIP LOCKED");
        let own = one.batch_execute("SELECT FROM t WHERE id = 1 FOR UPDATE NOWAIT");
        one.batch_execute("ROLLBACK").unwrap();
        two.batch_execute("ROLLBACK").unwrap();
        own.unwrap();
        if got == [1] { Ok(()) } else { Err(format!("{got:?}")) }
    });
}

#[test]
fn a_row_is_lost_with_its_daemon_and_without_a_majority_none_is_locked() {
    let group = group();
    let (mut one, mut two) = (group.connect(node(1)), group.connect(node(2)));
    two.batch_execute("BEGIN").unwrap();
    assert_eq!(ids(&mut two, "SELECT id FROM t WHERE id = 1 FOR UPDATE SKIP LOCKED"), [1]);
    two.batch_execute("UPDATE t SET n = 1 WHERE id = 2").unwrap();
    group.kill(node(2), Part::Gcs);
    group.start_node(node(2));
    wait::until("another has the row", RESOLVED_MAX, || {
        match ids(&mut one, "SELECT id FROM t WHERE id = 1 FOR UPDATE SKIP LOCKED")[..] {
            [1] => Ok(()),
            ref other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(code(&two.batch_execute("COMMIT").unwrap_err()), "40001");
    two.batch_execute("SELECT 1").unwrap();
    assert_eq!(group.value(node(1), "SELECT n FROM t WHERE id = 2"), "0");
    for number in [2, 3] {
        group.signal(node(number), Part::Gcs, Signal::TERM);
    }
    wait::until("no majority", RESOLVED_MAX, || {
        let refused = one.batch_execute("SELECT FROM t WHERE id = 3 FOR UPDATE NOWAIT").map_err(|error| code(&error));
        if refused == Err("25006".to_owned()) { Ok(()) } else { Err(format!("{refused:?}")) }
    });
    let refused = one.batch_execute("SELECT FROM t WHERE id = 3 FOR UPDATE SKIP LOCKED").unwrap_err();
    assert_eq!(code(&refused), "25006");
    one.batch_execute("SET postgres_r.row_locks = local; SELECT FROM t WHERE id = 3 FOR UPDATE SKIP LOCKED").unwrap();
    for number in [2, 3] {
        group.start_node(node(number));
    }
}

/// Nobody is told that there is nothing because others of its node ask at that moment, and all get the first rows that there are.
#[test]
fn workers_that_come_at_once_get_a_row_each() {
    const WORKERS: i32 = 6;
    let group = group();
    let mut one = group.connect(node(1));
    one.batch_execute("BEGIN").unwrap();
    assert_eq!(ids(&mut one, "SELECT id FROM t ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"), [1]);
    let places = [2, 2, 2, 3, 3, 1];
    let mut workers: Vec<Client> = places.iter().map(|number| group.connect(node(*number))).collect();
    for round in 0..20 {
        let together = Barrier::new(WORKERS as usize);
        let got = thread::scope(|scope| {
            let running: Vec<_> = workers
                .iter_mut()
                .map(|worker| {
                    let together = &together;
                    scope.spawn(move || {
                        worker.batch_execute("BEGIN").unwrap();
                        together.wait();
                        let got = ids(worker, "SELECT id FROM t ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED");
                        together.wait();
                        // What is changed is free from where it is ordered on, and not a moment later.
                        got.iter().for_each(|id| {
                            worker.execute("UPDATE t SET n = n + 1 WHERE id = $1", &[id]).unwrap();
                        });
                        worker.batch_execute("COMMIT").unwrap();
                        got
                    })
                })
                .collect();
            running.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<BTreeSet<i32>>()
        });
        assert_eq!(got.len(), WORKERS as usize, "round {round}: {got:?}");
        group.settle();
    }
    one.batch_execute("ROLLBACK").unwrap();
}

#[test]
fn workers_on_three_nodes_never_hold_the_same_job() {
    let group = group();
    group.execute(node(1), queue::TABLES);
    queue::fill(&group, node(1), 1, JOBS);
    group.settle();
    let running = queue::Workload::start(&group, 2);
    wait::until("all jobs are done", RESOLVED_MAX, || match running.done() {
        done if done == JOBS as usize => Ok(()),
        done => Err(format!("{done} jobs")),
    });
    let summary = running.finish();
    assert_eq!((summary.held_twice, summary.lost, summary.failed, summary.unknown), (0, 0, 0, 0), "{summary:?}");
    assert!(summary.done.values().all(|times| *times == 1), "{summary:?}");
    group.settle();
    assert_eq!(
        group.value(node(2), "SELECT count(*) || '/' || count(DISTINCT worker) FROM queue_done"),
        format!("{JOBS}/6")
    );
    assert_eq!(group.value(node(3), "SELECT count(*) FROM queue_jobs"), "0");
    harness::assert_equal(&group);
}

#[test]
fn no_job_is_done_twice_or_forgotten_whatever_is_killed() {
    let group = group();
    group.execute(node(1), queue::TABLES);
    queue::fill(&group, node(1), 1, 100_000);
    group.settle();
    let running = queue::Workload::start(&group, 2);
    group.kill_each_in_turn(|| running.goes_on());
    running.goes_on();
    // The last of them, to the end.
    let (mut client, mut last) = (group.connect(node(1)), None);
    wait::until("most jobs are withdrawn", RESOLVED_MAX, || {
        let from = client
            .query_one("SELECT max(id) + 300 FROM (SELECT id FROM queue_jobs ORDER BY id LIMIT 50) head", &[])
            .map_err(|error| code(&error))?;
        let from: i32 = from.get(0);
        client.execute("DELETE FROM queue_jobs WHERE id > $1", &[&from]).map_err(|error| code(&error))?;
        last = Some(from);
        Ok(())
    });
    wait::until("the queue is empty", RESOLVED_MAX, || {
        match group.value(node(1), "SELECT count(*) FROM queue_jobs").as_str() {
            "0" => Ok(()),
            some => Err(format!("{some} jobs")),
        }
    });
    let summary = running.finish();
    println!(
        "{} jobs, {} lost, {} failed, {} unknown, {} held twice for a moment",
        summary.done.len(),
        summary.lost,
        summary.failed,
        summary.unknown,
        summary.held_twice
    );
    group.settle();
    assert!(summary.done.values().all(|times| *times == 1), "a job was done twice");
    let mut reader = group.connect(node(2));
    let done: BTreeSet<i32> = ids(&mut reader, "SELECT id FROM queue_done").into_iter().collect();
    assert_eq!(done, (1..=last.unwrap()).collect(), "each job is done, and once");
    assert!(summary.done.keys().all(|job| done.contains(job)), "a job that was acknowledged is not done");
    harness::assert_equal(&group);
}

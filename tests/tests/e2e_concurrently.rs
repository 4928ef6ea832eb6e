//! Indexes that are made and dropped CONCURRENTLY while all nodes write: the same everywhere in the end, whatever comes in between.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gcs::playground::Part;
use gcs::playground::group::describe;
use postgres::Client;
use postgres_r_tests::harness::{self, Group, everywhere, node, step, wait};

/// Far above what it takes.
const RESOLVED_MAX: Duration = Duration::from_secs(30);

/// Valid, ready, live; by name.
const STATES: &str =
    "SELECT string_agg(concat_ws(' ', indexrelid::regclass, indisvalid), ', ' ORDER BY indexrelid::regclass::text)
    FROM pg_index WHERE indrelid = 'items'::regclass AND NOT indisprimary";

fn code(client: &mut Client, statement: &str) -> String {
    let error = client.batch_execute(statement).expect_err(statement);
    let _ = client.batch_execute("ROLLBACK");
    error.code().map(|code| code.code().to_owned()).unwrap_or_default()
}

/// A table of so many rows, made anew.
fn items(group: &Group, rows: u32) {
    step(group, 1, "DROP TABLE IF EXISTS items");
    step(
        group,
        1,
        &format!(
            "CREATE TABLE items (id int PRIMARY KEY, n int, t text); INSERT INTO items SELECT i, i, 'row ' || i FROM generate_series(1, {rows}) i"
        ),
    );
    group.settle();
}

/// What a plan says that must find rows by this index, on every node: how many rows.
fn by_index(group: &Group, condition: &str, index: &str) -> Vec<String> {
    let of = |number| {
        let mut client = group.connect(number);
        client.batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off").unwrap();
        let plan = client.query(&format!("EXPLAIN SELECT count(*) FROM items WHERE {condition}"), &[]).unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        assert!(plan.iter().any(|line| line.contains(index)), "{plan:#?}");
        let row = client.query_one(&format!("SELECT count(*)::text FROM items WHERE {condition}"), &[]).unwrap();
        row.get(0)
    };
    group.numbers().into_iter().map(of).collect()
}

/// Waits until a session of that node runs such a statement, and waits for this.
fn wait_until_it_waits(group: &Group, number: usize, statement: &str, event: &str) {
    let query = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '{statement}%' AND wait_event = '{event}' AND pid <> pg_backend_pid()"
    );
    group.becomes(node(number), &query, "1", RESOLVED_MAX);
}

/// Waits until that node is about to build, and waits for who writes there.
fn wait_for_builder(group: &Group, number: usize) {
    let query =
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'postgres_r builder' AND wait_event = 'virtualxid'";
    group.becomes(node(number), query, "true", RESOLVED_MAX);
}

#[test]
fn an_index_is_made_and_dropped_on_all_nodes_from_any() {
    let group = harness::shared();
    items(&group, 2_000);
    let mut client = group.connect(node(2));
    for statement in [
        "CREATE UNIQUE INDEX CONCURRENTLY items_n ON items (n)",
        "CREATE INDEX CONCURRENTLY ON items (lower(t), id DESC) INCLUDE (n) WITH (fillfactor = 70) WHERE n > 100",
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS items_n ON items (t)",
        "CREATE INDEX CONCURRENTLY \"Of hash\" ON items USING hash (t text_pattern_ops)",
    ] {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {}", describe(&error)));
    }
    group.settle();
    assert_eq!(everywhere(&group, STATES), "\"Of hash\" t, items_lower_id_n_idx t, items_n t");
    let definitions = "SELECT string_agg(pg_get_indexdef(indexrelid), E'\\n' ORDER BY indexrelid::regclass::text) FROM pg_index WHERE indrelid = 'items'::regclass";
    assert!(everywhere(&group, definitions).contains("INCLUDE (n) WITH (fillfactor='70') WHERE (n > 100)"));
    assert_eq!(by_index(&group, "n BETWEEN 10 AND 19", "items_n"), ["10", "10", "10"]);
    // It is enforced on every node, and across them.
    for number in group.numbers() {
        assert_eq!(code(&mut group.connect(number), "INSERT INTO items VALUES (-1, 7)"), "23505");
    }
    step(
        &group,
        3,
        "INSERT INTO items SELECT i, i, 'row ' || i FROM generate_series(2001, 2100) i; DELETE FROM items WHERE id % 2 = 0",
    );
    group.settle();
    assert_eq!(by_index(&group, "n BETWEEN 1990 AND 2010", "items_n"), ["10", "10", "10"]);
    step(&group, 3, "DROP INDEX CONCURRENTLY items_n");
    step(&group, 1, "DROP INDEX CONCURRENTLY IF EXISTS items_n");
    assert_eq!(everywhere(&group, STATES), "\"Of hash\" t, items_lower_id_n_idx t");
    assert_eq!(
        everywhere(&group, "SELECT string_agg(relname, ',') FROM pg_class WHERE relname LIKE 'pg\\_temp\\_%'"),
        "NULL"
    );
    harness::assert_equal(&group);
    harness::catalog::assert_same(&group);
}

#[test]
fn in_a_transaction_block_and_in_functions_it_fails_as_on_one_server() {
    let group = harness::shared();
    items(&group, 10);
    step(&group, 1, "CREATE INDEX items_n ON items (n)");
    let mut client = group.connect(node(1));
    for statement in ["CREATE INDEX CONCURRENTLY items_t ON items (t)", "DROP INDEX CONCURRENTLY items_n"] {
        assert_eq!(code(&mut client, &format!("BEGIN; {statement}")), "25001");
        assert_eq!(code(&mut client, &format!("DO $$ BEGIN {statement}; END $$")), "25001");
    }
    assert_eq!(code(&mut client, "CREATE INDEX CONCURRENTLY items_x ON items (missing)"), "42703");
    assert_eq!(code(&mut client, "DROP INDEX CONCURRENTLY missing"), "42704");
    // What was begun and failed is forgotten: other statements are as ever.
    client.batch_execute("BEGIN; CREATE INDEX items_t ON items (t); DROP INDEX items_n; COMMIT").unwrap();
    group.settle();
    assert_eq!(everywhere(&group, STATES), "items_t t");
    client.batch_execute("CREATE TEMP TABLE fleeting AS SELECT 1 AS a; CREATE INDEX fleeting_a ON fleeting (a)").unwrap();
    client.batch_execute("CREATE INDEX CONCURRENTLY fleeting_b ON fleeting (a)").unwrap();
    client.batch_execute("DROP INDEX CONCURRENTLY fleeting_b").unwrap();
    harness::assert_equal(&group);
}

/// Updates, inserts and deletes rows of its own until told to stop.
fn write(group: &Group, number: usize, nth: i32, (stop, done): (&AtomicBool, &AtomicU64)) -> Vec<String> {
    let mut client = group.connect(node(number));
    let mut failed = Vec::new();
    for round in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let (id, new) = (round % 300 * 6 + nth + 1, 100_000 + round * 6 + nth);
        let statement = format!(
            "BEGIN; UPDATE items SET n = -n, t = t || '.' WHERE id = {id}; INSERT INTO items VALUES ({new}, {new}, 'new'); DELETE FROM items WHERE id = {new} AND id % 5 = 0; COMMIT"
        );
        match client.batch_execute(&statement) {
            Ok(()) => drop(done.fetch_add(1, Ordering::SeqCst)),
            Err(error) => {
                failed.push(format!("node {number}: {}", describe(&error)));
                let _ = client.batch_execute("ROLLBACK");
            }
        }
    }
    failed
}

#[test]
fn writers_of_all_nodes_go_on_and_every_row_is_in_the_index() {
    let group = harness::shared();
    items(&group, 30_000);
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let failed: Vec<String> = thread::scope(|scope| {
        let writers: Vec<_> = (0..6)
            .map(|nth| {
                let (group, told) = (&group, (&stop, &done));
                scope.spawn(move || write(group, nth % 3 + 1, nth as i32, told))
            })
            .collect();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..3 {
                group.execute(node(round % 3 + 1), "CREATE UNIQUE INDEX CONCURRENTLY items_n ON items (n)");
                group
                    .execute(node((round + 1) % 3 + 1), "CREATE INDEX CONCURRENTLY items_t ON items (lower(t)) WHERE n > 0");
                if round < 2 {
                    group.execute(node(round % 3 + 1), "DROP INDEX CONCURRENTLY items_n");
                    group.execute(node((round + 2) % 3 + 1), "DROP INDEX CONCURRENTLY items_t");
                }
            }
        }));
        stop.store(true, Ordering::SeqCst);
        let failed = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        failed
    });
    eprintln!("{} transactions, {} failed: {failed:?}", done.load(Ordering::SeqCst), failed.len());
    assert!(failed.is_empty(), "{failed:#?}");
    group.settle();
    assert_eq!(everywhere(&group, STATES), "items_n t, items_t t");
    let counted = everywhere(&group, "SELECT count(*) FROM items WHERE n IS NOT NULL");
    assert_eq!(by_index(&group, "n BETWEEN -1000000000 AND 1000000000", "items_n"), [&*counted; 3].map(str::to_owned));
    // PostgreSQL's own check, rows against indexes.
    step(&group, 1, "CREATE EXTENSION amcheck");
    group.settle();
    for number in group.numbers() {
        group.execute(number, "SELECT bt_index_check('items_n', true), bt_index_check('items_t', true)");
    }
    step(&group, 1, "DROP EXTENSION amcheck");
    harness::assert_equal(&group);
}

#[test]
fn duplicates_leave_an_index_that_is_valid_nowhere_and_can_be_mended() {
    let group = harness::shared();
    items(&group, 100);
    step(&group, 2, "INSERT INTO items VALUES (-7, 7)");
    let mut client = group.connect(node(1));
    let failure = client.batch_execute("CREATE UNIQUE INDEX CONCURRENTLY items_n ON items (n)").unwrap_err();
    let failure = failure.as_db_error().unwrap().clone();
    assert_eq!(failure.code().code(), "23505");
    assert_eq!(failure.detail(), Some("Key (n)=(7) is duplicated."));
    group.settle();
    assert_eq!(everywhere(&group, STATES), "items_n f");
    // Nothing that is of one node makes it valid there.
    assert_eq!(code(&mut client, "REINDEX SCHEMA public"), "0A000");
    for statement in ["REINDEX TABLE CONCURRENTLY items", "VACUUM FULL items", "REINDEX INDEX items_pkey"] {
        client.batch_execute(statement).unwrap();
    }
    assert_eq!(code(&mut client, "REINDEX INDEX items_n"), "23505");
    // Rows that are equal in it are still rows: no node has anything against them.
    step(&group, 3, "INSERT INTO items VALUES (-8, 8)");
    step(&group, 3, "UPDATE items SET n = -n WHERE id < 0");
    assert_eq!(everywhere(&group, STATES), "items_n f");
    step(&group, 2, "REINDEX INDEX items_n");
    assert_eq!(everywhere(&group, STATES), "items_n t");
    for number in group.numbers() {
        assert_eq!(code(&mut group.connect(number), "INSERT INTO items VALUES (-9, 9)"), "23505");
    }
    // REINDEX of what is valid is of one node, as before.
    for statement in ["REINDEX TABLE items", "VACUUM FULL items", "REINDEX INDEX CONCURRENTLY items_n"] {
        client.batch_execute(statement).unwrap();
    }
    harness::assert_equal(&group);
    harness::catalog::assert_same(&group);
}

/// The same as the first step's, but for a table that is asked for it before the index is ready: what two nodes put in at the same time.
#[test]
fn equal_rows_that_two_nodes_write_meanwhile_never_meet_in_a_valid_index() {
    let group = harness::shared();
    for round in 0..4 {
        items(&group, 100);
        // It does not know the index, and is waited for: by the node that it writes on, which is not the one that makes it.
        let mut unaware = group.connect(node(2));
        unaware.batch_execute("BEGIN; INSERT INTO items VALUES (-1, 5000)").unwrap();
        let made = thread::scope(|scope| {
            let making = scope.spawn(|| {
                let made = group.connect(node(1)).batch_execute("CREATE UNIQUE INDEX CONCURRENTLY items_n ON items (n)");
                made.map_err(|error| error.code().map(|code| code.code().to_owned()).unwrap_or_default())
            });
            group.becomes(node(3), STATES, "items_n f", RESOLVED_MAX);
            // This one knows it, and no node enters rows yet.
            let other = group.connect(node(3)).batch_execute(if round % 2 == 0 {
                "INSERT INTO items VALUES (-2, 5000)"
            } else {
                "INSERT INTO items VALUES (-2, 5001)"
            });
            other.unwrap();
            assert!(!making.is_finished(), "it did not wait for a writer of another node");
            unaware.batch_execute("COMMIT").unwrap();
            making.join().unwrap()
        });
        group.settle();
        let wanted = if round % 2 == 0 { (Err("23505".to_owned()), "items_n f") } else { (Ok(()), "items_n t") };
        assert_eq!((made, &*everywhere(&group, STATES)), wanted);
        harness::assert_equal(&group);
    }
}

/// Up to so long; whether it came.
fn comes_within(at_most: Duration, mut has_come: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + at_most;
    while Instant::now() < until {
        if has_come() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}

#[test]
fn no_node_enters_rows_while_another_has_writers_that_do_not_know_the_index() {
    let group = harness::shared();
    items(&group, 100);
    let mut unaware = group.connect(node(2));
    unaware.batch_execute("BEGIN; INSERT INTO items VALUES (-1, 5000)").unwrap();
    let mut aware = group.connect(node(3));
    let (made, enters_rows, is_early) = thread::scope(|scope| {
        let making = scope.spawn(|| {
            let made = group.connect(node(1)).batch_execute("CREATE UNIQUE INDEX CONCURRENTLY items_n ON items (n)");
            made.map_err(|error| error.code().map(|code| code.code().to_owned()).unwrap_or_default())
        });
        group.becomes(node(3), STATES, "items_n f", RESOLVED_MAX);
        let query = "SELECT indisready FROM pg_index WHERE indexrelid = 'items_n'::regclass";
        let enters_rows = comes_within(Duration::from_secs(2), || group.value(node(3), query) == "true");
        // It is checked against nothing, and the other row has no key: were it not waited for, both would be there.
        aware.batch_execute("BEGIN; INSERT INTO items VALUES (-2, 5000)").unwrap();
        unaware.batch_execute("COMMIT").unwrap();
        let is_early = comes_within(Duration::from_secs(2), || making.is_finished());
        aware.batch_execute("COMMIT").unwrap();
        (making.join().unwrap(), enters_rows, is_early)
    });
    assert_eq!((enters_rows, is_early), (false, false), "{made:?}");
    assert_eq!((made, &*everywhere(&group, STATES)), (Err("23505".to_owned()), "items_n f"));
    harness::assert_equal(&group);
}

#[test]
fn cancelled_it_leaves_an_index_that_is_valid_nowhere() {
    let group = harness::shared();
    items(&group, 100);
    let mut reader = group.connect(node(3));
    reader.batch_execute("BEGIN; INSERT INTO items VALUES (-1)").unwrap();
    thread::scope(|scope| {
        let mut client = group.connect(node(1));
        let cancel = client.cancel_token();
        let making = scope.spawn(move || code(&mut client, "CREATE INDEX CONCURRENTLY items_n ON items (n)"));
        group.becomes(node(2), STATES, "items_n f", RESOLVED_MAX);
        wait_for_builder(&group, 3);
        cancel.cancel_query(postgres::NoTls).unwrap();
        assert_eq!(making.join().unwrap(), "57014");
    });
    reader.batch_execute("COMMIT").unwrap();
    group.settle();
    assert_eq!(everywhere(&group, STATES), "items_n f");
    step(&group, 2, "DROP INDEX items_n");
    assert_eq!(everywhere(&group, STATES), "NULL");
    // Of DROP: the index is not valid any more, on all nodes, and is dropped the second time.
    step(&group, 2, "CREATE INDEX items_n ON items (n)");
    group.settle();
    reader.batch_execute("BEGIN; SELECT count(*) FROM items").unwrap();
    thread::scope(|scope| {
        let mut client = group.connect(node(3));
        let cancel = client.cancel_token();
        let dropping = scope.spawn(move || code(&mut client, "DROP INDEX CONCURRENTLY items_n"));
        group.becomes(node(1), STATES, "items_n f", RESOLVED_MAX);
        wait_until_it_waits(&group, 3, "DROP INDEX", "virtualxid");
        cancel.cancel_query(postgres::NoTls).unwrap();
        assert_eq!(dropping.join().unwrap(), "57014");
    });
    reader.batch_execute("COMMIT").unwrap();
    assert_eq!(everywhere(&group, STATES), "items_n f");
    step(&group, 1, "DROP INDEX CONCURRENTLY items_n");
    assert_eq!(everywhere(&group, STATES), "NULL");
    harness::assert_equal(&group);
}

#[test]
fn an_index_that_is_not_valid_refuses_no_row_of_another_node() {
    let group = harness::shared();
    items(&group, 100);
    step(&group, 1, "CREATE UNIQUE INDEX items_n ON items (n)");
    group.settle();
    let mut reader = group.connect(node(2));
    reader.batch_execute("BEGIN; SELECT count(*) FROM items").unwrap();
    thread::scope(|scope| {
        let mut client = group.connect(node(1));
        let cancel = client.cancel_token();
        let dropping = scope.spawn(move || code(&mut client, "DROP INDEX CONCURRENTLY items_n"));
        // Rows are entered on node 2 only, where somebody may use it.
        for (number, live) in [(1, "false"), (2, "true"), (3, "false")] {
            let query = "SELECT indislive FROM pg_index WHERE indexrelid = 'items_n'::regclass";
            group.becomes(node(number), query, live, RESOLVED_MAX);
        }
        cancel.cancel_query(postgres::NoTls).unwrap();
        assert_eq!(dropping.join().unwrap(), "57014");
    });
    step(&group, 1, "INSERT INTO items VALUES (-5, 5); UPDATE items SET n = 7 WHERE id = 8");
    let equal = "SELECT count(*) FROM items WHERE n IN (5, 7)";
    group.becomes(node(2), equal, "4", RESOLVED_MAX);
    reader.batch_execute("COMMIT").unwrap();
    assert_eq!(everywhere(&group, equal), "4");
    harness::assert_equal(&group);
    step(&group, 3, "DROP INDEX CONCURRENTLY items_n");
    assert_eq!(everywhere(&group, STATES), "NULL");
}

#[test]
fn of_equal_rows_that_two_nodes_write_at_once_one_loses_before_the_index_is_ready() {
    let group = harness::shared();
    items(&group, 100);
    // Keeps the index from being ready on any node.
    let mut unaware = group.connect(node(1));
    unaware.batch_execute("BEGIN; INSERT INTO items VALUES (-1)").unwrap();
    thread::scope(|scope| {
        let making =
            scope.spawn(|| group.connect(node(1)).batch_execute("CREATE UNIQUE INDEX CONCURRENTLY items_n ON items (n)"));
        for number in group.numbers() {
            group.becomes(number, STATES, "items_n f", RESOLVED_MAX);
        }
        let mut clients = [group.connect(node(2)), group.connect(node(3))];
        for (nth, client) in clients.iter_mut().enumerate() {
            client.batch_execute(&format!("BEGIN; INSERT INTO items VALUES ({}, 5000)", 1000 + nth)).unwrap();
        }
        let ends = clients
            .each_mut()
            .map(|client| client.batch_execute("COMMIT").map_err(|error| error.code().map(|code| code.code().to_owned())));
        // The second began, and wrote, before the first was committed anywhere.
        unaware.batch_execute("COMMIT").unwrap();
        let made = making.join().unwrap();
        assert_eq!(ends, [Ok(()), Err(Some("40001".to_owned()))]);
        made.unwrap_or_else(|error| panic!("{}", describe(&error)));
    });
    assert_eq!(everywhere(&group, STATES), "items_n t");
    harness::assert_equal(&group);
}

#[test]
fn a_node_that_is_away_builds_the_index_when_it_is_back() {
    let group = harness::shared();
    items(&group, 5_000);
    for part in [Part::Postgres, Part::Both] {
        group.kill(node(3), part);
        // A unique one would be made by no node while another may have writers that do not know it.
        if part == Part::Both {
            wait::until("the loss of the node", RESOLVED_MAX, || {
                let mut client = group.connect(node(1));
                client.batch_execute("DROP INDEX IF EXISTS items_u").unwrap();
                match client.batch_execute("CREATE UNIQUE INDEX CONCURRENTLY items_u ON items (n)") {
                    Err(error) if error.code().is_some_and(|code| code.code() == "55000") => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
        }
        group.execute(node(1), "CREATE INDEX CONCURRENTLY items_n ON items (n)");
        group.execute(node(1), "INSERT INTO items VALUES (-1, 3)");
        group.start_node(node(3));
        group.settle();
        step(&group, 2, "DROP INDEX IF EXISTS items_u");
        assert_eq!(everywhere(&group, STATES), "items_n t");
        assert_eq!(by_index(&group, "n BETWEEN 1 AND 10", "items_n"), ["11", "11", "11"]);
        group.execute(node(2), "DROP INDEX CONCURRENTLY items_n; ");
        group.execute(node(2), "DELETE FROM items WHERE id = -1");
        group.settle();
    }
    harness::assert_equal(&group);
    harness::catalog::assert_same(&group);
}

#[test]
fn when_its_origin_dies_in_the_middle_the_index_is_valid_nowhere() {
    let group = harness::shared();
    items(&group, 100);
    let mut open = group.connect(node(3));
    open.batch_execute("BEGIN; INSERT INTO items VALUES (-1)").unwrap();
    thread::scope(|scope| {
        let making =
            scope.spawn(|| group.connect(node(1)).batch_execute("CREATE UNIQUE INDEX CONCURRENTLY items_n ON items (n)"));
        group.becomes(node(3), STATES, "items_n f", RESOLVED_MAX);
        wait_for_builder(&group, 3);
        group.kill(node(1), Part::Both);
        assert!(making.join().unwrap().is_err());
    });
    open.batch_execute("COMMIT").unwrap();
    group.start_node(node(1));
    group.settle();
    assert_eq!(everywhere(&group, STATES), "items_n f");
    // A node that joins by a copy has no index that is not valid; dropping it and making it anew is the same for all.
    step(&group, 2, "DROP INDEX CONCURRENTLY items_n");
    step(&group, 3, "CREATE UNIQUE INDEX CONCURRENTLY items_n ON items (n)");
    assert_eq!(everywhere(&group, STATES), "items_n t");
    harness::assert_equal(&group);
    harness::catalog::assert_same(&group);
}

#[test]
fn rows_without_a_primary_key_are_told_apart_by_it_only_when_it_is_valid() {
    let group = harness::shared();
    step(
        &group,
        1,
        "DROP TABLE IF EXISTS items; CREATE TABLE items (id int NOT NULL, n int NOT NULL); INSERT INTO items SELECT i, i FROM generate_series(1, 1000) i",
    );
    group.settle();
    let (stop, group_ref) = (AtomicBool::new(false), &*group);
    thread::scope(|scope| {
        let writers: Vec<_> = (1..=3)
            .map(|number| {
                let stop = &stop;
                scope.spawn(move || {
                    let mut client = group_ref.connect(node(number));
                    for round in 0.. {
                        if stop.load(Ordering::SeqCst) {
                            return;
                        }
                        // Losing is a writer's lot, now and then: how rows are told apart changes.
                        let id = round % 300 * 3 + number;
                        let _ = client.batch_execute(&format!("UPDATE items SET n = n + 1000 WHERE id = {id}"));
                    }
                })
            })
            .collect();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..3 {
                group.execute(node(round % 3 + 1), "CREATE UNIQUE INDEX CONCURRENTLY items_id ON items (id)");
                group.execute(node((round + 1) % 3 + 1), "DROP INDEX CONCURRENTLY items_id");
            }
        }));
        stop.store(true, Ordering::SeqCst);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    harness::assert_equal(&group);
}

/// A partitioned table with three partitions and a row in each, made anew.
fn parts(group: &Group) {
    step(group, 1, "DROP TABLE IF EXISTS parts, parts_1, parts_2, parts_3");
    step(
        group,
        1,
        "CREATE TABLE parts (id int PRIMARY KEY, t text) PARTITION BY RANGE (id);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
         CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200);
         CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (200) TO (300);
         INSERT INTO parts VALUES (1), (101), (201)",
    );
    group.settle();
}

const PARTITIONS: &str =
    "SELECT string_agg(concat_ws(' ', inhrelid::regclass, inhdetachpending), ', ' ORDER BY inhrelid::regclass::text)
    FROM pg_inherits WHERE inhparent = 'parts'::regclass";

#[test]
fn a_partition_is_detached_on_all_nodes_and_writers_go_on() {
    let group = harness::shared();
    parts(&group);
    let mut client = group.connect(node(2));
    let statement = "ALTER TABLE parts DETACH PARTITION parts_1 CONCURRENTLY";
    assert_eq!(code(&mut client, &format!("BEGIN; {statement}")), "25001");
    assert_eq!(code(&mut client, &format!("DO $$ BEGIN {statement}; END $$")), "25001");
    client.batch_execute(statement).unwrap();
    assert_eq!(everywhere(&group, PARTITIONS), "parts_2 f, parts_3 f");
    step(&group, 3, "INSERT INTO parts_1 VALUES (2); UPDATE parts SET t = 'two'; UPDATE parts_1 SET t = 'one'");
    assert_eq!(code(&mut client, "INSERT INTO parts VALUES (3)"), "23514");
    assert_eq!(code(&mut client, "INSERT INTO parts_1 VALUES (500)"), "23514");
    let checks = "SELECT string_agg(conname || ' ' || pg_get_constraintdef(oid) || convalidated, ', ') FROM pg_constraint WHERE conrelid = 'parts_1'::regclass AND contype = 'c'";
    assert!(everywhere(&group, checks).contains("CHECK"));
    // It waits for a reader of its node; writers of others go on meanwhile, and rows may still go into the partition by its name.
    let mut reader = group.connect(node(1));
    reader.batch_execute("BEGIN; SELECT count(*) FROM parts").unwrap();
    thread::scope(|scope| {
        let detaching =
            scope.spawn(|| group.connect(node(1)).batch_execute("ALTER TABLE parts DETACH PARTITION parts_2 CONCURRENTLY"));
        for number in group.numbers() {
            group.becomes(number, PARTITIONS, "parts_2 t, parts_3 f", RESOLVED_MAX);
        }
        group.execute(
            node(2),
            "INSERT INTO parts_2 VALUES (102); INSERT INTO parts VALUES (202); UPDATE parts SET t = 'more'",
        );
        assert_eq!(code(&mut client, "INSERT INTO parts VALUES (103)"), "23514");
        assert!(!detaching.is_finished());
        reader.batch_execute("COMMIT").unwrap();
        detaching.join().unwrap().unwrap();
    });
    assert_eq!(everywhere(&group, PARTITIONS), "parts_3 f");
    harness::assert_equal(&group);
    harness::catalog::assert_same(&group);
}

#[test]
fn a_partition_whose_detaching_was_cancelled_is_pending_everywhere_and_any_node_finishes_it() {
    let group = harness::shared();
    parts(&group);
    let mut reader = group.connect(node(1));
    reader.batch_execute("BEGIN; SELECT count(*) FROM parts").unwrap();
    thread::scope(|scope| {
        let mut client = group.connect(node(1));
        let cancel = client.cancel_token();
        let detaching = scope.spawn(move || code(&mut client, "ALTER TABLE parts DETACH PARTITION parts_2 CONCURRENTLY"));
        group.becomes(node(3), PARTITIONS, "parts_1 f, parts_2 t, parts_3 f", RESOLVED_MAX);
        wait_until_it_waits(&group, 1, "ALTER TABLE parts DETACH", "virtualxid");
        cancel.cancel_query(postgres::NoTls).unwrap();
        assert_eq!(detaching.join().unwrap(), "57014");
    });
    reader.batch_execute("COMMIT").unwrap();
    assert_eq!(everywhere(&group, PARTITIONS), "parts_1 f, parts_2 t, parts_3 f");
    let mut other = group.connect(node(2));
    assert_eq!(code(&mut other, "ALTER TABLE parts DETACH PARTITION parts_3 CONCURRENTLY"), "55000", "one is pending");
    step(&group, 3, "ALTER TABLE parts DETACH PARTITION parts_2 FINALIZE");
    assert_eq!(everywhere(&group, PARTITIONS), "parts_1 f, parts_3 f");
    step(
        &group,
        2,
        "INSERT INTO parts_2 VALUES (150); ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM (100) TO (200)",
    );
    step(&group, 3, "UPDATE parts SET t = 'again'");
    harness::assert_equal(&group);
    harness::catalog::assert_same(&group);
}

/// Functions of a user in an index run as the table's owner, on every node, whoever makes the index.
#[test]
fn functions_in_the_index_run_as_the_tables_owner_everywhere() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE ROLE shelver; CREATE TABLE owned (id int PRIMARY KEY, v int); INSERT INTO owned SELECT n, n FROM generate_series(1, 20) n;
         CREATE FUNCTION as_owner(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
             BEGIN IF current_user <> 'shelver' THEN RAISE 'called by %', current_user; END IF; RETURN n; END $$;
         ALTER TABLE owned OWNER TO shelver",
    );
    group.settle();
    let statement = "CREATE INDEX CONCURRENTLY owned_index ON owned ((as_owner(v) + as_owner(10))) WHERE as_owner(v + 10) > as_owner(10)";
    group.execute(node(2), statement);
    group.settle();
    assert_eq!(
        group.values("SELECT indisvalid FROM pg_index WHERE indexrelid = 'owned_index'::regclass"),
        ["true", "true", "true"]
    );
    group.execute(node(1), "DROP TABLE owned; DROP FUNCTION as_owner(int); DROP ROLE shelver");
}

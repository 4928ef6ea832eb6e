//! An index that is not valid is mended by REINDEX INDEX CONCURRENTLY, on all nodes or on none, whoever writes meanwhile; and what leaves it as it is
//! may be run on any node.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use postgres::Client;
use postgres_r_tests::harness::{self, Group, everywhere, node, step};
use postgres_r_tests::workload::client::{Failure, classify};

/// Far above what it takes.
const RESOLVED_MAX: Duration = Duration::from_secs(30);

const MEND: &str = "REINDEX INDEX CONCURRENTLY items_n";

/// By name, and whether each is valid.
const STATES: &str =
    "SELECT string_agg(concat_ws(' ', indexrelid::regclass, indisvalid), ', ' ORDER BY indexrelid::regclass::text)
    FROM pg_index WHERE indrelid = 'items'::regclass AND NOT indisprimary";

fn code(client: &mut Client, statement: &str) -> String {
    let error = client.batch_execute(statement).expect_err(statement);
    error.code().map(|code| code.code().to_owned()).unwrap_or_default()
}

/// A table with 100 rows of its own and the row (-7, 7), on which a unique index could not be made.
fn items(group: &Group) {
    step(
        group,
        1,
        "DROP TABLE IF EXISTS items; CREATE TABLE items (id int PRIMARY KEY, n int);
        INSERT INTO items SELECT i, i FROM generate_series(1, 100) i; INSERT INTO items VALUES (-7, 7)",
    );
    group.settle();
    assert_eq!(code(&mut group.connect(node(1)), "CREATE UNIQUE INDEX CONCURRENTLY items_n ON items (n)"), "23505");
    group.settle();
    assert_eq!(everywhere(group, STATES), "items_n f");
}

/// Holds up who makes an index CONCURRENTLY on that node, when all rows are in it, until it is dropped.
fn old_snapshot(group: &Group, number: usize) -> Client {
    let mut client = group.connect(node(number));
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").unwrap();
    client
}

fn wait_until_it_is_held_up(group: &Group, number: usize) {
    let query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'REINDEX%' AND wait_event = 'virtualxid'";
    group.becomes(node(number), query, "1", RESOLVED_MAX);
}

#[test]
fn it_fails_where_rows_are_equal_and_else_makes_the_index_valid_on_all_nodes() {
    let group = harness::shared();
    items(&group);
    let mut client = group.connect(node(1));
    let failure = client.batch_execute(MEND).unwrap_err();
    let failure = failure.as_db_error().unwrap();
    assert_eq!(failure.message(), "could not create unique index \"items_n_ccnew\"");
    assert_eq!(failure.detail(), Some("Key (n)=(7) is duplicated."));
    // What it leaves behind is of this node, as with an index that is valid.
    assert_eq!(group.value(node(1), STATES), "items_n f, items_n_ccnew f");
    step(&group, 1, "DROP INDEX items_n_ccnew");
    assert_eq!(everywhere(&group, STATES), "items_n f");
    step(&group, 2, "DELETE FROM items WHERE id < 0");
    group.settle();
    step(&group, 2, MEND);
    assert_eq!(everywhere(&group, STATES), "items_n t");
    for number in group.numbers() {
        assert_eq!(code(&mut group.connect(number), "INSERT INTO items VALUES (-9, 9)"), "23505");
    }
    step(&group, 3, "INSERT INTO items VALUES (-9, -9)");
    harness::assert_equal(&group);
    harness::catalog::assert_same(&group);
}

#[test]
fn in_a_transaction_block_it_fails_as_on_one_server() {
    let group = harness::shared();
    items(&group);
    let mut client = group.connect(node(1));
    client.batch_execute("BEGIN").unwrap();
    assert_eq!(code(&mut client, MEND), "25001");
    client.batch_execute("ROLLBACK").unwrap();
    assert_eq!(everywhere(&group, STATES), "items_n f");
}

/// On no node but the origin is there anything yet that would refuse the row of another node, and the origin may not refuse what is applied.
#[test]
fn an_equal_row_of_another_node_that_comes_when_it_is_built_makes_it_fail_everywhere() {
    let group = harness::shared();
    items(&group);
    step(&group, 1, "DELETE FROM items WHERE id < 0");
    group.settle();
    let open = old_snapshot(&group, 1);
    thread::scope(|scope| {
        let mending = scope.spawn(|| {
            let mut client = group.connect(node(1));
            // Other nodes would find it when they try the step beforehand, if they are there.
            client.batch_execute("SET postgres_r.rehearsal_timeout = 0").unwrap();
            code(&mut client, MEND)
        });
        wait_until_it_is_held_up(&group, 1);
        step(&group, 2, "INSERT INTO items VALUES (-8, 8)");
        group.settle();
        drop(open);
        assert_eq!(mending.join().unwrap(), "23505");
    });
    step(&group, 1, "DROP INDEX items_n_ccnew; DELETE FROM items WHERE id < 0");
    assert_eq!(everywhere(&group, STATES), "items_n f");
    step(&group, 3, MEND);
    assert_eq!(everywhere(&group, STATES), "items_n t");
    harness::assert_equal(&group);
}

/// A transaction that has written when the index becomes valid loses, here and elsewhere; without the group's locks nobody waits for it.
#[test]
fn who_has_written_an_equal_row_when_it_becomes_valid_loses() {
    let group = harness::shared_without_table_locks();
    items(&group);
    step(&group, 1, "DELETE FROM items WHERE id < 0");
    group.settle();
    let mut writer = group.connect(node(2));
    writer.batch_execute("BEGIN; INSERT INTO items VALUES (-8, 8)").unwrap();
    step(&group, 1, MEND);
    assert_eq!(writer.batch_execute("COMMIT").map_err(|error| classify(&error)), Err(Failure::Retry));
    assert_eq!(everywhere(&group, STATES), "items_n t");
    assert_eq!(code(&mut writer, "INSERT INTO items VALUES (-8, 8)"), "23505");
    harness::assert_equal(&group);
}

#[test]
fn writers_of_all_nodes_go_on_while_it_is_built() {
    let group = harness::shared();
    items(&group);
    step(&group, 1, "DELETE FROM items WHERE id < 0");
    group.settle();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in group.numbers() {
            let (group, stop) = (&group, &stop);
            scope.spawn(move || {
                let mut client = group.connect(number);
                let first = 1000 * (1 + group.numbers().iter().position(|&other| other == number).unwrap());
                for id in first..first + 900 {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    match client.batch_execute(&format!("INSERT INTO items VALUES ({id}, {id})")) {
                        Ok(()) => {}
                        Err(error) => assert_eq!(classify(&error), Failure::Retry, "{error:?}"),
                    }
                }
            });
        }
        let mut client = group.connect(node(1));
        // One that loses leaves an index behind, as whatever fails does.
        while let Err(error) = client.batch_execute(MEND) {
            assert_eq!(classify(&error), Failure::Retry, "{error:?}");
            println!("lost: {error:?}");
            while client.batch_execute("DROP INDEX IF EXISTS items_n_ccnew").is_err() {}
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert_eq!(everywhere(&group, STATES), "items_n t");
    harness::assert_equal(&group);
}

/// They look for no duplicates, so they make no unique index valid; any other they would, on their node.
#[test]
fn what_makes_no_unique_index_valid_runs_on_any_node() {
    let group = harness::shared();
    items(&group);
    for (number, statement) in
        [(1, "VACUUM FULL items"), (2, "CLUSTER items USING items_pkey"), (3, "VACUUM (FULL, ANALYZE)"), (1, "CLUSTER")]
    {
        step(&group, number, statement);
        assert_eq!(everywhere(&group, STATES), "items_n f", "{statement}");
    }
    step(&group, 3, "DROP INDEX items_n; DELETE FROM items WHERE id < 0");
    group.settle();
    let mut client = group.connect(node(1));
    assert_eq!(code(&mut client, "CREATE INDEX CONCURRENTLY items_n ON items ((1 / (n - 7)))"), "22012");
    step(&group, 2, "DELETE FROM items WHERE n = 7");
    group.settle();
    for statement in ["VACUUM FULL items", "CLUSTER items USING items_pkey", "VACUUM FULL", "REINDEX SCHEMA public"] {
        assert_eq!(code(&mut client, statement), "0A000", "{statement}");
    }
    step(&group, 2, MEND);
    assert_eq!(everywhere(&group, STATES), "items_n t");
    harness::assert_equal(&group);
}

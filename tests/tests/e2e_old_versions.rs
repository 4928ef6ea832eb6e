//! A node on which old versions of rows can't be removed, since a transaction is open there for long, applies what other
//! nodes do to those rows as fast as ever: a remote backend remembers where it left a row. What it remembers may be wrong by then.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::time::Duration;

use postgres::Client;
use postgres_r_tests::harness::{self, Group, node};

const WITHIN: Duration = Duration::from_secs(30);
const ROUNDS: u64 = 500;
const ROWS: u64 = 5;

/// A transaction of node 2 that sees what is there now.
fn reader(group: &Group) -> Client {
    let mut reader = group.connect(node(2));
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class").unwrap();
    reader
}

fn counted(group: &Group, table: &str, column: &str) -> u64 {
    let query = format!("SELECT {column} FROM pg_stat_user_tables WHERE relname = '{table}'");
    group.value(node(2), &query).parse().unwrap()
}

/// Each row is updated so often, in a transaction of its own each time.
fn update_again_and_again(writer: &mut Client, table: &str, rounds: u64) {
    for _ in 0..rounds {
        for id in 1..=ROWS {
            writer.batch_execute(&format!("UPDATE {table} SET x = x + 1 WHERE id = {id}")).unwrap();
        }
    }
}

#[test]
fn a_row_that_is_updated_again_and_again_is_not_looked_up_among_its_old_versions_each_time() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE updated (id int PRIMARY KEY, x int DEFAULT 0); INSERT INTO updated SELECT generate_series(1, 5)",
    );
    group.settle();
    let mut reader = reader(&group);
    let before = counted(&group, "updated", "idx_scan");
    update_again_and_again(&mut group.connect(node(1)), "updated", ROUNDS);
    let updates = (ROUNDS * ROWS).to_string();
    group.becomes(node(2), "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'updated'", &updates, WITHIN);
    let lookups = counted(&group, "updated", "idx_scan") - before;
    println!("{lookups} look-ups for {updates} updates, {} dead versions", counted(&group, "updated", "n_dead_tup"));
    assert!(lookups < ROUNDS * ROWS / 10, "{lookups}");
    reader.batch_execute("SELECT count(*) FROM updated; COMMIT").unwrap();
    harness::assert_equal(&group);
}

#[test]
fn where_a_row_was_left_is_not_believed() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE moved (id int PRIMARY KEY, name text COLLATE \"C\" NOT NULL UNIQUE, x int DEFAULT 0);
         INSERT INTO moved SELECT n, 'n' || n FROM generate_series(1, 5) n;
         CREATE TABLE renamed (id numeric PRIMARY KEY, x int DEFAULT 0);
         INSERT INTO renamed SELECT generate_series(1, 5)",
    );
    group.settle();
    let mut writer = group.connect(node(1));
    for held in [true, false] {
        let reader = held.then(|| reader(&group));
        for disturbance in [
            "UPDATE moved SET id = id + 10; UPDATE moved SET id = 16 - id",
            "UPDATE moved SET id = id + 10; UPDATE moved SET id = id % 5 + 1; UPDATE moved SET x = x + id",
            "DELETE FROM moved WHERE id = 2; INSERT INTO moved VALUES (2, 'fresh')",
            "BEGIN; SAVEPOINT s; UPDATE moved SET x = 1000; ROLLBACK TO s; UPDATE moved SET x = x + 7; COMMIT",
            "BEGIN; UPDATE moved SET x = 1000; ROLLBACK",
            "BEGIN; DELETE FROM moved; INSERT INTO moved SELECT n, 'again' || n FROM generate_series(1, 5) n; COMMIT",
            "ALTER TABLE moved ALTER x TYPE bigint; ALTER TABLE moved ALTER x TYPE int",
            "TRUNCATE moved, renamed; INSERT INTO moved SELECT n, 'n' || n FROM generate_series(1, 5) n;
             INSERT INTO renamed SELECT generate_series(1, 5)",
            "UPDATE renamed SET id = id + 0.0; UPDATE renamed SET id = (6 - id) * 10; UPDATE renamed SET id = id / 10",
        ] {
            update_again_and_again(&mut writer, "moved", 6);
            update_again_and_again(&mut writer, "renamed", 6);
            writer.batch_execute(disturbance).unwrap();
        }
        // Nothing but the key tells that the row which went from 1 to 5 is not the one to be deleted.
        for round in 0..12 {
            writer.batch_execute("UPDATE moved SET id = id + 10; UPDATE moved SET id = 16 - id").unwrap();
            writer.batch_execute("DELETE FROM moved WHERE id = 1").unwrap();
            writer.batch_execute(&format!("INSERT INTO moved VALUES (1, 'of round {round} {held}')")).unwrap();
        }
        drop(reader);
        group.settle();
        group.execute(node(2), "VACUUM FULL moved");
        update_again_and_again(&mut writer, "moved", 6);
        update_again_and_again(&mut writer, "renamed", 6);
        group.settle();
        harness::assert_equal(&group);
    }
}

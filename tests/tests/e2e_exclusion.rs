//! Exclusion constraints across nodes: rows that are written at the same time exclude each other where they are equal in each column that the
//! constraint compares by equality; where it compares none, any two do.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use postgres_r_tests::harness::{self, Group, everywhere, node, race, step};
use postgres_r_tests::workload::client::{Failure, classify};

const SETUP: &str = "
    DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE EXTENSION btree_gist;
    CREATE TYPE color AS ENUM ('red', 'blue'); CREATE DOMAIN room_number AS int CHECK (VALUE > 0);
    CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE TABLE by_room (id int PRIMARY KEY, room int, during int4range, v int, EXCLUDE USING gist (room WITH =, during WITH &&));
    CREATE TABLE late (id int PRIMARY KEY, room int, during int4range,
        EXCLUDE USING gist (room WITH =, during WITH &&) DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE kept (id int PRIMARY KEY, room room_number, low int, high int, gone bool DEFAULT false,
        EXCLUDE USING gist (int4range(low, high) WITH &&, room WITH =) WHERE (NOT gone));
    CREATE TABLE two (id int PRIMARY KEY, house text, room numeric, during tstzrange,
        EXCLUDE USING gist (house WITH =, during WITH &&, room WITH =));
    CREATE TABLE typed (id int PRIMARY KEY, name text COLLATE anycase, c color, about regclass, nth int,
        EXCLUDE USING btree (name WITH =, c WITH =), EXCLUDE USING gist (about WITH =, nth WITH <>));
    CREATE TABLE apart (id int PRIMARY KEY, room int, during int4range, EXCLUDE USING gist (room WITH <>, during WITH &&));
    CREATE TABLE whole (id int PRIMARY KEY, during int4range, EXCLUDE USING gist (during WITH &&))";

/// The second is run on node 2 where the first, of node 1, is not known yet; then both are undone.
fn meet(group: &Group, table: &str, first: &str, second: &str) -> Result<(), Failure> {
    println!("{table}: {first} | {second}");
    let insert = |id: u32, values: &str| format!("INSERT INTO {table} VALUES ({id}, {values})");
    let outcome = race::after_unseen(group, (node(1), &insert(1, first)), (node(2), &insert(2, second)));
    step(group, 3, &format!("DELETE FROM {table} WHERE id < 10"));
    group.settle();
    outcome
}

#[test]
fn rows_exclude_each_other_across_nodes_where_they_are_equal() {
    let group = harness::shared_without_table_locks();
    step(&group, 1, SETUP);
    group.settle();
    let mut wrong = Vec::new();
    for (table, first, second, passes) in [
        ("by_room", "1, '[1,5)'", "1, '[3,9)'", false),
        // As far as can be told by equality.
        ("by_room", "1, '[1,5)'", "1, '[5,9)'", false),
        ("by_room", "1, '[1,5)'", "2, '[3,9)'", true),
        ("by_room", "NULL, '[1,5)'", "NULL, '[3,9)'", true),
        ("late", "1, '[1,5)'", "1, '[3,9)'", false),
        ("late", "1, '[1,5)'", "2, '[3,9)'", true),
        ("kept", "1, 1, 5", "1, 3, 9", false),
        ("kept", "1, 1, 5", "2, 3, 9", true),
        ("two", "'a', 1.0, '[2026-01-01,2026-02-01)'", "'a', 1.00, '[2026-01-15,2026-03-01)'", false),
        ("two", "'a', 1.0, '[2026-01-01,2026-02-01)'", "'b', 1.0, '[2026-01-15,2026-03-01)'", true),
        ("two", "'a', 1.0, '[2026-01-01,2026-02-01)'", "'a', 2.0, '[2026-01-15,2026-03-01)'", true),
        ("typed", "'Ana', 'red'", "'aNA', 'red'", false),
        ("typed", "'Ana', 'red'", "'Ana', 'blue'", true),
        ("typed", "NULL, NULL, 'two', 1", "NULL, NULL, 'two', 2", false),
        ("typed", "NULL, NULL, 'two', 1", "NULL, NULL, 'late', 2", true),
        ("apart", "1, '[1,5)'", "2, '[3,9)'", false),
        ("apart", "1, '[1,5)'", "1, '[13,19)'", false),
        ("whole", "'[1,5)'", "'[13,19)'", false),
    ] {
        let outcome = meet(&group, table, first, second);
        if outcome != if passes { Ok(()) } else { Err(Failure::Retry) } {
            wrong.push(format!("{table}: {first} | {second}: {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    harness::assert_equal(&group);
}

#[test]
fn changes_of_either_column_count_and_of_others_do_not() {
    let group = harness::shared_without_table_locks();
    step(&group, 1, SETUP);
    let mut wrong = Vec::new();
    for (first, second, passes) in [
        ("UPDATE by_room SET during = '[40,45)' WHERE id = 11", "INSERT INTO by_room VALUES (3, 1, '[44,50)')", false),
        ("UPDATE by_room SET room = 3 WHERE id = 11", "INSERT INTO by_room VALUES (3, 3, '[4,50)')", false),
        ("UPDATE by_room SET room = 3 WHERE id = 11", "UPDATE by_room SET room = 3 WHERE id = 12", false),
        ("UPDATE by_room SET room = 4 WHERE id = 11", "UPDATE by_room SET room = 5 WHERE id = 12", true),
        ("UPDATE by_room SET room = NULL WHERE id = 11", "INSERT INTO by_room VALUES (3, 2, '[44,50)')", true),
        ("UPDATE by_room SET v = 1 WHERE id = 11", "INSERT INTO by_room VALUES (3, 1, '[44,50)')", true),
        ("DELETE FROM by_room WHERE id = 11", "INSERT INTO by_room VALUES (3, 2, '[44,50)')", true),
    ] {
        step(&group, 2, "DELETE FROM by_room; INSERT INTO by_room VALUES (11, 1, '[1,5)', 0), (12, 2, '[1,5)', 0)");
        group.settle();
        let outcome = race::after_unseen(&group, (node(1), first), (node(2), second));
        if outcome != if passes { Ok(()) } else { Err(Failure::Retry) } {
            wrong.push(format!("{first} | {second}: {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    harness::assert_equal(&group);
}

/// What a deleted row has kept out comes in, in this order on every node.
#[test]
fn all_nodes_book_and_no_two_bookings_overlap() {
    let group = harness::shared();
    step(&group, 1, SETUP);
    group.settle();
    let ids = AtomicU64::new(1000);
    thread::scope(|scope| {
        for number in group.numbers() {
            let (group, ids) = (&group, &ids);
            scope.spawn(move || {
                let mut client = group.connect(number);
                for n in 0..150 {
                    let (id, room, at) = (ids.fetch_add(1, Ordering::SeqCst), n % 3, n * 7 % 20);
                    for statement in [
                        format!("INSERT INTO by_room VALUES ({id}, {room}, int4range({at}, {at} + 4))"),
                        format!("DELETE FROM by_room WHERE room = {room} AND during @> {}", (at + 9) % 20),
                        format!(
                            "UPDATE by_room SET room = {} WHERE room = {room} AND during @> {}",
                            5 - room,
                            (at + 3) % 20
                        ),
                    ] {
                        if let Err(error) = client.batch_execute(&statement) {
                            let is_excluded = error.code().is_some_and(|code| code.code() == "23P01");
                            assert!(is_excluded || classify(&error) == Failure::Retry, "{statement}: {error:?}");
                        }
                    }
                }
            });
        }
    });
    let overlaps =
        "SELECT count(*) FROM by_room a JOIN by_room b ON a.id < b.id AND a.room = b.room AND a.during && b.during";
    assert_eq!(everywhere(&group, overlaps), "0");
    harness::assert_equal(&group);
}

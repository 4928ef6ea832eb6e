//! What one node captures, the others apply: rows of every kind, keys of every kind, statements in between. Each script runs on one
//! node, statement by statement in one session; afterwards all nodes hold the same.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use gcs::playground::group::describe;
use postgres_r_tests::harness::{self, Group, node};
use postgres_r_tests::workload::client::{Failure, classify};

/// Statements end with a semicolon at the end of a line; a transaction stands on one line.
fn statements(script: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for line in script.lines().filter(|line| !line.starts_with("--")) {
        let last = found.last_mut().unwrap();
        last.push_str(line);
        last.push('\n');
        if line.ends_with(';') {
            found.push(String::new());
        }
    }
    found.retain(|statement| !statement.trim().is_empty());
    found
}

fn run(group: &Group, number: usize, script: &str) {
    group.settle();
    let mut client = group.connect(node(number));
    for statement in statements(script) {
        client.batch_execute(&statement).unwrap_or_else(|error| panic!("{statement}: {}", describe(&error)));
    }
    harness::assert_equal(group);
}

#[test]
fn columns_of_every_type_travel_as_they_are() {
    run(&harness::shared(), 1, include_str!("capture/types.sql"));
}

#[test]
fn rows_are_found_by_whatever_identifies_them() {
    run(&harness::shared(), 2, include_str!("capture/keys.sql"));
}

#[test]
fn what_triggers_and_foreign_keys_do_is_applied_in_the_order_it_was_done() {
    run(&harness::shared(), 3, include_str!("capture/nested.sql"));
}

#[test]
fn statements_and_rows_of_many_shapes_keep_their_places() {
    run(&harness::shared(), 1, include_str!("capture/statements.sql"));
}

/// A child on one node and its parent's deletion on another: one of the two loses, or both see each other in order.
#[test]
fn no_child_is_left_without_its_parent_by_two_nodes() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE parent (id int PRIMARY KEY, v int DEFAULT 0); INSERT INTO parent SELECT generate_series(1, 200);
         CREATE TABLE child (id serial PRIMARY KEY, parent bigint NOT NULL REFERENCES parent)",
    );
    group.settle();
    std::thread::scope(|scope| {
        for (number, statement) in [
            (1, "DELETE FROM parent WHERE id = $1"),
            (2, "INSERT INTO child (parent) VALUES ($1)"),
            (3, "UPDATE parent SET v = v + 1 WHERE id = $1"),
        ] {
            let group = &group;
            scope.spawn(move || {
                let mut client = group.connect(node(number));
                let cast = if number == 2 { "$1::bigint" } else { "$1" };
                for id in 1..=200i32 {
                    // Who loses is told so; all that counts is what is there in the end.
                    let _ = match number {
                        2 => client.execute(&statement.replace("$1", cast), &[&i64::from(id)]),
                        _ => client.execute(statement, &[&id]),
                    };
                }
            });
        }
    });
    harness::assert_equal(&group);
    let orphans =
        group.values("SELECT count(*) FROM child WHERE NOT EXISTS (SELECT FROM parent WHERE parent.id = child.parent)");
    assert_eq!(orphans, ["0", "0", "0"]);
}

/// Runs `open` in a transaction on node 2, `winner` on node 1 until it shows on all nodes, then commits the first.
fn against_an_open_transaction(group: &Group, open: &str, winner: &str) -> Result<(), Failure> {
    let mut client = group.connect(node(2));
    client.batch_execute("BEGIN").unwrap();
    client.batch_execute(open).unwrap();
    group.execute(node(1), winner);
    group.settle();
    let outcome = client.batch_execute("COMMIT").map_err(|error| classify(&error));
    drop(client);
    harness::assert_equal(group);
    outcome
}

#[test]
fn an_open_transaction_gives_way_where_it_must_and_only_there() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE way (id int PRIMARY KEY, code text UNIQUE, v int DEFAULT 0);
         INSERT INTO way SELECT n, 'c' || n FROM generate_series(1, 9) n;
         CREATE TABLE below (id serial PRIMARY KEY, way int REFERENCES way);
         CREATE TABLE loose (a int); INSERT INTO loose VALUES (1), (2)",
    );
    group.settle();
    for (open, winner) in [
        ("INSERT INTO way VALUES (10, 'two')", "INSERT INTO way VALUES (10, 'one')"),
        ("INSERT INTO way VALUES (11, 'same')", "INSERT INTO way VALUES (12, 'same')"),
        ("UPDATE way SET code = 'moved' WHERE id = 1", "UPDATE way SET code = 'moved' WHERE id = 2"),
        ("UPDATE way SET v = 1 WHERE id = 3", "UPDATE way SET v = 2 WHERE id = 3"),
        ("DELETE FROM way WHERE id = 4", "UPDATE way SET v = 2 WHERE id = 4"),
        ("UPDATE way SET v = 1 WHERE id = 5", "DELETE FROM way WHERE id = 5"),
        ("INSERT INTO below (way) VALUES (6)", "DELETE FROM way WHERE id = 6"),
        ("UPDATE loose SET a = 3 WHERE a = 1", "DELETE FROM loose WHERE a = 1"),
        ("INSERT INTO loose VALUES (5)", "TRUNCATE loose"),
    ] {
        // An idle session may be ended for it; then its client learns no more than that.
        assert!(against_an_open_transaction(&group, open, winner).is_err(), "{open} / {winner}");
    }
    for (open, winner) in [
        ("INSERT INTO below (way) VALUES (7)", "UPDATE way SET v = 7 WHERE id = 7"),
        ("UPDATE way SET v = 8 WHERE id = 8", "INSERT INTO below (way) VALUES (8)"),
        ("UPDATE way SET v = 1 WHERE id = 9", "INSERT INTO way VALUES (20, 'other')"),
        ("INSERT INTO loose VALUES (7)", "INSERT INTO loose VALUES (7)"),
    ] {
        assert_eq!(against_an_open_transaction(&group, open, winner), Ok(()), "{open} / {winner}");
    }
}

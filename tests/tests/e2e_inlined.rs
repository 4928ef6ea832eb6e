//! Functions in SQL that PostgreSQL inlines: what passes on one node passes on all, whatever the functions are declared to be.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use postgres_r_tests::harness::{self, node};

#[test]
fn a_volatile_function_whose_text_is_immutable_may_be_used_in_an_index_on_every_node() {
    let group = harness::shared();
    group.settle();
    let mut client = group.connect(node(1));
    let statements = [
        // What the rehearsal would refuse is to be applied.
        "SET postgres_r.rehearsal_timeout = 0",
        "CREATE FUNCTION plus_one(a int) RETURNS int LANGUAGE sql AS 'SELECT a + 1'",
        "CREATE FUNCTION plus_two(a int) RETURNS int LANGUAGE sql RETURN a + 2",
        "CREATE TABLE indexed (a int PRIMARY KEY, b int GENERATED ALWAYS AS (plus_one(a)) STORED)",
        "INSERT INTO indexed VALUES (1), (2), (3)",
        "CREATE UNIQUE INDEX ON indexed (plus_one(a)); CREATE INDEX ON indexed (plus_two(a))",
        "CREATE TABLE parted (a int) PARTITION BY RANGE (plus_one(a))",
        "CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (100)",
        "INSERT INTO indexed VALUES (4); INSERT INTO parted VALUES (4)",
    ];
    for statement in statements {
        client.batch_execute(statement).unwrap();
    }
    harness::assert_equal(&group);
    assert_eq!(group.values("SELECT sum(b) FROM indexed"), ["14", "14", "14"]);
}

#[test]
fn what_a_function_writes_that_an_inlined_one_calls_is_written_once() {
    let group = harness::shared();
    group.settle();
    let mut client = group.connect(node(1));
    let statements = [
        "CREATE TABLE calls (n int)",
        "CREATE FUNCTION noted(a int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO calls VALUES (a); RETURN a; END $$",
        "CREATE FUNCTION outer_noted(a int) RETURNS int LANGUAGE sql AS 'SELECT noted(a) + 1'",
        "CREATE TABLE checked (a int PRIMARY KEY); INSERT INTO checked VALUES (1), (2), (3)",
        "ALTER TABLE checked ADD CHECK (outer_noted(a) > 0)",
    ];
    for statement in statements {
        client.batch_execute(statement).unwrap();
    }
    harness::assert_equal(&group);
    assert_eq!(group.values("SELECT count(*) FROM calls"), ["3", "3", "3"]);
}

//! `postgres_r.exclude`: a table that stays local on purpose. Every node has it, each node's rows are its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use gcs::playground::group::describe;
use postgres::Client;
use postgres_r_tests::harness::{self, everywhere, node, step};

fn refused(client: &mut Client, statement: &str, code: &str, says: &str) {
    let error = client.batch_execute(statement).expect_err(statement);
    let _ = client.batch_execute("ROLLBACK");
    assert_eq!(error.code().unwrap().code(), code, "{statement}: {}", describe(&error));
    assert!(describe(&error).contains(says), "{statement}: {}", describe(&error));
}

#[test]
fn rows_of_an_excluded_table_stay_and_its_definition_is_everybodys() {
    let group = harness::shared();
    step(&group, 1, "CREATE TABLE queue (id serial PRIMARY KEY, t text); INSERT INTO queue (t) VALUES ('all')");
    step(&group, 2, "SELECT postgres_r.exclude('queue')");
    assert_eq!(everywhere(&group, "SELECT string_agg(table_name::text, ' ') FROM postgres_r.excluded_tables"), "queue");
    step(&group, 1, "INSERT INTO queue (t) VALUES ('one'); COPY queue (t) FROM PROGRAM 'echo copied'");
    step(&group, 2, "UPDATE queue SET t = t || ' changed'; INSERT INTO queue (t) VALUES ('two') ON CONFLICT DO NOTHING");
    step(&group, 3, "TRUNCATE queue");
    let rows = "SELECT coalesce(string_agg(t, ', ' ORDER BY id), 'none') FROM queue";
    assert_eq!(group.values(rows), ["all, one, copied", "all changed, two", "none"]);
    // Ids are the group's all the same: no two nodes give one twice.
    let newest = "SELECT max(id) FROM queue";
    assert_ne!(group.value(node(2), newest), group.value(node(1), newest));
    step(
        &group,
        3,
        "ALTER TABLE queue ADD COLUMN n int DEFAULT 5; CREATE INDEX ON queue (n); ALTER TABLE queue RENAME TO \"The Queue\"; CREATE SCHEMA own; ALTER TABLE \"The Queue\" SET SCHEMA own",
    );
    assert_eq!(everywhere(&group, "SELECT table_name FROM postgres_r.excluded_tables"), "own.\"The Queue\"");
    assert_eq!(group.value(node(1), "SELECT count(*) FROM postgres_r.verify() WHERE verdict <> 'equal'"), "0");
    // A transaction that changes this one and others: only the others' rows are the group's.
    step(&group, 3, "CREATE TABLE beside (id int PRIMARY KEY)");
    step(&group, 1, "BEGIN; INSERT INTO own.\"The Queue\" (t) VALUES ('three'); INSERT INTO beside VALUES (1); COMMIT");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM beside"), "1");
    harness::assert_equal(&group);
    // Back: what node 2 has becomes everybody's.
    step(&group, 2, "SELECT postgres_r.include('own.\"The Queue\"')");
    assert_eq!(
        everywhere(&group, "SELECT string_agg(t || n, ', ' ORDER BY id) FROM own.\"The Queue\""),
        "all changed5, two5"
    );
    for number in 1..=3 {
        step(&group, number, "INSERT INTO own.\"The Queue\" (t) VALUES ('again')");
    }
    assert_eq!(everywhere(&group, "SELECT count(*) FROM own.\"The Queue\""), "5");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM postgres_r.excluded_tables"), "0");
    harness::assert_equal(&group);
}

#[test]
fn what_would_cross_is_refused() {
    let group = harness::shared();
    step(
        &group,
        1,
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY REFERENCES parent); CREATE TABLE alone (id int PRIMARY KEY)",
    );
    step(
        &group,
        1,
        "CREATE TABLE whole (id int) PARTITION BY LIST (id); CREATE TABLE part PARTITION OF whole DEFAULT; CREATE TABLE above (id int); CREATE TABLE below () INHERITS (above)",
    );
    step(
        &group,
        1,
        "CREATE ROLE stranger; GRANT ALL ON alone TO stranger; GRANT USAGE ON SCHEMA postgres_r TO stranger; CREATE UNLOGGED TABLE fleeting (id int)",
    );
    let mut client = group.connect(node(1));
    group.settle();
    for (table, code, says) in [
        ("parent", "0A000", "a replicated table to excluded table \"parent\""),
        ("child", "0A000", "a foreign key of excluded table \"child\""),
        ("part", "0A000", "partitioning of excluded table \"part\""),
        ("above", "0A000", "inheritance"),
        ("below", "0A000", "inheritance"),
        ("whole", "42809", "cannot exclude"),
        ("fleeting", "42809", "cannot exclude"),
    ] {
        refused(&mut client, &format!("SELECT postgres_r.exclude('{table}')"), code, says);
    }
    refused(&mut client, "SELECT postgres_r.include('alone')", "42704", "is not excluded");
    refused(
        &mut client,
        "BEGIN; SET LOCAL ROLE stranger; SELECT postgres_r.exclude('alone')",
        "42501",
        "must be owner of table alone",
    );
    client.batch_execute("BEGIN; SELECT postgres_r.exclude('alone'); ROLLBACK; INSERT INTO alone VALUES (1)").unwrap();
    assert_eq!(everywhere(&group, "SELECT count(*) FROM alone"), "1");
    client.batch_execute("SELECT postgres_r.exclude('alone')").unwrap();
    for (statement, code, says) in [
        ("SELECT postgres_r.exclude('alone')", "42710", "already"),
        ("CREATE TABLE refers (id int REFERENCES alone)", "0A000", "a foreign key of a replicated table"),
        ("ALTER TABLE parent ADD FOREIGN KEY (id) REFERENCES alone", "0A000", "a foreign key of a replicated table"),
        ("ALTER TABLE alone ADD FOREIGN KEY (id) REFERENCES parent NOT VALID", "0A000", "a foreign key of excluded table"),
        ("CREATE TABLE inherits () INHERITS (alone)", "0A000", "inheritance"),
        ("ALTER TABLE whole ATTACH PARTITION alone FOR VALUES IN (1)", "0A000", "partitioning"),
    ] {
        refused(&mut client, statement, code, says);
    }
    // Excluded tables may refer to each other.
    client.batch_execute("BEGIN; CREATE TABLE alone_too (id int); SELECT postgres_r.exclude('alone_too'); ALTER TABLE alone_too ADD FOREIGN KEY (id) REFERENCES alone; COMMIT").unwrap();
    client.batch_execute("DROP TABLE alone, alone_too").unwrap();
    assert_eq!(everywhere(&group, "SELECT count(*) FROM postgres_r.excluded_tables"), "0");
    harness::assert_equal(&group);
}

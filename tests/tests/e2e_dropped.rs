//! A statement waits for a lock on a table, and by the time it gets the lock the table is gone: the error is PostgreSQL's own, and the server
//! stays up.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use postgres_r_tests::harness::{self, Group, node, race};
use postgres_r_tests::workload::client::Failure;

/// Every kind of statement that waits for whoever has the table `t`, partitioned table `p` or sequence `s`.
const WAITING: &[&str] = &[
    "TRUNCATE t",
    "TRUNCATE t RESTART IDENTITY CASCADE",
    "TRUNCATE other, t",
    "CREATE INDEX ON t (n)",
    "CREATE UNIQUE INDEX ON t (m)",
    "INSERT INTO t VALUES (2, 2)",
    "INSERT INTO t VALUES (1, 1) ON CONFLICT (n) DO UPDATE SET m = 3",
    "UPDATE t SET m = 2",
    "DELETE FROM t",
    "MERGE INTO t USING other ON t.n = other.n WHEN MATCHED THEN DELETE",
    "SELECT * FROM t FOR UPDATE",
    "SELECT * FROM t",
    "COPY t TO '/dev/null'",
    "COPY t FROM '/dev/null'",
    "DO 'BEGIN LOCK TABLE t IN SHARE MODE; END'",
    "DO 'BEGIN LOCK TABLE t IN ROW EXCLUSIVE MODE; END'",
    "COMMENT ON TABLE t IS 'a table'",
    "COMMENT ON COLUMN t.m IS 'a column'",
    "ALTER TABLE t ADD COLUMN more int DEFAULT 1",
    "ALTER TABLE t ALTER COLUMN m TYPE bigint",
    "ALTER TABLE t RENAME TO u",
    "ALTER TABLE t RENAME COLUMN m TO k",
    "ALTER TABLE t OWNER TO CURRENT_USER",
    "ALTER TABLE t SET SCHEMA harness",
    "ALTER TABLE t CLUSTER ON t_pkey",
    "ALTER TABLE p ATTACH PARTITION t FOR VALUES IN (1)",
    "ALTER TABLE t INHERIT other",
    "DROP TABLE t",
    "CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING",
    "CREATE POLICY po ON t USING (true)",
    "CREATE STATISTICS st ON n, m FROM t",
    "CREATE VIEW v AS SELECT * FROM t",
    "CREATE TABLE made AS SELECT * FROM t",
    "CREATE TABLE made (LIKE t)",
    "CREATE TABLE made () INHERITS (t)",
    "CREATE TABLE made (n int REFERENCES t)",
    "CREATE SEQUENCE made OWNED BY t.n",
    "REINDEX TABLE t",
    "CLUSTER t",
    "EXPLAIN ANALYZE DELETE FROM t",
    "DO 'BEGIN TRUNCATE t; END'",
];

/// Runs the statement while another session of the same node has dropped the table and not yet committed; its error.
fn while_dropped(group: &Group, statement: &str) -> String {
    println!("{statement}");
    let mut dropper = group.connect(node(1));
    dropper
        .batch_execute("DROP TABLE IF EXISTS t; CREATE TABLE t (n serial PRIMARY KEY, m int); INSERT INTO t VALUES (1, 1)")
        .unwrap();
    dropper.batch_execute("BEGIN; DROP TABLE t").unwrap();
    let mut waiter = group.connect(node(1));
    let result = race::while_blocked(group, (node(1), &mut waiter), statement, || dropper.batch_execute("COMMIT").unwrap());
    match result {
        Err(Failure::Definite(error)) => error,
        other => panic!("{statement}: {other:?}"),
    }
}

#[test]
fn whatever_waits_for_a_table_that_is_dropped_gets_postgresqls_error() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE other (n int PRIMARY KEY, m int); CREATE TABLE p (n int, m int) PARTITION BY LIST (n)",
    );
    let mut watcher = group.connect(node(1));
    for statement in WAITING {
        let error = while_dropped(&group, statement);
        assert!(error.contains("42P01"), "{statement}: {error}");
        // A server that crashed has ended this session.
        watcher.query_one("SELECT 1", &[]).unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    group.execute(node(1), "DROP TABLE IF EXISTS made, other, p");
    harness::assert_equal(&group);
}

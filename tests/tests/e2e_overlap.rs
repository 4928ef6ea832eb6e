//! DDL of two sessions of one node at the same time: what one server lets both do, both do here, and elsewhere it means the same; where
//! it would not, the later one loses.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::thread;

use postgres_r_tests::harness::{self, catalog, node, race};
use postgres_r_tests::workload::beside::{unless_both_pass, unless_second_loses};
use postgres_r_tests::workload::client::{Failure, classify};

const SETUP: &str = "
    CREATE SCHEMA a; CREATE SCHEMA b;
    CREATE TABLE p (n int PRIMARY KEY, m int); INSERT INTO p SELECT n, n FROM generate_series(1, 50) n;
    CREATE TABLE q (n int PRIMARY KEY, m int); INSERT INTO q SELECT n, n FROM generate_series(1, 50) n;
    CREATE TABLE r (n int, m int); CREATE TABLE b.single (n int); CREATE TABLE moved (n int); CREATE TABLE r_m_idx (n int);
    CREATE TABLE person (name text); CREATE TABLE \"two words\" (n int); CREATE SEQUENCE plain;
    CREATE FUNCTION twice(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN n * 2; END';
    CREATE VIEW shown AS SELECT n FROM r";

const RIGHTS: &str = "GRANT ALL ON SCHEMA a, public TO builder; GRANT SELECT ON r TO builder";

#[test]
fn what_does_not_concern_each_other_goes_together() {
    let group = harness::shared_without_table_locks();
    group.execute(node(1), "DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA IF EXISTS a, b CASCADE");
    group.execute(node(1), SETUP);
    let mut wrong = Vec::new();
    for (first, second) in [
        ("CREATE INDEX i1 ON p (m)", "CREATE INDEX i2 ON q (m)"),
        // Both take a SHARE lock on one table.
        ("CREATE INDEX i3 ON p (m)", "CREATE INDEX i4 ON p (m, n)"),
        ("CREATE UNIQUE INDEX i5 ON p (m)", "ALTER TABLE q ADD CONSTRAINT c1 UNIQUE (m)"),
        ("CREATE TABLE t1 (id serial PRIMARY KEY, x text)", "CREATE TABLE t2 (id bigserial PRIMARY KEY, y text)"),
        ("ALTER TABLE p ADD COLUMN more text DEFAULT 'x'", "ALTER TABLE q ADD COLUMN more text DEFAULT 'y'"),
        ("ALTER TABLE p ADD CONSTRAINT c2 CHECK (m > 0)", "ALTER TABLE q ADD CONSTRAINT c3 FOREIGN KEY (m) REFERENCES q"),
        ("TRUNCATE r", "CREATE INDEX ON q (m, n)"),
        ("CREATE INDEX ON q (n, m)", "TRUNCATE r; INSERT INTO r VALUES (1, 1)"),
        ("CREATE VIEW v1 AS SELECT n FROM p", "CREATE VIEW v2 AS SELECT n FROM p"),
        ("GRANT SELECT ON p TO public", "GRANT SELECT ON q TO public"),
        ("GRANT USAGE ON SCHEMA a TO public", "GRANT USAGE ON SCHEMA b TO public"),
        ("GRANT USAGE ON SCHEMA b TO public", "GRANT SELECT ON b.single TO public"),
        ("ALTER DEFAULT PRIVILEGES IN SCHEMA a GRANT SELECT ON TABLES TO public", "GRANT USAGE ON SCHEMA a TO public"),
        ("GRANT EXECUTE ON FUNCTION twice TO public", "ALTER TABLE q ADD COLUMN less int"),
        ("COMMENT ON TABLE p IS 'p'", "COMMENT ON TABLE q IS 'q'"),
        ("DROP TABLE t1", "DROP TABLE t2"),
        ("CREATE SEQUENCE s1", "ALTER SEQUENCE plain OWNED BY q.m"),
        ("ALTER TABLE moved RENAME TO stays", "ALTER TABLE p ALTER COLUMN m SET DEFAULT 3"),
        ("CREATE TABLE rows1 AS SELECT twice(n) AS n FROM p", "CREATE TABLE rows2 AS SELECT twice(n) AS n FROM q"),
        ("CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'", "CREATE TABLE t3 (n int)"),
        ("CREATE TYPE mood AS ENUM ('good')", "CREATE TYPE weather AS ENUM ('bad')"),
        ("CREATE POLICY mine ON p USING (n > 0)", "ALTER TABLE q ENABLE ROW LEVEL SECURITY"),
        ("DO 'BEGIN CREATE TABLE t4 (n int); CREATE INDEX ON t4 (n); END'", "DO 'BEGIN CREATE TABLE t5 (n int); END'"),
    ] {
        wrong.extend(unless_both_pass(&group, first, second));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    catalog::assert_same(&group);
    harness::assert_equal(&group);
}

/// Without a loser each of these would come out differently where the first is applied before the second is read.
#[test]
fn what_would_mean_something_else_elsewhere_loses() {
    let group = harness::shared_without_table_locks();
    group.execute(node(1), "DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA IF EXISTS a, b CASCADE");
    group.execute(node(1), SETUP);
    for number in group.numbers() {
        let role = "DO 'BEGIN CREATE ROLE builder; EXCEPTION WHEN duplicate_object THEN END'";
        group.playground.connect(number, "postgres").unwrap().batch_execute(role).unwrap();
    }
    group.execute(node(1), RIGHTS);
    let mut wrong = Vec::new();
    for (first, second) in [
        // A name that is found earlier in the search path.
        ("CREATE TABLE a.single (n int)", "SET LOCAL search_path = a, b; ALTER TABLE single ADD COLUMN m int"),
        ("CREATE TABLE a.single (n int)", "SET LOCAL search_path = a, b; TRUNCATE single"),
        ("CREATE INDEX single ON p (m)", "SET LOCAL search_path = public, b; COMMENT ON TABLE single IS 'b''s'"),
        ("ALTER TABLE r SET SCHEMA a", "SET LOCAL search_path = a, public; CREATE TABLE other (was r)"),
        ("CREATE SCHEMA postgres", "SET LOCAL search_path = \"$user\", public; CREATE TABLE here (n int)"),
        // All of a kind.
        ("CREATE TABLE fresh1 (n int)", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO builder"),
        ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO builder", "CREATE TABLE fresh2 (n int)"),
        ("CREATE FUNCTION a.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "DROP SCHEMA a CASCADE"),
        // Names that PostgreSQL makes up.
        ("DROP TABLE r_m_idx", "CREATE INDEX ON r (m)"),
        ("ALTER TABLE p ADD CONSTRAINT q_m_check CHECK (n > 0)", "ALTER TABLE q ADD CHECK (m > 0)"),
        // What is used without a lock.
        ("CREATE TABLE history (was person)", "ALTER TABLE person ALTER COLUMN name TYPE varchar(10)"),
        ("CREATE TABLE history2 (was person)", "DROP TABLE person CASCADE"),
        ("CREATE FUNCTION g(p person) RETURNS int LANGUAGE sql AS 'SELECT 1'", "DROP TABLE person CASCADE"),
        ("DROP FUNCTION twice(int)", "ALTER TABLE p ADD CHECK (twice(n) > 0)"),
        // Rights.
        ("REVOKE CREATE ON SCHEMA a FROM builder", "SET LOCAL ROLE builder; CREATE TABLE a.built (n int)"),
        ("REVOKE SELECT ON r FROM builder", "SET LOCAL ROLE builder; CREATE VIEW a.seen AS SELECT * FROM public.r"),
        // What functions do.
        (
            "CREATE OR REPLACE FUNCTION twice(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 1 / 0; END'",
            "ALTER TABLE q ADD CHECK (twice(n) > 0)",
        ),
        // Names that a text does not show.
        ("CREATE TABLE a.single (n int)", r#"SET LOCAL search_path = a, b; ALTER TABLE U&"singl\0065" ADD COLUMN m int"#),
    ] {
        wrong.extend(unless_second_loses(&group, first, second));
        // Each pair starts from the same.
        group.execute(
            node(1),
            "DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA IF EXISTS a, b, postgres CASCADE",
        );
        group.execute(node(1), "ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM builder");
        group.execute(node(1), SETUP);
        group.execute(node(1), RIGHTS);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    catalog::assert_same(&group);
    harness::assert_equal(&group);
}

/// A statement that has waited for another one's lock goes on with what that one left.
#[test]
fn who_waits_for_a_lock_goes_on() {
    let group = harness::shared_without_table_locks();
    group.execute(node(1), "DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA IF EXISTS a, b CASCADE");
    group.execute(node(1), SETUP);
    for (first, second) in [
        ("ALTER TABLE p ADD COLUMN one int", "ALTER TABLE p ADD COLUMN two int"),
        ("ALTER TABLE p ADD COLUMN three int", "CREATE INDEX ON p (m)"),
        ("CREATE INDEX ON q (m)", "ALTER TABLE q ADD COLUMN four int DEFAULT 4"),
        ("ALTER TABLE p ADD CONSTRAINT c4 UNIQUE (m)", "TRUNCATE p"),
        ("GRANT SELECT ON r TO public", "ALTER TABLE r ADD PRIMARY KEY (n)"),
        ("INSERT INTO r VALUES (1, 1)", "ALTER TABLE r ADD COLUMN five int DEFAULT 5"),
    ] {
        println!("{first} | {second}");
        let (mut one, mut other) = (group.connect(node(1)), group.connect(node(1)));
        one.batch_execute(&format!("BEGIN; {first}")).unwrap();
        let outcome = race::while_blocked(&group, (node(1), &mut other), second, || one.batch_execute("COMMIT").unwrap());
        assert_eq!(outcome, Ok(()), "{first} | {second}");
    }
    catalog::assert_same(&group);
    harness::assert_equal(&group);
}

/// Commits that meet on their way to the group.
#[test]
fn four_sessions_of_a_node_define_things_at_once() {
    let group = harness::shared_without_table_locks();
    group.execute(node(1), "DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA IF EXISTS a, b CASCADE");
    group.execute(node(1), SETUP);
    thread::scope(|scope| {
        for session in 0..4 {
            let group = &group;
            scope.spawn(move || {
                let mut client = group.connect(node(1));
                for round in 0..15 {
                    for statement in [
                        format!("CREATE TABLE own{session}_{round} (id serial PRIMARY KEY, m int)"),
                        format!("CREATE INDEX shared{session}_{round} ON p (m)"),
                        format!("BEGIN; TRUNCATE own{session}_{round}; INSERT INTO own{session}_{round} (m) VALUES (1); COMMIT"),
                        format!("ALTER TABLE own{session}_{round} ADD CONSTRAINT fk{session}_{round} FOREIGN KEY (m) REFERENCES p"),
                        format!("DROP INDEX shared{session}_{round}"),
                    ] {
                        client.batch_execute(&statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
                    }
                }
            });
        }
    });
    catalog::assert_same(&group);
    harness::assert_equal(&group);
}

/// DDL of different nodes excludes each other, as ever.
#[test]
fn definitions_of_two_nodes_do_not_go_together() {
    let group = harness::shared_without_table_locks();
    group.execute(node(1), "DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA IF EXISTS a, b CASCADE");
    group.execute(node(1), SETUP);
    group.settle();
    let mut one = group.connect(node(1));
    one.batch_execute("BEGIN; CREATE TABLE here (n int)").unwrap();
    group.execute(node(2), "CREATE TABLE there (n int)");
    group.settle();
    assert_eq!(one.batch_execute("COMMIT").map_err(|error| classify(&error)), Err(Failure::Retry));
    let mut one = group.connect(node(1));
    one.batch_execute("BEGIN; TRUNCATE r").unwrap();
    group.execute(node(2), "CREATE TABLE there2 (n int)");
    group.settle();
    assert_eq!(one.batch_execute("COMMIT").map_err(|error| classify(&error)), Err(Failure::Retry));
    catalog::assert_same(&group);
}

/// On other nodes nobody takes the first choice, since the transaction that has taken it here comes to nothing.
#[test]
fn a_name_that_was_made_up_because_of_an_open_transaction_loses() {
    let group = harness::shared_without_table_locks();
    let mut open = group.connect(node(1));
    open.batch_execute("BEGIN; CREATE SEQUENCE chance_id_seq").unwrap();
    let mut other = group.connect(node(1));
    other.batch_execute("SET lock_timeout = '5s'").unwrap();
    let create = "CREATE TABLE chance (id serial PRIMARY KEY)";
    assert_eq!(other.batch_execute(create).map_err(|error| classify(&error)), Err(Failure::Retry));
    open.batch_execute("ROLLBACK").unwrap();
    other.batch_execute(create).unwrap();
    group.settle();
    catalog::assert_same(&group);
    assert_eq!(group.value(node(1), "SELECT to_regclass('chance_id_seq') IS NOT NULL"), "true");
}

/// What is open on the node where a statement of another node is applied, makes no difference to the names that it makes up.
#[test]
fn a_name_is_made_up_as_if_nobody_else_were_there() {
    let group = harness::shared_without_table_locks();
    group.execute(node(1), "CREATE TABLE beside (n int)");
    group.settle();
    for (open, made) in [
        ("CREATE TABLE early (id serial PRIMARY KEY)", "CREATE TABLE early (id serial PRIMARY KEY)"),
        ("CREATE SEQUENCE later_id_seq", "CREATE TABLE later (id bigint GENERATED ALWAYS AS IDENTITY)"),
        ("CREATE TABLE beside_n_idx (n int)", "CREATE INDEX ON beside (n)"),
        ("DO 'BEGIN CREATE VIEW beside_more_seq AS SELECT 1; END'", "ALTER TABLE beside ADD COLUMN more serial"),
    ] {
        let outcome = race::while_open(&group, (node(2), open), (node(1), made));
        assert_eq!(outcome, Err(Failure::Retry), "{open} while {made} is applied");
        catalog::assert_same(&group);
    }
}

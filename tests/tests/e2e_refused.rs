//! What is refused is refused by name: SQLSTATE 0A000, a message that says what, a hint that says what to do instead. And nothing of it is
//! left on any node. The list is that of docs/compatibility.md.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use postgres::Client;
use postgres_r_tests::harness::{self, node};

/// A statement, and what its message must name.
const REFUSED: &[(&str, &str)] = &[
    ("PREPARE TRANSACTION 'p'", "PREPARE TRANSACTION"),
    ("SELECT lo_create(4711)", "lo_create()"),
    ("SELECT lo_from_bytea(0, 'x')", "lo_from_bytea()"),
    ("CREATE MATERIALIZED VIEW seen TABLESPACE pg_default AS SELECT 1", "CREATE MATERIALIZED VIEW with TABLESPACE"),
    ("EXPLAIN ANALYZE CREATE MATERIALIZED VIEW seen AS SELECT 1", "EXPLAIN of CREATE MATERIALIZED VIEW"),
    ("CREATE UNLOGGED SEQUENCE fast_draw", "UNLOGGED SEQUENCE"),
    ("ALTER TABLE held SET UNLOGGED", "SET UNLOGGED"),
    ("ALTER TABLE held SET TABLESPACE pg_default", "SET TABLESPACE"),
    ("CREATE INDEX CONCURRENTLY ON held (t)", "CREATE INDEX CONCURRENTLY"),
    ("DROP INDEX CONCURRENTLY held_t", "DROP INDEX CONCURRENTLY"),
    ("ALTER TABLE parts DETACH PARTITION part CONCURRENTLY", "DETACH PARTITION CONCURRENTLY"),
    ("ALTER TABLE held ENABLE ALWAYS TRIGGER nothing", "ENABLE ALWAYS or REPLICA TRIGGER"),
    ("ALTER TABLE held ENABLE REPLICA TRIGGER nothing", "ENABLE ALWAYS or REPLICA TRIGGER"),
    (
        "CREATE TEMP TABLE lent (i int); CREATE FUNCTION of_lent(lent) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "a permanent object that depends on a temporary one",
    ),
    ("CREATE TEMP TABLE lent (i int); CREATE TABLE of_lent (id int PRIMARY KEY, l lent)", "depends on a temporary one"),
    ("DROP EXTENSION postgres_r CASCADE", "DROP EXTENSION"),
    ("ALTER EXTENSION postgres_r UPDATE", "ALTER EXTENSION"),
    ("CREATE SUBSCRIPTION one CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false)", "CREATE SUBSCRIPTION"),
    ("CREATE UNLOGGED TABLE crossing (id int REFERENCES held)", "foreign key of unlogged table"),
    ("ALTER ROLE postgres IN DATABASE postgres SET work_mem = '8MB'", "ALTER ROLE"),
    ("CREATE DATABASE other", "CREATE DATABASE"),
    ("ALTER DATABASE shop CONNECTION LIMIT 8", "ALTER DATABASE"),
    ("ALTER DATABASE shop OWNER TO postgres", "ALTER DATABASE"),
    ("ALTER DATABASE postgres SET work_mem = '8MB'", "ALTER DATABASE"),
    ("GRANT CONNECT ON DATABASE shop, postgres TO PUBLIC", "GRANT"),
    ("COMMENT ON DATABASE postgres IS 'x'", "COMMENT"),
    ("CREATE TABLESPACE other LOCATION '/nowhere'", "CREATE TABLESPACE"),
    ("GRANT SET ON PARAMETER work_mem TO PUBLIC", "GRANT"),
    ("DELETE FROM pg_description", "pg_description"),
    ("UPDATE pg_class SET reltuples = 0", "pg_class"),
];

fn refused(client: &mut Client, statement: &str, what: &str) -> Result<(), String> {
    let Err(error) = client.batch_execute(statement) else { return Err("it was let through".to_owned()) };
    let error = error.as_db_error().ok_or_else(|| error.to_string())?;
    let (code, message) = (error.code().code(), error.message());
    if code != "0A000" || !message.contains("replicated database") {
        return Err(format!("{code} {message}"));
    }
    if !message.contains(what) {
        return Err(format!("its message does not name {what}: {message}"));
    }
    match error.hint() {
        Some(hint) if hint.ends_with('.') => Ok(()),
        hint => Err(format!("its hint says {hint:?}")),
    }
}

#[test]
fn what_is_not_replicated_is_refused_by_name_with_a_hint() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE held (id int PRIMARY KEY, t text); INSERT INTO held VALUES (1, 'a'); CREATE INDEX held_t ON held (t);
         CREATE TABLE parts (id int) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (9);
         CREATE FUNCTION no_event() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
         CREATE TRIGGER nothing AFTER INSERT ON held FOR EACH ROW EXECUTE FUNCTION no_event()",
    );
    group.settle();
    let mut wrong = Vec::new();
    let mut client = group.connect(node(1));
    for (statement, what) in REFUSED {
        if let Err(why) = refused(&mut client, statement, what) {
            wrong.push(format!("{statement}: {why}"));
        }
    }
    assert!(wrong.is_empty(), "not refused as they should be:\n{}", wrong.join("\n"));
    // The session goes on, and so does capture.
    client.batch_execute("INSERT INTO held VALUES (2, 'b'); UPDATE held SET t = 'c' WHERE id = 1").unwrap();
    harness::assert_equal(&group);
}

/// Also in the middle of a transaction that has written, in a function, in a DO block: nothing of it remains.
#[test]
fn a_refusal_ends_the_transaction_it_is_in() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE before_it (id int PRIMARY KEY)");
    group.settle();
    let mut client = group.connect(node(2));
    for statement in [
        "BEGIN; INSERT INTO before_it VALUES (1); PREPARE TRANSACTION 'p'",
        "BEGIN; INSERT INTO before_it VALUES (1); CREATE UNLOGGED SEQUENCE x; COMMIT",
        "DO $$ BEGIN INSERT INTO before_it VALUES (1); PERFORM lo_create(0); END $$",
        "DO $$ BEGIN INSERT INTO before_it VALUES (1); ALTER DATABASE shop CONNECTION LIMIT 8; END $$",
        "WITH w AS (INSERT INTO before_it VALUES (1) RETURNING id) SELECT lo_create(id::oid) FROM w",
    ] {
        refused(&mut client, statement, "").unwrap_or_else(|why| panic!("{statement}: {why}"));
        client.batch_execute("ROLLBACK").unwrap();
    }
    // One that catches it goes on without.
    client
        .batch_execute(
            "DO $$ BEGIN INSERT INTO before_it VALUES (1);
             BEGIN CREATE UNLOGGED SEQUENCE x; EXCEPTION WHEN feature_not_supported THEN NULL; END; END $$",
        )
        .unwrap();
    harness::assert_equal(&group);
    assert_eq!(group.values("SELECT count(*) FROM before_it"), ["1", "1", "1"]);
}

#[test]
fn what_is_temporary_stays_in_its_session() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE lasting (id int PRIMARY KEY)");
    group.settle();
    let mut client = group.connect(node(1));
    client
        .batch_execute(
            "CREATE TEMP TABLE draft (id serial PRIMARY KEY, t text); CREATE INDEX ON draft (t);
             CREATE VIEW of_draft AS SELECT * FROM draft;
             CREATE FUNCTION pg_temp.twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 2 * n';
             CREATE TYPE pg_temp.mood AS ENUM ('glad', 'sad');
             INSERT INTO draft (t) VALUES ('a'), ('b'); ALTER TABLE draft ADD COLUMN m pg_temp.mood;
             INSERT INTO lasting SELECT pg_temp.twice(id) FROM of_draft;
             DROP FUNCTION pg_temp.twice(int); DROP VIEW of_draft; DROP TABLE draft; DROP TYPE pg_temp.mood",
        )
        .unwrap();
    harness::assert_equal(&group);
    assert_eq!(group.values("SELECT string_agg(id::text, ' ' ORDER BY id) FROM lasting"), ["2 4"; 3]);
    let left = "SELECT count(*) FROM pg_proc WHERE proname = 'twice'";
    assert_eq!(group.values(left), ["0"; 3]);
}

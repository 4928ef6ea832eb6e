//! What is refused is refused by name: SQLSTATE 0A000, a message that says what, a hint that says what to do instead. And nothing of it is
//! left on any node. The list is that of docs/compatibility.md.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use postgres::Client;
use postgres_r_tests::harness::{self, node};

/// A statement, and what its message must name.
const REFUSED: &[(&str, &str)] = &[
    ("ALTER TABLE parts DETACH PARTITION below CONCURRENTLY", "DETACH PARTITION CONCURRENTLY of a partitioned table"),
    ("CREATE TEMP TABLE lent (i int); CREATE TABLE of_lent (id int PRIMARY KEY, l lent)", "depends on a temporary one"),
    ("DROP EXTENSION postgres_r CASCADE", "DROP EXTENSION"),
    ("ALTER EXTENSION postgres_r UPDATE", "ALTER EXTENSION"),
    ("CREATE SUBSCRIPTION one CONNECTION 'host=nowhere' PUBLICATION p WITH (two_phase = true)", "two_phase"),
    ("CREATE SUBSCRIPTION one CONNECTION 'host=nowhere' PUBLICATION p WITH (disable_on_error = true)", "disable_on_error"),
    ("ALTER SUBSCRIPTION kept ENABLE", "disable_on_error"),
    ("CREATE UNLOGGED TABLE crossing (id int REFERENCES held)", "foreign key of unlogged table"),
    ("GRANT CONNECT ON DATABASE shop, postgres TO PUBLIC", "GRANT"),
    ("DELETE FROM pg_description", "pg_description"),
    ("UPDATE pg_class SET relhasindex = false", "pg_class"),
    ("INSERT INTO pg_largeobject VALUES (1, 0, 'x')", "pg_largeobject"),
    ("DELETE FROM pg_largeobject_metadata", "pg_largeobject_metadata"),
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
         CREATE TABLE below PARTITION OF parts FOR VALUES FROM (10) TO (19) PARTITION BY RANGE (id); CREATE TABLE lowest PARTITION OF below DEFAULT;
         CREATE FUNCTION no_event() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
         CREATE SUBSCRIPTION kept CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false, disable_on_error = true);
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
        "BEGIN; INSERT INTO before_it VALUES (1); GRANT CONNECT ON DATABASE shop, postgres TO PUBLIC; COMMIT",
        "DO $$ BEGIN INSERT INTO before_it VALUES (1); UPDATE pg_class SET relhasindex = false; END $$",
        "DO $$ BEGIN INSERT INTO before_it VALUES (1); GRANT CONNECT ON DATABASE shop, postgres TO PUBLIC; END $$",
        "WITH w AS (INSERT INTO before_it VALUES (1)) DELETE FROM pg_largeobject",
    ] {
        refused(&mut client, statement, "").unwrap_or_else(|why| panic!("{statement}: {why}"));
        client.batch_execute("ROLLBACK").unwrap();
    }
    // One that catches it goes on without.
    client
        .batch_execute(
            "DO $$ BEGIN INSERT INTO before_it VALUES (1);
             BEGIN GRANT CONNECT ON DATABASE shop, postgres TO PUBLIC; EXCEPTION WHEN feature_not_supported THEN NULL; END; END $$",
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

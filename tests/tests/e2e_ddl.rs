//! DDL on one node, the same schema on all; what cannot be replicated yet is refused, never let through.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use gcs::playground::NodeNumber;
use gcs::playground::group::describe;
use postgres_r_tests::harness::{self, Group, node};
use postgres_r_tests::workload::client::{Failure, classify};

/// The schema as pg_dump shows it, without what names the dump itself.
fn schema(group: &Group, number: NodeNumber) -> String {
    let cluster = group.playground.cluster(number);
    let output = Command::new(cluster.bin.join("pg_dump")).args(["-s", &cluster.uri(group.database())]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.starts_with("--") && !line.starts_with('\\')).collect::<Vec<_>>().join("\n")
}

fn assert_same_schema(group: &Group, context: &str) -> String {
    group.settle();
    let schemas: Vec<String> = group.numbers().into_iter().map(|number| schema(group, number)).collect();
    for (index, other) in schemas.iter().enumerate().skip(1) {
        let here: Vec<&str> = other.lines().filter(|line| !schemas[0].contains(line)).collect();
        let missing: Vec<&str> = schemas[0].lines().filter(|line| !other.contains(line)).collect();
        assert_eq!(*other, schemas[0], "{context}: node {} differs: + {here:#?} - {missing:#?}", index + 1);
    }
    schemas.into_iter().next().unwrap()
}

#[test]
fn the_ordinary_ddl_of_an_application_is_the_same_everywhere() {
    let group = harness::shared();
    let statements = [
        "CREATE SCHEMA store",
        "CREATE TABLE store.customer (id serial PRIMARY KEY, email text NOT NULL, born date)",
        "CREATE TABLE store.orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int NOT NULL \
         REFERENCES store.customer ON DELETE CASCADE, total numeric(10,2) DEFAULT 0 CHECK (total >= 0))",
        "CREATE UNIQUE INDEX customer_email ON store.customer (lower(email))",
        "CREATE INDEX ON store.orders (customer) WHERE total > 0",
        "CREATE SEQUENCE store.invoice",
        "ALTER SEQUENCE store.invoice OWNED BY store.orders.id",
        "CREATE VIEW store.totals AS SELECT customer, sum(total) AS total FROM store.orders GROUP BY customer",
        "CREATE OR REPLACE VIEW store.totals AS SELECT customer, sum(total) AS total, count(*) AS n FROM store.orders GROUP BY customer",
        "CREATE FUNCTION store.twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n * 2'",
        "CREATE FUNCTION store.touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN new.email := lower(new.email); RETURN new; END$$",
        "ALTER TABLE store.customer ADD COLUMN name text DEFAULT 'nobody'",
        "ALTER TABLE store.customer ADD CONSTRAINT born CHECK (born > '1900-01-01')",
        "ALTER TABLE store.customer RENAME COLUMN name TO full_name",
        "ALTER TABLE store.customer ALTER COLUMN email TYPE varchar(200)",
        "ALTER INDEX store.customer_email RENAME TO customer_mail",
        "CREATE TABLE store.temporary_idea (LIKE store.customer INCLUDING ALL)",
        "DROP TABLE store.temporary_idea",
        "ALTER TABLE store.customer DROP COLUMN born",
        "CREATE TABLE numbers (n int)",
        "ALTER TABLE numbers SET SCHEMA store",
        "DROP VIEW store.totals",
        "DROP FUNCTION store.twice(int)",
        "DROP INDEX store.customer_mail",
    ];
    for (index, statement) in statements.iter().enumerate() {
        // Each on another node than the one before: it must be there already when the next one needs it.
        let number = node(index % 3 + 1);
        group.settle();
        group.execute(number, statement);
    }
    let schema = assert_same_schema(&group, "after all");
    assert!(schema.contains("CREATE TABLE store.orders") && schema.contains("full_name") && !schema.contains("born"));
}

#[test]
fn statements_keep_their_place_among_row_changes() {
    let group = harness::shared();
    group.execute(
        node(2),
        "BEGIN;
         CREATE TABLE place (id int PRIMARY KEY);
         INSERT INTO place VALUES (1), (2);
         ALTER TABLE place ADD COLUMN note text;
         INSERT INTO place VALUES (3, 'three');
         UPDATE place SET note = 'n' || id WHERE note IS NULL;
         SAVEPOINT s; CREATE TABLE gone (n int); INSERT INTO place VALUES (4); ROLLBACK TO s;
         ALTER TABLE place RENAME TO placed;
         DELETE FROM placed WHERE id = 2;
         COMMIT",
    );
    // Committed is ordered everywhere; visible on node 3 it is when node 3 has applied it.
    group.settle();
    group.execute(node(3), "BEGIN; CREATE TABLE never (n int); INSERT INTO placed VALUES (9); ROLLBACK");
    let prints = harness::assert_equal(&group);
    assert!(
        prints.contains_key("public.placed") && !prints.contains_key("public.gone") && !prints.contains_key("public.never")
    );
    let rows = group.values("SELECT string_agg(id || note, ' ' ORDER BY id) FROM placed");
    assert_eq!(rows, ["1n1 3three", "1n1 3three", "1n1 3three"]);
    assert_same_schema(&group, "after mixed transactions");
}

#[test]
fn ddl_runs_elsewhere_under_the_role_and_search_path_it_ran_under_here() {
    let group = harness::shared();
    for number in group.numbers() {
        // Roles belong to the server, not to the database.
        group.playground.connect(number, "postgres").unwrap().batch_execute("CREATE ROLE clerk").unwrap();
    }
    group.execute(node(1), "CREATE SCHEMA desk AUTHORIZATION clerk");
    group.settle();
    group.execute(
        node(1),
        "SET search_path = desk; SET ROLE clerk; CREATE TABLE papers (n int PRIMARY KEY); INSERT INTO papers VALUES (1)",
    );
    let schema = assert_same_schema(&group, "after SET ROLE");
    assert!(
        schema.contains("CREATE TABLE desk.papers") && schema.contains("ALTER TABLE desk.papers OWNER TO clerk"),
        "{schema}"
    );
    harness::assert_equal(&group);
}

#[test]
fn truncate_and_copy_are_replicated() {
    use std::io::Write;
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE bulk (id int PRIMARY KEY, t text); INSERT INTO bulk SELECT n, 'old' FROM generate_series(1, 100) n",
    );
    group.settle();
    group.execute(node(2), "TRUNCATE bulk");
    group.settle();
    assert_eq!(group.values("SELECT count(*) FROM bulk"), ["0", "0", "0"]);
    let mut client = group.connect(node(3));
    let mut copy = client.copy_in("COPY bulk FROM STDIN").unwrap();
    for id in 0..5000 {
        writeln!(copy, "{id}\trow {id}").unwrap();
    }
    assert_eq!(copy.finish().unwrap(), 5000);
    group.execute(node(3), "BEGIN; TRUNCATE bulk; INSERT INTO bulk VALUES (1, 'after'); COMMIT");
    harness::assert_equal(&group);
    assert_eq!(group.values("SELECT string_agg(t, '') FROM bulk"), ["after", "after", "after"]);
}

#[test]
fn serial_and_identity_values_differ_between_nodes_without_any_setting() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE s (id serial PRIMARY KEY, node int); CREATE SEQUENCE free;
         CREATE TABLE i (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, node int);
         CREATE TABLE q (id bigint PRIMARY KEY DEFAULT nextval('free'), node int)",
    );
    group.settle();
    thread::scope(|scope| {
        for number in group.numbers() {
            let group = &group;
            scope.spawn(move || {
                let mut client = group.connect(number);
                for _ in 0..100 {
                    for table in ["s", "i", "q"] {
                        client.execute(&format!("INSERT INTO {table} (node) VALUES ($1)"), &[&(number.0 as i32)]).unwrap();
                    }
                }
            });
        }
    });
    harness::assert_equal(&group);
    for table in ["s", "i", "q"] {
        assert_eq!(
            group.value(node(1), &format!("SELECT count(*) || '/' || count(DISTINCT id) FROM {table}")),
            "300/300",
            "{table}"
        );
    }
}

/// An ALTER TABLE on one node while the others write to the table: some may have to try again, nothing is lost or bent.
#[test]
fn a_table_can_be_altered_under_load() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE busy (id serial PRIMARY KEY, node int)");
    group.settle();
    let stop = AtomicBool::new(false);
    let write = |number: NodeNumber| {
        let mut client = group.connect(number);
        let mut inserted = 0;
        while !stop.load(Ordering::Relaxed) {
            match client.execute("INSERT INTO busy (node) VALUES ($1)", &[&(number.0 as i32)]) {
                Ok(_) => inserted += 1,
                Err(error) => assert_eq!(classify(&error), Failure::Retry, "{}", describe(&error)),
            }
        }
        inserted
    };
    let write = &write;
    let inserted: usize = thread::scope(|scope| {
        let writers: Vec<_> = [2, 3].into_iter().map(|number| scope.spawn(move || write(node(number)))).collect();
        let mut client = group.connect(node(1));
        for number in 1..=5 {
            let statement = format!("ALTER TABLE busy ADD COLUMN extra{number} int DEFAULT {number}");
            loop {
                match client.batch_execute(&statement) {
                    Ok(()) => break,
                    Err(error) => assert_eq!(classify(&error), Failure::Retry, "{}", describe(&error)),
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    harness::assert_equal(&group);
    assert_same_schema(&group, "after ALTER TABLE under load");
    assert_eq!(group.value(node(1), "SELECT count(*) FROM busy"), inserted.to_string());
}

/// Whatever the server lets through must be on all nodes; whatever it does not must say so by name.
#[test]
fn nothing_is_let_through_on_one_node_only() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE probe (id int PRIMARY KEY, t text); INSERT INTO probe VALUES (1, 'a'), (2, 'b')");
    group.settle();
    let statements = [
        "CREATE TABLE made_as AS SELECT * FROM probe",
        "SELECT * INTO selected FROM probe",
        "CREATE MATERIALIZED VIEW seen AS SELECT * FROM probe",
        "REFRESH MATERIALIZED VIEW seen",
        "CREATE TYPE mood AS ENUM ('sad', 'happy')",
        "CREATE DOMAIN posint AS int CHECK (value > 0)",
        "CREATE RULE quiet AS ON DELETE TO probe DO INSTEAD NOTHING",
        "CREATE TRIGGER loud BEFORE UPDATE ON probe FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE POLICY mine ON probe USING (true)",
        "CREATE PUBLICATION everything FOR ALL TABLES",
        "CREATE STATISTICS st ON id, t FROM probe",
        "CREATE AGGREGATE longest(text) (sfunc = text_larger, stype = text)",
        "CREATE EXTENSION pgcrypto",
        "CREATE CAST (int AS text) WITH INOUT",
        "CREATE TABLE parent (id int) PARTITION BY RANGE (id)",
        "CREATE TABLE child (more int) INHERITS (probe)",
        "CREATE EVENT TRIGGER et ON ddl_command_end EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "COMMENT ON TABLE probe IS 'a probe'",
        "GRANT SELECT ON probe TO PUBLIC",
        "SELECT lo_create(4711)",
        "CLUSTER probe USING probe_pkey",
        "VACUUM probe",
        "REINDEX TABLE probe",
        "CREATE INDEX CONCURRENTLY ON probe (t)",
        "CREATE UNLOGGED TABLE fast (n int PRIMARY KEY)",
        "DO $$BEGIN CREATE TABLE from_do (n int); INSERT INTO from_do VALUES (1); END$$",
        "ALTER TABLE probe DISABLE TRIGGER ALL",
        "ALTER TABLE probe REPLICA IDENTITY FULL",
        "SECURITY LABEL ON TABLE probe IS 'secret'",
    ];
    for statement in statements {
        let outcome = group.connect(node(1)).batch_execute(statement);
        match outcome.as_ref().map_err(|error| (error.code().map(|code| code.code().to_owned()), describe(error))) {
            Ok(()) => println!("replicated  {statement}"),
            Err((Some(code), text)) if code == "0A000" => println!("refused     {statement}: {text}"),
            Err((code, text)) => println!("failed      {statement}: {code:?} {text}"),
        }
        assert_same_schema(&group, statement);
        harness::assert_equal(&group);
        let loose = group.values("SELECT count(*) FROM pg_largeobject_metadata");
        assert!(loose.iter().all(|count| *count == loose[0]), "{statement}: {loose:?}");
    }
    // Capture must have survived all of it.
    group.execute(node(1), "INSERT INTO probe VALUES (3, 'c')");
    group.execute(node(2), "INSERT INTO probe VALUES (4, 'd')");
    harness::assert_equal(&group);
}

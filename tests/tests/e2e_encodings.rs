//! Databases in other encodings than UTF8: rows, names, statements and copies mean the same on every node.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::process::Command;
use std::time::Duration;

use gcs::playground::NodeNumber;
use gcs::playground::group::describe;
use postgres_r_tests::harness::database::Database;
use postgres_r_tests::harness::{self, Group, node, wait};

const COPIED_WITHIN: Duration = Duration::from_secs(120);

fn make(database: &Database<'_>, number: NodeNumber, encoding: &str) {
    let name = database.name;
    let sql = format!("CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    database.on_server(number, &sql).unwrap();
    database.execute(number, "CREATE EXTENSION postgres_r");
}

/// Starts replication on the first node, with what it holds, then on the others, which get copies.
fn start(database: &Database<'_>) {
    for number in database.group.numbers() {
        database.start(number).unwrap();
        wait::until("its copy", COPIED_WITHIN, || {
            let client = database.try_connect(number).map_err(|error| describe(&error))?;
            drop(client);
            Ok(())
        });
    }
}

fn everywhere(database: &Database<'_>, query: &str, wanted: &str) {
    for number in database.group.numbers() {
        database.arrives(number, query, wanted);
    }
}

fn all_equal(group: &Group, database: &Database<'_>) {
    // Nodes say once a second how they are; one whose copy has just been put in place is still known as out of service.
    database.arrives(node(1), "SELECT count(*) FROM postgres_r.members WHERE state = 'online'", "3");
    let other = "SELECT coalesce(string_agg(concat_ws(' ', table_name, node, verdict, detail), '; '), 'equal')
                 FROM postgres_r.verify() WHERE verdict <> 'equal'";
    assert_eq!(database.value(node(1), other), "equal");
    group.settle();
}

#[test]
fn names_statements_and_rows_of_a_latin1_database_are_the_same_on_every_node() {
    let group = harness::shared();
    let database = Database { group: &group, name: "latin" };
    for number in group.numbers() {
        make(&database, number, "LATIN1");
    }
    database.execute(
        node(1),
        "CREATE TABLE größe (id int PRIMARY KEY, \"für\" text DEFAULT 'übrig'); INSERT INTO größe VALUES (1, 'Ã©'), (2, 'é');
         CREATE TABLE grÖße (id int); COMMENT ON TABLE größe IS 'Maß'",
    );
    start(&database);
    everywhere(&database, "SELECT string_agg(\"für\", ' ' ORDER BY id) FROM größe", "Ã© é");

    // Rows, names, literals, what is computed once for all rows, and settings; from each node.
    database.execute(node(2), "INSERT INTO größe VALUES (3, 'ÿ'); UPDATE größe SET \"für\" = 'È' WHERE id = 2");
    everywhere(&database, "SELECT string_agg(\"für\", ' ' ORDER BY id) FROM größe", "Ã© È ÿ");
    database.execute(
        node(3),
        "SET application_name = 'café'; CREATE TYPE \"Ämter\" AS ENUM ('groß', 'klein');
         CREATE FUNCTION \"heißt\"(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'é' || $1 $$;
         ALTER TABLE größe ADD COLUMN \"Ärger\" \"Ämter\" DEFAULT 'groß', ADD COLUMN later text DEFAULT 'ü' || clock_timestamp()::date;
         CREATE INDEX \"größe_für\" ON größe (\"heißt\"(\"für\")); ALTER TABLE grÖße RENAME COLUMN id TO \"naïve\";
         CREATE TABLE \"Öuvre, /Ouvré\" (wer regclass, n serial); INSERT INTO \"Öuvre, /Ouvré\" (wer) VALUES ('größe')",
    );
    everywhere(&database, "SELECT concat(wer, n) FROM \"Öuvre, /Ouvré\"", "\"größe\"1");
    database.execute(
        node(1),
        "UPDATE \"Öuvre, /Ouvré\" SET n = 7; INSERT INTO grÖße VALUES (1); DELETE FROM größe WHERE id = 1",
    );
    everywhere(
        &database,
        "SELECT concat_ws(' ', max(\"Ärger\"::text), count(*), (SELECT max(\"naïve\") FROM grÖße)) FROM größe",
        "groß 2 1",
    );
    everywhere(&database, "SELECT obj_description('größe'::regclass)", "Maß");
    all_equal(&group, &database);

    // As on one server: it has no such character.
    let error = database.connect(node(2)).batch_execute("INSERT INTO größe VALUES (9, '€')").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "22P05", "{error}");
    for number in group.numbers() {
        database.stop(number).unwrap();
    }
}

#[test]
fn rows_of_a_database_without_an_encoding_are_the_bytes_that_they_are() {
    let group = harness::shared();
    let database = Database { group: &group, name: "bytes" };
    for number in group.numbers() {
        make(&database, number, "SQL_ASCII");
    }
    database.execute(node(1), "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, E'\\xE9'), (2, 'é')");
    start(&database);
    let bytes = "SELECT string_agg(encode(v::bytea, 'hex'), ' ' ORDER BY id) FROM t";
    everywhere(&database, bytes, "e9 c3a9");
    database.execute(node(2), "INSERT INTO t VALUES (3, E'\\xFF\\xFE'); UPDATE t SET v = E'\\xE8' WHERE id = 2");
    database.execute(node(3), "CREATE TABLE \"größe\" (v text DEFAULT E'\\xE9')");
    everywhere(&database, "SELECT count(*) FROM pg_class WHERE relname = 'größe'", "1");
    database.execute(node(1), "INSERT INTO \"größe\" VALUES (DEFAULT); DELETE FROM t WHERE v = E'\\xE9'");
    everywhere(&database, bytes, "e8 fffe");
    everywhere(&database, "SELECT encode(v::bytea, 'hex') FROM \"größe\"", "e9");
    all_equal(&group, &database);

    // A statement that nobody can read as text is refused, and nothing is half done.
    let mut client = database.connect(node(1));
    let attempt = "DO $$ BEGIN
            EXECUTE E'CREATE TABLE \"gr\\xF6\\xDFe\" (id int)';
        EXCEPTION WHEN feature_not_supported THEN RAISE 'refused' USING ERRCODE = 'P0003'; END $$";
    let error = client.batch_execute(attempt).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "P0003", "{error}");
    everywhere(&database, "SELECT count(*) FROM pg_class WHERE relname LIKE 'gr%'", "1");
    all_equal(&group, &database);
    for number in group.numbers() {
        database.stop(number).unwrap();
    }
}

/// Nothing is copied into a group without a row, so the database itself is compared.
#[test]
fn a_database_that_means_something_else_by_its_bytes_is_refused_by_name() {
    let group = harness::shared();
    let database = Database { group: &group, name: "mixed" };
    make(&database, node(1), "LATIN1");
    make(&database, node(2), "LATIN2");
    make(&database, node(3), "LATIN1");
    database.start(node(1)).unwrap();
    let error = database.start(node(2)).unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!((error.code().code(), error.message()), ("55000", "the group does not take database \"mixed\""));
    let detail = error.detail().unwrap_or_default();
    let expected =
        "database \"mixed\" differs from that of node \"node1\": its encoding is \"LATIN2\" here and \"LATIN1\" there.";
    assert!(detail.ends_with(expected), "{detail}");
    // What was refused is as it was, for itself.
    database.execute(node(2), "CREATE TABLE alone (v text); INSERT INTO alone VALUES ('ę')");
    // The next one has nothing to do with it, though it would ask there first: a leader is asked last.
    let config = group.playground.cluster(node(1)).home.join("gcs.toml");
    let led = Command::new(harness::gcs()).args(["lead", "node1", "--config"]).arg(config).status().unwrap();
    assert!(led.success());
    database.start(node(3)).unwrap();
    database.execute(node(3), "CREATE TABLE t (v text); INSERT INTO t VALUES ('é')");
    database.arrives(node(1), "SELECT v FROM t", "é");
    for number in [node(1), node(3)] {
        database.stop(number).unwrap();
    }
}

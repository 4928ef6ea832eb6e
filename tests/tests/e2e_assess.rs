//! `postgres_r.assess()`: what of a database a group treats differently, found before and said by START REPLICATION. Each kind of finding is made here
//! once, and must be found; what is fine must not.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::sync::{Arc, Mutex};

use postgres::{Client, NoTls};
use postgres_r_tests::harness::{self, node};

const CONTENTS: &str = "
    CREATE SCHEMA app; CREATE ROLE assessed_owner;
    CREATE TABLE app.fine (id int PRIMARY KEY, about regclass, t text); CREATE VIEW app.fine_too AS SELECT t FROM app.fine;
    CREATE TABLE app.fine_by_unique (n int NOT NULL UNIQUE);
    CREATE TABLE app.keyless (n int, about oid, more xid[]); CREATE TABLE app.null_key (n int UNIQUE);
    CREATE TABLE app.deferred (n int PRIMARY KEY DEFERRABLE);
    CREATE UNLOGGED TABLE app.cached (id int PRIMARY KEY);
    CREATE TABLE app.hashed (about regclass) PARTITION BY HASH (about);
    CREATE EXTENSION hstore; CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
    CREATE FOREIGN TABLE app.outside (t text) SERVER files OPTIONS (filename '/dev/null');
    CREATE TABLE app.booked (id int PRIMARY KEY, r int4range, EXCLUDE USING gist (r WITH &&));
    CREATE FUNCTION app.elects() RETURNS bool LANGUAGE sql AS 'SELECT pg_try_advisory_lock(1)';
    CREATE FUNCTION app.with_body() RETURNS void LANGUAGE sql BEGIN ATOMIC SELECT pg_advisory_lock(2); END;
    CREATE VIEW app.versions AS SELECT xmin AS version, id FROM app.fine;
    CREATE TABLE app.stamped (id int PRIMARY KEY, x text DEFAULT pg_current_xact_id()::text);
    CREATE FUNCTION app.in_c(internal) RETURNS internal LANGUAGE c AS '$libdir/hstore', 'ghstore_in';
    ALTER TABLE app.fine OWNER TO assessed_owner; SELECT lo_create(0);
    CREATE FUNCTION app.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER always AFTER INSERT ON app.fine FOR EACH ROW EXECUTE FUNCTION app.nothing(); ALTER TABLE app.fine ENABLE ALWAYS TRIGGER always;
    CREATE FUNCTION app.event() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    CREATE EVENT TRIGGER everywhere ON ddl_command_end EXECUTE FUNCTION app.event(); ALTER EVENT TRIGGER everywhere ENABLE REPLICA";

const FOUND: &str = "
refused: partition key: app.hashed
differs: advisory locks: app.elects()
differs: advisory locks: app.with_body()
differs: event trigger: everywhere
differs: exclusion constraint: booked_r_excl on app.booked
differs: foreign table: app.outside
differs: numbers of a node: app.keyless.about
differs: numbers of a node: app.keyless.more
differs: numbers of a node: app.versions
differs: numbers of a node: default of app.stamped.x
differs: trigger: always on app.fine
differs: unlogged table: app.cached
slow: table without a key: app.deferred
slow: table without a key: app.keyless
slow: table without a key: app.null_key
needs: extension: file_fdw 1.0
needs: extension: hstore 1.8
needs: function in C: app.in_c(internal)
needs: role: assessed_owner";

fn findings(client: &mut Client) -> String {
    let rows =
        client.query("SELECT severity || ': ' || topic || ': ' || object, finding, advice FROM postgres_r.assess()", &[]);
    let line = |row: postgres::Row| {
        let (finding, advice): (String, String) = (row.get(1), row.get(2));
        assert!(!finding.is_empty() && advice.ends_with('.'), "{finding} / {advice}");
        format!("\n{}", row.get::<_, String>(0))
    };
    rows.unwrap().into_iter().map(line).collect()
}

#[test]
fn each_kind_of_thing_is_found_and_start_says_so() {
    let group = harness::shared();
    let mut server = group.playground.connect(node(1), "postgres").unwrap();
    server.batch_execute("CREATE DATABASE assessed").unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&heard);
    let mut config = group.playground.connection(node(1), "assessed");
    config.notice_callback(move |notice| {
        sink.lock().unwrap().push(format!("{}\n{}", notice.message(), notice.detail().unwrap_or_default()));
    });
    let mut client = config.connect(NoTls).unwrap();
    client.batch_execute("CREATE EXTENSION postgres_r").unwrap();
    assert_eq!(findings(&mut client), "");
    client.batch_execute(CONTENTS).unwrap();
    assert_eq!(findings(&mut client), FOUND);
    let elsewhere =
        server.batch_execute("CREATE EXTENSION postgres_r; SELECT * FROM postgres_r.assess('assessed')").unwrap_err();
    assert!(elsewhere.as_db_error().unwrap().hint().unwrap().contains("assessed"));
    server.batch_execute("DROP EXTENSION IF EXISTS postgres_r").unwrap();
    let start = "ALTER DATABASE assessed START REPLICATION IN GROUP postgresr";
    heard.lock().unwrap().clear();
    client.batch_execute(start).unwrap();
    let said = heard.lock().unwrap().join("\n");
    println!("{said}");
    for part in ["differs: advisory locks: app.elects() and 1 more", "slow: table without a key: app.deferred and 2 more"] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    client.batch_execute("ALTER DATABASE assessed STOP REPLICATION").unwrap();
    drop(client);
    for statement in ["DROP DATABASE assessed", "DROP ROLE assessed_owner"] {
        server.batch_execute(statement).unwrap();
    }
}

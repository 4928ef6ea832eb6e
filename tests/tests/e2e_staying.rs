//! What is of one node although the database is replicated: temporary objects beside permanent ones, unlogged tables and sequences, tablespaces,
//! estimates in pg_class. And what only looks as if it were: EXPLAIN ANALYZE of what makes a table, access methods that are heap by another name.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::sync::{Arc, Mutex};

use gcs::playground::group::describe;
use postgres::{Client, NoTls};
use postgres_r_tests::harness::{self, everywhere, node, step};

fn run(client: &mut Client, statements: &[&str]) {
    for statement in statements {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {}", describe(&error)));
    }
}

#[test]
fn a_statement_goes_where_what_it_names_is_and_takes_temporary_objects_along() {
    let group = harness::shared();
    step(
        &group,
        1,
        "CREATE TABLE permanent (id int PRIMARY KEY); CREATE SCHEMA several; CREATE DOMAIN several.small AS int; CREATE TABLE several.t (s several.small)",
    );
    step(&group, 1, "CREATE TABLE parent (id int, t text); CREATE TABLE kept (id int)");
    let mut client = group.connect(node(2));
    run(
        &mut client,
        &[
            "CREATE TEMP TABLE mine (id int); CREATE TEMP VIEW view_of AS SELECT * FROM permanent",
            "DROP TABLE mine, permanent CASCADE",
            "CREATE TEMP TABLE \"of small\" (s several.small); CREATE TEMP VIEW of_t AS TABLE several.t",
            "DROP SCHEMA several CASCADE",
            "CREATE TEMP TABLE child (more int) INHERITS (parent); INSERT INTO child VALUES (1, 'mine', 2)",
            "INSERT INTO parent VALUES (2, 'everybody''s'); CREATE TEMP TABLE other (id int, t text); ALTER TABLE other INHERIT parent",
            "ALTER TABLE parent ADD COLUMN c int DEFAULT 7; ALTER TABLE parent RENAME COLUMN t TO u; UPDATE parent SET c = c + id",
            "ALTER TABLE other NO INHERIT parent; CREATE TABLE kept_too (LIKE kept); CREATE TEMP TABLE local_too (LIKE kept)",
            "DROP VIEW IF EXISTS of_t; DROP TABLE IF EXISTS pg_temp.nothing, kept_too, local_too",
        ],
    );
    assert_eq!(client.query("SELECT id, u, c FROM parent", &[]).unwrap().len(), 2);
    assert_eq!(everywhere(&group, "SELECT string_agg(p::text, ' ') FROM ONLY parent p"), "(2,everybody's,9)");
    run(&mut client, &["TRUNCATE parent", "DROP TABLE parent CASCADE", "DROP TABLE other"]);
    let left = "SELECT string_agg(relname, ' ') FROM pg_class
        WHERE relname IN ('permanent', 'parent', 'kept_too', 'mine', 'child', 'other', 'local_too', 'view_of')";
    assert_eq!(everywhere(&group, &format!("SELECT coalesce(({left}), 'none')")), "none");
    harness::assert_equal(&group);
}

/// A body that names what only its session has: on one server, too, others learn of it when they call it.
#[test]
fn bodies_of_functions_are_looked_at_where_they_are_written() {
    let group = harness::shared();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "CREATE TEMP TABLE seen (n int); INSERT INTO seen VALUES (3)",
            "CREATE FUNCTION reads_it() RETURNS int LANGUAGE sql AS 'SELECT n FROM seen'",
            "CREATE FUNCTION declares_it() RETURNS int LANGUAGE plpgsql AS 'DECLARE s seen; BEGIN SELECT * INTO s FROM seen; RETURN s.n; END'",
        ],
    );
    assert_eq!(client.query_one("SELECT reads_it() + declares_it()", &[]).unwrap().get::<_, i32>(0), 6);
    let error =
        client.batch_execute("CREATE FUNCTION wrong() RETURNS int LANGUAGE sql AS 'SELECT n FROM unseen'").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42P01");
    let error = client
        .batch_execute("CREATE FUNCTION f() RETURNS int LANGUAGE sql SET check_function_bodies FROM CURRENT AS 'SELECT 1'")
        .unwrap_err();
    assert_eq!(error.code().unwrap().code(), "0A000");
    group.settle();
    let error = group.connect(node(2)).batch_execute("SELECT reads_it()").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42P01");
    harness::assert_equal(&group);
}

#[test]
fn explain_analyze_makes_what_it_runs_and_does_not_show_how_rows_are_captured() {
    let group = harness::shared();
    let mut client = group.connect(node(2));
    let explain = "EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off)";
    run(
        &mut client,
        &[
            &format!("{explain} CREATE TABLE explained AS SELECT n, random() AS r FROM generate_series(1, 5) n"),
            &format!(
                "{explain} CREATE MATERIALIZED VIEW explained_view AS SELECT n, random() AS r FROM generate_series(1, 5) n"
            ),
            "EXPLAIN CREATE TABLE not_made AS SELECT 1; EXPLAIN (ANALYZE, ANALYZE false) CREATE TABLE not_made AS SELECT 1",
        ],
    );
    everywhere(&group, "SELECT sum(n) || ' ' || sum(r) FROM explained");
    everywhere(&group, "SELECT sum(n) || ' ' || sum(r) FROM explained_view");
    assert_eq!(everywhere(&group, "SELECT to_regclass('not_made') IS NULL"), "true");
    run(
        &mut client,
        &["CREATE TABLE partitioned (id int) PARTITION BY LIST (id); CREATE TABLE leaf PARTITION OF partitioned DEFAULT"],
    );
    for statement in ["INSERT INTO explained VALUES (6)", "UPDATE explained SET n = 7", "INSERT INTO partitioned VALUES (1)"]
    {
        let lines = client.query(&format!("{explain} {statement}"), &[]).unwrap();
        let lines: Vec<String> = lines.iter().map(|line| line.get(0)).collect();
        assert!(!lines.iter().any(|line| line.contains("Trigger")), "{lines:?}");
    }
    harness::assert_equal(&group);
}

#[test]
fn lock_of_a_view_locks_what_it_shows() {
    let group = harness::shared();
    step(&group, 1, "CREATE TABLE shown (id int PRIMARY KEY, v int); INSERT INTO shown VALUES (1, 0)");
    step(
        &group,
        1,
        "CREATE VIEW shows AS SELECT * FROM shown; CREATE VIEW shows_it AS SELECT s.id FROM shows s JOIN shown t USING (id)",
    );
    let mut holder = group.connect(node(1));
    run(&mut holder, &["BEGIN; LOCK TABLE shows_it IN EXCLUSIVE MODE; UPDATE shown SET v = v + 1"]);
    let mut other = group.connect(node(2));
    let error = other.batch_execute("SET lock_timeout = '1500ms'; UPDATE shown SET v = v + 10").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "55P03", "{}", describe(&error));
    run(&mut holder, &["COMMIT"]);
    run(&mut other, &["UPDATE shown SET v = v + 10"]);
    assert_eq!(everywhere(&group, "SELECT v FROM shown"), "11");
}

#[test]
fn a_table_may_be_unlogged_for_a_while() {
    let group = harness::shared();
    step(
        &group,
        1,
        "CREATE TABLE wanders (id serial PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, t text); INSERT INTO wanders (t) SELECT 'all' FROM generate_series(1, 5)",
    );
    step(&group, 2, "INSERT INTO wanders (t) VALUES ('all')");
    let rows = "SELECT string_agg(t, ' ' ORDER BY id) FROM wanders";
    let before = everywhere(&group, rows);
    step(&group, 3, "ALTER TABLE wanders SET UNLOGGED");
    assert_eq!(everywhere(&group, rows), before);
    // Each node goes on by itself, behind what the group has given.
    for number in 1..=3 {
        step(&group, number, &format!("INSERT INTO wanders (t) VALUES ('{number}'), ('{number}')"));
        assert_eq!(group.value(node(number), rows), format!("{before} {number} {number}"));
    }
    assert_eq!(everywhere(&group, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'wanders'::regclass"), "0");
    step(&group, 2, "ALTER TABLE wanders SET LOGGED");
    assert_eq!(everywhere(&group, rows), format!("{before} 2 2"));
    for number in 1..=3 {
        step(&group, number, "INSERT INTO wanders (t) VALUES ('again')");
    }
    assert_eq!(
        everywhere(&group, "SELECT count(*) = 11 AND count(DISTINCT id) = 11 AND count(DISTINCT n) = 11 FROM wanders"),
        "true"
    );
    step(&group, 1, "CREATE UNLOGGED SEQUENCE drawn");
    group.settle();
    assert_eq!(group.values("SELECT nextval('drawn') * 10 + nextval('drawn')"), ["12", "12", "12"]);
    step(&group, 3, "ALTER SEQUENCE drawn SET LOGGED");
    group.settle();
    let values = group.values("SELECT nextval('drawn')");
    assert!(values[0] != values[1] && values[1] != values[2] && values[0] != values[2], "{values:?}");
    assert!(!values.iter().any(|value| matches!(value.as_str(), "1" | "2")), "{values:?}");
    step(&group, 1, "ALTER SEQUENCE drawn SET UNLOGGED; DROP SEQUENCE drawn; CREATE SEQUENCE drawn START 100");
    group.settle();
    assert_eq!(group.value(node(2), "SELECT nextval('drawn')"), "100");
    harness::assert_equal(&group);
}

/// Where a node has its files is its own affair.
#[test]
fn tablespaces_are_of_a_node() {
    let group = harness::shared();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&heard);
    let mut config = group.playground.connection(node(1), group.database());
    config.notice_callback(move |notice| sink.lock().unwrap().push(notice.message().to_owned()));
    let mut client = config.connect(NoTls).unwrap();
    let mut elsewhere = group.connect(node(2));
    // In place of a directory each server keeps them below its own.
    run(&mut client, &["SET allow_in_place_tablespaces = on", "CREATE TABLESPACE fast LOCATION ''"]);
    run(&mut elsewhere, &["SET allow_in_place_tablespaces = on", "CREATE TABLESPACE disks LOCATION ''"]);
    run(&mut elsewhere, &["ALTER SYSTEM SET postgres_r.tablespaces = 'fast = disks'", "SELECT pg_reload_conf()"]);
    group.becomes(
        node(2),
        "SELECT current_setting('postgres_r.tablespaces')",
        "fast = disks",
        std::time::Duration::from_secs(10),
    );
    run(
        &mut client,
        &[
            "CREATE TABLE placed (id int PRIMARY KEY USING INDEX TABLESPACE fast, t text UNIQUE USING INDEX TABLESPACE fast) TABLESPACE fast",
            "CREATE INDEX placed_index ON placed (t) TABLESPACE fast; INSERT INTO placed VALUES (1, 'a')",
            "ALTER TABLE placed ADD CONSTRAINT once UNIQUE (id, t) USING INDEX TABLESPACE fast",
            "CREATE TABLE placed_rows TABLESPACE fast AS SELECT random() AS r; CREATE MATERIALIZED VIEW placed_view TABLESPACE fast AS SELECT random() AS r",
            "CREATE TABLE moved (id int); INSERT INTO moved VALUES (1); ALTER TABLE moved SET TABLESPACE fast",
            "CREATE TABLE moved_back (id int) TABLESPACE fast; ALTER TABLE moved_back SET TABLESPACE pg_default, ADD COLUMN more int",
        ],
    );
    assert_eq!(everywhere(&group, "SELECT (SELECT id FROM placed) + (SELECT id FROM moved)"), "2");
    everywhere(&group, "SELECT (SELECT r FROM placed_rows) + (SELECT r FROM placed_view)");
    let places = group.values("SELECT string_agg(relname || ':' || coalesce(spcname, '-'), ' ' ORDER BY relname) FROM pg_class c LEFT JOIN pg_tablespace s ON s.oid = reltablespace
        WHERE relname ~ '^(placed|moved|once)'");
    assert_eq!(
        places[0],
        "moved:fast moved_back:- once:fast placed:fast placed_index:fast placed_pkey:fast placed_rows:fast placed_t_key:fast placed_view:fast"
    );
    assert_eq!(
        places[1],
        "moved:disks moved_back:- once:disks placed:disks placed_index:disks placed_pkey:disks placed_rows:- placed_t_key:disks placed_view:disks"
    );
    assert_eq!(
        places[2],
        "moved:- moved_back:- once:- placed:- placed_index:- placed_pkey:- placed_rows:- placed_t_key:- placed_view:-"
    );
    run(
        &mut client,
        &[
            "ALTER TABLE ALL IN TABLESPACE fast SET TABLESPACE pg_default",
            "ALTER INDEX ALL IN TABLESPACE fast SET TABLESPACE pg_default",
        ],
    );
    run(
        &mut client,
        &[
            "ALTER MATERIALIZED VIEW ALL IN TABLESPACE fast SET TABLESPACE pg_default",
            "COMMENT ON TABLESPACE fast IS 'x'",
            "ALTER TABLESPACE fast RENAME TO faster",
            "DROP TABLESPACE faster",
        ],
    );
    let heard = heard.lock().unwrap().join("\n");
    assert!(
        heard.contains("CREATE TABLESPACE is of this server alone")
            && heard.contains("tablespace \"fast\" is of this server"),
        "{heard}"
    );
    run(&mut elsewhere, &["ALTER SYSTEM RESET postgres_r.tablespaces", "SELECT pg_reload_conf()"]);
    harness::assert_equal(&group);
}

#[test]
fn heap_goes_by_other_names_and_estimates_are_of_a_node() {
    let group = harness::shared();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "CREATE ACCESS METHOD heap_too TYPE TABLE HANDLER heap_tableam_handler",
            "CREATE TABLE by_name (id int PRIMARY KEY) USING heap_too; INSERT INTO by_name VALUES (1)",
            "SET default_table_access_method = heap_too; CREATE TABLE by_setting AS SELECT 1 AS id; CREATE MATERIALIZED VIEW view_too AS SELECT 2 AS id",
            "ALTER TABLE by_setting SET ACCESS METHOD heap; ALTER TABLE by_setting SET ACCESS METHOD heap_too; UPDATE by_setting SET id = 3",
            "UPDATE pg_class SET reltuples = 1000, relpages = 7 WHERE relname = 'by_name'",
            "ALTER DATABASE shop REFRESH COLLATION VERSION",
        ],
    );
    let error = client
        .batch_execute("UPDATE pg_class SET reltuples = 1, relhasindex = false WHERE relname = 'by_name'")
        .unwrap_err();
    assert_eq!(error.code().unwrap().code(), "0A000");
    let methods = "SELECT string_agg(amname, ' ' ORDER BY relname) FROM pg_class c JOIN pg_am a ON a.oid = relam WHERE relname IN ('by_name', 'by_setting', 'view_too')";
    assert_eq!(everywhere(&group, methods), "heap_too heap_too heap_too");
    assert_eq!(
        everywhere(&group, "SELECT (SELECT id FROM by_name) + (SELECT id FROM by_setting) + (SELECT id FROM view_too)"),
        "6"
    );
    harness::assert_equal(&group);
}

/// A function that takes or gives a temporary type goes with the type, though it has a name in a schema of all.
#[test]
fn a_function_of_a_temporary_type_is_as_temporary_as_the_type() {
    let group = harness::shared();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "CREATE TEMP TABLE short (n int); INSERT INTO short VALUES (4)",
            "CREATE FUNCTION of_short() RETURNS SETOF short LANGUAGE sql AS 'SELECT * FROM short'",
            "CREATE FUNCTION takes_short(short) RETURNS int LANGUAGE sql AS 'SELECT ($1).n'",
            "COMMENT ON FUNCTION of_short() IS 'x'; GRANT EXECUTE ON FUNCTION of_short() TO PUBLIC; CREATE OR REPLACE FUNCTION of_short() RETURNS SETOF short LANGUAGE sql AS 'TABLE short'",
        ],
    );
    let row = client.query_one("SELECT takes_short(s) + (SELECT n FROM of_short()) FROM short s", &[]).unwrap();
    assert_eq!(row.get::<_, i32>(0), 8);
    group.settle();
    assert_eq!(group.values("SELECT count(*) FROM pg_proc WHERE proname IN ('of_short', 'takes_short')"), ["2", "0", "0"]);
    assert_eq!(
        group.value(
            node(3),
            "SELECT coalesce(string_agg(v::text, '; '), 'none') FROM postgres_r.verify() v WHERE verdict <> 'equal'"
        ),
        "none"
    );
    // Its name is taken: whoever wants it on another node is told which node has it.
    let error = group
        .connect(node(2))
        .batch_execute("CREATE FUNCTION of_short() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        .unwrap_err();
    assert!(describe(&error).contains("already exists"), "{}", describe(&error));
    run(&mut client, &["DROP FUNCTION takes_short(short)", "DROP TABLE short CASCADE"]);
    step(&group, 2, "CREATE FUNCTION of_short() RETURNS int LANGUAGE sql AS 'SELECT 1'");
    // What else depends on a temporary object is refused as ever.
    run(&mut client, &["CREATE TEMP TABLE lent (i int)"]);
    for statement in ["CREATE TABLE of_lent (l lent)", "CREATE DOMAIN of_lent AS lent"] {
        let error = client.batch_execute(statement).unwrap_err();
        assert_eq!(error.code().unwrap().code(), "0A000", "{}", describe(&error));
    }
    run(
        &mut client,
        &[
            "DROP TABLE lent; CREATE TEMP TABLE pattern (a int NOT NULL, \"B b\" text COLLATE \"C\"); CREATE TABLE patterned (LIKE pattern)",
        ],
    );
    assert_eq!(
        everywhere(
            &group,
            "SELECT string_agg(attname || attnotnull, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'patterned'::regclass AND attnum > 0"
        ),
        "atrue B bfalse"
    );
    harness::assert_equal(&group);
}

/// Changes of catalogs are refused at COMMIT: they may be tried, and rolled back.
#[test]
fn rows_of_catalogs_are_not_changed_for_good() {
    let group = harness::shared();
    let mut client = group.connect(node(2));
    run(
        &mut client,
        &[
            "CREATE TABLE counted (id int)",
            "BEGIN; DELETE FROM pg_depend WHERE objid = 'counted'::regclass; ROLLBACK",
            "BEGIN; SAVEPOINT s; UPDATE pg_class SET relname = 'other' WHERE relname = 'counted'; ROLLBACK TO s; INSERT INTO counted VALUES (1); COMMIT",
            "DO $$ BEGIN BEGIN UPDATE pg_class SET relname = 'other' WHERE relname = 'counted'; RAISE 'no'; EXCEPTION WHEN raise_exception THEN NULL; END; INSERT INTO counted VALUES (2); END $$",
        ],
    );
    for statement in [
        "BEGIN; INSERT INTO counted VALUES (9); SAVEPOINT s; UPDATE pg_class SET relname = 'other' WHERE relname = 'counted'; RELEASE s; COMMIT",
        "WITH gone AS (DELETE FROM pg_description RETURNING 1) INSERT INTO counted SELECT 9",
        "INSERT INTO pg_description VALUES (1, 1, 1, 'x')",
        "DO $$ BEGIN DELETE FROM pg_description; INSERT INTO counted VALUES (9); END $$",
    ] {
        let error = client.batch_execute(statement).unwrap_err();
        assert_eq!(error.code().unwrap().code(), "0A000", "{statement}: {}", describe(&error));
        let _ = client.batch_execute("ROLLBACK");
    }
    assert_eq!(everywhere(&group, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM counted"), "1 2");
    harness::assert_equal(&group);
}

/// Tried in a subtransaction, rows would have another id than their transaction.
#[test]
fn a_statement_that_asks_for_its_transaction_gets_the_one_of_its_rows() {
    let group = harness::shared();
    step(&group, 1, "CREATE TABLE stamped (id int PRIMARY KEY)");
    let mut client = group.connect(node(1));
    let row = client.query_one("INSERT INTO stamped VALUES (1) RETURNING xmin = pg_current_xact_id()::xid", &[]).unwrap();
    assert!(row.get::<_, bool>(0));
    harness::assert_equal(&group);
}

/// Databases are the server's; what belongs to the replicated one itself travels.
#[test]
fn other_databases_are_of_a_server_and_properties_of_this_one_of_the_group() {
    let group = harness::shared();
    let mut client = group.connect(node(2));
    for statement in [
        "CREATE DATABASE aside",
        "COMMENT ON DATABASE aside IS 'x'",
        "ALTER DATABASE aside SET work_mem = '8MB'",
        "ALTER DATABASE aside CONNECTION LIMIT 3",
    ] {
        run(&mut client, &[statement]);
    }
    run(
        &mut client,
        &[
            "CREATE ROLE keeper",
            "ALTER DATABASE shop OWNER TO keeper",
            "ALTER DATABASE shop CONNECTION LIMIT 77",
            "GRANT SET ON PARAMETER log_statement TO keeper",
        ],
    );
    assert_eq!(
        everywhere(&group, "SELECT datdba::regrole || ' ' || datconnlimit FROM pg_database WHERE datname = 'shop'"),
        "keeper 77"
    );
    assert_eq!(everywhere(&group, "SELECT has_parameter_privilege('keeper', 'log_statement', 'SET')"), "true");
    assert_eq!(group.values("SELECT count(*) FROM pg_database WHERE datname = 'aside'"), ["0", "1", "0"]);
    let error = client.batch_execute("GRANT CONNECT ON DATABASE shop, aside TO keeper").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "0A000", "{}", describe(&error));
    run(&mut client, &["ALTER DATABASE aside RENAME TO beside", "DROP DATABASE beside"]);
    run(
        &mut client,
        &[
            "ALTER DATABASE shop OWNER TO postgres; ALTER DATABASE shop CONNECTION LIMIT -1; REVOKE SET ON PARAMETER log_statement FROM keeper; DROP ROLE keeper",
        ],
    );
    harness::assert_equal(&group);
}

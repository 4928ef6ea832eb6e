//! A transaction with statements is tried on the other nodes first: what cannot run there is an error of the client, and no node leaves
//! service for it. If one does all the same, it says why, and comes back when the cause is gone.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::time::Duration;

use gcs::playground::NodeNumber;
use postgres::Client;
use postgres::error::DbError;
use postgres_r_tests::harness::{self, Group, assert_equal, node, wait};

const RECOVERED_MAX: Duration = Duration::from_secs(60);

/// A session in the database `postgres`, where roles are made on one node only.
fn server(group: &Group, number: NodeNumber) -> Client {
    group.playground.connect(number, "postgres").unwrap()
}

/// The role exists on these nodes, and on no other.
fn role_on(group: &Group, role: &str, nodes: &[usize]) {
    for number in group.numbers() {
        let mut server = server(group, number);
        server.batch_execute(&format!("DROP ROLE IF EXISTS {role}")).unwrap();
        if nodes.contains(&number.0) {
            server.batch_execute(&format!("CREATE ROLE {role}")).unwrap();
        }
    }
}

fn error_of(client: &mut Client, sql: &str) -> DbError {
    let error = client.batch_execute(sql).expect_err(sql);
    error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error}")).clone()
}

fn assert_all_online(group: &Group) {
    group.settle();
    wait::until("all online", RECOVERED_MAX, || {
        let others = group.values("SELECT count(*) FROM postgres_r.members WHERE state <> 'online'");
        if others == ["0", "0", "0"] { Ok(()) } else { Err(format!("not online: {others:?}")) }
    });
}

#[test]
fn what_cannot_run_on_another_node_is_an_error_that_names_node_and_reason() {
    let group = harness::shared();
    group.execute(node(1), "DROP TABLE IF EXISTS t, made; CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1)");
    role_on(&group, "clerk", &[1, 2]);
    let statements = [
        "GRANT SELECT ON t TO clerk",
        "GRANT UPDATE (n) ON t TO clerk",
        "ALTER TABLE t OWNER TO clerk",
        "CREATE POLICY p ON t TO clerk USING (true)",
        "CREATE SCHEMA AUTHORIZATION clerk",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO clerk",
        "ALTER DEFAULT PRIVILEGES FOR ROLE clerk REVOKE ALL ON TABLES FROM PUBLIC",
        "DO 'BEGIN GRANT DELETE ON t TO clerk; END'",
        "BEGIN; INSERT INTO t VALUES (2); GRANT INSERT ON t TO clerk; INSERT INTO t VALUES (3); COMMIT",
        "SET ROLE clerk; CREATE TEMP TABLE own (n int); RESET ROLE; CREATE TABLE made (n int); GRANT ALL ON made TO clerk",
    ];
    for sql in statements {
        println!("{sql}");
        let mut client = group.connect(node(1));
        let error = error_of(&mut client, sql);
        assert_eq!(error.code().code(), "42704", "{sql}: {error}");
        assert_eq!(error.message(), "the transaction's statements cannot run on node \"node3\"", "{sql}");
        assert_eq!(error.detail(), Some("node3: role \"clerk\" does not exist."), "{sql}");
        assert!(error.hint().is_some());
        let _ = client.batch_execute("ROLLBACK");
    }
    assert_all_online(&group);
    assert_eq!(group.values("SELECT count(*) FROM t"), ["1", "1", "1"]);
    assert_equal(&group);
    role_on(&group, "clerk", &[1, 2, 3]);
    group.execute(node(1), "GRANT SELECT ON t TO clerk");
    group.settle();
    assert_eq!(group.values("SELECT has_table_privilege('clerk', 't', 'SELECT')"), ["true", "true", "true"]);
    group.execute(node(1), "REVOKE ALL ON t FROM clerk; DROP TABLE IF EXISTS made");
    group.settle();
    role_on(&group, "clerk", &[]);
}

#[test]
fn what_only_one_server_has_or_says_is_found_too() {
    let group = harness::shared();
    group.execute(node(1), "DROP TABLE IF EXISTS t; CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1)");
    // The server of node 3 has another configuration.
    server(&group, node(3)).batch_execute("ALTER SYSTEM SET postgres_r.apply_workers = 3").unwrap();
    server(&group, node(3)).batch_execute("SELECT pg_reload_conf()").unwrap();
    wait::until("the other configuration", RECOVERED_MAX, || {
        let value = group.value(node(3), "SELECT current_setting('postgres_r.apply_workers')");
        if value == "3" { Ok(()) } else { Err(value) }
    });
    group.execute(
        node(1),
        "CREATE OR REPLACE FUNCTION four(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
             $$ BEGIN RETURN current_setting('postgres_r.apply_workers') = '4'; END $$;
         CREATE OR REPLACE FUNCTION strictly_four(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
             $$ BEGIN IF NOT four($1) THEN RAISE 'only with four' USING DETAIL = 'There are others.'; END IF; RETURN $1; END $$",
    );
    let sql = "CREATE INDEX ON t (strictly_four(n))";
    let error = error_of(&mut group.connect(node(1)), sql);
    assert_eq!(error.code().code(), "P0001", "{error}");
    assert!(error.detail().is_some_and(|detail| detail.starts_with("node3: ")), "{error:?}");
    // Nothing is left of the rehearsal on any node, also where it failed in a function that was called.
    group.execute(node(2), "ALTER TABLE t ADD COLUMN m int");
    group.settle();
    // Not rehearsed, it fails where it is applied; and is applied when its cause is gone.
    group.execute(node(1), &format!("SET postgres_r.rehearsal_timeout = 0; {sql}; INSERT INTO t VALUES (2)"));
    wait::until("a failure", RECOVERED_MAX, || {
        let failures = "SELECT count(*) FROM postgres_r.members WHERE node = 'node3' AND state = 'out of service'";
        if group.value(node(1), failures) == "1" { Ok(()) } else { Err("none".to_owned()) }
    });
    server(&group, node(3)).batch_execute("ALTER SYSTEM RESET postgres_r.apply_workers").unwrap();
    server(&group, node(3)).batch_execute("SELECT pg_reload_conf()").unwrap();
    assert_all_online(&group);
    assert_equal(&group);
}

#[test]
fn a_rehearsal_waits_for_nobodys_locks_and_stands_in_nobodys_way() {
    let group = harness::shared();
    group.execute(node(1), "DROP TABLE IF EXISTS t; CREATE TABLE t (n int PRIMARY KEY, m int); INSERT INTO t VALUES (1, 1)");
    group.settle();
    let partly = "SELECT rehearsals_partly FROM postgres_r.pg_stat_postgres_r";
    let before: i64 = group.value(node(1), partly).parse().unwrap();
    // A reader that stays: on one server the statement would wait for it, here it is made to give way when the statement is applied.
    let mut reader = group.connect(node(2));
    reader.batch_execute("BEGIN; SELECT * FROM t").unwrap();
    group.execute(node(1), "ALTER TABLE t ADD COLUMN k int DEFAULT 5");
    let after: i64 = group.value(node(1), partly).parse().unwrap();
    assert_eq!(after, before + 1, "node 2 could not try it to its end");
    drop(reader);
    group.settle();
    assert_eq!(group.values("SELECT sum(k) FROM t"), ["5", "5", "5"]);
    assert_all_online(&group);
    assert_equal(&group);
}

#[test]
fn statements_of_others_that_came_between_are_a_conflict() {
    let group = harness::shared();
    group.execute(
        node(1),
        "DROP TABLE IF EXISTS t; DROP FUNCTION IF EXISTS f(int) CASCADE; CREATE TABLE t (n int);
         CREATE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1'",
    );
    group.settle();
    let mut late = group.connect(node(1));
    late.batch_execute("BEGIN; CREATE VIEW v AS SELECT f(n) FROM t").unwrap();
    group.execute(node(2), "DROP FUNCTION f(int)");
    let error = error_of(&mut late, "COMMIT");
    assert_eq!(error.code().code(), "40001", "{error}");
    assert_all_online(&group);
    assert_equal(&group);
}

#[test]
fn a_node_that_cannot_apply_says_why_and_comes_back_when_the_cause_is_gone() {
    let group = harness::shared();
    group.execute(node(1), "DROP TABLE IF EXISTS t; CREATE TABLE t (n int PRIMARY KEY)");
    role_on(&group, "clerk", &[1]);
    for number in group.numbers() {
        server(&group, number).batch_execute("CREATE EXTENSION IF NOT EXISTS postgres_r").unwrap();
    }
    let mut careless = group.connect(node(1));
    careless.batch_execute("SET postgres_r.rehearsal_timeout = 0; GRANT SELECT ON t TO clerk").unwrap();
    group.execute(node(1), "INSERT INTO t VALUES (1)");
    let seen_by_one = "SELECT string_agg(node || ' ' || state, ', ' ORDER BY node) FROM postgres_r.members";
    wait::until("the truth on node 1", RECOVERED_MAX, || {
        let found = group.value(node(1), seen_by_one);
        if found == "node1 online, node2 out of service, node3 out of service" { Ok(()) } else { Err(found) }
    });
    for number in [node(2), node(3)] {
        wait::until("the truth of its own daemon", RECOVERED_MAX, || {
            let found = group.status().nodes[number.0 - 1].state.text();
            if found == "out of service" { Ok(()) } else { Err(found.to_owned()) }
        });
        assert!(group.try_connect(number).is_err(), "no client may see what is not up to date");
        let query = "SELECT database, node, sqlstate, statement, reason, attempts > 0 FROM postgres_r.failures";
        let row = server(&group, number).query_one(query, &[]).unwrap();
        let texts: Vec<String> = (0..5).map(|column| row.get(column)).collect();
        assert_eq!(texts[..4], ["shop", "node1", "42704", "GRANT SELECT ON t TO clerk"]);
        assert!(texts[4].contains("role \"clerk\" does not exist"), "{}", texts[4]);
        assert!(row.get::<_, bool>(5));
    }
    for number in [node(2), node(3)] {
        server(&group, number).batch_execute("CREATE ROLE clerk").unwrap();
    }
    wait::until("everybody back", RECOVERED_MAX, || {
        let found = group.value(node(1), seen_by_one);
        if found == "node1 online, node2 online, node3 online" { Ok(()) } else { Err(found) }
    });
    assert_all_online(&group);
    assert_eq!(group.values("SELECT count(*) FROM t WHERE has_table_privilege('clerk', 't', 'SELECT')"), ["1", "1", "1"]);
    assert_eq!(group.values("SELECT count(*) FROM postgres_r.failures"), ["0", "0", "0"]);
    assert_equal(&group);
    group.execute(node(1), "REVOKE ALL ON t FROM clerk");
    group.settle();
    role_on(&group, "clerk", &[]);
}

#[test]
fn whoever_waits_for_a_long_statement_waits_until_it_is_done() {
    let group = harness::shared();
    group.execute(
        node(1),
        "DROP TABLE IF EXISTS t, other; CREATE TABLE t (n int); CREATE TABLE other (n int PRIMARY KEY);
         INSERT INTO t SELECT generate_series(1, 150);
         CREATE OR REPLACE FUNCTION slowly(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
             $$ BEGIN PERFORM pg_catalog.pg_sleep(0.02); RETURN n; END $$",
    );
    group.settle();
    group.execute(node(1), "CREATE INDEX ON t (slowly(n))");
    for number in [node(2), node(3)] {
        // Shorter than the index takes.
        let sql = format!("SET postgres_r.commit_timeout = '1s'; INSERT INTO other VALUES ({})", number.0);
        group.execute(number, &sql);
    }
    group.settle();
    assert_eq!(group.values("SELECT count(*) FROM other"), ["2", "2", "2"]);
    assert_all_online(&group);
    assert_equal(&group);
}

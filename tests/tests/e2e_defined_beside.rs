//! What one server lets two sessions define beside each other, at the end of a pg_restore in several sessions, two sessions of a node may; and
//! what a node shows of a database is what one server shows.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::thread;

use postgres_r_tests::harness::{self, Shared, catalog, node, step};
use postgres_r_tests::workload::beside::{overlap, unless_both_pass, unless_second_loses};
use postgres_r_tests::workload::client::Failure;

const ROLES: &str = "DO 'BEGIN CREATE ROLE holder; CREATE ROLE clerk; EXCEPTION WHEN duplicate_object THEN END'";

const SETUP: &str = "
    CREATE SCHEMA x; CREATE SCHEMA y; CREATE SCHEMA \"odd one\"; CREATE TABLE y.third (n int);
    CREATE TABLE x.pk (a int PRIMARY KEY); CREATE TABLE x.fk (a int); CREATE TABLE y.pk (a int PRIMARY KEY); CREATE TABLE y.fk (a int);
    CREATE TABLE first (n int, m int); CREATE TABLE second (n int, m int);
    CREATE STATISTICS of_first ON n, m FROM first; CREATE STATISTICS of_second ON n, m FROM second;
    CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE FUNCTION two() RETURNS int LANGUAGE sql AS 'SELECT 2';
    CREATE FUNCTION hears() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    CREATE EVENT TRIGGER of_one ON ddl_command_end WHEN TAG IN ('CREATE CAST') EXECUTE FUNCTION hears();
    CREATE FOREIGN DATA WRAPPER wraps; CREATE SERVER serves FOREIGN DATA WRAPPER wraps;
    CREATE MATERIALIZED VIEW viewed AS SELECT 1 AS one;
    SELECT lo_create(4711), lo_create(4712)";

const GONE: &str = "DROP SCHEMA IF EXISTS x, y, \"odd one\" CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public;
    DROP EVENT TRIGGER IF EXISTS of_one; DROP FOREIGN DATA WRAPPER IF EXISTS wraps CASCADE;
    SELECT lo_unlink(oid) FROM pg_largeobject_metadata";

fn prepare() -> Shared {
    let group = harness::shared_without_table_locks();
    step(&group, 1, ROLES);
    step(&group, 1, GONE);
    step(&group, 1, SETUP);
    group.settle();
    group
}

#[test]
fn privileges_owners_and_notes_of_different_objects_go_together() {
    let group = prepare();
    let mut wrong = Vec::new();
    for (first, second) in [
        (
            "ALTER DEFAULT PRIVILEGES FOR ROLE holder REVOKE ALL ON TYPES FROM PUBLIC",
            "ALTER DEFAULT PRIVILEGES FOR ROLE clerk REVOKE ALL ON TYPES FROM clerk",
        ),
        (
            "ALTER DEFAULT PRIVILEGES FOR ROLE holder GRANT SELECT ON TABLES TO clerk",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA x GRANT EXECUTE ON FUNCTIONS TO clerk",
        ),
        ("ALTER DEFAULT PRIVILEGES IN SCHEMA x GRANT SELECT ON TABLES TO clerk", "GRANT SELECT ON second TO clerk"),
        ("ALTER DEFAULT PRIVILEGES IN SCHEMA y GRANT SELECT ON TABLES TO clerk", "ALTER TABLE second ADD CHECK (n > 0)"),
        (
            "ALTER DEFAULT PRIVILEGES IN SCHEMA y GRANT USAGE ON SEQUENCES TO clerk",
            "CREATE POLICY mine ON second USING (n > 0)",
        ),
        ("GRANT SELECT ON LARGE OBJECT 4711 TO clerk", "GRANT SELECT ON LARGE OBJECT 4712 TO clerk"),
        (
            "GRANT UPDATE ON LARGE OBJECT 4711 TO clerk",
            "ALTER DEFAULT PRIVILEGES FOR ROLE holder GRANT USAGE ON TYPES TO clerk",
        ),
        ("GRANT SELECT (n) ON first TO clerk", "GRANT SELECT ON LARGE OBJECT 4712 TO holder"),
        ("COMMENT ON LARGE OBJECT 4711 IS 'a'", "COMMENT ON LARGE OBJECT 4712 IS 'b'"),
        ("ALTER LARGE OBJECT 4711 OWNER TO holder", "ALTER LARGE OBJECT 4712 OWNER TO clerk"),
        ("ALTER STATISTICS of_first SET STATISTICS 10", "ALTER STATISTICS of_second SET STATISTICS 20"),
        ("ALTER STATISTICS of_first SET STATISTICS 30", "COMMENT ON STATISTICS of_second IS 'b'"),
        ("ALTER FUNCTION one() OWNER TO holder", "ALTER FUNCTION two() OWNER TO clerk"),
        ("ALTER FUNCTION one() OWNER TO clerk", "REVOKE ALL ON TABLE second FROM clerk"),
        ("ALTER EVENT TRIGGER of_one OWNER TO CURRENT_USER", "REFRESH MATERIALIZED VIEW viewed"),
        ("ALTER SERVER serves OWNER TO CURRENT_USER", "COMMENT ON TABLE second IS 'b'"),
        ("ALTER FOREIGN DATA WRAPPER wraps OWNER TO CURRENT_USER", "COMMENT ON COLUMN second.n IS 'b'"),
    ] {
        wrong.extend(unless_both_pass(&group, first, second));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    catalog::assert_same(&group);
    harness::assert_equal(&group);
}

/// Sessions that restore schemas which are alike.
#[test]
fn the_same_names_in_different_schemas_go_together() {
    let group = prepare();
    let mut wrong = Vec::new();
    for (first, second) in [
        (
            "ALTER TABLE x.fk ADD CONSTRAINT fk_a_fkey FOREIGN KEY (a) REFERENCES x.pk (a)",
            "ALTER TABLE y.fk ADD CONSTRAINT fk_a_fkey FOREIGN KEY (a) REFERENCES y.pk (a)",
        ),
        ("CREATE INDEX fk_idx ON x.fk (a)", "CREATE INDEX fk_idx ON y.fk (a)"),
        ("CREATE INDEX ON x.pk (a)", "CREATE INDEX ON y.pk (a)"),
        ("ALTER TABLE x.fk ADD CONSTRAINT one UNIQUE (a)", "ALTER TABLE y.fk ADD CONSTRAINT one UNIQUE (a)"),
        (
            "CREATE TABLE x.t (id serial PRIMARY KEY, n int CHECK (n > 0))",
            "CREATE TABLE Y.T (id serial PRIMARY KEY, n int CHECK (n > 0))",
        ),
        ("CREATE VIEW x.v AS SELECT * FROM x.t", "SET LOCAL search_path = y; CREATE VIEW v AS SELECT * FROM t"),
        ("CREATE TABLE x.third (n int)", "SET LOCAL search_path = y; ALTER TABLE third ADD COLUMN m int"),
        ("DROP TABLE x.third", "COMMENT ON TABLE y.third IS 'y''s'"),
    ] {
        wrong.extend(unless_both_pass(&group, first, second));
    }
    // Who may look into both does not know which is meant elsewhere.
    for (first, second) in [
        ("CREATE TABLE x.third (n int)", "SET LOCAL search_path = x, y; ALTER TABLE third ADD COLUMN o int"),
        (
            "CREATE TABLE \"odd one\".third (n int)",
            "SET LOCAL search_path = \"odd one\", y; ALTER TABLE third ADD COLUMN p int",
        ),
        ("CREATE TABLE x.p_idx (n int)", "ALTER TABLE y.third ADD COLUMN q int; CREATE INDEX p_idx ON x.fk (a)"),
        ("ALTER TABLE x.p_idx SET SCHEMA y", "SET LOCAL search_path = x, y; CREATE VIEW s AS SELECT 1 AS p_idx"),
    ] {
        wrong.extend(unless_second_loses(&group, first, second));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    catalog::assert_same(&group);
    harness::assert_equal(&group);
}

/// Without a loser each of these would come out differently where the first is applied before the second is read.
#[test]
fn what_gets_the_privileges_or_needs_them_loses() {
    let group = prepare();
    step(&group, 1, "GRANT USAGE, CREATE ON SCHEMA public TO clerk; GRANT EXECUTE ON FUNCTION one(), two() TO clerk");
    let mut wrong = Vec::new();
    for (number, made) in [
        "CREATE TABLE made (n int)",
        "CREATE TYPE made AS (n int)",
        "CREATE FUNCTION made() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA made",
        "CREATE SEQUENCE made",
        "CREATE VIEW made AS SELECT 1",
        "ALTER TABLE first ADD COLUMN made serial",
        "CREATE DOMAIN made AS int",
    ]
    .into_iter()
    .enumerate()
    {
        let defaults = format!("ALTER DEFAULT PRIVILEGES FOR ROLE holder GRANT ALL ON TABLES TO clerk; -- {number}");
        let outcome = overlap(&group, &defaults, made);
        if outcome != Err(Failure::Retry) {
            wrong.push(format!("{made}: {outcome:?}"));
        }
        step(&group, 1, "ALTER DEFAULT PRIVILEGES FOR ROLE holder REVOKE ALL ON TABLES FROM clerk");
    }
    for (first, second) in [
        ("ALTER FUNCTION one() OWNER TO holder", "ALTER TABLE second ADD CHECK (one() > 0)"),
        ("ALTER FUNCTION one() OWNER TO clerk", "SET LOCAL ROLE clerk; CREATE VIEW made AS SELECT one()"),
    ] {
        wrong.extend(unless_second_loses(&group, first, second));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    catalog::assert_same(&group);
    harness::assert_equal(&group);
}

/// As the last pass of pg_restore -j 4.
#[test]
fn four_sessions_of_a_node_give_privileges_at_once() {
    let group = prepare();
    for session in 0..4 {
        step(&group, 1, &format!("CREATE SCHEMA of_{session}; CREATE TABLE of_{session}.t (n int)"));
        step(&group, 1, &format!("CREATE ROLE role_{session}; CREATE ROLE other_{session}"));
    }
    group.settle();
    thread::scope(|scope| {
        for session in 0..4 {
            let group = &group;
            scope.spawn(move || {
                let mut client = group.connect(node(1));
                let roles = [format!("role_{session}"), format!("other_{session}")];
                for kind in ["TABLES", "TYPES", "FUNCTIONS", "SEQUENCES"] {
                    for statement in [
                        format!("ALTER DEFAULT PRIVILEGES FOR ROLE {} REVOKE ALL ON {kind} FROM PUBLIC", roles[0]),
                        format!("ALTER DEFAULT PRIVILEGES FOR ROLE {} GRANT ALL ON {kind} TO {}", roles[0], roles[1]),
                        format!("ALTER DEFAULT PRIVILEGES IN SCHEMA of_{session} GRANT ALL ON {kind} TO {}", roles[1]),
                        format!("GRANT SELECT ON of_{session}.t TO {}", roles[1]),
                        format!("COMMENT ON TABLE of_{session}.t IS '{kind}'"),
                    ] {
                        client.batch_execute(&statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
                    }
                }
            });
        }
    });
    for session in 0..4 {
        step(
            &group,
            1,
            &format!("DROP OWNED BY other_{session}; DROP OWNED BY role_{session}; DROP SCHEMA of_{session} CASCADE"),
        );
        step(&group, 1, &format!("DROP ROLE role_{session}, other_{session}"));
    }
    catalog::assert_same(&group);
    harness::assert_equal(&group);
}

/// The name is taken by something that stays: nobody loses for it.
#[test]
fn a_constraint_that_has_the_first_name_is_passed_over_as_on_one_server() {
    let group = prepare();
    step(
        &group,
        1,
        "CREATE TABLE named (c int); ALTER TABLE named ADD CONSTRAINT named_c_key CHECK (c > 1);
        ALTER TABLE named ADD UNIQUE (c); ALTER TABLE named ADD CONSTRAINT named_c_key2 CHECK (c > 2)",
    );
    step(&group, 2, "ALTER TABLE named ADD UNIQUE (c)");
    group.settle();
    let names =
        "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind = 'i' AND relname ~ '^named_c'";
    assert_eq!(harness::everywhere(&group, names), "named_c_key1 named_c_key3");
    catalog::assert_same(&group);
}

/// A commit of the group returns before its record is on disk, and only then does PostgreSQL note in a row that it has been committed.
#[test]
fn vacuum_right_after_a_load_finds_all_pages_visible_to_all() {
    let group = prepare();
    let mut client = group.connect(node(1));
    client.batch_execute("CREATE TABLE loaded (n int)").unwrap();
    client.batch_execute("INSERT INTO loaded SELECT generate_series(1, 10000)").unwrap();
    client.batch_execute("VACUUM loaded").unwrap();
    let visible = "SELECT relallvisible = relpages AND relpages > 0 FROM pg_class WHERE relname = 'loaded'";
    assert_eq!(group.value(node(1), visible), "true");
}

#[test]
fn no_view_of_the_extension_is_listed_among_postgresqls_own() {
    let group = prepare();
    let listed = "SELECT count(*) FROM pg_views WHERE schemaname = 'pg_catalog' AND definition ~ 'postgres_r'";
    assert_eq!(group.value(node(1), listed), "0");
    assert_eq!(group.value(node(1), "SELECT count(*) FROM postgres_r.pg_stat_postgres_r"), "1");
}

//! CREATE, ALTER and DROP EXTENSION: the extension of the same version on every node, and in its tables the same rows, whatever its script
//! evaluates. A node that cannot have it refuses before anybody commits.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::fs;
use std::path::PathBuf;

use postgres_r_tests::harness::{self, everywhere, node, programs, step};

/// Files of an extension that is there for one test.
struct Files(Vec<PathBuf>);

impl Files {
    fn install(name: &str, control: &str, scripts: &[(&str, &str)]) -> Files {
        let directory = programs::shared_files().join("extension");
        let mut files = Files(Vec::new());
        let mut write = |file: String, content: &str| {
            let path = directory.join(file);
            fs::write(&path, content)
                .unwrap_or_else(|error| panic!("{}: {error}: make install may write there", path.display()));
            files.0.push(path);
        };
        write(format!("{name}.control"), control);
        for (version, script) in scripts {
            write(format!("{name}--{version}.sql"), script);
        }
        files
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for file in &self.0 {
            let _ = fs::remove_file(file);
        }
    }
}

const EXTENSIONS: &str =
    "SELECT string_agg(format('%s %s %s', extname, extversion, extnamespace::regnamespace), ', ' ORDER BY extname)
    FROM pg_extension WHERE extname NOT IN ('plpgsql', 'postgres_r')";

#[test]
fn extensions_are_made_updated_moved_and_dropped_everywhere() {
    let group = harness::shared();
    step(
        &group,
        1,
        "CREATE EXTENSION hstore; CREATE TABLE held (id int PRIMARY KEY, h hstore); CREATE INDEX ON held USING gin (h)",
    );
    step(&group, 2, "INSERT INTO held VALUES (1, 'a=>1')");
    step(&group, 3, "UPDATE held SET h = h || 'b=>2'");
    assert_eq!(everywhere(&group, "SELECT h->'b' FROM held"), "2");
    step(&group, 2, "CREATE SCHEMA apart; CREATE EXTENSION citext SCHEMA apart VERSION '1.5'");
    step(&group, 3, "CREATE EXTENSION earthdistance CASCADE -- with what it requires");
    assert_eq!(
        everywhere(&group, EXTENSIONS),
        "citext 1.5 apart, cube 1.5 public, earthdistance 1.1 public, hstore 1.8 public"
    );
    step(
        &group,
        1,
        "ALTER EXTENSION citext UPDATE; ALTER EXTENSION citext SET SCHEMA public; COMMENT ON EXTENSION citext IS 'c'",
    );
    // Nothing is left to do.
    step(
        &group,
        1,
        "ALTER EXTENSION citext UPDATE; CREATE EXTENSION IF NOT EXISTS citext; DROP EXTENSION IF EXISTS tablefunc",
    );
    step(&group, 2, "CREATE TABLE named (n citext PRIMARY KEY); INSERT INTO named VALUES ('Ana')");
    step(&group, 3, "UPDATE named SET n = 'Bea' WHERE n = 'ANA'");
    step(
        &group,
        3,
        "CREATE TABLE member (id int); ALTER EXTENSION citext ADD TABLE member; ALTER EXTENSION citext DROP TABLE member",
    );
    step(
        &group,
        1,
        "DO $$ BEGIN CREATE EXTENSION pg_trgm; EXECUTE 'CREATE INDEX ON named USING gin ((n::text) gin_trgm_ops)'; END $$",
    );
    assert_eq!(
        everywhere(&group, EXTENSIONS),
        "citext 1.6 public, cube 1.5 public, earthdistance 1.1 public, hstore 1.8 public, pg_trgm 1.6 public"
    );
    step(&group, 2, "DROP EXTENSION cube CASCADE; DROP EXTENSION pg_trgm CASCADE");
    step(&group, 3, "BEGIN; CREATE EXTENSION pgcrypto; ROLLBACK");
    step(&group, 3, "BEGIN; SAVEPOINT s; CREATE EXTENSION pgcrypto; ROLLBACK TO s; INSERT INTO held VALUES (3, ''); COMMIT");
    assert_eq!(everywhere(&group, EXTENSIONS), "citext 1.6 public, hstore 1.8 public");
    step(&group, 1, "DROP TABLE held, named; DROP EXTENSION citext, hstore");
    harness::assert_equal(&group);
}

/// The script makes tables and fills them with what is different on each node, changes a table of somebody else, empties one, makes a temporary
/// one; and event triggers of users fire for the statement.
#[test]
fn what_a_script_evaluates_is_the_same_everywhere() {
    let group = harness::shared();
    let _files = Files::install(
        "postgres_r_probe",
        "default_version = '1.1'\nrelocatable = false\nschema = probe\n",
        &[
            (
                "1.0",
                "CREATE TABLE seen (id serial PRIMARY KEY, who int, at timestamptz, x float8);
                 INSERT INTO seen (who, at, x) SELECT pg_backend_pid(), clock_timestamp(), random() FROM generate_series(1, 20);
                 CREATE TABLE derived AS SELECT id, x * 2 AS y FROM seen; CREATE TABLE empty (id int);
                 CREATE MATERIALIZED VIEW summed AS SELECT sum(x) + random() AS s FROM seen;
                 CREATE TEMP TABLE draft (n int); INSERT INTO draft VALUES (1); DROP TABLE draft;
                 UPDATE public.of_users SET x = random(); TRUNCATE public.emptied;
                 DO $$ BEGIN INSERT INTO seen (x) VALUES (random()); END $$;
                 SELECT pg_extension_config_dump('seen', '');",
            ),
            ("1.0--1.1", "UPDATE seen SET x = random() WHERE id < 5; ALTER TABLE seen ADD COLUMN more float8 DEFAULT random();"),
        ],
    );
    step(
        &group,
        1,
        "CREATE TABLE of_users (id int PRIMARY KEY, x float8); INSERT INTO of_users SELECT generate_series(1, 9);
         CREATE TABLE emptied (id int PRIMARY KEY); INSERT INTO emptied VALUES (1);
         CREATE TABLE audit (n serial PRIMARY KEY, tag text);
         CREATE FUNCTION audited() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.audit (tag) VALUES (tg_tag); END $$;
         CREATE EVENT TRIGGER audits ON ddl_command_end EXECUTE FUNCTION audited()",
    );
    step(&group, 2, "CREATE EXTENSION postgres_r_probe VERSION '1.0'");
    assert_eq!(everywhere(&group, "SELECT count(*) || ' ' || count(DISTINCT x) FROM probe.seen"), "21 21");
    harness::assert_equal(&group);
    step(
        &group,
        3,
        "INSERT INTO probe.seen (x) VALUES (0); UPDATE probe.derived SET y = 0; INSERT INTO probe.empty VALUES (1)",
    );
    step(&group, 1, "ALTER EXTENSION postgres_r_probe UPDATE");
    assert_eq!(everywhere(&group, "SELECT count(DISTINCT more) FROM probe.seen"), "22");
    step(&group, 2, "UPDATE probe.seen SET more = 0 WHERE id = 1; INSERT INTO emptied VALUES (2)");
    assert_eq!(
        everywhere(&group, "SELECT string_agg(tag, ', ' ORDER BY n) FROM audit"),
        "CREATE EXTENSION, ALTER EXTENSION"
    );
    harness::assert_equal(&group);
    step(
        &group,
        3,
        "DROP EVENT TRIGGER audits; DROP EXTENSION postgres_r_probe; DROP TABLE of_users, emptied, audit; DROP FUNCTION audited",
    );
    harness::assert_equal(&group);
}

/// One node cannot run the script: whoever asks is told which, and nobody has the extension.
#[test]
fn a_node_that_cannot_have_an_extension_is_named_and_nobody_has_it() {
    let group = harness::shared();
    let port: String = group.value(node(3), "current_setting('port')");
    let script = format!(
        "CREATE FUNCTION probed() RETURNS int LANGUAGE sql AS 'SELECT 1';
         DO $$ BEGIN IF current_setting('port') = '{port}' THEN RAISE 'no such library' USING ERRCODE = '58P01'; END IF; END $$;"
    );
    let _files =
        Files::install("postgres_r_probe_of_one", "default_version = '1.0'\nrelocatable = true\n", &[("1.0", &script)]);
    let error = group.connect(node(1)).batch_execute("CREATE EXTENSION postgres_r_probe_of_one").unwrap_err();
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error}")).clone();
    println!("{} {} {:?} {:?}", error.code().code(), error.message(), error.detail(), error.hint());
    let said = format!("{} {:?}", error.message(), error.detail());
    assert!(said.contains("node3") && said.contains("no such library"), "{said}");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM pg_proc WHERE proname = 'probed'"), "0");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM postgres_r.members WHERE state <> 'online'"), "0");
    harness::assert_equal(&group);
}

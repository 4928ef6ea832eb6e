//! What a statement touches decides where it goes, not its kind: about temporary objects alone it stays at home, about permanent ones it
//! travels, about both at once it is refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use gcs::playground::group::describe;
use postgres::Client;
use postgres_r_tests::harness::{self, Group, node, schema};

fn run(client: &mut Client, statements: &[&str]) {
    for statement in statements {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {}", describe(&error)));
    }
}

fn refused(client: &mut Client, statement: &str) {
    let error = client.batch_execute(statement).expect_err(statement);
    let error = error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error}"));
    assert_eq!(error.code().code(), "0A000", "{statement}: {}", error.message());
    assert!(error.message().contains("temporary"), "{statement}: {}", error.message());
    assert!(error.hint().is_some(), "{statement}: no hint");
}

/// The settling itself takes one position.
fn position(group: &Group) -> u64 {
    group.settle();
    group.value(node(1), "postgres_r.committed_position()").parse().unwrap()
}

/// Makes the roles on every node.
fn clerk(group: &Group) {
    for number in group.numbers() {
        let mut client = group.playground.connect(number, "postgres").unwrap();
        let _ = client.batch_execute("CREATE ROLE clerk");
    }
}

#[test]
fn a_comment_on_a_column_of_a_temporary_table_stays_at_home() {
    let group = harness::shared();
    run(
        &mut group.connect(node(1)),
        &["CREATE TEMP TABLE basket (sku text, pieces int)", "COMMENT ON COLUMN basket.pieces IS 'how many'"],
    );
    harness::assert_equal(&group);
    schema::assert_same(&group);
}

/// Each works on one server, and concerns this session alone.
const LOCAL: &[&str] = &[
    "CREATE TEMP TABLE basket (sku text PRIMARY KEY, pieces int CHECK (pieces > 0), kind int DEFAULT 1, id serial)",
    "CREATE TEMP TABLE line (sku text REFERENCES basket, n int)",
    "CREATE TEMP VIEW shown AS SELECT * FROM basket",
    "CREATE TEMP SEQUENCE numbers INCREMENT 3",
    "CREATE INDEX by_pieces ON basket (pieces)",
    "COMMENT ON TABLE basket IS 'mine'",
    "COMMENT ON COLUMN shown.pieces IS 'mine'",
    "COMMENT ON VIEW shown IS 'mine'",
    "COMMENT ON INDEX by_pieces IS 'mine'",
    "COMMENT ON SEQUENCE numbers IS 'mine'",
    "COMMENT ON CONSTRAINT basket_pieces_check ON basket IS 'mine'",
    "COMMENT ON CONSTRAINT line_sku_fkey ON line IS 'mine'",
    "CREATE FUNCTION pg_temp.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'",
    "CREATE TRIGGER touch BEFORE INSERT ON basket FOR EACH ROW EXECUTE FUNCTION pg_temp.touch()",
    "COMMENT ON TRIGGER touch ON basket IS 'mine'",
    "ALTER TRIGGER touch ON basket RENAME TO touched",
    "ALTER TABLE basket DISABLE TRIGGER touched",
    "DROP TRIGGER touched ON basket",
    "CREATE RULE nothing AS ON DELETE TO basket DO INSTEAD NOTHING",
    "COMMENT ON RULE nothing ON basket IS 'mine'",
    "ALTER RULE nothing ON basket RENAME TO nothing2",
    "DROP RULE nothing2 ON basket",
    "CREATE POLICY everybody ON basket USING (true)",
    "COMMENT ON POLICY everybody ON basket IS 'mine'",
    "ALTER POLICY everybody ON basket RENAME TO everybody2",
    "ALTER POLICY everybody2 ON basket TO CURRENT_USER",
    "DROP POLICY everybody2 ON basket",
    "CREATE STATISTICS pg_temp.correlation ON pieces, kind FROM basket",
    "COMMENT ON STATISTICS pg_temp.correlation IS 'mine'",
    "ALTER STATISTICS pg_temp.correlation SET STATISTICS 10",
    "DROP STATISTICS pg_temp.correlation",
    "GRANT SELECT, INSERT ON basket TO clerk",
    "GRANT SELECT (sku), UPDATE (pieces) ON basket TO clerk",
    "GRANT SELECT ON shown, basket TO PUBLIC",
    "GRANT USAGE ON SEQUENCE numbers TO clerk",
    "REVOKE INSERT ON TABLE basket FROM clerk",
    "GRANT EXECUTE ON FUNCTION pg_temp.touch() TO clerk",
    "GRANT ALL ON ALL TABLES IN SCHEMA pg_temp TO clerk",
    "GRANT ALL ON ALL SEQUENCES IN SCHEMA pg_temp TO clerk",
    "REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA pg_temp FROM PUBLIC",
    "DO $$BEGIN EXECUTE format('GRANT USAGE ON SCHEMA %s TO clerk', (SELECT relnamespace::regnamespace FROM pg_class WHERE oid = 'basket'::regclass)); END$$",
    "DO $$BEGIN EXECUTE format('COMMENT ON SCHEMA %s IS $c$mine$c$', (SELECT relnamespace::regnamespace FROM pg_class WHERE oid = 'basket'::regclass)); END$$",
    "DO $$BEGIN EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %s GRANT SELECT ON TABLES TO clerk', (SELECT relnamespace::regnamespace FROM pg_class WHERE oid = 'basket'::regclass)); END$$",
    "DO $$BEGIN EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %s REVOKE SELECT ON TABLES FROM clerk', (SELECT relnamespace::regnamespace FROM pg_class WHERE oid = 'basket'::regclass)); END$$",
    "CREATE FUNCTION pg_temp.add(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2'",
    "COMMENT ON FUNCTION pg_temp.add(int, int) IS 'mine'",
    "ALTER FUNCTION pg_temp.add(int, int) STRICT",
    "ALTER FUNCTION pg_temp.add(int, int) OWNER TO clerk",
    "ALTER FUNCTION pg_temp.add(int, int) DEPENDS ON EXTENSION plpgsql",
    "ALTER FUNCTION pg_temp.add(int, int) NO DEPENDS ON EXTENSION plpgsql",
    "ALTER INDEX by_pieces DEPENDS ON EXTENSION plpgsql",
    "ALTER INDEX by_pieces NO DEPENDS ON EXTENSION plpgsql",
    "CREATE PROCEDURE pg_temp.do_it() LANGUAGE sql AS 'SELECT 1'",
    "COMMENT ON PROCEDURE pg_temp.do_it() IS 'mine'",
    "COMMENT ON ROUTINE pg_temp.do_it() IS 'mine'",
    "GRANT EXECUTE ON PROCEDURE pg_temp.do_it() TO clerk",
    "DROP PROCEDURE pg_temp.do_it()",
    "CREATE AGGREGATE pg_temp.total(int) (SFUNC = pg_temp.add, STYPE = int, INITCOND = '0')",
    "COMMENT ON AGGREGATE pg_temp.total(int) IS 'mine'",
    "ALTER AGGREGATE pg_temp.total(int) RENAME TO total2",
    "DROP AGGREGATE pg_temp.total2(int)",
    "CREATE OPERATOR pg_temp.|+| (FUNCTION = pg_temp.add, LEFTARG = int, RIGHTARG = int, COMMUTATOR = OPERATOR(pg_temp.|+|))",
    "COMMENT ON OPERATOR pg_temp.|+| (int, int) IS 'mine'",
    "ALTER OPERATOR pg_temp.|+| (int, int) SET (RESTRICT = NONE)",
    "DROP OPERATOR pg_temp.|+| (int, int)",
    "CREATE TYPE pg_temp.pair AS (a int, b text)",
    "COMMENT ON TYPE pg_temp.pair IS 'mine'",
    "COMMENT ON COLUMN pg_temp.pair.a IS 'mine'",
    "ALTER TYPE pg_temp.pair ADD ATTRIBUTE c int",
    "ALTER TYPE pg_temp.pair RENAME ATTRIBUTE c TO d",
    "GRANT USAGE ON TYPE pg_temp.pair TO clerk",
    "CREATE TYPE pg_temp.mood AS ENUM ('sad', 'happy')",
    "ALTER TYPE pg_temp.mood ADD VALUE 'calm'",
    "ALTER TYPE pg_temp.mood RENAME VALUE 'calm' TO 'quiet'",
    "ALTER TYPE pg_temp.mood OWNER TO clerk",
    "CREATE TYPE pg_temp.span AS RANGE (SUBTYPE = int)",
    "COMMENT ON TYPE pg_temp.span IS 'mine'",
    "DROP TYPE pg_temp.span",
    "CREATE DOMAIN pg_temp.positive AS int CONSTRAINT above CHECK (VALUE > 0)",
    "COMMENT ON DOMAIN pg_temp.positive IS 'mine'",
    "COMMENT ON CONSTRAINT above ON DOMAIN pg_temp.positive IS 'mine'",
    "ALTER DOMAIN pg_temp.positive ADD CONSTRAINT below CHECK (VALUE < 100)",
    "ALTER DOMAIN pg_temp.positive RENAME CONSTRAINT below TO under",
    "GRANT USAGE ON DOMAIN pg_temp.positive TO clerk",
    "CREATE FUNCTION pg_temp.mood(int) RETURNS pg_temp.mood LANGUAGE sql IMMUTABLE AS $$SELECT 'sad'::pg_temp.mood$$",
    "CREATE CAST (int AS pg_temp.mood) WITH FUNCTION pg_temp.mood(int)",
    "COMMENT ON CAST (int AS pg_temp.mood) IS 'mine'",
    "DROP CAST (int AS pg_temp.mood)",
    "CREATE CAST (int AS pg_temp.mood) WITH FUNCTION pg_temp.mood(int)",
    "DROP TYPE pg_temp.mood CASCADE",
    "DROP DOMAIN pg_temp.positive",
    "CREATE COLLATION pg_temp.plain FROM \"C\"",
    "COMMENT ON COLLATION pg_temp.plain IS 'mine'",
    "ALTER COLLATION pg_temp.plain RENAME TO plain2",
    "DROP COLLATION pg_temp.plain2",
    "ALTER TABLE basket OWNER TO clerk",
    "ALTER TABLE basket OWNER TO CURRENT_USER",
    "ALTER TABLE basket RENAME COLUMN kind TO sort",
    "ALTER TABLE basket RENAME CONSTRAINT basket_pieces_check TO enough",
    "ALTER TABLE basket ADD COLUMN more numeric DEFAULT random()",
    "ALTER TABLE basket ALTER COLUMN more TYPE float8",
    "ALTER TABLE basket ENABLE ROW LEVEL SECURITY",
    "INSERT INTO basket VALUES ('a', 1), ('b', 2)",
    "ALTER TABLE basket ALTER COLUMN more TYPE text USING (random() + pieces)::text",
    "ALTER TABLE basket ADD COLUMN most float DEFAULT random()",
    "CREATE INDEX CONCURRENTLY ON basket (most)",
    "CREATE TEMP TABLE alike (LIKE basket INCLUDING ALL)",
    "COMMENT ON COLUMN alike.most IS 'mine'",
    "ALTER SEQUENCE numbers INCREMENT 5",
    "ALTER SEQUENCE numbers RENAME TO numbers2",
    "ALTER SEQUENCE numbers2 OWNED BY basket.id",
    "ALTER VIEW shown RENAME TO shown2",
    "ALTER INDEX by_pieces RENAME TO by_pieces2",
    "REINDEX TABLE basket",
    "CLUSTER basket USING basket_pkey",
    "CREATE TEMP TABLE upper (n int); CREATE TEMP TABLE lower () INHERITS (upper)",
    "ALTER TABLE lower NO INHERIT upper",
    "ALTER TABLE lower INHERIT upper",
    "CREATE TEMP TABLE parts (n int) PARTITION BY LIST (n); CREATE TEMP TABLE part (n int)",
    "ALTER TABLE parts ATTACH PARTITION part FOR VALUES IN (1)",
    "ALTER TABLE parts DETACH PARTITION part",
    "TRUNCATE basket, line RESTART IDENTITY CASCADE",
    "DROP TABLE basket CASCADE",
    "DROP FUNCTION pg_temp.add(int, int), pg_temp.touch()",
    "DROP TYPE pg_temp.pair",
    "SET search_path = pg_temp, public",
    "CREATE TABLE plain (id int PRIMARY KEY)",
    "COMMENT ON TABLE plain IS 'mine'",
    "CREATE TYPE plain_pair AS (a int)",
    "COMMENT ON TYPE plain_pair IS 'mine'",
    "CREATE FUNCTION pg_temp.plain_one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "GRANT SELECT ON plain TO clerk",
    "CREATE TABLE plain_filled AS SELECT 1 AS one",
    "COMMENT ON COLUMN plain_filled.one IS 'mine'",
    "DROP TABLE plain, plain_filled",
    "DROP TYPE plain_pair",
    "RESET search_path",
    "DROP TABLE IF EXISTS no_such",
    "DROP TYPE IF EXISTS pg_temp.no_such",
    "DROP FUNCTION IF EXISTS no_such(int)",
    "DROP TRIGGER IF EXISTS no_such ON upper",
    "DROP POLICY IF EXISTS no_such ON no_such",
    "DROP SCHEMA IF EXISTS no_such",
    "DISCARD TEMP",
];

#[test]
fn whatever_is_done_to_temporary_objects_stays_at_home() {
    let group = harness::shared();
    clerk(&group);
    let mut client = group.connect(node(1));
    // The temporary schema of a session is made with its first object.
    let mut before = position(&group);
    for statement in LOCAL {
        run(&mut client, &[statement]);
        let after = position(&group);
        assert_eq!(after, before + 1, "{statement} has travelled");
        before = after;
    }
    schema::assert_same(&group);
}

/// A permanent table, type, function and so on that a temporary one has the name of; and statements that find the temporary one.
#[test]
fn a_temporary_object_hides_a_permanent_one_from_statements_but_not_on_other_nodes() {
    let group = harness::shared();
    clerk(&group);
    run(
        &mut group.connect(node(1)),
        &[
            "CREATE TABLE twin (id int PRIMARY KEY, v int CONSTRAINT positive CHECK (v > 0))",
            "CREATE TYPE twin_type AS (a int)",
            "COMMENT ON TABLE twin IS 'permanent'",
            "CREATE TRIGGER twice BEFORE UPDATE ON twin FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        ],
    );
    let before = schema::assert_same(&group);
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "CREATE TEMP TABLE twin (id int PRIMARY KEY, v int CONSTRAINT positive CHECK (v > 0))",
            "CREATE TYPE pg_temp.twin_type AS (a int)",
            "CREATE TRIGGER twice BEFORE UPDATE ON twin FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "COMMENT ON TABLE twin IS 'temporary'",
            "COMMENT ON COLUMN twin.v IS 'temporary'",
            "COMMENT ON CONSTRAINT positive ON twin IS 'temporary'",
            "COMMENT ON TRIGGER twice ON twin IS 'temporary'",
            "COMMENT ON TYPE twin_type IS 'temporary'",
            "COMMENT ON INDEX twin_pkey IS 'temporary'",
            "GRANT SELECT ON twin TO clerk",
            "GRANT UPDATE (v) ON twin TO clerk",
            "GRANT USAGE ON TYPE twin_type TO clerk",
            "ALTER TABLE twin ADD COLUMN w int",
            "ALTER TABLE twin RENAME COLUMN w TO x",
            "CREATE INDEX ON twin (x)",
            "TRUNCATE twin",
            "DROP TRIGGER twice ON twin",
        ],
    );
    assert_eq!(schema::assert_same(&group), before);
    run(
        &mut client,
        &[
            "COMMENT ON TABLE public.twin IS 'still permanent'",
            "DROP TABLE twin",
            "DROP TYPE twin_type",
            "GRANT SELECT ON twin TO clerk",
        ],
    );
    let after = schema::assert_same(&group);
    assert!(after.contains("GRANT SELECT ON TABLE public.twin TO clerk") && after.contains("'still permanent'"), "{after}");
    run(&mut client, &["DROP TABLE twin", "DROP TYPE twin_type"]);
    schema::assert_same(&group);
}

#[test]
fn a_statement_about_temporary_and_permanent_objects_at_once_is_refused() {
    let group = harness::shared();
    clerk(&group);
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "CREATE TABLE here (id int PRIMARY KEY, v int)",
            "CREATE FUNCTION stays() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE TYPE stays_type AS (a int)",
            "CREATE TYPE stays_kind AS ENUM ('a')",
            "CREATE TEMP TABLE mine (id int PRIMARY KEY, v int)",
            "CREATE FUNCTION pg_temp.goes() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE TYPE pg_temp.goes_type AS (a int)",
        ],
    );
    let before = schema::assert_same(&group);
    for statement in [
        "GRANT SELECT ON here, mine TO clerk",
        "GRANT SELECT (id) ON mine, here TO clerk",
        "GRANT EXECUTE ON FUNCTION stays(), pg_temp.goes() TO clerk",
        "REVOKE USAGE ON TYPE stays_type, pg_temp.goes_type FROM PUBLIC",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public, pg_temp TO clerk",
        "DO $$BEGIN EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA public, %s GRANT SELECT ON TABLES TO clerk', \
             (SELECT relnamespace::regnamespace FROM pg_class WHERE oid = 'mine'::regclass)); END$$",
        "DROP FUNCTION pg_temp.goes(), stays()",
        "DROP TYPE stays_type, pg_temp.goes_type",
        "TRUNCATE mine, here",
        "CREATE TABLE alike (LIKE mine INCLUDING DEFAULTS)",
        "CREATE TABLE alike (other int, LIKE mine INCLUDING ALL)",
        "CREATE TABLE kinds (id int DEFAULT pg_temp.goes())",
        "CREATE TABLE kinds (id int CHECK (id > pg_temp.goes()))",
        "CREATE TABLE kinds (id pg_temp.goes_type)",
        "CREATE DOMAIN kind AS int DEFAULT pg_temp.goes()",
        "ALTER TABLE here ADD CHECK (v > pg_temp.goes())",
        "ALTER TABLE here ADD COLUMN w pg_temp.goes_type",
        "CREATE POLICY p ON here USING (pg_temp.goes() > 0)",
        "CREATE INDEX ON here ((v + pg_temp.plus(v, v)))",
        "CREATE VIEW shown AS SELECT pg_temp.goes()",
        "CREATE STATISTICS of_mine ON id, v FROM mine",
        "ALTER TABLE here ALTER COLUMN v SET DEFAULT pg_temp.goes()",
        "CREATE RULE r AS ON INSERT TO here DO ALSO DELETE FROM mine",
        "CREATE OPERATOR public.|+| (FUNCTION = pg_temp.plus, LEFTARG = int, RIGHTARG = int)",
        "CREATE CAST (stays_kind AS int) WITH FUNCTION pg_temp.number(stays_kind)",
    ] {
        run(
            &mut client,
            &[
                "CREATE OR REPLACE FUNCTION pg_temp.plus(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2'",
                "CREATE OR REPLACE FUNCTION pg_temp.number(stays_kind) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'",
            ],
        );
        // Other things may be wrong with it, on one server too.
        refused(&mut client, statement);
    }
    assert_eq!(schema::assert_same(&group), before);
    run(&mut client, &["DROP TABLE here", "DROP FUNCTION stays()", "DISCARD TEMP", "DROP TYPE stays_type, stays_kind"]);
    schema::assert_same(&group);
}

#[test]
fn comments_and_grants_on_permanent_objects_travel() {
    let group = harness::shared();
    clerk(&group);
    let mut client = group.connect(node(2));
    run(
        &mut client,
        &[
            // A temporary schema that is there changes nothing.
            "CREATE TEMP TABLE mine (id int)",
            "CREATE SCHEMA desk; CREATE TABLE desk.paper (id int PRIMARY KEY, v int CONSTRAINT enough CHECK (v > 0))",
            "CREATE TABLE desk.\"Odd \"\" name\" (id int REFERENCES desk.paper)",
            "CREATE FUNCTION desk.f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'",
            "CREATE TYPE desk.mood AS ENUM ('sad')",
            "CREATE DOMAIN desk.positive AS int CONSTRAINT above CHECK (VALUE > 0)",
            "SET search_path = desk, public",
            "COMMENT ON SCHEMA desk IS 'a desk'",
            "COMMENT ON TABLE paper IS 'a paper'",
            "COMMENT ON COLUMN \"Odd \"\" name\".id IS 'odd'",
            "COMMENT ON CONSTRAINT enough ON paper IS 'enough'",
            "COMMENT ON FUNCTION f(int) IS 'f'",
            "COMMENT ON TYPE mood IS 'mood'",
            "COMMENT ON CONSTRAINT above ON DOMAIN positive IS 'above'",
            "GRANT SELECT ON paper, \"Odd \"\" name\" TO clerk",
            "GRANT UPDATE (v) ON paper TO clerk",
            "GRANT EXECUTE ON FUNCTION f(int) TO clerk",
            "GRANT USAGE ON SCHEMA desk TO clerk",
            "GRANT INSERT ON ALL TABLES IN SCHEMA desk TO clerk",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA desk GRANT DELETE ON TABLES TO clerk",
            "ALTER FUNCTION f(int) DEPENDS ON EXTENSION plpgsql",
            "DROP TABLE IF EXISTS \"Odd \"\" name\", no_such",
        ],
    );
    let schema = schema::assert_same(&group);
    for line in ["IS 'a desk'", "IS 'above'", "GRANT UPDATE(v) ON TABLE desk.paper TO clerk", "GRANT DELETE ON TABLES"] {
        assert!(schema.contains(line), "{line}: {schema}");
    }
    assert!(!schema.contains("Odd"), "{schema}");
    run(&mut client, &["DROP SCHEMA desk CASCADE"]);
    schema::assert_same(&group);
}

//! Tables of every shape are written anew on one node, and are the same on all; whatever else goes on.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use gcs::playground::NodeNumber;
use gcs::playground::group::describe;
use postgres::Client;
use postgres_r_tests::harness::{self, Group, catalog, node};
use postgres_r_tests::workload::client::{Failure, classify};

const WRITES_MAX: usize = 400;

fn run(client: &mut Client, statements: &[&str]) {
    for statement in statements {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {}", describe(&error)));
    }
}

/// What the query gives, which must be the same on every node.
fn everywhere(group: &Group, query: &str) -> String {
    group.settle();
    let values = group.values(query);
    assert!(values.iter().all(|value| *value == values[0]), "{query}: {values:#?}");
    values.into_iter().next().unwrap()
}

#[test]
fn what_functions_write_while_a_table_is_written_anew_is_written_once() {
    let group = harness::shared();
    group.settle();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "CREATE TABLE journal (id serial PRIMARY KEY, line text); CREATE TABLE tickets (last int); INSERT INTO tickets VALUES (0)",
            "CREATE FUNCTION note(n bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN INSERT INTO journal (line) VALUES ('saw ' || n); RETURN n; END $$",
            "CREATE FUNCTION ticket() RETURNS int LANGUAGE sql AS 'UPDATE tickets SET last = last + 1 RETURNING last'",
            "CREATE FUNCTION fits(n bigint) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN INSERT INTO journal (line) VALUES ('fits ' || n); RETURN true; END $$",
            "CREATE TABLE watched (id int PRIMARY KEY, v int); INSERT INTO watched SELECT n, n FROM generate_series(1, 10) n",
            "ALTER TABLE watched ALTER COLUMN v TYPE bigint USING note(v)",
            "ALTER TABLE watched ADD COLUMN ticket int NOT NULL DEFAULT ticket()",
            "ALTER TABLE watched ADD CONSTRAINT f CHECK (fits(v))",
            "ALTER TABLE watched ADD CONSTRAINT g CHECK (fits(v)) NOT VALID; ALTER TABLE watched VALIDATE CONSTRAINT g",
            "CREATE DOMAIN noted AS bigint; ALTER TABLE watched ALTER COLUMN v TYPE noted; ALTER DOMAIN noted ADD CHECK (fits(VALUE))",
        ],
    );
    harness::assert_equal(&group);
    assert_eq!(everywhere(&group, "SELECT last FROM tickets"), "10");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM journal WHERE line LIKE 'saw %'"), "10");
    let of_check: i64 = everywhere(&group, "SELECT count(*) FROM journal WHERE line LIKE 'fits %'").parse().unwrap();
    assert!(of_check >= 30 && of_check % 10 == 0, "{of_check}");
    run(&mut client, &["UPDATE watched SET v = v + 1"]);
    harness::assert_equal(&group);
}

#[test]
fn what_functions_make_while_a_table_is_written_anew_is_made_on_every_node() {
    let group = harness::shared();
    group.settle();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "CREATE FUNCTION makes(n int) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'CREATE TABLE IF NOT EXISTS made_' || n || ' (i int)'; RETURN n; END $$",
            "CREATE TABLE making (n int); INSERT INTO making SELECT n FROM generate_series(1, 3) n; CREATE DOMAIN made AS int; CREATE TABLE of_made (n made); INSERT INTO of_made VALUES (8)",
        ],
    );
    for (statement, made) in [
        ("ALTER TABLE making ALTER COLUMN n TYPE bigint USING makes(n)", "1 2 3"),
        ("ALTER TABLE making ADD COLUMN m bigint DEFAULT makes(4)", "1 2 3 4"),
        ("ALTER TABLE making ADD CHECK (makes(n::int + 4) > 0)", "1 2 3 4 5 6 7"),
        ("ALTER DOMAIN made ADD CHECK (makes(VALUE) > 0)", "1 2 3 4 5 6 7 8"),
    ] {
        run(&mut client, &[statement]);
        harness::assert_equal(&group);
        let query =
            r"SELECT string_agg(substr(relname, 6), ' ' ORDER BY relname) FROM pg_class WHERE relname LIKE 'made\_%'";
        assert_eq!(everywhere(&group, query), made, "{statement}");
    }
}

/// The catalog keeps what a new column has in rows that are older, also when there are none.
#[test]
fn a_column_of_an_empty_table_is_the_same_in_every_catalog() {
    let group = harness::shared();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "CREATE TABLE blank (id int); ALTER TABLE blank ADD COLUMN p text DEFAULT 'at ' || current_setting('port')",
            "CREATE TABLE over (id int); CREATE TABLE under () INHERITS (over); ALTER TABLE over ADD COLUMN p text DEFAULT current_setting('port')",
            "CREATE TABLE mixed (id int); CREATE TABLE filled () INHERITS (mixed); INSERT INTO filled VALUES (1)",
            "ALTER TABLE mixed ADD COLUMN p text DEFAULT current_setting('port'), ADD COLUMN q int",
            "CREATE TABLE defined (what text); CREATE FUNCTION on_end() RETURNS event_trigger LANGUAGE plpgsql AS
                $$ BEGIN INSERT INTO defined SELECT object_identity FROM pg_event_trigger_ddl_commands(); END $$",
            "CREATE EVENT TRIGGER on_end ON ddl_command_end EXECUTE FUNCTION on_end()",
            "CREATE TABLE dressed (id int); ALTER TABLE dressed ADD COLUMN n int DEFAULT 1; INSERT INTO dressed (id) VALUES (1)",
            "BEGIN; CREATE TABLE late (id int); ALTER TABLE late ADD COLUMN n int DEFAULT 1, ADD COLUMN m int; COMMIT",
            "DROP EVENT TRIGGER on_end",
        ],
    );
    catalog::assert_same(&group);
    harness::assert_equal(&group);
}

/// A table that the origin has written anew, and others have filled, keeps nothing of what rows without a column had in it.
#[test]
fn what_older_rows_had_in_a_column_is_the_same_in_every_catalog() {
    let group = harness::shared();
    let mut client = group.connect(node(3));
    run(
        &mut client,
        &[
            "CREATE TABLE anew (id int PRIMARY KEY, v int); INSERT INTO anew SELECT n, n FROM generate_series(1, 3) n",
            "ALTER TABLE anew ADD COLUMN a int DEFAULT 1",
            "ALTER TABLE anew ADD COLUMN b float8 DEFAULT random()",
            "CREATE TABLE at_once (id int PRIMARY KEY); INSERT INTO at_once SELECT n FROM generate_series(1, 3) n",
            "ALTER TABLE at_once ADD COLUMN a int DEFAULT 1, ADD COLUMN b float8 DEFAULT random()",
            "CREATE TABLE converted (id int PRIMARY KEY, v text); INSERT INTO converted SELECT n, n FROM generate_series(1, 3) n",
            "ALTER TABLE converted ADD COLUMN a int DEFAULT 1",
            "ALTER TABLE converted ALTER COLUMN v TYPE text USING v || current_setting('port')",
            "CREATE TABLE kept (id int PRIMARY KEY, v text); INSERT INTO kept SELECT n, n FROM generate_series(1, 3) n",
            "ALTER TABLE kept ADD COLUMN a int DEFAULT 1",
            "ALTER TABLE kept ADD COLUMN b text DEFAULT current_setting('port')",
            "CREATE TABLE above (id int PRIMARY KEY, a int DEFAULT 1); CREATE TABLE below () INHERITS (above); INSERT INTO below VALUES (1)",
            "ALTER TABLE above ADD COLUMN c int DEFAULT 2",
            "ALTER TABLE above ADD COLUMN d uuid DEFAULT gen_random_uuid()",
        ],
    );
    catalog::assert_same(&group);
    harness::assert_equal(&group);
}

#[test]
fn values_of_every_type_come_through() {
    let group = harness::shared();
    group.settle();
    let mut client = group.connect(node(2));
    run(
        &mut client,
        &[
            "CREATE SCHEMA \"An Other\"; CREATE TYPE \"An Other\".\"Mood\" AS ENUM ('so so', 'it''s \"ok\"'); CREATE TYPE pair AS (a int, b text);
             CREATE TYPE span AS RANGE (subtype = float8); CREATE DOMAIN plain AS text COLLATE \"C\"",
            "CREATE TABLE \"An Other\".\"Ta ble\" (\"I d\" int PRIMARY KEY); INSERT INTO \"An Other\".\"Ta ble\" SELECT n FROM generate_series(1, 5) n",
            "CREATE FUNCTION same(v anyelement) RETURNS anyelement LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN v; END $$",
            "SET datestyle = 'German'; SET lc_monetary = 'C'; SET bytea_output = 'escape'; SET timezone = 'Asia/Kolkata'; SET standard_conforming_strings = off",
            "ALTER TABLE \"An Other\".\"Ta ble\" ADD COLUMN \"Mo od\" \"An Other\".\"Mood\" DEFAULT same('it''s \"ok\"'::\"An Other\".\"Mood\"),
                ADD p pair DEFAULT same(ROW(1, E'x \\\\ \"'')')::pair), ADD ps pair[] DEFAULT same(ARRAY[ROW(1, 'a,b')::pair, NULL]), ADD s span DEFAULT same('[0.1,0.3)'::span),
                ADD d plain DEFAULT same('plain'::text), ADD b bit(3) NOT NULL DEFAULT same(B'101'), ADD vb varbit DEFAULT same(B'1'::varbit), ADD c char(5) DEFAULT same('ab'::char(5)),
                ADD ch \"char\" DEFAULT same('x'::\"char\"), ADD m money DEFAULT same('12.34'::money), ADD i interval day DEFAULT same('3 days'::interval), ADD n numeric(5, 1) DEFAULT same(12.3),
                ADD t timestamptz(0) DEFAULT same('2020-02-03 04:05:06+00'::timestamptz), ADD tz timetz DEFAULT same('04:05:06+03'::timetz), ADD da date DEFAULT same('2020-02-03'::date),
                ADD by bytea DEFAULT same('\\\\x00ff5c'::bytea), ADD j jsonb DEFAULT same('{\"a\": [1, null]}'::jsonb), ADD x xml DEFAULT same('<a/>'::xml), ADD f float4 DEFAULT same('0.1'::float4),
                ADD inf float8 DEFAULT same('-infinity'::float8), ADD ti timestamp DEFAULT same('infinity'::timestamp), ADD u uuid DEFAULT same('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid),
                ADD na name DEFAULT same('na me'::name), ADD e text NOT NULL DEFAULT same(''::text), ADD nl text DEFAULT same(E'a\\nb\\t$1 \\\\'::text), ADD ts tsvector DEFAULT same('a:1 b'::tsvector),
                ADD arr text[] DEFAULT same('[0:1]={a,\"NULL\"}'::text[]), ADD cl regclass DEFAULT same('pair'::regclass), ADD o oidvector DEFAULT same('1 2'::oidvector), ADD pt point DEFAULT same('(0.1,2)'::point)",
            "RESET ALL; ALTER TABLE \"An Other\".\"Ta ble\" ALTER COLUMN \"Mo od\" TYPE text USING same(\"Mo od\"::text || random())",
        ],
    );
    harness::assert_equal(&group);
    let columns = "SELECT string_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid)), '; ' ORDER BY attnum)
        FROM pg_attribute LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum) WHERE attrelid = '\"An Other\".\"Ta ble\"'::regclass AND attnum > 0";
    everywhere(&group, columns);
    let row =
        everywhere(&group, "SELECT t.c || t.b || t.nl || t.ps::text || t.by || t.e FROM \"An Other\".\"Ta ble\" t LIMIT 1");
    assert!(row.contains("101a\nb\t$1 \\"), "{row}");
}

#[test]
fn tables_of_every_shape_are_written_anew() {
    let group = harness::shared();
    group.settle();
    let mut client = group.connect(node(3));
    run(
        &mut client,
        &[
            "CREATE FUNCTION blur(n int) RETURNS numeric LANGUAGE plpgsql AS $$ BEGIN RETURN n + random(); END $$",
            "CREATE FUNCTION fixed(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN n * 2; END $$",
            "CREATE TABLE shaped (id int, n int, gone text, span int4range, doc jsonb, big text, later int UNIQUE DEFERRABLE INITIALLY DEFERRED,
                twice int GENERATED ALWAYS AS (n * 2) STORED, thrice int GENERATED ALWAYS AS (fixed(n)) STORED,
                EXCLUDE USING gist (span WITH &&), UNIQUE NULLS NOT DISTINCT (id, n))",
            "CREATE UNIQUE INDEX shaped_identity ON shaped (fixed(n)); CREATE INDEX ON shaped USING gin (doc); CREATE INDEX ON shaped (id) WHERE n > 3",
            "INSERT INTO shaped SELECT n, n, 'gone', int4range(n * 10, n * 10 + 5), jsonb_build_object('n', n), (SELECT string_agg(md5((n * i)::text), '') FROM generate_series(1, 400) i), n
                FROM generate_series(1, 60) n",
            "CREATE FUNCTION loud() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'nobody writes here'; END $$",
            "CREATE TRIGGER loud BEFORE INSERT OR DELETE ON shaped FOR EACH ROW EXECUTE FUNCTION loud(); CREATE TRIGGER louder BEFORE TRUNCATE ON shaped EXECUTE FUNCTION loud();
             CREATE RULE quiet AS ON INSERT TO shaped DO INSTEAD NOTHING; ALTER TABLE shaped ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            "ALTER TABLE shaped DROP COLUMN gone",
            "ALTER TABLE shaped ADD COLUMN luck float8 DEFAULT random()",
            "ALTER TABLE shaped ALTER COLUMN id TYPE numeric USING blur(id), ADD COLUMN pid int NOT NULL DEFAULT pg_backend_pid(), ADD PRIMARY KEY (id), ALTER COLUMN big SET STORAGE EXTERNAL, DROP COLUMN later",
            "ALTER TABLE shaped ALTER COLUMN id TYPE numeric USING blur(id::int) + id, REPLICA IDENTITY FULL, ADD COLUMN code serial UNIQUE",
            "BEGIN; CREATE TABLE fresh (n int); INSERT INTO fresh SELECT n FROM generate_series(1, 10) n; ALTER TABLE fresh ADD COLUMN id serial PRIMARY KEY, ALTER COLUMN n TYPE numeric USING blur(n);
             INSERT INTO fresh (n) VALUES (99); ALTER TABLE fresh ADD COLUMN luck float8 DEFAULT random(); UPDATE fresh SET n = n + 1 WHERE id = (SELECT min(id) FROM fresh); COMMIT",
            "BEGIN; TRUNCATE fresh; INSERT INTO fresh (n) SELECT n FROM generate_series(1, 5) n; ALTER TABLE fresh ALTER COLUMN n TYPE text USING n || random()::text; DELETE FROM fresh WHERE n > '3'; COMMIT",
            "BEGIN; SAVEPOINT a; ALTER TABLE fresh ADD COLUMN other float8 DEFAULT random(); ROLLBACK TO a; SAVEPOINT b; ALTER TABLE fresh ADD COLUMN more float8 DEFAULT random();
             RELEASE b; INSERT INTO fresh (n) VALUES ('last'); COMMIT",
            "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM fresh; ALTER TABLE fresh ADD COLUMN serializable float8 DEFAULT random(); COMMIT",
            "CREATE TABLE base (a int, b int); CREATE TABLE turned (b int, c int, a int); INSERT INTO base VALUES (1, 2); INSERT INTO turned VALUES (3, 4, 5); ALTER TABLE turned INHERIT base",
            "ALTER TABLE base ALTER COLUMN b TYPE numeric USING blur(a) * 100 + b, ADD COLUMN luck float8 DEFAULT random()",
            "CREATE TABLE top (id int PRIMARY KEY); CREATE TABLE left_ () INHERITS (top); CREATE TABLE right_ () INHERITS (top); CREATE TABLE bottom () INHERITS (left_, right_);
             INSERT INTO top VALUES (1); INSERT INTO left_ VALUES (2); INSERT INTO bottom VALUES (3)",
            "ALTER TABLE top ADD COLUMN n numeric DEFAULT blur(5)",
            "CREATE TABLE range_ (id int PRIMARY KEY, r int) PARTITION BY RANGE (id); CREATE TABLE range_1 PARTITION OF range_ FOR VALUES FROM (0) TO (10); CREATE TABLE range_2 (r int, gone int, id int NOT NULL);
             ALTER TABLE range_2 DROP COLUMN gone; ALTER TABLE range_ ATTACH PARTITION range_2 DEFAULT; INSERT INTO range_ SELECT n, n FROM generate_series(1, 30) n",
            "CREATE TABLE of_range (id int PRIMARY KEY, r int REFERENCES range_); INSERT INTO of_range SELECT n, n FROM generate_series(1, 30) n",
            "ALTER TABLE range_ ALTER COLUMN r TYPE numeric USING blur(r), ADD COLUMN u uuid DEFAULT gen_random_uuid()",
            "ALTER TABLE IF EXISTS nowhere ADD COLUMN x float8 DEFAULT random()",
        ],
    );
    harness::assert_equal(&group);
    everywhere(
        &group,
        "SELECT string_agg(pg_get_indexdef(indexrelid) || indisvalid, E'\\n' ORDER BY indexrelid::regclass::text) FROM pg_index WHERE indrelid::regclass::text IN ('shaped', 'fresh', 'range_1')",
    );
    assert_eq!(
        everywhere(
            &group,
            "SELECT count(DISTINCT luck) || ' ' || count(DISTINCT id) || ' ' || count(DISTINCT code) FROM shaped"
        ),
        "60 60 60"
    );
    // Indexes find them.
    assert_eq!(everywhere(&group, "SELECT count(*) FROM shaped WHERE doc @> '{\"n\": 7}' AND span && '[70,71]'"), "1");
    run(
        &mut client,
        &[
            "ALTER TABLE shaped DISABLE TRIGGER loud",
            "UPDATE shaped SET n = n + 100, doc = '{}'; DELETE FROM shaped WHERE twice > 300; UPDATE turned SET c = 1; UPDATE bottom SET n = 1; UPDATE of_range SET r = 1; DELETE FROM range_ WHERE id > 5",
        ],
    );
    harness::assert_equal(&group);
}

#[test]
fn a_large_table_is_written_anew_by_its_owner() {
    let group = harness::shared();
    for number in group.numbers() {
        group
            .playground
            .connect(number, "postgres")
            .unwrap()
            .batch_execute("CREATE ROLE builder LOGIN; CREATE ROLE other")
            .unwrap();
    }
    group.settle();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "CREATE SCHEMA site AUTHORIZATION builder; SET search_path = site, public; SET ROLE builder",
            "CREATE TABLE bricks (id int PRIMARY KEY, t text); INSERT INTO bricks SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, 40000) n",
            "CREATE FUNCTION twist(t text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET work_mem = '1MB' AS $$ BEGIN RETURN current_user || random() || t; END $$",
            "ALTER TABLE bricks ALTER COLUMN t TYPE varchar USING twist(t), ADD COLUMN u uuid DEFAULT gen_random_uuid() UNIQUE",
            "CREATE TABLE wall (brick int REFERENCES bricks ON DELETE CASCADE); INSERT INTO wall SELECT n FROM generate_series(1, 100) n",
            "RESET ROLE; ALTER TABLE wall OWNER TO other; GRANT USAGE ON SCHEMA site TO other; GRANT REFERENCES ON bricks TO other",
            "GRANT REFERENCES ON wall TO builder; CREATE FUNCTION site.wide(n int) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN n; END $$",
            "ALTER TABLE bricks ALTER COLUMN id TYPE bigint USING wide(id)",
        ],
    );
    harness::assert_equal(&group);
    assert_eq!(everywhere(&group, "SELECT count(DISTINCT u) FROM site.bricks"), "40000");
    group.execute(node(2), "DELETE FROM site.bricks WHERE id < 5");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM site.wall"), "96");
}

/// Columns are added while other nodes write to the table: some have to try again, nothing is lost or bent.
#[test]
fn a_table_under_load_gets_values_of_its_own() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE loaded (id bigserial PRIMARY KEY, node int); INSERT INTO loaded (node) SELECT 0 FROM generate_series(1, 50)");
    group.settle();
    let stop = AtomicBool::new(false);
    let write = |number: NodeNumber| {
        let mut client = group.connect(number);
        let mut inserted = 0;
        // In the end the column is added, whatever luck it has.
        for _ in 0..WRITES_MAX {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            match client.batch_execute(&format!("INSERT INTO loaded (node) VALUES ({})", number.0)) {
                Ok(()) => inserted += 1,
                Err(error) => assert_eq!(classify(&error), Failure::Retry, "{}", describe(&error)),
            }
        }
        inserted
    };
    let write = &write;
    let inserted: usize = thread::scope(|scope| {
        let writers: Vec<_> = [2, 3].into_iter().map(|number| scope.spawn(move || write(node(number)))).collect();
        let mut client = group.connect(node(1));
        for column in 1..=3 {
            let statement = format!(
                "ALTER TABLE loaded ADD COLUMN luck{column} float8 DEFAULT random(), ADD COLUMN pid{column} int DEFAULT pg_backend_pid()"
            );
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
    assert_eq!(everywhere(&group, "SELECT count(*) FROM loaded"), (inserted + 50).to_string());
}

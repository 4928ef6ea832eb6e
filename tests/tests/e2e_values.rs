//! Nothing is decided twice: what a statement evaluates, and what would come out differently on another node, travels as values.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use gcs::playground::group::describe;
use postgres::Client;
use postgres_r_tests::harness::{self, Group, node};

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

/// Rows of all tables, and the catalogs' word on columns, defaults and constraints: the same on every node.
fn assert_same(group: &Group) {
    harness::assert_equal(group);
    everywhere(
        group,
        "SELECT string_agg(concat_ws(' ', a.attrelid::regclass, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod),
            a.attnotnull, a.atthasdef, a.attidentity, a.attgenerated, a.attislocal, a.attinhcount, pg_get_expr(d.adbin, d.adrelid)), E'\\n'
            ORDER BY a.attrelid::regclass::text, a.attnum)
         FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
         WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND c.oid >= 16384 AND c.relnamespace <> 'pg_toast'::regnamespace",
    );
    everywhere(
        group,
        "SELECT string_agg(concat_ws(' ', conrelid::regclass, contypid::regtype, conname, contype, convalidated, pg_get_constraintdef(oid)), E'\\n'
            ORDER BY conrelid::regclass::text, contypid::regtype::text, conname)
         FROM pg_constraint WHERE oid >= 16384",
    );
    everywhere(
        group,
        "SELECT string_agg(concat_ws(' ', indexrelid::regclass, indisvalid, pg_get_indexdef(indexrelid)), E'\\n' ORDER BY indexrelid::regclass::text)
         FROM pg_index WHERE indexrelid >= 16384 AND indexrelid::regclass::text NOT LIKE 'pg_toast%'",
    );
}

/// Afterwards every node can still change every row of the table.
fn assert_alive(group: &Group, change: &str) {
    for number in group.numbers() {
        group.execute(number, change);
        group.settle();
    }
    assert_same(group);
}

#[test]
fn a_function_of_one_session_only_converts_a_column() {
    let group = harness::shared();
    group.settle();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "CREATE TABLE measured (id int PRIMARY KEY, v text); INSERT INTO measured VALUES (1, '1'), (2, 'x'), (3, '3.5'), (4, NULL)",
            "CREATE TABLE keyless (v text, w text); INSERT INTO keyless VALUES ('1', 'a'), ('1', 'a'), ('x', 'b')",
            "CREATE TABLE hollow (v text NOT NULL)",
            "CREATE FUNCTION pg_temp.to_number(t text) RETURNS numeric LANGUAGE plpgsql IMMUTABLE AS
             $$ BEGIN RETURN t::numeric; EXCEPTION WHEN OTHERS THEN RETURN -1; END $$",
            "ALTER TABLE measured ALTER COLUMN v TYPE numeric USING pg_temp.to_number(v)",
            "ALTER TABLE keyless ALTER COLUMN v TYPE numeric USING pg_temp.to_number(v), ALTER COLUMN w TYPE varchar(5), ADD COLUMN n int DEFAULT 3",
            "ALTER TABLE hollow ALTER COLUMN v TYPE numeric USING pg_temp.to_number(v)",
            "ALTER TABLE measured ALTER COLUMN id TYPE bigint USING pg_temp.to_number(id::text) * 2",
            "BEGIN; INSERT INTO measured VALUES (100, 5); ALTER TABLE measured ALTER COLUMN v TYPE text USING pg_temp.to_number(v::text) || '!';
             UPDATE measured SET v = v || '?' WHERE id = 2; INSERT INTO measured VALUES (101, 'new'); COMMIT",
            "DO $$ BEGIN ALTER TABLE measured ALTER COLUMN v TYPE varchar(20) USING pg_temp.to_number(v) || 'do'; END $$",
            "BEGIN; SAVEPOINT s; ALTER TABLE measured ALTER COLUMN v TYPE text USING pg_temp.to_number(v); ROLLBACK TO s; COMMIT",
        ],
    );
    assert_eq!(
        everywhere(&group, "SELECT string_agg(id || '=' || coalesce(v, 'null'), ' ' ORDER BY id) FROM measured"),
        "2=-1do 4=-1do 6=-1do 8=null 100=-1do 101=-1do"
    );
    assert_eq!(everywhere(&group, "SELECT string_agg(k::text, ' ' ORDER BY k) FROM keyless k"), "(-1,b,3) (1,a,3) (1,a,3)");
    assert_alive(&group, "UPDATE measured SET v = v || '.'; UPDATE keyless SET v = v + 1; INSERT INTO hollow VALUES (1)");
}

#[test]
fn columns_that_make_a_table_new_are_added_to_rows() {
    let group = harness::shared();
    group.settle();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "CREATE TABLE letters (id int PRIMARY KEY, body text); INSERT INTO letters SELECT n, 'word ' || n FROM generate_series(1, 50) n",
            "ALTER TABLE letters ADD COLUMN lexemes tsvector GENERATED ALWAYS AS (to_tsvector('english', body)) STORED",
            "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
            "ALTER TABLE letters ADD COLUMN weight positive DEFAULT 5",
            "ALTER TABLE letters ADD COLUMN more int, ALTER COLUMN id TYPE bigint",
            "ALTER TABLE letters ADD COLUMN length int NOT NULL DEFAULT 7, ALTER COLUMN id TYPE numeric, ADD CHECK (length > 0)",
            "CREATE FUNCTION shout(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN upper(t); END $$",
            "ALTER TABLE letters ADD COLUMN loud text GENERATED ALWAYS AS (shout(body)) STORED",
            "CREATE DOMAIN drawn AS float8 DEFAULT random() CHECK (VALUE >= 0)",
            "ALTER TABLE letters ADD COLUMN luck drawn NOT NULL",
            "CREATE DOMAIN asked AS int DEFAULT pg_backend_pid()",
            "ALTER TABLE letters ADD COLUMN who asked NOT NULL, ADD COLUMN none asked DEFAULT NULL",
        ],
    );
    assert_same(&group);
    assert_eq!(
        everywhere(&group, "SELECT count(*) FROM letters WHERE who IS NOT NULL AND none IS NULL AND weight = 5"),
        "50"
    );
    assert_alive(
        &group,
        "UPDATE letters SET body = body || '.'; DELETE FROM letters WHERE id = (SELECT min(id) FROM letters)",
    );
    // The default of the domain is still the column's.
    group.execute(node(2), "INSERT INTO letters (id, body) VALUES (1000, 'late')");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM letters WHERE id = 1000 AND who IS NOT NULL AND length = 7"), "1");
}

#[test]
fn a_default_evaluated_once_is_the_origins() {
    let group = harness::shared();
    group.settle();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "CREATE TABLE once (id int PRIMARY KEY); INSERT INTO once SELECT n FROM generate_series(1, 20) n",
            "CREATE TABLE rates (rate numeric); INSERT INTO rates VALUES (1.5)",
            "CREATE FUNCTION rate() RETURNS numeric LANGUAGE sql STABLE AS 'SELECT max(rate) FROM rates'",
            "CREATE FUNCTION luck() RETURNS float8 LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN random(); END $$",
            "CREATE FUNCTION constantly() RETURNS float8 LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN random(); END $$",
            "ALTER TABLE once ADD COLUMN pid int DEFAULT pg_backend_pid()",
            "BEGIN; SELECT pg_sleep(0.01); ALTER TABLE once ADD COLUMN at timestamptz DEFAULT statement_timestamp(); COMMIT",
            "ALTER TABLE once ADD COLUMN address inet NOT NULL DEFAULT inet_client_addr()",
            "ALTER TABLE once ADD COLUMN port int NOT NULL DEFAULT inet_client_port() CHECK (port > 0)",
            "ALTER TABLE once ADD COLUMN rate numeric(6, 2) NOT NULL DEFAULT rate(), ADD COLUMN luck float8 DEFAULT luck()",
            "ALTER TABLE once ADD COLUMN fixed float8 DEFAULT constantly() NOT NULL, ADD COLUMN ago interval DEFAULT - make_interval(secs => pg_backend_pid())",
            "SET intervalstyle = sql_standard; SET datestyle = 'SQL, DMY'; SET extra_float_digits = -10",
            "ALTER TABLE once ADD COLUMN odd interval DEFAULT make_interval(days => -1, hours => 2) * (pg_backend_pid() / pg_backend_pid()), ADD COLUMN day date DEFAULT statement_timestamp()::date,
             ADD COLUMN half float8[] DEFAULT ARRAY[luck(), NULL]",
            "RESET ALL; ALTER TABLE once ADD COLUMN started text DEFAULT pg_postmaster_start_time()::text || E'\\t''\\\\'",
            "ALTER TABLE once ADD COLUMN nothing inet DEFAULT nullif(inet_client_addr(), inet_client_addr())",
            "ALTER TABLE once ADD COLUMN IF NOT EXISTS pid int DEFAULT pg_backend_pid() * 2",
            "ALTER TABLE once ADD COLUMN twice int DEFAULT pg_backend_pid(), ALTER COLUMN twice SET DEFAULT 4, ALTER COLUMN twice SET NOT NULL",
            "ALTER TABLE once ADD COLUMN me text DEFAULT session_user, ADD COLUMN here text DEFAULT current_catalog, ADD COLUMN since timestamptz DEFAULT now()",
            "BEGIN; INSERT INTO once (id) VALUES (50); ALTER TABLE once ADD COLUMN last int DEFAULT pg_backend_pid(); INSERT INTO once (id) VALUES (51); COMMIT",
            "DO $$ BEGIN EXECUTE 'ALTER TABLE once ADD COLUMN inside int DEFAULT pg_backend_pid()'; END $$",
        ],
    );
    assert_same(&group);
    let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    assert_eq!(everywhere(&group, "SELECT string_agg(DISTINCT pid::text, ' ') FROM once"), backend.to_string());
    assert_eq!(
        everywhere(
            &group,
            "SELECT string_agg(DISTINCT concat_ws(' ', rate, odd, address, twice = pid), ';') FROM once WHERE id < 50"
        ),
        "1.50 -1 days +02:00:00 127.0.0.1 t"
    );
    // What is inserted from now on has each session's own.
    group.execute(node(3), "INSERT INTO once (id) VALUES (100)");
    assert_eq!(everywhere(&group, "SELECT twice FROM once WHERE id = 100"), "4");
    assert_alive(&group, "UPDATE once SET pid = pid + 1");
    everywhere(
        &group,
        "SELECT string_agg(attname || atthasmissing, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'once'::regclass AND attnum > 0",
    );
}

#[test]
fn each_part_of_a_table_keeps_what_was_evaluated_for_it() {
    let group = harness::shared();
    group.settle();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "CREATE FUNCTION lot() RETURNS float8 LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN random(); END $$",
            "CREATE TABLE parted (id int PRIMARY KEY, v int) PARTITION BY RANGE (id)",
            "CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (100); CREATE TABLE high PARTITION OF parted FOR VALUES FROM (100) TO (200)
             PARTITION BY LIST (id); CREATE TABLE higher PARTITION OF high DEFAULT; CREATE TABLE none PARTITION OF parted DEFAULT",
            "INSERT INTO parted SELECT n, n FROM generate_series(1, 199) n",
            "ALTER TABLE parted ADD COLUMN pid int DEFAULT pg_backend_pid()",
            "ALTER TABLE parted ADD COLUMN lot float8 DEFAULT lot()",
            "ALTER TABLE parted ADD COLUMN luck float8 DEFAULT random() NOT NULL",
            "ALTER TABLE parted ALTER COLUMN v TYPE numeric USING v + lot()",
            "CREATE TABLE mother (id int PRIMARY KEY, a text); CREATE TABLE child (b int) INHERITS (mother); CREATE TABLE grandchild () INHERITS (child)",
            "ALTER TABLE child DROP COLUMN b; INSERT INTO mother VALUES (1, 'x'); INSERT INTO child VALUES (2, 'y'); INSERT INTO grandchild VALUES (3, 'z')",
            "ALTER TABLE mother ADD COLUMN lot float8 DEFAULT lot(), ADD COLUMN pid int DEFAULT pg_backend_pid()",
            "ALTER TABLE mother ALTER COLUMN a TYPE numeric USING lot(), ADD COLUMN u uuid DEFAULT gen_random_uuid()",
            "CREATE TABLE elder (id int); CREATE TABLE younger (n int DEFAULT 5) INHERITS (elder); INSERT INTO younger VALUES (1, 2)",
        ],
    );
    assert_same(&group);
    assert_eq!(
        everywhere(&group, "SELECT count(DISTINCT tableoid::regclass) || ' ' || count(DISTINCT lot) FROM parted"),
        "2 2"
    );
    // Its default is not the one of the column it is merged with.
    let error = client.batch_execute("ALTER TABLE elder ADD COLUMN n int DEFAULT pg_backend_pid()").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "0A000", "{error}");
    run(&mut client, &["ALTER TABLE elder ADD COLUMN n int DEFAULT 7"]);
    assert_alive(&group, "UPDATE parted SET v = v + 1; UPDATE mother SET a = 1; UPDATE younger SET n = n + 1");
}

#[test]
fn a_volatile_default_fills_a_new_column_of_rows_that_are_there() {
    let group = harness::shared();
    group.settle();
    let mut client = group.connect(node(2));
    run(
        &mut client,
        &[
            "CREATE TABLE grown (name text NOT NULL, big text); INSERT INTO grown SELECT 'n' || n, repeat(md5(n::text), 3000) FROM generate_series(1, 30) n",
            "ALTER TABLE grown DROP COLUMN big; ALTER TABLE grown ADD COLUMN big text DEFAULT 'b'",
            "ALTER TABLE grown ADD COLUMN luck float8 DEFAULT random()",
            "ALTER TABLE grown ADD COLUMN u uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE",
            "ALTER TABLE grown ADD COLUMN clock timestamptz NOT NULL DEFAULT clock_timestamp(), ALTER COLUMN name TYPE varchar(10)",
            "ALTER TABLE grown ADD COLUMN id serial PRIMARY KEY",
            "ALTER TABLE grown ADD COLUMN n bigint GENERATED ALWAYS AS IDENTITY",
            "CREATE SEQUENCE own; ALTER TABLE grown ADD COLUMN own int DEFAULT nextval('own') CHECK (own > 0)",
            "ALTER TABLE grown ADD COLUMN again float8 DEFAULT random(), ADD COLUMN last float8 DEFAULT random() * 10",
            "CREATE INDEX ON grown ((luck * 2)) WHERE luck > 0.5",
            "ALTER TABLE grown ADD COLUMN indexed float8 DEFAULT random()",
        ],
    );
    assert_same(&group);
    assert_eq!(
        everywhere(
            &group,
            "SELECT concat_ws(' ', count(DISTINCT luck), count(DISTINCT u), count(DISTINCT id), count(DISTINCT n), count(DISTINCT own)) FROM grown"
        ),
        "30 30 30 30 30"
    );
    for number in group.numbers() {
        group.execute(number, "INSERT INTO grown (name) SELECT 'later' FROM generate_series(1, 10)");
    }
    assert_eq!(everywhere(&group, "SELECT count(DISTINCT id) || ' ' || count(DISTINCT n) FROM grown"), "60 60");
    assert_alive(
        &group,
        "UPDATE grown SET name = 'x', luck = 1 WHERE luck < 0.3; DELETE FROM grown WHERE id = (SELECT min(id) FROM grown)",
    );
}

#[test]
fn functions_count_as_what_they_do() {
    let group = harness::shared();
    group.settle();
    let mut client = group.connect(node(3));
    run(
        &mut client,
        &[
            "CREATE FUNCTION noisy(a int, b int) RETURNS int LANGUAGE plpgsql VOLATILE AS $$ BEGIN RETURN a + b + (random() * 1000000)::int; END $$",
            "CREATE OPERATOR #+ (LEFTARG = int, RIGHTARG = int, FUNCTION = noisy)",
            "CREATE TABLE counted (id int PRIMARY KEY, v int, w int, x int); INSERT INTO counted SELECT n, n, n, n FROM generate_series(1, 40) n",
            "ALTER TABLE counted ALTER COLUMN v TYPE bigint USING (v #+ 1)",
            "CREATE TYPE wrapped AS (n int); CREATE FUNCTION wrap(n int) RETURNS wrapped LANGUAGE plpgsql VOLATILE AS $$ BEGIN RETURN ROW(n + (random() * 1000000)::int)::wrapped; END $$",
            "CREATE CAST (int AS wrapped) WITH FUNCTION wrap(int) AS ASSIGNMENT",
            "ALTER TABLE counted ALTER COLUMN w TYPE wrapped",
            "CREATE FUNCTION steady(n int) RETURNS numeric LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN n + random(); END $$",
            "ALTER TABLE counted ALTER COLUMN x TYPE numeric USING steady(x)",
            "CREATE FUNCTION inlined(n numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT n + steady(1)'",
            "ALTER TABLE counted ALTER COLUMN x TYPE numeric(20, 10) USING inlined(x)",
            // By way of a domain's check, an array, a set of settings, another table.
            "CREATE TABLE allowed (n numeric); INSERT INTO allowed VALUES (1)",
            "CREATE FUNCTION ratio(x numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT x * (SELECT max(n) FROM allowed)'",
            "ALTER TABLE counted ALTER COLUMN x TYPE numeric USING ratio(x)",
            "SET app.factor = '3'; ALTER TABLE counted ALTER COLUMN x TYPE float8 USING x * current_setting('app.factor')::int; RESET app.factor",
            "ALTER TABLE counted ALTER COLUMN x TYPE text USING x::text || pg_backend_pid() || txid_current()",
            "ALTER TABLE counted ALTER COLUMN x TYPE text USING x || session_user || current_catalog",
            // Typed tables follow their type.
            "CREATE TYPE shape AS (a int, b int); CREATE TABLE shaped OF shape; INSERT INTO shaped SELECT n, n FROM generate_series(1, 10) n",
            "ALTER TYPE shape ALTER ATTRIBUTE b TYPE wrapped CASCADE",
        ],
    );
    assert_same(&group);
    assert_eq!(everywhere(&group, "SELECT count(*) FROM counted WHERE v < 1000000 + 100"), "40");
    assert_alive(
        &group,
        "UPDATE counted SET v = v + 1; DELETE FROM counted WHERE id = (SELECT max(id) FROM counted); UPDATE shaped SET a = a + 1",
    );
}

#[test]
fn keys_and_those_who_refer_to_them_are_converted() {
    let group = harness::shared();
    group.settle();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "CREATE FUNCTION spread(n int) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN n; END $$",
            "CREATE TABLE parent (id int PRIMARY KEY, code int UNIQUE, note text); INSERT INTO parent SELECT n, n + 100, 'p' FROM generate_series(1, 20) n",
            "CREATE TABLE kid (id int PRIMARY KEY, parent int NOT NULL REFERENCES parent ON UPDATE CASCADE, code int REFERENCES parent (code), self int REFERENCES kid)",
            "INSERT INTO kid SELECT n, n, n + 100, n FROM generate_series(1, 20) n",
            "CREATE TABLE split (id int, parent int REFERENCES parent) PARTITION BY RANGE (id); CREATE TABLE split1 PARTITION OF split FOR VALUES FROM (0) TO (10);
             CREATE TABLE split2 PARTITION OF split DEFAULT; INSERT INTO split SELECT n, n FROM generate_series(1, 20) n",
            "ALTER TABLE parent ALTER COLUMN id TYPE bigint USING spread(id)",
            "ALTER TABLE parent ALTER COLUMN code TYPE bigint USING spread(code), ADD COLUMN luck float8 DEFAULT random()",
            "ALTER TABLE kid ALTER COLUMN id TYPE bigint USING spread(id)",
            "ALTER TABLE kid ALTER COLUMN parent TYPE bigint USING spread(parent)",
            "ALTER TABLE kid ADD COLUMN other int DEFAULT 1 + pg_backend_pid() - pg_backend_pid() REFERENCES parent",
            "ALTER TABLE kid ADD COLUMN third int DEFAULT 1 + (random() * 10)::int REFERENCES parent",
        ],
    );
    assert_same(&group);
    assert_alive(&group, "UPDATE parent SET note = note || '.'; UPDATE kid SET other = other + 1 WHERE id > 3");
    let error = group.connect(node(2)).batch_execute("DELETE FROM parent WHERE id = 3").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "23503", "{error}");
}

#[test]
fn a_check_that_reads_something_else_is_made_once() {
    let group = harness::shared();
    group.settle();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "CREATE TABLE limits (top int); INSERT INTO limits VALUES (100)",
            "CREATE FUNCTION within(n bigint) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RETURN n < (SELECT max(top) FROM limits)
                AND inet_client_addr() IS NOT NULL; END $$",
            "CREATE TABLE checked (id int PRIMARY KEY, v int); INSERT INTO checked SELECT n, n FROM generate_series(1, 10) n",
            "ALTER TABLE checked ADD CONSTRAINT small CHECK (within(v))",
            "ALTER TABLE checked ADD COLUMN w int DEFAULT 5 CHECK (within(w)), ADD CONSTRAINT two CHECK (within(v) AND within(w)) NOT VALID",
            "ALTER TABLE checked VALIDATE CONSTRAINT two",
            "CREATE TABLE checked_parts (id int) PARTITION BY RANGE (id); CREATE TABLE checked_part PARTITION OF checked_parts DEFAULT; INSERT INTO checked_parts VALUES (1)",
            "ALTER TABLE checked_parts ADD CONSTRAINT part CHECK (within(id))",
            "ALTER TABLE checked_parts ADD CONSTRAINT part2 CHECK (within(id)) NOT VALID; ALTER TABLE checked_parts VALIDATE CONSTRAINT part2",
            "CREATE DOMAIN bounded AS int; CREATE TABLE in_domain (id int PRIMARY KEY, v bounded); INSERT INTO in_domain VALUES (1, 1)",
            "ALTER DOMAIN bounded ADD CONSTRAINT bound CHECK (within(VALUE))",
            "ALTER DOMAIN bounded ADD CHECK (within(VALUE + 1))",
            "ALTER DOMAIN bounded ADD CONSTRAINT later CHECK (within(VALUE)) NOT VALID; ALTER DOMAIN bounded VALIDATE CONSTRAINT later",
            "ALTER TABLE checked ALTER COLUMN v TYPE bigint",
            "CREATE FUNCTION is_short(t text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RETURN length(t) < (SELECT max(top) FROM limits)
                AND inet_client_addr() IS NOT NULL; END $$",
            "CREATE TABLE words (w varchar(10) CHECK (is_short(w)), n int); INSERT INTO words VALUES ('a', 1), ('b', 2)",
            "ALTER TABLE words ALTER COLUMN w TYPE varchar(20) USING w",
        ],
    );
    assert_same(&group);
    let refused = client.batch_execute("ALTER TABLE checked ADD CHECK (within(v + 95))").unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "23514", "{refused}");
    assert_alive(&group, "UPDATE checked SET v = v + 1");
}

#[test]
fn what_is_certain_travels_as_text_and_not_as_rows() {
    let group = harness::shared();
    group.settle();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "CREATE TABLE certain (id int PRIMARY KEY, v int, t timestamp, b bytea); INSERT INTO certain SELECT n, n, now(), convert_to(repeat('x', 2000), 'UTF8') FROM generate_series(1, 2000) n",
            // Far less than the rows would take.
            "SET postgres_r.max_writeset_size = '1MB'",
        ],
    );
    run(
        &mut client,
        &[
            "ALTER TABLE certain ALTER COLUMN id TYPE bigint",
            "ALTER TABLE certain ALTER COLUMN v TYPE text USING lower('N' || v)",
            "ALTER TABLE certain ALTER COLUMN t TYPE timestamptz, ADD COLUMN at timestamptz NOT NULL DEFAULT now(), ADD COLUMN zero int DEFAULT 0",
            "ALTER TABLE certain ADD COLUMN length int GENERATED ALWAYS AS (length(v)) STORED",
            "ALTER TABLE certain ADD COLUMN pid int DEFAULT pg_backend_pid()",
            "ALTER TABLE certain ADD CHECK (length > 0)",
        ],
    );
    assert_same(&group);
    // Rows that travel count as what they are.
    let error = client.batch_execute("ALTER TABLE certain ADD COLUMN luck float8 DEFAULT random()").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "54000", "{error}");
    assert_same(&group);
}

#[test]
fn a_table_made_of_a_query_in_a_function_is_the_origins() {
    let group = harness::shared();
    group.settle();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "CREATE FUNCTION make(name text) RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE made bigint; BEGIN
                EXECUTE format('CREATE TABLE %I AS SELECT n, random() AS r, clock_timestamp() AS c FROM generate_series(1, 10) n', name);
                EXECUTE format('ALTER TABLE %I ADD COLUMN luck float8 DEFAULT random(), ALTER COLUMN n TYPE text USING n::text || pg_backend_pid()', name);
                EXECUTE format('SELECT count(*) FROM %I', name) INTO made; RETURN made; END $$",
            "SELECT make('made_once'); DO $$ BEGIN PERFORM make('made_twice'); END $$",
            "CREATE PROCEDURE make_all() LANGUAGE plpgsql AS $$ BEGIN CREATE TABLE made_here WITH (fillfactor = 70) AS SELECT random() AS r;
                PERFORM make('made_there'); COMMIT; CREATE TABLE made_later AS TABLE made_here; END $$",
            "CALL make_all()",
        ],
    );
    assert_same(&group);
    assert_eq!(everywhere(&group, "SELECT reloptions FROM pg_class WHERE relname = 'made_here'"), "{fillfactor=70}");
    assert_alive(&group, "UPDATE made_once SET r = 0 WHERE r < 0.5; UPDATE made_later SET r = r + 1");
}

#[test]
fn bounds_of_partitions_are_the_origins() {
    let group = harness::shared();
    group.settle();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "CREATE TABLE by_pid (pid int) PARTITION BY RANGE (pid); CREATE TABLE by_time (at timestamptz) PARTITION BY RANGE (at); CREATE TABLE by_list (n float8, t text) PARTITION BY LIST (t)",
            "CREATE FUNCTION lately() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RETURN clock_timestamp(); END $$",
            "CREATE TABLE mine PARTITION OF by_pid FOR VALUES FROM (pg_backend_pid()) TO (pg_backend_pid() + 1)",
            "CREATE TABLE others (pid int); INSERT INTO others VALUES (pg_backend_pid() + 5); ALTER TABLE by_pid ATTACH PARTITION others FOR VALUES FROM (pg_backend_pid() + 1) TO (MAXVALUE)",
            "SET datestyle = 'German'; CREATE TABLE lately PARTITION OF by_time FOR VALUES FROM (MINVALUE) TO (lately()); CREATE TABLE today PARTITION OF by_time FOR VALUES FROM (lately()) TO (now() + '1 day')",
            "CREATE TABLE of_list PARTITION OF by_list (CHECK (n > 0)) FOR VALUES IN ('it''s', 'a' || pg_backend_pid(), NULL) PARTITION BY RANGE (n); CREATE TABLE rest PARTITION OF by_list DEFAULT",
        ],
    );
    assert_same(&group);
    let bounds = "SELECT string_agg(relname || ' ' || pg_get_expr(relpartbound, oid), E'\\n' ORDER BY relname) FROM pg_class WHERE relispartition";
    assert!(everywhere(&group, bounds).contains("DEFAULT"));
    run(
        &mut client,
        &[
            "INSERT INTO by_pid VALUES (pg_backend_pid()), (pg_backend_pid() + 9); CREATE TABLE few PARTITION OF of_list FOR VALUES FROM (0) TO (5); INSERT INTO by_list VALUES (1, NULL), (2, 'x')",
        ],
    );
    assert_same(&group);
}

#[test]
fn settings_of_a_function_are_taken_from_its_session() {
    let group = harness::shared();
    group.settle();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "SET work_mem = '12345kB'; SET xmlbinary = hex; SET timezone_abbreviations = 'India'",
            "CREATE FUNCTION current() RETURNS int LANGUAGE sql SET work_mem FROM CURRENT SET xmlbinary FROM CURRENT AS 'SELECT 1'",
            "CREATE TABLE files (id int PRIMARY KEY, body bytea, said text); INSERT INTO files VALUES (1, '\\x00ff', '2020-01-01 00:00 IST')",
            "ALTER TABLE files ALTER COLUMN body TYPE text USING xmlelement(name b, body)::text",
            "ALTER TABLE files ALTER COLUMN said TYPE timestamptz USING said::timestamptz",
            "ALTER FUNCTION current() SET timezone_abbreviations FROM CURRENT",
        ],
    );
    assert_same(&group);
    assert_eq!(
        everywhere(&group, "SELECT proconfig FROM pg_proc WHERE proname = 'current'"),
        "{work_mem=12345kB,xmlbinary=hex,timezone_abbreviations=India}"
    );
    assert_eq!(everywhere(&group, "SELECT body || (said AT TIME ZONE 'UTC') FROM files"), "<b>00FF</b>2019-12-31 18:30:00");
}

//! Statements that PostgreSQL would run differently on each node, and so travel as something else: CREATE TABLE AS and SELECT INTO as the
//! table and its rows, setval() as ALTER SEQUENCE ... RESTART.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use gcs::playground::group::describe;
use postgres::Client;
use postgres_r_tests::harness::{self, Group, node};

fn run(client: &mut Client, statements: &[&str]) {
    for statement in statements {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {}", describe(&error)));
    }
}

fn code(client: &mut Client, statement: &str) -> String {
    let error = client.batch_execute(statement).expect_err(statement);
    let _ = client.batch_execute("ROLLBACK");
    error.code().map(|code| code.code().to_owned()).unwrap_or_default()
}

/// Every column of every table, as the catalogs of each node say.
fn assert_same_columns(group: &Group) {
    let query = "SELECT string_agg(concat_ws(' ', a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod),
            CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::regcollation END, pg_get_userbyid(c.relowner)), E'\\n'
            ORDER BY a.attrelid::regclass::text, a.attnum)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
        WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND a.attnum > 0 AND c.oid >= 16384";
    let columns = group.values(query);
    assert!(columns.iter().all(|of_node| *of_node == columns[0]), "{columns:#?}");
}

#[test]
fn create_table_as_travels_as_the_table_and_its_rows() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TYPE pair AS (a int, b text); CREATE SCHEMA \"Other one\";
         CREATE DOMAIN posint AS int CHECK (VALUE > 0);
         CREATE TABLE source (id int PRIMARY KEY, t varchar(10) COLLATE \"C\", n numeric(10, 2), m mood, p pair, d posint);
         INSERT INTO source SELECT n, 'r' || n, n / 3.0, 'happy', ROW(n, 'b'::text)::pair, n FROM generate_series(1, 50) n",
    );
    group.settle();
    let mut client = group.connect(node(2));
    run(
        &mut client,
        &[
            "CREATE TABLE copied AS SELECT *, random() AS r, now() AS at, gen_random_uuid() AS u FROM source",
            "CREATE TABLE \"Other one\".\"Quoted \"\" name\" (\"A a\", b) AS SELECT id, m FROM source WHERE id < 5",
            "SELECT id, p, ARRAY[m] AS ms INTO selected FROM source",
            "CREATE TABLE nothing AS SELECT * FROM source WITH NO DATA; CREATE TABLE none AS SELECT * FROM source WHERE false",
            "CREATE TABLE IF NOT EXISTS copied AS SELECT 1 AS other",
            "CREATE TABLE IF NOT EXISTS fresh AS SELECT 1 AS other",
            "CREATE TABLE big AS SELECT n, repeat(md5(n::text), 3000) AS t FROM generate_series(1, 20) n",
            "SET search_path = \"Other one\", public; CREATE TABLE placed AS TABLE source; RESET search_path",
            "PREPARE q (int) AS SELECT * FROM source WHERE id < $1; CREATE TABLE executed AS EXECUTE q (4)",
            "BEGIN; CREATE TABLE changed AS SELECT * FROM source; UPDATE changed SET n = 0; DELETE FROM changed WHERE id > 3;
             ALTER TABLE changed ADD PRIMARY KEY (id); INSERT INTO changed (id) VALUES (100); COMMIT",
            "BEGIN; SAVEPOINT s; CREATE TABLE undone AS SELECT * FROM source; ROLLBACK TO s; INSERT INTO copied (id) VALUES (51); COMMIT",
            "DO $$ BEGIN CREATE TABLE from_do AS SELECT id FROM source; INSERT INTO from_do VALUES (0); END $$",
            "CREATE TEMP TABLE fleeting AS SELECT * FROM source; SELECT id INTO TEMP also_fleeting FROM source",
            "CREATE TABLE from_fleeting AS SELECT * FROM fleeting",
            "CREATE TABLE stored USING heap WITH (fillfactor = 50, autovacuum_enabled, toast.autovacuum_enabled = off) AS SELECT 'a'::text AS t",
        ],
    );
    harness::assert_equal(&group);
    assert_same_columns(&group);
    assert_eq!(group.values("SELECT count(*) FROM copied"), ["51", "51", "51"]);
    let options =
        "SELECT concat_ws(' ', c.reloptions, t.reloptions) FROM pg_class c JOIN pg_class t ON t.oid = c.reltoastrelid
        WHERE c.oid = 'stored'::regclass";
    let stored = "{fillfactor=50,autovacuum_enabled=true} {autovacuum_enabled=off}";
    assert_eq!(group.values(options), [stored, stored, stored]);
    assert_eq!(group.values("SELECT sum(n) FROM changed"), ["0.00", "0.00", "0.00"]);
    // From here on they are tables like others.
    group.execute(node(3), "UPDATE copied SET r = random(); INSERT INTO fresh VALUES (2); DELETE FROM big WHERE n > 3");
    harness::assert_equal(&group);
}

#[test]
fn what_the_query_of_create_table_as_does_travels() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE noted (n int);
         CREATE FUNCTION note(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO noted VALUES (n); RETURN n; END $$;
         CREATE FUNCTION make(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN CREATE TABLE made (n int); RETURN n; END $$",
    );
    group.settle();
    let mut client = group.connect(node(2));
    run(&mut client, &["CREATE TABLE with_notes AS SELECT note(n) AS n FROM generate_series(1, 5) n"]);
    run(&mut client, &["CREATE TABLE with_table AS SELECT make(1)"]);
    run(
        &mut client,
        &["EXPLAIN ANALYZE CREATE TABLE explained AS SELECT note(n) AS n, random() AS r FROM generate_series(6, 7) n"],
    );
    assert_eq!(code(&mut client, "CREATE TABLE with_notes AS SELECT 1"), "42P07");
    harness::assert_equal(&group);
    assert_same_columns(&group);
    assert_eq!(group.values("SELECT count(*) FROM noted"), ["7", "7", "7"]);
    assert_eq!(group.values("SELECT to_regclass('made') IS NOT NULL"), ["true", "true", "true"]);
}

#[test]
fn setval_starts_the_sequence_again_on_every_node() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE SEQUENCE draw; CREATE SEQUENCE small MAXVALUE 10000; CREATE TABLE drawn (n bigint PRIMARY KEY, node int);
         CREATE TABLE loaded (id serial PRIMARY KEY, v int);
         CREATE FUNCTION set_it(n bigint) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM setval('draw', n); END $$",
    );
    group.settle();
    let draw = |from: i64| {
        group.settle();
        for number in group.numbers() {
            let insert = format!("INSERT INTO drawn SELECT nextval('draw'), {} FROM generate_series(1, 20)", number.0);
            group.execute(number, &insert);
        }
        harness::assert_equal(&group);
        assert_eq!(group.value(node(1), &format!("SELECT count(*) FROM drawn WHERE n <= {from}")), "0", "above {from}");
        group.execute(node(1), "TRUNCATE drawn");
        group.settle();
    };
    let mut client = group.connect(node(2));
    run(&mut client, &["SELECT nextval('draw'); SELECT setval('draw', 1000)"]);
    draw(1000);
    run(&mut client, &["SELECT setval('draw', 5000, false)"]);
    draw(4999);
    run(&mut client, &["SELECT set_it(10000); DO $$ DECLARE n bigint; BEGIN n := setval('small', 5); END $$"]);
    draw(10000);
    // As pg_dump writes it.
    run(
        &mut client,
        &[
            "COPY loaded FROM PROGRAM 'printf \"1\\t1\\n40\\t1\\n\"'; SELECT pg_catalog.setval('public.loaded_id_seq', 40, true)",
            "SELECT * FROM setval('draw', 20000); WITH s AS (SELECT setval('draw', 30000)) SELECT * FROM s",
        ],
    );
    draw(30000);
    for number in group.numbers() {
        group.execute(number, "INSERT INTO loaded (v) SELECT 2 FROM generate_series(1, 10)");
    }
    harness::assert_equal(&group);
    assert_eq!(group.value(node(1), "SELECT count(*) FROM loaded WHERE id > 40"), "30");
    // What is rolled back never was, unlike on one server.
    run(&mut client, &["BEGIN; SELECT setval('draw', 1); ROLLBACK"]);
    draw(30000);
    run(&mut client, &["CREATE TEMP SEQUENCE fleeting; SELECT setval('fleeting', 7)"]);
    let next: i64 = client.query_one("SELECT nextval('fleeting')", &[]).unwrap().get(0);
    assert_eq!(next, 8, "a temporary sequence is nobody else's");
    assert_eq!(code(&mut client, "SELECT setval('small', 10001)"), "22003");
    run(&mut client, &["SELECT setval('small', 10000)"]);
    assert_eq!(code(&mut client, "SELECT nextval('small')"), "2200H");
    assert_eq!(code(&mut client, "SELECT setval('drawn', 1)"), "42809");
    assert_eq!(code(&mut client, "BEGIN READ ONLY; SELECT setval('draw', 1)"), "25006");
    assert_eq!(code(&mut client, "SET LOCAL ROLE pg_monitor; SELECT setval('draw', 1)"), "42501");
}

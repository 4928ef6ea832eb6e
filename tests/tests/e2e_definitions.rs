//! Kinds of objects that a database has beside tables and functions: made, altered, renamed, described and dropped on one node, they are
//! the same on all. And tables whose rows are not the group's: unlogged and foreign ones.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::time::Duration;

use postgres::Client;
use postgres_r_tests::harness::{self, everywhere, node, step};

fn code(client: &mut Client, statement: &str) -> String {
    let error = client.batch_execute(statement).unwrap_err();
    error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error}")).code().code().to_owned()
}

/// Old dumps make views of tables; PostgreSQL can do so up to 15.
#[test]
fn a_rule_makes_a_view_of_a_table() {
    let group = harness::shared();
    if group.major() > 15 {
        let error = group.connect(node(2)).batch_execute(
            "CREATE TABLE becomes (id int); CREATE RULE \"_RETURN\" AS ON SELECT TO becomes DO INSTEAD SELECT 1",
        );
        assert_eq!(error.unwrap_err().code(), Some(&postgres::error::SqlState::WRONG_OBJECT_TYPE));
        return;
    }
    step(
        &group,
        1,
        "CREATE TABLE shown (id int PRIMARY KEY); INSERT INTO shown VALUES (1); CREATE TABLE becomes (id int); CREATE TABLE stays (id int); INSERT INTO stays VALUES (1)",
    );
    step(&group, 2, "CREATE RULE \"_RETURN\" AS ON SELECT TO becomes DO INSTEAD SELECT * FROM shown");
    assert_eq!(
        everywhere(
            &group,
            "SELECT relkind::text || ' ' || (SELECT id FROM becomes) FROM pg_class WHERE relname = 'becomes'"
        ),
        "v 1"
    );
    let error = group
        .connect(node(2))
        .batch_execute("CREATE RULE \"_RETURN\" AS ON SELECT TO stays DO INSTEAD SELECT * FROM shown")
        .unwrap_err();
    assert_eq!(error.code().unwrap().code(), "55000");
    step(&group, 3, "INSERT INTO stays VALUES (2)");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM stays"), "2");
    harness::assert_equal(&group);
}

/// Of a subscription that does not connect, as in a dump, the definition travels, and nobody subscribes.
#[test]
fn subscriptions_that_do_not_connect_are_defined_everywhere_and_enabled_nowhere() {
    let group = harness::shared();
    step(
        &group,
        2,
        "CREATE SUBSCRIPTION defined CONNECTION 'host=nowhere dbname=x' PUBLICATION p, q WITH (connect = false)",
    );
    step(
        &group,
        3,
        "ALTER SUBSCRIPTION defined SET (slot_name = NONE, binary = true); ALTER SUBSCRIPTION defined DROP PUBLICATION q WITH (refresh = false); COMMENT ON SUBSCRIPTION defined IS 'x'",
    );
    step(
        &group,
        1,
        "ALTER SUBSCRIPTION defined CONNECTION 'host=elsewhere'; ALTER SUBSCRIPTION defined RENAME TO \"as defined\"",
    );
    let definition = "SELECT concat_ws(' ', subname, subconninfo, subenabled, subbinary, subpublications, obj_description(oid, 'pg_subscription')) FROM pg_subscription";
    assert_eq!(everywhere(&group, definition), "as defined host=elsewhere f t {p} x");
    step(&group, 2, "DROP SUBSCRIPTION \"as defined\"; DROP SUBSCRIPTION IF EXISTS \"as defined\"");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM pg_subscription"), "0");
}

#[test]
fn text_search_means_the_same_on_every_node() {
    let group = harness::shared();
    step(
        &group,
        1,
        "CREATE TEXT SEARCH TEMPLATE plain (LEXIZE = dsimple_lexize, INIT = dsimple_init);
         CREATE TEXT SEARCH PARSER words (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);
         CREATE TEXT SEARCH DICTIONARY short (TEMPLATE = plain, STOPWORDS = english);
         CREATE TEXT SEARCH CONFIGURATION ours (COPY = english);
         COMMENT ON TEXT SEARCH CONFIGURATION ours IS 'of this test'",
    );
    step(&group, 2, "ALTER TEXT SEARCH CONFIGURATION ours ALTER MAPPING FOR asciiword WITH short");
    step(
        &group,
        3,
        "CREATE TABLE doc (id int PRIMARY KEY, t text, v tsvector GENERATED ALWAYS AS (to_tsvector('ours', t)) STORED);
         CREATE INDEX ON doc USING gin (v)",
    );
    step(&group, 1, "INSERT INTO doc VALUES (1, 'the quick foxes')");
    step(&group, 2, "INSERT INTO doc VALUES (2, 'brown foxes'); UPDATE doc SET t = t || ' jump' WHERE id = 1");
    assert_eq!(
        everywhere(&group, "SELECT string_agg(v::text, ';' ORDER BY id) FROM doc"),
        "'foxes':3 'jump':4 'quick':2;'brown':1 'foxes':2"
    );
    step(&group, 3, "ALTER TEXT SEARCH DICTIONARY short (STOPWORDS)");
    step(&group, 1, "INSERT INTO doc VALUES (3, 'the end')");
    assert_eq!(everywhere(&group, "SELECT v FROM doc WHERE id = 3"), "'end':2 'the':1");
    step(
        &group,
        2,
        "ALTER TEXT SEARCH CONFIGURATION ours RENAME TO mine; CREATE SCHEMA moved;
         ALTER TEXT SEARCH CONFIGURATION mine SET SCHEMA moved; ALTER TEXT SEARCH DICTIONARY short OWNER TO postgres",
    );
    assert_eq!(everywhere(&group, "SELECT obj_description('moved.mine'::regconfig, 'pg_ts_config')"), "of this test");
    step(
        &group,
        3,
        "DROP SCHEMA moved CASCADE; DROP TEXT SEARCH DICTIONARY short; DROP TEXT SEARCH TEMPLATE plain; DROP TEXT SEARCH PARSER words",
    );
    assert_eq!(everywhere(&group, "SELECT count(*) FROM pg_ts_config WHERE oid >= 16384"), "0");
    // What is not there is passed over, and is nothing for the group.
    step(&group, 1, "DROP TEXT SEARCH CONFIGURATION IF EXISTS ours");
    harness::assert_equal(&group);
}

#[test]
fn operator_classes_types_conversions_languages_and_publications_are_made_everywhere() {
    let group = harness::shared();
    step(
        &group,
        1,
        "CREATE OPERATOR FAMILY backwards USING btree;
         CREATE FUNCTION compare_backwards(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT btint4cmp($2, $1)';
         CREATE OPERATOR CLASS backwards_int FOR TYPE int USING btree FAMILY backwards AS
             OPERATOR 1 >, OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <, FUNCTION 1 compare_backwards(int, int);
         ALTER OPERATOR FAMILY backwards USING btree ADD OPERATOR 1 > (int8, int8);
         CREATE TABLE turned (n int); CREATE UNIQUE INDEX turned_n ON turned (n backwards_int)",
    );
    step(&group, 2, "INSERT INTO turned VALUES (1), (2), (3)");
    step(&group, 3, "UPDATE turned SET n = n + 10; DELETE FROM turned WHERE n = 12");
    assert_eq!(code(&mut group.connect(node(1)), "INSERT INTO turned VALUES (11), (11)"), "23505");
    step(&group, 1, "ALTER OPERATOR CLASS backwards_int USING btree RENAME TO turned_int");
    step(
        &group,
        2,
        "COMMENT ON OPERATOR CLASS turned_int USING btree IS 'x'; ALTER OPERATOR FAMILY backwards USING btree OWNER TO postgres",
    );
    assert_eq!(everywhere(&group, "SELECT string_agg(n::text, ' ' ORDER BY n USING >) FROM turned"), "13 11");
    step(
        &group,
        3,
        "CREATE TYPE shade; CREATE FUNCTION shade_in(cstring) RETURNS shade LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
         CREATE FUNCTION shade_out(shade) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
         CREATE TYPE shade (INPUT = shade_in, OUTPUT = shade_out, LIKE = int4);
         CREATE TABLE painted (id int PRIMARY KEY, s shade)",
    );
    step(&group, 1, "INSERT INTO painted VALUES (1, '7')");
    step(&group, 2, "UPDATE painted SET s = '8'");
    assert_eq!(everywhere(&group, "SELECT s FROM painted"), "8");
    step(
        &group,
        1,
        "CREATE CONVERSION latin FOR 'UTF8' TO 'LATIN1' FROM utf8_to_iso8859_1; ALTER CONVERSION latin RENAME TO roman",
    );
    step(
        &group,
        2,
        "CREATE LANGUAGE ours HANDLER plpgsql_call_handler; ALTER LANGUAGE ours RENAME TO mine; COMMENT ON LANGUAGE mine IS 'l'",
    );
    step(&group, 3, "CREATE ACCESS METHOD heap_too TYPE TABLE HANDLER heap_tableam_handler");
    step(
        &group,
        1,
        "CREATE PUBLICATION several FOR TABLE painted; ALTER PUBLICATION several ADD TABLE turned; ALTER PUBLICATION several SET (publish = 'insert')",
    );
    step(
        &group,
        2,
        "CREATE PUBLICATION everything FOR ALL TABLES; COMMENT ON PUBLICATION everything IS 'p'; ALTER PUBLICATION several RENAME TO few",
    );
    let made = "SELECT (SELECT string_agg(conname, ',') FROM pg_conversion WHERE oid >= 16384)
        || ' ' || (SELECT string_agg(lanname, ',') FROM pg_language WHERE oid >= 16384 AND lanname <> 'plpgsql')
        || ' ' || (SELECT string_agg(amname, ',') FROM pg_am WHERE oid >= 16384)
        || ' ' || (SELECT string_agg(pubname, ',' ORDER BY pubname) FROM pg_publication)
        || ' ' || (SELECT string_agg(tablename, ',' ORDER BY tablename) FROM pg_publication_tables WHERE pubname = 'few')";
    assert_eq!(everywhere(&group, made), "roman mine heap_too everything,few painted,turned");
    step(
        &group,
        3,
        "DROP CONVERSION roman; DROP LANGUAGE mine; DROP ACCESS METHOD heap_too; DROP PUBLICATION few, everything",
    );
    step(&group, 1, "DROP OPERATOR FAMILY backwards USING btree CASCADE; DROP TYPE shade CASCADE");
    let left = "SELECT count(*) FROM pg_index WHERE indexrelid::regclass::text = 'turned_n'";
    assert_eq!(everywhere(&group, left), "0");
    harness::assert_equal(&group);
}

#[test]
fn what_a_role_owns_goes_or_is_given_away_on_every_node() {
    let group = harness::shared();
    for number in group.numbers() {
        let mut server = group.playground.connect(number, "postgres").unwrap();
        server.batch_execute("CREATE ROLE leaver; CREATE ROLE heir").unwrap();
    }
    step(
        &group,
        1,
        "CREATE TABLE left_behind (id int PRIMARY KEY); ALTER TABLE left_behind OWNER TO leaver;
         CREATE TABLE kept (id int); GRANT SELECT ON kept TO leaver; CREATE VIEW shown_behind AS SELECT 1; ALTER VIEW shown_behind OWNER TO leaver",
    );
    step(&group, 2, "REASSIGN OWNED BY leaver TO heir");
    assert_eq!(everywhere(&group, "SELECT relowner::regrole FROM pg_class WHERE relname = 'left_behind'"), "heir");
    step(&group, 3, "DROP OWNED BY leaver");
    assert_eq!(everywhere(&group, "SELECT has_table_privilege('leaver', 'kept', 'SELECT')"), "false");
    step(&group, 1, "DROP OWNED BY heir");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM pg_class WHERE relname IN ('left_behind', 'shown_behind')"), "0");
    harness::assert_equal(&group);
    for number in group.numbers() {
        let mut server = group.playground.connect(number, "postgres").unwrap();
        server.batch_execute("DROP ROLE leaver, heir").unwrap();
    }
}

#[test]
fn a_table_is_clustered_on_one_node_and_known_to_be_on_all() {
    let group = harness::shared();
    step(
        &group,
        1,
        "CREATE TABLE heap (id int PRIMARY KEY, n int); CREATE INDEX heap_n ON heap (n); INSERT INTO heap SELECT n, -n FROM generate_series(1, 100) n",
    );
    step(&group, 2, "CLUSTER heap USING heap_n");
    assert_eq!(
        everywhere(&group, "SELECT indexrelid::regclass FROM pg_index WHERE indisclustered AND indrelid = 'heap'::regclass"),
        "heap_n"
    );
    step(&group, 3, "CLUSTER heap");
    step(&group, 3, "UPDATE heap SET n = 0 WHERE id = 50");
    harness::assert_equal(&group);
}

#[test]
fn rows_of_an_unlogged_table_stay_where_they_are_written() {
    let group = harness::shared();
    step(
        &group,
        1,
        "CREATE UNLOGGED TABLE cached (id serial PRIMARY KEY, t text UNIQUE); CREATE UNLOGGED TABLE computed AS SELECT 1.5 AS x",
    );
    group.settle();
    for number in group.numbers() {
        group.execute(number, &format!("INSERT INTO cached (t) VALUES ('of {}'), ('too')", number.0));
        group.execute(number, "UPDATE cached SET t = t || '!'; DELETE FROM cached WHERE t = 'too!'");
    }
    group.settle();
    for number in group.numbers() {
        assert_eq!(group.value(number, "SELECT string_agg(t, ',') FROM cached"), format!("of {}!", number.0));
    }
    assert_eq!(group.values("SELECT count(*) FROM computed"), ["1", "0", "0"]);
    step(&group, 2, "ALTER TABLE cached ADD COLUMN n int DEFAULT 7; CREATE INDEX ON cached (n)");
    assert_eq!(everywhere(&group, "SELECT n FROM cached"), "7");
    step(&group, 1, "TRUNCATE cached");
    group.settle();
    assert_eq!(group.values("SELECT count(*) FROM cached"), ["0", "1", "1"]);
    // From here on they are the group's: those of the node that says so.
    step(&group, 2, "ALTER TABLE cached ALTER id DROP DEFAULT; DROP SEQUENCE cached_id_seq; ALTER TABLE cached SET LOGGED");
    assert_eq!(everywhere(&group, "SELECT string_agg(t, ',') FROM cached"), "of 2!");
    step(&group, 3, "INSERT INTO cached VALUES (5, 'everywhere')");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM cached"), "2");
    assert_eq!(code(&mut group.connect(node(1)), "CREATE UNLOGGED TABLE refers (id int REFERENCES cached)"), "0A000");
    step(&group, 1, "DROP TABLE cached, computed");
    harness::assert_equal(&group);
}

/// The foreign server is another database of the first node's server, so that all nodes mean the same one.
#[test]
fn foreign_tables_are_the_same_everywhere_and_written_once() {
    let group = harness::shared();
    let mut server = group.playground.connect(node(1), "postgres").unwrap();
    server.batch_execute("CREATE DATABASE elsewhere").unwrap();
    let port: String = server.query_one("SHOW port", &[]).unwrap().get(0);
    let mut elsewhere = group.playground.connect(node(1), "elsewhere").unwrap();
    elsewhere
        .batch_execute(
            "CREATE TYPE mood AS ENUM ('glad', 'sad'); CREATE TABLE goods (id int PRIMARY KEY, t text); INSERT INTO goods VALUES (1, 'a');
             CREATE TABLE \"More goods\" (id int PRIMARY KEY, x numeric(8, 2))",
        )
        .unwrap();
    step(
        &group,
        1,
        &format!(
            "CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw
                 OPTIONS (host '127.0.0.1', port '{port}', dbname 'elsewhere');
             CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user 'postgres');
             CREATE SCHEMA imported; CREATE FOREIGN TABLE goods (id int, t text) SERVER far"
        ),
    );
    // The wrapper writes the statements; the schema is not in the search path.
    step(&group, 2, "IMPORT FOREIGN SCHEMA public FROM SERVER far INTO imported");
    assert_eq!(
        everywhere(
            &group,
            "SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class WHERE relnamespace = 'imported'::regnamespace"
        ),
        "More goods,goods"
    );
    assert_eq!(everywhere(&group, "SELECT t FROM imported.goods"), "a");
    step(
        &group,
        3,
        "INSERT INTO goods VALUES (2, 'b'), (3, 'c'); UPDATE imported.goods SET t = t || t WHERE id = 2; DELETE FROM goods WHERE id = 1",
    );
    assert_eq!(everywhere(&group, "SELECT string_agg(t, ',' ORDER BY id) FROM goods"), "bb,c");
    // Together with rows of the group, once.
    step(
        &group,
        1,
        "CREATE TABLE own (id int PRIMARY KEY); BEGIN; INSERT INTO own VALUES (1); INSERT INTO goods VALUES (4, 'd'); COMMIT",
    );
    assert_eq!(everywhere(&group, "SELECT count(*) FROM goods, own WHERE goods.id = 4"), "1");
    step(
        &group,
        2,
        "ALTER FOREIGN TABLE goods OPTIONS (ADD table_name 'goods'); ALTER FOREIGN TABLE goods ADD COLUMN n int; ALTER FOREIGN TABLE goods DROP COLUMN n",
    );
    step(
        &group,
        3,
        "ALTER SERVER far VERSION '2'; COMMENT ON FOREIGN TABLE goods IS 'g'; ALTER FOREIGN TABLE goods RENAME TO wares",
    );
    assert_eq!(code(&mut group.connect(node(1)), "TRUNCATE wares, own RESTART IDENTITY"), "0A000");
    group.settle();
    // Rows that come behind it are not lost when others apply what was ordered before.
    step(&group, 1, "TRUNCATE wares; INSERT INTO wares VALUES (9, 'new')");
    group.becomes(node(3), "SELECT string_agg(t, ',') FROM wares", "new", Duration::from_secs(20));
    assert_eq!(everywhere(&group, "SELECT string_agg(t, ',') FROM wares"), "new");
    step(
        &group,
        2,
        "DROP FOREIGN TABLE wares; DROP USER MAPPING FOR CURRENT_USER SERVER far; DROP SERVER far CASCADE; DROP SCHEMA imported; DROP EXTENSION postgres_fdw",
    );
    assert_eq!(everywhere(&group, "SELECT count(*) FROM pg_foreign_server"), "0");
    harness::assert_equal(&group);
}

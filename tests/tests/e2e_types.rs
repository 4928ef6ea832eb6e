//! Values of every type, inserted, updated and deleted on one node, are the same on all: beside a key, as the key, and in a table
//! without any. The list of built-in types is PostgreSQL's own, so that none is forgotten.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::fmt::Write;
use std::time::Duration;

use gcs::playground::NodeNumber;
use gcs::playground::group::describe;
use postgres::Client;
use postgres_r_tests::harness::{self, Group, fingerprint, node, wait};

/// Two different values of each base and range type of pg_catalog, as SQL expressions without the cast; none for those that only
/// PostgreSQL itself can make a value of.
const SAMPLES: &[(&str, Option<[&str; 2]>)] = &[
    ("aclitem", Some(["'=r/postgres'", "'postgres=rw*/postgres'"])),
    ("bit", Some(["B'1'", "B'0'"])),
    ("bool", Some(["true", "false"])),
    ("box", Some(["'(1,2),(3,4)'", "'(-1,-2),(0.1,1e300)'"])),
    ("bpchar", Some(["'a  '", "'ç'"])),
    ("bytea", Some(["'\\x00ff'", "decode(repeat('00ab', 5000), 'hex')"])),
    ("char", Some(["'a'", "'\\200'"])),
    ("cid", Some(["'1'", "'4294967295'"])),
    ("cidr", Some(["'10.0.0.0/8'", "'2001:db8::/32'"])),
    ("circle", Some(["'<(1,2),3>'", "'<(0,0),0.1>'"])),
    ("date", Some(["'infinity'", "'0044-03-15 BC'"])),
    ("datemultirange", Some(["'{}'", "'{[2020-01-01,2020-02-01),[2021-01-01,)}'"])),
    ("daterange", Some(["'empty'", "'[2020-01-01,)'"])),
    ("float4", Some(["'-0'", "'NaN'"])),
    ("float8", Some(["0.1", "'-Infinity'"])),
    ("gtsvector", None),
    ("inet", Some(["'10.0.0.1/24'", "'::1'"])),
    ("int2", Some(["'-32768'", "'32767'"])),
    ("int2vector", Some(["'1 2 3'", "''"])),
    ("int4", Some(["'-2147483648'", "1"])),
    ("int4multirange", Some(["'{[1,3),[5,9)}'", "'{(,)}'"])),
    ("int4range", Some(["'[1,5)'", "'(,3]'"])),
    ("int8", Some(["'-9223372036854775808'", "1"])),
    ("int8multirange", Some(["'{[1,3)}'", "'{}'"])),
    ("int8range", Some(["'[1,50000000000)'", "'empty'"])),
    ("interval", Some(["'-1 year 2 mons -3 days 04:05:06.789'", "'1 day'"])),
    ("json", Some(["'{\"a\" : [1,  2]}'", "'null'"])),
    ("jsonb", Some(["'{\"a\": 1.00, \"ç\": [null, true]}'", "'{}'"])),
    ("jsonpath", Some(["'$.a[*] ? (@ > 1)'", "'lax $'"])),
    ("line", Some(["'{1,2,3}'", "'{0,1,-0.5}'"])),
    ("lseg", Some(["'[(0,0),(1,1)]'", "'[(1,2),(3,4)]'"])),
    ("macaddr", Some(["'08:00:2b:01:02:03'", "'ff:ff:ff:ff:ff:ff'"])),
    ("macaddr8", Some(["'08:00:2b:01:02:03:04:05'", "'00:00:00:00:00:00:00:00'"])),
    ("money", Some(["'-92233720368547758.08'", "'12.34'"])),
    ("name", Some(["'ana'", "repeat('x', 63)"])),
    ("numeric", Some(["'1.1000'", "'-Infinity'"])),
    ("nummultirange", Some(["'{[1.0,2.00)}'", "'{[1,2],[3,)}'"])),
    ("numrange", Some(["'[1.0,2.00)'", "'(,)'"])),
    ("oid", Some(["0", "4294967295"])),
    ("oidvector", Some(["'1 2'", "''"])),
    ("path", Some(["'((0,0),(1,1))'", "'[(0,0),(1,1),(2,2)]'"])),
    ("pg_brin_bloom_summary", None),
    ("pg_brin_minmax_multi_summary", None),
    ("pg_dependencies", None),
    ("pg_lsn", Some(["'0/0'", "'FFFFFFFF/FFFFFFFF'"])),
    ("pg_mcv_list", None),
    ("pg_ndistinct", None),
    (
        "pg_node_tree",
        Some(["(SELECT ev_action FROM pg_rewrite ORDER BY oid LIMIT 1)", "(SELECT ev_qual FROM pg_rewrite LIMIT 1)"]),
    ),
    ("pg_snapshot", Some(["'10:20:10,14,15'", "'10:10:'"])),
    ("point", Some(["'(1,2)'", "'(NaN,-0)'"])),
    ("polygon", Some(["'((0,0),(1,1),(2,0))'", "'((0,0))'"])),
    ("refcursor", Some(["'c'", "''"])),
    ("regclass", Some(["'pg_class'", "'harness.marker'"])),
    ("regcollation", Some(["'\"C\"'", "'\"POSIX\"'"])),
    ("regconfig", Some(["'english'", "'simple'"])),
    ("regdictionary", Some(["'english_stem'", "'simple'"])),
    ("regnamespace", Some(["'public'", "'harness'"])),
    ("regoper", Some(["'||/'", "0"])),
    ("regoperator", Some(["'+(int4,int4)'", "0"])),
    ("regproc", Some(["'now'", "0"])),
    ("regprocedure", Some(["'abs(int4)'", "'postgres_r.capture()'"])),
    ("regrole", Some(["'postgres'", "'pg_monitor'"])),
    ("regtype", Some(["'int4'", "'harness.marker'"])),
    ("text", Some(["''", "repeat('Ωmega ', 20000)"])),
    ("tid", Some(["'(0,1)'", "'(4294967295,65535)'"])),
    ("time", Some(["'24:00'", "'12:34:56.789'"])),
    ("timestamp", Some(["'-infinity'", "'2020-02-03 04:05:06.789'"])),
    ("timestamptz", Some(["'infinity'", "'2020-02-03 04:05:06+05:30'"])),
    ("timetz", Some(["'12:00+02'", "'10:00+00'"])),
    ("tsmultirange", Some(["'{[2020-01-01,2020-01-02)}'", "'{}'"])),
    ("tsquery", Some(["'a & !b <-> c'", "''"])),
    ("tsrange", Some(["'[2020-01-01,)'", "'empty'"])),
    ("tstzmultirange", Some(["'{[2020-01-01,2020-01-02)}'", "'{}'"])),
    ("tstzrange", Some(["'[2020-01-01,)'", "'empty'"])),
    ("tsvector", Some(["'a:1A b:2,3'", "to_tsvector('english', 'the quick foxes')"])),
    ("txid_snapshot", Some(["'10:20:10,14,15'", "'10:10:'"])),
    ("uuid", Some(["'00000000-0000-0000-0000-000000000001'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"])),
    ("varbit", Some(["B'10101'", "B''"])),
    ("varchar", Some(["'a '", "''"])),
    ("xid", Some(["'0'", "'4294967295'"])),
    ("xid8", Some(["'0'", "'18446744073709551615'"])),
    ("xml", Some(["'<a b=\"c\"/>'", "'text <b/> more'"])),
];

/// Settings that change how values read, as a session of another country may have them.
const FOREIGN: &str = "SET datestyle = 'SQL, DMY'; SET intervalstyle = sql_standard; SET timezone = 'Asia/Kolkata';
    SET extra_float_digits = -6; SET bytea_output = escape; SET search_path = harness, public; SET array_nulls = off;
    SET quote_all_identifiers = on";

struct Type {
    name: String,
    values: Option<[String; 2]>,
    /// Whether a btree can hold it.
    is_ordered: bool,
}

/// Every base, range and multirange type of pg_catalog and its array type.
fn built_in_types(client: &mut Client) -> Vec<Type> {
    let rows = client
        .query(
            "SELECT t.typname::text, t.typarray <> 0, EXISTS (SELECT FROM pg_opclass c JOIN pg_am a ON a.oid = c.opcmethod
                 WHERE a.amname = 'btree' AND c.opcdefault AND (c.opcintype = t.oid OR (t.typtype = 'r' AND c.opcintype = 'anyrange'::regtype)
                     OR (t.typtype = 'm' AND c.opcintype = 'anymultirange'::regtype)))
             FROM pg_type t WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype IN ('b', 'r', 'm')
                 AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid) ORDER BY 1",
            &[],
        )
        .unwrap();
    let mut types = Vec::new();
    for row in rows {
        let (name, has_array, is_ordered): (String, bool, bool) = (row.get(0), row.get(1), row.get(2));
        let (_, values) =
            SAMPLES.iter().find(|(of, _)| *of == name).unwrap_or_else(|| panic!("type {name} is new: give it a sample"));
        let values = values.map(|values| values.map(|value| format!("{value}::pg_catalog.\"{name}\"")));
        if has_array {
            let arrays = values.as_ref().map(|[a, b]| [format!("ARRAY[{a}, NULL, {b}]"), format!("ARRAY[ARRAY[{b}]]")]);
            types.push(Type { name: format!("_{name}"), values: arrays, is_ordered });
        }
        types.push(Type { name, values, is_ordered });
    }
    assert!(types.len() > 130, "only {} types were found", types.len());
    types
}

/// Tables and changes for one type: beside a key, without a key, and as the key.
#[derive(Default)]
struct Script {
    create: String,
    insert: String,
    update: String,
    delete: String,
}

impl Script {
    fn add(&mut self, table: &str, type_name: &str, values: Option<&[String; 2]>, is_ordered: bool) {
        let [a, b] = values.cloned().unwrap_or(["NULL".to_owned(), "NULL".to_owned()]);
        let _ = write!(
            self.create,
            "CREATE TABLE \"v {table}\" (id int PRIMARY KEY, v {type_name}, x int);
             CREATE TABLE \"n {table}\" (v {type_name}, x int);"
        );
        let _ = write!(
            self.insert,
            "INSERT INTO \"v {table}\" VALUES (1, {a}), (2, {b}), (3, NULL), (4, {a}), (5, {b});
             INSERT INTO \"n {table}\" VALUES ({a}), ({b}), (NULL), ({a});"
        );
        let _ = write!(
            self.update,
            "UPDATE \"v {table}\" SET v = {b} WHERE id = 1; UPDATE \"v {table}\" SET x = 1 WHERE id IN (2, 3);
             UPDATE \"v {table}\" SET v = NULL WHERE id = 4; UPDATE \"v {table}\" SET v = {a} WHERE id = 3;
             UPDATE \"n {table}\" SET v = {b} WHERE ctid = (SELECT min(ctid) FROM \"n {table}\");
             UPDATE \"n {table}\" SET x = 1;"
        );
        let _ = write!(
            self.delete,
            "DELETE FROM \"v {table}\" WHERE id = 5; DELETE FROM \"n {table}\" WHERE v IS NULL;
             DELETE FROM \"n {table}\" WHERE ctid = (SELECT min(ctid) FROM \"n {table}\");"
        );
        // What is too long for an index has no business in a key.
        if is_ordered && values.is_some() && !a.contains("repeat") && !b.contains("repeat") && !b.contains("foxes") {
            let _ = write!(self.create, "CREATE TABLE \"k {table}\" (v {type_name} PRIMARY KEY, x int);");
            let _ = write!(self.insert, "INSERT INTO \"k {table}\" VALUES ({a}), ({b});");
            let _ = write!(self.update, "UPDATE \"k {table}\" SET x = 1;");
            let _ = write!(self.delete, "DELETE FROM \"k {table}\" WHERE v = {a};");
        }
    }

    fn parts(&self) -> [&str; 4] {
        [&self.create, &self.insert, &self.update, &self.delete]
    }
}

#[test]
fn every_built_in_type_and_its_array_travels() {
    let group = harness::shared();
    let mut client = group.connect(node(1));
    let mut script = Script::default();
    for found in built_in_types(&mut client) {
        script.add(&found.name, &format!("pg_catalog.\"{}\"", found.name), found.values.as_ref(), found.is_ordered);
    }
    for (at, part) in script.parts().into_iter().enumerate() {
        group.settle();
        let mut client = group.connect(node(at % 3 + 1));
        if at > 1 {
            client.batch_execute(FOREIGN).unwrap();
        }
        client.batch_execute(part).unwrap_or_else(|error| panic!("{}", describe(&error)));
        harness::assert_equal(&group);
    }
    assert_eq!(group.value(node(3), "SELECT count(*) FROM \"v int4\" WHERE v IS NOT NULL"), "3");
}

/// A database of its own: extensions and base types must be there before replication starts.
fn start_types_database(group: &Group) {
    for number in group.numbers() {
        group.playground.connect(number, "postgres").unwrap().batch_execute("CREATE DATABASE types").unwrap();
        let mut client = connect(group, number);
        client
            .batch_execute(
                "CREATE EXTENSION postgres_r; CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree;
                 CREATE TYPE word;
                 CREATE FUNCTION word_in(cstring) RETURNS word LANGUAGE internal IMMUTABLE STRICT AS 'textin';
                 CREATE FUNCTION word_out(word) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
                 CREATE TYPE word (INPUT = word_in, OUTPUT = word_out, LIKE = text);
                 CREATE TYPE count8;
                 CREATE FUNCTION count8_in(cstring) RETURNS count8 LANGUAGE internal IMMUTABLE STRICT AS 'int8in';
                 CREATE FUNCTION count8_out(count8) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int8out';
                 CREATE TYPE count8 (INPUT = count8_in, OUTPUT = count8_out, LIKE = int8)",
            )
            .unwrap_or_else(|error| panic!("{}", describe(&error)));
        client.batch_execute("ALTER DATABASE types START REPLICATION IN GROUP postgresr").unwrap();
    }
    connect(group, node(1)).batch_execute("CREATE TABLE mark (n int PRIMARY KEY)").unwrap();
}

fn connect(group: &Group, number: NodeNumber) -> Client {
    group.playground.connect(number, "types").unwrap()
}

fn assert_types_equal(group: &Group) {
    let insert = "INSERT INTO mark SELECT count(*) FROM mark RETURNING n";
    let mark: i32 = connect(group, node(1)).query_one(insert, &[]).unwrap().get(0);
    let prints: Vec<_> = group
        .numbers()
        .into_iter()
        .map(|number| {
            let mut client = connect(group, number);
            wait::until("the mark", Duration::from_secs(30), || {
                let found = client.query_opt("SELECT 1 FROM mark WHERE n = $1", &[&mark]);
                found.map_err(|error| describe(&error))?.ok_or_else(|| "not there".to_owned())
            });
            fingerprint::take(&mut client).unwrap()
        })
        .collect();
    for print in &prints[1..] {
        let different: Vec<_> = print.iter().filter(|(table, rows)| prints[0].get(*table) != Some(rows)).collect();
        assert!(different.is_empty() && print.len() == prints[0].len(), "{different:#?}");
    }
}

#[test]
fn types_of_users_and_extensions_travel() {
    let group = harness::shared();
    start_types_database(&group);
    let types: [(&str, [&str; 2], bool); 24] = [
        ("mood", ["'sad'", "'happy'"], true),
        ("mood[]", ["'{sad,NULL,happy}'", "'{}'"], true),
        ("amount", ["1.50", "2"], true),
        ("amount[]", ["'{1.0,NULL}'", "'{}'"], true),
        ("polite", ["'happy'", "'happy'"], false),
        ("names", ["'{a,\"NULL\",NULL}'", "'{}'"], true),
        ("pair", ["ROW(1, 'x, \"y\"', NULL)", "ROW(NULL, '', 'sad')"], false),
        ("pair[]", ["ARRAY[ROW(1, 'a', 'sad')::pair, NULL]", "'{}'"], false),
        ("everything", [EVERYTHING, "NULL"], false),
        ("everything[]", [EVERYTHING_TWICE, "NULL"], false),
        ("moods", ["'[sad,happy)'", "'empty'"], true),
        ("moods_many", ["'{[sad,sad]}'", "'{}'"], true),
        ("words", ["'[a,b)'", "'(,z]'"], true),
        ("word", ["'a word'", "''"], false),
        ("word[]", ["'{a,NULL}'", "'{}'"], false),
        ("count8", ["'9223372036854775807'", "'-1'"], false),
        ("hstore", ["'a=>1, \"b c\"=>NULL'", "''"], false),
        ("citext", ["'Ana'", "'bia'"], true),
        ("citext[]", ["'{Ana,NULL}'", "'{}'"], true),
        ("ltree", ["'a.b.c'", "''"], true),
        ("lquery", ["'*.a|b.*{1,2}'", "'a'"], false),
        ("ltxtquery", ["'a & b*@'", "'c'"], false),
        ("mark", ["ROW(7)", "NULL"], false),
        ("strict_mail", ["'Ana@x.org'", "'bia@x.org'"], true),
    ];
    let mut script = Script::default();
    for (name, [a, b], is_ordered) in types {
        let values = [a, b].map(|value| format!("{value}::{name}"));
        script.add(name, name, Some(&values), is_ordered && a != b);
    }
    connect(&group, node(1))
        .batch_execute(
            "CREATE TYPE mood AS ENUM ('sad', 'happy');
             CREATE DOMAIN amount AS numeric(10, 2) CHECK (VALUE > 0);
             CREATE DOMAIN polite AS mood CHECK (VALUE <> 'sad');
             CREATE DOMAIN names AS text[] CHECK (array_ndims(VALUE) IS NULL OR array_ndims(VALUE) = 1);
             CREATE DOMAIN strict_mail AS citext CHECK (VALUE LIKE '%@%');
             CREATE TYPE pair AS (a int, \"B b\" text, m mood);
             CREATE TYPE everything AS (z timestamptz, d date, i interval, f float8, m money, b bytea, x xml, t text[], p pair,
                 ps pair[], r regclass, n names, ts tsrange, j jsonb, o mood);
             CREATE TYPE moods AS RANGE (subtype = mood, multirange_type_name = moods_many);
             CREATE TYPE words AS RANGE (subtype = text, collation = \"C\")",
        )
        .unwrap_or_else(|error| panic!("{}", describe(&error)));
    for (at, part) in script.parts().into_iter().enumerate() {
        assert_types_equal(&group);
        let mut client = connect(&group, node(at % 3 + 1));
        if at > 0 {
            client.batch_execute("SET datestyle = 'SQL, DMY'; SET intervalstyle = sql_standard").unwrap();
            client.batch_execute("SET extra_float_digits = -6; SET timezone = 'Asia/Kolkata'").unwrap();
        }
        client.batch_execute(part).unwrap_or_else(|error| panic!("{}", describe(&error)));
    }
    assert_types_equal(&group);
    // A session that reads and writes money and fragments of xml in its own way.
    let mut client = connect(&group, node(2));
    // Where the system has that locale.
    let _ = client.batch_execute("SET lc_monetary = 'de_DE.UTF-8'");
    client
        .batch_execute(&format!(
            "SET xmloption = content; SET array_nulls = on;
             UPDATE \"v everything\" SET v = {EVERYTHING} WHERE id = 2; UPDATE \"n everything\" SET v = {EVERYTHING}"
        ))
        .unwrap_or_else(|error| panic!("{}", describe(&error)));
    assert_types_equal(&group);
}

/// What a domain does not allow any more, but its rows still have, travels when another column changes.
#[test]
fn rows_that_a_younger_constraint_would_refuse_can_still_be_changed() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TYPE grade AS ENUM ('a', 'b', 'c'); CREATE DOMAIN passed AS grade;
         CREATE TABLE exam (id int PRIMARY KEY, g passed, x int); CREATE TABLE exam_log (g passed, x int);
         INSERT INTO exam VALUES (1, 'c', 0); INSERT INTO exam_log VALUES ('c', 0)",
    );
    group.execute(node(1), "ALTER DOMAIN passed ADD CHECK (VALUE <> 'c') NOT VALID");
    group.execute(node(1), "UPDATE exam SET x = 1; UPDATE exam_log SET x = 1");
    harness::assert_equal(&group);
    group.execute(node(1), "DELETE FROM exam; DELETE FROM exam_log");
    assert_eq!(group.values("SELECT 0"), ["0", "0", "0"]);
    harness::assert_equal(&group);
}

#[test]
fn a_reference_to_a_temporary_table_is_refused_by_name() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE refers (id int PRIMARY KEY, r regclass, rs regtype[])");
    group.settle();
    let mut client = group.connect(node(2));
    client.batch_execute("CREATE TEMP TABLE fleeting (id int)").unwrap();
    for statement in [
        "INSERT INTO refers (id, r) VALUES (1, 'fleeting')",
        "INSERT INTO refers (id, rs) VALUES (1, ARRAY['int4', 'fleeting']::regtype[])",
    ] {
        let error = client.batch_execute(statement).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "0A000", "{}", error.message());
        assert!(error.hint().is_some());
    }
    client.batch_execute("INSERT INTO refers (id, r) VALUES (1, 'refers')").unwrap();
    harness::assert_equal(&group);
}

#[test]
fn rows_of_1600_columns_travel() {
    let group = harness::shared();
    let columns = |kind: &str, from: usize| (from..=1600).map(|n| format!("c{n} {kind}")).collect::<Vec<_>>().join(", ");
    group.execute(node(1), &format!("CREATE TABLE wide_key (c1 int PRIMARY KEY, {})", columns("int", 2)));
    group.execute(node(1), &format!("CREATE TABLE wide_none ({})", columns("smallint", 1)));
    group.execute(node(1), &format!("CREATE TABLE wide_text ({})", columns("text", 1)));
    let list = |from: i32| (from..from + 1600).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let mut client = group.connect(node(1));
    for statement in [
        format!("INSERT INTO wide_key VALUES ({}), ({})", list(1), list(2)),
        format!("INSERT INTO wide_none VALUES ({}), ({})", list(1), list(2)),
        "INSERT INTO wide_text (c1, c800, c1600) VALUES ('a', repeat('b', 100000), 'c'), (NULL, NULL, 'd')".to_owned(),
        "UPDATE wide_key SET c1600 = NULL, c2 = 7 WHERE c1 = 2; UPDATE wide_none SET c1600 = NULL WHERE c1 = 2".to_owned(),
        "UPDATE wide_text SET c1 = 'z' WHERE c1600 = 'd'; UPDATE wide_text SET c1599 = 'y' WHERE c1 = 'a'".to_owned(),
        "DELETE FROM wide_key WHERE c1 = 1; DELETE FROM wide_none WHERE c1 = 1; DELETE FROM wide_text WHERE c1 = 'a'"
            .to_owned(),
    ] {
        client.batch_execute(&statement).unwrap_or_else(|error| panic!("{}", describe(&error)));
    }
    harness::assert_equal(&group);
    assert_eq!(group.values("SELECT c2 FROM wide_key"), ["7", "7", "7"]);
}

#[test]
fn toasted_values_dropped_and_added_columns_and_nulls_travel() {
    let group = harness::shared();
    let big = "(SELECT string_agg(sha512(g::text::bytea), '') FROM generate_series(1, 3000) g)";
    for (name, key) in [("keyed", "PRIMARY KEY"), ("unkeyed", "")] {
        let mut client = group.connect(node(1));
        for statement in [
            format!(
                "CREATE TABLE {name} (gone text, id int {key}, a bytea, b text, c int); ALTER TABLE {name} DROP COLUMN gone"
            ),
            format!("ALTER TABLE {name} ALTER COLUMN a SET STORAGE EXTERNAL"),
            format!(
                "INSERT INTO {name} VALUES (1, {big}, repeat('x', 1000000), 0), (2, {big}, NULL, 0), (3, NULL, NULL, NULL)"
            ),
            format!("UPDATE {name} SET c = 1"),
            format!("UPDATE {name} SET b = b || 'y' WHERE id = 1; UPDATE {name} SET a = substr(a, 2) WHERE id = 2"),
            format!("UPDATE {name} SET id = id + 10"),
            format!("ALTER TABLE {name} DROP COLUMN b; ALTER TABLE {name} ADD COLUMN d text DEFAULT repeat('d', 5000)"),
            format!("UPDATE {name} SET c = 2 WHERE id = 12; UPDATE {name} SET d = NULL WHERE id = 11"),
            format!(
                "ALTER TABLE {name} ADD COLUMN e int DEFAULT 5, ALTER COLUMN e SET DEFAULT 6; INSERT INTO {name} (id) VALUES (9)"
            ),
            format!(
                "BEGIN; UPDATE {name} SET c = 3; UPDATE {name} SET c = 4 WHERE id = 11; UPDATE {name} SET e = 7; COMMIT"
            ),
            format!("DELETE FROM {name} WHERE id IN (11, 13)"),
        ] {
            client.batch_execute(&statement).unwrap_or_else(|error| panic!("{statement}: {}", describe(&error)));
        }
        harness::assert_equal(&group);
    }
    assert_eq!(group.values("SELECT count(*) FROM unkeyed"), ["2", "2", "2"]);
}

const EVERYTHING: &str =
    "ROW('2020-02-03 04:05:06+02', '2020-12-11', '-1 year 2 days', 0.1::float8 / 3, 1234.56::numeric::money,
    '\\x00ff', '<a/>', '{NULL,\"NULL\"}', ROW(1, 'p', 'sad')::pair, ARRAY[ROW(2, ',', NULL)::pair], 'mark', '{x}',
    '[2020-12-11,)', '{\"k\": 1.0}', 'happy')::everything";
const EVERYTHING_TWICE: &str =
    "ARRAY[NULL, ROW(NULL, NULL, NULL, NULL, NULL, NULL, '<b/>', NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    NULL)::everything]";

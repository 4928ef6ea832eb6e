//! Proof of equality: postgres_r.verify() says what is equal and names what is not, while everybody writes; postgres_r.repair() mends it.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use gcs::playground::group::describe;
use gcs::playground::{NodeNumber, Part};
use postgres::Client;
use postgres_r_tests::harness::damage::{change_file, change_rows, flip_a_bit, run_alone};
use postgres_r_tests::harness::stopped::Stopped;
use postgres_r_tests::harness::{self, Group, node, wait};

#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    table: String,
    node: String,
    verdict: String,
    rows: Option<i64>,
    keys: Option<String>,
    detail: Option<String>,
}

fn ask(client: &mut Client, call: &str) -> Result<Vec<Row>, postgres::Error> {
    let rows =
        client.query(&format!("SELECT table_name, node, verdict, rows, key_range, detail FROM postgres_r.{call}"), &[])?;
    let row = |row: &postgres::Row| Row {
        table: row.get(0),
        node: row.get(1),
        verdict: row.get(2),
        rows: row.get(3),
        keys: row.get(4),
        detail: row.get(5),
    };
    Ok(rows.iter().map(row).collect())
}

fn call(group: &Group, number: NodeNumber, call: &str) -> Vec<Row> {
    ask(&mut group.connect(number), call).unwrap_or_else(|error| panic!("{call}: {}", describe(&error)))
}

/// Everything that is not equal: table, node, verdict, keys.
fn wrong(rows: &[Row]) -> Vec<(String, String, String, String)> {
    let wrong = rows.iter().filter(|row| row.verdict != "equal");
    let keys = |row: &Row| row.keys.clone().unwrap_or_default();
    wrong.map(|row| (row.table.clone(), row.node.clone(), row.verdict.clone(), keys(row))).collect()
}

fn assert_all_equal(rows: &[Row], nodes: usize, tables: &[&str]) {
    assert!(wrong(rows).is_empty(), "{:#?}", rows.iter().filter(|row| row.verdict != "equal").collect::<Vec<_>>());
    for table in tables {
        assert_eq!(rows.iter().filter(|row| row.table == *table).count(), nodes, "{table} in {rows:#?}");
    }
}

fn refusal(group: &Group, number: NodeNumber, call: &str) -> (String, String) {
    let error = ask(&mut group.connect(number), call).unwrap_err();
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error}")).clone();
    (error.code().code().to_owned(), format!("{} ({})", error.message(), error.detail().unwrap_or_default()))
}

/// Nothing of a verification is left but its result, on any node.
fn assert_nothing_left(group: &Group) {
    wait::until("nothing is left of the verification", Duration::from_secs(30), || {
        let left = group.values(
            "SELECT (SELECT count(*) FROM postgres_r.verification_marks) + (SELECT count(*) FROM postgres_r.verification_scope)
                  + (SELECT count(*) FROM postgres_r.verification_answers) + (SELECT count(*) FROM postgres_r.verification_progress)
                  + (SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^postgres_r (verifier|coordinator)')",
        );
        if left.iter().all(|left| left == "0") { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

/// Writes on every node, row by row and otherwise, until it is dropped.
struct Writers<'a> {
    over: &'a AtomicBool,
}

impl Drop for Writers<'_> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

fn write_until(group: &Group, number: NodeNumber, over: &AtomicBool, statements: &[&str]) -> usize {
    let mut client = group.connect(number);
    let mut done = 0;
    while !over.load(Ordering::SeqCst) {
        for statement in statements {
            done += usize::from(client.batch_execute(statement).is_ok());
        }
    }
    done
}

#[test]
fn equal_nodes_are_equal_while_all_of_them_write() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE SCHEMA busy; CREATE TABLE busy.rows (id serial PRIMARY KEY, v int); CREATE TABLE busy.short (id int PRIMARY KEY);
         CREATE TABLE busy.changed (id int PRIMARY KEY); CREATE TABLE busy.large (id bigserial PRIMARY KEY, t text);
         INSERT INTO busy.rows (v) SELECT n FROM generate_series(1, 2000) n; INSERT INTO busy.changed VALUES (1), (2)",
    );
    group.settle();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _writers = Writers { over: &over };
        let over = &over;
        let group: &Group = &group;
        let rows = [
            "INSERT INTO busy.rows (v) VALUES (1)",
            "UPDATE busy.rows SET v = v + 1 WHERE id = 1 + random() * 1999",
            "DELETE FROM busy.rows WHERE id = (SELECT max(id) FROM busy.rows)",
        ];
        let threads = [
            scope.spawn(move || write_until(group, node(1), over, &rows)),
            scope.spawn(move || write_until(group, node(2), over, &rows)),
            scope.spawn(move || {
                write_until(group, node(3), over, &["TRUNCATE busy.short", "INSERT INTO busy.short VALUES (1), (2)"])
            }),
            scope.spawn(move || {
                write_until(
                    group,
                    node(2),
                    over,
                    &[
                        "ALTER TABLE busy.changed ADD v text DEFAULT clock_timestamp()::text",
                        "ALTER TABLE busy.changed DROP v",
                        "CREATE INDEX changed_id ON busy.changed (id)",
                        "DROP INDEX busy.changed_id",
                    ],
                )
            }),
            scope.spawn(move || {
                write_until(
                    group,
                    node(3),
                    over,
                    &[
                        "INSERT INTO busy.large (t) SELECT repeat('x', 3000) FROM generate_series(1, 2000)",
                        "DELETE FROM busy.large",
                    ],
                )
            }),
        ];
        for asked in [1, 2, 3, 1] {
            let rows = call(group, node(asked), "verify()");
            let differ: Vec<&Row> =
                rows.iter().filter(|row| matches!(row.verdict.as_str(), "different" | "unreadable")).collect();
            assert!(differ.is_empty(), "{differ:#?}");
            let busy: Vec<&str> =
                rows.iter().filter(|row| row.table == "busy.rows").map(|row| row.verdict.as_str()).collect();
            assert_eq!(busy, ["equal", "equal", "equal"]);
        }
        drop(_writers);
        for thread in threads {
            assert!(thread.join().unwrap() > 0);
        }
    });
    group.settle();
    let tables = ["catalogs", "busy.rows", "busy.short", "busy.changed", "busy.large", "postgres_r.sequences"];
    assert_all_equal(&call(&group, node(2), "verify()"), 3, &tables);
    assert_nothing_left(&group);
    group.execute(node(1), "DROP SCHEMA busy CASCADE");
}

const KINDS: &str = "
    CREATE SCHEMA kinds; SET search_path = kinds;
    CREATE TYPE mood AS ENUM ('low', 'high'); CREATE TYPE pair AS (a int, b text); CREATE DOMAIN small AS int CHECK (VALUE < 100);
    CREATE TABLE all_kinds (id int PRIMARY KEY, f float8, n numeric, m mood, p pair, d small, a numeric[], j jsonb, r int4range, c regclass,
        ts timestamptz, i interval, b bytea, g int GENERATED ALWAYS AS (id * 2) STORED, \"odd \"\" name\" text);
    INSERT INTO all_kinds VALUES (1, '-0', 1.0, 'low', (1, 'x'), 5, '{1.0,NULL}', '{\"a\": 1}', '[1,5)', 'kinds.all_kinds', now(), '1 day', '\\x00ff'),
        (2, 0, 1.00, 'high', NULL, NULL, '{}', 'null', 'empty', NULL, 'infinity', '-1 mon', ''),
        (3, 'NaN', 'NaN', NULL, (NULL, NULL), 1, '[0:1]={1,2}', '[]', NULL, 'pg_class', '-infinity', NULL, NULL);
    CREATE TABLE toasted (id int PRIMARY KEY, t text); ALTER TABLE toasted ALTER t SET STORAGE external;
    INSERT INTO toasted SELECT n, repeat(chr(65 + n), 100000) FROM generate_series(1, 5) n;
    CREATE TABLE dropped (a int, b int, c text); INSERT INTO dropped VALUES (1, 2, 'x'); ALTER TABLE dropped DROP b;
    ALTER TABLE dropped ADD e int DEFAULT 7;
    CREATE TABLE parts (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10); CREATE TABLE parts_2 PARTITION OF parts DEFAULT;
    INSERT INTO parts SELECT n, n::text FROM generate_series(5, 15) n;
    CREATE TABLE parent (id int); CREATE TABLE child (v int) INHERITS (parent); INSERT INTO child VALUES (1, 2); INSERT INTO parent VALUES (3);
    CREATE TABLE \"Odd.Name\" (\"Id\" int PRIMARY KEY); INSERT INTO \"Odd.Name\" VALUES (1);
    CREATE TEMP TABLE temporary (id int); CREATE TABLE nothing ();
    CREATE VIEW seen AS SELECT id FROM all_kinds; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
    COMMENT ON TABLE all_kinds IS 'of all kinds'; GRANT SELECT ON all_kinds TO pg_monitor;
    CREATE POLICY mine ON all_kinds USING (id > 0); CREATE STATISTICS of_two ON id, n FROM all_kinds";

#[test]
fn values_of_all_kinds_are_equal_and_what_is_no_node_s_but_one_s_is_left_out() {
    let group = harness::shared();
    group.execute(node(2), KINDS);
    group.settle();
    let rows = call(&group, node(1), "verify()");
    let tables = [
        "kinds.all_kinds",
        "kinds.toasted",
        "kinds.dropped",
        "kinds.parts_1",
        "kinds.parts_2",
        "kinds.parent",
        "kinds.child",
        "kinds.\"Odd.Name\"",
        "kinds.nothing",
        "catalogs",
    ];
    assert_all_equal(&rows, 3, &tables);
    for absent in ["temporary", "parts", "seen", "past_groups", "verification"] {
        assert!(!rows.iter().any(|row| row.table.ends_with(&format!(".{absent}"))), "{absent} in {rows:#?}");
    }
    // One table, and what is below it.
    let rows = call(&group, node(3), "verify(\"table\" => 'kinds.parts')");
    assert_all_equal(&rows, 3, &["kinds.parts_1", "kinds.parts_2"]);
    assert_eq!(rows.len(), 6);
    assert_eq!(rows.iter().filter(|row| row.table == "kinds.parts_1").map(|row| row.rows).collect::<Vec<_>>(), [Some(5); 3]);
    assert_eq!(refusal(&group, node(1), "verify(\"table\" => 'kinds.seen')").0, "42809");
    // 1.0 and 1.00 are equal to PostgreSQL, and are not the same value; nor are 0 and -0.
    change_rows(
        &group,
        node(2),
        "kinds.all_kinds",
        &["UPDATE kinds.all_kinds SET n = 1.00 WHERE id = 1", "UPDATE kinds.all_kinds SET f = '-0' WHERE id = 2"],
    );
    let named = |keys: &str| ("kinds.all_kinds".to_owned(), "node2".to_owned(), "different".to_owned(), keys.to_owned());
    assert_eq!(wrong(&call(&group, node(1), "verify()")), [named("(id)=(1), (id)=(2)")]);
    let mended = call(&group, node(1), "repair('node2', 'kinds.all_kinds')");
    assert_all_equal(&mended, 3, &["kinds.all_kinds"]);
    assert_eq!(
        group.value(node(2), "SELECT string_agg(n || ' ' || f || ' ' || g, ',' ORDER BY id) FROM kinds.all_kinds"),
        "1.0 -0 2,1.00 0 4,NaN NaN 6"
    );
    // A table without a key is told by its whole rows.
    change_rows(
        &group,
        node(3),
        "kinds.dropped",
        &["INSERT INTO kinds.dropped SELECT * FROM kinds.dropped", "INSERT INTO kinds.dropped VALUES (9, 'y', 8)"],
    );
    let found = call(&group, node(1), "verify()");
    let [(table, at, verdict, keys)] = wrong(&found).try_into().unwrap();
    assert_eq!((table.as_str(), at.as_str(), verdict.as_str()), ("kinds.dropped", "node3", "different"));
    assert!(keys.contains("row (1, x, 7)") && keys.contains("row (9, y, 8)"), "{keys}");
    assert_all_equal(&call(&group, node(2), "repair('node3', 'kinds.dropped')"), 3, &["kinds.dropped"]);
    assert_all_equal(&call(&group, node(3), "verify()"), 3, &tables);
    group.execute(node(1), "DROP SCHEMA kinds CASCADE");
}

#[test]
fn rows_changed_added_and_removed_by_hand_are_named_and_mended_while_others_write() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE SCHEMA hand; CREATE TABLE hand.rows (id int PRIMARY KEY, u int UNIQUE, v text);
         INSERT INTO hand.rows SELECT n, n, 'v' || n FROM generate_series(1, 20000) n;
         CREATE TABLE hand.child (id serial PRIMARY KEY, of int REFERENCES hand.rows); INSERT INTO hand.child (of) VALUES (77)",
    );
    change_rows(
        &group,
        node(3),
        "hand.rows",
        &[
            "UPDATE hand.rows SET v = 'other' WHERE id = 77",
            "DELETE FROM hand.rows WHERE id = 12345",
            "INSERT INTO hand.rows VALUES (30000, 0, 'new')",
        ],
    );
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers = Writers { over: &over };
        let (over, group): (_, &Group) = (&over, &group);
        let statements = [
            "UPDATE hand.rows SET v = v || '.' WHERE id = 1 + random() * 50",
            "INSERT INTO hand.child (of) VALUES (78)",
            "UPDATE hand.rows SET u = -u WHERE id = 200 + random() * 50",
        ];
        let threads = [
            scope.spawn(move || write_until(group, node(1), over, &statements)),
            scope.spawn(move || write_until(group, node(2), over, &statements)),
        ];
        let found = call(group, node(2), "verify()");
        let named = "(id)=(77), (id)=(12345), (id)=(30000)";
        assert_eq!(wrong(&found), [("hand.rows".into(), "node3".into(), "different".into(), named.into())]);
        let mended = call(group, node(1), "repair('node3', 'hand.rows')");
        assert_all_equal(&mended, 3, &["hand.rows"]);
        assert_all_equal(&call(group, node(3), "verify()"), 3, &["hand.rows", "hand.child"]);
        drop(writers);
        for thread in threads {
            assert!(thread.join().unwrap() > 0);
        }
    });
    harness::assert_equal(&group);
    // Indexes lead to the rows, and constraints hold.
    let by_index = "SET enable_seqscan = off; SET enable_bitmapscan = off";
    let mut client = group.connect(node(3));
    client.batch_execute(by_index).unwrap();
    let row = client
        .query_one("SELECT count(*) FROM hand.rows WHERE id IN (77, 12345, 30000) AND u IN (77, 12345, 0)", &[])
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 2);
    group.execute(node(3), "INSERT INTO hand.rows VALUES (30000, 30000, 'is free')");
    assert_eq!(
        client.batch_execute("INSERT INTO hand.rows VALUES (12345, 50000, '')").unwrap_err().code().unwrap().code(),
        "23505"
    );
    group.execute(node(1), "DROP SCHEMA hand CASCADE");
}

/// What the command says, and its exit status.
fn by_shell(group: &Group, number: NodeNumber, args: &[&str]) -> (Option<i32>, String) {
    let config = group.dir().join(format!("node{}/gcs.toml", number.0));
    let output = Command::new(harness::gcs()).args(args).arg("--config").arg(config).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_flipped_bit_in_a_page_is_found_and_mended() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE SCHEMA bits; CREATE TABLE bits.rows (id int PRIMARY KEY, v text);
         INSERT INTO bits.rows SELECT n, 'value of ' || n || '.' FROM generate_series(1, 5000) n;
         CREATE TABLE bits.keys (id text PRIMARY KEY, v int); INSERT INTO bits.keys SELECT 'key of ' || n || '.', n FROM generate_series(1, 500) n",
    );
    change_file(&group, node(2), "bits.rows", |bytes| flip_a_bit(bytes, b"value of 4321.", 1));
    // In the key itself: the index still says what it was.
    change_file(&group, node(3), "bits.keys", |bytes| flip_a_bit(bytes, b"key of 321.", 2));
    let found = call(&group, node(1), "verify()");
    let row =
        |table: &str, node: &str, keys: &str| (table.to_owned(), node.to_owned(), "different".to_owned(), keys.to_owned());
    assert_eq!(
        wrong(&found),
        [row("bits.keys", "node3", "(id)=(key of 321.), (id)=(oey of 321.)"), row("bits.rows", "node2", "(id)=(4321)")]
    );
    let (status, said) = by_shell(&group, node(1), &["verify", "shop"]);
    assert_eq!(status, Some(3), "{said}");
    let line = said.lines().find(|line| line.starts_with("bits.rows ")).unwrap_or_default();
    assert!(line.contains(" node2 ") && line.ends_with(" different  (id)=(4321)"), "{said}");
    let (status, said) = by_shell(&group, node(1), &["repair", "node2", "bits.rows", "--database", "shop"]);
    assert_eq!((status, said.as_str()), (Some(0), "3 of 3 findings on 1 tables are equal\n"));
    let (status, said) = by_shell(&group, node(3), &["verify", "shop", "--table", "bits.rows", "--json"]);
    assert_eq!((status, said.matches("\"verdict\":\"equal\"").count()), (Some(0), 3), "{said}");
    let (status, said) = by_shell(&group, node(1), &["verify", "nowhere"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("node \"node1\" has no PostgreSQL with database \"nowhere\""), "{said}");
    assert_all_equal(&call(&group, node(2), "repair('node3', 'bits.keys')"), 3, &["bits.keys"]);
    assert_all_equal(&call(&group, node(3), "verify()"), 3, &["bits.rows", "bits.keys"]);
    let by_index = "SELECT v FROM bits.keys WHERE id = 'key of 321.'";
    group.execute(node(1), "SET enable_seqscan = off; UPDATE bits.keys SET v = v + 1 WHERE id = 'key of 321.'");
    group.settle();
    assert_eq!(group.values(by_index), ["322", "322", "322"]);
    assert_eq!(group.value(node(3), "SELECT count(*) FROM bits.keys WHERE id >= 'oey'"), "0");
    harness::assert_equal(&group);
    group.execute(node(1), "DROP SCHEMA bits CASCADE");
}

#[test]
fn what_cannot_be_read_is_said_to_be_so_and_replaced_as_a_whole() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE SCHEMA torn; CREATE TABLE torn.page (id int PRIMARY KEY, v text); CREATE INDEX ON torn.page (v);
         INSERT INTO torn.page SELECT n, 'v' || n FROM generate_series(1, 3000) n;
         CREATE TABLE torn.toast (id int PRIMARY KEY, v text); ALTER TABLE torn.toast ALTER v SET STORAGE external;
         INSERT INTO torn.toast SELECT n, repeat('x' || n, 5000) FROM generate_series(1, 20) n;
         CREATE TABLE torn.half (id int PRIMARY KEY); INSERT INTO torn.half SELECT generate_series(1, 5000)",
    );
    group.settle();
    let toast = group.value(node(2), "SELECT reltoastrelid::regclass FROM pg_class WHERE oid = 'torn.toast'::regclass");
    change_file(&group, node(2), "torn.page", |bytes| bytes[12..18].fill(0xff));
    change_file(&group, node(2), &toast, |bytes| bytes[8192 + 12..8192 + 18].fill(0xff));
    // So many rows that nobody wants to hear their keys.
    change_rows(&group, node(2), "torn.half", &["DELETE FROM torn.half WHERE id % 2 = 0"]);
    let found = call(&group, node(3), "verify()");
    let row = |table: &str, verdict: &str| (table.to_owned(), "node2".to_owned(), verdict.to_owned(), String::new());
    assert_eq!(
        wrong(&found),
        [row("torn.half", "different"), row("torn.page", "unreadable"), row("torn.toast", "unreadable")]
    );
    let of = |table: &str| found.iter().find(|row| row.table == table && row.node == "node2").unwrap().clone();
    assert!(of("torn.page").detail.unwrap().contains("invalid page"), "{found:#?}");
    assert_eq!((of("torn.half").rows, of("torn.half").detail.as_deref()), (Some(2500), Some("others have 5000 rows")));
    for table in ["torn.page", "torn.toast", "torn.half"] {
        assert_all_equal(&call(&group, node(1), &format!("repair('node2', '{table}')")), 3, &[table]);
    }
    assert_all_equal(&call(&group, node(2), "verify()"), 3, &["torn.page", "torn.toast", "torn.half"]);
    harness::assert_equal(&group);
    group.execute(node(2), "INSERT INTO torn.page VALUES (5000, 'v'); UPDATE torn.toast SET v = v || 'y'");
    harness::assert_equal(&group);
    group.execute(node(1), "DROP SCHEMA torn CASCADE");
}

#[test]
fn objects_that_differ_are_named() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE SCHEMA objects; CREATE TABLE objects.t (id int PRIMARY KEY, v int); CREATE FUNCTION objects.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE VIEW objects.v AS SELECT id FROM objects.t",
    );
    let script = [
        "CREATE OR REPLACE FUNCTION objects.f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
        "CREATE INDEX by_hand ON objects.t (v)",
        "COMMENT ON VIEW objects.v IS 'by hand'",
        "GRANT SELECT ON objects.t TO pg_monitor",
        "DROP INDEX IF EXISTS objects.none",
    ];
    run_alone(&group, node(2), &script.map(str::to_owned));
    let found = wrong(&call(&group, node(3), "verify()"));
    let [(object, at, verdict, names)] = <[_; 1]>::try_from(found).unwrap();
    assert_eq!((object.as_str(), at.as_str(), verdict.as_str()), ("catalogs", "node2", "different"));
    for name in ["function objects.f()", "index objects.by_hand", "comment on view objects.v", "table objects.t"] {
        assert!(names.contains(name), "{name} is not in {names}");
    }
    let back = [
        "CREATE OR REPLACE FUNCTION objects.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DROP INDEX objects.by_hand",
        "COMMENT ON VIEW objects.v IS NULL",
        "UPDATE pg_class SET relacl = NULL WHERE oid = 'objects.t'::regclass",
        "DROP TABLE objects.t CASCADE",
    ];
    run_alone(&group, node(2), &back[..4].iter().map(|statement| (*statement).to_owned()).collect::<Vec<_>>());
    assert_all_equal(&call(&group, node(1), "verify()"), 3, &["catalogs"]);
    // A table that is missing, or only on one node.
    run_alone(&group, node(3), &["DROP VIEW objects.v".to_owned(), "ALTER TABLE objects.t RENAME TO renamed".to_owned()]);
    let found = call(&group, node(1), "verify()");
    let detail = |table: &str| found.iter().find(|row| row.table == table && row.node == "node3").unwrap().detail.clone();
    assert_eq!(detail("objects.t").as_deref(), Some("missing"));
    assert_eq!(detail("objects.renamed").as_deref(), Some("only here"));
    assert_eq!(refusal(&group, node(1), "repair('node3', 'objects.t')").0, "55000");
    run_alone(
        &group,
        node(3),
        &[
            "ALTER TABLE objects.renamed RENAME TO t".to_owned(),
            "CREATE VIEW objects.v AS SELECT id FROM objects.t".to_owned(),
        ],
    );
    assert_all_equal(&call(&group, node(1), "verify()"), 3, &["catalogs", "objects.t"]);
    group.execute(node(1), "DROP SCHEMA objects CASCADE");
}

#[test]
fn a_node_that_is_away_is_not_known_and_is_named() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE SCHEMA away; CREATE TABLE away.t (id int PRIMARY KEY); INSERT INTO away.t SELECT generate_series(1, 100)",
    );
    group.settle();
    group.kill(node(3), Part::Postgres);
    // Its gcs is there, and is a member in order.
    let found = call(&group, node(1), "verify()");
    assert!(found.iter().all(|row| row.verdict == if row.node == "node3" { "not known" } else { "equal" }), "{found:#?}");
    group.kill(node(3), Part::Gcs);
    wait::until("the group knows", Duration::from_secs(30), || {
        let state = group.value(node(1), "SELECT state FROM postgres_r.members WHERE node = 'node3'");
        if state == "online" { Err(state) } else { Ok(()) }
    });
    let found = call(&group, node(1), "verify()");
    assert!(found.iter().all(|row| row.verdict == if row.node == "node3" { "not known" } else { "equal" }), "{found:#?}");
    let of_it = found.iter().find(|row| row.table == "away.t" && row.node == "node3").unwrap();
    assert!(of_it.detail.as_deref().is_some_and(|detail| detail == "detached" || detail == "unreachable"), "{of_it:?}");
    let (code, message) = refusal(&group, node(1), "repair('node3', 'away.t')");
    assert!(code == "55000" && message.contains("not known"), "{code} {message}");
    group.start_node(node(3));
    group.settle();
    assert_all_equal(&call(&group, node(3), "verify()"), 3, &["away.t"]);
    group.execute(node(1), "DROP SCHEMA away CASCADE");
}

#[test]
fn a_table_that_is_locked_is_not_known_and_a_reader_that_verifies_stands_in_nobody_s_way() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE SCHEMA locked; CREATE TABLE locked.t (id int PRIMARY KEY); CREATE TABLE locked.other (id int PRIMARY KEY)",
    );
    group.settle();
    let mut holder = group.connect(node(2));
    holder.batch_execute("BEGIN; LOCK TABLE locked.t IN ACCESS EXCLUSIVE MODE").unwrap();
    let found = call(&group, node(1), "verify()");
    // PostgreSQL looks at a table to print its definition.
    let mut wrong = wrong(&found);
    wrong.retain(|(table, ..)| table != "catalogs");
    assert_eq!(wrong, [("locked.t".into(), "node2".into(), "not known".into(), String::new())]);
    assert!(!found.iter().any(|row| row.verdict == "different"), "{found:#?}");
    holder.batch_execute("COMMIT").unwrap();
    assert_all_equal(&call(&group, node(1), "verify()"), 3, &["locked.t", "locked.other"]);
    group.execute(node(1), "DROP SCHEMA locked CASCADE");
}

#[test]
fn a_verification_that_is_canceled_or_ended_leaves_nothing_and_another_can_begin() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE SCHEMA stopped; CREATE TABLE stopped.t (id int PRIMARY KEY); INSERT INTO stopped.t VALUES (1)",
    );
    group.settle();
    let mut holder = group.connect(node(3));
    for end in ["pg_cancel_backend", "pg_terminate_backend"] {
        // On node 3 the look waits for this.
        holder.batch_execute("BEGIN; LOCK TABLE stopped.t IN ACCESS EXCLUSIVE MODE").unwrap();
        let mut client = group.connect(node(1));
        let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
        thread::scope(|scope| {
            let asked = scope.spawn(|| ask(&mut client, "verify()"));
            wait::until("node 3 looks", Duration::from_secs(20), || {
                let looks = group
                    .value(node(3), "SELECT count(*) FROM postgres_r.verification_progress WHERE table_name = 'stopped.t'");
                if looks == "1" { Ok(()) } else { Err("it does not".to_owned()) }
            });
            // Another has to wait for its turn, here and elsewhere.
            for number in [1, 2] {
                assert_eq!(refusal(&group, node(number), "verify()").0, "55006");
            }
            assert_eq!(group.value(node(1), &format!("SELECT {end}({pid})")), "true");
            let error = asked.join().unwrap().unwrap_err();
            let code = error.code().map_or("closed", |code| code.code()).to_owned();
            assert!(["57014", "57P01", "closed"].contains(&code.as_str()), "{error:?}");
        });
        holder.batch_execute("COMMIT").unwrap();
        assert_nothing_left(&group);
        assert_all_equal(&call(&group, node(2), "verify()"), 3, &["stopped.t"]);
    }
    // The processes themselves are ended.
    for which in ["coordinator", "verifier"] {
        holder.batch_execute("BEGIN; LOCK TABLE stopped.t IN ACCESS EXCLUSIVE MODE").unwrap();
        let mut client = group.connect(node(1));
        thread::scope(|scope| {
            let asked = scope.spawn(|| ask(&mut client, "verify('20 s')"));
            let ended = format!(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'postgres_r {which}'"
            );
            wait::until("it is ended", Duration::from_secs(20), || {
                let looks = group
                    .value(node(3), "SELECT count(*) FROM postgres_r.verification_progress WHERE table_name = 'stopped.t'");
                if looks == "1" && group.value(node(1), &ended) == "1" { Ok(()) } else { Err("it is not there".to_owned()) }
            });
            holder.batch_execute("COMMIT").unwrap();
            match asked.join().unwrap() {
                Ok(rows) => assert!(!rows.iter().any(|row| row.verdict == "different"), "{rows:#?}"),
                Err(error) => assert_eq!(error.code().unwrap().code(), "57P01", "{error:?}"),
            }
        });
        assert_all_equal(&call(&group, node(1), "verify()"), 3, &["stopped.t"]);
    }
    assert_nothing_left(&group);
    group.execute(node(1), "DROP SCHEMA stopped CASCADE");
}

/// The end of a verification is ordered first, and the node that answers has not applied it.
#[test]
fn what_a_node_says_of_a_verification_that_has_ended_is_not_kept() {
    let group = harness::shared();
    group.execute(node(1), "CREATE SCHEMA late; CREATE TABLE late.t (id int PRIMARY KEY); INSERT INTO late.t VALUES (1)");
    group.settle();
    let mut holder = group.connect(node(3));
    holder.batch_execute("BEGIN; LOCK TABLE late.t IN ACCESS EXCLUSIVE MODE").unwrap();
    let decided = "SELECT gate_waits + aborts_conflict FROM postgres_r.pg_stat_postgres_r";
    let mut client = group.connect(node(1));
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    thread::scope(|scope| {
        let asked = scope.spawn(|| ask(&mut client, "verify()"));
        wait::until("node 3 looks", Duration::from_secs(20), || {
            let looks = "SELECT count(*) FROM postgres_r.verification_progress WHERE table_name = 'late.t'";
            if group.value(node(3), looks) == "1" { Ok(()) } else { Err("it does not".to_owned()) }
        });
        let stopped = Stopped::remote_backends(&group, node(3));
        assert_eq!(group.value(node(1), &format!("SELECT pg_cancel_backend({pid})")), "true");
        assert!(asked.join().unwrap().is_err());
        wait::until("the end of the verification", Duration::from_secs(20), || {
            let marks = group.value(node(1), "SELECT count(*) FROM postgres_r.verification_marks");
            if marks == "0" { Ok(()) } else { Err(format!("{marks} marks")) }
        });
        let before = group.value(node(3), decided);
        holder.batch_execute("COMMIT").unwrap();
        // Refused, or waiting for the end to be applied.
        wait::until("node 3 answers", Duration::from_secs(20), || {
            if group.value(node(3), decided) != before { Ok(()) } else { Err("it looks".to_owned()) }
        });
        drop(stopped);
    });
    assert_nothing_left(&group);
    group.execute(node(1), "DROP SCHEMA late CASCADE");
}

#[test]
fn keys_are_shown_to_whoever_may_read_the_table_and_a_repair_is_a_superuser_s() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE SCHEMA secret; CREATE TABLE secret.t (id text PRIMARY KEY); INSERT INTO secret.t VALUES ('a'), ('b')",
    );
    for number in group.numbers() {
        let roles = "CREATE ROLE watcher IN ROLE pg_monitor; CREATE ROLE nobody_special";
        group.playground.connect(number, "postgres").unwrap().batch_execute(roles).unwrap();
    }
    change_rows(&group, node(2), "secret.t", &["DELETE FROM secret.t WHERE id = 'b'"]);
    let as_role = |role: &str, what: &str| {
        let mut client = group.connect(node(1));
        client.batch_execute(&format!("SET ROLE {role}")).unwrap();
        ask(&mut client, what)
    };
    let refused = |role: &str, what: &str| {
        let error = as_role(role, what).unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{error:?}");
    };
    let keys = |rows: &[Row]| wrong(rows).into_iter().map(|(table, node, _, keys)| (table, node, keys)).collect::<Vec<_>>();
    let row = |keys: &str| ("secret.t".to_owned(), "node2".to_owned(), keys.to_owned());
    assert_eq!(keys(&as_role("watcher", "verify()").unwrap()), [row("")]);
    group.execute(node(1), "GRANT USAGE ON SCHEMA secret TO watcher; GRANT SELECT ON secret.t TO watcher");
    assert_eq!(keys(&as_role("watcher", "verify()").unwrap()), [row("(id)=(b)")]);
    refused("nobody_special", "verify()");
    refused("nobody_special", "verify_within(1000, NULL)");
    refused("watcher", "repair('node2', 'secret.t')");
    refused("watcher", "repair_within('node2', 1, false, 1000)");
    for table in ["marks", "scope", "answers", "results"] {
        let mut client = group.connect(node(1));
        client.batch_execute("SET ROLE watcher").unwrap();
        for statement in [
            format!("SELECT * FROM postgres_r.verification_{table}"),
            format!("DELETE FROM postgres_r.verification_{table}"),
        ] {
            assert_eq!(client.batch_execute(&statement).unwrap_err().code().unwrap().code(), "42501", "{statement}");
        }
        assert_eq!(
            client
                .batch_execute("SELECT postgres_r.put_repair('node2', 'secret.t', NULL)")
                .unwrap_err()
                .code()
                .unwrap()
                .code(),
            "42501"
        );
    }
    assert_all_equal(&call(&group, node(1), "repair('node2', 'secret.t')"), 3, &["secret.t"]);
    group.execute(node(1), "DROP SCHEMA secret CASCADE");
}

#[test]
fn a_repair_that_would_be_wrong_is_refused() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE SCHEMA refused; CREATE TABLE refused.t (id int PRIMARY KEY, v int); INSERT INTO refused.t SELECT n, n FROM generate_series(1, 50) n;
         CREATE VIEW refused.v AS SELECT * FROM refused.t",
    );
    change_rows(&group, node(2), "refused.t", &["UPDATE refused.t SET v = 0 WHERE id = 5"]);
    for (at, what, code, part) in [
        (1, "repair('nobody', 'refused.t')", "42704", "\"nobody\" is not a member"),
        (2, "repair('node2', 'refused.t')", "22023", "cannot repair itself"),
        // The majority has it right.
        (2, "repair('node1', 'refused.t')", "55000", "not what the majority"),
        (1, "repair('node2', 'refused.v')", "42809", "replicated"),
        (1, "repair('node2', 'pg_class')", "42809", "replicated"),
        (1, "verify('0 s')", "22023", "greater than zero"),
        (1, "verify('-1 s')", "22023", "greater than zero"),
        (1, "verify(NULL)", "22023", "greater than zero"),
    ] {
        let (found, message) = refusal(&group, node(at), what);
        assert!(found == code && message.contains(part), "{what}: {found} {message}");
    }
    // What is equal is left alone, but by force.
    let file = |number| group.value(node(number), "SELECT pg_relation_filenode('refused.t')");
    let before = (file(1), file(3));
    assert_all_equal(
        &call(&group, node(1), "repair('node3', 'refused.t')")
            .into_iter()
            .filter(|row| row.node != "node2")
            .collect::<Vec<_>>(),
        2,
        &["refused.t"],
    );
    assert_eq!((file(1), file(3)), before);
    call(&group, node(1), "repair('node3', 'refused.t', force => true)");
    assert!(file(1) == before.0 && file(3) != before.1);
    // In a transaction that changes the same table: the coordinator's must not wait for it for ever, and what was changed stays.
    let mut client = group.connect(node(1));
    client.batch_execute("BEGIN; UPDATE refused.t SET v = 7 WHERE id = 7").unwrap();
    let error = ask(&mut client, "repair('node2', 'refused.t', timeout => '3 s')").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "55P03", "{error:?}");
    client.batch_execute("ROLLBACK").unwrap();
    assert_all_equal(&call(&group, node(3), "repair('node2', 'refused.t')"), 3, &["refused.t"]);
    harness::assert_equal(&group);
    assert_nothing_left(&group);
    group.execute(node(1), "DROP SCHEMA refused CASCADE");
}

//! SERIALIZABLE on several nodes: what each transaction read is, where it is ordered, still what it read. In each test the other
//! transaction's change reaches a node where no lock of the reader's is in its way: only the reads' keys can tell.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use postgres::{Client, Error};
use postgres_r_tests::harness::{self, Group, node};

const SERIALIZABLE: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE";

fn prepare(group: &Group, sql: &str) {
    group.execute(node(1), sql);
    group.settle();
}

fn begin(group: &Group, number: usize, statements: &str) -> Client {
    let mut client = group.connect(node(number));
    client.batch_execute(&format!("{SERIALIZABLE}; {statements}")).unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    client
}

fn commit(mut client: Client) -> Result<(), Error> {
    client.batch_execute("COMMIT")
}

fn assert_lost(result: Result<(), Error>, table: &str) {
    let error = result.expect_err("it must lose");
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
    assert_eq!(error.code().code(), "40001", "{}", error.message());
    let detail = error.detail().unwrap_or_default();
    for part in [table, "node", "position"] {
        assert!(detail.contains(part), "{part} is missing in: {detail}");
    }
}

#[test]
fn of_two_doctors_who_go_off_call_because_the_other_stays_one_loses() {
    let group = harness::shared();
    prepare(
        &group,
        "CREATE TABLE doctors (name text PRIMARY KEY, on_call bool); INSERT INTO doctors VALUES ('ann', true), ('bob', true)",
    );
    let off = |name| {
        format!("SELECT count(*) FROM doctors WHERE on_call; UPDATE doctors SET on_call = false WHERE name = '{name}'")
    };
    let first = begin(&group, 1, &off("ann"));
    let second = begin(&group, 2, &off("bob"));
    commit(first).unwrap();
    assert_lost(commit(second), "public.doctors");
    group.settle();
    assert_eq!(group.values("SELECT count(*) FROM doctors WHERE on_call"), ["1"; 3]);
    harness::assert_equal(&group);
}

#[test]
fn of_two_that_count_the_rows_before_each_adds_one_one_loses() {
    let group = harness::shared();
    prepare(&group, "CREATE TABLE seats (id serial PRIMARY KEY, flight int, who text)");
    let book =
        |who| format!("SELECT count(*) FROM seats WHERE flight = 7; INSERT INTO seats (flight, who) VALUES (7, '{who}')");
    let first = begin(&group, 1, &book("ann"));
    let second = begin(&group, 3, &book("bob"));
    commit(first).unwrap();
    assert_lost(commit(second), "public.seats");
    group.settle();
    assert_eq!(group.values("SELECT count(*) FROM seats"), ["1"; 3]);
}

/// Fekete, O'Neil, O'Neil, *A Read-Only Transaction Anomaly Under Snapshot Isolation*, in the words of PostgreSQL's wiki.
#[test]
fn no_receipt_comes_into_a_batch_that_was_reported_as_closed() {
    let group = harness::shared();
    prepare(
        &group,
        "CREATE TABLE control (batch int); INSERT INTO control VALUES (1);
         CREATE TABLE receipts (id serial PRIMARY KEY, batch int)",
    );
    let receipt = begin(&group, 1, "INSERT INTO receipts (batch) SELECT batch FROM control");
    let close = begin(&group, 2, "UPDATE control SET batch = batch + 1");
    commit(close).unwrap();
    group.settle();
    let mut report = group.connect(node(3));
    report.batch_execute("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY").unwrap();
    let closed: i32 = report.query_one("SELECT batch - 1 FROM control", &[]).unwrap().get(0);
    let receipts = |client: &mut Client| -> i64 {
        client.query_one("SELECT count(*) FROM receipts WHERE batch = $1", &[&closed]).unwrap().get(0)
    };
    let reported = receipts(&mut report);
    commit(report).unwrap();
    assert_lost(commit(receipt), "public.control");
    group.settle();
    assert_eq!(receipts(&mut group.connect(node(3))), reported);
}

#[test]
fn a_transaction_that_only_reads_is_not_submitted_and_never_loses() {
    let group = harness::shared();
    prepare(&group, "CREATE TABLE calm (id int PRIMARY KEY, x int); INSERT INTO calm VALUES (1, 0)");
    let reader = begin(&group, 2, "SELECT * FROM calm");
    let declared = {
        let mut client = group.connect(node(2));
        client.batch_execute("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY; SELECT * FROM calm").unwrap();
        client
    };
    group.execute(node(1), "UPDATE calm SET x = 1");
    group.settle();
    let before = group.value(node(2), "postgres_r.committed_position()");
    commit(reader).unwrap();
    commit(declared).unwrap();
    assert_eq!(group.value(node(2), "postgres_r.committed_position()"), before);
}

/// The tables of the two tests below.
const SHAPES: &str = "
    CREATE TABLE {s}.plain (id int PRIMARY KEY, x int); INSERT INTO {s}.plain SELECT n, 0 FROM generate_series(1, 5) n;
    CREATE TABLE {s}.log (id serial PRIMARY KEY, what text);
    CREATE VIEW {s}.shown AS SELECT * FROM {s}.plain;
    CREATE FUNCTION {s}.total() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT sum(x) FROM {s}.plain';
    CREATE FUNCTION {s}.total_by_plpgsql() RETURNS bigint LANGUAGE plpgsql PARALLEL SAFE
        AS 'BEGIN RETURN (SELECT sum(x) FROM {s}.plain); END';
    CREATE TABLE {s}.parted (id int, x int) PARTITION BY LIST (id);
    CREATE TABLE {s}.parted_1 PARTITION OF {s}.parted FOR VALUES IN (1);
    CREATE TABLE {s}.parted_2 PARTITION OF {s}.parted FOR VALUES IN (2);
    INSERT INTO {s}.parted VALUES (1, 0), (2, 0);
    CREATE TABLE {s}.above (x int); CREATE TABLE {s}.below () INHERITS ({s}.above); INSERT INTO {s}.below VALUES (1);
    CREATE TABLE {s}.parent (id int PRIMARY KEY, x int); INSERT INTO {s}.parent VALUES (1, 0), (2, 0);
    CREATE TABLE {s}.child (id serial PRIMARY KEY, parent int REFERENCES {s}.parent ON DELETE CASCADE);
    CREATE TABLE {s}.checked (x int);
    CREATE FUNCTION {s}.look() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN PERFORM count(*) FROM {s}.plain; RETURN coalesce(NEW, OLD); END';
    CREATE TRIGGER look BEFORE INSERT ON {s}.checked FOR EACH ROW EXECUTE FUNCTION {s}.look();
    CREATE TRIGGER look BEFORE DELETE ON {s}.child FOR EACH ROW EXECUTE FUNCTION {s}.look();
    INSERT INTO {s}.child (parent) VALUES (2);
";

/// What the reader does on node 1, besides writing its log; what comes from node 2 meanwhile; the table that both know.
type Meeting = (&'static str, &'static str, &'static str);

const READS: [Meeting; 20] = [
    ("SELECT FROM plain WHERE x > 100", "UPDATE plain SET x = 101 WHERE id = 1", "plain"),
    ("SELECT 1 FROM log WHERE EXISTS (SELECT FROM plain)", "DELETE FROM plain WHERE id = 2", "plain"),
    ("WITH found AS (SELECT * FROM plain) SELECT count(*) FROM found", "INSERT INTO plain VALUES (10)", "plain"),
    ("SELECT * FROM shown", "INSERT INTO plain VALUES (11)", "plain"),
    ("SELECT total()", "UPDATE plain SET x = 2", "plain"),
    ("SELECT total_by_plpgsql()", "UPDATE plain SET x = 3", "plain"),
    ("DO $$ DECLARE n int; BEGIN SELECT count(*) INTO n FROM plain; END $$", "UPDATE plain SET x = 4", "plain"),
    ("COPY plain TO '/dev/null'", "UPDATE plain SET x = 5", "plain"),
    ("COPY (SELECT * FROM plain) TO '/dev/null'", "UPDATE plain SET x = 6", "plain"),
    ("DECLARE c CURSOR FOR SELECT * FROM plain; FETCH 1 FROM c", "UPDATE plain SET x = 7", "plain"),
    ("PREPARE p AS SELECT * FROM plain; EXECUTE p; DEALLOCATE p", "UPDATE plain SET x = 8", "plain"),
    ("INSERT INTO log (what) SELECT x FROM plain", "UPDATE plain SET x = 9", "plain"),
    ("UPDATE plain SET x = 0 WHERE id + 0 = 1000", "INSERT INTO plain VALUES (1000)", "plain"),
    ("DELETE FROM plain WHERE x = 1000", "INSERT INTO plain VALUES (13, 1000)", "plain"),
    ("INSERT INTO plain VALUES (1) ON CONFLICT DO NOTHING", "DELETE FROM plain WHERE id = 1", "plain"),
    ("SELECT count(*) FROM parted WHERE id = 1", "UPDATE parted SET x = 1 WHERE id = 1", "parted_1"),
    ("SELECT count(*) FROM above", "UPDATE below SET x = 2", "below"),
    ("INSERT INTO checked VALUES (1)", "UPDATE plain SET x = 10", "plain"),
    ("DELETE FROM parent WHERE id = 2", "UPDATE plain SET x = 11", "plain"),
    // An INSERT that failed over what is there, and a transaction that goes on knowing it.
    (
        "SAVEPOINT s; DO $$ BEGIN INSERT INTO plain VALUES (3); EXCEPTION WHEN unique_violation THEN NULL; END $$",
        "DELETE FROM plain WHERE id = 3",
        "plain",
    ),
];

#[test]
fn every_way_of_reading_a_table_counts() {
    let group = harness::shared();
    prepare(&group, &format!("CREATE SCHEMA reads; {}", SHAPES.replace("{s}", "reads")));
    for (read, change, table) in READS {
        println!("{read} | {change}");
        let setup = format!("SET search_path = reads; {SERIALIZABLE}; {read}; INSERT INTO log (what) VALUES ('read')");
        let mut reader = group.connect(node(1));
        reader.batch_execute(&setup).unwrap_or_else(|error| panic!("{read}: {error:?}"));
        group.execute(node(2), &format!("SET search_path = reads; {change}"));
        assert_lost(commit(reader), &format!("reads.{table}"));
        group.settle();
    }
    harness::assert_equal(&group);
}

/// Tables that are looked into by primary key.
const LOOKED_INTO: &str = "
    CREATE TABLE {s}.one (id bigint PRIMARY KEY, x int); INSERT INTO {s}.one SELECT n, 0 FROM generate_series(1, 20) n;
    CREATE TABLE {s}.two (a int, b text, x int, PRIMARY KEY (b, a)); INSERT INTO {s}.two VALUES (1, 'one', 0), (2, 'two', 0);
    CREATE TABLE {s}.amounts (n numeric PRIMARY KEY, x int); INSERT INTO {s}.amounts VALUES (1.0, 0), (2.0, 0);
    CREATE TABLE {s}.padded (c char(5) PRIMARY KEY, x int); INSERT INTO {s}.padded VALUES ('a', 0), ('b', 0);
    CREATE TABLE {s}.parted (id int PRIMARY KEY, x int) PARTITION BY HASH (id);
    CREATE TABLE {s}.parted_0 PARTITION OF {s}.parted FOR VALUES WITH (MODULUS 1, REMAINDER 0);
    INSERT INTO {s}.parted VALUES (1, 0), (2, 0);
    CREATE TABLE {s}.outer_one (id int); INSERT INTO {s}.outer_one VALUES (7), (8);
    CREATE TABLE {s}.log (id serial PRIMARY KEY, what text);
";

/// Statements may find the reader's lock before the reader finds them: then it is not the table that is named.
const LOOKUPS: [Meeting; 18] = [
    ("SELECT x FROM one WHERE id = 1", "UPDATE one SET x = 1 WHERE id = 1", "one"),
    ("SELECT FROM one WHERE id = 1", "UPDATE one SET x = 1 WHERE id = 1", "one"),
    ("SELECT x FROM one WHERE id = 1::int2 AND x > 100", "UPDATE one SET x = 2 WHERE id = 1", "one"),
    ("UPDATE one SET x = 0 WHERE id = 2", "UPDATE one SET x = 3 WHERE id IN (1, 2)", "one"),
    ("UPDATE one SET x = 0 WHERE id = 100", "INSERT INTO one VALUES (100, 0)", "one"),
    ("SELECT FROM one WHERE id = 101", "UPDATE one SET id = 101 WHERE id = 20", "one"),
    ("SELECT FROM one WHERE id = 3", "DELETE FROM one WHERE id = 3", "one"),
    ("SELECT FROM one WHERE id = 4", "TRUNCATE one; INSERT INTO one SELECT n, 0 FROM generate_series(1, 20) n", ""),
    ("SELECT FROM one WHERE id = 4", "ALTER TABLE one ADD y int", ""),
    ("SELECT FROM outer_one o JOIN one ON one.id = o.id", "UPDATE one SET x = 4 WHERE id = 8", "one"),
    (
        "SELECT FROM outer_one o, LATERAL (SELECT x FROM one WHERE id = o.id + 50 LIMIT 1) l",
        "INSERT INTO one VALUES (57, 0)",
        "one",
    ),
    ("SELECT (SELECT x FROM one WHERE id = 5)", "UPDATE one SET x = 5 WHERE id = 5", "one"),
    ("EXECUTE look(6)", "UPDATE one SET x = 6 WHERE id = 6", "one"),
    ("DO $$ BEGIN PERFORM x FROM one WHERE id = 9; END $$", "UPDATE one SET x = 7 WHERE id = 9", "one"),
    ("SELECT FROM two WHERE a = 1 AND b = 'one'", "UPDATE two SET x = 1 WHERE a = 1", "two"),
    ("SELECT FROM amounts WHERE n = 1.000", "UPDATE amounts SET x = 1 WHERE n = 1", "amounts"),
    ("SELECT FROM padded WHERE c = 'a '", "UPDATE padded SET x = 1 WHERE c = 'a'", "padded"),
    ("SELECT FROM parted WHERE id = 1", "UPDATE parted SET x = 1 WHERE id = 1", "parted_0"),
];

const OTHER_ROWS: [(&str, &str); 9] = [
    ("SELECT x FROM one WHERE id = 1", "UPDATE one SET x = 1 WHERE id = 2"),
    ("SELECT x FROM one WHERE id = 1::int2", "INSERT INTO one VALUES (300, 0)"),
    ("UPDATE one SET x = 1 WHERE id = 3", "UPDATE one SET x = 1 WHERE id = 4"),
    ("DELETE FROM one WHERE id = 5", "DELETE FROM one WHERE id = 6"),
    ("SELECT FROM one WHERE id = 400", "INSERT INTO one VALUES (401, 0)"),
    ("SELECT FROM outer_one o JOIN one ON one.id = o.id", "UPDATE one SET x = 4 WHERE id = 9"),
    ("SELECT FROM two WHERE a = 1 AND b = 'one'", "UPDATE two SET x = 1 WHERE a = 2"),
    ("SELECT FROM amounts WHERE n = 1.000", "UPDATE amounts SET x = 1 WHERE n = 2"),
    ("SELECT FROM parted WHERE id = 1", "UPDATE parted SET x = 1 WHERE id = 2"),
];

const BY_INDEX: &str =
    "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off";

#[test]
fn who_looks_for_a_row_by_its_key_minds_what_happens_to_that_row() {
    let group = harness::shared();
    prepare(&group, &format!("CREATE SCHEMA lookups; {}", LOOKED_INTO.replace("{s}", "lookups")));
    let look = "PREPARE look(bigint) AS SELECT x FROM one WHERE id = $1";
    for (read, change, table) in LOOKUPS {
        println!("{read} | {change}");
        let settings = format!("SET search_path = lookups; {BY_INDEX}");
        let setup = format!("{SERIALIZABLE}; {read}; INSERT INTO log (what) VALUES ('x')");
        let mut reader = group.connect(node(1));
        reader.batch_execute(&settings).unwrap();
        reader.batch_execute(look).unwrap();
        reader.batch_execute(&setup).unwrap_or_else(|error| panic!("{read}: {error:?}"));
        group.execute(node(2), &format!("SET search_path = lookups; {change}"));
        assert_lost(commit(reader), table);
        group.settle();
    }
    harness::assert_equal(&group);
}

#[test]
fn who_looks_for_a_row_by_its_key_minds_no_other_row() {
    let group = harness::shared();
    prepare(&group, &format!("CREATE SCHEMA other_rows; {}", LOOKED_INTO.replace("{s}", "other_rows")));
    for (read, change) in OTHER_ROWS {
        println!("{read} | {change}");
        let setup =
            format!("SET search_path = other_rows; {BY_INDEX}; {SERIALIZABLE}; {read}; INSERT INTO log (what) VALUES ('x')");
        let mut reader = group.connect(node(1));
        reader.batch_execute(&setup).unwrap_or_else(|error| panic!("{read}: {error:?}"));
        group.execute(node(2), &format!("SET search_path = other_rows; {change}"));
        commit(reader).unwrap_or_else(|error| panic!("{read} | {change}: {error:?}"));
        group.settle();
    }
    harness::assert_equal(&group);
}

/// Tables that are searched by other means than their primary key.
const SEARCHED: &str = "
    CREATE TABLE {s}.goods (id int PRIMARY KEY, code text UNIQUE, price int, place point, tags int[], size int);
    INSERT INTO {s}.goods SELECT n, 'c' || n, n * 10, point(n, n), ARRAY[n], n FROM generate_series(1, 100) n;
    CREATE INDEX ON {s}.goods (price, size); CREATE INDEX ON {s}.goods USING gist (place);
    CREATE INDEX ON {s}.goods USING gin (tags); CREATE INDEX ON {s}.goods USING hash (size);
    CREATE TABLE {s}.big (id int PRIMARY KEY, n int, pad text) WITH (fillfactor = 10);
    INSERT INTO {s}.big SELECT n, n, repeat('x', 200) FROM generate_series(1, 8000) n; CREATE INDEX ON {s}.big (n);
    CREATE TABLE {s}.parted (id int, x int) PARTITION BY LIST (id);
    CREATE TABLE {s}.parted_1 PARTITION OF {s}.parted FOR VALUES IN (1, 2);
    INSERT INTO {s}.parted VALUES (1, 0), (2, 0);
    CREATE FUNCTION {s}.same(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END';
    CREATE TABLE {s}.log (id serial PRIMARY KEY, what text);
";

/// What the reader does; a change that it minds; one that it does not, if there is such a one.
const SEARCHES: [(&str, &str, &str); 24] = [
    (
        "SELECT FROM goods WHERE code = 'c1'",
        "UPDATE goods SET price = 1 WHERE code = 'c1'",
        "UPDATE goods SET price = 1 WHERE id = 2",
    ),
    (
        "SELECT FROM goods WHERE code = 'new'",
        "INSERT INTO goods VALUES (201, 'new')",
        "INSERT INTO goods VALUES (202, 'newer')",
    ),
    (
        "SELECT FROM goods WHERE code = 'c3'",
        "UPDATE goods SET code = 'd3' WHERE id = 3",
        "UPDATE goods SET code = 'd4' WHERE id = 4",
    ),
    ("SELECT FROM goods WHERE code = 'c5'", "DELETE FROM goods WHERE id = 5", "DELETE FROM goods WHERE id = 6"),
    (
        "SELECT sum(price) FROM goods WHERE price BETWEEN 100 AND 200",
        "UPDATE goods SET size = 0 WHERE price = 150",
        "UPDATE goods SET price = 210 WHERE id = 22",
    ),
    (
        "SELECT sum(price) FROM goods WHERE price BETWEEN 100 AND 200",
        "INSERT INTO goods VALUES (203, 'e3', 111)",
        "INSERT INTO goods VALUES (204, 'e4', 201)",
    ),
    (
        "SELECT sum(price) FROM goods WHERE price > 900",
        "UPDATE goods SET price = 901 WHERE id = 30",
        "UPDATE goods SET price = 899 WHERE id = 31",
    ),
    (
        "SELECT sum(price) FROM goods WHERE price > 900 AND id % 2 = 0",
        "UPDATE goods SET price = 0 WHERE id = 92",
        "UPDATE goods SET price = 0 WHERE id = 93",
    ),
    (
        "SELECT FROM goods WHERE price > 0 ORDER BY price LIMIT 1",
        "INSERT INTO goods VALUES (205, 'e5', 3)",
        "INSERT INTO goods VALUES (206, 'e6', -3)",
    ),
    (
        "SELECT max(price) FROM goods WHERE price < 500",
        "INSERT INTO goods VALUES (207, 'e7', 499)",
        "INSERT INTO goods VALUES (208, 'e8', 500)",
    ),
    ("SELECT FROM goods WHERE price IN (310, 320)", "DELETE FROM goods WHERE id = 32", "DELETE FROM goods WHERE id = 33"),
    (
        "SELECT FROM goods WHERE price IS NULL",
        "INSERT INTO goods VALUES (209, 'e9')",
        "INSERT INTO goods VALUES (210, 'f0', 0)",
    ),
    (
        "SELECT FROM goods WHERE place <@ box '((35.5,35.5),(40,40))'",
        "UPDATE goods SET place = '(36,37)' WHERE id = 41",
        "UPDATE goods SET place = '(41,41)' WHERE id = 42",
    ),
    (
        "SELECT FROM goods WHERE tags @> '{43}'",
        "UPDATE goods SET tags = '{43,44}' WHERE id = 45",
        "UPDATE goods SET tags = '{44}' WHERE id = 46",
    ),
    (
        "SELECT FROM goods WHERE size = 47",
        "UPDATE goods SET size = 47 WHERE id = 48",
        "UPDATE goods SET size = 49 WHERE id = 50",
    ),
    (
        "EXECUTE cheaper(60, 5)",
        "INSERT INTO goods (id, code, price, size) VALUES (211, 'f1', 59, 6)",
        "INSERT INTO goods (id, code, price, size) VALUES (212, 'f2', 61, 6)",
    ),
    (
        "DO $$ DECLARE v int := 555; BEGIN PERFORM FROM goods WHERE price = v; END $$",
        "INSERT INTO goods VALUES (213, 'f3', 555)",
        "INSERT INTO goods VALUES (214, 'f4', 556)",
    ),
    (
        "UPDATE goods SET size = size WHERE price = 570",
        "INSERT INTO goods VALUES (215, 'f5', 570)",
        "INSERT INTO goods VALUES (216, 'f6', 571)",
    ),
    (
        "DECLARE c CURSOR FOR SELECT FROM goods WHERE price > 590; FETCH 1 FROM c",
        "UPDATE goods SET size = 0 WHERE id = 95",
        "UPDATE goods SET size = 0 WHERE id = 58",
    ),
    (
        "SELECT count(*) FROM big WHERE n BETWEEN 100 AND 120",
        "UPDATE big SET pad = '' WHERE n = 110",
        "UPDATE big SET pad = '' WHERE n = 130",
    ),
    (
        "SELECT count(*) FROM parted WHERE id = 1",
        "UPDATE parted SET x = 1 WHERE id = 1",
        "UPDATE parted SET x = 1 WHERE id = 2",
    ),
    // What another node of the plan gives, and a function of a user's: any change of the table counts.
    (
        "SELECT FROM goods WHERE price = (SELECT 600 + count(*) FROM log WHERE what = 'none')",
        "UPDATE goods SET size = 0 WHERE id = 60",
        "",
    ),
    ("SELECT FROM goods WHERE same(price) = 610", "UPDATE goods SET size = 0 WHERE id = 62", ""),
    ("SELECT FROM big WHERE pad LIKE 'y%'", "UPDATE big SET n = n WHERE id = 1", ""),
];

/// Once in whatever way the planner likes, once by index, once by bitmap, once from one end to the other.
const WAYS: [&str; 4] = [
    "SELECT 1",
    "SET enable_seqscan = off; SET enable_bitmapscan = off",
    "SET enable_seqscan = off; SET enable_indexscan = off; SET enable_indexonlyscan = off",
    "SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off",
];

#[test]
fn who_looks_for_rows_by_other_means_minds_those_that_meet_the_condition() {
    let group = harness::shared();
    for (number, way) in (0..).zip(WAYS) {
        let schema = format!("searched_{number}");
        prepare(&group, &format!("CREATE SCHEMA {schema}; {}", SEARCHED.replace("{s}", &schema)));
        for (read, minded, other) in SEARCHES {
            for (change, is_minded) in [(other, false), (minded, true)].into_iter().filter(|(change, _)| !change.is_empty())
            {
                println!("{way} | {read} | {change}");
                let mut reader = group.connect(node(1));
                let settings = format!("SET search_path = {schema}; SET plan_cache_mode = force_generic_plan; {way}");
                reader.batch_execute(&settings).unwrap();
                reader
                    .batch_execute("PREPARE cheaper(int, int) AS SELECT FROM goods WHERE price < $1 AND size > $2")
                    .unwrap();
                let setup = format!("{SERIALIZABLE}; {read}; INSERT INTO log (what) VALUES ('x')");
                reader.batch_execute(&setup).unwrap_or_else(|error| panic!("{read}: {error:?}"));
                group.execute(node(2), &format!("SET search_path = {schema}; {change}"));
                // The reader looks once more at what its node shows.
                group.settle();
                let outcome = commit(reader);
                if is_minded {
                    assert_lost(outcome, &schema);
                } else if !(number == 3 && read.contains("big")) {
                    // A large table is not read from one end to the other again.
                    outcome.unwrap_or_else(|error| panic!("{way} | {read} | {change}: {error:?}"));
                }
                group.settle();
            }
        }
    }
    harness::assert_equal(&group);
}

/// The reader's own changes are not somebody else's.
#[test]
fn what_a_transaction_has_changed_itself_it_has_read_all_the_same() {
    let group = harness::shared();
    let rows = "INSERT INTO own SELECT n, n FROM generate_series(1, 10) n";
    prepare(&group, &format!("CREATE TABLE own (id int PRIMARY KEY, x int); {rows}"));
    let own = "SELECT count(*) FROM own WHERE x < 6; UPDATE own SET x = 20 WHERE x = 1; DELETE FROM own WHERE x = 2;
        INSERT INTO own VALUES (11, 3); SAVEPOINT s; UPDATE own SET x = 0 WHERE x = 5; ROLLBACK TO s; SELECT count(*) FROM own WHERE x < 6";
    let reader = begin(&group, 1, own);
    group.execute(node(2), "UPDATE own SET x = 30 WHERE id = 10");
    group.settle();
    commit(reader).unwrap();
    group.settle();
    let reader = begin(&group, 1, "SELECT count(*) FROM own WHERE x < 6; UPDATE own SET x = 21 WHERE x = 3");
    group.execute(node(2), "UPDATE own SET x = 5 WHERE id = 10");
    group.settle();
    assert_lost(commit(reader), "public.own");
    harness::assert_equal(&group);
}

/// Nor is a row that came and went again.
#[test]
fn what_is_as_it_was_has_not_changed() {
    let group = harness::shared();
    prepare(&group, "CREATE TABLE same (id int PRIMARY KEY, x int); INSERT INTO same VALUES (1, 1)");
    let reader = begin(&group, 1, "SELECT count(*) FROM same WHERE x > 0; INSERT INTO same VALUES (2, 0)");
    for statement in
        ["INSERT INTO same VALUES (3, 3)", "UPDATE same SET x = 4 WHERE id = 3", "DELETE FROM same WHERE id = 3"]
    {
        group.execute(node(2), statement);
    }
    group.settle();
    commit(reader).unwrap();
}

/// Rows of others are compared with what this transaction looks for; it cannot help what is in them.
#[test]
fn a_comparison_that_fails_over_anothers_row_is_a_serialization_failure() {
    let group = harness::shared();
    prepare(&group, "CREATE TABLE divided (id int PRIMARY KEY, x int); INSERT INTO divided VALUES (1, 1)");
    let mut reader = begin(&group, 1, "SELECT count(*) FROM divided WHERE 10 / x = 10; INSERT INTO divided VALUES (2, 1)");
    group.execute(node(2), "INSERT INTO divided VALUES (3, 0)");
    group.settle();
    let error = reader.batch_execute("COMMIT").unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "40001", "{error}");
    assert!(error.detail().unwrap_or_default().starts_with("A condition of a query could not be evaluated"), "{error:?}");
    harness::assert_equal(&group);
}

/// INSERT ... ON CONFLICT; a change of another row; whether the transaction has learnt more than the keys of its own rows say.
const PROPOSED: [(&str, &str, bool); 7] = [
    ("INSERT INTO goods VALUES (300, 'g0') ON CONFLICT DO NOTHING", "UPDATE goods SET size = 1 WHERE id = 70", false),
    (
        "INSERT INTO goods VALUES (71, 'g1') ON CONFLICT (id) DO UPDATE SET size = 1",
        "UPDATE goods SET size = 1 WHERE id = 72",
        false,
    ),
    ("INSERT INTO goods VALUES (73, 'g2') ON CONFLICT DO NOTHING", "UPDATE goods SET size = 1 WHERE id = 74", true),
    (
        "INSERT INTO goods VALUES (75, 'g3') ON CONFLICT (id) DO UPDATE SET size = 1 WHERE goods.size < 0",
        "UPDATE goods SET size = 1 WHERE id = 76",
        true,
    ),
    (
        "INSERT INTO goods VALUES (301, 'g4'), (77, 'g5') ON CONFLICT DO NOTHING",
        "UPDATE goods SET size = 1 WHERE id = 78",
        true,
    ),
    (
        "WITH put AS (INSERT INTO goods VALUES (302, 'g6') ON CONFLICT DO NOTHING RETURNING id) SELECT * FROM put",
        "UPDATE goods SET size = 1 WHERE id = 79",
        true,
    ),
    (
        "SAVEPOINT s; INSERT INTO goods VALUES (303, 'g7') ON CONFLICT DO NOTHING; ROLLBACK TO s",
        "UPDATE goods SET size = 1 WHERE id = 80",
        true,
    ),
];

#[test]
fn on_conflict_reads_where_it_neither_inserts_nor_updates() {
    let group = harness::shared();
    prepare(&group, &format!("CREATE SCHEMA proposed; {}", SEARCHED.replace("{s}", "proposed")));
    for (insert, change, is_read) in PROPOSED {
        println!("{insert} | {change}");
        let reader =
            begin(&group, 1, &format!("SET LOCAL search_path = proposed; {insert}; INSERT INTO log (what) VALUES ('x')"));
        group.execute(node(2), &format!("SET search_path = proposed; {change}"));
        group.settle();
        match is_read {
            true => assert_lost(commit(reader), "proposed.goods"),
            false => commit(reader).unwrap(),
        }
        group.settle();
    }
    harness::assert_equal(&group);
}

const NO_READS: [(&str, &str); 9] = [
    ("INSERT INTO plain VALUES (20, 0) RETURNING id", "INSERT INTO plain VALUES (21, 0)"),
    ("INSERT INTO child (parent) VALUES (1)", "INSERT INTO parent VALUES (3, 0)"),
    ("INSERT INTO child (parent) VALUES (1)", "UPDATE parent SET x = 1 WHERE id = 2"),
    ("SAVEPOINT s; INSERT INTO plain VALUES (22, 0); RELEASE s", "INSERT INTO plain VALUES (23, 0)"),
    ("SELECT count(*) FROM parted WHERE id = 1", "UPDATE parted SET x = 1 WHERE id = 2"),
    (
        "CREATE TEMP TABLE mine (x int); INSERT INTO mine VALUES (1); SELECT * FROM mine; DROP TABLE mine",
        "UPDATE plain SET x = 1",
    ),
    ("SELECT count(*) FROM pg_class", "UPDATE plain SET x = 2"),
    ("SELECT last_value FROM log_id_seq", "INSERT INTO log (what) VALUES ('other')"),
    ("COPY checked FROM '/dev/null'", "UPDATE plain SET x = 3"),
];

#[test]
fn what_is_not_read_disturbs_nobody() {
    let group = harness::shared();
    prepare(&group, &format!("CREATE SCHEMA no_reads; {}", SHAPES.replace("{s}", "no_reads")));
    for (statement, change) in NO_READS {
        println!("{statement} | {change}");
        let setup = format!("SET search_path = no_reads; {SERIALIZABLE}; {statement}; INSERT INTO log (what) VALUES ('x')");
        let mut client = group.connect(node(1));
        client.batch_execute(&setup).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        group.execute(node(2), &format!("SET search_path = no_reads; {change}"));
        commit(client).unwrap_or_else(|error| panic!("{statement} | {change}: {error:?}"));
        group.settle();
    }
    harness::assert_equal(&group);
}

#[test]
fn what_was_committed_before_the_snapshot_disturbs_nobody() {
    let group = harness::shared();
    prepare(&group, "CREATE TABLE settled (id int PRIMARY KEY, x int); INSERT INTO settled VALUES (1, 0)");
    let mut client = group.connect(node(1));
    // The snapshot is that of the first statement, not of BEGIN.
    client.batch_execute(SERIALIZABLE).unwrap();
    for x in 1..=20 {
        group.execute(node(2), &format!("UPDATE settled SET x = {x}"));
    }
    group.settle();
    client.batch_execute("SELECT * FROM settled; INSERT INTO settled VALUES (2, 0)").unwrap();
    commit(client).unwrap();
}

#[test]
fn two_sessions_of_one_node_are_told_apart_as_on_a_plain_server() {
    let group = harness::shared();
    prepare(&group, "CREATE TABLE local (id int PRIMARY KEY, x int); INSERT INTO local VALUES (1, 0), (2, 0)");
    let first = begin(&group, 1, "SELECT sum(x) FROM local; UPDATE local SET x = 1 WHERE id = 1");
    let mut second = begin(&group, 1, "SELECT sum(x) FROM local; UPDATE local SET x = 1 WHERE id = 2");
    commit(first).unwrap();
    let error = second.batch_execute("COMMIT").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "40001", "{error}");
    harness::assert_equal(&group);
}

/// Single statements by themselves, as text and prepared: PostgreSQL takes their snapshot before anybody hears of them.
#[test]
fn of_statements_on_all_nodes_that_each_insert_how_many_there_are_no_two_count_the_same() {
    const EACH: usize = 12;
    let group = harness::shared();
    prepare(&group, "CREATE TABLE counted (n bigint NOT NULL)");
    std::thread::scope(|scope| {
        for (number, is_prepared) in [(1, true), (2, true), (3, true), (1, false), (2, false), (3, false)] {
            let group = &group;
            scope.spawn(move || (0..EACH).for_each(|_| insert_count(&mut group.connect(node(number)), is_prepared)));
        }
    });
    group.settle();
    let counted = "SELECT count(*) || ' ' || count(DISTINCT n) || ' ' || max(n) FROM counted";
    assert_eq!(group.values(counted), ["72 72 71"; 3]);
}

fn insert_count(client: &mut Client, is_prepared: bool) {
    const INSERT: &str = "INSERT INTO counted SELECT count(*) FROM counted";
    client
        .batch_execute("SET default_transaction_isolation = serializable; SET plan_cache_mode = force_generic_plan")
        .unwrap();
    let prepared = client.prepare(INSERT).unwrap();
    loop {
        let done = if is_prepared { client.execute(&prepared, &[]).map(drop) } else { client.batch_execute(INSERT) };
        match done {
            Ok(()) => return,
            Err(error) => assert_eq!(error.code().map(|code| code.code()), Some("40001"), "{error:?}"),
        }
    }
}

#[test]
fn a_snapshot_of_another_session_cannot_be_written_by() {
    let group = harness::shared();
    let mut exporter = begin(&group, 1, "SELECT 1");
    let snapshot: String = exporter.query_one("SELECT pg_export_snapshot()", &[]).unwrap().get(0);
    let import = format!("SET TRANSACTION SNAPSHOT '{snapshot}'");
    let mut client = group.connect(node(1));
    let error = client.batch_execute(&format!("{SERIALIZABLE}; {import}")).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "0A000", "{error}");
    client.batch_execute("ROLLBACK").unwrap();
    client.batch_execute(&format!("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY; {import}; SELECT 1; COMMIT")).unwrap();
    client.batch_execute(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ; {import}; COMMIT")).unwrap();
}

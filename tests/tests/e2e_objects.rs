//! Values that name objects of the database (regclass and its kin), and values of a table's row type, mean the same on every node.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::thread;

use postgres_r_tests::harness::{self, Group, everywhere, node, race, step};
use postgres_r_tests::workload::client::{Failure, classify};

/// Every node still takes writes, and has what the others write.
fn all_in_service(group: &Group) {
    step(group, 1, "CREATE TABLE IF NOT EXISTS in_service (round int, node int)");
    group.settle();
    for number in group.numbers() {
        group.execute(number, &format!("INSERT INTO in_service VALUES (1, {})", number.0));
    }
    assert_eq!(everywhere(group, "SELECT count(*) FROM in_service"), "3");
    group.execute(node(1), "DROP TABLE in_service");
}

/// Makes the next objects of each node have numbers of their own: temporary tables are of one node only.
fn spread_numbers(group: &Group) {
    for number in group.numbers() {
        let mut client = group.connect(number);
        for round in 0..number.0 * 3 {
            client.batch_execute(&format!("CREATE TEMP TABLE apart{round} (n int); DROP TABLE apart{round}")).unwrap();
        }
    }
}

#[test]
fn rows_about_a_dropped_table_can_be_changed() {
    let group = harness::shared_without_table_locks();
    spread_numbers(&group);
    step(
        &group,
        1,
        "CREATE TABLE job (n int PRIMARY KEY, m text UNIQUE); CREATE TABLE kept (n int);
         CREATE TABLE log (about regclass, line text);
         CREATE TABLE entry (id int PRIMARY KEY, about regclass, more regclass[], line text)",
    );
    step(
        &group,
        1,
        "INSERT INTO log VALUES ('job', 'one'), ('job_pkey', 'index'), ('kept', 'kept'), ('job', 'two');
         INSERT INTO entry VALUES (1, 'job', '{job,kept,job_m_key,-}', 'a'), (2, 'job_m_key', NULL, 'b')",
    );
    step(&group, 2, "INSERT INTO log VALUES ('job', 'three')");
    step(&group, 3, "DROP TABLE job");
    // The second of this name is another object.
    step(&group, 2, "CREATE TABLE job (n int)");
    step(&group, 2, "INSERT INTO log VALUES ('job', 'new')");
    step(&group, 1, "DELETE FROM log WHERE line = 'one'");
    step(&group, 2, "UPDATE log SET line = 'changed' WHERE line = 'two'");
    step(&group, 3, "UPDATE log SET line = 'changed too' WHERE line = 'index'");
    step(&group, 2, "INSERT INTO log SELECT about, 'copied' FROM log WHERE line = 'three'");
    step(&group, 3, "DELETE FROM log WHERE line = 'copied'");
    step(&group, 3, "UPDATE entry SET line = 'c'");
    step(&group, 1, "UPDATE entry SET id = id + 10");
    step(&group, 2, "DELETE FROM entry WHERE id = 12");
    let lines = "SELECT string_agg(line, ',' ORDER BY line COLLATE \"C\") FROM log";
    assert_eq!(everywhere(&group, lines), "changed,changed too,kept,new,three");
    let equal = "SELECT count(DISTINCT about) || ' ' || count(*) FILTER (WHERE about = 'job'::regclass) FROM log";
    assert_eq!(everywhere(&group, equal), "4 1");
    assert_eq!(everywhere(&group, "SELECT (more)[1] = about AND (more)[2] = 'kept'::regclass FROM entry"), "true");
    step(&group, 1, "DROP TABLE job");
    step(&group, 2, "DELETE FROM log WHERE line = 'new'");
    step(&group, 3, "DELETE FROM log");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM log"), "0");
    all_in_service(&group);
    step(&group, 1, "DROP TABLE log, entry, kept");
}

/// A row that names what was dropped is found by a name that the drop gives it: on a node where the drop, with something long behind it, is still
/// being applied, a change of the row that came after it waits for it, though the row's table has nothing to do with either. (So much is ordered behind
/// them that other remote backends begin with it.)
#[test]
fn a_row_about_a_dropped_table_is_changed_while_other_nodes_still_drop() {
    let group = harness::shared_without_table_locks();
    spread_numbers(&group);
    step(
        &group,
        1,
        "CREATE TABLE log (about regclass, more regclass[], line text); CREATE TABLE later (n int);
         CREATE TABLE long (n int); INSERT INTO long SELECT generate_series(1, 300000)",
    );
    for (round, wider) in ["bigint", "numeric"].into_iter().enumerate() {
        step(
            &group,
            1,
            "CREATE TABLE job (id int PRIMARY KEY);
             INSERT INTO log VALUES ('job', NULL, 'one'), (NULL, '{job,job_pkey}', 'two')",
        );
        group.settle();
        let mut client = group.connect(node(1));
        client.batch_execute(&format!("BEGIN; DROP TABLE job; ALTER TABLE long ALTER n TYPE {wider}; COMMIT")).unwrap();
        client.batch_execute(&format!("UPDATE log SET line = '{round}' WHERE line = 'one'")).unwrap();
        client.batch_execute("DELETE FROM log WHERE line = 'two'").unwrap();
        for number in 0..40 {
            client.batch_execute(&format!("INSERT INTO later VALUES ({number})")).unwrap();
        }
    }
    assert_eq!(everywhere(&group, "SELECT string_agg(line, ' ' ORDER BY line) FROM log"), "0 1");
    all_in_service(&group);
    harness::early::assert_none(&group);
    step(&group, 1, "DROP TABLE log, long, later");
}

#[test]
fn a_value_naming_a_table_that_was_renamed_meanwhile_loses() {
    let group = harness::shared_without_table_locks();
    step(
        &group,
        1,
        "CREATE TABLE stage (n int); CREATE SCHEMA yard; CREATE TABLE yard.truck (n int);
         CREATE FUNCTION public.haul(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE TYPE load AS (kilos int);
         CREATE TABLE plan (about regclass, fn regprocedure, kind regtype, place regnamespace)",
    );
    for (insert, ddl) in [
        ("INSERT INTO plan VALUES ('stage')", "ALTER TABLE stage RENAME TO stage2"),
        ("INSERT INTO plan VALUES ('stage2')", "ALTER TABLE stage2 SET SCHEMA yard"),
        ("INSERT INTO plan VALUES ('yard.truck')", "ALTER SCHEMA yard RENAME TO depot"),
        ("INSERT INTO plan (place) VALUES ('depot')", "ALTER SCHEMA depot RENAME TO yard"),
        ("INSERT INTO plan (fn) VALUES ('haul(int)')", "ALTER FUNCTION haul(int) RENAME TO carry"),
        ("INSERT INTO plan (fn) VALUES ('carry(int)')", "DROP FUNCTION carry(int)"),
        ("INSERT INTO plan (kind) VALUES ('load[]')", "ALTER TYPE load RENAME TO burden"),
        ("INSERT INTO plan (kind) VALUES ('yard.truck')", "ALTER TABLE yard.truck RENAME TO lorry"),
        ("INSERT INTO plan VALUES ('yard.stage2')", "DROP TABLE yard.stage2"),
    ] {
        let outcome = race::while_open(&group, (node(2), insert), (node(1), ddl));
        assert!(matches!(outcome, Err(Failure::Retry)), "{insert} / {ddl}: {outcome:?}");
        // It works once it names what is there.
        all_in_service(&group);
    }
    // What does not change a name is in nobody's way.
    step(&group, 1, "CREATE TABLE stage (n int)");
    let outcome = race::while_open(
        &group,
        (node(2), "INSERT INTO plan VALUES ('stage')"),
        (node(1), "ALTER TABLE stage ADD COLUMN m int"),
    );
    assert!(outcome.is_ok(), "{outcome:?}");
    // A row that is there follows its object, also if it is changed while the object is renamed.
    step(&group, 1, "CREATE TABLE plan2 (id int PRIMARY KEY, about regclass, line text)");
    step(&group, 1, "INSERT INTO plan2 VALUES (1, 'stage', 'a')");
    let rename = (node(1), "ALTER TABLE stage RENAME TO stage3");
    let outcome = race::while_open(&group, (node(2), "UPDATE plan2 SET line = 'b'"), rename);
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(everywhere(&group, "SELECT about || line FROM plan2"), "stage3b");
    assert_eq!(everywhere(&group, "SELECT about FROM plan"), "stage3");
    step(&group, 1, "DROP TABLE plan, plan2, stage3; DROP SCHEMA yard CASCADE; DROP TYPE burden");
}

#[test]
fn a_key_that_names_an_object_is_the_same_on_every_node() {
    let group = harness::shared_without_table_locks();
    spread_numbers(&group);
    step(
        &group,
        1,
        "CREATE TABLE ledger (n int); CREATE DOMAIN table_name AS regclass;
         CREATE FUNCTION ledger_of(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    );
    for (keyed, value) in [
        ("what regclass PRIMARY KEY", "'ledger'"),
        ("what regclass, UNIQUE (what)", "'ledger'"),
        ("what table_name PRIMARY KEY", "'ledger'"),
        ("what regclass[] PRIMARY KEY", "'{ledger,ledger}'"),
        ("what regprocedure PRIMARY KEY", "'ledger_of(int)'"),
        ("what regtype PRIMARY KEY", "'ledger'"),
        ("what regclass, n int DEFAULT 1, PRIMARY KEY (n, what)", "'ledger'"),
    ] {
        step(&group, 1, &format!("CREATE TABLE registry ({keyed})"));
        check_registry(&group, value, keyed);
    }
    // The number itself, in an index on an expression.
    step(&group, 1, "CREATE TABLE registry (what regclass)");
    step(&group, 1, "CREATE UNIQUE INDEX ON registry ((what::oid::bigint))");
    check_registry(&group, "'ledger'", "expression");
    step(&group, 1, "CREATE TABLE registry (what regclass)");
    step(&group, 1, "CREATE UNIQUE INDEX ON registry (what) WHERE what > 5");
    check_registry(&group, "'ledger'", "predicate");
    step(&group, 1, "DROP TABLE ledger; DROP DOMAIN table_name; DROP FUNCTION ledger_of(int)");
}

/// All nodes insert the same value at once; one of them may.
fn check_registry(group: &Group, value: &str, what: &str) {
    group.settle();
    let insert = format!("INSERT INTO registry (what) VALUES ({value})");
    for _ in 0..4 {
        let outcomes: Vec<Result<(), Failure>> = thread::scope(|scope| {
            let mut runners = Vec::new();
            for number in group.numbers() {
                let (insert, mut client) = (insert.clone(), group.connect(number));
                runners.push(scope.spawn(move || client.batch_execute(&insert).map_err(|error| classify(&error))));
            }
            runners.into_iter().map(|runner| runner.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{what}: {outcomes:?}");
        assert_eq!(everywhere(group, "SELECT count(*) FROM registry"), "1", "{what}");
        step(group, 2, "DELETE FROM registry");
    }
    // Neither has seen the other.
    let outcome = race::after_unseen(group, (node(1), &insert), (node(2), &insert));
    assert!(outcome.is_err(), "{what}: {outcome:?}");
    assert_eq!(everywhere(group, "SELECT count(*) FROM registry"), "1", "{what}");
    step(group, 3, "UPDATE registry SET what = what");
    step(group, 3, "DELETE FROM registry");
    step(group, 1, "DROP TABLE registry");
}

#[test]
fn a_value_of_a_tables_row_type_follows_the_table() {
    let group = harness::shared_without_table_locks();
    step(
        &group,
        1,
        "CREATE TABLE person (name text, born date); CREATE TABLE history (id int PRIMARY KEY, was person, note text);
         CREATE TABLE diary (was person, note text); CREATE TABLE crowd (id int PRIMARY KEY, all_of person[]);
         INSERT INTO history VALUES (1, ('Ana', '1990-01-01'), 'a');
         INSERT INTO diary VALUES (('Ana, \"the\" one', NULL), 'a'); INSERT INTO crowd VALUES (1, '{\"(x,)\"}')",
    );
    // The value stays as it is: nothing is in the way.
    let add = (node(1), "ALTER TABLE person ADD COLUMN height int");
    let outcome = race::while_open(&group, (node(2), "UPDATE history SET note = 'b'"), add);
    assert!(outcome.is_ok() || matches!(outcome, Err(Failure::Retry)), "{outcome:?}");
    all_in_service(&group);
    for (change, ddl) in [
        ("UPDATE diary SET note = 'b'", "ALTER TABLE person ADD COLUMN shoe int"),
        ("UPDATE diary SET note = 'c'", "ALTER TABLE person DROP COLUMN height"),
        ("INSERT INTO history VALUES (2, ('Eva', NULL, 4), 'n')", "ALTER TABLE person ADD COLUMN hat int"),
        ("DELETE FROM diary", "ALTER TABLE person DROP COLUMN hat"),
        ("UPDATE crowd SET all_of = all_of || '(y,,)'::person", "ALTER TABLE person DROP COLUMN shoe"),
    ] {
        let outcome = race::while_open(&group, (node(2), change), (node(1), ddl));
        assert!(matches!(outcome, Err(Failure::Retry)), "{change} / {ddl}: {outcome:?}");
        step(&group, 3, "INSERT INTO diary SELECT was, 'n' FROM diary LIMIT 1");
        all_in_service(&group);
    }
    step(&group, 2, "UPDATE history SET was.name = 'Eva'; UPDATE diary SET note = 'd'; DELETE FROM crowd");
    assert_eq!(everywhere(&group, "SELECT string_agg(h::text, ' ') FROM history h"), "(1,\"(Eva,1990-01-01)\",b)");
    harness::assert_equal(&group);
    step(&group, 1, "DROP TABLE history, diary, crowd, person");
}

/// Rows of a table with a column of each type, but for the first.
fn values_that_name() -> Vec<String> {
    let overloaded = "(SELECT oid FROM pg_proc WHERE proname = 'over' AND pronargs = 2)";
    let plus = "(SELECT oid FROM pg_operator WHERE oprname = '+' AND oprnamespace = 'public'::regnamespace)";
    let minus = "(SELECT oid FROM pg_operator WHERE oprname = '-' AND oprleft = 0 AND oprright = 'int4'::regtype)";
    vec![
        format!(
            "'\"Odd schema\".\"16384\"', '\"Odd schema\".\"a.b\"[]', {overloaded}, 'over(text[])', {plus}, 'public.-(none,plain)',
             '\"Odd schema\"', current_user::regrole, '\"Odd schema\".\"C\"', 'english', 'simple', NULL,
             ARRAY[{overloaded}, 'pg_backend_pid'::regproc, 0]::regproc[], ROW('plain', 'plain', ARRAY[{overloaded}]),
             ARRAY[ROW('int4', 'pg_class', NULL), NULL]::pair[]"
        ),
        format!(
            "'pg_class', 'timestamp with time zone', 'now', 'pg_catalog.lower(text)', {minus}, '+(int,int)', 'pg_catalog',
         'pg_read_all_data', 'pg_catalog.\"C\"', 'pg_catalog.german', 'pg_catalog.english_stem', 'postgres=r/postgres', '{{}}',
         ROW(NULL, NULL, NULL), '{{}}'"
        ),
        "0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, '[3:4]={now,0}', NULL, NULL".to_owned(),
        format!(
            "'plain'::regclass, '\"Odd schema\".d', 'over(int)'::regprocedure, 0, {minus}, 0, 'public', 0, 0, 0, 0, '=r/postgres',
         '{{{{now,0}},{{0,now}}}}', ROW('void', NULL, '{{}}'), NULL"
        ),
        "4000000000, 4000000001, 4000000002, 4000000003, 4000000004, 4000000005, 4000000006, 4000000007, 4000000008, 4000000009,
         4000000010, NULL, ARRAY[4000000011]::regproc[], NULL, NULL"
            .to_owned(),
    ]
}

#[test]
fn every_type_that_names_objects_reads_back_as_the_same_object() {
    let group = harness::shared_without_table_locks();
    spread_numbers(&group);
    step(
        &group,
        1,
        "CREATE SCHEMA \"Odd schema\"; CREATE TABLE \"Odd schema\".\"16384\" (n int); CREATE TABLE plain (n int);
         CREATE TYPE \"Odd schema\".\"a.b\" AS (x int); CREATE DOMAIN \"Odd schema\".d AS plain;
         CREATE FUNCTION over(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE FUNCTION over(\"Odd schema\".\"a.b\", plain[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE FUNCTION over(VARIADIC text[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE FUNCTION plus(plain, int) RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE OPERATOR public.+ (LEFTARG = plain, RIGHTARG = int, FUNCTION = plus);
         CREATE FUNCTION minus(plain) RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE OPERATOR public.- (RIGHTARG = plain, FUNCTION = minus);
         CREATE COLLATION \"Odd schema\".\"C\" FROM \"C\";
         CREATE TYPE pair AS (t regtype, c regclass, ps regproc[]);
         CREATE TABLE names (id int PRIMARY KEY, c regclass, t regtype, p regproc, pp regprocedure, o regoper, oo regoperator,
             n regnamespace, r regrole, l regcollation, f regconfig, d regdictionary, a aclitem, ps regproc[], k pair, ks pair[]);
         CREATE TABLE names_too (LIKE names)",
    );
    for (id, values) in values_that_name().into_iter().enumerate() {
        let number = node(id % 3 + 1);
        group.settle();
        group.execute(number, &format!("INSERT INTO names VALUES ({id}, {values})"));
        group.settle();
        group.execute(number, &format!("INSERT INTO names_too SELECT * FROM names WHERE id = {id}"));
    }
    let rows = "SELECT string_agg(n::text, E'\\n' ORDER BY id) FROM names n";
    let before = everywhere(&group, rows);
    assert!(before.contains("\"Odd schema\"") || before.contains("Odd schema"), "{before}");
    // Signatures too, which their text may leave out.
    let signatures = "SELECT string_agg(p::oid::regprocedure || ' ' || o::oid::regoperator, ' ' ORDER BY id) FROM names";
    assert!(everywhere(&group, signatures).contains("over(\"Odd schema\".\"a.b\",plain[]) +(plain,integer)"));
    let nested = "SELECT ((k).ps[1])::oid::regprocedure FROM names WHERE id = 0";
    assert_eq!(everywhere(&group, nested), "over(\"Odd schema\".\"a.b\",plain[])");
    for number in group.numbers() {
        group.settle();
        group.execute(number, "UPDATE names SET ps = ps || 'now'::regproc WHERE array_ndims(ps) = 1; UPDATE names_too SET ps = '{}' WHERE id % 3 = 0");
    }
    assert_eq!(everywhere(&group, "SELECT count(*) FROM names_too WHERE ps = '{}'"), "3");
    step(&group, 2, "DELETE FROM names_too");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM names_too"), "0");
    all_in_service(&group);
    // What is dropped goes on being one and the same, whatever names it.
    step(&group, 1, "INSERT INTO names_too SELECT * FROM names");
    step(
        &group,
        2,
        "DROP FUNCTION over(\"Odd schema\".\"a.b\", plain[]); DROP SCHEMA \"Odd schema\" CASCADE; DROP TABLE plain CASCADE",
    );
    step(&group, 3, "UPDATE names_too SET id = id + 10");
    step(&group, 1, "UPDATE names SET id = id + 10");
    step(&group, 2, "DELETE FROM names_too");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM names_too"), "0");
    assert_eq!(everywhere(&group, "SELECT (ps)[1] = p FROM names WHERE id = 10"), "true");
    all_in_service(&group);
    step(&group, 1, "DROP TABLE names, names_too; DROP FUNCTION over(int), over(text[]); DROP TYPE pair");
}

#[test]
fn what_other_nodes_have_by_another_name_is_refused() {
    let group = harness::shared_without_table_locks();
    step(
        &group,
        1,
        "CREATE TABLE toasted (t text); CREATE TABLE mentions (c regclass, cs regclass[], t regtype, n regnamespace, p regprocedure);
         CREATE TYPE classes AS RANGE (subtype = regclass); ALTER TABLE mentions ADD COLUMN r classes",
    );
    let mut client = group.connect(node(1));
    client
        .batch_execute("CREATE TEMP TABLE here (n int); CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        .unwrap();
    for values in [
        "(c) SELECT reltoastrelid FROM pg_class WHERE relname = 'toasted'",
        "(cs) SELECT ARRAY[reltoastrelid] FROM pg_class WHERE relname = 'toasted'",
        "(c) VALUES ('here')",
        "(cs) VALUES ('{here}')",
        "(t) VALUES ('here')",
        "(t) VALUES ('here[]')",
        "(p) VALUES ('pg_temp.f()')",
        "(n) VALUES (pg_my_temp_schema())",
        "(r) VALUES ('[pg_class,pg_class]')",
    ] {
        let error = client.batch_execute(&format!("INSERT INTO mentions {values}")).unwrap_err();
        assert_eq!(error.code().unwrap().code(), "0A000", "{values}: {error}");
    }
    all_in_service(&group);
    step(&group, 1, "DROP TABLE toasted, mentions; DROP TYPE classes");
}

/// Columns may come to name objects without a row being written.
#[test]
fn names_that_a_statement_wrote_are_known_too() {
    let group = harness::shared_without_table_locks();
    spread_numbers(&group);
    step(
        &group,
        1,
        "CREATE TABLE gone (n int); CREATE TABLE rewritten (id int, c text); INSERT INTO rewritten VALUES (1, 'gone'), (2, NULL);
         ALTER TABLE rewritten ALTER COLUMN c TYPE regclass USING c::regclass;
         ALTER TABLE rewritten ADD COLUMN d regclass DEFAULT 'gone'; ALTER TABLE rewritten ALTER COLUMN d DROP DEFAULT;
         CREATE TABLE made AS SELECT 'gone'::regclass AS c, ARRAY['gone'::regtype] AS ts",
    );
    step(&group, 2, "DROP TABLE gone");
    step(&group, 3, "UPDATE rewritten SET id = id + 1");
    step(&group, 2, "DELETE FROM rewritten WHERE id = 2; DELETE FROM made");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM rewritten WHERE id = 3"), "1");
    all_in_service(&group);
    step(&group, 1, "DROP TABLE rewritten, made");
}

/// A row of another node that names a role which this node does not have.
#[test]
fn a_role_that_one_node_has_not_keeps_nobody_out() {
    let group = harness::shared_without_table_locks();
    group.playground.connect(node(1), "postgres").unwrap().batch_execute("CREATE ROLE only_here").unwrap();
    step(&group, 1, "CREATE TABLE duty (who regrole, since int, rights aclitem)");
    step(
        &group,
        1,
        "INSERT INTO duty VALUES ('only_here', 1, 'only_here=r/only_here'), ('postgres', 2, 'postgres=r/postgres')",
    );
    step(&group, 1, "UPDATE duty SET since = since + 10");
    step(&group, 2, "UPDATE duty SET since = since + 10");
    assert_eq!(everywhere(&group, "SELECT string_agg(since::text, ' ' ORDER BY since) FROM duty"), "21 22");
    step(&group, 3, "DELETE FROM duty");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM duty"), "0");
    all_in_service(&group);
    step(&group, 1, "DROP TABLE duty");
}

#[test]
fn columns_that_mean_something_on_one_node_only_are_named() {
    let group = harness::shared_without_table_locks();
    let mut config = group.playground.cluster(node(1)).port.to_string();
    config = format!("host=127.0.0.1 port={config} user=postgres dbname={}", group.database());
    let notices = std::sync::Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
    let heard = notices.clone();
    let mut client = config
        .parse::<postgres::Config>()
        .unwrap()
        .notice_callback(move |notice| heard.lock().unwrap().push(format!("{} {}", notice.severity(), notice.message())))
        .connect(postgres::NoTls)
        .unwrap();
    let mut run = |statement: &str| {
        notices.lock().unwrap().clear();
        client.batch_execute(statement).unwrap();
        notices.lock().unwrap().join("\n")
    };
    let heard = run("CREATE TABLE numbers (id int PRIMARY KEY, o oid, ctids tid[], x xid8, c regclass)");
    assert!(
        heard.contains("WARNING") && heard.contains("\"o\"") && heard.contains("\"ctids\"") && heard.contains("\"x\""),
        "{heard}"
    );
    assert!(!heard.contains("\"c\"") && !heard.contains("\"id\""), "{heard}");
    let heard = run("ALTER TABLE numbers ADD COLUMN more xid");
    assert!(heard.contains("\"more\"") && !heard.contains("\"o\""), "{heard}");
    assert_eq!(run("ALTER TABLE numbers ADD COLUMN plain int"), "");
    assert_eq!(run("CREATE TEMP TABLE numbers_here (o oid)"), "");
    assert!(run("ALTER TABLE numbers ALTER COLUMN plain TYPE oid").contains("\"plain\""));
    assert_eq!(run("DROP TABLE numbers"), "");
}

#[test]
fn a_foreign_key_by_an_objects_name_holds_across_nodes() {
    let group = harness::shared_without_table_locks();
    spread_numbers(&group);
    step(
        &group,
        1,
        "CREATE TABLE target (n int); CREATE TABLE known (what regclass PRIMARY KEY, note text);
         CREATE TABLE uses (id int PRIMARY KEY, what regclass REFERENCES known); INSERT INTO known VALUES ('target', 'a')",
    );
    group.settle();
    let (delete, insert) = ("DELETE FROM known", "INSERT INTO uses VALUES (1, 'target')");
    let outcome = race::after_unseen(&group, (node(1), insert), (node(2), delete));
    assert!(outcome.is_err(), "{outcome:?}");
    step(&group, 3, "DELETE FROM uses");
    group.settle();
    let outcome = race::after_unseen(&group, (node(3), delete), (node(1), insert));
    assert!(outcome.is_err(), "{outcome:?}");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM uses"), "0");
    // Of a dropped one too.
    step(&group, 2, "INSERT INTO known VALUES ('target', 'b'); INSERT INTO uses VALUES (2, 'target')");
    step(&group, 3, "DROP TABLE target");
    step(&group, 1, "UPDATE known SET note = 'c'; INSERT INTO uses SELECT 3, what FROM known");
    group.settle();
    let outcome = race::after_unseen(&group, (node(1), "DELETE FROM uses"), (node(2), "DELETE FROM uses WHERE id = 3"));
    assert!(outcome.is_err(), "{outcome:?}");
    step(&group, 2, "DELETE FROM known");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM known"), "0");
    all_in_service(&group);
    step(&group, 1, "DROP TABLE uses, known");
}

/// A number that is an object on one node and nothing on another.
#[test]
fn a_number_that_names_something_on_one_node_only_stays_one_value() {
    let group = harness::shared_without_table_locks();
    spread_numbers(&group);
    step(&group, 1, "CREATE TABLE numbered (n int); CREATE TABLE loose (about regclass, line text)");
    step(&group, 1, "CREATE TABLE fixed (about regclass PRIMARY KEY, line text)");
    let numbers = group.values("SELECT 'numbered'::regclass::oid");
    for (at, number) in numbers.iter().enumerate() {
        // Named here, not elsewhere; and here not, but elsewhere.
        for writer in [at + 1, (at + 1) % 3 + 1] {
            step(&group, writer, &format!("INSERT INTO loose VALUES ({number}::oid::regclass, '{at} {writer}')"));
            let exists =
                group.value(node(writer), &format!("SELECT EXISTS (SELECT FROM fixed WHERE about = {number}::oid)"));
            if exists == "false" {
                step(&group, writer, &format!("INSERT INTO fixed VALUES ({number}::oid::regclass, '{at}')"));
            }
        }
    }
    step(&group, 2, "UPDATE loose SET line = line || '.'");
    step(&group, 3, "UPDATE fixed SET line = line || '.'");
    let lines = "SELECT string_agg(line, ',' ORDER BY line) FROM ";
    let (loose, fixed) = (everywhere(&group, &format!("{lines} loose")), everywhere(&group, &format!("{lines} fixed")));
    assert_eq!(loose.matches('.').count(), 6, "{loose}");
    assert!(fixed.matches('.').count() >= 2, "{fixed}");
    step(&group, 1, "DELETE FROM loose");
    step(&group, 2, "DELETE FROM fixed");
    assert_eq!(everywhere(&group, "SELECT (SELECT count(*) FROM loose) + (SELECT count(*) FROM fixed)"), "0");
    all_in_service(&group);
    step(&group, 1, "DROP TABLE loose, fixed, numbered");
}

#[test]
fn rows_are_never_looked_for_in_another_partition_than_they_went_to() {
    let group = harness::shared_without_table_locks();
    step(&group, 1, "CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TABLE about_this (n int)");
    let mut client = group.connect(node(1));
    for (columns, key) in [
        ("c regclass", "HASH (c)"),
        ("c regclass", "RANGE (c)"),
        ("c regprocedure, n int", "RANGE (n, c)"),
        ("c mood", "HASH (c)"),
        ("c text", "HASH ((c::regclass))"),
    ] {
        let error = client.batch_execute(&format!("CREATE TABLE split ({columns}) PARTITION BY {key}")).unwrap_err();
        // A cast that is not immutable is PostgreSQL's to refuse.
        let code = error.code().unwrap().code().to_owned();
        assert!(code == "0A000" || key.contains("::") && code == "42P17", "{key}: {error}");
    }
    for statement in [
        "CREATE TABLE split (c regclass, m mood) PARTITION BY LIST (c)",
        "CREATE TABLE split_this PARTITION OF split FOR VALUES IN ('about_this') PARTITION BY RANGE (m)",
        "CREATE TABLE split_glad PARTITION OF split_this FOR VALUES FROM ('glad') TO (MAXVALUE)",
        "INSERT INTO split VALUES ('about_this', 'glad')",
    ] {
        step(&group, 1, statement);
    }
    assert_eq!(everywhere(&group, "SELECT count(*) FROM split WHERE c = 'about_this'::regclass AND m = 'glad'"), "1");
    step(&group, 3, "UPDATE split SET c = c; DELETE FROM split WHERE c = 'about_this'::regclass");
    all_in_service(&group);
    step(&group, 1, "DROP TABLE split, about_this; DROP TYPE mood");
}

//! What a statement sets off (triggers of TRUNCATE, event triggers, functions that an expression calls) happens once, on the origin, and
//! travels in the order in which it happened.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::time::Duration;

use gcs::playground::group::describe;
use postgres::Client;
use postgres_r_tests::harness::{self, Group, node, schema, wait};

fn run(client: &mut Client, statements: &[&str]) {
    for statement in statements {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {}", describe(&error)));
    }
}

/// Rows and catalogs are the same on every node, and the query gives this.
fn assert_all(group: &Group, query: &str, expected: &str) {
    harness::assert_equal(group);
    schema::assert_same(group);
    assert_eq!(group.values(query), [expected, expected, expected], "{query}");
}

/// A function that says in `audit` which trigger ran, and one that runs what the trigger's argument says.
const TRIGGERS: &str = "
    CREATE TABLE IF NOT EXISTS audit (id bigserial PRIMARY KEY, line text, port int DEFAULT current_setting('port')::int);
    CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO audit (line) VALUES (concat_ws(' ', TG_TABLE_NAME, TG_WHEN, TG_OP, old.id)); RETURN old; END $$;
    CREATE OR REPLACE FUNCTION say() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO audit (line) VALUES (concat_ws(' ', TG_TABLE_NAME, TG_WHEN, TG_OP)); RETURN NULL; END $$;
    CREATE OR REPLACE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE TG_ARGV[0]; RETURN NULL; END $$;
    CREATE OR REPLACE FUNCTION act_and_fail() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            BEGIN EXECUTE TG_ARGV[0]; RAISE 'undone'; EXCEPTION WHEN raise_exception THEN NULL; END;
            EXECUTE TG_ARGV[1];
            RETURN NULL;
        END $$;";

const LINES: &str = "SELECT string_agg(line, ', ' ORDER BY id) FROM audit";

#[test]
fn rows_that_a_trigger_deletes_before_a_truncate_are_deleted_before_it_elsewhere() {
    let group = harness::shared();
    group.execute(node(1), TRIGGERS);
    group.execute(
        node(1),
        "CREATE TABLE basket (id int PRIMARY KEY);
         CREATE TRIGGER gone AFTER DELETE ON basket FOR EACH ROW EXECUTE FUNCTION note();
         CREATE TRIGGER empty BEFORE TRUNCATE ON basket EXECUTE FUNCTION act('UPDATE basket SET id = id + 10; DELETE FROM basket');
         INSERT INTO basket VALUES (1), (2), (3)",
    );
    group.settle();
    group.execute(node(1), "TRUNCATE basket");
    assert_all(&group, LINES, "basket AFTER DELETE 11, basket AFTER DELETE 12, basket AFTER DELETE 13");
    assert_all(&group, "SELECT count(*) FROM basket", "0");
    group.execute(node(1), "DROP TABLE audit, basket");
}

/// Of a table: its BEFORE TRUNCATE trigger, its AFTER TRUNCATE trigger, and what is in it after a TRUNCATE of the rows 1 and 2.
const TRUNCATES: &[(&str, &str, &str)] = &[
    ("INSERT INTO t VALUES (7)", "SELECT", ""),
    ("SELECT", "INSERT INTO t VALUES (7)", "7"),
    ("INSERT INTO t VALUES (7)", "INSERT INTO t VALUES (7)", "7"),
    ("UPDATE t SET id = id + 10", "INSERT INTO t SELECT generate_series(1, 3)", "1,2,3"),
    ("DELETE FROM t WHERE id = 1", "INSERT INTO t VALUES (1); UPDATE t SET id = 2; INSERT INTO t VALUES (1)", "1,2"),
    ("TRUNCATE other; INSERT INTO other VALUES (1)", "INSERT INTO t SELECT id + 1 FROM other; TRUNCATE other", "2"),
    ("INSERT INTO other SELECT id + 100 FROM t", "INSERT INTO t SELECT id FROM other WHERE id > 101", "102"),
    ("ALTER TABLE other ADD COLUMN n int DEFAULT 5", "INSERT INTO t SELECT n FROM other; ALTER TABLE other DROP n", "5"),
    ("CREATE TABLE made AS SELECT id FROM t", "INSERT INTO t SELECT id + 1 FROM made WHERE id = 2; DROP TABLE made", "3"),
];

#[test]
fn whatever_triggers_of_truncate_do_has_its_place_before_or_behind_it() {
    let group = harness::shared();
    group.execute(node(1), TRIGGERS);
    for (before, after, left) in TRUNCATES {
        let make = |after: &str| {
            format!(
                "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (50);
                 CREATE TRIGGER b BEFORE TRUNCATE ON t EXECUTE FUNCTION act('{before}');
                 CREATE TRIGGER a AFTER TRUNCATE ON t EXECUTE FUNCTION {after};
                 INSERT INTO t VALUES (1), (2)"
            )
        };
        let plain = make(&format!("act('{after}')"));
        let failing = make(&format!("act_and_fail('{after}', '{after}')"));
        for (create, truncate) in [
            (plain.clone(), "TRUNCATE t"),
            (plain.clone(), "BEGIN; TRUNCATE t; COMMIT"),
            (plain.clone(), "DO 'BEGIN BEGIN TRUNCATE t; RAISE $a$x$a$; EXCEPTION WHEN OTHERS THEN END; TRUNCATE t; END'"),
            (failing, "TRUNCATE t RESTART IDENTITY CASCADE"),
            // A table of this transaction is emptied in place.
            (String::new(), &format!("BEGIN; {plain}; TRUNCATE t; COMMIT")),
            // And twice.
            (
                String::new(),
                &format!(
                    "BEGIN; {plain}; DELETE FROM t; TRUNCATE t; COMMIT; BEGIN; TRUNCATE t; DELETE FROM t;
                              INSERT INTO t VALUES (1), (2); DELETE FROM other WHERE id <> 50; TRUNCATE t; COMMIT"
                ),
            ),
        ] {
            println!("{before} / {after}: {truncate}");
            if !create.is_empty() {
                group.execute(node(1), &create);
                group.settle();
            }
            let whole = truncate.replace('\n', " ");
            let done = group.connect(node(1)).batch_execute(&whole);
            match done {
                Ok(()) if whole.contains("DELETE FROM t;") => {}
                Ok(()) => {
                    let query = "SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM t";
                    assert_eq!(group.value(node(1), query), *left, "{before} / {after}: {truncate}");
                }
                // What the triggers do twice may not work twice; then on no node.
                Err(error) if whole.contains("DELETE FROM t;") => println!("{}", describe(&error)),
                Err(error) => panic!("{before} / {after}: {truncate}: {}", describe(&error)),
            }
            harness::assert_equal(&group);
            group.execute(node(1), "DROP TABLE IF EXISTS t, other, made");
        }
    }
    schema::assert_same(&group);
    group.execute(node(1), "DROP TABLE audit");
}

#[test]
fn a_truncate_of_many_tables_stands_behind_what_ran_before_any_and_before_what_ran_behind_all() {
    let group = harness::shared();
    group.execute(node(1), TRIGGERS);
    group.execute(
        node(1),
        "CREATE TABLE parent (id serial PRIMARY KEY);
         CREATE TABLE child (id serial PRIMARY KEY, parent int REFERENCES parent);
         CREATE TABLE part (id int, n int) PARTITION BY LIST (n);
         CREATE TABLE part1 PARTITION OF part FOR VALUES IN (1);
         CREATE TABLE part2 PARTITION OF part FOR VALUES IN (2);
         CREATE TABLE above (id int); CREATE TABLE below () INHERITS (above)",
    );
    for table in ["parent", "child", "part", "part1", "part2", "above", "below"] {
        group.execute(
            node(1),
            &format!(
                "CREATE TRIGGER b BEFORE TRUNCATE ON {table} EXECUTE FUNCTION say();
                 CREATE TRIGGER b2 BEFORE TRUNCATE ON {table} EXECUTE FUNCTION act('INSERT INTO below VALUES (9)');
                 CREATE TRIGGER a AFTER TRUNCATE ON {table} EXECUTE FUNCTION say();
                 CREATE TRIGGER a2 AFTER TRUNCATE ON {table} EXECUTE FUNCTION act('INSERT INTO part VALUES (1, 1), (2, 2)')"
            ),
        );
    }
    let fill = "INSERT INTO parent DEFAULT VALUES; INSERT INTO child (parent) SELECT max(id) FROM parent; \
                INSERT INTO part VALUES (3, 1), (4, 2); INSERT INTO above VALUES (1); INSERT INTO below VALUES (2)";
    for truncate in [
        "TRUNCATE parent CASCADE",
        "TRUNCATE part",
        "TRUNCATE part1, above",
        "TRUNCATE above, part, parent RESTART IDENTITY CASCADE",
        "TRUNCATE ONLY above, child, parent",
        "CREATE TEMP TABLE mine (id int); TRUNCATE mine; TRUNCATE below",
    ] {
        println!("{truncate}");
        group.execute(node(1), fill);
        group.settle();
        group.execute(node(1), truncate);
        harness::assert_equal(&group);
        group.execute(node(1), &format!("BEGIN; {fill}; SAVEPOINT s; {truncate}; ROLLBACK TO s; {truncate}; COMMIT"));
        harness::assert_equal(&group);
    }
    schema::assert_same(&group);
    group.execute(node(1), "DROP TABLE audit, child, parent, part, below, above");
}

/// Event triggers, as people write them: each of these is made on one node.
const EVENT_TRIGGERS: &str = "
    CREATE TABLE journal (id bigserial PRIMARY KEY, line text);
    CREATE FUNCTION on_start() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_TAG = 'CREATE INDEX' THEN EXECUTE 'ALTER TABLE IF EXISTS room ADD COLUMN IF NOT EXISTS made_for_index int'; END IF;
            INSERT INTO journal (line) VALUES ('start ' || TG_TAG);
            INSERT INTO journal (line) VALUES ('start again ' || TG_TAG);
        END $$;
    CREATE FUNCTION on_end() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        DECLARE made record;
        BEGIN
            FOR made IN SELECT * FROM pg_event_trigger_ddl_commands() LOOP
                INSERT INTO journal (line) VALUES ('end ' || made.command_tag || ' ' || regexp_replace(made.object_identity, '_temp_\\d+', '_temp'));
                IF made.command_tag = 'CREATE TABLE' AND made.schema_name = 'public' AND made.object_identity <> 'public.shadow' THEN
                    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', made.object_identity);
                    EXECUTE format('CREATE POLICY everybody ON %s USING (true)', made.object_identity);
                    EXECUTE format('GRANT SELECT ON %s TO PUBLIC', made.object_identity);
                    EXECUTE format('COMMENT ON TABLE %s IS %L', made.object_identity, 'made by ' || made.command_tag);
                    EXECUTE format('INSERT INTO %s VALUES (-1)', made.object_identity);
                    EXECUTE format('DO $do$ BEGIN CREATE INDEX ON %s (id); END $do$', made.object_identity);
                END IF;
            END LOOP;
        END $$;
    CREATE FUNCTION on_drop() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO journal (line)
                SELECT 'drop ' || object_identity FROM pg_event_trigger_dropped_objects() WHERE original;
        END $$;
    CREATE FUNCTION on_rewrite() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO journal (line) VALUES ('rewrite ' || pg_event_trigger_table_rewrite_oid()::regclass::text); END $$;
    CREATE EVENT TRIGGER on_start ON ddl_command_start EXECUTE FUNCTION on_start();
    CREATE EVENT TRIGGER on_end ON ddl_command_end EXECUTE FUNCTION on_end();
    CREATE EVENT TRIGGER on_drop ON sql_drop EXECUTE FUNCTION on_drop();
    CREATE EVENT TRIGGER on_rewrite ON table_rewrite EXECUTE FUNCTION on_rewrite();";

const NO_EVENT_TRIGGERS: &str = "
    DROP EVENT TRIGGER on_start; DROP EVENT TRIGGER on_end; DROP EVENT TRIGGER on_drop; DROP EVENT TRIGGER on_rewrite;
    DROP FUNCTION on_start(); DROP FUNCTION on_end(); DROP FUNCTION on_drop(); DROP FUNCTION on_rewrite(); DROP TABLE journal";

#[test]
fn event_triggers_fire_on_the_origin_and_what_they_do_travels() {
    let group = harness::shared();
    group.execute(node(1), EVENT_TRIGGERS);
    group.settle();
    // The sequence of the journal gives each node its own numbers, so each node fills a room of its own.
    for number in group.numbers() {
        let mut client = group.connect(number);
        let n = number.0;
        run(
            &mut client,
            &[
                "CREATE TABLE room (id int PRIMARY KEY)",
                "INSERT INTO room VALUES (1), (2)",
                "ALTER TABLE room ADD COLUMN name text DEFAULT 'none'",
                "ALTER TABLE room ALTER COLUMN id TYPE bigint",
                "CREATE INDEX ON room (name)",
                "COMMENT ON COLUMN room.name IS 'its name'",
                "CREATE TEMP TABLE mine (id int)",
                "COMMENT ON TABLE mine IS 'mine alone'",
                "GRANT SELECT ON room TO PUBLIC",
                "DO 'BEGIN ALTER TABLE room RENAME TO chamber; ALTER TABLE chamber ADD COLUMN more int; END'",
                "BEGIN; SAVEPOINT s; CREATE TABLE never (id int); ROLLBACK TO s; CREATE TABLE hall (id int); DROP TABLE hall; COMMIT",
                "DO 'BEGIN BEGIN CREATE TABLE never (id int); RAISE $x$no$x$; EXCEPTION WHEN raise_exception THEN END; END'",
                "CREATE TABLE copied AS SELECT 7 AS id, random() AS r",
                "INSERT INTO copied (id) VALUES (8)",
            ],
        );
        harness::assert_equal(&group);
        let schema = schema::assert_same(&group);
        assert!(schema.contains("ALTER TABLE public.chamber ENABLE ROW LEVEL SECURITY"), "{schema}");
        assert!(schema.contains("COMMENT ON TABLE public.chamber IS 'made by CREATE TABLE'"), "{schema}");
        assert!(schema.contains("made_for_index"), "{schema}");
        let rows = group.values("SELECT string_agg(id::text, ' ' ORDER BY id) FROM chamber");
        assert_eq!(rows, ["-1 1 2"; 3]);
        let copied = group.values("SELECT string_agg(id::text, ' ' ORDER BY id) FROM copied");
        assert_eq!(copied, ["7 8"; 3]);
        for (line, count) in [
            ("end CREATE TABLE public.room", 1),
            ("end CREATE TABLE pg_temp.mine", 1),
            ("rewrite room", 1),
            ("drop public.hall", 1),
            ("end CREATE TABLE public.never", 0),
        ] {
            let query = format!("SELECT count(*) FROM journal WHERE line = '{line}'");
            assert_eq!(
                group.values(&query),
                [(count * n).to_string(), (count * n).to_string(), (count * n).to_string()],
                "{line}"
            );
        }
        group.execute(number, "DROP TABLE chamber, copied");
        group.settle();
    }
    group.execute(node(2), NO_EVENT_TRIGGERS);
    harness::assert_equal(&group);
    schema::assert_same(&group);
}

#[test]
fn an_event_trigger_that_raises_an_error_undoes_the_statement_everywhere() {
    let group = harness::shared();
    run(
        &mut group.connect(node(1)),
        &[
            "CREATE TABLE before_it (id int PRIMARY KEY); CREATE TABLE kept (id int PRIMARY KEY)",
            "CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS $$
                 BEGIN CREATE TABLE made_first (id int); INSERT INTO kept VALUES (99); RAISE 'not today'; END $$",
            "CREATE EVENT TRIGGER forbid ON ddl_command_end WHEN TAG IN ('DROP TABLE', 'COMMENT') EXECUTE FUNCTION forbid()",
        ],
    );
    group.settle();
    let mut client = group.connect(node(2));
    for statement in ["DROP TABLE before_it", "COMMENT ON TABLE before_it IS 'x'"] {
        let error = client.batch_execute(statement).unwrap_err();
        assert!(describe(&error).contains("not today"), "{}", describe(&error));
    }
    client.batch_execute("BEGIN; INSERT INTO before_it VALUES (1); SAVEPOINT s").unwrap();
    client.batch_execute("DROP TABLE before_it").unwrap_err();
    run(&mut client, &["ROLLBACK TO s", "INSERT INTO before_it VALUES (2)", "CREATE INDEX ON before_it (id)", "COMMIT"]);
    assert_all(&group, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM before_it", "1 2");
    group.execute(node(1), "ALTER EVENT TRIGGER forbid DISABLE");
    group.settle();
    group.execute(node(3), "DROP TABLE before_it, kept; ALTER EVENT TRIGGER forbid RENAME TO forbidden");
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &["COMMENT ON EVENT TRIGGER forbidden IS 'sleeps'", "DROP EVENT TRIGGER forbidden", "DROP FUNCTION forbid()"],
    );
    schema::assert_same(&group);
}

/// The database is made on each node, with the same contents, and then its replication is started.
#[test]
fn an_event_trigger_from_before_replication_is_no_different() {
    let group = harness::shared();
    let make = "CREATE EXTENSION postgres_r;
        CREATE FUNCTION protect() RETURNS event_trigger LANGUAGE plpgsql AS $$
            DECLARE made record;
            BEGIN
                FOR made IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE command_tag = 'CREATE TABLE' LOOP
                    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', made.object_identity);
                END LOOP;
            END $$;
        CREATE EVENT TRIGGER protect ON ddl_command_end EXECUTE FUNCTION protect()";
    for number in group.numbers() {
        run(&mut group.playground.connect(number, "postgres").unwrap(), &["CREATE DATABASE guarded"]);
        let mut client = group.playground.connect(number, "guarded").unwrap();
        let start = format!("ALTER DATABASE guarded START REPLICATION IN GROUP {}", group.playground.manifest.group);
        run(&mut client, &[make, &start]);
    }
    let mut client = group.playground.connect(node(1), "guarded").unwrap();
    wait::until("the node takes writes", Duration::from_secs(20), || {
        client.batch_execute("CREATE TABLE account (id int PRIMARY KEY)").map_err(|error| describe(&error))
    });
    for number in group.numbers() {
        wait::until("row security", Duration::from_secs(20), || {
            let mut client = group.playground.connect(number, "guarded").map_err(|error| error.to_string())?;
            let query = "SELECT relrowsecurity FROM pg_class WHERE relname = 'account'";
            match client.query_opt(query, &[]).map_err(|error| describe(&error))? {
                Some(row) if row.get(0) => Ok(()),
                found => Err(format!("node {}: {}", number.0, found.is_some())),
            }
        });
    }
    for number in group.numbers() {
        run(&mut group.playground.connect(number, "postgres").unwrap(), &["ALTER DATABASE guarded STOP REPLICATION"]);
    }
}

/// ENABLE ALWAYS and REPLICA are about the session that runs the statement, as on one server.
#[test]
fn always_and_replica_event_triggers_fire_where_statements_are_run_and_nowhere_else() {
    let group = harness::shared();
    run(
        &mut group.connect(node(1)),
        &[
            "CREATE TABLE wires (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text)",
            "CREATE FUNCTION wire() RETURNS event_trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     IF inet_server_port() IS NULL THEN RAISE 'where statements are applied'; END IF;
                     INSERT INTO wires (what) VALUES (tg_event || ' ' || tg_tag);
                 END $$",
            "CREATE EVENT TRIGGER wired ON ddl_command_end EXECUTE FUNCTION wire()",
            "CREATE EVENT TRIGGER wired_too ON ddl_command_start EXECUTE FUNCTION wire()",
            "ALTER EVENT TRIGGER wired ENABLE ALWAYS",
            "ALTER EVENT TRIGGER wired_too ENABLE REPLICA",
        ],
    );
    group.settle();
    let mut client = group.connect(node(2));
    run(&mut client, &["CREATE TABLE by_wire (id int)", "SET session_replication_role = replica", "DROP TABLE by_wire"]);
    assert_all(
        &group,
        "SELECT string_agg(what, ', ' ORDER BY n) FROM wires",
        "ddl_command_end CREATE TABLE, ddl_command_start DROP TABLE, ddl_command_end DROP TABLE",
    );
    run(&mut client, &["RESET session_replication_role", "DROP EVENT TRIGGER wired", "DROP EVENT TRIGGER wired_too"]);
    harness::assert_equal(&group);
}

#[test]
fn ddl_in_a_function_that_a_statement_calls_travels_by_itself() {
    let group = harness::shared();
    run(
        &mut group.connect(node(1)),
        &[
            "CREATE TABLE calls (id int PRIMARY KEY, v int)",
            "INSERT INTO calls VALUES (1, 1), (2, 2)",
            "CREATE FUNCTION make_one(v int) RETURNS int LANGUAGE plpgsql AS $$
                 BEGIN
                     EXECUTE format('CREATE TABLE made_%s (id int PRIMARY KEY)', v);
                     EXECUTE format('INSERT INTO made_%s VALUES (%s)', v, v);
                     EXECUTE format('COMMENT ON TABLE made_%s IS %L', v, 'for ' || v);
                     RETURN v;
                 END $$",
            "CREATE TABLE filled AS SELECT id, make_one(v) FROM calls",
            "SELECT make_one(3)",
        ],
    );
    assert_all(&group, "SELECT string_agg(f::text, ' ' ORDER BY id) FROM filled f", "(1,1) (2,2)");
    assert_all(&group, "SELECT concat((SELECT id FROM made_1), (SELECT id FROM made_2), (SELECT id FROM made_3))", "123");
    group.execute(node(2), "DROP TABLE filled, made_1, made_2, made_3, calls; DROP FUNCTION make_one(int)");
    schema::assert_same(&group);
}

/// Functions that write into `log`, each in another way. Some are declared what they are not, as people do.
const WRITERS: &str = "
    CREATE TABLE log (id bigserial PRIMARY KEY, line text UNIQUE, at timestamptz DEFAULT clock_timestamp());
    CREATE TABLE counter (n int); INSERT INTO counter VALUES (0);
    CREATE FUNCTION inserts(v int) RETURNS boolean LANGUAGE plpgsql AS $$
        DECLARE number bigint;
        BEGIN
            INSERT INTO log (line) VALUES ('check ' || v) RETURNING id INTO STRICT number;
            UPDATE counter SET n = n + 1;
            IF NOT FOUND THEN RAISE 'no counter'; END IF;
            RETURN number > 0 AND EXISTS (SELECT FROM log WHERE line = 'check ' || v);
        END $$;
    CREATE FUNCTION catches(v int) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = public SET work_mem = '1MB' AS $$
        BEGIN
            BEGIN INSERT INTO log (line) VALUES ('twice'); INSERT INTO log (line) VALUES ('twice');
            EXCEPTION WHEN unique_violation THEN INSERT INTO log (line) VALUES ('caught ' || v); END;
            RETURN true;
        END $$;
    CREATE FUNCTION in_sql(v int) RETURNS boolean LANGUAGE sql AS $$
        INSERT INTO log (line) VALUES ('sql ' || v); SELECT true $$;
    CREATE FUNCTION makes(v int) RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
            EXECUTE format('CREATE TABLE IF NOT EXISTS made_by_check_%s (id int PRIMARY KEY)', v);
            EXECUTE format('INSERT INTO made_by_check_%s VALUES (%s)', v, v);
            CREATE TEMP TABLE IF NOT EXISTS passing (n int); INSERT INTO passing VALUES (v);
            RETURN true;
        END $$;
    CREATE FUNCTION shout(t text) RETURNS text LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO public.log (line) VALUES ('shout ' || t || ' ' || (SELECT count(*) FROM public.log)); RETURN upper(t); END $$;
    CREATE FUNCTION shout_immutably(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN public.shout(t); END $$;";

#[test]
fn what_a_function_writes_that_a_statement_calls_is_written_once() {
    let group = harness::shared();
    group.execute(node(1), WRITERS);
    run(
        &mut group.connect(node(1)),
        &[
            "CREATE TABLE goods (id int PRIMARY KEY, v int, name text)",
            "INSERT INTO goods SELECT n, n, 'n' || n FROM generate_series(1, 5) n",
            "ALTER TABLE goods ADD CONSTRAINT a CHECK (inserts(v))",
        ],
    );
    assert_all(&group, "SELECT count(*) || ' ' || (SELECT n FROM counter) FROM log WHERE line LIKE 'check %'", "5 5");
    run(
        &mut group.connect(node(2)),
        &[
            "ALTER TABLE goods DROP CONSTRAINT a",
            "ALTER TABLE goods ADD CONSTRAINT b CHECK (catches(v)) NOT VALID",
            "ALTER TABLE goods VALIDATE CONSTRAINT b",
            "ALTER TABLE goods DROP CONSTRAINT b, ADD CONSTRAINT c CHECK (in_sql(v)), ADD CONSTRAINT d CHECK (makes(v))",
            "ALTER TABLE goods DROP CONSTRAINT c, DROP CONSTRAINT d",
            "CREATE DOMAIN logged AS int; CREATE TABLE of_domain (id int PRIMARY KEY, d logged); INSERT INTO of_domain VALUES (1, 21), (2, 22)",
            "ALTER DOMAIN logged ADD CONSTRAINT e CHECK (in_sql(VALUE))",
            "ALTER DOMAIN logged DROP CONSTRAINT e",
            "CREATE TABLE whole (id int, v int) PARTITION BY LIST (v)",
            "CREATE TABLE part (id int, v int); INSERT INTO part VALUES (1, 31); ALTER TABLE whole ADD CONSTRAINT f CHECK (in_sql(v)) NOT VALID",
            "ALTER TABLE part ADD CONSTRAINT f CHECK (in_sql(v))",
            "ALTER TABLE whole ATTACH PARTITION part FOR VALUES IN (31)",
        ],
    );
    assert_all(&group, "SELECT count(*) FROM log WHERE line ~ '^(caught|sql)'", "13");
    assert_all(&group, "SELECT count(*) FROM made_by_check_5", "1");
    // An index calls its function again and again, wherever rows are applied too.
    run(
        &mut group.connect(node(3)),
        &[
            "CREATE INDEX loud ON goods (shout_immutably(name))",
            "INSERT INTO goods VALUES (6, 6, 'six'), (7, 7, 'seven')",
            "UPDATE goods SET name = 'more' WHERE id = 6",
            "CREATE TABLE generated (id int PRIMARY KEY, name text, loud text GENERATED ALWAYS AS (shout_immutably(name)) STORED)",
            "INSERT INTO generated VALUES (1, 'one'), (2, 'two')",
            "DELETE FROM goods WHERE id = 7",
        ],
    );
    assert_all(&group, "SELECT string_agg(loud, ' ' ORDER BY id) FROM generated", "ONE TWO");
    // Nothing of a function's session is left where statements are applied.
    run(
        &mut group.connect(node(1)),
        &["CREATE TABLE last (id int PRIMARY KEY, w text DEFAULT current_setting('work_mem') || current_user)"],
    );
    assert_all(&group, "SELECT count(*) FROM last", "0");
    group.execute(
        node(1),
        "DROP TABLE last, generated, whole, of_domain, goods, log, counter, made_by_check_1, made_by_check_2, made_by_check_3,
             made_by_check_4, made_by_check_5;
         DROP DOMAIN logged; DROP FUNCTION shout_immutably(text), shout(text), makes(int), in_sql(int), catches(int), inserts(int)",
    );
    schema::assert_same(&group);
}

/// Those by which rows are captured are nobody's.
#[test]
fn what_was_dropped_has_no_triggers_that_nobody_made() {
    let group = harness::shared();
    run(
        &mut group.connect(node(1)),
        &[
            "CREATE TABLE dropped_list (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text, what text)",
            "CREATE FUNCTION list_dropped() RETURNS event_trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     INSERT INTO dropped_list (kind, what) SELECT object_type, object_identity FROM pg_event_trigger_dropped_objects()
                     WHERE object_type IN ('table', 'trigger', 'index');
                 END $$",
            "CREATE TABLE goes (id int PRIMARY KEY)",
            "CREATE FUNCTION goes_too() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            "CREATE TRIGGER own AFTER INSERT ON goes EXECUTE FUNCTION goes_too()",
            "CREATE EVENT TRIGGER lists ON sql_drop EXECUTE FUNCTION list_dropped()",
            "DROP TABLE goes",
            "DROP EVENT TRIGGER lists",
        ],
    );
    let listed = "SELECT string_agg(kind || ' ' || what, ', ' ORDER BY kind, what) FROM dropped_list";
    assert_all(&group, listed, "index public.goes_pkey, table public.goes, trigger own on public.goes");
    harness::assert_equal(&group);
}

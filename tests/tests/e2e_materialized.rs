//! Materialized views: the query is evaluated on one node, the rows are the same on all.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::process::Command;
use std::thread;

use gcs::playground::group::describe;
use postgres::Client;
use postgres_r_tests::harness::{self, Group, catalog, damage, node};
use postgres_r_tests::workload::client::{Failure, classify};

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

/// What the query gives, which must be the same on every node.
fn everywhere(group: &Group, query: &str) -> String {
    group.settle();
    let values = group.values(query);
    assert!(values.iter().all(|value| *value == values[0]), "{query}: {values:#?}");
    values.into_iter().next().unwrap()
}

fn assert_equal(group: &Group) {
    harness::assert_equal(group);
    catalog::assert_same(group);
}

#[test]
fn a_materialized_view_holds_the_same_rows_on_every_node() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TYPE pair AS (a int, b text); CREATE SCHEMA \"Other one\";
         CREATE TABLE source (id int PRIMARY KEY, t varchar(10) COLLATE \"C\", n numeric(10, 2), m mood, p pair);
         INSERT INTO source SELECT n, 'r' || n, n / 3.0, 'happy', ROW(n, 'b'::text)::pair FROM generate_series(1, 50) n;
         CREATE TABLE parts (id int, t text) PARTITION BY RANGE (id); CREATE TABLE part_a PARTITION OF parts FOR VALUES FROM (0) TO (10);
         CREATE TABLE part_b PARTITION OF parts DEFAULT; INSERT INTO parts SELECT n, 'p' || n FROM generate_series(1, 20) n",
    );
    group.settle();
    let mut client = group.connect(node(2));
    run(
        &mut client,
        &[
            "CREATE MATERIALIZED VIEW copied AS SELECT *, random() AS r, now() AS at, clock_timestamp() AS at_once, gen_random_uuid() AS u, pg_backend_pid() AS pid FROM source",
            "CREATE MATERIALIZED VIEW \"Other one\".\"Quoted \"\" name\" (\"A a\", b) USING heap WITH (fillfactor = 50, toast.autovacuum_enabled = off) AS SELECT id, m FROM source WHERE id < 5",
            "CREATE MATERIALIZED VIEW nothing AS SELECT * FROM source WITH NO DATA; CREATE MATERIALIZED VIEW none AS SELECT * FROM source WHERE false",
            "CREATE MATERIALIZED VIEW IF NOT EXISTS copied AS SELECT 1 AS other",
            "CREATE MATERIALIZED VIEW IF NOT EXISTS fresh AS SELECT 1 AS other, 'unknown' AS literal, NULL AS nil, regclass 'source' AS named",
            "CREATE MATERIALIZED VIEW big AS SELECT n, repeat(md5(n::text), 3000) AS t FROM generate_series(1, 20) n",
            "SET search_path = \"Other one\", public; CREATE MATERIALIZED VIEW placed AS TABLE source; RESET search_path",
            "CREATE MATERIALIZED VIEW of_parts AS SELECT id, t, random() AS r FROM parts",
            "CREATE MATERIALIZED VIEW of_view AS SELECT id, r * 2 AS r FROM of_parts; CREATE VIEW over AS SELECT * FROM of_view WHERE r > 0",
            "BEGIN; CREATE MATERIALIZED VIEW kept AS SELECT id, random() AS r FROM source; SAVEPOINT s; CREATE MATERIALIZED VIEW undone AS SELECT 1 AS one;
             REFRESH MATERIALIZED VIEW kept; REFRESH MATERIALIZED VIEW copied; ROLLBACK TO s; INSERT INTO source (id) VALUES (51); COMMIT",
            "DO $$ BEGIN CREATE MATERIALIZED VIEW from_do AS SELECT id, random() AS r FROM source; REFRESH MATERIALIZED VIEW from_do; END $$",
            "CREATE MATERIALIZED VIEW numbers AS SELECT oid, relname::text FROM pg_class WHERE relname = 'source'",
        ],
    );
    assert_equal(&group);
    assert_eq!(everywhere(&group, "SELECT count(*) || ' ' || count(DISTINCT u) FROM copied"), "50 50");
    assert_eq!(everywhere(&group, "SELECT named::text || nil IS NULL FROM fresh"), "true");
    for number in group.numbers() {
        assert_eq!(code(&mut group.connect(number), "SELECT * FROM nothing"), "55000", "it is not populated anywhere");
    }
    let mut client = group.connect(node(3));
    run(
        &mut client,
        &[
            "UPDATE source SET n = 0 WHERE id < 10; DELETE FROM source WHERE id > 40; INSERT INTO parts VALUES (100, 'late')",
            "REFRESH MATERIALIZED VIEW copied; REFRESH MATERIALIZED VIEW nothing; REFRESH MATERIALIZED VIEW big WITH NO DATA",
            "REFRESH MATERIALIZED VIEW of_parts; REFRESH MATERIALIZED VIEW of_view WITH DATA; REFRESH MATERIALIZED VIEW of_view",
        ],
    );
    assert_equal(&group);
    assert_eq!(everywhere(&group, "SELECT count(*) FROM nothing"), "40");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM over WHERE r > 0"), "21");
    assert_eq!(code(&mut client, "REFRESH MATERIALIZED VIEW source"), "0A000");
    assert_eq!(code(&mut client, "REFRESH MATERIALIZED VIEW nowhere"), "42P01");
    assert_eq!(code(&mut client, "INSERT INTO copied (id) VALUES (1)"), "42809");
    assert_eq!(code(&mut client, "DELETE FROM copied"), "42809");
    assert_eq!(code(&mut client, "COPY none FROM PROGRAM 'true'"), "42809");
    assert_eq!(code(&mut client, "TRUNCATE copied"), "42809");
    assert_eq!(
        code(&mut client, "CREATE TEMP TABLE fleeting (n int); CREATE MATERIALIZED VIEW of_it AS TABLE fleeting"),
        "0A000"
    );
    run(&mut client, &["EXPLAIN REFRESH MATERIALIZED VIEW copied"]);
    assert_equal(&group);
}

#[test]
fn refresh_concurrently_gives_the_same_rows() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE priced (id int PRIMARY KEY, price numeric, doc jsonb); INSERT INTO priced SELECT n, n, '{\"n\": 1}' FROM generate_series(1, 100) n;
         CREATE FUNCTION twice(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN n * 2; END $$;
         CREATE MATERIALIZED VIEW prices AS SELECT id, price + random() AS price, doc, (SELECT string_agg(md5((id * i)::text), '') FROM generate_series(1, 400) i) AS big FROM priced;
         CREATE UNIQUE INDEX prices_id ON prices (id); CREATE INDEX ON prices (twice(id)) WHERE twice(id) > 20; CREATE INDEX ON prices USING gin (doc)",
    );
    group.settle();
    let mut client = group.connect(node(2));
    run(
        &mut client,
        &[
            "REFRESH MATERIALIZED VIEW CONCURRENTLY prices",
            "DELETE FROM priced WHERE id > 90; UPDATE priced SET price = 1000 WHERE id = 7; INSERT INTO priced VALUES (200, 1, '{\"late\": 1}')",
            "REFRESH MATERIALIZED VIEW CONCURRENTLY prices",
            "BEGIN; INSERT INTO priced VALUES (201, 1, '{}'); REFRESH MATERIALIZED VIEW CONCURRENTLY prices; INSERT INTO priced VALUES (202, 1, '{}'); COMMIT",
            "BEGIN; SAVEPOINT s; DELETE FROM priced; REFRESH MATERIALIZED VIEW CONCURRENTLY prices; ROLLBACK TO s; COMMIT",
            "CREATE FUNCTION anew() RETURNS void LANGUAGE plpgsql AS $$ BEGIN REFRESH MATERIALIZED VIEW CONCURRENTLY prices; REFRESH MATERIALIZED VIEW prices;
             REFRESH MATERIALIZED VIEW CONCURRENTLY prices; END $$; SELECT anew()",
        ],
    );
    assert_equal(&group);
    assert_eq!(everywhere(&group, "SELECT count(*) || ' ' || max(id) FROM prices"), "93 202");
    let by_index =
        "SET LOCAL enable_seqscan = off; SELECT count(*) FROM prices WHERE doc @> '{\"late\": 1}' AND twice(id) = 400";
    for number in group.numbers() {
        let mut client = group.connect(number);
        let mut transaction = client.transaction().unwrap();
        let (settings, query) = by_index.split_once(';').unwrap();
        transaction.batch_execute(settings).unwrap();
        assert_eq!(transaction.query_one(query, &[]).unwrap().get::<_, i64>(0), 1, "indexes find it");
    }
    run(
        &mut client,
        &["CREATE MATERIALIZED VIEW plain AS TABLE priced; CREATE MATERIALIZED VIEW blank AS SELECT 1 AS n WITH NO DATA"],
    );
    assert_eq!(code(&mut client, "REFRESH MATERIALIZED VIEW CONCURRENTLY plain"), "55000", "it has no unique index");
    run(&mut client, &["CREATE UNIQUE INDEX ON blank (n)"]);
    assert_eq!(code(&mut client, "REFRESH MATERIALIZED VIEW CONCURRENTLY blank"), "0A000", "it is not populated");
    assert_eq!(code(&mut client, "REFRESH MATERIALIZED VIEW CONCURRENTLY prices WITH NO DATA"), "42601");
    run(
        &mut client,
        &[
            "CREATE TABLE few (a int, b int); INSERT INTO few VALUES (1, 1); CREATE MATERIALIZED VIEW of_few AS TABLE few; CREATE UNIQUE INDEX ON of_few (a); INSERT INTO few VALUES (1, 1)",
        ],
    );
    assert_eq!(code(&mut client, "REFRESH MATERIALIZED VIEW CONCURRENTLY of_few"), "21000", "rows are there twice");
    assert_eq!(code(&mut client, "REFRESH MATERIALIZED VIEW of_few"), "23505");
    assert_equal(&group);
    assert_eq!(everywhere(&group, "SELECT count(*) FROM of_few"), "1");
}

/// Nothing of the query is evaluated elsewhere: it could fail there.
#[test]
fn a_query_that_runs_on_one_node_only_is_good_enough() {
    let group = harness::shared();
    let port = group.value(node(2), "SELECT current_setting('port')");
    group.execute(
        node(1),
        &format!(
            "CREATE FUNCTION picky(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
             BEGIN IF current_setting('port') <> '{port}' THEN RAISE 'evaluated elsewhere'; END IF; RETURN n; END $$"
        ),
    );
    group.settle();
    let mut client = group.connect(node(2));
    run(
        &mut client,
        &[
            "CREATE MATERIALIZED VIEW picked AS SELECT picky(n) AS n, picky(7) FROM generate_series(1, 5) n; CREATE UNIQUE INDEX ON picked (n)",
            "REFRESH MATERIALIZED VIEW picked; REFRESH MATERIALIZED VIEW CONCURRENTLY picked",
            "DO $$ BEGIN REFRESH MATERIALIZED VIEW picked; END $$",
        ],
    );
    assert_equal(&group);
    let refused = group.connect(node(1)).batch_execute("REFRESH MATERIALIZED VIEW picked").expect_err("the other way round");
    assert!(describe(&refused).contains("evaluated elsewhere"), "{}", describe(&refused));
}

#[test]
fn what_the_query_calls_runs_once() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE journal (id serial PRIMARY KEY, n int);
         CREATE FUNCTION note(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO journal (n) VALUES (n); RETURN n; END $$;
         CREATE FUNCTION make(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'CREATE TABLE IF NOT EXISTS made_' || n || ' (i int)'; RETURN n; END $$;
         CREATE FUNCTION here() RETURNS text LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN current_setting('port'); END $$",
    );
    group.settle();
    let mut client = group.connect(node(2));
    run(
        &mut client,
        &[
            "CREATE MATERIALIZED VIEW noted AS SELECT note(n) AS n FROM generate_series(1, 5) n",
            "CREATE UNIQUE INDEX ON noted (n); REFRESH MATERIALIZED VIEW noted; REFRESH MATERIALIZED VIEW CONCURRENTLY noted; REFRESH MATERIALIZED VIEW noted WITH NO DATA",
            "CREATE MATERIALIZED VIEW lines AS SELECT count(*) AS of_journal, here() AS here FROM journal",
            "CREATE MATERIALIZED VIEW making AS SELECT make(n) AS n FROM generate_series(1, 3) n WITH NO DATA",
            "REFRESH MATERIALIZED VIEW making",
        ],
    );
    assert_equal(&group);
    assert_eq!(everywhere(&group, "SELECT count(*) FROM journal"), "15");
    assert_eq!(everywhere(&group, "SELECT of_journal FROM lines"), "15");
    assert_eq!(everywhere(&group, "SELECT here FROM lines"), group.value(node(2), "SELECT current_setting('port')"));
    assert_eq!(everywhere(&group, r"SELECT count(*) FROM pg_class WHERE relname LIKE 'made\_%'"), "3");
}

/// An event trigger runs when the view is made, and the rows of the first query are not sent yet.
#[test]
fn what_an_event_trigger_does_with_it_comes_out_the_same() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE counted (n int); INSERT INTO counted VALUES (1), (2); CREATE TABLE told (tag text, what text)",
    );
    group.settle();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "CREATE FUNCTION on_end() RETURNS event_trigger LANGUAGE plpgsql AS $$
             BEGIN
                 INSERT INTO told SELECT tg_tag, object_identity FROM pg_event_trigger_ddl_commands();
                 IF tg_tag = 'CREATE MATERIALIZED VIEW' THEN
                     REFRESH MATERIALIZED VIEW seen;
                     INSERT INTO counted VALUES (3);
                     CREATE UNIQUE INDEX ON seen (n);
                     REFRESH MATERIALIZED VIEW CONCURRENTLY seen;
                     ALTER MATERIALIZED VIEW seen RENAME COLUMN r TO luck;
                     BEGIN
                         REFRESH MATERIALIZED VIEW seen WITH NO DATA;
                         RAISE division_by_zero;
                     EXCEPTION WHEN division_by_zero THEN NULL;
                     END;
                 END IF;
             END $$",
            "CREATE EVENT TRIGGER on_end ON ddl_command_end WHEN TAG IN ('CREATE MATERIALIZED VIEW', 'REFRESH MATERIALIZED VIEW') EXECUTE FUNCTION on_end()",
            "CREATE MATERIALIZED VIEW seen AS SELECT n, random() AS r FROM counted",
            "REFRESH MATERIALIZED VIEW seen",
        ],
    );
    assert_equal(&group);
    assert_eq!(everywhere(&group, "SELECT count(*) || ' ' || sum(n) FROM seen WHERE luck IS NOT NULL"), "3 6");
    run(
        &mut client,
        &[
            "CREATE OR REPLACE FUNCTION on_end() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN IF tg_tag = 'CREATE MATERIALIZED VIEW' THEN REFRESH MATERIALIZED VIEW emptied WITH NO DATA; END IF; END $$",
            "CREATE MATERIALIZED VIEW emptied AS SELECT n FROM counted",
            "DROP EVENT TRIGGER on_end",
        ],
    );
    assert_equal(&group);
    assert_eq!(everywhere(&group, "SELECT relispopulated FROM pg_class WHERE relname = 'emptied'"), "false");
}

#[test]
fn who_owns_it_refreshes_it_and_its_functions_run_as_the_owner() {
    let group = harness::shared();
    for number in group.numbers() {
        group
            .playground
            .connect(number, "postgres")
            .unwrap()
            .batch_execute("CREATE ROLE view_owner LOGIN; CREATE ROLE view_reader; CREATE ROLE view_heir; GRANT view_heir TO view_owner")
            .unwrap();
    }
    group.execute(
        node(1),
        "CREATE SCHEMA own AUTHORIZATION view_owner; CREATE TABLE secret (n int); INSERT INTO secret VALUES (1), (2); GRANT SELECT ON secret TO view_owner, view_heir",
    );
    group.settle();
    let mut client = group.connect(node(2));
    run(
        &mut client,
        &[
            "SET SESSION AUTHORIZATION view_owner; SET search_path = own, public",
            "CREATE FUNCTION own.who(n int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN current_user; END $$",
            "CREATE MATERIALIZED VIEW counts AS SELECT n, current_user::text AS who, random() AS r FROM secret",
            "CREATE INDEX counts_who ON counts (who(n)); GRANT SELECT ON counts TO view_reader; COMMENT ON MATERIALIZED VIEW counts IS 'of secrets'",
            "CREATE FUNCTION own.again() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = own AS $$ BEGIN REFRESH MATERIALIZED VIEW counts; END $$",
            "REFRESH MATERIALIZED VIEW counts",
            "RESET SESSION AUTHORIZATION; SET ROLE view_reader",
        ],
    );
    assert_eq!(code(&mut client, "REFRESH MATERIALIZED VIEW own.counts"), "42501");
    run(
        &mut client,
        &[
            "RESET ROLE; GRANT USAGE ON SCHEMA own TO view_reader; SET ROLE view_reader; SELECT own.again(); SELECT * FROM own.counts",
        ],
    );
    assert_eq!(code(&mut client, "REFRESH MATERIALIZED VIEW own.counts"), "42501");
    // By a superuser: functions of the owner's run as the owner all the same.
    run(&mut client, &["RESET ROLE; SET search_path = own, public; REFRESH MATERIALIZED VIEW own.counts"]);
    for number in group.numbers() {
        group.settle();
        let found = "BEGIN; SET LOCAL search_path = own, public; SET LOCAL enable_seqscan = off; SELECT count(*)::text FROM own.counts WHERE own.who(n) = 'view_owner'; COMMIT";
        let messages = group.connect(number).simple_query(found).unwrap();
        let rows: Vec<_> = messages
            .iter()
            .filter_map(|message| if let postgres::SimpleQueryMessage::Row(row) = message { row.get(0) } else { None })
            .collect();
        assert_eq!(rows, ["2"], "what the index holds");
    }
    run(
        &mut client,
        &[
            "ALTER MATERIALIZED VIEW counts OWNER TO view_heir; RESET search_path; SET SESSION AUTHORIZATION view_owner; REFRESH MATERIALIZED VIEW own.counts",
            "RESET SESSION AUTHORIZATION; REVOKE SELECT ON secret FROM view_heir",
        ],
    );
    assert_eq!(
        code(&mut client, "REFRESH MATERIALIZED VIEW own.counts"),
        "42501",
        "the owner may not read the table any more"
    );
    assert_equal(&group);
}

#[test]
fn it_is_altered_and_dropped_on_every_node() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE SCHEMA shelf; CREATE TABLE book (id int, title text, body text); INSERT INTO book VALUES (1, 'a', 'b')",
    );
    group.settle();
    let mut client = group.connect(node(3));
    run(
        &mut client,
        &[
            "CREATE MATERIALIZED VIEW list AS SELECT id, title, body FROM book; CREATE INDEX list_id ON list (id)",
            "ALTER MATERIALIZED VIEW list RENAME TO catalogue; ALTER MATERIALIZED VIEW catalogue RENAME COLUMN title TO name",
            "ALTER MATERIALIZED VIEW catalogue SET SCHEMA shelf; ALTER MATERIALIZED VIEW shelf.catalogue CLUSTER ON list_id",
            "ALTER MATERIALIZED VIEW shelf.catalogue SET (fillfactor = 70), ALTER COLUMN body SET STATISTICS 17, ALTER body SET STORAGE EXTERNAL, ALTER body SET COMPRESSION pglz, ALTER id SET (n_distinct = 5)",
            "ALTER MATERIALIZED VIEW shelf.catalogue RESET (fillfactor), SET WITHOUT CLUSTER; ALTER MATERIALIZED VIEW IF EXISTS nowhere RENAME TO somewhere",
            "COMMENT ON MATERIALIZED VIEW shelf.catalogue IS 'books'; COMMENT ON COLUMN shelf.catalogue.name IS 'title'; GRANT SELECT ON shelf.catalogue TO PUBLIC",
            "ALTER TABLE book RENAME COLUMN title TO heading; ALTER TABLE book RENAME TO volume; INSERT INTO volume VALUES (2, 'c', 'd'); REFRESH MATERIALIZED VIEW shelf.catalogue",
        ],
    );
    assert_equal(&group);
    assert_eq!(everywhere(&group, "SELECT string_agg(name, ' ' ORDER BY id) FROM shelf.catalogue"), "a c");
    assert_eq!(code(&mut client, "ALTER TABLE volume ALTER COLUMN body TYPE varchar"), "0A000", "PostgreSQL's own");
    assert_eq!(code(&mut client, "DROP TABLE volume"), "2BP01");
    run(
        &mut client,
        &[
            "CREATE MATERIALIZED VIEW short AS SELECT id FROM shelf.catalogue; DROP MATERIALIZED VIEW short; DROP MATERIALIZED VIEW IF EXISTS short",
            "CREATE MATERIALIZED VIEW short AS SELECT id FROM shelf.catalogue; DROP TABLE volume CASCADE",
        ],
    );
    assert_equal(&group);
    assert_eq!(everywhere(&group, "SELECT to_regclass('short') IS NULL AND to_regclass('shelf.catalogue') IS NULL"), "true");
}

#[test]
fn a_large_one_is_applied_ahead_of_its_turn() {
    let group = harness::shared();
    let ahead = "SELECT sum(applied_ahead) FROM postgres_r.pg_stat_postgres_r";
    let before: i64 = group.value(node(2), ahead).parse().unwrap();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "CREATE MATERIALIZED VIEW many AS SELECT n AS id, md5(n::text) AS t, random() AS r FROM generate_series(1, 200000) n",
            "CREATE UNIQUE INDEX ON many (id)",
            "REFRESH MATERIALIZED VIEW many",
            "REFRESH MATERIALIZED VIEW CONCURRENTLY many",
        ],
    );
    assert_equal(&group);
    assert_eq!(everywhere(&group, "SELECT count(DISTINCT r) > 199000 AND count(*) = 200000 FROM many"), "true");
    let after: i64 = group.value(node(2), ahead).parse().unwrap();
    assert!(after >= before + 3, "{before} {after}");
}

/// Refreshes of all nodes at once, of one view and of several, while its table is written to and altered: some have to try again.
#[test]
fn refreshes_of_several_nodes_come_out_equal() {
    const ROUNDS: usize = 12;
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE fed (id bigserial PRIMARY KEY, node int); INSERT INTO fed (node) SELECT 0 FROM generate_series(1, 200);
         CREATE MATERIALIZED VIEW shared_one AS SELECT id, node, random() AS r FROM fed; CREATE UNIQUE INDEX ON shared_one (id);
         CREATE MATERIALIZED VIEW on_1 AS SELECT id, random() AS r FROM fed; CREATE MATERIALIZED VIEW on_2 AS SELECT id, random() AS r FROM fed;
         CREATE MATERIALIZED VIEW on_3 AS SELECT id, random() AS r FROM fed",
    );
    group.settle();
    let group = &group;
    let retried: usize = thread::scope(|scope| {
        let nodes = group.numbers().into_iter().map(|number| {
            scope.spawn(move || {
                let mut client = group.connect(number);
                let mut retried = 0;
                for round in 0..ROUNDS {
                    let mut statements = vec![
                        format!("INSERT INTO fed (node) VALUES ({})", number.0),
                        format!("REFRESH MATERIALIZED VIEW {}shared_one", if round % 3 == 1 { "CONCURRENTLY " } else { "" }),
                        format!("REFRESH MATERIALIZED VIEW on_{}", number.0),
                    ];
                    if round % 4 == 3 {
                        statements.push(format!("ALTER TABLE fed ADD COLUMN extra_{}_{round} int", number.0));
                        statements.push(format!("CREATE INDEX ON shared_one (r) WHERE id > {round}"));
                    }
                    for statement in &statements {
                        while let Err(error) = client.batch_execute(statement) {
                            assert_eq!(classify(&error), Failure::Retry, "{statement}: {}", describe(&error));
                            retried += 1;
                        }
                    }
                }
                retried
            })
        });
        nodes.collect::<Vec<_>>().into_iter().map(|node| node.join().unwrap()).sum()
    });
    println!("tried again: {retried}");
    assert_equal(group);
    group.execute(node(2), "REFRESH MATERIALIZED VIEW shared_one");
    assert_equal(group);
    assert_eq!(everywhere(group, "SELECT count(*) FROM shared_one"), (200 + 3 * ROUNDS).to_string());
}

#[test]
fn refreshes_of_different_views_on_two_nodes_do_not_exclude_each_other() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE MATERIALIZED VIEW one AS SELECT random() AS r; CREATE MATERIALIZED VIEW two AS SELECT random() AS r",
    );
    group.settle();
    let (mut first, mut second) = (group.connect(node(1)), group.connect(node(2)));
    run(&mut first, &["BEGIN; REFRESH MATERIALIZED VIEW one"]);
    run(&mut second, &["BEGIN; REFRESH MATERIALIZED VIEW two; COMMIT"]);
    group.settle();
    run(&mut first, &["COMMIT"]);
    assert_equal(&group);
}

/// Of two transactions that refresh one view, the later one waits for the other, and where it does not ask the group, it loses.
#[test]
fn a_refresh_excludes_another_one_of_the_same_view() {
    let group = harness::shared();
    group.execute(node(1), "CREATE MATERIALIZED VIEW fought AS SELECT random() AS r");
    group.settle();
    let (mut first, mut second) = (group.connect(node(1)), group.connect(node(2)));
    run(&mut first, &["SET postgres_r.table_locks = 'local'; BEGIN; REFRESH MATERIALIZED VIEW fought"]);
    run(&mut second, &["SET postgres_r.table_locks = 'local'; REFRESH MATERIALIZED VIEW fought"]);
    assert_eq!(code(&mut first, "COMMIT"), "40001");
    run(&mut first, &["RESET postgres_r.table_locks; BEGIN; REFRESH MATERIALIZED VIEW fought"]);
    run(&mut second, &["SET postgres_r.table_locks = 'group'"]);
    thread::scope(|scope| {
        let waiting =
            scope.spawn(|| run(&mut second, &["SET application_name = 'waits'; REFRESH MATERIALIZED VIEW fought"]));
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'waits' AND wait_event_type = 'Lock'";
        group.becomes(node(2), waits, "1", std::time::Duration::from_secs(20));
        run(&mut first, &["COMMIT"]);
        waiting.join().unwrap();
    });
    assert_equal(&group);
}

/// A SERIALIZABLE transaction has read what it was refreshed from, and whoever reads it has read it.
#[test]
fn serializable_transactions_read_it_and_by_it() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE base_of (n int PRIMARY KEY); CREATE TABLE other_of (n int); CREATE MATERIALIZED VIEW sums AS SELECT sum(n) AS n FROM base_of");
    group.settle();
    let (mut first, mut second) = (group.connect(node(1)), group.connect(node(2)));
    run(&mut first, &["BEGIN ISOLATION LEVEL SERIALIZABLE; REFRESH MATERIALIZED VIEW sums"]);
    run(&mut second, &["INSERT INTO base_of VALUES (1)"]);
    assert_eq!(code(&mut first, "COMMIT"), "40001");
    run(&mut second, &["BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT * FROM sums; INSERT INTO other_of VALUES (1)"]);
    run(&mut first, &["REFRESH MATERIALIZED VIEW sums"]);
    assert_eq!(code(&mut second, "COMMIT"), "40001");
    assert_equal(&group);
}

#[test]
fn a_dump_with_materialized_views_is_restored_through_psql() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE SCHEMA dumped; CREATE TABLE dumped.t (id int PRIMARY KEY, v int); INSERT INTO dumped.t SELECT n, n FROM generate_series(1, 100) n;
         CREATE MATERIALIZED VIEW dumped.first AS SELECT id, v, random() AS r FROM dumped.t; CREATE UNIQUE INDEX ON dumped.first (id);
         CREATE MATERIALIZED VIEW dumped.second AS SELECT count(*) AS n, now() AS at FROM dumped.first;
         CREATE MATERIALIZED VIEW dumped.never AS SELECT 1 AS one WITH NO DATA; CREATE VIEW dumped.shown AS SELECT * FROM dumped.second",
    );
    group.settle();
    let cluster = group.playground.cluster(node(1));
    let uri = cluster.uri(group.database());
    let file = group.dir().join("dumped.sql");
    let dumped =
        Command::new(cluster.bin.join("pg_dump")).args(["--schema", "dumped", &uri, "--file"]).arg(&file).output().unwrap();
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    group.execute(node(1), "DROP SCHEMA dumped CASCADE");
    group.settle();
    let restored = Command::new(cluster.bin.join("psql"))
        .args(["-X", "-v", "ON_ERROR_STOP=1", "-q", &uri, "-f"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    assert_equal(&group);
    assert_eq!(everywhere(&group, "SELECT n FROM dumped.shown"), "100");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM dumped.first"), "100");
}

/// What verify() says of a materialized view, and repair() afterwards.
#[test]
fn one_that_differs_on_a_node_is_found_and_repaired() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE MATERIALIZED VIEW mended AS SELECT n AS id, random() AS r, repeat(md5(n::text), 200) AS t FROM generate_series(1, 300) n;
         CREATE UNIQUE INDEX ON mended (id); CREATE MATERIALIZED VIEW equal_one AS SELECT random() AS r",
    );
    damage::run_alone(&group, node(3), &["REFRESH MATERIALIZED VIEW mended".to_owned()]);
    let verdicts = |call: &str| {
        let query = format!(
            "SELECT string_agg(concat_ws(' ', table_name, node, verdict), ', ' ORDER BY table_name, node) FROM postgres_r.{call} WHERE table_name LIKE 'public.%'"
        );
        group.value(node(1), &query)
    };
    let equal = |view: &str| format!("public.{view} node1 equal, public.{view} node2 equal, public.{view} node3 equal");
    let found = verdicts("verify()");
    assert!(found.contains("public.mended node3 different") && found.contains("public.equal_one node3 equal"), "{found}");
    assert_eq!(verdicts("repair('node3', 'mended')"), equal("mended"));
    assert_eq!(verdicts("verify(\"table\" => 'mended')"), equal("mended"));
    harness::assert_equal(&group);
    let mut client = group.connect(node(2));
    run(&mut client, &["REFRESH MATERIALIZED VIEW CONCURRENTLY mended"]);
    assert_equal(&group);
}

#[test]
fn rows_of_a_replicated_one_come_by_refresh_only() {
    let group = harness::shared();
    group.execute(node(1), "CREATE MATERIALIZED VIEW held AS SELECT 1 AS n; CREATE TABLE rows_for_it (n int)");
    let mut client = group.connect(node(1));
    let fill = "SELECT postgres_r.fill_materialized_view('held'::regclass, 'rows_for_it'::regclass)";
    assert_eq!(code(&mut client, fill), "55000");
    assert_eq!(code(&mut client, &format!("SET ROLE pg_monitor; {fill}")), "42501");
    run(&mut client, &["RESET ROLE"]);
    let mut plain = group.playground.connect(node(1), "postgres").unwrap();
    run(&mut plain, &["DROP DATABASE IF EXISTS plain_one", "CREATE DATABASE plain_one"]);
    let mut plain = group.playground.connect(node(1), "plain_one").unwrap();
    run(
        &mut plain,
        &[
            "CREATE EXTENSION postgres_r; CREATE MATERIALIZED VIEW held AS SELECT 1 AS n, 'a'::text AS t WITH NO DATA; CREATE INDEX held_n ON held (n)",
            "CREATE TABLE other (n int); CREATE TABLE indexed (n int PRIMARY KEY, t text); CREATE UNLOGGED TABLE fast (n int, t text)",
            "CREATE TABLE given (n int, t text); INSERT INTO given SELECT n, repeat(md5(n::text), 100) FROM generate_series(1, 1000) n",
        ],
    );
    let fill =
        |view: &str, rows: &str| format!("SELECT postgres_r.fill_materialized_view('{view}'::regclass, '{rows}'::regclass)");
    assert_eq!(code(&mut plain, &fill("other", "given")), "42809");
    assert_eq!(code(&mut plain, &fill("held", "held")), "42809");
    assert_eq!(code(&mut plain, &fill("held", "indexed")), "42809");
    assert_eq!(code(&mut plain, &fill("held", "fast")), "42809");
    assert_eq!(code(&mut plain, &fill("held", "other")), "42804");
    run(&mut plain, &[&fill("held", "given"), "VACUUM FREEZE held", "SET enable_seqscan = off"]);
    let found = plain
        .query_one("SELECT count(*), (SELECT length(t) FROM held WHERE n = 7), to_regclass('given') IS NULL FROM held", &[])
        .unwrap();
    assert_eq!((found.get(0), found.get(1), found.get(2)), (1000i64, 3200, true));
}

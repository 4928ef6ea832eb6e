//! Functions of users that run when a row is stored (in indexes, domains) run on the origin, and what came out counts everywhere.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use postgres_r_tests::harness::{self, Group, node, race};

/// One session at a node runs these one by one.
fn run(group: &Group, number: usize, statements: &[&str]) {
    group.settle();
    let mut client = group.connect(node(number));
    for statement in statements {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
}

/// What the query gives, which must be the same on every node.
fn everywhere(group: &Group, query: &str) -> String {
    group.settle();
    let values = group.values(query);
    assert!(values.iter().all(|value| *value == values[0]), "{query}: {values:?}");
    values.into_iter().next().unwrap()
}

/// What the query gives on every node when only an index may be used to find it.
fn by_index(group: &Group, before: &str, query: &str) -> String {
    group.settle();
    let mut values = Vec::new();
    for number in group.numbers() {
        let mut client = group.connect(number);
        client.batch_execute(&format!("SET enable_seqscan = off; {before}")).unwrap();
        let value: String = client.query_one(&format!("SELECT ({query})::text"), &[]).unwrap().get(0);
        values.push(value);
    }
    assert!(values.iter().all(|value| *value == values[0]), "{query}: {values:?}");
    values.into_iter().next().unwrap()
}

#[test]
fn a_function_in_an_index_finds_what_its_session_finds() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE SCHEMA parts;
         CREATE FUNCTION g(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN lower($1); END$$;
         CREATE FUNCTION parts.deep(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN upper($1); END$$;
         CREATE FUNCTION f(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN g($1); END$$;
         CREATE FUNCTION h(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN deep(g($1)); END$$;
         CREATE TABLE guest (id int PRIMARY KEY, name text, k text);
         CREATE INDEX guest_f ON guest (f(name)); CREATE INDEX guest_part ON guest (id) WHERE f(name) > 'm';
         CREATE TABLE keyless (name text); CREATE INDEX keyless_f ON keyless (f(name) DESC, name);
         CREATE UNIQUE INDEX guest_u ON guest (f(k));
         CREATE FUNCTION s(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT g($1) || '!'$$;
         CREATE INDEX guest_s ON guest (s(k), s(name)) WHERE s(name) IS NOT NULL",
    );
    run(
        &group,
        1,
        &[
            "INSERT INTO guest SELECT n, 'Name' || n, 'Key' || n FROM generate_series(1, 50) n",
            "INSERT INTO guest VALUES (60, 'Zoe', NULL)",
            "INSERT INTO keyless VALUES ('One'), ('TWO')",
        ],
    );
    run(
        &group,
        2,
        &[
            "UPDATE guest SET name = 'Other' || id, k = k || 'x' WHERE id < 10",
            "UPDATE guest SET id = id + 100 WHERE id = 11",
            "DELETE FROM guest WHERE id = 12",
            "UPDATE keyless SET name = 'Three' WHERE name = 'One'",
            "DELETE FROM keyless WHERE name = 'TWO'",
            "INSERT INTO guest VALUES (1, 'n', 'q') ON CONFLICT (id) DO UPDATE SET name = 'Conflict'",
        ],
    );
    assert_eq!(by_index(&group, "", "SELECT count(*) FROM guest WHERE f(name) = 'other3'"), "1");
    assert_eq!(by_index(&group, "", "SELECT count(*) FROM guest WHERE f(name) = 'name3'"), "0");
    assert_eq!(by_index(&group, "", "SELECT count(*) FROM guest WHERE f(k) = 'key3x' OR f(k) = 'key20'"), "2");
    assert_eq!(by_index(&group, "", "SELECT count(*) FROM guest WHERE id < 1000 AND f(name) > 'm'"), "49");
    assert_eq!(by_index(&group, "", "SELECT string_agg(name, ' ') FROM keyless WHERE f(name) = 'three'"), "Three");
    assert_eq!(by_index(&group, "", "SELECT count(*) FROM guest WHERE s(k) = 'key4x!' AND s(name) IS NOT NULL"), "1");
    // A session that finds what others do not.
    run(
        &group,
        3,
        &[
            "SET search_path = parts, public",
            "CREATE INDEX guest_h ON guest (h(name))",
            "INSERT INTO guest VALUES (70, 'deep', 'd')",
            "UPDATE guest SET name = 'deeper' WHERE id = 60",
        ],
    );
    let query = "SELECT string_agg(name, ' ' ORDER BY id) FROM public.guest WHERE public.h(name) >= 'DEEP' AND public.h(name) <= 'DEEPER'";
    assert_eq!(by_index(&group, "SET search_path = parts, public", query), "deeper deep");
    // One value, two nodes, neither has seen the other: the key is what the function gives.
    let mine = (node(1), "SET search_path = parts, public; INSERT INTO guest VALUES (81, 'a', 'SAME')");
    let yours = (node(2), "SET search_path = parts, public; INSERT INTO guest VALUES (82, 'b', 'same')");
    assert!(race::after_unseen(&group, mine, yours).is_err());
    harness::assert_equal(&group);
    group.execute(
        node(1),
        "DROP TABLE guest, keyless; DROP SCHEMA parts CASCADE; DROP FUNCTION f(text), g(text), h(text), s(text)",
    );
}

#[test]
fn a_function_in_an_index_may_read_settings_zones_and_tables() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE FUNCTION tenant(int) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN current_setting('app.tenant') || $1; END$$;
         CREATE FUNCTION local_day(timestamptz) RETURNS date IMMUTABLE LANGUAGE sql AS 'SELECT $1::date';
         CREATE TABLE colour (name text PRIMARY KEY, code int);
         CREATE FUNCTION code_of(text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
             $$DECLARE c int; BEGIN SELECT code INTO STRICT c FROM colour WHERE name = $1; RETURN c; END$$;
         CREATE FUNCTION me(int) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN current_user || $1; END$$;
         CREATE TABLE item (id int PRIMARY KEY, at timestamptz, colour text)",
    );
    run(
        &group,
        1,
        &[
            "SET app.tenant = 'north'",
            "SET TIME ZONE 'Asia/Tokyo'",
            "CREATE INDEX ON item (tenant(id))",
            "CREATE INDEX item_day ON item (local_day(at))",
            "CREATE INDEX item_code ON item (code_of(colour))",
            "CREATE INDEX item_me ON item (id) WHERE me(id) LIKE 'postgres%'",
            "INSERT INTO item SELECT 1, '2020-01-01 20:00+00', NULL WHERE false",
            "BEGIN; INSERT INTO colour VALUES ('red', 7); INSERT INTO item VALUES (1, '2020-01-01 20:00+00', 'red'); COMMIT",
        ],
    );
    // The colour is there, the item's index asks for it; on other nodes both come at once.
    for round in 0..20 {
        let number = round % 3 + 1;
        let colour = format!("INSERT INTO colour VALUES ('c{round}', {round})");
        let item = format!("INSERT INTO item VALUES ({}, '2020-01-01 20:00+00', 'c{round}')", round + 10);
        run(&group, number, &["SET app.tenant = 'south'", "SET TIME ZONE 'America/New_York'", &colour, &item]);
    }
    run(&group, 2, &["SET app.tenant = 'west'", "UPDATE item SET colour = 'c3', id = id + 100 WHERE id = 1"]);
    assert_eq!(by_index(&group, "SET app.tenant = 'west'", "SELECT count(*) FROM item WHERE tenant(id) = 'west101'"), "1");
    let south = "SET app.tenant = 'south'; SET TIME ZONE 'America/New_York'";
    assert_eq!(by_index(&group, south, "SELECT count(*) FROM item WHERE tenant(id) = 'south12'"), "1");
    assert_eq!(by_index(&group, south, "SELECT count(*) FROM item WHERE code_of(colour) = 3"), "2");
    assert_eq!(by_index(&group, "", "SELECT count(*) FROM item WHERE id > 0 AND me(id) LIKE 'postgres%'"), "21");
    harness::assert_equal(&group);
    group.execute(node(1), "DROP TABLE item, colour; DROP FUNCTION tenant, local_day, code_of, me");
}

#[test]
fn a_domains_check_is_made_on_the_origin_only() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE FUNCTION fits(int) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RETURN $1 < 10; END$$;
         CREATE FUNCTION passes(int) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RETURN fits($1) AND current_setting('app.pass') = 'yes'; END$$;
         CREATE DOMAIN small AS int CHECK (passes(VALUE)); CREATE TYPE box3 AS (a small, b small[]);
         CREATE DOMAIN small2 AS small CHECK (VALUE <> 3);
         CREATE TABLE packed (id int PRIMARY KEY, s small, ss small[], b box3, bs box3[], s2 small2[],
             twice int GENERATED ALWAYS AS (id * 2) STORED);
         CREATE TYPE smalls AS RANGE (subtype = small, multirange_type_name = manysmalls);
         CREATE TABLE packed_keyless (ss small[], b box3);
         CREATE TABLE spans (r smalls, m manysmalls, rs smalls[], n int)",
    );
    run(
        &group,
        1,
        &[
            "SET app.pass = 'yes'",
            "INSERT INTO packed VALUES (1, 2, '{1,2}', '(1,\"{2,3}\")', '{\"(1,{2})\"}', '[5:6]={4,NULL}'), (2, NULL, '{{1,2},{3,4}}', NULL, NULL, '{}')",
            "INSERT INTO packed_keyless VALUES ('{1,2}', '(1,\"{2,3}\")'), (NULL, '(,)')",
            "UPDATE packed SET s = 3 WHERE id = 1",
            "UPDATE packed_keyless SET ss = '{5}' WHERE ss = '{1,2}'",
            "DELETE FROM packed_keyless WHERE ss IS NULL",
            "INSERT INTO spans VALUES ('[1,3)', '{[1,2),(3,5]}', '{\"[1,2]\",empty,NULL}', 1), ('(,)', '{}', '{}', 2), (NULL, '{(,2),[5,)}', NULL, 3)",
            "UPDATE spans SET n = n + 1",
        ],
    );
    // A younger check, which no row meets.
    run(&group, 2, &["SET app.pass = 'yes'", "ALTER DOMAIN small ADD CONSTRAINT none CHECK (VALUE > 100) NOT VALID"]);
    group.settle();
    run(&group, 3, &["SET app.pass = 'yes'", "UPDATE packed SET id = id + 10", "UPDATE packed_keyless SET ss = ss"]);
    run(&group, 3, &["SET app.pass = 'yes'", "UPDATE spans SET n = n + 1", "DELETE FROM spans WHERE n = 4"]);
    let spans = "SELECT string_agg(s::text, ' ' ORDER BY n) FROM spans s";
    assert_eq!(
        everywhere(&group, spans),
        "(\"[1,3)\",\"{[1,2),(3,5]}\",\"{\"\"[1,2]\"\",empty,NULL}\",3) (,\"{(,2),[5,)}\",,5)"
    );
    assert_eq!(
        everywhere(&group, "SELECT string_agg(p::text, ' ' ORDER BY id) FROM packed p"),
        "(11,3,\"{1,2}\",\"(1,\"\"{2,3}\"\")\",\"{\"\"(1,{2})\"\"}\",\"[5:6]={4,NULL}\",22) (12,,\"{{1,2},{3,4}}\",,,{},24)"
    );
    harness::assert_equal(&group);
    group.execute(
        node(1),
        "DROP TABLE packed, packed_keyless, spans; DROP TYPE box3, smalls; DROP DOMAIN small2, small; DROP FUNCTION passes, fits",
    );
}

#[test]
fn generated_columns_exclusion_constraints_and_partitions_carry_what_came_out() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE FUNCTION inner_of(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN $1 * 10; END$$;
         CREATE FUNCTION span(int) RETURNS int4range IMMUTABLE LANGUAGE plpgsql AS
             $$BEGIN RETURN int4range(inner_of($1), inner_of($1) + 5); END$$;
         CREATE TABLE booked (id int PRIMARY KEY, n int, g int GENERATED ALWAYS AS (inner_of(n) + 1) STORED,
             EXCLUDE USING gist (span(n) WITH &&));
         CREATE TABLE parted (id int, n int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
         CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (100);
         CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (100) TO (200);
         CREATE INDEX ON parted (inner_of(n)); CREATE INDEX ON parted USING gin ((ARRAY[inner_of(n)]));
         CREATE INDEX ON parted USING hash (inner_of(n)); CREATE INDEX ON parted USING brin (inner_of(n))",
    );
    run(
        &group,
        1,
        &["INSERT INTO booked VALUES (1, 1), (2, 2)", "INSERT INTO parted SELECT n, n FROM generate_series(1, 150) n"],
    );
    run(&group, 2, &["UPDATE booked SET n = 3 WHERE id = 2", "UPDATE parted SET id = id + 100, n = 7 WHERE id = 60"]);
    assert!(group.connect(node(3)).batch_execute("INSERT INTO booked VALUES (3, 3)").is_err());
    assert!(
        race::after_unseen(
            &group,
            (node(1), "INSERT INTO booked VALUES (4, 4)"),
            (node(2), "INSERT INTO booked VALUES (5, 4)")
        )
        .is_err()
    );
    assert_eq!(everywhere(&group, "SELECT string_agg(g::text, ' ' ORDER BY id) FROM booked"), "11 31 41");
    assert_eq!(by_index(&group, "", "SELECT count(*) FROM parted WHERE inner_of(n) = 70"), "2");
    assert_eq!(by_index(&group, "", "SELECT count(*) FROM parted WHERE ARRAY[inner_of(n)] && '{70}'"), "2");
    harness::assert_equal(&group);
    group.execute(node(1), "DROP TABLE booked, parted; DROP FUNCTION span, inner_of");
}

/// A table whose rows travel as text under settings of their own has an index on a function that needs its session's.
#[test]
fn capture_runs_a_users_function_under_the_sessions_settings() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TYPE spot AS (x float8, at timestamptz);
         CREATE FUNCTION shown(timestamptz) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1::text';
         CREATE FUNCTION outer_shown(timestamptz) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN shown($1); END$$;
         CREATE TABLE seen (s spot, f int4range, at timestamptz); CREATE UNIQUE INDEX ON seen (outer_shown(at))",
    );
    run(
        &group,
        1,
        &[
            "SET DateStyle = 'German'",
            "SET TIME ZONE 'Asia/Tokyo'",
            "INSERT INTO seen VALUES ('(0.1,2020-01-01 00:00+00)', '[1,2]', '2020-01-01 00:00+00')",
            "UPDATE seen SET f = '[3,4]'",
        ],
    );
    let before = "SET DateStyle = 'German'; SET TIME ZONE 'Asia/Tokyo'";
    assert_eq!(by_index(&group, before, "SELECT count(*) FROM seen WHERE outer_shown(at) = '01.01.2020 09:00:00 JST'"), "1");
    harness::assert_equal(&group);
    group.execute(node(1), "DROP TABLE seen; DROP FUNCTION outer_shown, shown; DROP TYPE spot");
}

/// What an index on a function of a user needs is made anew on one node, and rows go on coming.
#[test]
fn an_index_made_anew_on_one_node_takes_what_others_write() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE FUNCTION second(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1';
         CREATE FUNCTION first(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN second($1); END$$;
         CREATE TABLE again (id int PRIMARY KEY, n int); CREATE INDEX again_f ON again (first(n));
         INSERT INTO again SELECT n, n FROM generate_series(1, 100) n",
    );
    group.settle();
    run(&group, 2, &["ALTER TABLE again CLUSTER ON again_pkey"]);
    for anew in [
        "REINDEX INDEX again_f",
        "REINDEX INDEX CONCURRENTLY again_f",
        "REINDEX TABLE again",
        "REINDEX TABLE CONCURRENTLY again",
        "VACUUM FULL again",
        "CLUSTER again",
    ] {
        run(&group, 2, &[anew]);
        run(&group, 1, &["UPDATE again SET n = n + 100 WHERE id <= 50", "UPDATE again SET n = n - 100 WHERE id <= 50"]);
    }
    assert_eq!(by_index(&group, "", "SELECT count(*) FROM again WHERE first(n) = 12"), "1");
    harness::assert_equal(&group);
    group.execute(node(1), "DROP TABLE again; DROP FUNCTION first, second");
}

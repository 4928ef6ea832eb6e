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
    let group = harness::shared_without_table_locks();
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
    let group = harness::shared_without_table_locks();
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
    let group = harness::shared_without_table_locks();
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
    let group = harness::shared_without_table_locks();
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
    let group = harness::shared_without_table_locks();
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
    let group = harness::shared_without_table_locks();
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

/// Functions of differences, each of which gives something else, or nothing, in another session.
const DIFFERENCES: &str = "CREATE TABLE unit (size float8); CREATE TABLE asked (id bigserial PRIMARY KEY, port text);
         CREATE FUNCTION note_asked() RETURNS void LANGUAGE plpgsql AS
             $$BEGIN INSERT INTO asked (port) VALUES (current_setting('port')); END$$;
         CREATE FUNCTION by_setting(float8, float8) RETURNS float8 IMMUTABLE LANGUAGE plpgsql AS
             $$BEGIN RETURN ($1 - $2) * current_setting('app.unit')::float8; END$$;
         CREATE FUNCTION by_table(float8, float8) RETURNS float8 IMMUTABLE LANGUAGE plpgsql AS
             $$DECLARE unit float8; BEGIN SELECT size INTO STRICT unit FROM unit; RETURN ($1 - $2) * unit; END$$;
         CREATE FUNCTION by_node(float8, float8) RETURNS float8 IMMUTABLE LANGUAGE plpgsql AS
             $$BEGIN IF current_setting('app.at', true) IS DISTINCT FROM current_setting('port') THEN RAISE 'not here'; END IF; RETURN $1 - $2; END$$;
         CREATE FUNCTION by_luck(float8, float8) RETURNS float8 IMMUTABLE LANGUAGE plpgsql AS
             $$BEGIN IF current_setting('app.luck', true) IS NULL AND random() < 0.1 THEN RAISE 'no luck'; END IF; RETURN $1 - $2; END$$;
         CREATE FUNCTION with_note(float8, float8) RETURNS float8 IMMUTABLE LANGUAGE plpgsql AS
             $$BEGIN IF random() < 0.001 THEN PERFORM note_asked(); END IF; RETURN $1 - $2; END$$;
         CREATE FUNCTION in_sql(x time, y time) RETURNS float8 IMMUTABLE STRICT LANGUAGE sql AS 'SELECT extract(epoch FROM (x - y))'";

/// GiST asks a range type's function of differences where to put an entry, when a row is stored and when an index is made.
#[test]
fn a_range_types_function_of_differences_is_called_on_the_origin_only() {
    let group = harness::shared_without_table_locks();
    group.execute(node(1), DIFFERENCES);
    let port = group.value(node(1), "SELECT current_setting('port')");
    let mine: &[&str] = &[
        "SET app.unit = 2",
        &format!("SET app.at = {port}"),
        "SET app.luck = yes",
        "CREATE TYPE r_setting AS RANGE (subtype = float8, subtype_diff = by_setting, multirange_type_name = m_setting)",
        "CREATE TYPE r_table AS RANGE (subtype = float8, subtype_diff = by_table)",
        "CREATE TYPE r_node AS RANGE (subtype = float8, subtype_diff = by_node)",
        "CREATE TYPE r_luck AS RANGE (subtype = float8, subtype_diff = by_luck)",
        "CREATE TYPE r_note AS RANGE (subtype = float8, subtype_diff = with_note)",
        "CREATE TYPE timerange AS RANGE (subtype = time, subtype_diff = in_sql)",
        "CREATE DOMAIN d_setting AS r_setting",
        "CREATE TABLE spread (id int PRIMARY KEY, s r_setting, m m_setting, t r_table, n r_node, l r_luck, a r_note, d d_setting, w timerange, gone int,
             EXCLUDE USING gist (n WITH &&))",
        "CREATE INDEX ON spread USING gist (s); CREATE INDEX ON spread USING gist (m); CREATE INDEX ON spread USING gist (t)",
        "CREATE INDEX ON spread USING gist (l); CREATE INDEX ON spread USING gist (a); CREATE INDEX ON spread USING gist (d)",
        "CREATE INDEX ON spread USING gist (w); CREATE INDEX ON spread USING spgist (s); CREATE INDEX ON spread USING gist ((s * r_setting(1, 1e6)))",
        "INSERT INTO unit VALUES (3)",
        "INSERT INTO spread SELECT n, r_setting(n, n + n % 7 + 1), m_setting(r_setting(n, n + 1), r_setting(n + 9, n + 10)), r_table(n, n + n % 9 + 1),
             r_node(n, n + 1), r_luck(n, n + n % 5 + 1), r_note(n, n + n % 8 + 1), r_setting(n, n + 2), timerange('0:00', time '1:00' + n * interval '1 second')
             FROM (SELECT n * 7919 % 2003 AS n FROM generate_series(1, 2000) n) n",
        // The rows are there, and the table that the function reads is empty by the time that others see them.
        "BEGIN; UPDATE spread SET t = r_table(lower(t), upper(t) + 1) WHERE id % 3 = 0; DELETE FROM unit; COMMIT",
        "DELETE FROM spread WHERE id % 5 = 0",
    ];
    run(&group, 1, mine);
    // Where a statement makes an index, rows that are there are entered.
    run(
        &group,
        1,
        &[
            mine[0],
            mine[1],
            mine[2],
            "CREATE INDEX late ON spread USING gist (n); CREATE INDEX later ON spread USING gist (l, s)",
        ],
    );
    // And type, index and rows in one transaction.
    run(
        &group,
        1,
        &[
            mine[1],
            "BEGIN",
            "CREATE TYPE r_fresh AS RANGE (subtype = float8, subtype_diff = by_node)",
            "CREATE TABLE fresh (id int PRIMARY KEY, r r_fresh); CREATE INDEX ON fresh USING gist (r)",
            "INSERT INTO fresh SELECT n, r_fresh(n, n + n % 3 + 1) FROM generate_series(1, 1500) n",
            "CREATE INDEX ON fresh USING gist (r)",
            "COMMIT",
        ],
    );
    // Here it still runs, for whoever writes.
    group.settle();
    let refused = group
        .connect(node(2))
        .batch_execute("INSERT INTO fresh SELECT n, r_fresh(n, n + 1) FROM generate_series(2001, 2100) n");
    assert!(refused.unwrap_err().as_db_error().unwrap().message().contains("not here"));
    assert_eq!(by_index(&group, "", "SELECT count(*) FROM spread WHERE s && r_setting(100, 101)"), "3");
    assert_eq!(by_index(&group, "", "SELECT count(*) FROM spread WHERE n && r_node(100, 102)"), "1");
    assert_eq!(by_index(&group, "", "SELECT count(*) FROM fresh WHERE r @> 7.5::float8"), "2");
    assert_eq!(everywhere(&group, "SELECT count(DISTINCT port) FROM asked"), "1");
    harness::assert_equal(&group);
}

/// Whatever else a user may hang on a table, with a function that insists on the node where the row was written.
#[test]
fn what_a_user_hangs_on_a_table_is_not_called_where_its_rows_are_applied() {
    let group = harness::shared_without_table_locks();
    for number in group.numbers() {
        group.playground.connect(number, "postgres").unwrap().batch_execute("CREATE ROLE keeper").unwrap();
    }
    group.execute(
        node(1),
        "CREATE FUNCTION here(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
             $$BEGIN IF current_setting('app.at', true) IS DISTINCT FROM current_setting('port') THEN RAISE 'not here'; END IF; RETURN $1; END$$;
         CREATE FUNCTION is_here(int, int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN here($1) = $2; END$$;
         CREATE OPERATOR =?= (FUNCTION = is_here, LEFTARG = int, RIGHTARG = int);
         CREATE FUNCTION raise() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM here(1); RETURN new; END$$;
         CREATE DOMAIN local AS int CHECK (VALUE =?= VALUE); CREATE TYPE pair_of AS (a local, b local[])",
    );
    let at = format!("SET app.at = {}", group.value(node(1), "SELECT current_setting('port')"));
    run(
        &group,
        1,
        &[
            &at,
            "CREATE TABLE hung (id int PRIMARY KEY, n int DEFAULT here(7) CHECK (n =?= n), p pair_of, l local, g int GENERATED ALWAYS AS (here(n)) STORED, r int4range,
                 EXCLUDE USING gist (r WITH &&) WHERE (n =?= n))",
            "CREATE INDEX ON hung USING gist (int4range(here(n), NULL)) WHERE n =?= n; CREATE STATISTICS hung_s ON (here(n)), (n =?= id) FROM hung",
            "CREATE POLICY mine ON hung USING (n =?= n) WITH CHECK (n =?= n); ALTER TABLE hung ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY, OWNER TO keeper",
            "CREATE RULE also AS ON INSERT TO hung DO ALSO SELECT here(new.n)",
            "CREATE TRIGGER always BEFORE INSERT OR UPDATE ON hung FOR EACH ROW WHEN (new.n =?= new.n) EXECUTE FUNCTION raise()",
            "CREATE TABLE cut (id int, n int) PARTITION BY RANGE (here(n)); CREATE TABLE cut1 PARTITION OF cut FOR VALUES FROM (0) TO (10)",
            "CREATE TABLE cut2 PARTITION OF cut DEFAULT; CREATE TABLE held (id int PRIMARY KEY, hung int REFERENCES hung ON UPDATE CASCADE)",
            "INSERT INTO hung (id, p, l, r) SELECT n, row(n, ARRAY[n, NULL])::pair_of, n, int4range(n, n + 1) FROM generate_series(1, 20) n",
            "SET ROLE keeper; UPDATE hung SET n = n + 1, l = l + 1 WHERE id < 10; RESET ROLE",
            "INSERT INTO held SELECT n, n FROM generate_series(1, 20) n; UPDATE hung SET id = id + 100 WHERE id < 5",
            "INSERT INTO cut SELECT n, n FROM generate_series(1, 20) n; UPDATE cut SET n = n + 5; DELETE FROM cut WHERE id = 3",
            "DELETE FROM held WHERE id = 20; DELETE FROM hung WHERE id = 20; ANALYZE hung, cut",
        ],
    );
    assert!(group.connect(node(2)).batch_execute("INSERT INTO hung VALUES (50)").is_err());
    assert_eq!(everywhere(&group, "SELECT count(*) || ' ' || sum(g) FROM hung"), "19 142");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM held WHERE hung > 100"), "4");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM cut1"), "3");
    harness::assert_equal(&group);
    group.execute(
        node(1),
        "DROP TABLE held, hung, cut; DROP TYPE pair_of; DROP DOMAIN local; DROP OPERATOR =?= (int, int); DROP FUNCTION raise, is_here, here",
    );
}

/// What PostgreSQL calls wherever it stores a row, and what is not part of the row's indexes: nobody but a superuser can make it.
#[test]
fn functions_that_are_called_where_rows_are_applied_are_made_by_superusers_only() {
    let group = harness::shared_without_table_locks();
    for number in group.numbers() {
        group.playground.connect(number, "postgres").unwrap().batch_execute("CREATE ROLE type_maker").unwrap();
    }
    group.execute(node(1), "GRANT CREATE ON SCHEMA public TO type_maker");
    let mut client = group.connect(node(1));
    client.batch_execute("SET ROLE type_maker; SET check_function_bodies = off").unwrap();
    let _ = client.batch_execute("CREATE TYPE shell");
    for statement in [
        "CREATE FUNCTION canon(shell) RETURNS shell IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN $1; END$$",
        "CREATE FUNCTION canon(shell) RETURNS shell IMMUTABLE LANGUAGE sql AS 'SELECT $1'",
        "CREATE FUNCTION canon(shell) RETURNS shell IMMUTABLE LANGUAGE internal AS 'int4range_canonical'",
        "CREATE FUNCTION compare(int, int) RETURNS int IMMUTABLE LANGUAGE internal AS 'btint4cmp'",
        "CREATE OPERATOR CLASS own FOR TYPE int USING btree AS OPERATOR 1 <, FUNCTION 1 btint4cmp(int, int)",
        "CREATE OPERATOR FAMILY own USING gist",
        "ALTER OPERATOR FAMILY integer_ops USING btree ADD FUNCTION 1 (int, text) btint48cmp(int, bigint)",
        "CREATE TYPE base (INPUT = int4in, OUTPUT = int4out)",
        "CREATE ACCESS METHOD own TYPE INDEX HANDLER bthandler",
        "CREATE OR REPLACE FUNCTION pg_catalog.float8mi(float8, float8) RETURNS float8 IMMUTABLE LANGUAGE sql AS 'SELECT 1::float8'",
    ] {
        assert!(client.batch_execute(statement).is_err(), "{statement}");
    }
    let _ = client.batch_execute("DROP TYPE IF EXISTS shell");
    harness::assert_equal(&group);
}

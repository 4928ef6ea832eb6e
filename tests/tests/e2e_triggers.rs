//! Triggers and session_replication_role, as documented for logical apply: what users' triggers do happens once, on the origin, and
//! travels; what is computed there travels as the value it had.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use gcs::playground::group::describe;
use postgres::Client;
use postgres_r_tests::harness::{self, Group, node};

fn run(client: &mut Client, statements: &[&str]) {
    for statement in statements {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {}", describe(&error)));
    }
}

fn assert_all(group: &Group, query: &str, expected: &str) {
    harness::assert_equal(group);
    assert_eq!(group.values(query), [expected, expected, expected], "{query}");
}

/// Which node ran it shows in the port.
const LOG_FUNCTION: &str = "CREATE TABLE fired (id serial PRIMARY KEY, what text, port int);
    CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO fired (what, port) VALUES (TG_NAME || ' ' || TG_OP, current_setting('port')::int);
            RETURN COALESCE(new, old);
        END $$;";

#[test]
fn a_users_trigger_fires_once_on_the_origin() {
    let group = harness::shared();
    group.execute(node(1), LOG_FUNCTION);
    group.execute(
        node(1),
        "CREATE TABLE watched (id int PRIMARY KEY, v int);
         CREATE TRIGGER a_before BEFORE INSERT OR UPDATE OR DELETE ON watched FOR EACH ROW EXECUTE FUNCTION fire();
         CREATE TRIGGER b_after AFTER INSERT OR UPDATE OR DELETE ON watched FOR EACH ROW EXECUTE FUNCTION fire();
         CREATE TRIGGER c_statement AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON watched EXECUTE FUNCTION fire();
         CREATE CONSTRAINT TRIGGER d_late AFTER INSERT ON watched DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION fire();
         CREATE VIEW watched_view AS SELECT * FROM watched;
         CREATE FUNCTION into_watched() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO watched VALUES (new.id, new.v); RETURN new; END $$;
         CREATE TRIGGER instead INSTEAD OF INSERT ON watched_view FOR EACH ROW EXECUTE FUNCTION into_watched()",
    );
    group.settle();
    for number in group.numbers() {
        let id = number.0;
        let mut client = group.connect(number);
        run(
            &mut client,
            &[
                &format!("INSERT INTO watched VALUES ({id}, 0)"),
                &format!("UPDATE watched SET v = 1 WHERE id = {id}"),
                &format!("INSERT INTO watched_view VALUES ({}, 0)", id + 10),
                &format!("DELETE FROM watched WHERE id = {id}"),
            ],
        );
    }
    // Rows: 4 for each of two inserts, 3 for the update, 3 for the deletion; on each of three nodes.
    assert_all(&group, "SELECT count(*) FROM fired", "42");
    assert_all(&group, "SELECT count(DISTINCT port) FROM fired", "3");
    group.execute(node(2), "TRUNCATE watched");
    assert_all(&group, "SELECT count(*) FROM fired WHERE what = 'c_statement TRUNCATE'", "1");
}

#[test]
fn what_a_row_trigger_makes_of_a_row_travels() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE made (id int PRIMARY KEY, v int, w int);
         CREATE FUNCTION make() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF new.id % 2 = 0 THEN RETURN NULL; END IF;
                 new.w := (random() * 1000000)::int;
                 RETURN new;
             END $$;
         CREATE TRIGGER make BEFORE INSERT OR UPDATE ON made FOR EACH ROW EXECUTE FUNCTION make();
         CREATE TABLE sums (total bigint);
         INSERT INTO sums VALUES (0);
         CREATE FUNCTION add_up() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN UPDATE sums SET total = total + (SELECT sum(v) FROM new_rows); RETURN NULL; END $$;
         CREATE TRIGGER add_up AFTER INSERT ON made REFERENCING NEW TABLE AS new_rows EXECUTE FUNCTION add_up()",
    );
    group.settle();
    group.execute(node(2), "INSERT INTO made SELECT n, n FROM generate_series(1, 9) n; UPDATE made SET v = v + 1");
    assert_all(&group, "SELECT count(*) FROM made", "5");
    assert_all(&group, "SELECT total FROM sums", "25");
}

/// As pg_restore and logical replication write: rows are still ours to carry.
#[test]
fn rows_written_as_a_replica_travel_and_fire_nothing() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE elder (id int PRIMARY KEY); INSERT INTO elder VALUES (1);
         CREATE TABLE quiet (id int PRIMARY KEY, elder int REFERENCES elder, v int);
         CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'fired'; END $$;
         CREATE TRIGGER never BEFORE INSERT ON quiet FOR EACH ROW EXECUTE FUNCTION never()",
    );
    group.settle();
    run(
        &mut group.connect(node(2)),
        &[
            "SET session_replication_role = replica",
            "INSERT INTO quiet SELECT n, 1, 0 FROM generate_series(1, 5) n",
            "UPDATE quiet SET v = 1 WHERE id < 4; DELETE FROM quiet WHERE id = 5",
            "TRUNCATE quiet; INSERT INTO quiet VALUES (7, 1, 7)",
        ],
    );
    assert_all(&group, "SELECT id || ' ' || v FROM quiet", "7 7");
}

#[test]
fn disabling_triggers_does_not_switch_capture_off() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE kept (id int PRIMARY KEY, v int);
         CREATE TABLE kept_parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE kept_part PARTITION OF kept_parts FOR VALUES FROM (0) TO (100);
         CREATE TABLE kept_base (id int); CREATE TABLE kept_heir () INHERITS (kept_base)",
    );
    group.settle();
    run(
        &mut group.connect(node(2)),
        &[
            "ALTER TABLE kept DISABLE TRIGGER ALL",
            "INSERT INTO kept VALUES (1, 1)",
            "BEGIN; ALTER TABLE kept DISABLE TRIGGER ALL; INSERT INTO kept VALUES (2, 2); ALTER TABLE kept ENABLE TRIGGER ALL; COMMIT",
            "ALTER TABLE kept DISABLE TRIGGER USER; INSERT INTO kept VALUES (3, 3)",
            "ALTER TABLE kept_parts DISABLE TRIGGER ALL; INSERT INTO kept_parts VALUES (1); INSERT INTO kept_part VALUES (2)",
            "ALTER TABLE kept_base DISABLE TRIGGER ALL; INSERT INTO kept_heir VALUES (1); INSERT INTO kept_base VALUES (2)",
        ],
    );
    // PostgreSQL puts an OID into the names of internal triggers, so that other nodes may have it under another name.
    let by_name = "DO $$ DECLARE name text; BEGIN
             SELECT tgname INTO name FROM pg_trigger WHERE tgrelid = 'kept'::regclass AND tgname ~ 'postgres_r';
             EXECUTE format('ALTER TABLE kept DISABLE TRIGGER %I', name);
         END $$";
    if let Err(error) = group.connect(node(2)).batch_execute(by_name) {
        assert_eq!(error.code().map(|code| code.code()), Some("42704"), "{error}");
    }
    group.execute(node(2), "INSERT INTO kept VALUES (4, 4)");
    group.settle();
    // Also where the statement was applied.
    group.execute(node(3), "INSERT INTO kept VALUES (5, 5); UPDATE kept SET v = 0; INSERT INTO kept_heir VALUES (3)");
    assert_all(&group, "SELECT count(*) FROM kept WHERE v = 0", "5");
    assert_all(&group, "SELECT count(*) FROM kept_parts", "2");
    assert_all(&group, "SELECT count(*) FROM kept_base", "3");
}

#[test]
fn what_is_computed_on_the_origin_travels_as_the_value_it_had() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE SEQUENCE draw;
         CREATE TABLE computed (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, s serial, n bigint DEFAULT nextval('draw'),
             at timestamptz DEFAULT now(), clock timestamptz DEFAULT clock_timestamp(), r float8 DEFAULT random(),
             u uuid DEFAULT gen_random_uuid(), who name DEFAULT current_user, port text DEFAULT current_setting('port'),
             x xid8 DEFAULT pg_current_xact_id(), pid int DEFAULT pg_backend_pid(), v int,
             twice int GENERATED ALWAYS AS (v * 2) STORED)",
    );
    for number in group.numbers() {
        group.settle();
        let id = number.0;
        run(
            &mut group.connect(number),
            &[
                &format!("INSERT INTO computed (v) SELECT {id} FROM generate_series(1, 20)"),
                "UPDATE computed SET r = random(), at = clock_timestamp(), u = gen_random_uuid(), v = v + 1",
                &format!("UPDATE computed SET n = nextval('draw') WHERE v = {id}"),
                &format!("COPY computed (v) FROM PROGRAM 'seq {id} {}'", id + 5),
                &format!("INSERT INTO computed (id, v) OVERRIDING SYSTEM VALUE VALUES (-{id}, 0)"),
            ],
        );
    }
    assert_all(&group, "SELECT count(*) FROM computed WHERE twice = v * 2", "81");
    assert_all(&group, "SELECT count(DISTINCT u) FROM computed", "81");
    assert_all(&group, "SELECT count(DISTINCT s) FROM computed", "81");
}

/// ENABLE ALWAYS and REPLICA are about the session that writes, as on one server: elsewhere the trigger's rows come as rows do.
#[test]
fn always_and_replica_triggers_fire_where_rows_are_written_and_nowhere_else() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE observed (id int PRIMARY KEY);
         CREATE TABLE observations (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text, port int DEFAULT inet_server_port());
         CREATE FUNCTION observe() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO observations (what) VALUES (concat_ws(' ', tg_name, tg_when, tg_op)); RETURN NULL; END $$;
         CREATE TRIGGER a AFTER INSERT ON observed FOR EACH ROW EXECUTE FUNCTION observe();
         CREATE TRIGGER b BEFORE TRUNCATE ON observed EXECUTE FUNCTION observe();
         CREATE TRIGGER c AFTER TRUNCATE ON observed EXECUTE FUNCTION observe();
         CREATE TRIGGER r AFTER INSERT ON observed FOR EACH ROW EXECUTE FUNCTION observe();
         CREATE TRIGGER o AFTER INSERT ON observed FOR EACH ROW EXECUTE FUNCTION observe();
         ALTER TABLE observed ENABLE ALWAYS TRIGGER a, ENABLE ALWAYS TRIGGER b, ENABLE ALWAYS TRIGGER c, ENABLE REPLICA TRIGGER r",
    );
    group.settle();
    let mut client = group.connect(node(2));
    run(&mut client, &["INSERT INTO observed VALUES (1)", "TRUNCATE observed"]);
    assert_all(
        &group,
        "SELECT string_agg(what, ', ' ORDER BY n) FROM observations",
        "a AFTER INSERT, o AFTER INSERT, b BEFORE TRUNCATE, c AFTER TRUNCATE",
    );
    run(
        &mut client,
        &[
            "TRUNCATE observations",
            "SET session_replication_role = replica",
            "INSERT INTO observed VALUES (2)",
            "TRUNCATE observed",
        ],
    );
    assert_all(
        &group,
        "SELECT string_agg(what, ', ' ORDER BY n) FROM observations",
        "a AFTER INSERT, r AFTER INSERT, b BEFORE TRUNCATE, c AFTER TRUNCATE",
    );
    assert_all(&group, "SELECT count(DISTINCT port) FROM observations", "1");
    // One that fails would take a node out of service.
    group.execute(
        node(1),
        "CREATE OR REPLACE FUNCTION observe() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF inet_server_port() IS NULL THEN RAISE 'where statements are applied'; END IF; RETURN NULL; END $$",
    );
    group.settle();
    run(&mut group.connect(node(3)), &["INSERT INTO observed VALUES (3)", "TRUNCATE observed, observations"]);
    harness::assert_equal(&group);
}

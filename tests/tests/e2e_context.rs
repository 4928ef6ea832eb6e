//! A statement runs elsewhere under every setting that its session had, not under those of the session that applies it.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::time::Duration;

use postgres::Client;
use postgres_r_tests::harness::{self, Group, node, schema, wait};

/// One session at node 1 runs these one by one.
fn run(group: &Group, statements: &[&str]) {
    let mut client = group.connect(node(1));
    for statement in statements {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
}

fn connect_as(group: &Group, role: &str) -> Client {
    let port = group.playground.cluster(node(1)).port;
    Client::connect(&format!("postgresql://{role}@127.0.0.1:{port}/{}", group.database()), postgres::NoTls).unwrap()
}

/// What the query gives, which must be the same on every node.
fn everywhere(group: &Group, query: &str) -> String {
    group.settle();
    let values = group.values(query);
    assert!(values.iter().all(|value| *value == values[0]), "{query}: {values:?}");
    values.into_iter().next().unwrap()
}

fn refused(client: &mut Client, statement: &str) -> String {
    let error = client.batch_execute(statement).unwrap_err();
    let error = error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error}"));
    assert_eq!(error.code().code(), "0A000", "{statement}: {}", error.message());
    assert!(error.hint().is_some(), "{statement}: no hint");
    error.message().to_owned()
}

#[test]
fn a_setting_that_the_application_made_up_is_read_elsewhere() {
    let group = harness::shared();
    run(
        &group,
        &[
            "CREATE TABLE orders (id int PRIMARY KEY)",
            "INSERT INTO orders VALUES (1), (2)",
            "SET app.tenant = '7'",
            "ALTER TABLE orders ADD COLUMN tenant int NOT NULL DEFAULT current_setting('app.tenant')::int",
            // By function, for a block only, and gone again afterwards.
            "BEGIN; SELECT set_config('app.tenant', '8', true); \
         ALTER TABLE orders ADD COLUMN second int DEFAULT current_setting('app.tenant')::int; COMMIT",
            "ALTER TABLE orders ADD COLUMN third int DEFAULT current_setting('app.tenant')::int",
            // A value as large as a token, under a name as long as a function lets it be.
            "SELECT set_config('app.' || repeat('n', 1000), repeat('v', 100000), false)",
            "ALTER TABLE orders ADD COLUMN fourth int DEFAULT length(current_setting('app.' || repeat('n', 1000)))",
        ],
    );
    assert_eq!(
        everywhere(&group, "SELECT string_agg(o::text, ' ' ORDER BY id) FROM orders o"),
        "(1,7,8,7,100000) (2,7,8,7,100000)"
    );
    harness::assert_equal(&group);
}

#[test]
fn a_setting_of_the_role_or_of_one_node_is_the_origins() {
    let group = harness::shared();
    for number in group.numbers() {
        group.playground.connect(number, "postgres").unwrap().batch_execute("CREATE ROLE keeper SUPERUSER LOGIN").unwrap();
    }
    // Only where the statement comes from, and the other way round.
    let mut first = group.playground.connect(node(1), "postgres").unwrap();
    first.batch_execute("ALTER ROLE keeper SET app.shop = 'north'; ALTER ROLE keeper SET bytea_output = 'escape'").unwrap();
    let mut second = group.playground.connect(node(2), "postgres").unwrap();
    second.batch_execute("ALTER SYSTEM SET xmlbinary = 'hex'").unwrap();
    second.batch_execute("SELECT pg_reload_conf()").unwrap();
    wait::until("the new configuration", Duration::from_secs(20), || {
        let mut client = group.connect(node(2));
        let value: String = client.query_one("SHOW xmlbinary", &[]).map_err(|error| error.to_string())?.get(0);
        if value == "hex" { Ok(()) } else { Err(value) }
    });

    let mut client = connect_as(&group, "keeper");
    let user: String = client.query_one("SELECT session_user::text", &[]).unwrap().get(0);
    assert_eq!(user, "keeper");
    for statement in [
        "CREATE TABLE shelf (id int PRIMARY KEY, body bytea)",
        "INSERT INTO shelf VALUES (1, '\\x00ff41')",
        "ALTER TABLE shelf ADD COLUMN shop text DEFAULT current_setting('app.shop')",
        "ALTER TABLE shelf ADD COLUMN picture xml",
        "UPDATE shelf SET picture = '<a/>'",
        "ALTER TABLE shelf ALTER COLUMN picture TYPE xml USING xmlelement(name a, '\\xff'::bytea)",
        "ALTER TABLE shelf ALTER COLUMN body TYPE text",
    ] {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    let rows = everywhere(&group, "SELECT string_agg(s::text, ' ') FROM shelf s");
    assert_eq!(rows, r#"(1,"\\000\\377A",north,<a>/w==</a>)"#);
    harness::assert_equal(&group);
    second.batch_execute("ALTER SYSTEM RESET xmlbinary").unwrap();
    second.batch_execute("SELECT pg_reload_conf()").unwrap();
}

/// Each of these gives another text or value under another setting.
#[test]
fn what_a_rewrite_writes_is_what_the_origin_wrote() {
    let group = harness::shared();
    let cases = [
        ("bytea_output = 'escape'", "bytea", r"'\x0041ff'", "TYPE text", r"\000A\377"),
        ("extra_float_digits = 0", "float8", "0.1 + 0.2::float8", "TYPE text", "0.3"),
        ("extra_float_digits = -3", "float4", "1.2345678", "TYPE text USING c::text", "1.23"),
        ("DateStyle = 'German'", "date", "'2020-12-31'", "TYPE text", "31.12.2020"),
        ("IntervalStyle = 'sql_standard'", "interval", "'1 day 2 hours'", "TYPE text", "1 2:00:00"),
        ("TimeZone = 'Asia/Tokyo'", "timestamptz", "'2020-01-01 00:00:00+00'", "TYPE text", "2020-01-01 09:00:00+09"),
        ("xmlbinary = 'hex'", "bytea", r"'\xff'", "TYPE text USING xmlelement(name a, c)::text", "<a>FF</a>"),
        ("quote_all_identifiers = on", "regclass", "'harness.marker'", "TYPE text", "\"harness\".\"marker\""),
        (
            "timezone_abbreviations = 'Australia'",
            "text",
            "'2020-01-01 12:00 EST'",
            "TYPE timestamptz USING c::timestamptz AT TIME ZONE 'UTC'",
            "",
        ),
        ("transform_null_equals = on", "text", "NULL", "TYPE text USING CASE WHEN c = NULL THEN 'null' END", "null"),
        ("standard_conforming_strings = off", "text", "'x'", r"TYPE text USING c || 'a\tb'", "xa\tb"),
        (
            "default_text_search_config = 'pg_catalog.english'",
            "text",
            "'running'",
            "TYPE text USING to_tsvector(c)::text",
            "'run':1",
        ),
        ("app.suffix = '!'", "text", "'x'", "TYPE text USING c || current_setting('app.suffix')", "x!"),
    ];
    for (index, (setting, from, value, to, expected)) in cases.into_iter().enumerate() {
        let table = format!("written{index}");
        run(
            &group,
            &[
                &format!("CREATE TABLE {table} (id int PRIMARY KEY, c {from})"),
                &format!("INSERT INTO {table} VALUES (1, {value})"),
                &format!("SET {setting}"),
                &format!("ALTER TABLE {table} ALTER COLUMN c {to}"),
            ],
        );
        let written = everywhere(&group, &format!("SELECT c FROM {table}"));
        assert!(expected.is_empty() || written == expected, "{setting}: {written}");
    }
    harness::assert_equal(&group);
}

#[test]
fn a_functions_settings_are_taken_from_the_origins_session() {
    let group = harness::shared();
    run(
        &group,
        &[
            "SET work_mem = '7MB'",
            "SET search_path = harness, public",
            "SET app.tenant = '9'",
            "CREATE FUNCTION public.saved() RETURNS text LANGUAGE sql SET work_mem FROM CURRENT SET search_path FROM CURRENT \
         SET app.tenant FROM CURRENT AS $$SELECT current_setting('work_mem') || current_setting('app.tenant')$$",
            "CREATE FUNCTION public.altered() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "SET enable_seqscan = off",
            "ALTER FUNCTION public.altered() SET enable_seqscan FROM CURRENT",
            "SET maintenance_work_mem = '3MB'",
            "CREATE PROCEDURE public.kept() LANGUAGE sql SET maintenance_work_mem FROM CURRENT AS 'SELECT 1'",
        ],
    );
    let settings = "SELECT string_agg(proname || ' ' || array_to_string(proconfig, ' '), '; ' ORDER BY proname) FROM pg_proc \
                    WHERE proname IN ('saved', 'altered', 'kept')";
    assert_eq!(
        everywhere(&group, settings),
        "altered enable_seqscan=off; kept maintenance_work_mem=3MB; saved work_mem=7MB search_path=harness, public app.tenant=9"
    );
    assert_eq!(everywhere(&group, "SELECT public.saved()"), "7MB9");

    // What each node has for itself, nobody may take from a session.
    let mut client = group.connect(node(1));
    for setting in
        ["lock_timeout", "Statement_Timeout", "synchronous_commit", "session_replication_role", "log_statement", "role"]
    {
        let function = "LANGUAGE sql AS 'SELECT 1'";
        let message =
            refused(&mut client, &format!("CREATE FUNCTION own() RETURNS int SET {setting} FROM CURRENT {function}"));
        assert!(message.contains("FROM CURRENT"), "{message}");
        refused(&mut client, &format!("ALTER FUNCTION public.altered() SET {setting} FROM CURRENT"));
    }
    client.batch_execute("CREATE FUNCTION own() RETURNS int SET lock_timeout TO '1s' LANGUAGE sql AS 'SELECT 1'").unwrap();
    assert_eq!(everywhere(&group, "SELECT proconfig[1] FROM pg_proc WHERE proname = 'own'"), "lock_timeout=1s");
}

/// A name that anybody may make up while no library has it, and that is a superuser's setting of the library once it is loaded.
#[test]
fn an_ordinary_session_sets_nothing_elsewhere_that_it_may_not_set_here() {
    let group = harness::shared();
    for number in group.numbers() {
        group.playground.connect(number, "postgres").unwrap().batch_execute("CREATE ROLE climber LOGIN").unwrap();
    }
    run(
        &group,
        &[
            "CREATE FUNCTION public.mode_of(int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS \
         $$BEGIN RETURN current_setting('plpgsql.variable_conflict'); END$$",
            "CREATE TABLE modes (id int PRIMARY KEY, mode int)",
            "INSERT INTO modes VALUES (1, 1)",
            "GRANT ALL ON SCHEMA public TO climber",
            "ALTER TABLE modes OWNER TO climber",
        ],
    );
    let mut client = connect_as(&group, "climber");
    client.batch_execute("SET plpgsql.variable_conflict = 'use_column'").unwrap();
    client.batch_execute("ALTER TABLE modes ALTER COLUMN mode TYPE text USING public.mode_of(mode)").unwrap();
    assert_eq!(everywhere(&group, "SELECT mode FROM modes"), "error");
    harness::assert_equal(&group);
}

/// No setting that an ordinary session may have keeps another node from applying, or stays there.
#[test]
fn no_setting_of_a_session_takes_a_node_out_of_service() {
    let group = harness::shared();
    let names = "SELECT string_agg(DISTINCT backend_type || ' ' || application_name, ',') FROM pg_stat_activity \
                 WHERE backend_type LIKE 'postgres_r%'";
    let before = group.value(node(2), names);
    assert_ne!(before, "NULL");
    // Remote backends have the language loaded, and know its settings; a new session has not.
    for round in 0..8 {
        let body = "LANGUAGE plpgsql AS $$BEGIN RETURN 1; END$$";
        run(&group, &[&format!("CREATE FUNCTION public.load{round}() RETURNS int {body}"), "SELECT 1"]);
    }
    run(
        &group,
        &[
            "SET plpgsql.bogus = 'x'",
            "SET plpgsql.variable_conflict = 'nonsense'",
            "SET lock_timeout = '1ms'",
            "SET statement_timeout = '100s'",
            "SET deadlock_timeout = '600s'",
            "SET session_replication_role = replica",
            "SET synchronous_commit = on",
            "SET default_transaction_read_only = off",
            "SET default_transaction_isolation = 'serializable'",
            "SET temp_buffers = '1MB'",
            "SET client_encoding = 'LATIN1'",
            "SET client_min_messages = 'error'",
            "SET row_security = on",
            "SET application_name = 'survivor'",
            "SET log_min_messages = 'panic'",
            "SET backtrace_functions = 'nobody'",
            "CREATE TABLE survives (id int PRIMARY KEY, t text DEFAULT 'd')",
            "INSERT INTO survives VALUES (1)",
            "ALTER TABLE survives ADD COLUMN more int DEFAULT 3",
            "TRUNCATE survives",
            "INSERT INTO survives VALUES (2)",
        ],
    );
    assert_eq!(everywhere(&group, "SELECT string_agg(s::text, ' ') FROM survives s"), "(2,d,3)");
    harness::assert_equal(&group);
    for number in group.numbers() {
        group.execute(number, &format!("INSERT INTO survives VALUES ({})", 10 + number.0));
    }
    assert_eq!(everywhere(&group, "SELECT count(*) FROM survives"), "4");
    assert_eq!(group.value(node(2), names), before);
}

/// Who the session is, which role it has taken, and whose function the statement runs in, are three things that a statement may name.
#[test]
fn a_statement_runs_elsewhere_for_the_same_session_and_role() {
    let group = harness::shared();
    for number in group.numbers() {
        let mut client = group.playground.connect(number, "postgres").unwrap();
        client
            .batch_execute("CREATE ROLE teller LOGIN; CREATE ROLE vault; GRANT vault TO teller; CREATE ROLE auditor LOGIN")
            .unwrap();
    }
    run(
        &group,
        &[
            "GRANT ALL ON SCHEMA public TO teller, vault, auditor",
            "CREATE TABLE who (id int PRIMARY KEY)",
            "INSERT INTO who VALUES (1)",
            "CREATE FUNCTION add_who(name text) RETURNS void SECURITY DEFINER SET search_path = public LANGUAGE plpgsql AS $$
                 BEGIN
                     EXECUTE format('ALTER TABLE who ADD COLUMN %I text DEFAULT concat_ws('' '', session_user, current_user,
                         current_setting(''role''), current_setting(''session_authorization''), current_setting(''is_superuser''))', name);
                     EXECUTE format('GRANT SELECT (%I) ON who TO SESSION_USER', name);
                     EXECUTE format('CREATE POLICY %I ON who TO SESSION_USER, CURRENT_USER USING (true)', name);
                     EXECUTE format('CREATE TABLE of_%s (id int PRIMARY KEY); ALTER TABLE of_%1$s OWNER TO SESSION_USER', name);
                     EXECUTE 'ALTER DEFAULT PRIVILEGES FOR ROLE SESSION_USER GRANT INSERT ON TABLES TO auditor';
                 END $$",
        ],
    );
    group.settle();
    let mut client = connect_as(&group, "teller");
    for statement in [
        "SELECT add_who('plain')",
        "SET ROLE vault",
        "SELECT add_who('taken')",
        "CREATE TABLE of_vault (id int PRIMARY KEY)",
        "CREATE POLICY mine ON of_vault TO SESSION_USER, CURRENT_USER USING (true)",
        "COMMENT ON TABLE of_vault IS 'the vault''s'",
        "RESET ROLE",
        "CREATE TABLE of_teller (id int PRIMARY KEY)",
    ] {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    let mut client = group.connect(node(1));
    for statement in [
        "SET SESSION AUTHORIZATION auditor",
        "SELECT add_who('authorized')",
        "CREATE TABLE of_auditor (id int PRIMARY KEY)",
        "RESET SESSION AUTHORIZATION",
        "CREATE SCHEMA AUTHORIZATION SESSION_USER",
        "BEGIN; SET LOCAL SESSION AUTHORIZATION teller; SET LOCAL ROLE vault; SELECT add_who('local'); COMMIT",
        "SELECT add_who('back')",
    ] {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    let rows = everywhere(&group, "SELECT concat_ws(', ', plain, taken, authorized, \"local\", back) FROM who");
    assert_eq!(
        rows,
        "teller postgres none teller off, teller postgres vault teller off, auditor postgres none auditor off, \
         teller postgres vault teller off, postgres postgres none postgres on"
    );
    harness::assert_equal(&group);
    schema::assert_same(&group);
    let owners = "SELECT string_agg(relname || ' ' || relowner::regrole, ', ' ORDER BY relname) FROM pg_class \
                  WHERE relname ~ '^of_' AND relkind = 'r'";
    let of_teller = "of_auditor auditor, of_authorized auditor, of_back postgres, of_local teller, of_plain teller, of_taken teller, \
                     of_teller teller, of_vault vault";
    assert_eq!(everywhere(&group, owners), of_teller);
    // What applies statements is itself again.
    run(&group, &["CREATE TABLE after_all (who text DEFAULT session_user)", "DROP SCHEMA postgres CASCADE"]);
    schema::assert_same(&group);
}

/// The function's role may do what the session's may not, and the other way round.
#[test]
fn a_statement_has_the_rights_of_the_role_that_ran_it() {
    let group = harness::shared();
    for number in group.numbers() {
        let mut client = group.playground.connect(number, "postgres").unwrap();
        client.batch_execute("CREATE ROLE guest LOGIN; CREATE ROLE landlord").unwrap();
    }
    run(
        &group,
        &[
            "CREATE SCHEMA house AUTHORIZATION landlord",
            "GRANT USAGE ON SCHEMA house TO guest",
            "SET ROLE landlord",
            "CREATE FUNCTION house.furnish(name text) RETURNS void SECURITY DEFINER LANGUAGE plpgsql AS $$
                 BEGIN
                     EXECUTE format('CREATE TABLE house.%I (id int PRIMARY KEY, by text DEFAULT session_user)', name);
                     EXECUTE format('INSERT INTO house.%I VALUES (1)', name);
                     EXECUTE format('ALTER TABLE house.%I ADD COLUMN since text DEFAULT current_user', name);
                     EXECUTE format('TRUNCATE house.%I', name);
                     EXECUTE format('INSERT INTO house.%I VALUES (2)', name);
                 END $$",
        ],
    );
    group.settle();
    let mut client = connect_as(&group, "guest");
    client.batch_execute("SELECT house.furnish('chair'); DO $$BEGIN PERFORM house.furnish('table'); END$$").unwrap();
    let error = client.batch_execute("CREATE TABLE house.bed (id int)").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42501");
    assert_eq!(everywhere(&group, "SELECT string_agg(c::text, ' ') FROM house.chair c"), "(2,guest,landlord)");
    harness::assert_equal(&group);
    schema::assert_same(&group);
    run(&group, &["DROP SCHEMA house CASCADE"]);
}

/// Limits that an operator gives the clients of a server.
#[test]
fn no_limit_of_time_ends_what_is_applied() {
    let group = Group::start();
    run(
        &group,
        &[
            "CREATE TABLE slowly (id int PRIMARY KEY)",
            "INSERT INTO slowly SELECT generate_series(1, 4)",
            "CREATE FUNCTION slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.4); RETURN $1; END $$",
        ],
    );
    group.settle();
    let mut server = group.playground.connect(node(2), "postgres").unwrap();
    let query =
        "SELECT name FROM pg_settings WHERE name ~ '^(statement|transaction|lock|idle_in_transaction_session)_timeout$'";
    let names: Vec<String> = server.query(query, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(names.len(), if group.major() >= 17 { 4 } else { 3 }, "{names:?}");
    for name in &names {
        server.batch_execute(&format!("ALTER SYSTEM SET {name} = '800ms'")).unwrap();
    }
    // Those that run, and those that are started with it.
    server.batch_execute("SELECT pg_reload_conf()").unwrap();
    run(&group, &["CREATE INDEX reloaded ON slowly (slow(id))"]);
    group.playground.cluster(node(2)).stop().unwrap();
    group.start_node(node(2));
    run(&group, &["CREATE INDEX restarted ON slowly (slow(id))"]);
    let there = "SELECT count(*) FROM pg_indexes WHERE indexname IN ('reloaded', 'restarted')";
    wait::until("both indexes are on node 2", Duration::from_secs(60), || {
        let mut client = group.try_connect(node(2)).map_err(|error| error.to_string())?;
        let count: i64 = client.query_one(there, &[]).map_err(|error| error.to_string())?.get(0);
        if count == 2 { Ok(()) } else { Err(count.to_string()) }
    });
    let mut server = group.playground.connect(node(2), "postgres").unwrap();
    for name in &names {
        server.batch_execute(&format!("ALTER SYSTEM RESET {name}")).unwrap();
    }
    server.batch_execute("SELECT pg_reload_conf()").unwrap();
    harness::assert_equal(&group);
}

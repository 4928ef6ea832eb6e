//! Transactions that write to the group and to a foreign server: the wrapper commits on its server first, and what it cannot commit there is not
//! committed in the group. The foreign server is the node itself, so that what is written there is in the same order.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use gcs::playground::group::describe;
use postgres::Client;
use postgres_r_tests::harness::{self, Group, everywhere, node, step};

/// A server that leads from node 1 to node 1, and a table that is there under another name.
fn make_server(group: &Group, name: &str) {
    let (port, database) = (group.value(node(1), "SELECT current_setting('port')"), group.database().to_owned());
    group.execute(
        node(1),
        &format!(
            "CREATE EXTENSION IF NOT EXISTS postgres_fdw;
             CREATE SERVER {name} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{port}', dbname '{database}');
             CREATE USER MAPPING FOR CURRENT_USER SERVER {name} OPTIONS (user 'postgres')"
        ),
    );
}

/// Alone in its message, as drivers send it, and by the simple protocol.
fn send(client: &mut Client, statement: &str, simple: bool) {
    let sent = if simple { client.batch_execute(statement) } else { client.execute(statement, &[]).map(|_| ()) };
    sent.unwrap_or_else(|error| panic!("{statement}: {}", describe(&error)));
}

#[test]
fn a_statement_that_also_writes_through_a_wrapper_to_its_own_node_commits() {
    let group = harness::shared();
    make_server(&group, "mirror");
    group.execute(
        node(1),
        "CREATE TABLE there (id int, t text); CREATE FOREIGN TABLE away (id int, t text) SERVER mirror OPTIONS (table_name 'there');
         CREATE TABLE part (id int, t text) PARTITION BY LIST (id); CREATE TABLE part_here PARTITION OF part FOR VALUES IN (1, 2, 3);
         CREATE TABLE part_there (id int, t text);
         CREATE FOREIGN TABLE part_away PARTITION OF part FOR VALUES IN (4, 5, 6) SERVER mirror OPTIONS (table_name 'part_there');
         CREATE TABLE log (id int, t text); CREATE TABLE doubled (id int PRIMARY KEY, t text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (NEW.id, NEW.t); RETURN NEW; END $$;
         CREATE TABLE emptied (id int); CREATE FOREIGN TABLE emptied_away (id int) SERVER mirror OPTIONS (table_name 'emptied');
         INSERT INTO emptied VALUES (1);
         CREATE FUNCTION empty() RETURNS int LANGUAGE plpgsql AS $$ BEGIN TRUNCATE emptied_away; RETURN 1; END $$;
         CREATE TRIGGER noted AFTER INSERT ON away FOR EACH ROW EXECUTE FUNCTION note();
         CREATE FUNCTION forward() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO away VALUES (NEW.id, NEW.t); RETURN NEW; END $$;
         CREATE TRIGGER forwarded AFTER INSERT ON doubled FOR EACH ROW EXECUTE FUNCTION forward()",
    );
    let mut client = group.connect(node(1));
    for simple in [true, false] {
        // Partitions that are known when rows come to them; a trigger on this side; a trigger that writes there; parts of one statement; reading there.
        for statement in [
            "INSERT INTO part SELECT n, 'p' FROM generate_series(1, 6) n",
            "UPDATE part SET id = 4 WHERE id = 2",
            "INSERT INTO away VALUES (1, 'a')",
            "INSERT INTO doubled SELECT coalesce(max(id), 0) + 1, 'd' FROM doubled",
            "WITH w AS (INSERT INTO away VALUES (3, 'w') RETURNING id) INSERT INTO log SELECT id, 'w' FROM w",
            "INSERT INTO log SELECT id, 'read' FROM away WHERE t = 'a'",
            "WITH e AS (SELECT empty()) INSERT INTO log SELECT 0, 'e' FROM e WHERE e IS NOT NULL",
        ] {
            send(&mut client, statement, simple);
        }
    }
    group.settle();
    let counts = "SELECT concat_ws(' ', (SELECT count(*) FROM part_here), (SELECT count(*) FROM part_there), (SELECT count(*) FROM there),
            (SELECT count(*) FROM doubled), (SELECT count(*) FROM emptied), (SELECT string_agg(t, ',' ORDER BY t) FROM log))";
    assert_eq!(everywhere(&group, counts), "4 8 6 2 0 a,a,d,d,e,e,read,read,read,w,w,w,w");
    step(
        &group,
        1,
        "DROP TABLE part, doubled; DROP SERVER mirror CASCADE; DROP TABLE there, part_there, log, emptied; DROP FUNCTION note, forward, empty",
    );
    harness::assert_equal(&group);
}

#[test]
fn what_the_foreign_server_cannot_commit_is_not_committed_in_the_group() {
    let group = harness::shared();
    make_server(&group, "strict");
    group.execute(
        node(1),
        "CREATE TABLE checked (id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
         CREATE FOREIGN TABLE checked_away (id int) SERVER strict OPTIONS (table_name 'checked');
         CREATE TABLE beside (id int)",
    );
    let mut client = group.connect(node(1));
    let statement = "WITH w AS (INSERT INTO checked_away VALUES (1) RETURNING id) INSERT INTO beside SELECT id FROM w";
    send(&mut client, statement, true);
    for _ in 0..2 {
        let error = client.batch_execute(statement).expect_err(statement);
        assert_eq!(error.code().map(postgres::error::SqlState::code), Some("23505"), "{}", describe(&error));
    }
    send(&mut client, "INSERT INTO beside VALUES (2)", true);
    group.settle();
    assert_eq!(everywhere(&group, "SELECT string_agg(id::text, ',' ORDER BY id) FROM beside"), "1,2");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM checked"), "1");
    step(&group, 1, "DROP SERVER strict CASCADE; DROP TABLE checked, beside");
    harness::assert_equal(&group);
}

/// What is said where rows would be lost, or be changed on every node.
fn code(client: &mut Client, statement: &str) -> String {
    let error = client.batch_execute(statement).expect_err(statement);
    let _ = client.batch_execute("ROLLBACK");
    error.code().map(|code| code.code().to_owned()).unwrap_or_default()
}

#[test]
fn truncate_of_foreign_tables_and_others_empties_each_once() {
    let group = harness::shared();
    make_server(&group, "emptied");
    group.execute(
        node(1),
        "CREATE TABLE kept (id int); CREATE TABLE \"Base\" (id int PRIMARY KEY); CREATE TABLE refers (id int REFERENCES \"Base\");
         CREATE FOREIGN TABLE below () INHERITS (\"Base\") SERVER emptied OPTIONS (table_name 'kept');
         CREATE TABLE parts (id int) PARTITION BY LIST (id); CREATE TABLE parts_here PARTITION OF parts FOR VALUES IN (1);
         CREATE TABLE parts_there (id int);
         CREATE FOREIGN TABLE parts_away PARTITION OF parts FOR VALUES IN (2) SERVER emptied OPTIONS (table_name 'parts_there');
         CREATE TABLE only_away (id int) PARTITION BY LIST (id);
         CREATE FOREIGN TABLE only_away_1 PARTITION OF only_away FOR VALUES IN (1) SERVER emptied OPTIONS (table_name 'kept');
         CREATE TEMPORARY TABLE mine (id int); CREATE TABLE numbered (id serial)",
    );
    let fill = "INSERT INTO kept VALUES (1); INSERT INTO \"Base\" VALUES (1); INSERT INTO refers VALUES (1); INSERT INTO parts VALUES (1); INSERT INTO parts VALUES (2)";
    let counts = "SELECT concat_ws(' ', (SELECT count(*) FROM kept), (SELECT count(*) FROM ONLY \"Base\"), (SELECT count(*) FROM refers),
            (SELECT count(*) FROM parts_here), (SELECT count(*) FROM parts_there))";
    step(&group, 1, fill);
    for (statement, left) in [
        ("TRUNCATE ONLY \"Base\" CASCADE", "1 0 0 1 1"),
        ("TRUNCATE parts", "1 0 0 0 0"),
        ("INSERT INTO \"Base\" VALUES (1); INSERT INTO refers VALUES (1)", "1 1 1 0 0"),
        ("TRUNCATE \"Base\" CASCADE", "0 0 0 0 0"),
        ("INSERT INTO kept VALUES (1); INSERT INTO parts VALUES (1)", "1 0 0 1 0"),
        ("TRUNCATE only_away", "0 0 0 1 0"),
        ("INSERT INTO kept VALUES (1)", "1 0 0 1 0"),
        ("BEGIN; SAVEPOINT s; TRUNCATE \"Base\", parts CASCADE; ROLLBACK TO s; COMMIT", "1 0 0 1 0"),
        ("TRUNCATE only_away, parts", "0 0 0 0 0"),
    ] {
        step(&group, 1, statement);
        assert_eq!(everywhere(&group, counts), left, "{statement}");
    }
    let mut client = group.connect(node(1));
    assert_eq!(code(&mut client, "TRUNCATE parts, numbered RESTART IDENTITY"), "0A000");
    assert_eq!(code(&mut client, "CREATE TEMPORARY TABLE mine (id int); TRUNCATE parts, mine"), "0A000");
    step(
        &group,
        1,
        "DROP SERVER emptied CASCADE; DROP TABLE kept, refers, \"Base\", parts, parts_there, only_away, numbered",
    );
    harness::assert_equal(&group);
}

#[test]
fn what_is_not_of_the_group_is_not_prepared_however_rows_came_there() {
    let group = harness::shared();
    make_server(&group, "unprepared");
    for number in group.numbers() {
        group.execute(number, "ALTER SYSTEM SET max_prepared_transactions = 5");
        group.kill(number, gcs::playground::group::Part::Postgres);
        group.start_node(number);
    }
    group.settle();
    group.execute(
        node(1),
        "CREATE EXTENSION IF NOT EXISTS file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
         CREATE FOREIGN TABLE none (t text) SERVER files OPTIONS (filename '/dev/null');
         CREATE TABLE plain (id int); CREATE FOREIGN TABLE far (id int) SERVER unprepared OPTIONS (table_name 'plain');
         CREATE TABLE split (id int) PARTITION BY LIST (id); CREATE UNLOGGED TABLE split_1 PARTITION OF split FOR VALUES IN (1);
         CREATE TABLE split_2 PARTITION OF split FOR VALUES IN (2);
         CREATE FOREIGN TABLE split_3 PARTITION OF split FOR VALUES IN (3) SERVER unprepared OPTIONS (table_name 'plain')",
    );
    let mut client = group.connect(node(1));
    for statement in [
        "SELECT count(*) FROM far",
        "INSERT INTO far VALUES (1)",
        "INSERT INTO split VALUES (1)",
        "INSERT INTO split VALUES (3)",
        "INSERT INTO split VALUES (2); UPDATE split SET id = 1 WHERE id = 2",
        "COPY split FROM '/dev/null'",
        "TRUNCATE far",
        "TRUNCATE split_1",
    ] {
        assert_eq!(code(&mut client, &format!("BEGIN; {statement}; PREPARE TRANSACTION 'p'")), "0A000", "{statement}");
    }
    let allowed = "BEGIN; SELECT count(*) FROM none; INSERT INTO split_2 VALUES (2); PREPARE TRANSACTION 'p'";
    client.batch_execute(allowed).unwrap_or_else(|error| panic!("{}", describe(&error)));
    step(&group, 2, "COMMIT PREPARED 'p'");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM split_2"), "1");
    step(&group, 1, "DROP SERVER unprepared CASCADE; DROP SERVER files CASCADE; DROP TABLE plain, split");
    harness::assert_equal(&group);
}

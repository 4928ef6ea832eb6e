//! Every shape of transaction means on all nodes what it means on one: savepoints, exception blocks, procedures that commit, cursors
//! that outlive their transaction, what is deferred to the commit, and what the commit itself does.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use gcs::playground::group::describe;
use postgres::Client;
use postgres_r_tests::harness::{self, Group, node};

fn prepare(group: &Group, sql: &str) {
    group.execute(node(1), sql);
    group.settle();
}

fn run(client: &mut Client, sql: &str) {
    client.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {}", describe(&error)));
}

fn fail(client: &mut Client, sql: &str, code: &str) {
    let error = client.batch_execute(sql).expect_err("it must fail");
    assert_eq!(error.code().map(|code| code.code()), Some(code), "{}", describe(&error));
}

/// The same on all nodes, and this.
fn assert_everywhere(group: &Group, query: &str, expected: &str) {
    group.settle();
    assert_eq!(group.values(query), [expected; 3], "{query}");
    harness::assert_equal(group);
}

#[test]
fn what_a_savepoint_rolled_back_is_nowhere_and_disturbs_nobody() {
    let group = harness::shared();
    prepare(
        &group,
        "CREATE TABLE saved (id int PRIMARY KEY, x int); INSERT INTO saved SELECT n, 0 FROM generate_series(1, 9) n",
    );
    let mut client = group.connect(node(1));
    run(
        &mut client,
        "BEGIN; UPDATE saved SET x = 1 WHERE id = 1;
         SAVEPOINT a; UPDATE saved SET x = 1 WHERE id = 2; SAVEPOINT b; DELETE FROM saved WHERE id = 3; RELEASE b;
         INSERT INTO saved VALUES (10, 1); ROLLBACK TO a;
         UPDATE saved SET x = 1 WHERE id = 4; SAVEPOINT a; INSERT INTO saved VALUES (11, 1); RELEASE a;
         SAVEPOINT c; TRUNCATE saved; CREATE TABLE never (id int); ROLLBACK TO c",
    );
    // Rows and values that the savepoint gave back are another node's to change.
    group.execute(node(2), "UPDATE saved SET x = 2 WHERE id IN (2, 3); INSERT INTO saved VALUES (10, 2)");
    run(&mut client, "COMMIT");
    assert_everywhere(
        &group,
        "SELECT string_agg(id || '=' || x, ' ' ORDER BY id) FROM saved",
        "1=1 2=2 3=2 4=1 5=0 6=0 7=0 8=0 9=0 10=2 11=1",
    );
    assert_eq!(group.values("SELECT to_regclass('never')"), ["NULL"; 3]);
}

#[test]
fn an_exception_block_keeps_what_was_before_and_after_the_error() {
    let group = harness::shared();
    prepare(&group, "CREATE TABLE caught (id int PRIMARY KEY, x text)");
    let mut client = group.connect(node(2));
    run(
        &mut client,
        "DO $$ BEGIN
             INSERT INTO caught VALUES (1, 'before');
             FOR i IN 1..3 LOOP
                 BEGIN
                     INSERT INTO caught VALUES (10 + i, 'inside');
                     INSERT INTO caught VALUES (i, 'inside');
                 EXCEPTION WHEN unique_violation THEN
                     UPDATE caught SET x = x || ' handled' WHERE id = i;
                 END;
             END LOOP;
             INSERT INTO caught VALUES (4, 'after');
         END $$",
    );
    assert_everywhere(
        &group,
        "SELECT string_agg(id || '=' || x, ', ' ORDER BY id) FROM caught",
        "1=before handled, 2=inside, 3=inside, 4=after, 12=inside, 13=inside",
    );
}

#[test]
fn each_transaction_of_a_procedure_is_one_of_the_group() {
    let group = harness::shared();
    prepare(
        &group,
        "CREATE TABLE stepped (id int PRIMARY KEY, x int);
         CREATE PROCEDURE step(last int) LANGUAGE plpgsql AS $$ BEGIN
             FOR i IN 1..last LOOP
                 INSERT INTO stepped VALUES (i, 0);
                 IF i % 3 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
             END LOOP;
             INSERT INTO stepped VALUES (100, 0);
         END $$",
    );
    let mut client = group.connect(node(3));
    let before: i64 = group.value(node(3), "postgres_r.committed_position()").parse().unwrap();
    run(&mut client, "CALL step(7)");
    let after: i64 = group.value(node(3), "postgres_r.committed_position()").parse().unwrap();
    assert_eq!(after - before, 6, "five commits inside, and the CALL itself");
    assert_everywhere(&group, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM stepped", "1 2 4 5 7 100");
    run(
        &mut client,
        "DO $$ BEGIN UPDATE stepped SET x = 1 WHERE id = 1; COMMIT; UPDATE stepped SET x = 1 WHERE id = 2; ROLLBACK; END $$",
    );
    assert_everywhere(&group, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM stepped WHERE x = 1", "1");
}

#[test]
fn a_loop_over_a_cursor_that_commits_goes_on_where_it_was() {
    let group = harness::shared();
    prepare(
        &group,
        "CREATE TABLE looped (id int PRIMARY KEY, x int); INSERT INTO looped SELECT n, 0 FROM generate_series(1, 5) n",
    );
    let mut client = group.connect(node(1));
    run(
        &mut client,
        "DO $$ DECLARE r record; BEGIN
             FOR r IN SELECT id FROM looped ORDER BY id LOOP UPDATE looped SET x = r.id WHERE id = r.id; COMMIT; END LOOP;
         END $$",
    );
    assert_everywhere(&group, "SELECT count(*) FROM looped WHERE x = id", "5");
}

#[test]
fn a_cursor_with_hold_shows_its_transaction_and_holds_up_nobody() {
    let group = harness::shared();
    prepare(
        &group,
        "CREATE TABLE held (id int PRIMARY KEY, x int); INSERT INTO held SELECT n, 0 FROM generate_series(1, 5) n",
    );
    let mut client = group.connect(node(2));
    run(
        &mut client,
        "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT x FROM held ORDER BY id; FETCH 1 FROM c;
         UPDATE held SET x = 1 WHERE id = 5; COMMIT",
    );
    group.execute(node(1), "UPDATE held SET x = 2");
    assert_everywhere(&group, "SELECT sum(x) FROM held", "10");
    let rest: Vec<i32> = client.query("FETCH ALL FROM c", &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(rest, [0, 0, 0, 0]);
    run(&mut client, "UPDATE held SET x = 3 WHERE id = 1; CLOSE c");
    assert_everywhere(&group, "SELECT sum(x) FROM held", "11");
}

#[test]
fn deferred_constraints_are_checked_at_commit_and_an_error_there_leaves_nothing() {
    let group = harness::shared();
    prepare(
        &group,
        "CREATE TABLE late_parent (id int PRIMARY KEY);
         CREATE TABLE late_child (id int PRIMARY KEY, parent int REFERENCES late_parent DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE swapped (id int PRIMARY KEY, place int UNIQUE DEFERRABLE INITIALLY DEFERRED);
         INSERT INTO swapped VALUES (1, 1), (2, 2)",
    );
    let mut client = group.connect(node(1));
    run(&mut client, "BEGIN; INSERT INTO late_child VALUES (1, 7); INSERT INTO late_parent VALUES (7); COMMIT");
    run(&mut client, "BEGIN; UPDATE swapped SET place = 2 WHERE id = 1; UPDATE swapped SET place = 1 WHERE id = 2; COMMIT");
    fail(&mut client, "BEGIN; INSERT INTO late_child VALUES (2, 8); COMMIT", "23503");
    fail(&mut client, "BEGIN; INSERT INTO swapped VALUES (3, 1); COMMIT", "23505");
    fail(&mut client, "BEGIN; INSERT INTO late_child VALUES (3, 9); SET CONSTRAINTS ALL IMMEDIATE", "23503");
    run(&mut client, "ROLLBACK");
    assert_everywhere(&group, "SELECT count(*) FROM late_child", "1");
    assert_everywhere(&group, "SELECT string_agg(id || '=' || place, ' ' ORDER BY id) FROM swapped", "1=2 2=1");
}

#[test]
fn what_deferred_triggers_do_at_commit_travels() {
    let group = harness::shared();
    prepare(
        &group,
        "CREATE TABLE deferring (id int PRIMARY KEY); CREATE TABLE deferred_log (n serial PRIMARY KEY, id int);
         CREATE FUNCTION note_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.id < 0 THEN RAISE 'negative'; END IF;
             INSERT INTO deferred_log (id) VALUES (NEW.id); RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER late AFTER INSERT ON deferring DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION note_late()",
    );
    let mut client = group.connect(node(2));
    run(
        &mut client,
        "BEGIN; INSERT INTO deferring VALUES (1); SAVEPOINT s; INSERT INTO deferring VALUES (2); ROLLBACK TO s; COMMIT",
    );
    run(&mut client, "INSERT INTO deferring VALUES (3)");
    fail(&mut client, "BEGIN; INSERT INTO deferring VALUES (4), (-1); COMMIT", "P0001");
    assert_everywhere(&group, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM deferred_log", "1 3");
    assert_everywhere(&group, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM deferring", "1 3");
}

#[test]
fn on_commit_actions_of_temporary_tables_are_the_sessions_own() {
    let group = harness::shared();
    prepare(&group, "CREATE TABLE lasting (id int PRIMARY KEY)");
    let mut client = group.connect(node(3));
    run(
        &mut client,
        "BEGIN; CREATE TEMP TABLE emptied (id int) ON COMMIT DELETE ROWS; CREATE TEMP TABLE dropped (id int) ON COMMIT DROP;
         INSERT INTO emptied VALUES (1), (2); INSERT INTO dropped VALUES (3);
         INSERT INTO lasting SELECT id FROM emptied UNION SELECT id FROM dropped; COMMIT",
    );
    let left = client.query_one("SELECT count(*), to_regclass('dropped') IS NULL FROM emptied", &[]).unwrap();
    assert_eq!((left.get::<_, i64>(0), left.get::<_, bool>(1)), (0, true));
    run(&mut client, "BEGIN; INSERT INTO emptied VALUES (4); INSERT INTO lasting SELECT id FROM emptied; COMMIT");
    assert_everywhere(&group, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM lasting", "1 2 3 4");
}

#[test]
fn a_transaction_chained_to_another_keeps_its_isolation_and_is_one_of_its_own() {
    let group = harness::shared();
    prepare(&group, "CREATE TABLE chained (id int PRIMARY KEY)");
    let mut client = group.connect(node(1));
    run(&mut client, "BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO chained VALUES (1); COMMIT AND CHAIN");
    let level: String = client.query_one("SHOW transaction_isolation", &[]).unwrap().get(0);
    assert_eq!(level, "serializable");
    run(&mut client, "INSERT INTO chained VALUES (2); ROLLBACK AND CHAIN; INSERT INTO chained VALUES (3); COMMIT");
    assert_everywhere(&group, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM chained", "1 3");
}

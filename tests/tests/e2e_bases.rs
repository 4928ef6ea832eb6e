//! Base positions: what is applied on a node in the middle of one of its own transactions. A key that a lock guards counts from the
//! commit, so that nobody who only waited is aborted; a key that nothing guards counts from before its statement's snapshot.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use postgres::Client;
use postgres_r_tests::harness::{self, Group, node, race};
use postgres_r_tests::workload::client::{Failure, classify};

/// Ended for it while idle, its client may learn no more than that the session is over; nothing of it may be there.
fn assert_gave_way(outcome: Result<(), Failure>, context: &str) {
    assert!(matches!(outcome, Err(Failure::Retry | Failure::Unknown(_))), "{context}: {outcome:?}");
}

fn count(group: &Group, query: &str) {
    assert_eq!(group.values(query), ["0", "0", "0"], "{query}");
}

/// The remote backend inserts a child without locking its parent: only the base tells the deletion that it came too late.
#[test]
fn a_parent_deleted_while_its_first_child_comes_in_stays() {
    let group = harness::shared_without_table_locks();
    group.execute(
        node(1),
        "CREATE TABLE parent (id int PRIMARY KEY, a int UNIQUE, v int DEFAULT 0);
         INSERT INTO parent SELECT n, n FROM generate_series(1, 20) n;
         CREATE TABLE child (id serial PRIMARY KEY, parent bigint REFERENCES parent ON UPDATE CASCADE);
         CREATE TABLE late_child (id serial PRIMARY KEY, parent int REFERENCES parent (a) DEFERRABLE INITIALLY DEFERRED)",
    );
    for (open, first) in [
        ("DELETE FROM parent WHERE id = 1", "INSERT INTO child (parent) VALUES (1)"),
        ("UPDATE parent SET id = 102 WHERE id = 2", "INSERT INTO child (parent) VALUES (2)"),
        (
            "WITH gone AS (DELETE FROM parent WHERE id = 5 RETURNING id) SELECT * FROM gone",
            "INSERT INTO child (parent) VALUES (5)",
        ),
        ("DO $$ BEGIN DELETE FROM parent WHERE id = 6; END $$", "INSERT INTO child (parent) VALUES (6)"),
        ("PREPARE gone AS DELETE FROM parent WHERE id = $1; EXECUTE gone (7)", "INSERT INTO child (parent) VALUES (7)"),
        ("SAVEPOINT s; DELETE FROM parent WHERE id = 8; RELEASE s; SELECT 1", "INSERT INTO child (parent) VALUES (8)"),
    ] {
        let outcome = race::while_open(&group, (node(2), open), (node(1), first));
        assert_eq!(outcome, Err(Failure::Retry), "{open} / {first}");
    }
    // Checked at the end, where it sees the child: PostgreSQL's own refusal.
    for (open, first) in [
        ("DELETE FROM parent WHERE id = 3", "INSERT INTO late_child (parent) VALUES (3)"),
        ("UPDATE parent SET a = 104 WHERE id = 4", "INSERT INTO late_child (parent) VALUES (4)"),
    ] {
        let outcome = race::while_open(&group, (node(2), open), (node(1), first));
        let is_refused = matches!(&outcome, Err(Failure::Definite(text)) if text.contains("23503"));
        assert!(is_refused, "{open} / {first}: {outcome:?}");
    }
    harness::assert_equal(&group);
    count(&group, "SELECT count(*) FROM child c WHERE NOT EXISTS (SELECT FROM parent p WHERE p.id = c.parent)");
    count(&group, "SELECT count(*) FROM late_child c WHERE NOT EXISTS (SELECT FROM parent p WHERE p.a = c.parent)");
}

/// A child whose key can't be told in its parent's type is against every deletion, also one that is under way.
#[test]
fn a_child_of_a_type_that_does_not_cast_counts_against_deletions_under_way() {
    let group = harness::shared_without_table_locks();
    group.execute(
        node(1),
        "CREATE TABLE real_parent (id real PRIMARY KEY); INSERT INTO real_parent VALUES (1.5), (2.5);
         CREATE TABLE double_child (id serial PRIMARY KEY, parent float8 REFERENCES real_parent)",
    );
    let open = "DELETE FROM real_parent WHERE id = 1.5";
    let outcome = race::while_open(&group, (node(2), open), (node(1), "INSERT INTO double_child (parent) VALUES (1.5)"));
    assert_eq!(outcome, Err(Failure::Retry));
    harness::assert_equal(&group);
    count(&group, "SELECT count(*) FROM double_child c WHERE NOT EXISTS (SELECT FROM real_parent p WHERE p.id = c.parent)");
}

/// What counts from the statement's snapshot must not reach further: children that were there before are no reason to abort, nor is what
/// other statements of the transaction have seen.
#[test]
fn an_unguarded_key_counts_from_its_own_statement() {
    let group = harness::shared_without_table_locks();
    group.execute(
        node(1),
        "CREATE TABLE above (id int PRIMARY KEY); INSERT INTO above SELECT generate_series(1, 9);
         CREATE TABLE below (id int PRIMARY KEY, above int REFERENCES above ON DELETE CASCADE)",
    );
    group.settle();
    let mut client = group.connect(node(2));
    client.batch_execute("BEGIN; SELECT count(*) FROM below").unwrap();
    group.execute(node(1), "INSERT INTO below VALUES (1, 1)");
    group.settle();
    // Read committed: this statement sees the child, and takes it along.
    client.batch_execute("DELETE FROM above WHERE id = 1").unwrap();
    client.batch_execute("COMMIT").unwrap();
    harness::assert_equal(&group);
    count(&group, "SELECT count(*) FROM below");
    // A cached plan, run again and again in one session, takes its snapshot anew each time.
    let delete = client.prepare("DELETE FROM above WHERE id = $1").unwrap();
    for id in 2..=5i32 {
        group.execute(node(1), &format!("INSERT INTO below VALUES ({id}, {id})"));
        group.settle();
        client.execute(&delete, &[&id]).unwrap();
    }
    harness::assert_equal(&group);
    count(&group, "SELECT count(*) FROM below");
}

#[test]
fn a_deferrable_unique_value_is_taken_once_by_two_nodes() {
    let group = harness::shared_without_table_locks();
    group.execute(
        node(1),
        "CREATE TABLE later (id serial PRIMARY KEY, n int UNIQUE DEFERRABLE INITIALLY DEFERRED,
             m int UNIQUE DEFERRABLE INITIALLY IMMEDIATE);
         INSERT INTO later (n, m) SELECT n, n FROM generate_series(1, 9) n",
    );
    for (open, first) in [
        ("INSERT INTO later (n) VALUES (100)", "INSERT INTO later (n) VALUES (100)"),
        ("INSERT INTO later (m) VALUES (100)", "INSERT INTO later (m) VALUES (100)"),
        ("UPDATE later SET n = n + 200 WHERE n = 1", "INSERT INTO later (n) VALUES (201)"),
        ("INSERT INTO later (n) VALUES (202)", "UPDATE later SET n = n + 200 WHERE n = 2"),
    ] {
        assert_gave_way(race::while_open(&group, (node(2), open), (node(1), first)), open);
    }
    harness::assert_equal(&group);
    count(&group, "SELECT count(*) FROM (SELECT n FROM later GROUP BY n HAVING count(n) > 1) twice");
    count(&group, "SELECT count(*) FROM (SELECT m FROM later GROUP BY m HAVING count(m) > 1) twice");
}

#[test]
fn an_exclusion_constraint_holds_between_two_nodes() {
    let group = harness::shared_without_table_locks();
    for (table, kind) in [("stay", ""), ("late_stay", "DEFERRABLE INITIALLY DEFERRED")] {
        group.execute(
            node(1),
            &format!(
                "CREATE TABLE {table} (id serial PRIMARY KEY, during int4range, EXCLUDE USING gist (during WITH &&) {kind});
                 INSERT INTO {table} (during) VALUES ('[1,5)')"
            ),
        );
        let insert = |range: &str| format!("INSERT INTO {table} (during) VALUES ('{range}')");
        let outcome = race::while_open(&group, (node(2), &insert("[10,20)")), (node(1), &insert("[15,25)")));
        assert_gave_way(outcome, table);
        let outcome = race::after_unseen(&group, (node(1), &insert("[30,40)")), (node(2), &insert("[35,45)")));
        assert_eq!(outcome, Err(Failure::Retry), "{table}");
        harness::assert_equal(&group);
        count(&group, &format!("SELECT count(*) FROM {table} a JOIN {table} b ON a.id < b.id AND a.during && b.during"));
    }
}

/// Begins on node 2 with the row of the hot table that everybody wants.
fn holder(group: &Group) -> Client {
    let mut client = group.connect(node(2));
    client.batch_execute("BEGIN; UPDATE hot SET n = n + 1 WHERE id = 1").unwrap();
    client
}

/// The one who waited goes on with the version that its snapshot did not see. It has seen it all the same.
#[test]
fn an_update_that_waited_for_a_hot_row_is_not_aborted() {
    let group = harness::shared_without_table_locks();
    group.execute(
        node(1),
        "CREATE TABLE hot (id int PRIMARY KEY, n int, mail text UNIQUE); INSERT INTO hot VALUES (1, 0, 'a'), (2, 0, 'b');
         CREATE TABLE warm (id serial PRIMARY KEY, hot int REFERENCES hot)",
    );
    group.settle();
    for statement in [
        "UPDATE hot SET n = n + 1 WHERE id = 1",
        // Referenced by nobody: the row's lock guards the values that leave this index.
        "UPDATE hot SET n = n + 1, mail = mail || 'x' WHERE id = 1",
        "INSERT INTO hot VALUES (1, 0) ON CONFLICT (id) DO UPDATE SET n = hot.n + 1",
        "WITH mine AS (SELECT id FROM hot WHERE id = 1 FOR UPDATE) UPDATE hot SET n = n + 1 FROM mine WHERE hot.id = mine.id",
    ] {
        let mut first = holder(&group);
        first.batch_execute("UPDATE hot SET mail = mail || 'y' WHERE id = 1").unwrap();
        let mut waiter = group.connect(node(2));
        waiter.batch_execute("BEGIN; SELECT 1").unwrap();
        let outcome = race::while_blocked(&group, (node(2), &mut waiter), statement, || {
            first.batch_execute("COMMIT").unwrap();
        });
        assert_eq!(outcome, Ok(()), "{statement}");
        waiter.batch_execute("COMMIT").unwrap_or_else(|error| panic!("{statement}: {:?}", classify(&error)));
    }
    harness::assert_equal(&group);
    assert_eq!(group.values("SELECT n FROM hot WHERE id = 1"), ["8", "8", "8"]);
}

/// The winner came from another node and was applied while the statement was still looking: it finds the new version, and is not aborted.
#[test]
fn an_update_that_met_a_row_changed_by_another_node_under_way_is_not_aborted() {
    let group = harness::shared_without_table_locks();
    group.execute(
        node(1),
        "CREATE TABLE slow (id int PRIMARY KEY, n int); INSERT INTO slow SELECT n, 0 FROM generate_series(1, 3) n",
    );
    group.settle();
    let mut keeper = group.connect(node(2));
    keeper.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(1)").unwrap();
    let mut client = group.connect(node(2));
    client.batch_execute("BEGIN").unwrap();
    // Its snapshot is taken; then it waits for the advisory lock; then it looks for the row.
    let statement = "WITH wait AS MATERIALIZED (SELECT pg_advisory_xact_lock(1))
                     UPDATE slow SET n = n + 1 WHERE id = (SELECT 2 FROM wait)";
    let outcome = race::while_blocked(&group, (node(2), &mut client), statement, || {
        group.execute(node(1), "UPDATE slow SET n = n + 10 WHERE id = 2");
        group.settle();
        keeper.batch_execute("COMMIT").unwrap();
    });
    assert_eq!(outcome, Ok(()));
    client.batch_execute("COMMIT").unwrap();
    harness::assert_equal(&group);
    assert_eq!(group.values("SELECT n FROM slow WHERE id = 2"), ["11", "11", "11"]);
}

//! SELECT FOR UPDATE and its kin, and LOCK TABLE, on several nodes: in a transaction that also writes they hold in the group. Each
//! meeting is the one that no node's own locks can see: both lock on their own node, one commits and is applied on the other's, then
//! the other commits.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use gcs::playground::group::describe;
use postgres_r_tests::harness::{self, Group, node};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Loses,
}
use Verdict::{Fine, Loses};

const TABLES: &str = "
    CREATE TABLE {s}.parent (id int PRIMARY KEY, name text UNIQUE NOT NULL, x int);
    INSERT INTO {s}.parent SELECT n, 'name ' || n, 0 FROM generate_series(1, 3) n;
    CREATE TABLE {s}.child (id serial PRIMARY KEY, parent int REFERENCES {s}.parent ON DELETE CASCADE);
    CREATE TABLE {s}.named (id serial PRIMARY KEY, name text REFERENCES {s}.parent (name) ON DELETE CASCADE ON UPDATE CASCADE);
    CREATE TABLE {s}.alone (id int PRIMARY KEY, x int); INSERT INTO {s}.alone VALUES (1, 0), (2, 0);
    CREATE TABLE {s}.keyless (a int, b text); INSERT INTO {s}.keyless VALUES (1, 'one'), (2, 'two');
    CREATE TABLE {s}.parted (id int PRIMARY KEY, x int) PARTITION BY LIST (id);
    CREATE TABLE {s}.parted_1 PARTITION OF {s}.parted FOR VALUES IN (1);
    INSERT INTO {s}.parted VALUES (1, 0);
    CREATE VIEW {s}.shown AS SELECT * FROM {s}.alone;
    CREATE TABLE {s}.first_log (id serial PRIMARY KEY); CREATE TABLE {s}.second_log (id serial PRIMARY KEY);
";

const FOR_UPDATE: &str = "SELECT FROM parent WHERE id = 1 FOR UPDATE";
const FOR_NO_KEY_UPDATE: &str = "SELECT FROM parent WHERE id = 1 FOR NO KEY UPDATE";
const FOR_SHARE: &str = "SELECT FROM parent WHERE id = 1 FOR SHARE";
const FOR_KEY_SHARE: &str = "SELECT FROM parent WHERE id = 1 FOR KEY SHARE";
const UPDATE: &str = "UPDATE parent SET x = x + 1 WHERE id = 1";
const UPDATE_KEY: &str = "UPDATE parent SET name = name || '!' WHERE id = 1";
const DELETE: &str = "DELETE FROM parent WHERE id = 1";
const CHILD: &str = "INSERT INTO child (parent) VALUES (1)";
const NAMED: &str = "INSERT INTO named (name) SELECT name FROM parent WHERE id = 1";

/// As PostgreSQL's table of conflicting row-level locks has it.
const ROW_LOCKS: [(&str, &str, Verdict); 40] = [
    (FOR_UPDATE, FOR_UPDATE, Loses),
    (FOR_UPDATE, FOR_NO_KEY_UPDATE, Loses),
    (FOR_UPDATE, FOR_SHARE, Loses),
    (FOR_UPDATE, FOR_KEY_SHARE, Loses),
    (FOR_UPDATE, UPDATE, Loses),
    (FOR_UPDATE, UPDATE_KEY, Loses),
    (FOR_UPDATE, DELETE, Loses),
    (FOR_UPDATE, CHILD, Loses),
    (FOR_UPDATE, NAMED, Loses),
    (FOR_NO_KEY_UPDATE, FOR_NO_KEY_UPDATE, Loses),
    (FOR_NO_KEY_UPDATE, FOR_SHARE, Loses),
    (FOR_NO_KEY_UPDATE, FOR_KEY_SHARE, Fine),
    (FOR_NO_KEY_UPDATE, UPDATE, Loses),
    (FOR_NO_KEY_UPDATE, DELETE, Loses),
    (FOR_NO_KEY_UPDATE, CHILD, Fine),
    (FOR_NO_KEY_UPDATE, NAMED, Fine),
    (FOR_SHARE, FOR_SHARE, Fine),
    (FOR_SHARE, FOR_KEY_SHARE, Fine),
    (FOR_SHARE, UPDATE, Loses),
    (FOR_SHARE, DELETE, Loses),
    (FOR_SHARE, CHILD, Fine),
    (FOR_KEY_SHARE, FOR_KEY_SHARE, Fine),
    (FOR_KEY_SHARE, UPDATE, Fine),
    (FOR_KEY_SHARE, UPDATE_KEY, Loses),
    (FOR_KEY_SHARE, DELETE, Loses),
    (FOR_KEY_SHARE, CHILD, Fine),
    (UPDATE, FOR_KEY_SHARE, Fine),
    (CHILD, FOR_NO_KEY_UPDATE, Fine),
    (CHILD, UPDATE, Fine),
    // Another row, another table, a lock that was given back.
    ("SELECT FROM parent WHERE id = 2 FOR UPDATE", UPDATE, Fine),
    ("SELECT FROM parent p, alone a WHERE p.id = 1 AND a.id = 1 FOR UPDATE OF a", UPDATE, Fine),
    ("SAVEPOINT s; SELECT FROM parent WHERE id = 1 FOR UPDATE; ROLLBACK TO s", UPDATE, Fine),
    ("SAVEPOINT s; SELECT FROM parent WHERE id = 1 FOR UPDATE; RELEASE s", UPDATE, Loses),
    // Other ways to the same lock, and other tables.
    ("SELECT FROM parent p, alone a WHERE p.id = 1 AND a.id = 1 FOR SHARE", "UPDATE alone SET x = 1 WHERE id = 1", Loses),
    ("DO $$ BEGIN PERFORM FROM alone WHERE id = 1 FOR UPDATE; END $$", "UPDATE alone SET x = 2 WHERE id = 1", Loses),
    ("SELECT FROM shown WHERE id = 1 FOR UPDATE", "UPDATE alone SET x = 3 WHERE id = 1", Loses),
    ("WITH l AS (SELECT id FROM alone FOR UPDATE) SELECT FROM l", "UPDATE alone SET x = 4 WHERE id = 2", Loses),
    (
        "DECLARE c CURSOR FOR SELECT FROM alone ORDER BY id FOR UPDATE; FETCH 1 FROM c",
        "DELETE FROM alone WHERE id = 1",
        Loses,
    ),
    ("SELECT FROM parted WHERE id = 1 FOR UPDATE", "UPDATE parted SET x = 1 WHERE id = 1", Loses),
    ("SELECT FROM keyless WHERE a = 1 FOR UPDATE", "UPDATE keyless SET b = 'uno' WHERE a = 1", Loses),
];

#[test]
fn a_row_lock_holds_on_all_nodes() {
    meet("row_locks", &ROW_LOCKS);
}

/// As PostgreSQL's table of conflicting table-level locks has it, for what LOCK TABLE and statements take.
const TABLE_LOCKS: [(&str, &str, Verdict); 16] = [
    ("LOCK alone IN ACCESS SHARE MODE", "UPDATE alone SET x = 1", Fine),
    ("LOCK alone IN ACCESS SHARE MODE", "LOCK alone IN ACCESS EXCLUSIVE MODE", Loses),
    ("LOCK alone IN ROW SHARE MODE", "LOCK alone IN SHARE UPDATE EXCLUSIVE MODE", Fine),
    ("LOCK alone IN ROW SHARE MODE", "LOCK alone IN EXCLUSIVE MODE", Loses),
    ("LOCK alone IN ROW EXCLUSIVE MODE", "LOCK alone IN SHARE MODE", Loses),
    ("LOCK alone IN ROW EXCLUSIVE MODE", "UPDATE alone SET x = 2", Fine),
    ("LOCK alone IN SHARE UPDATE EXCLUSIVE MODE", "LOCK alone IN SHARE UPDATE EXCLUSIVE MODE", Loses),
    ("LOCK alone IN SHARE UPDATE EXCLUSIVE MODE", "UPDATE alone SET x = 3", Fine),
    ("LOCK alone IN SHARE UPDATE EXCLUSIVE MODE", "LOCK alone IN SHARE MODE", Loses),
    ("LOCK alone IN SHARE MODE", "UPDATE alone SET x = 4", Loses),
    ("LOCK alone IN SHARE ROW EXCLUSIVE MODE", "LOCK alone IN SHARE ROW EXCLUSIVE MODE", Loses),
    ("LOCK alone IN EXCLUSIVE MODE", "SELECT FROM alone FOR SHARE", Loses),
    ("LOCK alone", "LOCK alone", Loses),
    ("LOCK parted IN SHARE MODE", "UPDATE parted SET x = 2", Loses),
    ("LOCK ONLY parted IN SHARE MODE", "UPDATE parted_1 SET x = 3", Fine),
    ("SAVEPOINT s; LOCK alone; ROLLBACK TO s", "UPDATE alone SET x = 5", Fine),
];

#[test]
fn a_table_lock_holds_on_all_nodes() {
    meet("table_locks", &TABLE_LOCKS);
}

/// The first commits and is applied where the second is; then that one commits.
fn meet(schema: &str, meetings: &[(&str, &str, Verdict)]) {
    let group = harness::shared_without_table_locks();
    group.execute(node(1), &format!("CREATE SCHEMA {schema}; {}", TABLES.replace("{s}", schema)));
    group.settle();
    let open = |number, statements: &str, log: &str| {
        let mut client = group.connect(node(number));
        let all = format!("SET search_path = {schema}; BEGIN; {statements}; INSERT INTO {log} DEFAULT VALUES");
        client.batch_execute(&all).unwrap_or_else(|error| panic!("{statements}: {}", describe(&error)));
        client
    };
    for (first, second, expected) in meetings {
        println!("{first} | {second}");
        let mut one = open(1, first, "first_log");
        let mut other = open(2, second, "second_log");
        one.batch_execute("COMMIT").unwrap();
        group.settle();
        let result = other.batch_execute("COMMIT");
        match (&result, expected) {
            (Ok(()), Fine) => {}
            (Err(error), Loses) if error.code().is_some_and(|code| code.code() == "40001") => {}
            _ => panic!("{first} | {second}: {result:?}, expected {expected:?}"),
        }
        group.settle();
    }
    harness::assert_equal(&group);
}

/// Counts under a lock, on all nodes at once: nobody may count what another is about to change.
#[test]
fn a_row_that_all_lock_first_serves_as_a_mutex_of_the_group() {
    let group = harness::shared_without_table_locks();
    group.execute(
        node(1),
        "CREATE TABLE mutex (id int PRIMARY KEY); INSERT INTO mutex VALUES (1);
         CREATE TABLE limited (id serial PRIMARY KEY)",
    );
    group.settle();
    std::thread::scope(|scope| {
        for number in [1, 2, 3, 1, 2, 3] {
            let group = &group;
            scope.spawn(move || take_until_full(group, number));
        }
    });
    group.settle();
    assert_eq!(group.values("SELECT count(*) FROM limited"), ["20"; 3]);
}

fn take_until_full(group: &Group, number: usize) {
    let mut client = group.connect(node(number));
    loop {
        let mut transaction = client.transaction().unwrap();
        let done = (|| {
            transaction.execute("SELECT FROM mutex FOR UPDATE", &[])?;
            let full: bool = transaction.query_one("SELECT count(*) >= 20 FROM limited", &[])?.get(0);
            if !full {
                transaction.execute("INSERT INTO limited DEFAULT VALUES", &[])?;
            }
            Ok::<bool, postgres::Error>(full)
        })();
        match done.and_then(|full| transaction.commit().map(|()| full)) {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                let code = error.code().map(|code| code.code().to_owned());
                assert!(matches!(code.as_deref(), Some("40001" | "40P01")), "{}", describe(&error));
            }
        }
    }
}

#[test]
fn a_view_is_locked_as_the_tables_that_it_shows() {
    let group = harness::shared_without_table_locks();
    group.execute(node(1), "CREATE TABLE shown (id int PRIMARY KEY); CREATE VIEW locked_view AS TABLE shown");
    group.settle();
    let (mut one, mut two) = (group.connect(node(1)), group.connect(node(2)));
    one.batch_execute("BEGIN; LOCK locked_view; INSERT INTO shown VALUES (1)").unwrap();
    two.batch_execute("BEGIN; INSERT INTO shown VALUES (2)").unwrap();
    one.batch_execute("COMMIT").unwrap();
    let error = two.batch_execute("COMMIT").unwrap_err();
    assert_eq!(error.code().map_or("40001", |code| code.code()), "40001", "{}", describe(&error));
}
